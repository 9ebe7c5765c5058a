#include "cache/slab.h"

#include <assert.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/poison.h"
#include "base/thread.h"

#define UNIT 64u /* chunks are so many bytes, and lie so: a line of the processor's cache */
#define UNITS ((uint32_t)(SF_SLAB_REGION_BYTES / UNIT))
#define BINS 64u
#define LOOKED_AT 16u /* free chunks of about the right size */

/*   region | chunk | chunk | ...    each chunk: its head, and what was asked for, or the links of a free one */
struct slab_chunk {
    uint32_t units, units_before; /* of it; of its neighbour, 0: it is the first */
    atomic_uint_fast64_t state; /* FREE, USED, or a mark in all bits but the lowest. That a chunk is free changes under the lock */
};

#define FREE UINT64_C(0)
#define USED UINT64_C(1)

static bool is_free(const struct slab_chunk *c)
{
    return atomic_load_explicit(&c->state, memory_order_relaxed) == FREE;
}

struct slab_free_chunk {
    struct slab_chunk head;
    struct slab_free_chunk *next, **link;
};

struct slab_region {
    uint32_t used;      /* units */
    atomic_bool marked; /* since marks were last taken */
    struct slab_region *next, **link;
};

static_assert(sizeof(struct slab_region) <= UNIT && sizeof(struct slab_free_chunk) <= UNIT, "heads fit into a unit");

struct sf_slab {
    sf_allocator allocator;    /* of chunks */
    const sf_allocator *alloc; /* of this */
    pid_t process;
    uint64_t max_free_bytes;
    atomic_uint_fast64_t free_bytes;
    sf_mutex lock;
    /* under lock */
    struct slab_region *regions;
    uint64_t region_count, refused_bytes;
    bool has_empty, closed;
    uint64_t filled;                    /* which bins have free chunks */
    struct slab_free_chunk *bins[BINS]; /* four for each power of two */
};

static uint32_t bin_of(uint32_t units)
{
    uint32_t log = 31 - (uint32_t)__builtin_clz(units);

    return units < 4 ? units : 4 * (log - 1) + (units >> (log - 2) & 3);
}

static struct slab_region *region_of(const void *p)
{
    return (struct slab_region *)((uintptr_t)p & ~(uintptr_t)(SF_SLAB_REGION_BYTES - 1));
}

static struct slab_chunk *chunk_at(struct slab_region *r, uint32_t unit)
{
    return (struct slab_chunk *)((uint8_t *)r + (size_t)unit * UNIT);
}

static uint32_t unit_of(const struct slab_chunk *c)
{
    return (uint32_t)(((uintptr_t)c & (SF_SLAB_REGION_BYTES - 1)) / UNIT);
}

static struct slab_chunk *chunk_after(struct slab_chunk *c)
{
    uint32_t at = unit_of(c) + c->units;

    return at < UNITS ? chunk_at(region_of(c), at) : NULL;
}

static void bin_add(sf_slab *s, struct slab_chunk *c)
{
    struct slab_free_chunk *f = (struct slab_free_chunk *)c;
    uint32_t bin = bin_of(c->units);

    atomic_store_explicit(&c->state, FREE, memory_order_relaxed);
    f->next = s->bins[bin];
    f->link = &s->bins[bin];
    if (f->next)
        f->next->link = &f->next;
    s->bins[bin] = f;
    s->filled |= UINT64_C(1) << bin;
    SF_POISON(f + 1, (size_t)c->units * UNIT - sizeof(*f));
}

static void bin_remove(sf_slab *s, struct slab_free_chunk *f)
{
    uint32_t bin = bin_of(f->head.units);

    *f->link = f->next;
    if (f->next)
        f->next->link = f->link;
    if (!s->bins[bin])
        s->filled &= ~(UINT64_C(1) << bin);
}

/* The best of some of about the right size, else a larger one. */
static struct slab_free_chunk *bin_find(sf_slab *s, uint32_t units)
{
    uint32_t bin = bin_of(units), looked_at = 0;
    uint64_t larger = s->filled & ~((UINT64_C(2) << bin) - 1);
    struct slab_free_chunk *best = NULL;

    for (struct slab_free_chunk *f = s->bins[bin]; f && looked_at < LOOKED_AT; f = f->next, looked_at++)
        if (f->head.units >= units && (!best || f->head.units < best->head.units))
            best = f;
    return best || larger == 0 ? best : s->bins[__builtin_ctzll(larger)];
}

/* ------------------------------------------------------------------ regions -------------------------------------- */

static struct slab_region *region_map(void)
{
    const size_t n = SF_SLAB_REGION_BYTES;
    uint8_t *p = mmap(NULL, 2 * n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *at;

    if (p == MAP_FAILED)
        return NULL;
    at = (uint8_t *)region_of(p + n - 1);
    if (at > p)
        munmap(p, (size_t)(at - p));
    if (at + n < p + 2 * n)
        munmap(at + n, (size_t)(p + 2 * n - (at + n)));
    madvise(at, n, MADV_HUGEPAGE);
    return (struct slab_region *)at;
}

static void region_unmap(struct slab_region *r)
{
    SF_UNPOISON(r, SF_SLAB_REGION_BYTES);
    munmap(r, SF_SLAB_REGION_BYTES);
}

static void region_add(sf_slab *s, struct slab_region *r)
{
    struct slab_chunk *c = chunk_at(r, 1);

    *r = (struct slab_region){.next = s->regions, .link = &s->regions};
    if (r->next)
        r->next->link = &r->next;
    s->regions = r;
    s->region_count++;
    s->has_empty = true;
    atomic_fetch_add_explicit(&s->free_bytes, SF_SLAB_REGION_BYTES, memory_order_relaxed);
    *c = (struct slab_chunk){.units = UNITS - 1};
    bin_add(s, c);
}

/* An empty one: all of it is one free chunk. */
static void region_remove(sf_slab *s, struct slab_region *r)
{
    bin_remove(s, (struct slab_free_chunk *)chunk_at(r, 1));
    *r->link = r->next;
    if (r->next)
        r->next->link = r->link;
    s->region_count--;
    atomic_fetch_sub_explicit(&s->free_bytes, SF_SLAB_REGION_BYTES, memory_order_relaxed);
}

/* ------------------------------------------------------------------ chunks --------------------------------------- */

static void *chunk_take(sf_slab *s, uint32_t units, size_t n)
{
    struct slab_free_chunk *f = bin_find(s, units);
    struct slab_chunk *c = (struct slab_chunk *)f, *rest, *after;
    struct slab_region *r;

    if (!f)
        return NULL;
    bin_remove(s, f);
    SF_UNPOISON(c, (size_t)units * UNIT);
    r = region_of(c);
    if (c->units > units) {
        rest = chunk_at(r, unit_of(c) + units);
        SF_UNPOISON(rest, sizeof(struct slab_free_chunk));
        *rest = (struct slab_chunk){.units = c->units - units, .units_before = units};
        after = chunk_after(rest);
        if (after)
            after->units_before = rest->units;
        bin_add(s, rest);
        c->units = units;
    }
    atomic_store_explicit(&c->state, USED, memory_order_relaxed);
    if (r->used == 0)
        s->has_empty = false;
    r->used += units;
    atomic_fetch_sub_explicit(&s->free_bytes, (uint64_t)units * UNIT, memory_order_relaxed);
    SF_POISON((uint8_t *)(c + 1) + n, (size_t)units * UNIT - sizeof(*c) - n);
    return c + 1;
}

static struct slab_chunk *merge(struct slab_chunk *c, struct slab_chunk *next)
{
    struct slab_chunk *after;

    c->units += next->units;
    after = chunk_after(c);
    if (after)
        after->units_before = c->units;
    return c;
}

static void chunk_free(sf_slab *s, struct slab_chunk *c)
{
    struct slab_region *r = region_of(c);
    struct slab_chunk *after = chunk_after(c),
                      *before = c->units_before > 0 ? chunk_at(r, unit_of(c) - c->units_before) : NULL;

    r->used -= c->units;
    atomic_fetch_add_explicit(&s->free_bytes, (uint64_t)c->units * UNIT, memory_order_relaxed);
    SF_UNPOISON(c, sizeof(struct slab_free_chunk));
    if (after && is_free(after)) {
        bin_remove(s, (struct slab_free_chunk *)after);
        c = merge(c, after);
    }
    if (before && is_free(before)) {
        bin_remove(s, (struct slab_free_chunk *)before);
        c = merge(before, c);
    }
    bin_add(s, c);
}

/* Whether one more region would not leave too much free. */
static bool may_grow(sf_slab *s, size_t n)
{
    if (s->refused_bytes < SF_SLAB_LATER_BYTES) {
        s->refused_bytes += n;
        return false;
    }
    return !s->closed && sf__slab_free_bytes(s) + SF_SLAB_REGION_BYTES <= s->max_free_bytes;
}

static void *slab_alloc(sf_slab *s, size_t n)
{
    uint32_t units = (uint32_t)((n + sizeof(struct slab_chunk) + UNIT - 1) / UNIT);
    struct slab_region *r;
    bool grow;
    void *p;

    sf_mutex_lock(&s->lock);
    p = chunk_take(s, units, n);
    grow = !p && may_grow(s, n);
    sf_mutex_unlock(&s->lock);
    r = grow ? region_map() : NULL;
    if (!r)
        return p;
    sf_mutex_lock(&s->lock);
    p = chunk_take(s, units, n);
    if (!p) { /* else another thread has added one, or freed enough */
        region_add(s, r);
        p = chunk_take(s, units, n);
        r = NULL;
    }
    sf_mutex_unlock(&s->lock);
    if (r)
        region_unmap(r);
    return p;
}

static void *slab_realloc(void *ctx, void *p, size_t n)
{
    sf_slab *s = ctx;

    return p || n > SF_SLAB_MAX_CHUNK_BYTES || getpid() != s->process ? NULL : slab_alloc(s, n);
}

static void slab_destroy(sf_slab *s)
{
    sf_mutex_destroy(&s->lock);
    sf__free(s->alloc, s);
}

static void slab_free(void *ctx, void *p)
{
    sf_slab *s = ctx;
    struct slab_region *r = region_of(p), *empty = NULL;
    bool last;

    if (getpid() != s->process)
        return; /* another thread of the parent may have held the lock */
    sf_mutex_lock(&s->lock);
    chunk_free(s, (struct slab_chunk *)p - 1);
    if (r->used == 0 && (s->has_empty || s->closed || sf__slab_free_bytes(s) > s->max_free_bytes)) {
        region_remove(s, r);
        empty = r;
    } else if (r->used == 0) {
        s->has_empty = true;
    }
    last = s->closed && s->region_count == 0;
    sf_mutex_unlock(&s->lock);
    if (empty)
        region_unmap(empty);
    if (last)
        slab_destroy(s);
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

sf_slab *sf__slab_new(uint64_t max_free_bytes, const sf_allocator *a)
{
    sf_slab *s = sf__calloc(a, 1, sizeof(*s));

    if (!s)
        return NULL;
    s->allocator = (sf_allocator){.size = sizeof(sf_allocator), .realloc = slab_realloc, .free = slab_free, .ctx = s};
    s->alloc = a;
    s->process = getpid();
    s->max_free_bytes = max_free_bytes;
    sf_mutex_init(&s->lock);
    return s;
}

void sf__slab_close(sf_slab *s)
{
    struct slab_region *empty = NULL;
    bool last;

    if (!s || getpid() != s->process)
        return;
    sf_mutex_lock(&s->lock);
    s->closed = true;
    for (struct slab_region *r = s->regions, *next; r; r = next) {
        next = r->next;
        if (r->used > 0)
            continue;
        region_remove(s, r);
        r->next = empty;
        empty = r;
    }
    last = s->region_count == 0;
    sf_mutex_unlock(&s->lock);
    for (struct slab_region *next; empty; empty = next) {
        next = empty->next;
        region_unmap(empty);
    }
    if (last)
        slab_destroy(s);
}

const sf_allocator *sf__slab_allocator(const sf_slab *s)
{
    return &s->allocator;
}

uint64_t sf__slab_free_bytes(const sf_slab *s)
{
    return atomic_load_explicit(&s->free_bytes, memory_order_relaxed);
}

const void *sf__slab_sparsest(sf_slab *s)
{
    const struct slab_region *found = NULL;

    sf_mutex_lock(&s->lock);
    for (const struct slab_region *r = s->regions; r; r = r->next)
        if (r->used > 0 && atomic_load_explicit(&r->marked, memory_order_relaxed) && (!found || r->used < found->used))
            found = r;
    sf_mutex_unlock(&s->lock);
    return found;
}

void sf__slab_mark(void *chunk, uint64_t mark)
{
    atomic_store_explicit(&((struct slab_chunk *)chunk - 1)->state, mark << 1 | USED, memory_order_relaxed);
    atomic_store_explicit(&region_of(chunk)->marked, true, memory_order_release);
}

size_t sf__slab_take_marks(sf_slab *s, const void *region, uint64_t *marks, size_t max)
{
    struct slab_region *r;
    size_t n = 0;

    sf_mutex_lock(&s->lock);
    r = s->regions;
    while (r && r != region)
        r = r->next;
    if (r)
        atomic_exchange_explicit(&r->marked, false,
                                 memory_order_acquire); /* first: a mark that comes meanwhile is one for later */
    for (struct slab_chunk *c = r ? chunk_at(r, 1) : NULL; c && n < max; c = chunk_after(c))
        if (atomic_load_explicit(&c->state, memory_order_relaxed) > USED) /* and it is not free: that takes the lock */
            marks[n++] = atomic_exchange_explicit(&c->state, USED, memory_order_relaxed) >> 1;
    if (n == max)
        atomic_store_explicit(&r->marked, true, memory_order_release); /* there may be more */
    sf_mutex_unlock(&s->lock);
    return n;
}

void sf__slab_get_stats(sf_slab *s, sf_slab_stats *out)
{
    sf_mutex_lock(&s->lock);
    *out = (sf_slab_stats){.regions = s->region_count};
    out->used_bytes = s->region_count * SF_SLAB_REGION_BYTES - sf__slab_free_bytes(s);
    sf_mutex_unlock(&s->lock);
}
