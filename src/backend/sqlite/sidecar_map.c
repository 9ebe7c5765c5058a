#include "backend/sqlite/sidecar_map.h"

#include <stdlib.h>

#include "backend/sqlite/btree_page.h"
#include "backend/sqlite/sidecar_format.h"
#include "base/grow.h"
#include "base/limits.h"

/* SQLite's own bound on the height of a tree. */
#define DEPTH_MAX 20u

/* ------------------------------------------------------------------ the map -------------------------------------- */

void sf__sidecar_map_init(sf_sidecar_map *m, uint32_t page_bytes, const sf_allocator *a)
{
    *m = (sf_sidecar_map){.alloc = a, .page_bytes = page_bytes};
}

void sf__sidecar_map_cleanup(sf_sidecar_map *m)
{
    if (!m->alloc)
        return;
    sf__free(m->alloc, m->pages);
    sf__free(m->alloc, m->chains);
    sf__free(m->alloc, m->chain_pages);
    *m = (sf_sidecar_map){0};
}

uint64_t sf__sidecar_map_body_bytes(const sf_sidecar_map *m)
{
    return 4 * (4 + 2 * (uint64_t)m->page_count + 2 * (uint64_t)m->chain_count + m->chain_page_count) + m->area_bytes;
}

static sf_status fail_nomem(size_t pages, sf_error *err)
{
    return sf_fail(err, SF_NOMEM, "sidecar: list of %zu pages", pages);
}

static sf_status check_size(const sf_sidecar_map *m, sf_error *err)
{
    if (sf__sidecar_map_body_bytes(m) > SF_LIMIT_SIDECAR_BYTES)
        return sf_fail(err, SF_UNSUPPORTED, "sidecar: it would have more than %u bytes, which readers do not take",
                       SF_LIMIT_SIDECAR_BYTES);
    return SF_OK;
}

sf_status sf__sidecar_map_add_page(sf_sidecar_map *m, uint32_t number, uint32_t stored_bytes, sf_error *err)
{
    if (!SF_RESERVE(m->alloc, &m->pages, &m->page_cap, m->page_count + 1))
        return fail_nomem(m->page_count + 1, err);
    m->pages[m->page_count++] = (struct sf_sidecar_map_page){number, stored_bytes};
    m->area_bytes += stored_bytes;
    return check_size(m, err);
}

sf_status sf__sidecar_map_add_chain(sf_sidecar_map *m, uint32_t head, sf_error *err)
{
    if (!SF_RESERVE(m->alloc, &m->chains, &m->chain_cap, m->chain_count + 1))
        return fail_nomem(m->chain_count + 1, err);
    m->chains[m->chain_count++] = (struct sf_sidecar_map_chain){.head = head, .first = m->chain_page_count};
    return check_size(m, err);
}

sf_status sf__sidecar_map_add_chain_page(sf_sidecar_map *m, uint32_t number, sf_error *err)
{
    if (!SF_RESERVE(m->alloc, &m->chain_pages, &m->chain_page_cap, m->chain_page_count + 1))
        return fail_nomem(m->chain_page_count + 1, err);
    m->chain_pages[m->chain_page_count++] = number;
    m->chains[m->chain_count - 1].count++;
    return check_size(m, err);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = ((const struct sf_sidecar_map_page *)a)->number, y = ((const struct sf_sidecar_map_page *)b)->number;

    return (x > y) - (x < y);
}

static int by_head(const void *a, const void *b)
{
    uint32_t x = ((const struct sf_sidecar_map_chain *)a)->head, y = ((const struct sf_sidecar_map_chain *)b)->head;

    return (x > y) - (x < y);
}

void sf__sidecar_map_sort(sf_sidecar_map *m)
{
    if (m->page_count > 0)
        qsort(m->pages, m->page_count, sizeof(*m->pages), by_number);
    if (m->chain_count > 0)
        qsort(m->chains, m->chain_count, sizeof(*m->chains), by_head);
}

/* ------------------------------------------------------------------ the walk ------------------------------------- */

struct database_walk {
    sf_sidecar_map *map;
    const sf_file_view *db;
    const sf_allocator *alloc;
    uint32_t page_bytes, page_count;
    uint8_t *seen;            /* a bit a page: none is in two places of a sound database */
    uint8_t *path[DEPTH_MAX]; /* a page for each level that was reached */
    uint32_t *roots;
    size_t root_count, root_cap;
};

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
    sf_status rc =
        depth < DEPTH_MAX ? visit(w, number, err) : sf_fail(err, SF_CORRUPT, "shard.db: page %u lies too deep", number);

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

    if (!sf__btree_gap(page, number, w->page_bytes, &from, &to))
        return sf_fail(err, SF_CORRUPT, "shard.db: page %u: its cells begin inside its cell pointers", number);
    return sf__sidecar_map_add_page(w->map, number, (uint32_t)(w->page_bytes - (to - from)), err);
}

static sf_status walk_chain(struct database_walk *w, const sf_btree_cell *cell, sf_error *err)
{
    uint64_t rest = cell->payload_bytes - cell->local.n, on_page = w->page_bytes - 4;
    uint64_t count = rest / on_page + (rest % on_page > 0);
    uint32_t next = cell->overflow;
    sf_status rc;

    if (count > w->page_count)
        return sf_fail(err, SF_CORRUPT, "shard.db: a payload of %llu bytes in %u pages",
                       (unsigned long long)cell->payload_bytes, w->page_count);
    rc = sf__sidecar_map_add_chain(w->map, cell->overflow, err);
    for (uint64_t i = 0; i < count && rc == SF_OK; i++) {
        uint8_t link[4];

        rc = visit(w, next, err);
        if (rc == SF_OK)
            rc = sf__sidecar_map_add_chain_page(w->map, next, err);
        if (rc == SF_OK)
            rc = read_page(w, next, sizeof(link), link, err);
        if (rc == SF_OK)
            next = (uint32_t)sf_load_be(link, 4);
    }
    if (rc == SF_OK && next != 0)
        rc = sf_fail(err, SF_CORRUPT, "shard.db: the overflow chain from page %u is too long", cell->overflow);
    return rc;
}

static sf_status add_root(struct database_walk *w, uint32_t number, sf_error *err)
{
    if (!SF_RESERVE(w->alloc, &w->roots, &w->root_cap, w->root_count + 1))
        return fail_nomem(w->root_count + 1, err);
    w->roots[w->root_count++] = number;
    return SF_OK;
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
            rc = add_root(w, root, err);
    }
    if (rc == SF_OK && h.interior)
        rc = walk_tree(w, h.right_child, &h, depth + 1, schema, err);
    return rc;
}

/* Bytes 16..20 of the header, and the size. */
static sf_status open_db(struct database_walk *w, sf_error *err)
{
    uint8_t header[SF_DB_HEADER_BYTES];
    uint64_t pages;
    sf_status rc = w->db->size < sizeof(header) ? sf_fail(err, SF_CORRUPT, "shard.db: not an SQLite database")
                                                : w->db->read(w->db->ctx, 0, sizeof(header), header, err);

    if (rc != SF_OK)
        return rc;
    if (memcmp(header, SF_DB_MAGIC, sizeof(SF_DB_MAGIC)) != 0)
        return sf_fail(err, SF_CORRUPT, "shard.db: not an SQLite database");
    if (header[18] != 1 || header[19] != 1)
        return sf_fail(err, SF_UNSUPPORTED, "shard.db: in WAL mode");
    if (header[20] != 0)
        return sf_fail(err, SF_UNSUPPORTED, "shard.db: %u reserved bytes in a page", header[20]);
    if (!sf__btree_page_bytes(sf_bytes_of(header, sizeof(header)), &w->page_bytes))
        return sf_fail(err, SF_CORRUPT, "shard.db: pages of %u bytes", (unsigned)sf_load_be(header + 16, 2));
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
    sf__free(w->alloc, w->roots);
}

sf_status sf__sidecar_map_walk(sf_sidecar_map *m, const sf_file_view *db, const sf_allocator *a, sf_error *err)
{
    struct database_walk w = {.map = m, .db = db, .alloc = a};
    sf_status rc = open_db(&w, err);

    sf__sidecar_map_init(m, w.page_bytes, a);
    if (rc == SF_OK)
        rc = walk_tree(&w, 1, NULL, 0, true, err);
    for (size_t i = 0; i < w.root_count && rc == SF_OK; i++)
        rc = walk_tree(&w, w.roots[i], NULL, 0, false, err);
    if (rc == SF_OK)
        sf__sidecar_map_sort(m);
    walk_cleanup(&w);
    return rc;
}
