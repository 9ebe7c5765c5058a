#include "writer/shuffle.h"

#include "base/error.h"
#include "base/grow.h"
#include "base/limits.h"
#include "writer/partition.h"
#include "writer/shard_build.h"

#define HASH_BYTES 8u
#define HEADER_BYTES 28u
#define ROW_HEADER_BYTES 8u
#define MAGIC 0x32424653u /* "SFB2" */

/* A block that is being filled. */
struct open_block {
    uint8_t *p;
    size_t n, cap; /* n: 0, or with the header's room */
    uint32_t rows;
    sf_key_type key_type;
};

struct sf_shuffle {
    const sf_allocator *alloc;
    sf_partition partition;
    sf_cel_shards cel; /* partition.cel, if there is one */
    uint32_t num_dbs;
    size_t block_bytes;
    uint64_t rows; /* those that are left out among them */
    bool leaves_out;
    uint32_t left_out;       /* that no block tells of yet */
    struct open_block *open; /* by shard */
    /* complete */
    int32_t *db_ids, *off;
    uint8_t *bytes;
    size_t count, db_ids_cap, off_cap, bytes_n, bytes_cap;
    bool taken; /* they are forgotten before others are added */
};

/* ------------------------------------------------------------------ life ----------------------------------------- */

static sf_status init(sf_shuffle *s, const sf_shuffle_options *o, sf_error *err)
{
    sf_writer_options limits = {.backend = o->backend};
    sf_status rc = SF_OK;

    s->num_dbs = o->num_dbs;
    s->leaves_out = o->leave_out;
    s->block_bytes = o->block_bytes > HEADER_BYTES ? o->block_bytes : HEADER_BYTES;
    s->partition.encoding = o->key_encoding;
    s->partition.int64_keys = o->int64_keys;
    s->partition.limits = sf__shard_row_limits(&limits);
    if (o->cel) {
        rc = sf__cel_shards_init(&s->cel, o->cel, o->num_dbs, s->alloc, err);
        s->partition.cel = &s->cel;
        s->num_dbs = rc == SF_OK ? s->cel.num_dbs : 0;
    } else {
        rc = sf__router_init_hash(&s->partition.router, o->num_dbs, err);
    }
    if (rc != SF_OK)
        return rc;
    if (s->num_dbs == 0 || s->num_dbs > SF_LIMIT_SHARDS)
        return sf_fail(err, SF_INVALID, "rows go to shards whose number is known, from 1 to %u", SF_LIMIT_SHARDS);
    s->open = sf__calloc(s->alloc, s->num_dbs, sizeof(*s->open));
    if (!s->open || !SF_RESERVE(s->alloc, &s->off, &s->off_cap, 1))
        return sf_fail(err, SF_NOMEM, "rows of %u shards", s->num_dbs);
    s->off[0] = 0;
    return SF_OK;
}

sf_status sf__shuffle_new(sf_shuffle **out, const sf_shuffle_options *opts, const sf_allocator *a, sf_error *err)
{
    sf_shuffle *s = sf__calloc(a, 1, sizeof(*s));
    sf_status rc;

    if (!s)
        return sf_fail(err, SF_NOMEM, "rows of %u shards", opts->num_dbs);
    s->alloc = a;
    rc = init(s, opts, err);
    if (rc != SF_OK) {
        sf__shuffle_free(s);
        return rc;
    }
    *out = s;
    return SF_OK;
}

void sf__shuffle_free(sf_shuffle *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; s->open && i < s->num_dbs; i++)
        sf__free(s->alloc, s->open[i].p);
    sf__free(s->alloc, s->open);
    sf__free(s->alloc, s->db_ids);
    sf__free(s->alloc, s->off);
    sf__free(s->alloc, s->bytes);
    sf__cel_shards_cleanup(&s->cel);
    sf__free(s->alloc, s);
}

/* ------------------------------------------------------------------ blocks --------------------------------------- */

static void forget_taken(sf_shuffle *s)
{
    if (!s->taken)
        return;
    s->taken = false;
    s->count = s->bytes_n = 0;
}

static sf_status complete(sf_shuffle *s, uint32_t db_id, sf_error *err)
{
    struct open_block *b = &s->open[db_id];

    if (b->n == 0)
        return SF_OK;
    sf_store_le(b->p + 8, 4, MAGIC);
    sf_store_le(b->p + 12, 4, db_id);
    sf_store_le(b->p + 16, 4, b->rows);
    sf_store_le(b->p + 20, 4, (uint64_t)b->key_type);
    sf_store_le(b->p + 24, 4, s->left_out);
    sf_store_le(b->p, HASH_BYTES, sf__xxh3_64(sf_bytes_of(b->p + HASH_BYTES, b->n - HASH_BYTES)));
    if (b->n > INT32_MAX - s->bytes_n)
        return sf_fail(err, SF_BAD_ROW, "row %llu: the rows of one batch take more than 2 GiB: hand in smaller batches",
                       (unsigned long long)s->rows + 1);
    if (!SF_RESERVE(s->alloc, &s->bytes, &s->bytes_cap, s->bytes_n + b->n) ||
        !SF_RESERVE(s->alloc, &s->db_ids, &s->db_ids_cap, s->count + 1) ||
        !SF_RESERVE(s->alloc, &s->off, &s->off_cap, s->count + 2))
        return sf_fail(err, SF_NOMEM, "block of %zu bytes for shard %u", b->n, db_id);
    memcpy(s->bytes + s->bytes_n, b->p, b->n);
    s->bytes_n += b->n;
    s->db_ids[s->count++] = (int32_t)db_id;
    s->off[s->count] = (int32_t)s->bytes_n;
    s->left_out = 0;
    b->n = 0;
    b->rows = 0;
    if (b->cap > s->block_bytes) { /* one long row */
        sf__free(s->alloc, b->p);
        b->p = NULL;
        b->cap = 0;
    }
    return SF_OK;
}

static sf_status begin_block(sf_shuffle *s, uint32_t db_id, size_t rows_bytes, sf_key_type key_type, sf_error *err)
{
    struct open_block *b = &s->open[db_id];
    size_t room = HEADER_BYTES + rows_bytes > s->block_bytes ? HEADER_BYTES + rows_bytes : s->block_bytes;

    if (!SF_RESERVE(s->alloc, &b->p, &b->cap, room))
        return sf_fail(err, SF_NOMEM, "block of %zu bytes for shard %u", room, db_id);
    b->n = HEADER_BYTES;
    b->key_type = key_type;
    return SF_OK;
}

static sf_key_type type_in_block(const sf_key *key)
{
    return sf__key_is_int(key) ? SF_KEY_INT : key->type;
}

static void append(struct open_block *b, sf_bytes key, sf_bytes value)
{
    uint8_t *p = b->p + b->n;

    sf_store_le(p, 4, key.n);
    sf_store_le(p + 4, 4, value.n);
    if (key.n > 0)
        memcpy(p + ROW_HEADER_BYTES, key.p, key.n);
    if (value.n > 0)
        memcpy(p + ROW_HEADER_BYTES + key.n, value.p, value.n);
    b->n += ROW_HEADER_BYTES + key.n + value.n;
    b->rows++;
}

void sf__shuffle_leave_out(sf_shuffle *s, uint32_t count)
{
    s->rows += count;
    s->left_out += count;
}

static sf_status refuse_row(void *ctx, const sf_key *key, sf_status rc, sf_error *err)
{
    sf_shuffle *s = ctx;

    (void)key;
    if (!s->leaves_out || !sf__row_is_bad(rc))
        return rc;
    sf_error_clear(err);
    sf__shuffle_leave_out(s, 1);
    return SF_OK;
}

static sf_status place(sf_shuffle *s, const sf_key *key, sf_bytes value, sf_placed_row *row, sf_error *err)
{
    sf_status rc = sf__partition_place(&s->partition, key, value, s->rows + 1, row, err);

    if (rc == SF_OK && row->db_id >= s->num_dbs)
        return sf_fail(err, SF_NO_ROUTE, "row %llu: it belongs to shard %u, and there are %u",
                       (unsigned long long)s->rows + 1, row->db_id, s->num_dbs);
    return rc;
}

static sf_status add_row(void *ctx, const sf_key *key, sf_bytes value, sf_error *err)
{
    sf_shuffle *s = ctx;
    sf_placed_row row;
    struct open_block *b;
    size_t need;
    sf_status rc = place(s, key, value, &row, err);

    if (rc != SF_OK)
        return refuse_row(s, key, rc, err);
    need = ROW_HEADER_BYTES + row.key.n + value.n;
    b = &s->open[row.db_id];
    if (b->n > 0 && (b->n + need > s->block_bytes || b->key_type != type_in_block(key)))
        rc = complete(s, row.db_id, err);
    if (rc != SF_OK)
        return rc;
    if (b->n == 0)
        rc = begin_block(s, row.db_id, need, type_in_block(key), err);
    if (rc != SF_OK)
        return rc;
    append(b, row.key, value);
    s->rows++;
    return SF_OK;
}

sf_status sf__shuffle_add_arrow(sf_shuffle *s, struct ArrowArrayStream *stream, const char *key_column,
                                const sf_arrow_value *value, sf_error *err)
{
    sf_arrow_rows rows = {.alloc = s->alloc,
                          .key_column = key_column,
                          .value = *value,
                          .cel = s->partition.cel,
                          .take = add_row,
                          .refuse = refuse_row,
                          .ctx = s,
                          .rows = s->rows};

    forget_taken(s);
    return sf__arrow_rows_read(&rows, stream, err);
}

sf_status sf__shuffle_finish(sf_shuffle *s, sf_error *err)
{
    sf_status rc = SF_OK;

    forget_taken(s);
    for (uint32_t i = 0; i < s->num_dbs && rc == SF_OK; i++)
        rc = complete(s, i, err);
    if (rc == SF_OK && s->left_out > 0) { /* a block without rows tells of them */
        rc = begin_block(s, 0, 0, SF_KEY_INT, err);
        if (rc == SF_OK)
            rc = complete(s, 0, err);
    }
    return rc;
}

void sf__shuffle_take(sf_shuffle *s, sf_shuffle_blocks *out)
{
    forget_taken(s);
    s->taken = true;
    *out = (sf_shuffle_blocks){.count = s->count, .db_ids = s->db_ids, .off = s->off, .bytes = s->bytes};
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

static sf_status damaged(sf_error *err, const char *why)
{
    return sf_fail(err, SF_CORRUPT, "a block of shuffled rows %s", why);
}

sf_status sf__shuffle_block_open(sf_shuffle_block *out, sf_bytes block, sf_error *err)
{
    sf_shuffle_block b = {.rest = block};
    uint32_t magic, key_type;
    uint64_t hash;

    if (!sf_cursor_u64le(&b.rest, &hash) || hash != sf__xxh3_64(b.rest))
        return damaged(err, "does not have its checksum");
    if (!sf_cursor_u32le(&b.rest, &magic) || magic != MAGIC)
        return damaged(err, "is of another version: the same version must be installed on all machines");
    if (!sf_cursor_u32le(&b.rest, &b.db_id) || !sf_cursor_u32le(&b.rest, &b.rows) ||
        !sf_cursor_u32le(&b.rest, &key_type) || !sf_cursor_u32le(&b.rest, &b.left_out))
        return damaged(err, "ends in its header");
    if (key_type != SF_KEY_INT && key_type != SF_KEY_STR && key_type != SF_KEY_BYTES)
        return damaged(err, "has keys of no known type");
    if (b.rows > b.rest.n / ROW_HEADER_BYTES || (b.rows == 0 && b.rest.n > 0))
        return damaged(err, "has a wrong number of rows");
    b.key_type = (sf_key_type)key_type;
    *out = b;
    return SF_OK;
}

sf_status sf__shuffle_block_next(sf_shuffle_block *b, sf_bytes *key, sf_bytes *value, sf_error *err)
{
    sf_cursor c = b->rest;
    uint32_t key_len, value_len;

    if (b->rows == 0 || !sf_cursor_u32le(&c, &key_len) || !sf_cursor_u32le(&c, &value_len) ||
        !sf_cursor_take(&c, key_len, key) || !sf_cursor_take(&c, value_len, value))
        return damaged(err, "ends inside of a row");
    if (b->rows == 1 && c.n > 0)
        return damaged(err, "goes on behind its rows");
    b->rest = c;
    b->rows--;
    return SF_OK;
}
