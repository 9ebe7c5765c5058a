/* Looking for damage in the SSTs of an opened shard. Opening has read the manifest, the WAL that is replayed,
 * and all indexes and filters; here they are read as they are stored now, with what a reader has no use for:
 * stats, info and footer. A deep check reads the data blocks as well: order of keys, bounds of the index, the
 * filter. */
#include "backend/shard_check.h"
#include "backend/slatedb/format/block.h"
#include "backend/slatedb/names.h"
#include "backend/slatedb/shard.h"
#include "base/container.h"
#include "base/error.h"
#include "base/limits.h"
#include "store/wait.h"

#define HASHES_AT_A_TIME 32u /* of keys that the filter is asked for together */
#define PIECE_BYTES (UINT64_C(4) << 20)

struct piece {
    sf_waited_op get;      /* first */
    uint32_t first, count; /* blocks */
    bool begun;
};

struct sst_check {
    const sf_slatedb_shard *db;
    const sf_sst *sst;
    sf_shard_check *c;
    const sf_allocator *a;
    sf_waiter waiter;
    sf_block_cursor cursor;            /* runs on through the SSTs of a sorted run */
    uint64_t seq;                      /* of the row before */
    bool shows;                        /* rows, which no other source hides */
    bool told;                         /* of this object: the rest would only follow from it */
    uint64_t hashes[HASHES_AT_A_TIME]; /* of keys of the present block that the filter was not asked for yet */
    size_t hash_count;
};

/* ------------------------------------------------------------------ telling --------------------------------------- */

static sf_status judge(struct sst_check *s, uint64_t off, sf_status rc, sf_error *err)
{
    if (rc == SF_OK)
        return SF_OK;
    s->told = s->told || sf__is_damage(rc);
    return sf__shard_check_judge(s->c, s->db->store, s->sst->key, off, rc, err);
}

/* ------------------------------------------------------------------ index, filter, stats, info, footer ------------ */

static sf_status get_range(struct sst_check *s, uint64_t off, uint64_t len, sf_buf **out, sf_error *err)
{
    sf_store_op op = {.verb = SF_STORE_GET,
                      .key = s->sst->key,
                      .off = off,
                      .len = len,
                      .deadline_ns = sf__deadline_in_ms(s->c->timeout_ms)};
    sf_status rc = sf__store_wait(s->db->store, &op, s->c->cancel, err);

    if (rc == SF_OK) {
        *out = op.data;
        op.data = NULL;
        s->c->read(s->c, len);
        if ((*out)->n != len) {
            sf__buf_release(*out);
            rc = sf_fail(err, SF_CORRUPT, "%llu bytes at %llu were asked for, and others came", (unsigned long long)len,
                         (unsigned long long)off);
        }
    }
    sf__store_op_cleanup(&op, s->a);
    return rc;
}

static sf_status object_size(struct sst_check *s, uint64_t *out, sf_error *err)
{
    sf_store_op op = {.verb = SF_STORE_HEAD, .key = s->sst->key, .deadline_ns = sf__deadline_in_ms(s->c->timeout_ms)};
    sf_status rc = sf__store_wait(s->db->store, &op, s->c->cancel, err);

    *out = op.object_size;
    sf__store_op_cleanup(&op, s->a);
    return rc;
}

/* The tail of an object: what lies behind its blocks, from `off` on. */
struct tail {
    sf_bytes bytes;
    uint64_t off;
    uint64_t at; /* what is being looked at */
};

static sf_status part_take(struct tail *t, const char *what, uint64_t at, uint64_t len, sf_bytes *out, sf_error *err)
{
    t->at = at;
    if (at < t->off || !sf_bytes_slice(t->bytes, at - t->off, len, out))
        return sf_fail(err, SF_CORRUPT, "%s: %llu bytes at %llu", what, (unsigned long long)len, (unsigned long long)at);
    return SF_OK;
}

/* The checksum of a part, and what it unpacks to. */
static sf_status part_check(const struct sst_check *s, struct tail *t, const char *what, uint64_t at, uint64_t len,
                            sf_error *err)
{
    sf_bytes stored, plain;
    sf_buf *buf = NULL;
    sf_status rc;

    if (len == 0)
        return SF_OK;
    rc = part_take(t, what, at, len, &stored, err);
    if (rc != SF_OK)
        return rc;
    rc = sf__stored_block_view(NULL, stored, s->sst->view->info.codec, SF_LIMIT_META_BYTES, s->a, &plain, &buf, err);
    sf__buf_release(buf);
    return rc == SF_OK ? SF_OK : sf_error_prefix(err, rc, "%s at %llu: ", what, (unsigned long long)at);
}

static sf_status info_compare(const sf_sst_view *v, const sf_sst_info *file, unsigned version, sf_error *err)
{
    const sf_sst_info *m = &v->info;

    if (version != v->format_version || file->index_off != m->index_off || file->index_len != m->index_len ||
        file->filter_off != m->filter_off || file->filter_len != m->filter_len || file->codec != m->codec ||
        file->filter_format != m->filter_format || file->sst_type != m->sst_type)
        return sf_fail(err, SF_CORRUPT, "what the object says of itself is not what its manifest says");
    if (!v->visible && (file->has_first_key != m->has_first_key || !sf_bytes_eq(file->first_key, m->first_key) ||
                        (m->has_last_key && file->has_last_key && !sf_bytes_eq(file->last_key, m->last_key))))
        return sf_fail(err, SF_CORRUPT, "the object has other first and last keys than its manifest says");
    return SF_OK;
}

static sf_status footer_check(const struct sst_check *s, struct tail *t, sf_error *err)
{
    uint64_t size = t->off + t->bytes.n;
    sf_sst_footer footer;
    sf_sst_info info;
    sf_bytes stored;
    sf_status rc;

    t->at = size - (size < SF_SST_FOOTER_BYTES ? size : SF_SST_FOOTER_BYTES);
    rc = sf__sst_footer_decode(&footer, t->bytes, size, err);
    if (rc == SF_OK)
        rc = part_take(t, "SST info", footer.info_off, footer.info_len, &stored, err);
    if (rc == SF_OK)
        rc = sf__sst_info_decode(&info, stored, footer.info_off, err);
    if (rc == SF_OK)
        rc = info_compare(s->sst->view, &info, footer.version, err);
    return rc == SF_OK ? part_check(s, t, "stats", info.stats_off, info.stats_len, err) : rc;
}

static sf_status tail_check(const struct sst_check *s, struct tail *t, sf_error *err)
{
    const sf_sst_info *m = &s->sst->view->info;
    sf_sst again = {.view = s->sst->view, .key = s->sst->key};
    sf_status rc = part_check(s, t, "filter", m->filter_off, m->filter_len, err);

    if (rc == SF_OK)
        rc = part_check(s, t, "index", m->index_off, m->index_len, err);
    if (rc == SF_OK) {
        rc = sf__sst_meta_decode(&again, t->bytes, t->off, NULL, s->a, err);
        sf__index_cleanup(&again.index, s->a);
        sf__filter_cleanup(&again.filter);
    }
    return rc == SF_OK ? footer_check(s, t, err) : rc;
}

static sf_status check_tail(struct sst_check *s, uint64_t size, sf_error *err)
{
    const sf_sst_info *m = &s->sst->view->info;
    uint64_t end = m->index_off + m->index_len; /* checked: does not wrap */
    struct tail t = {.off = sf__sst_meta_off(m), .at = sf__sst_meta_off(m)};
    sf_buf *bytes;
    sf_status rc = SF_CORRUPT;

    if (size < end || size - end > SF_LIMIT_META_BYTES) {
        rc = sf_fail(err, SF_CORRUPT, "the object has %llu bytes, its index ends at %llu", (unsigned long long)size,
                     (unsigned long long)end);
        return judge(s, size < end ? size : end, rc, err);
    }
    for (unsigned n = 0; n < 2 && rc == SF_CORRUPT; n++) { /* a torn answer looks like damage: once more */
        rc = get_range(s, t.off, size - t.off, &bytes, err);
        if (rc != SF_OK)
            break;
        t.bytes = sf__buf_bytes(bytes);
        rc = tail_check(s, &t, err);
        sf__buf_release(bytes);
    }
    return judge(s, t.at, rc, err);
}

/* ------------------------------------------------------------------ blocks ---------------------------------------- */

static sf_status wrong_row(const char *what, sf_error *err)
{
    return sf_fail(err, SF_CORRUPT, "a row %s", what);
}

static sf_status ask_filter(struct sst_check *s, sf_error *err)
{
    size_t n = s->hash_count;

    s->hash_count = 0;
    if (!sf__filter_may_contain_all(&s->sst->filter, s->hashes, n))
        return wrong_row("is not in the filter: look-ups do not find it", err);
    return SF_OK;
}

/* Of the first row of a block, and of the last one: the others lie between them. */
static sf_status bounds_check(const struct sst_check *s, uint32_t block, bool is_first, sf_bytes key, sf_error *err)
{
    const sf_index *idx = &s->sst->index;

    if (is_first && sf_bytes_cmp(key, sf__index_block_bound(idx, block)) < 0)
        return wrong_row("lies below what the index says of its block", err);
    if (!is_first && block + 1 < idx->count && sf_bytes_cmp(key, sf__index_block_bound(idx, block + 1)) > 0)
        return wrong_row("lies above what the index says of its block", err);
    return SF_OK;
}

static sf_status row_check(struct sst_check *s, sf_error *err)
{
    const sf_block_cursor *c = &s->cursor;

    if (c->order < 0 || (c->order == 0 && c->row.seq >= s->seq))
        return wrong_row("does not follow the one before", err);
    s->seq = c->row.seq;
    if (s->sst->filter.count == 0)
        return SF_OK;
    s->hashes[s->hash_count++] = sf__filter_hash(c->row.key);
    return s->hash_count == HASHES_AT_A_TIME ? ask_filter(s, err) : SF_OK;
}

static void show(struct sst_check *s)
{
    const sf_block_cursor *c = &s->cursor;

    if (!s->shows || c->order == 0 || c->row.seq > s->db->view.max_seq || (c->row.flags & SF_ROW_TOMBSTONE))
        return;
    if (c->row.flags & SF_ROW_MERGE)
        s->c->shows_rows = false;
    s->c->row(s->c, c->row.key, c->row.value);
}

static sf_status rows_check(struct sst_check *s, uint32_t block, const sf_buf *plain, sf_error *err)
{
    sf_block b;
    sf_status rc = sf__sst_block_view(s->sst, sf__buf_bytes(plain), &b, err);

    if (rc != SF_OK)
        return rc;
    s->hash_count = 0;
    sf__block_cursor_set(&s->cursor, &b);
    rc = sf__block_cursor_first(&s->cursor, err);
    if (rc == SF_OK && s->cursor.valid)
        rc = bounds_check(s, block, true, s->cursor.row.key, err);
    while (rc == SF_OK && s->cursor.valid) {
        rc = row_check(s, err);
        if (rc == SF_OK) {
            show(s);
            rc = sf__block_cursor_next(&s->cursor, err);
        }
    }
    if (rc == SF_OK)
        rc = bounds_check(s, block, false, sf__block_cursor_last_key(&s->cursor), err);
    return rc == SF_OK ? ask_filter(s, err) : rc;
}

static sf_status block_open(struct sst_check *s, uint32_t block, sf_bytes stored, sf_buf **out, sf_error *err)
{
    sf_buf *fresh;
    sf_status rc = sf__sst_block_open(s->sst, block, stored, NULL, false, NULL, NULL, s->a, out, err);

    if (rc != SF_CORRUPT)
        return rc;
    rc = get_range(s, sf__index_block_off(&s->sst->index, block), stored.n, &fresh, err);
    if (rc != SF_OK)
        return rc;
    rc = sf__sst_block_open(s->sst, block, sf__buf_bytes(fresh), NULL, false, NULL, NULL, s->a, out, err);
    sf__buf_release(fresh);
    return rc;
}

/* From `stored`, which has the whole piece. A block that is damaged hides no other one. */
static sf_status piece_check(struct sst_check *s, const struct piece *p, sf_bytes data, sf_error *err)
{
    const sf_index *idx = &s->sst->index;
    uint64_t off = sf__index_block_off(idx, p->first);

    for (uint32_t i = p->first; i < p->first + p->count; i++) {
        sf_buf *plain = NULL;
        sf_bytes stored;
        sf_status rc;

        if (!sf_bytes_slice(data, sf__index_block_off(idx, i) - off, sf__index_block_len(idx, i), &stored))
            rc = sf_fail(err, SF_CORRUPT, "block %u is cut off", i);
        else
            rc = block_open(s, i, stored, &plain, err);
        if (rc == SF_OK)
            rc = rows_check(s, i, plain, err);
        sf__buf_release(plain);
        rc = judge(s, sf__index_block_off(idx, i), rc, err);
        if (rc != SF_OK)
            return rc;
    }
    return SF_OK;
}

static void piece_begin(struct sst_check *s, struct piece *p, uint32_t first)
{
    const sf_index *idx = &s->sst->index;
    uint64_t len = 0;

    p->begun = first < idx->count;
    if (!p->begun)
        return;
    p->first = first;
    p->count = 0;
    while (first + p->count < idx->count &&
           (p->count == 0 || len + sf__index_block_len(idx, first + p->count) <= PIECE_BYTES))
        len += sf__index_block_len(idx, first + p->count++);
    p->get = (sf_waited_op){.op = {.verb = SF_STORE_GET,
                                   .key = s->sst->key,
                                   .off = sf__index_block_off(idx, first),
                                   .len = len,
                                   .deadline_ns = sf__deadline_in_ms(s->c->timeout_ms)}};
    sf__store_wait_start(&s->waiter, s->db->store, &p->get);
}

/* One piece is on its way while the one before is looked at. */
static sf_status check_blocks(struct sst_check *s, sf_error *err)
{
    struct piece pieces[2] = {0}, *now = &pieces[0], *next = &pieces[1], *other;
    sf_status rc = SF_OK;

    sf__waiter_init(&s->waiter, s->db->store->loop, s->c->cancel);
    piece_begin(s, now, 0);
    while (now->begun) {
        sf_status got = sf__store_wait_end(&now->get, err);

        piece_begin(s, next, rc == SF_OK && got == SF_OK ? now->first + now->count : UINT32_MAX);
        if (rc == SF_OK && got != SF_OK)
            rc = judge(s, now->get.op.off, got, err);
        else if (rc == SF_OK)
            rc = piece_check(s, now, sf__buf_bytes(now->get.op.data), err);
        s->c->read(s->c, now->get.op.len);
        sf__store_op_cleanup(&now->get.op, s->a);
        other = now;
        now = next;
        next = other;
    }
    sf__waiter_destroy(&s->waiter);
    return rc;
}

/* ------------------------------------------------------------------ all of it ------------------------------------- */

static void cursor_renew(struct sst_check *s)
{
    sf__block_cursor_cleanup(&s->cursor);
    sf__block_cursor_init(&s->cursor, s->a);
}

static sf_status check_sst(struct sst_check *s, const sf_sst *sst, sf_error *err)
{
    uint64_t size;
    sf_status rc;

    if (!sst->view->info.has_first_key) /* no rows: nobody reads it */
        return SF_OK;
    s->sst = sst;
    s->told = false;
    s->c->objects++;
    rc = judge(s, SF_NO_OFFSET, object_size(s, &size, err), err);
    if (rc == SF_OK && !s->told)
        rc = check_tail(s, size, err);
    return rc == SF_OK && s->c->deep && (!s->told || size >= sf__sst_blocks_end(&sst->view->info)) ? check_blocks(s, err)
                                                                                                   : rc;
}

/* Of one source of rows in every tree, nothing hides a row of another. */
static bool is_simple(const sf_read_view *v)
{
    for (uint32_t i = 0; i < v->manifest.tree_count; i++)
        if (v->manifest.trees[i].l0_count + v->manifest.trees[i].run_count > 1)
            return false;
    for (uint32_t i = 0; i < v->manifest.view_count; i++)
        if (v->manifest.views[i].visible)
            return false;
    return !v->memtable && v->sst_count == v->manifest.view_count;
}

static sf_status check_tree(struct sst_check *s, const sf_slatedb_tree *t, sf_error *err)
{
    const sf_read_view *v = &s->db->view;
    sf_status rc = SF_OK;

    for (uint32_t i = 0; rc == SF_OK && i < t->l0_count; i++) {
        cursor_renew(s);
        rc = check_sst(s, sf__read_view_sst(v, &t->l0[i]), err);
    }
    for (uint32_t r = 0; rc == SF_OK && r < t->run_count; r++) {
        cursor_renew(s);
        for (uint32_t i = 0; rc == SF_OK && i < t->runs[r].sst_count; i++)
            rc = check_sst(s, sf__read_view_sst(v, &t->runs[r].ssts[i]), err);
    }
    return rc;
}

sf_status sf__slatedb_check(sf_shard *base, sf_shard_check *c, sf_error *err)
{
    const sf_slatedb_shard *db = sf_container_of(base, sf_slatedb_shard, base);
    struct sst_check s = {.db = db, .c = c, .a = base->rt->alloc};
    sf_status rc = SF_OK;

    s.shows = c->shows_rows = c->deep && is_simple(&db->view);
    sf__block_cursor_init(&s.cursor, s.a);
    if (s.shows) {
        for (uint32_t i = 0; rc == SF_OK && i < db->view.manifest.tree_count; i++)
            rc = check_tree(&s, &db->view.manifest.trees[i], err);
    } else { /* each object once, however many views show it */
        for (uint32_t i = 0; rc == SF_OK && i < db->view.sst_count; i++) {
            cursor_renew(&s);
            rc = check_sst(&s, &db->view.ssts[i], err);
        }
    }
    sf__block_cursor_cleanup(&s.cursor);
    return rc;
}
