#include "backend/slatedb/format/block_write.h"

#include <assert.h>
#include <string.h>

#include "base/grow.h"

void sf__block_writer_init(sf_block_writer *w, size_t block_bytes, const sf_allocator *a)
{
    assert(block_bytes >= SF_BLOCK_BYTES_MIN && block_bytes <= SF_BLOCK_BYTES_MAX);
    *w = (sf_block_writer){.alloc = a, .block_bytes = block_bytes};
}

void sf__block_writer_cleanup(sf_block_writer *w)
{
    if (!w->alloc)
        return;
    sf__free(w->alloc, w->buf);
    sf__free(w->alloc, w->last_key);
    *w = (sf_block_writer){0};
}

static size_t shared_len(sf_bytes a, sf_bytes b)
{
    size_t n = a.n < b.n ? a.n : b.n, i = 0;

    for (; i + 8 <= n; i += 8) {
        uint64_t x, y;

        memcpy(&x, a.p + i, 8);
        memcpy(&y, b.p + i, 8);
        if (x != y)
            break; /* the byte is found below */
    }
    while (i < n && a.p[i] == b.p[i])
        i++;
    return i;
}

static size_t varint_len(size_t v)
{
    return v < 1u << 7 ? 1 : v < 1u << 14 ? 2 : v < 1u << 21 ? 3 : v < 1u << 28 ? 4 : 5;
}

static uint8_t *put_varint(uint8_t *p, size_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

static uint8_t *put_bytes(uint8_t *p, const uint8_t *from, size_t n)
{
    if (n > 0)
        memcpy(p, from, n);
    return p + n;
}

static sf_status reserve(const sf_allocator *a, uint8_t **p, size_t *cap, size_t need, sf_error *err)
{
    return SF_RESERVE(a, p, cap, need) ? SF_OK : sf_fail(err, SF_NOMEM, "block of %zu bytes", need);
}

sf_status sf__block_writer_add(sf_block_writer *w, const sf_block_row *row, bool *full, sf_error *err)
{
    bool restart = w->rows % SF_BLOCK_RESTART_INTERVAL == 0;
    size_t shared = restart ? 0 : shared_len(row->key, sf__block_writer_last_key(w)), suffix = row->key.n - shared;
    size_t times = ((row->flags & SF_ROW_HAS_EXPIRE) ? 8u : 0u) + ((row->flags & SF_ROW_HAS_CREATE) ? 8u : 0u);
    size_t lengths = varint_len(shared) + varint_len(suffix) + varint_len(row->value.n);
    size_t n = lengths + suffix + row->value.n + 8 + 1 + times;
    size_t trailer = 2 * ((size_t)w->restart_count + (restart ? 1 : 0)) + 2;
    uint8_t *p;

    assert(row->key.n > 0);
    *full = w->rows > 0 && w->n + n + trailer > w->block_bytes;
    if (*full)
        return SF_OK;
    if (reserve(w->alloc, &w->buf, &w->cap, w->n + n > w->block_bytes ? w->n + n : w->block_bytes, err) != SF_OK ||
        reserve(w->alloc, &w->last_key, &w->last_cap, row->key.n, err) != SF_OK)
        return SF_NOMEM;
    if (restart)
        w->restarts[w->restart_count++] = (uint16_t)w->n;
    p = put_varint(w->buf + w->n, shared);
    p = put_varint(p, suffix);
    p = put_varint(p, row->value.n);
    p = put_bytes(p, row->key.p + shared, suffix);
    p = put_bytes(p, row->value.p, row->value.n);
    sf_store_be(p, 8, row->seq);
    p[8] = row->flags;
    p += 9;
    if (row->flags & SF_ROW_HAS_EXPIRE) {
        sf_store_be(p, 8, (uint64_t)row->expire_ts);
        p += 8;
    }
    if (row->flags & SF_ROW_HAS_CREATE)
        sf_store_be(p, 8, (uint64_t)row->create_ts);
    w->n += n;
    w->rows++;
    memcpy(w->last_key + shared, row->key.p + shared, suffix);
    w->last_len = row->key.n;
    return SF_OK;
}

sf_status sf__block_writer_finish(sf_block_writer *w, sf_bytes *plain, sf_error *err)
{
    size_t n = w->n;

    assert(w->rows > 0);
    if (reserve(w->alloc, &w->buf, &w->cap, n + 2 * (size_t)w->restart_count + 2, err) != SF_OK)
        return SF_NOMEM;
    for (uint32_t i = 0; i < w->restart_count; i++, n += 2)
        sf_store_be(w->buf + n, 2, w->restarts[i]);
    sf_store_be(w->buf + n, 2, w->restart_count);
    *plain = (sf_bytes){w->buf, n + 2};
    w->n = 0;
    w->rows = 0;
    w->restart_count = 0;
    return SF_OK;
}
