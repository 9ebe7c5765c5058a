#include "backend/slatedb/format/opening_record.h"

#include "backend/slatedb/format/sst_info_write.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/strbuf.h"

#define RECORD_OF_SLATEDB 1u
/* Of an SST without the keys: ULID, two lengths and the parts in a byte each, codec, filter format. */
#define SST_MIN_BYTES 24u

/* ------------------------------------------------------------------ writing -------------------------------------- */

static bool put_varint(sf_strbuf *b, uint64_t v)
{
    if (v > UINT32_MAX)
        return false;
    for (; v >= 0x80; v >>= 7)
        sf__strbuf_putc(b, (char)(v | 0x80));
    sf__strbuf_putc(b, (char)v);
    return true;
}

static bool put_key(sf_strbuf *b, sf_bytes key)
{
    if (!put_varint(b, key.n))
        return false;
    sf__strbuf_add(b, key.p, key.n);
    return true;
}

static bool is_contiguous(const sf_sst_info *i)
{
    return i->has_first_key && i->has_last_key && i->sst_type == SF_SST_COMPACTED &&
           i->filter_off + i->filter_len == i->index_off &&
           (i->stats_len == 0 || i->stats_off == i->index_off + i->index_len);
}

static bool put_sst(sf_strbuf *b, const sf_built_sst *sst)
{
    const sf_sst_info *i = &sst->info;
    uint8_t ulid[16];

    sf_store_be(ulid, 8, sst->ulid.hi);
    sf_store_be(ulid + 8, 8, sst->ulid.lo);
    sf__strbuf_add(b, ulid, sizeof(ulid));
    if (!is_contiguous(i) || !put_key(b, i->first_key) || !put_key(b, i->last_key) ||
        !put_varint(b, sf__sst_blocks_end(i)) || !put_varint(b, i->filter_len) || !put_varint(b, i->index_len) ||
        !put_varint(b, i->stats_len))
        return false;
    sf__strbuf_putc(b, (char)i->codec);
    sf__strbuf_putc(b, (char)i->filter_format);
    return true;
}

sf_status sf__opening_record_encode(sf_buf **out, const sf_built_database *db, uint64_t manifest_bytes,
                                    const sf_allocator *a, sf_error *err)
{
    sf_strbuf b;
    sf_buf *record = NULL;
    bool fits, failed;

    sf__strbuf_init(&b, a);
    sf__strbuf_putc(&b, RECORD_OF_SLATEDB);
    fits = db->sst_count > 0 && put_varint(&b, manifest_bytes) && put_varint(&b, db->sst_count);
    for (size_t i = 0; fits && i < db->sst_count; i++)
        fits = put_sst(&b, &db->ssts[i]) && b.n <= SF_LIMIT_OPENING_RECORD_BYTES;
    if (fits && !b.failed)
        record = sf__buf_copy(a, sf_bytes_of(b.s, b.n));
    failed = b.failed || (fits && !record);
    sf__strbuf_cleanup(&b);
    if (failed)
        return sf_fail(err, SF_NOMEM, "record of %zu SSTs", db->sst_count);
    *out = record;
    return SF_OK;
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

/* All that a database of one sorted run needs. */
struct one_run {
    sf_slatedb_tree tree;
    sf_slatedb_sorted_run run;
    sf_sst_view views[];
};

static bool take_key(sf_cursor *c, sf_bytes *key)
{
    uint32_t n;

    return sf_cursor_varint32(c, &n) && sf_cursor_take(c, n, key);
}

static sf_status take_sst(sf_cursor *c, sf_sst_view *v, sf_error *err)
{
    sf_sst_info *i = &v->info;
    uint32_t blocks_end, filter_len, index_len, stats_len;
    uint8_t codec;
    sf_id128 ulid;

    if (!sf_cursor_u64be(c, &ulid.hi) || !sf_cursor_u64be(c, &ulid.lo) || !take_key(c, &i->first_key) ||
        !take_key(c, &i->last_key) || !sf_cursor_varint32(c, &blocks_end) || !sf_cursor_varint32(c, &filter_len) ||
        !sf_cursor_varint32(c, &index_len) || !sf_cursor_varint32(c, &stats_len) || !sf_cursor_u8(c, &codec) ||
        !sf_cursor_u8(c, &i->filter_format))
        return sf_fail(err, SF_CORRUPT, "it is cut short");
    sf__ulid_format(ulid, v->ulid);
    v->format_version = SF_SST_VERSION_WRITTEN;
    i->has_first_key = i->has_last_key = true;
    i->codec = (sf_codec)codec;
    i->sst_type = SF_SST_COMPACTED;
    i->filter_off = blocks_end;
    i->filter_len = filter_len;
    i->index_off = i->filter_off + i->filter_len;
    i->index_len = index_len;
    i->stats_off = stats_len > 0 ? i->index_off + i->index_len : 0;
    i->stats_len = stats_len;
    return sf__sst_info_check(i, UINT64_MAX, err);
}

static sf_status take_ssts(sf_slatedb_manifest *m, sf_cursor *c, sf_error *err)
{
    for (uint32_t i = 0; i < m->view_count; i++) {
        sf_status rc = take_sst(c, &m->views[i], err);

        if (rc != SF_OK)
            return sf_error_prefix(err, rc, "SST %u: ", i);
        if (i > 0 && sf_bytes_cmp(m->views[i - 1].info.last_key, m->views[i].info.first_key) > 0)
            return sf_fail(err, SF_CORRUPT, "its SSTs are not in order of their keys");
    }
    m->trees[0].runs[0] = (sf_slatedb_sorted_run){.ssts = m->views, .sst_count = m->view_count};
    return c->n == 0 ? SF_OK : sf_fail(err, SF_CORRUPT, "%zu bytes follow it", c->n);
}

static bool take_head(sf_cursor *c, uint32_t *manifest_bytes, uint32_t *count)
{
    uint8_t kind;

    return sf_cursor_u8(c, &kind) && kind == RECORD_OF_SLATEDB && sf_cursor_varint32(c, manifest_bytes) &&
           sf_cursor_varint32(c, count) && *count > 0 && *count <= c->n / SST_MIN_BYTES;
}

bool sf__opening_record_facts(sf_bytes record, uint64_t *manifest_bytes, uint64_t *objects)
{
    uint32_t bytes, count;

    if (!take_head(&record, &bytes, &count))
        return false;
    *manifest_bytes = bytes;
    *objects = (uint64_t)count + 1;
    return true;
}

/* What the keys of all SSTs take: no more than the record has. */
static size_t key_bytes(sf_cursor c, uint32_t count)
{
    sf_error ignored;
    size_t n = 0;

    for (uint32_t i = 0; i < count; i++) {
        sf_sst_view v = {.format_version = 0};

        if (take_sst(&c, &v, &ignored) != SF_OK)
            break; /* it is refused below */
        n += v.info.first_key.n + v.info.last_key.n;
    }
    return n;
}

/* They are all of the record that stays. */
static void keep_keys(sf_slatedb_manifest *m, uint8_t *to)
{
    for (uint32_t i = 0; i < 2 * m->view_count; i++) {
        sf_sst_info *info = &m->views[i / 2].info;
        sf_bytes *key = i % 2 == 0 ? &info->first_key : &info->last_key;

        if (key->n > 0)
            memcpy(to, key->p, key->n);
        key->p = to;
        to += key->n;
    }
}

static sf_status record_decode(sf_slatedb_manifest *m, sf_bytes record, sf_error *err)
{
    sf_cursor c = record;
    struct one_run *one;
    uint32_t bytes, count;
    sf_status rc;

    if (!take_head(&c, &bytes, &count))
        return sf_fail(err, SF_CORRUPT, "%zu bytes are none of a SlateDB database", record.n);
    m->view_count = count;
    m->tree_count = 1;
    one = sf__slatedb_manifest_memory(m, 1, sizeof(*one) + count * sizeof(one->views[0]) + key_bytes(c, count));
    if (!one)
        return sf_fail(err, SF_NOMEM, "%u SSTs", count);
    m->views = one->views;
    m->trees = &one->tree;
    one->tree.run_count = 1;
    one->tree.runs = &one->run;
    rc = take_ssts(m, &c, err);
    if (rc == SF_OK)
        keep_keys(m, (uint8_t *)(one->views + count));
    return rc;
}

sf_status sf__opening_record_decode(sf_slatedb_manifest *out, sf_bytes record, const sf_allocator *a, sf_error *err)
{
    static const sf_slatedb_head head = {.version = 1, .initialized = true, .last_l0_seq = SF_BUILT_SEQ};
    sf_slatedb_manifest m = {.alloc = a, .head = &head};
    sf_status rc = record_decode(&m, record, err);

    if (rc != SF_OK) {
        sf__slatedb_manifest_cleanup(&m);
        *out = m;
        return sf_error_prefix(err, rc, "record of a shard: ");
    }
    *out = m;
    return SF_OK;
}
