#include "backend/slatedb/wal.h"

#include <stdlib.h>

#include "backend/slatedb/format/block.h"
#include "backend/slatedb/format/index.h"
#include "backend/slatedb/format/sst_info.h"
#include "base/grow.h"
#include "base/limits.h"

/* ------------------------------------------------------------------ one object ----------------------------------- */

static bool copy_to(sf_arena *arena, sf_bytes from, sf_bytes *out)
{
    uint8_t *p = NULL;

    if (from.n > 0) {
        p = sf__arena_alloc(arena, from.n);
        if (!p)
            return false;
        memcpy(p, from.p, from.n);
    }
    *out = sf_bytes_of(p, from.n);
    return true;
}

static sf_status row_add(sf_wal_rows *w, const sf_block_row *row, const sf_allocator *a, sf_error *err)
{
    sf_mem_row *r;

    if (!SF_RESERVE(a, &w->rows, &w->cap, w->count + 1))
        return sf_fail(err, SF_NOMEM, "%zu rows of a WAL object", w->count + 1);
    r = &w->rows[w->count];
    *r = (sf_mem_row){.seq = row->seq, .flags = row->flags};
    if (row->key.n > SF_LIMIT_WAL_BYTES || row->value.n > SF_LIMIT_WAL_BYTES ||
        w->bytes + row->key.n + row->value.n > SF_LIMIT_WAL_BYTES)
        return sf_fail(err, SF_UNSUPPORTED, "the rows of a WAL object take more than %u bytes", SF_LIMIT_WAL_BYTES);
    if (!copy_to(&w->arena, row->key, &r->key) || !copy_to(&w->arena, row->value, &r->value))
        return sf_fail(err, SF_NOMEM, "row of a WAL object");
    w->min_seq = w->count == 0 || row->seq < w->min_seq ? row->seq : w->min_seq;
    w->max_seq = w->count == 0 || row->seq > w->max_seq ? row->seq : w->max_seq;
    w->bytes += row->key.n + row->value.n;
    w->count++;
    return SF_OK;
}

static sf_status block_rows(sf_wal_rows *w, sf_bytes plain, unsigned version, uint64_t after_seq,
                            sf_block_cursor *cursor, const sf_allocator *a, sf_error *err)
{
    sf_block block;
    sf_status rc = sf__block_check(plain, version, err);

    if (rc == SF_OK)
        rc = sf__block_init(&block, plain, version, err);
    if (rc != SF_OK)
        return rc;
    sf__block_cursor_set(cursor, &block);
    for (rc = sf__block_cursor_first(cursor, err); rc == SF_OK && cursor->valid; rc = sf__block_cursor_next(cursor, err)) {
        if (cursor->row.seq <= after_seq)
            continue;
        rc = row_add(w, &cursor->row, a, err);
        if (rc != SF_OK)
            return rc;
    }
    return rc;
}

static sf_status blocks_decode(sf_wal_rows *w, sf_bytes object, const sf_sst_info *info, const sf_index *index,
                               unsigned version, uint64_t after_seq, sf_plain_room *room, const sf_allocator *a,
                               sf_error *err)
{
    sf_block_cursor cursor;
    sf_status rc = SF_OK;

    sf__block_cursor_init(&cursor, a);
    for (uint32_t i = 0; rc == SF_OK && i < index->count; i++) {
        sf_bytes stored, plain;
        sf_buf *buf = NULL;

        if (sf_bytes_slice(object, sf__index_block_off(index, i), sf__index_block_len(index, i), &stored))
            rc = sf__stored_block_view(room, stored, info->codec, SF_LIMIT_BLOCK_BYTES, a, &plain, &buf, err);
        else
            rc = sf_fail(err, SF_CORRUPT, "lies outside of the object");
        if (rc == SF_OK)
            rc = block_rows(w, plain, version, after_seq, &cursor, a, err);
        sf__buf_release(buf);
        if (rc != SF_OK)
            sf_error_prefix(err, rc, "data block at %llu: ", (unsigned long long)sf__index_block_off(index, i));
    }
    sf__block_cursor_cleanup(&cursor);
    return rc;
}

static sf_status index_decode(sf_index *index, sf_bytes object, const sf_sst_info *info, sf_plain_room *room,
                              const sf_allocator *a, sf_error *err)
{
    sf_bytes stored, plain;
    sf_buf *buf = NULL;
    sf_status rc;

    if (sf_bytes_slice(object, info->index_off, info->index_len, &stored))
        rc = sf__stored_block_view(room, stored, info->codec, SF_LIMIT_META_BYTES, a, &plain, &buf, err);
    else
        rc = sf_fail(err, SF_CORRUPT, "lies outside of the object");
    if (rc == SF_OK)
        rc = sf__index_decode(index, plain, sf__sst_blocks_end(info), a, err);
    sf__buf_release(buf);
    return rc == SF_OK ? SF_OK : sf_error_prefix(err, rc, "index at %llu: ", (unsigned long long)info->index_off);
}

sf_status sf__wal_decode(sf_wal_rows *out, sf_bytes object, uint64_t after_seq, sf_plain_room *room,
                         const sf_allocator *a, sf_error *err)
{
    sf_wal_rows w = {0};
    sf_sst_info info;
    sf_sst_footer footer;
    sf_index index = {0};
    bool empty;
    sf_status rc = sf__sst_open(&info, &footer, &empty, object, err);

    *out = (sf_wal_rows){0};
    if (rc != SF_OK || empty) /* empty: the fence marker of a writer */
        return rc;
    if (info.index_len == 0)
        return SF_OK;
    sf__arena_init(&w.arena, a);
    rc = index_decode(&index, object, &info, room, a, err);
    if (rc == SF_OK)
        rc = blocks_decode(&w, object, &info, &index, footer.version, after_seq, room, a, err);
    sf__index_cleanup(&index, a);
    if (rc == SF_OK)
        *out = w;
    else
        sf__wal_rows_cleanup(&w, a);
    return rc;
}

void sf__wal_rows_cleanup(sf_wal_rows *w, const sf_allocator *a)
{
    if (w->arena.alloc)
        sf__arena_cleanup(&w->arena);
    sf__free(a, w->rows);
    *w = (sf_wal_rows){0};
}

/* ------------------------------------------------------------------ all objects ---------------------------------- */

struct sortable {
    const sf_mem_row *row;
    size_t order; /* as written: of two rows with one sequence number the later counts */
};

static int sortable_cmp(const void *pa, const void *pb)
{
    const struct sortable *a = pa, *b = pb;
    int c = sf_bytes_cmp(a->row->key, b->row->key);

    if (c != 0)
        return c;
    if (a->row->seq != b->row->seq)
        return a->row->seq > b->row->seq ? -1 : 1;
    return (a->order < b->order) - (a->order > b->order);
}

static sf_status sequences_check(const sf_wal_rows *const *objects, size_t count, uint64_t *max_seq, sf_error *err)
{
    bool any = false;

    *max_seq = 0;
    for (size_t i = 0; i < count; i++) {
        if (objects[i]->count == 0)
            continue;
        if (any && objects[i]->min_seq <= *max_seq)
            return sf_fail(err, SF_CORRUPT, "WAL object %zu of %zu begins with sequence number %llu, after %llu", i + 1,
                           count, (unsigned long long)objects[i]->min_seq, (unsigned long long)*max_seq);
        *max_seq = objects[i]->max_seq;
        any = true;
    }
    return SF_OK;
}

static uint8_t *pack(uint8_t *to, sf_bytes *span)
{
    if (span->n > 0)
        memcpy(to, span->p, span->n);
    span->p = to;
    return to + span->n;
}

/* `rows` sorted; the first of each key stays. */
static sf_status pack_rows(sf_memtable *m, const struct sortable *rows, size_t count, const sf_allocator *a, sf_error *err)
{
    size_t distinct = 0, bytes = 0;
    uint8_t *to;

    for (size_t i = 0; i < count; i++) {
        if (i > 0 && sf_bytes_eq(rows[i].row->key, rows[i - 1].row->key))
            continue;
        distinct++;
        bytes += rows[i].row->key.n + rows[i].row->value.n;
    }
    m->rows = sf__calloc(a, distinct, sizeof(*m->rows));
    m->bytes = sf__buf_new(a, bytes);
    if (!m->rows || !m->bytes)
        return sf_fail(err, SF_NOMEM, "%zu rows of the WAL", distinct);
    to = m->bytes->data;
    for (size_t i = 0; i < count; i++) {
        sf_mem_row *r = &m->rows[m->count];

        if (i > 0 && sf_bytes_eq(rows[i].row->key, rows[i - 1].row->key))
            continue;
        *r = *rows[i].row;
        to = pack(to, &r->key);
        to = pack(to, &r->value);
        m->count++;
    }
    return SF_OK;
}

sf_status sf__memtable_build(sf_memtable **out, const sf_wal_rows *const *objects, size_t count, const sf_allocator *a,
                             sf_error *err)
{
    uint64_t max_seq;
    struct sortable *rows;
    size_t total = 0, n = 0;
    sf_memtable *m;
    sf_status rc = sequences_check(objects, count, &max_seq, err);

    *out = NULL;
    for (size_t i = 0; i < count; i++)
        total += objects[i]->count;
    if (rc != SF_OK || total == 0)
        return rc;
    rows = sf__calloc(a, total, sizeof(*rows));
    m = sf__calloc(a, 1, sizeof(*m));
    if (!rows || !m) {
        sf__free(a, rows);
        sf__free(a, m);
        return sf_fail(err, SF_NOMEM, "%zu rows of the WAL", total);
    }
    m->max_seq = max_seq;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < objects[i]->count; j++, n++)
            rows[n] = (struct sortable){&objects[i]->rows[j], n};
    qsort(rows, total, sizeof(*rows), sortable_cmp);
    rc = pack_rows(m, rows, total, a, err);
    sf__free(a, rows);
    if (rc == SF_OK)
        *out = m;
    else
        sf__memtable_free(m, a);
    return rc;
}

void sf__memtable_free(sf_memtable *m, const sf_allocator *a)
{
    if (!m)
        return;
    sf__free(a, m->rows);
    sf__buf_release(m->bytes);
    sf__free(a, m);
}

size_t sf__memtable_resident_bytes(const sf_memtable *m)
{
    return m ? sizeof(*m) + m->count * sizeof(*m->rows) + sizeof(*m->bytes) + m->bytes->cap : 0;
}

size_t sf__memtable_lower_bound(const sf_memtable *m, sf_bytes key)
{
    size_t lo = 0, hi = m->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (sf_bytes_cmp(m->rows[mid].key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}
