/* Walks the b-trees of a database and writes down what a sidecar holds. */
#include <stdlib.h>
#include <zstd.h>

#include "backend/sqlite/btree_page.h"
#include "backend/sqlite/sidecar.h"
#include "backend/sqlite/sidecar_format.h"
#include "base/limits.h"

/* SQLite's own bound on the height of a tree. */
#define DEPTH_MAX 20u

struct numbers {
    uint32_t *v;
    size_t n, cap;
};

struct chain {
    uint32_t head, count;
    size_t first; /* in walk.chain_pages */
};

struct walk {
    sf_bytes db;
    uint32_t page_bytes, page_count;
    const sf_allocator *alloc;
    uint8_t *seen; /* a bit a page: none is in two places of a sound database */
    struct numbers pages, chain_pages, roots;
    struct chain *chains;
    size_t chain_count, chain_cap;
    uint64_t area_bytes; /* of the stored pages */
};

/* ------------------------------------------------------------------ lists ---------------------------------------- */

static sf_status grow(const sf_allocator *a, void **v, size_t n, size_t *cap, size_t item, sf_error *err)
{
    size_t bigger = *cap ? 2 * *cap : 64;
    void *p;

    if (n < *cap)
        return SF_OK;
    p = sf__realloc(a, *v, bigger * item);
    if (!p)
        return sf_fail(err, SF_NOMEM, "sidecar: list of %zu pages", bigger);
    *v = p;
    *cap = bigger;
    return SF_OK;
}

static sf_status push(const struct walk *w, struct numbers *l, uint32_t number, sf_error *err)
{
    void *v = l->v;
    sf_status rc = grow(w->alloc, &v, l->n, &l->cap, sizeof(*l->v), err);

    l->v = v;
    if (rc == SF_OK)
        l->v[l->n++] = number;
    return rc;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static int by_head(const void *a, const void *b)
{
    uint32_t x = ((const struct chain *)a)->head, y = ((const struct chain *)b)->head;

    return (x > y) - (x < y);
}

/* ------------------------------------------------------------------ the walk ------------------------------------- */

static sf_status visit(struct walk *w, uint32_t number, sf_bytes *page, sf_error *err)
{
    if (number == 0 || number > w->page_count)
        return sf_fail(err, SF_CORRUPT, "shard.db: page %u of %u", number, w->page_count);
    if (w->seen[number / 8] & 1u << number % 8)
        return sf_fail(err, SF_CORRUPT, "shard.db: page %u is in two places", number);
    w->seen[number / 8] |= (uint8_t)(1u << number % 8);
    *page = sf_bytes_of(w->db.p + (uint64_t)(number - 1) * w->page_bytes, w->page_bytes);
    return SF_OK;
}

static sf_status store_page(struct walk *w, sf_bytes page, uint32_t number, sf_error *err)
{
    size_t from, to;

    if (!sf__sidecar_gap(page, number, w->page_bytes, &from, &to))
        return sf_fail(err, SF_CORRUPT, "shard.db: page %u: its cells begin inside its cell pointers", number);
    w->area_bytes += w->page_bytes - (to - from);
    return push(w, &w->pages, number, err);
}

static sf_status walk_chain(struct walk *w, const sf_btree_cell *cell, sf_error *err)
{
    uint64_t rest = cell->payload_bytes - cell->local.n, on_page = w->page_bytes - 4;
    uint64_t count = rest / on_page + (rest % on_page > 0);
    uint32_t next = cell->overflow;
    void *v = w->chains;
    sf_status rc = grow(w->alloc, &v, w->chain_count, &w->chain_cap, sizeof(*w->chains), err);
    sf_bytes page = {0};

    w->chains = v;
    if (rc != SF_OK)
        return rc;
    if (count > w->page_count)
        return sf_fail(err, SF_CORRUPT, "shard.db: a payload of %llu bytes in %u pages",
                       (unsigned long long)cell->payload_bytes, w->page_count);
    w->chains[w->chain_count++] =
        (struct chain){.head = cell->overflow, .count = (uint32_t)count, .first = w->chain_pages.n};
    for (uint64_t i = 0; i < count; i++) {
        rc = visit(w, next, &page, err);
        if (rc == SF_OK)
            rc = push(w, &w->chain_pages, next, err);
        if (rc != SF_OK)
            return rc;
        next = (uint32_t)sf_load_be(page.p, 4);
    }
    return next == 0 ? SF_OK
                     : sf_fail(err, SF_CORRUPT, "shard.db: the overflow chain from page %u is too long", cell->overflow);
}

static sf_status walk_tree(struct walk *w, uint32_t number, const sf_btree_header *parent, unsigned depth, bool schema,
                           sf_error *err)
{
    sf_btree_header h;
    sf_bytes page;
    sf_status rc = depth < DEPTH_MAX ? visit(w, number, &page, err)
                                     : sf_fail(err, SF_CORRUPT, "shard.db: page %u lies too deep", number);

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

static sf_status walk_all(struct walk *w, sf_error *err)
{
    sf_status rc = walk_tree(w, 1, NULL, 0, true, err);

    for (size_t i = 0; i < w->roots.n && rc == SF_OK; i++)
        rc = walk_tree(w, w->roots.v[i], NULL, 0, false, err);
    if (rc != SF_OK)
        return rc;
    if (w->pages.n > 0)
        qsort(w->pages.v, w->pages.n, sizeof(*w->pages.v), by_number);
    if (w->chain_count > 0)
        qsort(w->chains, w->chain_count, sizeof(*w->chains), by_head);
    return SF_OK;
}

/* ------------------------------------------------------------------ the file ------------------------------------- */

/* Bytes 16..20 of the header, and the size. */
static sf_status open_db(struct walk *w, sf_error *err)
{
    static const char magic[16] = "SQLite format 3";
    uint64_t pages;

    if (w->db.n < SF_DB_HEADER_BYTES || memcmp(w->db.p, magic, sizeof(magic)) != 0)
        return sf_fail(err, SF_CORRUPT, "shard.db: not an SQLite database");
    if (w->db.p[18] != 1 || w->db.p[19] != 1)
        return sf_fail(err, SF_UNSUPPORTED, "shard.db: in WAL mode");
    if (w->db.p[20] != 0)
        return sf_fail(err, SF_UNSUPPORTED, "shard.db: %u reserved bytes in a page", w->db.p[20]);
    w->page_bytes = (uint32_t)sf_load_be(w->db.p + 16, 2);
    if (w->page_bytes == 1)
        w->page_bytes = SF_DB_PAGE_BYTES_MAX;
    if (w->page_bytes < SF_DB_PAGE_BYTES_MIN || (w->page_bytes & (w->page_bytes - 1)) != 0)
        return sf_fail(err, SF_CORRUPT, "shard.db: pages of %u bytes", w->page_bytes);
    pages = w->db.n / w->page_bytes;
    if (pages == 0 || w->db.n % w->page_bytes != 0 || pages > UINT32_MAX - 1)
        return sf_fail(err, SF_CORRUPT, "shard.db: %zu bytes in pages of %u", w->db.n, w->page_bytes);
    w->page_count = (uint32_t)pages;
    w->seen = sf__calloc(w->alloc, w->page_count / 8 + 1, 1);
    return w->seen ? SF_OK : sf_fail(err, SF_NOMEM, "sidecar: map of %u pages", w->page_count);
}

static void walk_cleanup(struct walk *w)
{
    sf__free(w->alloc, w->seen);
    sf__free(w->alloc, w->pages.v);
    sf__free(w->alloc, w->chain_pages.v);
    sf__free(w->alloc, w->roots.v);
    sf__free(w->alloc, w->chains);
}

/* ------------------------------------------------------------------ the sidecar ---------------------------------- */

static uint8_t *put(uint8_t *p, uint64_t v)
{
    sf_store_le(p, 4, v);
    return p + 4;
}

static uint8_t *put_pages(const struct walk *w, uint8_t *p)
{
    uint64_t off = 0;

    p = put(p, w->pages.n);
    for (size_t i = 0; i < w->pages.n; i++)
        p = put(p, w->pages.v[i]);
    for (size_t i = 0; i <= w->pages.n; i++) {
        size_t from, to;

        p = put(p, off);
        if (i < w->pages.n &&
            sf__sidecar_gap(sf_bytes_of(w->db.p + (uint64_t)(w->pages.v[i] - 1) * w->page_bytes, w->page_bytes),
                            w->pages.v[i], w->page_bytes, &from, &to))
            off += w->page_bytes - (to - from);
    }
    return p;
}

static uint8_t *put_chains(const struct walk *w, uint8_t *p)
{
    uint64_t start = 0;

    p = put(p, w->chain_count);
    for (size_t i = 0; i < w->chain_count; i++)
        p = put(p, w->chains[i].head);
    for (size_t i = 0; i < w->chain_count; i++) {
        p = put(p, start);
        start += w->chains[i].count;
    }
    p = put(p, start);
    for (size_t i = 0; i < w->chain_count; i++)
        for (uint32_t k = 0; k < w->chains[i].count; k++)
            p = put(p, w->chain_pages.v[w->chains[i].first + k]);
    return p;
}

static void put_area(const struct walk *w, uint8_t *p)
{
    for (size_t i = 0; i < w->pages.n; i++) {
        const uint8_t *page = w->db.p + (uint64_t)(w->pages.v[i] - 1) * w->page_bytes;
        size_t from, to;

        if (!sf__sidecar_gap(sf_bytes_of(page, w->page_bytes), w->pages.v[i], w->page_bytes, &from, &to))
            continue; /* the walk has checked: it does not happen */
        memcpy(p, page, from);
        memcpy(p + from, page + to, w->page_bytes - to);
        p += w->page_bytes - (to - from);
    }
}

static sf_status build_body(const struct walk *w, sf_buf **out, sf_error *err)
{
    uint64_t n = 4 * (4 + 2 * (uint64_t)w->pages.n + 2 * (uint64_t)w->chain_count + w->chain_pages.n) + w->area_bytes;
    sf_buf *b;

    if (n > SF_LIMIT_SIDECAR_BYTES)
        return sf_fail(err, SF_UNSUPPORTED, "sidecar of %llu bytes: readers take %u", (unsigned long long)n,
                       SF_LIMIT_SIDECAR_BYTES);
    b = sf__buf_new(w->alloc, (size_t)n);
    if (!b)
        return sf_fail(err, SF_NOMEM, "sidecar of %llu bytes", (unsigned long long)n);
    put_area(w, put_chains(w, put_pages(w, b->data)));
    *out = b;
    return SF_OK;
}

static sf_status deflate(uint8_t *dst, size_t cap, const sf_buf *body, size_t *n, sf_error *err)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();

    if (!c)
        return sf_fail(err, SF_NOMEM, "sidecar: compressor");
    *n = ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, SF_ZSTD_LEVEL);
    if (!ZSTD_isError(*n))
        *n = ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
    if (!ZSTD_isError(*n)) /* with the content's size: the default of a call that knows it */
        *n = ZSTD_compress2(c, dst, cap, body->data, body->n);
    ZSTD_freeCCtx(c);
    return ZSTD_isError(*n) ? sf_fail(err, SF_NOMEM, "sidecar: %s", ZSTD_getErrorName(*n)) : SF_OK;
}

static sf_status build_object(const struct walk *w, const sf_buf *body, const char *etag, sf_buf **out, sf_error *err)
{
    size_t tag_bytes = strlen(etag) <= SF_SIDECAR_TAG_MAX ? strlen(etag) : 0, bound = ZSTD_compressBound(body->n), n = 0;
    size_t head = SF_SIDECAR_HEAD_BYTES + tag_bytes;
    sf_buf *b = sf__buf_new(w->alloc, head + bound);
    sf_status rc;

    if (!b)
        return sf_fail(err, SF_NOMEM, "sidecar of %zu bytes", head + bound);
    memcpy(b->data, SF_SIDECAR_MAGIC, 4);
    b->data[4] = SF_SIDECAR_VERSION;
    sf_store_le(b->data + 5, 8, body->n);
    sf_store_le(b->data + 13, 4, w->page_bytes);
    b->data[17] = (uint8_t)tag_bytes;
    memcpy(b->data + SF_SIDECAR_HEAD_BYTES, etag, tag_bytes);
    rc = deflate(b->data + head, bound, body, &n, err);
    if (rc != SF_OK) {
        sf__buf_release(b);
        return rc;
    }
    b->n = head + n;
    *out = b;
    return SF_OK;
}

sf_status sf__sidecar_encode(sf_bytes db, const char *etag, const sf_allocator *a, sf_buf **out, sf_error *err)
{
    struct walk w = {.db = db, .alloc = a};
    sf_buf *body = NULL;
    sf_status rc = open_db(&w, err);

    if (rc == SF_OK)
        rc = walk_all(&w, err);
    if (rc == SF_OK)
        rc = build_body(&w, &body, err);
    if (rc == SF_OK)
        rc = build_object(&w, body, etag, out, err);
    sf__buf_release(body);
    walk_cleanup(&w);
    return rc;
}
