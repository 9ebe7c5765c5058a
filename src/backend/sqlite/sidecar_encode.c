/* Walks the b-trees of a database and writes down what a sidecar holds. */
#include <stdlib.h>
#include <zstd.h>

#include "backend/sqlite/btree_page.h"
#include "backend/sqlite/sidecar.h"
#include "backend/sqlite/sidecar_format.h"
#include "base/grow.h"
#include "base/limits.h"

/* SQLite's own bound on the height of a tree. */
#define DEPTH_MAX 20u
/* What is collected before it is compressed, and compressed before it goes to the sink. */
#define IN_BYTES (128u << 10)
#define OUT_BYTES (128u << 10)

struct numbers {
    uint32_t *v;
    size_t n, cap;
};

struct page {
    uint32_t number, stored_bytes;
};

struct chain {
    uint32_t head, count;
    size_t first; /* in walk.chain_pages */
};

struct database_walk {
    const sf_file_view *db;
    const sf_allocator *alloc;
    uint32_t page_bytes, page_count;
    uint8_t *seen;             /* a bit a page: none is in two places of a sound database */
    uint8_t *path[DEPTH_MAX];  /* a page for each level that was reached */
    struct numbers chain_pages, roots;
    struct page *pages;
    size_t stored_count, stored_cap;
    struct chain *chains;
    size_t chain_count, chain_cap;
    uint64_t area_bytes; /* of the stored pages */
};

/* ------------------------------------------------------------------ lists ---------------------------------------- */

static sf_status fail_nomem(size_t pages, sf_error *err)
{
    return sf_fail(err, SF_NOMEM, "sidecar: list of %zu pages", pages);
}

static sf_status push(const struct database_walk *w, struct numbers *l, uint32_t number, sf_error *err)
{
    if (!SF_RESERVE(w->alloc, &l->v, &l->cap, l->n + 1))
        return fail_nomem(l->n + 1, err);
    l->v[l->n++] = number;
    return SF_OK;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = ((const struct page *)a)->number, y = ((const struct page *)b)->number;

    return (x > y) - (x < y);
}

static int by_head(const void *a, const void *b)
{
    uint32_t x = ((const struct chain *)a)->head, y = ((const struct chain *)b)->head;

    return (x > y) - (x < y);
}

/* ------------------------------------------------------------------ the walk ------------------------------------- */

static sf_status visit(struct database_walk *w, uint32_t number, sf_error *err)
{
    if (number == 0 || number > w->page_count)
        return sf_fail(err, SF_CORRUPT, "shard.db: page %u of %u", number, w->page_count);
    if (w->seen[number / 8] & 1u << number % 8)
        return sf_fail(err, SF_CORRUPT, "shard.db: page %u is in two places", number);
    w->seen[number / 8] |= (uint8_t)(1u << number % 8);
    return SF_OK;
}

/* The first `n` bytes of a page. */
static sf_status read_page(const struct database_walk *w, uint32_t number, size_t n, uint8_t *out, sf_error *err)
{
    return w->db->read(w->db->ctx, (uint64_t)(number - 1) * w->page_bytes, n, out, err);
}

/* The page of a tree, which stays until another one of its level is read. */
static sf_status read_node(struct database_walk *w, uint32_t number, unsigned depth, sf_bytes *page, sf_error *err)
{
    sf_status rc = depth < DEPTH_MAX ? visit(w, number, err)
                                     : sf_fail(err, SF_CORRUPT, "shard.db: page %u lies too deep", number);

    if (rc != SF_OK)
        return rc;
    if (!w->path[depth])
        w->path[depth] = sf__alloc(w->alloc, w->page_bytes);
    if (!w->path[depth])
        return sf_fail(err, SF_NOMEM, "page of %u bytes", w->page_bytes);
    *page = sf_bytes_of(w->path[depth], w->page_bytes);
    return read_page(w, number, w->page_bytes, w->path[depth], err);
}

static sf_status store_page(struct database_walk *w, sf_bytes page, uint32_t number, sf_error *err)
{
    size_t from, to;

    if (!sf__sidecar_gap(page, number, w->page_bytes, &from, &to))
        return sf_fail(err, SF_CORRUPT, "shard.db: page %u: its cells begin inside its cell pointers", number);
    if (!SF_RESERVE(w->alloc, &w->pages, &w->stored_cap, w->stored_count + 1))
        return fail_nomem(w->stored_count + 1, err);
    w->pages[w->stored_count++] = (struct page){number, (uint32_t)(w->page_bytes - (to - from))};
    w->area_bytes += w->page_bytes - (to - from);
    return SF_OK;
}

static sf_status walk_chain(struct database_walk *w, const sf_btree_cell *cell, sf_error *err)
{
    uint64_t rest = cell->payload_bytes - cell->local.n, on_page = w->page_bytes - 4;
    uint64_t count = rest / on_page + (rest % on_page > 0);
    uint32_t next = cell->overflow;
    sf_status rc = SF_OK;

    if (!SF_RESERVE(w->alloc, &w->chains, &w->chain_cap, w->chain_count + 1))
        return fail_nomem(w->chain_count + 1, err);
    if (count > w->page_count)
        return sf_fail(err, SF_CORRUPT, "shard.db: a payload of %llu bytes in %u pages",
                       (unsigned long long)cell->payload_bytes, w->page_count);
    w->chains[w->chain_count++] =
        (struct chain){.head = cell->overflow, .count = (uint32_t)count, .first = w->chain_pages.n};
    for (uint64_t i = 0; i < count && rc == SF_OK; i++) {
        uint8_t link[4];

        rc = visit(w, next, err);
        if (rc == SF_OK)
            rc = push(w, &w->chain_pages, next, err);
        if (rc == SF_OK)
            rc = read_page(w, next, sizeof(link), link, err);
        if (rc == SF_OK)
            next = (uint32_t)sf_load_be(link, 4);
    }
    if (rc == SF_OK && next != 0)
        rc = sf_fail(err, SF_CORRUPT, "shard.db: the overflow chain from page %u is too long", cell->overflow);
    return rc;
}

static sf_status walk_tree(struct database_walk *w, uint32_t number, const sf_btree_header *parent, unsigned depth,
                           bool schema, sf_error *err)
{
    sf_btree_header h;
    sf_bytes page = {0};
    sf_status rc = read_node(w, number, depth, &page, err);

    if (rc != SF_OK)
        return rc;
    if (!sf__btree_header_decode(&h, page, number) || (parent && h.table != parent->table) || (schema && !h.table))
        return sf_fail(err, SF_CORRUPT, "shard.db: page %u is not of the tree that it hangs in", number);
    if (schema || h.interior)
        rc = store_page(w, page, number, err);
    for (uint32_t i = 0; i < h.cells && rc == SF_OK; i++) {
        sf_btree_cell cell;
        uint32_t root = 0;

        if (!sf__btree_cell_decode(&cell, &h, page, i))
            return sf_fail(err, SF_CORRUPT, "shard.db: page %u: cell %u runs out of it", number, i);
        if (h.interior)
            rc = walk_tree(w, cell.left_child, &h, depth + 1, schema, err);
        if (rc == SF_OK && cell.overflow != 0)
            rc = walk_chain(w, &cell, err);
        if (rc != SF_OK || !schema || h.interior)
            continue;
        if (!sf__btree_schema_root(cell.local, &root))
            return sf_fail(err, SF_CORRUPT, "shard.db: page %u: row %u of the schema", number, i);
        if (root != 0)
            rc = push(w, &w->roots, root, err);
    }
    if (rc == SF_OK && h.interior)
        rc = walk_tree(w, h.right_child, &h, depth + 1, schema, err);
    return rc;
}

static sf_status walk_all(struct database_walk *w, sf_error *err)
{
    sf_status rc = walk_tree(w, 1, NULL, 0, true, err);

    for (size_t i = 0; i < w->roots.n && rc == SF_OK; i++)
        rc = walk_tree(w, w->roots.v[i], NULL, 0, false, err);
    if (rc != SF_OK)
        return rc;
    if (w->stored_count > 0)
        qsort(w->pages, w->stored_count, sizeof(*w->pages), by_number);
    if (w->chain_count > 0)
        qsort(w->chains, w->chain_count, sizeof(*w->chains), by_head);
    return SF_OK;
}

/* ------------------------------------------------------------------ the file ------------------------------------- */

/* Bytes 16..20 of the header, and the size. */
static sf_status open_db(struct database_walk *w, sf_error *err)
{
    static const char magic[16] = "SQLite format 3";
    uint8_t header[SF_DB_HEADER_BYTES];
    uint64_t pages;
    sf_status rc = w->db->size < sizeof(header) ? sf_fail(err, SF_CORRUPT, "shard.db: not an SQLite database")
                                                : w->db->read(w->db->ctx, 0, sizeof(header), header, err);

    if (rc != SF_OK)
        return rc;
    if (memcmp(header, magic, sizeof(magic)) != 0)
        return sf_fail(err, SF_CORRUPT, "shard.db: not an SQLite database");
    if (header[18] != 1 || header[19] != 1)
        return sf_fail(err, SF_UNSUPPORTED, "shard.db: in WAL mode");
    if (header[20] != 0)
        return sf_fail(err, SF_UNSUPPORTED, "shard.db: %u reserved bytes in a page", header[20]);
    w->page_bytes = (uint32_t)sf_load_be(header + 16, 2);
    if (w->page_bytes == 1)
        w->page_bytes = SF_DB_PAGE_BYTES_MAX;
    if (w->page_bytes < SF_DB_PAGE_BYTES_MIN || (w->page_bytes & (w->page_bytes - 1)) != 0)
        return sf_fail(err, SF_CORRUPT, "shard.db: pages of %u bytes", w->page_bytes);
    pages = w->db->size / w->page_bytes;
    if (pages == 0 || w->db->size % w->page_bytes != 0 || pages > UINT32_MAX - 1)
        return sf_fail(err, SF_CORRUPT, "shard.db: %llu bytes in pages of %u", (unsigned long long)w->db->size,
                       w->page_bytes);
    w->page_count = (uint32_t)pages;
    w->seen = sf__calloc(w->alloc, w->page_count / 8 + 1, 1);
    return w->seen ? SF_OK : sf_fail(err, SF_NOMEM, "sidecar: map of %u pages", w->page_count);
}

static void walk_cleanup(struct database_walk *w)
{
    for (unsigned i = 0; i < DEPTH_MAX; i++)
        sf__free(w->alloc, w->path[i]);
    sf__free(w->alloc, w->seen);
    sf__free(w->alloc, w->pages);
    sf__free(w->alloc, w->chain_pages.v);
    sf__free(w->alloc, w->roots.v);
    sf__free(w->alloc, w->chains);
}

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

static void put_pages(struct frame *f, const struct database_walk *w)
{
    uint64_t off = 0;

    frame_put_u32(f, w->stored_count);
    for (size_t i = 0; i < w->stored_count; i++)
        frame_put_u32(f, w->pages[i].number);
    for (size_t i = 0; i < w->stored_count; i++) {
        frame_put_u32(f, off);
        off += w->pages[i].stored_bytes;
    }
    frame_put_u32(f, off);
}

static void put_chains(struct frame *f, const struct database_walk *w)
{
    uint64_t start = 0;

    frame_put_u32(f, w->chain_count);
    for (size_t i = 0; i < w->chain_count; i++)
        frame_put_u32(f, w->chains[i].head);
    for (size_t i = 0; i < w->chain_count; i++) {
        frame_put_u32(f, start);
        start += w->chains[i].count;
    }
    frame_put_u32(f, start);
    for (size_t i = 0; i < w->chain_count; i++)
        for (uint32_t k = 0; k < w->chains[i].count; k++)
            frame_put_u32(f, w->chain_pages.v[w->chains[i].first + k]);
}

static void put_area(struct frame *f, struct database_walk *w)
{
    uint8_t *page = w->path[0]; /* the walk has been at page 1 */

    for (size_t i = 0; i < w->stored_count && f->rc == SF_OK; i++) {
        size_t from, to;

        f->rc = read_page(w, w->pages[i].number, w->page_bytes, page, f->err);
        if (f->rc != SF_OK)
            return;
        if (!sf__sidecar_gap(sf_bytes_of(page, w->page_bytes), w->pages[i].number, w->page_bytes, &from, &to) ||
            w->page_bytes - (to - from) != w->pages[i].stored_bytes) {
            f->rc = sf_fail(f->err, SF_CORRUPT, "shard.db: page %u changed", w->pages[i].number);
            return;
        }
        frame_put(f, page, from);
        frame_put(f, page + to, w->page_bytes - to);
    }
}

static sf_status put_all(struct database_walk *w, const char *etag, sf_sidecar_sink sink, void *ctx, sf_error *err)
{
    struct frame f = {.alloc = w->alloc, .sink = sink, .ctx = ctx, .err = err};
    uint64_t body_bytes =
        4 * (4 + 2 * (uint64_t)w->stored_count + 2 * (uint64_t)w->chain_count + w->chain_pages.n) + w->area_bytes;
    size_t tag_bytes = strlen(etag) <= SF_SIDECAR_TAG_MAX ? strlen(etag) : 0;
    uint8_t head[SF_SIDECAR_HEAD_BYTES + SF_SIDECAR_TAG_MAX];

    if (body_bytes > SF_LIMIT_SIDECAR_BYTES)
        return sf_fail(err, SF_UNSUPPORTED, "sidecar of %llu bytes: readers take %u", (unsigned long long)body_bytes,
                       SF_LIMIT_SIDECAR_BYTES);
    memcpy(head, SF_SIDECAR_MAGIC, 4);
    head[4] = SF_SIDECAR_VERSION;
    sf_store_le(head + 5, 8, body_bytes);
    sf_store_le(head + 13, 4, w->page_bytes);
    head[17] = (uint8_t)tag_bytes;
    memcpy(head + SF_SIDECAR_HEAD_BYTES, etag, tag_bytes);
    frame_open(&f, body_bytes);
    if (f.rc == SF_OK)
        f.rc = sink(ctx, sf_bytes_of(head, SF_SIDECAR_HEAD_BYTES + tag_bytes), err);
    put_pages(&f, w);
    put_chains(&f, w);
    put_area(&f, w);
    if (f.rc == SF_OK)
        frame_compress(&f, ZSTD_e_end);
    frame_close(&f);
    return f.rc;
}

sf_status sf__sidecar_encode(const sf_file_view *db, const char *etag, const sf_allocator *a, sf_sidecar_sink sink,
                             void *ctx, sf_error *err)
{
    struct database_walk w = {.db = db, .alloc = a};
    sf_status rc = open_db(&w, err);

    if (rc == SF_OK)
        rc = walk_all(&w, err);
    if (rc == SF_OK)
        rc = put_all(&w, etag, sink, ctx, err);
    walk_cleanup(&w);
    return rc;
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
    sf_buf *b = sf__buf_new(a, 4096);
    sf_status rc;

    if (!b)
        return sf_fail(err, SF_NOMEM, "sidecar");
    b->n = 0;
    rc = sf__sidecar_encode(&view, etag, a, bytes_append, &b, err);
    if (rc != SF_OK) {
        sf__buf_release(b);
        return rc;
    }
    *out = b;
    return SF_OK;
}
