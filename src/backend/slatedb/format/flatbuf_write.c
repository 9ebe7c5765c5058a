#include "backend/slatedb/format/flatbuf_write.h"

#include <assert.h>

#include "base/grow.h"

/* Offsets are 32 bit, vtable distances signed. */
#define FB_MAX_BYTES ((size_t)INT32_MAX)
/* A table stands here modulo 8, behind its 4 byte offset to the vtable its fields are aligned by falling size. */
#define TABLE_REST 4u

void sf__fb_writer_init(sf_fb_writer *w, sf_bytes prefix, const sf_allocator *a)
{
    *w = (sf_fb_writer){.alloc = a};
    w->cap = prefix.n + 256;
    w->p = sf__alloc(a, w->cap);
    w->failed = !w->p;
    if (w->failed)
        return;
    if (prefix.n > 0)
        memcpy(w->p, prefix.p, prefix.n);
    memset(w->p + prefix.n, 0, 4); /* the offset of the root */
    w->start = prefix.n;
    w->n = prefix.n + 4;
}

void sf__fb_writer_cleanup(sf_fb_writer *w)
{
    if (w->alloc)
        sf__free(w->alloc, w->p);
    *w = (sf_fb_writer){0};
}

bool sf__fb_ok(const sf_fb_writer *w)
{
    return !w->failed;
}

/* n zeroed bytes; their position. */
static size_t put_zeroes(sf_fb_writer *w, size_t n)
{
    size_t pos = w->n - w->start;

    if (w->failed || n > FB_MAX_BYTES - pos) {
        w->failed = true;
        return 0;
    }
    w->failed = !SF_RESERVE(w->alloc, &w->p, &w->cap, w->n + n);
    if (w->failed)
        return 0;
    memset(w->p + w->n, 0, n);
    w->n += n;
    return pos;
}

static void align(sf_fb_writer *w, size_t to, size_t rest)
{
    size_t pos = w->n - w->start;

    put_zeroes(w, (rest + to - pos % to) % to);
}

static void store(sf_fb_writer *w, size_t pos, size_t n, uint64_t v)
{
    if (!w->failed)
        sf_store_le(w->p + w->start + pos, n, v);
}

/* References point forwards only. */
static void point(sf_fb_writer *w, size_t ref, size_t to)
{
    store(w, ref, 4, to - ref);
}

sf_fb_layout sf__fb_layout(const uint8_t *sizes, unsigned count)
{
    sf_fb_layout l = {.count = (uint16_t)count, .inline_len = 4};

    assert(count <= SF_FB_MAX_FIELDS);
    for (uint8_t size = 8; size > 0; size /= 2)
        for (unsigned i = 0; i < count; i++)
            if (sizes[i] == size) {
                l.size[i] = size;
                l.off[i] = l.inline_len;
                l.inline_len = (uint16_t)(l.inline_len + size);
            }
    return l;
}

size_t sf__fb_put_vtable(sf_fb_writer *w, const sf_fb_layout *l)
{
    size_t pos;

    align(w, 2, 0);
    pos = put_zeroes(w, 4 + 2 * (size_t)l->count);
    store(w, pos, 2, 4 + 2 * (uint64_t)l->count);
    store(w, pos + 2, 2, l->inline_len);
    for (unsigned i = 0; i < l->count; i++)
        store(w, pos + 4 + 2 * (size_t)i, 2, l->off[i]);
    return pos;
}

size_t sf__fb_put_table(sf_fb_writer *w, const sf_fb_layout *l, size_t vtable, size_t ref)
{
    size_t pos;

    align(w, 8, TABLE_REST);
    pos = put_zeroes(w, l->inline_len);
    store(w, pos, 4, pos - vtable);
    point(w, ref, pos);
    return pos;
}

void sf__fb_set(sf_fb_writer *w, const sf_fb_layout *l, size_t table, unsigned id, uint64_t v)
{
    assert(id < l->count && l->off[id] != 0);
    store(w, table + l->off[id], l->size[id], v);
}

static void put_vector(sf_fb_writer *w, size_t ref, sf_bytes v, size_t more)
{
    size_t pos;

    align(w, 4, 0);
    if (v.n > FB_MAX_BYTES - 8) {
        w->failed = true;
        return;
    }
    pos = put_zeroes(w, 4 + v.n + more);
    store(w, pos, 4, v.n);
    point(w, ref, pos);
    if (!w->failed && v.n > 0)
        memcpy(w->p + w->start + pos + 4, v.p, v.n);
}

void sf__fb_put_bytes(sf_fb_writer *w, size_t ref, sf_bytes v)
{
    put_vector(w, ref, v, 0);
}

void sf__fb_put_string(sf_fb_writer *w, size_t ref, sf_bytes v)
{
    put_vector(w, ref, v, 1);
}

size_t sf__fb_put_tables(sf_fb_writer *w, size_t ref, size_t count)
{
    size_t pos;

    align(w, 4, 0);
    if (count > FB_MAX_BYTES / 4 - 1) {
        w->failed = true;
        return 0;
    }
    pos = put_zeroes(w, 4 + 4 * count);
    store(w, pos, 4, count);
    point(w, ref, pos);
    return pos + 4;
}
