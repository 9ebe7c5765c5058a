/* Writes down what a sidecar holds. */
#include <zstd.h>

#include "backend/sqlite/btree_page.h"
#include "backend/sqlite/sidecar.h"
#include "backend/sqlite/sidecar_format.h"

/* What is collected before it is compressed, and compressed before it goes to the sink. */
#define IN_BYTES (128u << 10)
#define OUT_BYTES (128u << 10)

/* ------------------------------------------------------------------ the frame ------------------------------------ */

/* The first failure stays in `rc`; then nothing more is done. */
struct frame {
    const sf_allocator *alloc;
    ZSTD_CCtx *zstd;
    uint8_t *in, *out; /* IN_BYTES, OUT_BYTES */
    size_t in_n;
    sf_sidecar_sink sink;
    void *ctx;
    sf_status rc;
    sf_error *err;
};

static void frame_open(struct frame *f, uint64_t body_bytes)
{
    size_t bad;

    f->zstd = ZSTD_createCCtx();
    f->in = sf__alloc(f->alloc, IN_BYTES);
    f->out = sf__alloc(f->alloc, OUT_BYTES);
    if (!f->zstd || !f->in || !f->out) {
        f->rc = sf_fail(f->err, SF_NOMEM, "sidecar: compressor");
        return;
    }
    bad = ZSTD_CCtx_setParameter(f->zstd, ZSTD_c_compressionLevel, SF_ZSTD_LEVEL);
    if (!ZSTD_isError(bad))
        bad = ZSTD_CCtx_setParameter(f->zstd, ZSTD_c_checksumFlag, 1);
    if (!ZSTD_isError(bad)) /* and with it the content's size is written */
        bad = ZSTD_CCtx_setPledgedSrcSize(f->zstd, body_bytes);
    if (ZSTD_isError(bad))
        f->rc = sf_fail(f->err, SF_NOMEM, "sidecar: %s", ZSTD_getErrorName(bad));
}

static void frame_compress(struct frame *f, ZSTD_EndDirective how)
{
    ZSTD_inBuffer in = {f->in, f->in_n, 0};
    size_t left = 1;

    while (f->rc == SF_OK && (in.pos < in.size || (how == ZSTD_e_end && left > 0))) {
        ZSTD_outBuffer out = {f->out, OUT_BYTES, 0};

        left = ZSTD_compressStream2(f->zstd, &out, &in, how);
        if (ZSTD_isError(left))
            f->rc = sf_fail(f->err, SF_NOMEM, "sidecar: %s", ZSTD_getErrorName(left));
        else if (out.pos > 0)
            f->rc = f->sink(f->ctx, sf_bytes_of(f->out, out.pos), f->err);
    }
    f->in_n = 0;
}

static void frame_put(struct frame *f, const uint8_t *p, size_t n)
{
    while (n > 0 && f->rc == SF_OK) {
        size_t part = n < IN_BYTES - f->in_n ? n : IN_BYTES - f->in_n;

        memcpy(f->in + f->in_n, p, part);
        f->in_n += part;
        p += part;
        n -= part;
        if (f->in_n == IN_BYTES)
            frame_compress(f, ZSTD_e_continue);
    }
}

static void frame_put_u32(struct frame *f, uint64_t v)
{
    uint8_t le[4];

    sf_store_le(le, 4, v);
    frame_put(f, le, sizeof(le));
}

static void frame_close(struct frame *f)
{
    ZSTD_freeCCtx(f->zstd);
    sf__free(f->alloc, f->in);
    sf__free(f->alloc, f->out);
}

/* ------------------------------------------------------------------ the body ------------------------------------- */

static void put_pages(struct frame *f, const sf_sidecar_map *m)
{
    uint64_t off = 0;

    frame_put_u32(f, m->page_count);
    for (size_t i = 0; i < m->page_count; i++)
        frame_put_u32(f, m->pages[i].number);
    for (size_t i = 0; i < m->page_count; i++) {
        frame_put_u32(f, off);
        off += m->pages[i].stored_bytes;
    }
    frame_put_u32(f, off);
}

static void put_chains(struct frame *f, const sf_sidecar_map *m)
{
    uint64_t start = 0;

    frame_put_u32(f, m->chain_count);
    for (size_t i = 0; i < m->chain_count; i++)
        frame_put_u32(f, m->chains[i].head);
    for (size_t i = 0; i < m->chain_count; i++) {
        frame_put_u32(f, start);
        start += m->chains[i].count;
    }
    frame_put_u32(f, start);
    for (size_t i = 0; i < m->chain_count; i++)
        for (uint32_t k = 0; k < m->chains[i].count; k++)
            frame_put_u32(f, m->chain_pages[m->chains[i].first + k]);
}

static sf_status put_page(struct frame *f, const sf_sidecar_map *m, const struct sf_sidecar_map_page *p,
                          const sf_file_view *db, uint8_t *page)
{
    size_t from, to;
    sf_status rc = db->read(db->ctx, (uint64_t)(p->number - 1) * m->page_bytes, m->page_bytes, page, f->err);

    if (rc != SF_OK)
        return rc;
    if (!sf__btree_gap(sf_bytes_of(page, m->page_bytes), p->number, m->page_bytes, &from, &to) ||
        m->page_bytes - (to - from) != p->stored_bytes)
        return sf_fail(f->err, SF_CORRUPT, "shard.db: page %u changed", p->number);
    frame_put(f, page, from);
    frame_put(f, page + to, m->page_bytes - to);
    return f->rc;
}

static void put_area(struct frame *f, const sf_sidecar_map *m, const sf_file_view *db)
{
    uint8_t *page = sf__alloc(f->alloc, m->page_bytes);

    if (!page && f->rc == SF_OK)
        f->rc = sf_fail(f->err, SF_NOMEM, "page of %u bytes", m->page_bytes);
    for (size_t i = 0; i < m->page_count && f->rc == SF_OK; i++)
        f->rc = put_page(f, m, &m->pages[i], db, page);
    sf__free(f->alloc, page);
}

sf_status sf__sidecar_encode(const sf_file_view *db, const sf_sidecar_map *map, const char *etag, const sf_allocator *a,
                             sf_sidecar_sink sink, void *ctx, sf_error *err)
{
    struct frame f = {.alloc = a, .sink = sink, .ctx = ctx, .err = err};
    const uint64_t body_bytes = sf__sidecar_map_body_bytes(map);
    size_t tag_bytes = strlen(etag) <= SF_SIDECAR_TAG_MAX ? strlen(etag) : 0;
    uint8_t head[SF_SIDECAR_HEAD_BYTES + SF_SIDECAR_TAG_MAX];

    memcpy(head, SF_SIDECAR_MAGIC, 4);
    head[4] = SF_SIDECAR_VERSION;
    sf_store_le(head + 5, 8, body_bytes);
    sf_store_le(head + 13, 4, map->page_bytes);
    head[17] = (uint8_t)tag_bytes;
    memcpy(head + SF_SIDECAR_HEAD_BYTES, etag, tag_bytes);
    frame_open(&f, body_bytes);
    if (f.rc == SF_OK)
        f.rc = sink(ctx, sf_bytes_of(head, SF_SIDECAR_HEAD_BYTES + tag_bytes), err);
    put_pages(&f, map);
    put_chains(&f, map);
    put_area(&f, map, db);
    if (f.rc == SF_OK)
        frame_compress(&f, ZSTD_e_end);
    frame_close(&f);
    return f.rc;
}

/* ------------------------------------------------------------------ in memory ------------------------------------ */

static sf_status bytes_read(void *ctx, uint64_t off, size_t n, uint8_t *out, sf_error *err)
{
    const sf_bytes *b = ctx;

    memcpy(out, b->p + off, n);
    (void)err;
    return SF_OK;
}

static sf_status bytes_append(void *ctx, sf_bytes piece, sf_error *err)
{
    sf_buf **b = ctx;

    if (piece.n > (*b)->cap - (*b)->n) {
        sf_buf *bigger = sf__buf_reserve(*b, 2 * (*b)->cap + piece.n);

        if (!bigger)
            return sf_fail(err, SF_NOMEM, "sidecar");
        *b = bigger;
    }
    memcpy((*b)->data + (*b)->n, piece.p, piece.n);
    (*b)->n += piece.n;
    return SF_OK;
}

sf_status sf__sidecar_encode_bytes(sf_bytes db, const char *etag, const sf_allocator *a, sf_buf **out, sf_error *err)
{
    sf_file_view view = {.size = db.n, .read = bytes_read, .ctx = &db};
    sf_sidecar_map map = {0};
    sf_buf *b = sf__buf_new(a, 4096);
    sf_status rc = b ? sf__sidecar_map_walk(&map, &view, a, err) : sf_fail(err, SF_NOMEM, "sidecar");

    if (b)
        b->n = 0;
    if (rc == SF_OK)
        rc = sf__sidecar_encode(&view, &map, etag, a, bytes_append, &b, err);
    sf__sidecar_map_cleanup(&map);
    if (rc != SF_OK) {
        sf__buf_release(b);
        return rc;
    }
    *out = b;
    return SF_OK;
}
