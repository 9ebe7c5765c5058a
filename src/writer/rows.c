#include "writer/rows.h"

#include <string.h>

#include "base/grow.h"

/* Below this many entries comparing beats counting. */
#define RADIX_MIN 192u
#define INSERTION_MAX 12u
/* Keys that still agree after this many nested ranges are sorted by comparing: recursion stays shallow. */
#define DEPTH_MAX 48u
/* How many rows ahead memory is asked for: rows lie in the order of adding, so every one is a cache miss. */
#define PREFETCH_ROWS 16u
#define CACHE_LINE 64u

/* ------------------------------------------------------------------ memory --------------------------------------- */

void sf__rows_init(sf_rows *r, size_t chunk_bytes, const sf_allocator *a)
{
    *r = (sf_rows){.alloc = a};
    while (((size_t)1 << r->chunk_shift) < chunk_bytes)
        r->chunk_shift++;
}

void sf__rows_cleanup(sf_rows *r)
{
    for (uint32_t i = 0; i < r->chunk_count; i++)
        if (r->chunk_is_own[i])
            sf__free(r->alloc, r->chunks[i]);
    sf__free(r->alloc, r->chunks);
    sf__free(r->alloc, r->chunk_is_own);
    sf__free(r->alloc, r->entries);
    *r = (sf_rows){.alloc = r->alloc};
}

static size_t packed_bytes(size_t key_len, size_t value_len)
{
    return (sizeof(sf_packed_row) + key_len + value_len + 7) & ~(size_t)7;
}

/* Room for `n` more chunk pointers; place in the chunks is a 32 bit number of 8 byte units. */
static bool chunks_reserve(sf_rows *r, uint64_t n)
{
    uint64_t cap = r->chunk_cap ? r->chunk_cap : 16;
    uint8_t **p;
    bool *own;

    if ((r->chunk_used + n) << r->chunk_shift > (uint64_t)UINT32_MAX << 3)
        return false;
    if (r->chunk_count + n <= r->chunk_cap)
        return true;
    while (cap < r->chunk_count + n)
        cap *= 2;
    p = sf__realloc(r->alloc, r->chunks, (size_t)cap * sizeof(*p));
    if (!p)
        return false;
    r->chunks = p;
    own = sf__realloc(r->alloc, r->chunk_is_own, (size_t)cap * sizeof(*own));
    if (!own)
        return false;
    r->chunk_is_own = own;
    r->chunk_cap = (uint32_t)cap;
    return true;
}

/* Makes chunk number chunk_used the current one; it takes `n` neighbours. */
static bool chunk_begin(sf_rows *r, uint64_t n)
{
    uint8_t *bytes;

    if (n == 1 && r->chunk_used < r->chunk_count) { /* left over from before a clear */
        r->chunk_used++;
        r->chunk_pos = 0;
        return true;
    }
    if (!chunks_reserve(r, n))
        return false;
    bytes = sf__alloc(r->alloc, (size_t)n << r->chunk_shift);
    if (!bytes)
        return false;
    /* unused ones stay behind */
    memmove(r->chunks + r->chunk_used + n, r->chunks + r->chunk_used,
            (r->chunk_count - r->chunk_used) * sizeof(*r->chunks));
    memmove(r->chunk_is_own + r->chunk_used + n, r->chunk_is_own + r->chunk_used,
            (r->chunk_count - r->chunk_used) * sizeof(*r->chunk_is_own));
    for (uint64_t i = 0; i < n; i++) {
        r->chunks[r->chunk_used + i] = bytes + (i << r->chunk_shift);
        r->chunk_is_own[r->chunk_used + i] = i == 0;
    }
    r->chunk_count += (uint32_t)n;
    r->chunk_used += (uint32_t)n;
    r->chunk_pos = 0;
    return true;
}

static bool entries_reserve(sf_rows *r)
{
    return SF_RESERVE(r->alloc, &r->entries, &r->cap, r->count + 1);
}

bool sf__rows_add(sf_rows *r, uint32_t group, sf_bytes key, sf_bytes value)
{
    size_t chunk_bytes = (size_t)1 << r->chunk_shift, n = packed_bytes(key.n, value.n), at;
    uint32_t first;
    sf_packed_row *p;

    if (!entries_reserve(r))
        return false;
    if (n > chunk_bytes) {
        if (!chunk_begin(r, (n + chunk_bytes - 1) >> r->chunk_shift))
            return false;
        first = r->chunk_used - (uint32_t)((n + chunk_bytes - 1) >> r->chunk_shift);
        at = 0;
        r->chunk_pos = chunk_bytes; /* nothing follows in it */
    } else {
        if ((r->chunk_used == 0 || n > chunk_bytes - r->chunk_pos) && !chunk_begin(r, 1))
            return false;
        first = r->chunk_used - 1;
        at = r->chunk_pos;
        r->chunk_pos += n;
    }
    p = (sf_packed_row *)(r->chunks[first] + at);
    p->key_len = (uint32_t)key.n;
    p->value_len = (uint32_t)value.n;
    if (key.n > 0)
        memcpy(p->bytes, key.p, key.n);
    if (value.n > 0)
        memcpy(p->bytes + key.n, value.p, value.n);
    r->entries[r->count++] = (sf_row_entry){
        .head = sf__key_head(key, 0),
        .row = (uint32_t)((((uint64_t)first << r->chunk_shift) + at) >> 3),
        .group = group,
    };
    if (group >= r->groups)
        r->groups = group + 1;
    return true;
}

static size_t rows_bytes(const sf_rows *r)
{
    return ((size_t)r->chunk_used << r->chunk_shift) + 2 * r->count * sizeof(sf_row_entry);
}

size_t sf__rows_bytes_with(const sf_rows *r, size_t key_len, size_t value_len)
{
    size_t chunk_bytes = (size_t)1 << r->chunk_shift, n = packed_bytes(key_len, value_len), more = 0;

    if (r->chunk_used == 0 || n > chunk_bytes - r->chunk_pos)
        more = (n + chunk_bytes - 1) & ~(chunk_bytes - 1);
    return rows_bytes(r) + more + 2 * sizeof(sf_row_entry);
}

void sf__rows_clear(sf_rows *r)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < r->chunk_count;) {
        uint32_t next = i + 1;

        while (next < r->chunk_count && !r->chunk_is_own[next])
            next++;
        if (next - i == 1) {
            r->chunks[kept] = r->chunks[i];
            r->chunk_is_own[kept++] = true;
        } else {
            sf__free(r->alloc, r->chunks[i]);
        }
        i = next;
    }
    r->chunk_count = kept;
    r->chunk_used = 0;
    r->chunk_pos = 0;
    r->count = 0;
}

/* ------------------------------------------------------------------ order ---------------------------------------- */

void sf__rows_by_group(sf_rows *r, size_t *off, uint32_t groups, sf_row_entry *scratch)
{
    sf_row_entry *sorted = scratch;
    size_t sum = 0;

    memset(off, 0, ((size_t)groups + 1) * sizeof(*off));
    for (size_t i = 0; i < r->count; i++)
        off[r->entries[i].group]++;
    for (uint32_t g = 0; g <= groups; g++) {
        size_t n = off[g];

        off[g] = sum;
        sum += n;
    }
    if (groups <= 1)
        return;
    for (size_t i = 0; i < r->count; i++)
        sorted[off[r->entries[i].group]++] = r->entries[i];
    for (uint32_t g = groups; g > 0; g--) /* each stands at its end now: where the next one begins */
        off[g] = off[g - 1];
    off[0] = 0;
    if (r->count > 0) /* without rows there is no array */
        memcpy(r->entries, sorted, r->count * sizeof(*sorted));
}

/* The first `depth` bytes of the two keys agree. */
static inline bool is_after(const sf_rows *r, const sf_row_entry *a, const sf_row_entry *b, size_t depth)
{
    const sf_packed_row *pa, *pb;
    size_t n;
    int c;

    if (a->head != b->head)
        return a->head > b->head;
    pa = sf__rows_at(r, a->row);
    pb = sf__rows_at(r, b->row);
    n = pa->key_len < pb->key_len ? pa->key_len : pb->key_len;
    if (n > depth + 8) {
        c = memcmp(pa->bytes + depth + 8, pb->bytes + depth + 8, n - depth - 8);
        if (c != 0)
            return c > 0;
    }
    return pa->key_len > pb->key_len;
}

static void insertion_sort(const sf_rows *r, sf_row_entry *e, size_t n, size_t depth)
{
    for (size_t i = 1; i < n; i++) {
        sf_row_entry x = e[i];
        size_t j = i;

        for (; j > 0 && is_after(r, &e[j - 1], &x, depth); j--)
            e[j] = e[j - 1];
        e[j] = x;
    }
}

static void merge_halves(const sf_rows *r, sf_row_entry *e, size_t half, size_t n, sf_row_entry *scratch, size_t depth)
{
    size_t i = 0, j = half, k = 0;

    if (!is_after(r, &e[half - 1], &e[half], depth)) /* in order already */
        return;
    memcpy(scratch, e, half * sizeof(*e));
    while (i < half && j < n)
        e[k++] = is_after(r, &scratch[i], &e[j], depth) ? e[j++] : scratch[i++];
    memcpy(e + k, scratch + i, (half - i) * sizeof(*e));
}

static void merge_sort(const sf_rows *r, sf_row_entry *e, size_t n, sf_row_entry *scratch, size_t depth)
{
    if (n <= INSERTION_MAX) {
        insertion_sort(r, e, n, depth);
        return;
    }
    merge_sort(r, e, n / 2, scratch, depth);
    merge_sort(r, e + n / 2, n - n / 2, scratch, depth);
    merge_halves(r, e, n / 2, n, scratch, depth);
}

/* By head, one byte after the other from the last: passes over bytes that all have alike are left out. */
static void radix_sort(sf_row_entry *e, size_t n, sf_row_entry *scratch)
{
    uint32_t counts[8][256];
    sf_row_entry *from = e, *to = scratch;

    memset(counts, 0, sizeof(counts));
    for (size_t i = 0; i < n; i++)
        for (unsigned b = 0; b < 8; b++)
            counts[b][e[i].head >> 8 * b & 0xff]++;
    for (unsigned b = 0; b < 8; b++) {
        uint32_t *count = counts[b], sum = 0;
        sf_row_entry *t;

        if (count[e[0].head >> 8 * b & 0xff] == n)
            continue;
        for (unsigned v = 0; v < 256; v++) {
            uint32_t c = count[v];

            count[v] = sum;
            sum += c;
        }
        for (size_t i = 0; i < n; i++)
            to[count[from[i].head >> 8 * b & 0xff]++] = from[i];
        t = from;
        from = to;
        to = t;
    }
    if (from != e)
        memcpy(e, from, n * sizeof(*e));
}

/* Heads are equal. Keys that end within the head come first, shorter before longer, each length in its old order.
 * Returns how many do. */
static size_t ended_first(const sf_rows *r, sf_row_entry *e, size_t n, sf_row_entry *scratch, size_t depth)
{
    size_t off[10] = {0}, sum = 0, ended;

    for (size_t i = 0; i < n; i++) {
        size_t len = sf__rows_at(r, e[i].row)->key_len;

        off[len > depth + 8 ? 9 : len - depth]++;
    }
    ended = n - off[9];
    if (ended == 0)
        return 0;
    for (unsigned k = 0; k < 10; k++) {
        size_t c = off[k];

        off[k] = sum;
        sum += c;
    }
    for (size_t i = 0; i < n; i++) {
        size_t len = sf__rows_at(r, e[i].row)->key_len;

        scratch[off[len > depth + 8 ? 9 : len - depth]++] = e[i];
    }
    memcpy(e, scratch, n * sizeof(*e));
    return ended;
}

/* All keys have at least `depth` bytes, and agree in them; the heads are those of `depth`. */
static void sort_range(const sf_rows *r, sf_row_entry *e, size_t n, sf_row_entry *scratch, size_t depth, unsigned nested)
{
    size_t end;

    if (n < RADIX_MIN || n > UINT32_MAX || nested > DEPTH_MAX) {
        merge_sort(r, e, n, scratch, depth);
        return;
    }
    for (;;) { /* while all heads agree the next 8 bytes decide */
        size_t ended;

        radix_sort(e, n, scratch);
        if (e[0].head != e[n - 1].head)
            break;
        ended = ended_first(r, e, n, scratch, depth);
        e += ended;
        n -= ended;
        depth += 8;
        if (n == 0)
            return;
        for (size_t i = 0; i < n; i++)
            e[i].head = sf__key_head(sf__packed_key(sf__rows_at(r, e[i].row)), depth);
    }
    for (size_t begin = 0; begin < n; begin = end) {
        size_t ended;

        for (end = begin + 1; end < n && e[end].head == e[begin].head;)
            end++;
        if (end - begin < RADIX_MIN) {
            if (end - begin > 1)
                merge_sort(r, e + begin, end - begin, scratch, depth);
            continue;
        }
        ended = ended_first(r, e + begin, end - begin, scratch, depth);
        begin += ended;
        for (size_t i = begin; i < end; i++)
            e[i].head = sf__key_head(sf__packed_key(sf__rows_at(r, e[i].row)), depth + 8);
        if (begin < end)
            sort_range(r, e + begin, end - begin, scratch, depth + 8, nested + 1);
    }
}

void sf__rows_sort(const sf_rows *r, sf_row_entry *e, size_t n, sf_row_entry *scratch)
{
    if (n > 1)
        sort_range(r, e, n, scratch, 0, 0);
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

/* The beginning of a row: lengths, key, and of most values something. */
static inline void prefetch(const sf_rows *r, const sf_row_entry *e)
{
    uintptr_t p = (uintptr_t)sf__rows_at(r, e->row);

    __builtin_prefetch((const void *)p);
    __builtin_prefetch((const void *)(p + CACHE_LINE)); /* harmless where nothing is */
}

sf_status sf__rows_next_key(const sf_rows *r, size_t *at, size_t end, sf_duplicate_rows *duplicates,
                            const sf_packed_row **out, sf_error *err)
{
    const sf_row_entry *e = r->entries;
    const sf_packed_row *p = sf__rows_at(r, e[*at].row), *q;

    for (++*at; *at < end; ++*at) {
        if (*at + PREFETCH_ROWS < end)
            prefetch(r, &e[*at + PREFETCH_ROWS]);
        q = sf__rows_at(r, e[*at].row);
        if (p->key_len != q->key_len || memcmp(p->bytes, q->bytes, p->key_len) != 0)
            break;
        if (sf__duplicates_add(duplicates, e[*at].group, sf__packed_key(q),
                               sf__row_number(duplicates, sf__packed_value(p)),
                               sf__row_number(duplicates, sf__packed_value(q)), err) != SF_OK)
            return SF_INVALID;
        p = q;
    }
    *out = p;
    return SF_OK;
}
