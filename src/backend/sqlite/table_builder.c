#include "backend/sqlite/table_builder.h"

#include <assert.h>
#include <unistd.h>

#include "backend/sqlite/btree_page.h"
#include "backend/sqlite/record.h"
#include "base/temp_file.h"

#define SCHEMA_SQL "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID"
#define SCHEMA_PAGE 1u
#define ROOT_PAGE 2u
/* A page has room for four rows and more, as many as they are: 2^32 pages are no higher than this. */
#define HEIGHT_MAX 16u
/* Of a row beside its local payload: its length, and where it goes on. */
#define CELL_EXTRA_BYTES 13u
/* The first SQLite that knows tables without row ids. Ours is none of its libraries, whose number this would be. */
#define WRITTEN_BY 3008002u

/* A page that is being filled: cells from its end downwards, their pointers from its header upwards. */
struct tree_level {
    uint8_t *page;   /* NULL: the tree is not so high */
    uint32_t number; /* 0: it gets one when it is written */
    uint32_t cells, content_off;
    uint32_t last_end;    /* of the cell that was added last */
    uint32_t right_child; /* above the leaves */
    uint8_t *held;        /* the row behind a full page, without a child; it goes up once the next page has a row */
    size_t held_bytes;    /* 0: none */
};

struct sf_table_builder {
    const sf_allocator *alloc;
    int fd;
    uint32_t page_bytes;
    sf_page_writer pages;
    struct tree_level levels[HEIGHT_MAX]; /* the leaf first */
    uint8_t *spare;                       /* for one cell */
    sf_sidecar_map map;
    bool mapped;
};

/* ------------------------------------------------------------------ life ----------------------------------------- */

static size_t cell_bytes_max(const sf_table_builder *b)
{
    return sf__btree_local_max(b->page_bytes) + CELL_EXTRA_BYTES;
}

static sf_status level_begin(const sf_table_builder *b, struct tree_level *l, sf_error *err)
{
    l->page = sf__alloc(b->alloc, b->page_bytes);
    l->held = sf__alloc(b->alloc, cell_bytes_max(b));
    l->content_off = b->page_bytes;
    return l->page && l->held ? SF_OK : sf_fail(err, SF_NOMEM, "shard.db: page of %u bytes", b->page_bytes);
}

static sf_status builder_init(sf_table_builder *b, const sf_table_builder_options *o, sf_error *err)
{
    uint8_t *page;
    uint32_t number;
    sf_status rc = sf__temp_file_nameless(o->folder, "shard.db: folder", b->alloc, &b->fd, err);

    if (rc != SF_OK) {
        b->fd = -1;
        return rc;
    }
    b->page_bytes = o->page_bytes;
    sf__sidecar_map_init(&b->map, o->page_bytes, b->alloc);
    b->mapped = o->sidecar;
    b->spare = sf__alloc(b->alloc, cell_bytes_max(b));
    if (!b->spare || !sf__page_writer_init(&b->pages, b->fd, o->page_bytes, o->lock_off, b->alloc))
        return sf_fail(err, SF_NOMEM, "shard.db: buffer for its pages");
    rc = level_begin(b, &b->levels[0], err);
    while (rc == SF_OK && sf__page_writer_count(&b->pages) < ROOT_PAGE) /* put at the end */
        rc = sf__page_writer_next(&b->pages, &number, &page, err);
    return rc;
}

sf_status sf__table_builder_open(sf_table_builder **out, const sf_table_builder_options *opts, const sf_allocator *a,
                                 sf_error *err)
{
    sf_table_builder *b = sf__calloc(a, 1, sizeof(*b));
    sf_status rc;

    if (!b)
        return sf_fail(err, SF_NOMEM, "shard.db");
    b->alloc = a;
    b->fd = -1;
    rc = builder_init(b, opts, err);
    if (rc != SF_OK) {
        sf__table_builder_free(b);
        return rc;
    }
    *out = b;
    return SF_OK;
}

void sf__table_builder_free(sf_table_builder *b)
{
    if (!b)
        return;
    for (unsigned i = 0; i < HEIGHT_MAX; i++) {
        sf__free(b->alloc, b->levels[i].page);
        sf__free(b->alloc, b->levels[i].held);
    }
    sf__sidecar_map_cleanup(&b->map);
    sf__page_writer_cleanup(&b->pages);
    if (b->fd >= 0)
        close(b->fd);
    sf__free(b->alloc, b->spare);
    sf__free(b->alloc, b);
}

/* ------------------------------------------------------------------ the sidecar's map ---------------------------- */

/* A map that no reader takes is not kept on with. */
static sf_status mapped(sf_table_builder *b, sf_status rc)
{
    if (rc != SF_UNSUPPORTED)
        return rc;
    sf__sidecar_map_cleanup(&b->map);
    b->mapped = false;
    return SF_OK;
}

static sf_status map_page(sf_table_builder *b, uint32_t number, size_t stored_bytes, sf_error *err)
{
    return b->mapped ? mapped(b, sf__sidecar_map_add_page(&b->map, number, (uint32_t)stored_bytes, err)) : SF_OK;
}

static sf_status map_chain_page(sf_table_builder *b, uint32_t number, bool head, sf_error *err)
{
    sf_status rc = b->mapped && head ? mapped(b, sf__sidecar_map_add_chain(&b->map, number, err)) : SF_OK;

    return rc == SF_OK && b->mapped ? mapped(b, sf__sidecar_map_add_chain_page(&b->map, number, err)) : rc;
}

/* ------------------------------------------------------------------ pages of the tree ---------------------------- */

static size_t header_bytes(unsigned level)
{
    return level == 0 ? SF_BTREE_LEAF_HEADER_BYTES : SF_BTREE_INTERIOR_HEADER_BYTES;
}

/* Room for a cell of `n` bytes, beside its child; NULL: there is none. */
static uint8_t *cell_new(struct tree_level *l, unsigned level, size_t n, uint32_t child)
{
    const size_t pointer = header_bytes(level) + 2 * (size_t)l->cells, bytes = n + (level > 0 ? 4 : 0);
    uint8_t *cell;

    if (pointer + 2 + bytes > l->content_off)
        return NULL;
    l->last_end = l->content_off;
    l->content_off -= (uint32_t)bytes;
    l->cells++;
    sf_store_be(l->page + pointer, 2, l->content_off);
    cell = l->page + l->content_off;
    if (level == 0)
        return cell;
    sf_store_be(cell, 4, child);
    return cell + 4;
}

static sf_status page_write(sf_table_builder *b, unsigned level, uint32_t number, sf_error *err)
{
    struct tree_level *l = &b->levels[level];
    const size_t pointers_end = header_bytes(level) + 2 * (size_t)l->cells, gap = l->content_off - pointers_end;
    sf_status rc = level > 0 ? map_page(b, number, b->page_bytes - gap, err) : SF_OK;

    if (rc != SF_OK)
        return rc;
    memset(l->page, 0, header_bytes(level));
    l->page[0] = level == 0 ? SF_BTREE_INDEX_LEAF : SF_BTREE_INDEX_INTERIOR;
    sf_store_be(l->page + 3, 2, l->cells);
    sf_store_be(l->page + 5, 2, l->content_off); /* 65536 is 0 */
    if (level > 0)
        sf_store_be(l->page + 8, 4, l->right_child);
    memset(l->page + pointers_end, 0, gap);
    return sf__page_writer_put(&b->pages, number, l->page, err);
}

static sf_status number_of(sf_table_builder *b, struct tree_level *l, sf_error *err)
{
    uint8_t *page;

    return l->number != 0 ? SF_OK : sf__page_writer_next(&b->pages, &l->number, &page, err);
}

static sf_status row_up(sf_table_builder *b, unsigned level, sf_bytes cell, uint32_t child, sf_error *err);

/* The page goes out, and the row behind it up: the next page begins. A leaf lies in front of the chains of its rows, which are read
 * with it, so it gets its number now. */
static sf_status page_turn(sf_table_builder *b, unsigned level, sf_bytes behind, sf_error *err)
{
    struct tree_level *l = &b->levels[level];
    sf_status rc = number_of(b, l, err);

    if (rc == SF_OK)
        rc = page_write(b, level, l->number, err);
    if (rc == SF_OK)
        rc = row_up(b, level + 1, behind, l->number, err);
    l->number = 0;
    l->cells = 0;
    l->content_off = b->page_bytes;
    l->held_bytes = 0;
    return rc == SF_OK && level == 0 ? number_of(b, l, err) : rc;
}

/* Into the page above, whose children are all that lie left of it. */
static sf_status row_up(sf_table_builder *b, unsigned level, sf_bytes cell, uint32_t child, sf_error *err)
{
    struct tree_level *l = &b->levels[level];
    uint8_t *at;
    sf_status rc = SF_OK;

    assert(level < HEIGHT_MAX);
    if (!l->page)
        rc = level_begin(b, l, err);
    if (rc == SF_OK && l->held_bytes > 0)
        rc = page_turn(b, level, sf_bytes_of(l->held, l->held_bytes), err);
    if (rc != SF_OK)
        return rc;
    at = cell_new(l, level, cell.n, child);
    if (!at) {
        l->right_child = child;
        l->held_bytes = cell.n;
        at = l->held;
    }
    memcpy(at, cell.p, cell.n);
    return SF_OK;
}

/* No row comes behind the one that is held, but each page has to have one: the full page gives its last one up instead. */
static sf_status page_share(sf_table_builder *b, unsigned level, sf_error *err)
{
    struct tree_level *l = &b->levels[level];
    const uint32_t child_bytes = level > 0 ? 4 : 0, child = l->right_child;
    const size_t held_bytes = l->held_bytes;
    const uint8_t *last = l->page + l->content_off;
    sf_bytes given = {b->spare, l->last_end - l->content_off - child_bytes};
    sf_status rc;

    if (level > 0)
        l->right_child = (uint32_t)sf_load_be(last, 4);
    memcpy(b->spare, last + child_bytes, given.n);
    l->content_off = l->last_end;
    l->cells--;
    rc = page_turn(b, level, given, err);
    if (rc == SF_OK)
        memcpy(cell_new(l, level, held_bytes, child), l->held, held_bytes);
    return rc;
}

/* From the leaf upwards to the root, which has its own number. */
static sf_status tree_finish(sf_table_builder *b, sf_error *err)
{
    uint32_t child = 0;
    sf_status rc = SF_OK;

    for (unsigned level = 0; rc == SF_OK && child != ROOT_PAGE; level++) {
        struct tree_level *l = &b->levels[level];

        if (l->held_bytes > 0)
            rc = page_share(b, level, err);
        if (rc != SF_OK)
            return rc;
        l->right_child = child;
        if (level + 1 == HEIGHT_MAX || !l[1].page)
            l->number = ROOT_PAGE;
        rc = number_of(b, l, err);
        if (rc == SF_OK)
            rc = page_write(b, level, l->number, err);
        child = l->number;
    }
    return rc;
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

/* A record in pieces: its header, k, v; they get shorter while it is copied. */
struct record {
    uint8_t header[16];
    sf_bytes pieces[3];
    uint64_t bytes;
};

static void record_init(struct record *r, sf_bytes key, sf_bytes value)
{
    size_t n = 1;

    n += sf__record_varint_put(r->header + n, SF_RECORD_BLOB + 2 * (uint64_t)key.n);
    n += sf__record_varint_put(r->header + n, SF_RECORD_BLOB + 2 * (uint64_t)value.n);
    r->header[0] = (uint8_t)n;
    r->pieces[0] = sf_bytes_of(r->header, n);
    r->pieces[1] = key;
    r->pieces[2] = value;
    r->bytes = n + (uint64_t)key.n + value.n;
}

static void record_copy(struct record *r, uint8_t *out, size_t n)
{
    for (unsigned i = 0; n > 0; i++) {
        size_t part = r->pieces[i].n < n ? r->pieces[i].n : n;
        sf_bytes from;

        if (!sf_cursor_take(&r->pieces[i], part, &from) || part == 0)
            continue;
        memcpy(out, from.p, part);
        out += part;
        n -= part;
    }
}

/* The rest of it, page by page: where the next one is, then bytes. */
static sf_status chain_write(sf_table_builder *b, struct record *r, uint64_t rest, uint32_t *head, sf_error *err)
{
    const size_t room = b->page_bytes - 4;

    *head = sf__page_writer_upcoming(&b->pages);
    while (rest > 0) {
        const size_t n = rest < room ? (size_t)rest : room;
        uint8_t *page;
        uint32_t number;
        sf_status rc = sf__page_writer_next(&b->pages, &number, &page, err);

        if (rc == SF_OK)
            rc = map_chain_page(b, number, number == *head, err);
        if (rc != SF_OK)
            return rc;
        rest -= n;
        sf_store_be(page, 4, rest > 0 ? sf__page_writer_upcoming(&b->pages) : 0);
        record_copy(r, page + 4, n);
        memset(page + 4 + n, 0, room - n);
    }
    return SF_OK;
}

sf_status sf__table_builder_add(sf_table_builder *b, sf_bytes key, sf_bytes value, sf_error *err)
{
    struct tree_level *leaf = &b->levels[0];
    struct record r;
    uint8_t length[9], *at;
    uint32_t head;
    size_t length_bytes, local, n;
    sf_status rc = leaf->held_bytes > 0 ? page_turn(b, 0, sf_bytes_of(leaf->held, leaf->held_bytes), err) : SF_OK;

    if (rc != SF_OK)
        return rc;
    record_init(&r, key, value);
    length_bytes = sf__record_varint_put(length, r.bytes);
    local = sf__btree_local_bytes(r.bytes, false, b->page_bytes);
    n = length_bytes + local + (local < r.bytes ? 4 : 0);
    at = cell_new(leaf, 0, n, 0);
    if (!at) {
        leaf->held_bytes = n;
        at = leaf->held;
    }
    memcpy(at, length, length_bytes);
    record_copy(&r, at + length_bytes, local);
    if (local == r.bytes)
        return SF_OK;
    rc = chain_write(b, &r, r.bytes - local, &head, err);
    if (rc == SF_OK)
        sf_store_be(at + length_bytes + local, 4, head);
    return rc;
}

/* ------------------------------------------------------------------ the end -------------------------------------- */

/* As SQLite leaves it after one transaction. What is not named is zero. */
static void header_put(uint8_t *p, uint32_t page_bytes, uint32_t page_count)
{
    memcpy(p, SF_DB_MAGIC, sizeof(SF_DB_MAGIC));
    sf_store_be(p + 16, 2, page_bytes == 65536 ? 1 : page_bytes);
    p[18] = p[19] = 1; /* no WAL */
    p[21] = 64;        /* these three are the only ones there are */
    p[22] = p[23] = 32;
    sf_store_be(p + 24, 4, 1); /* changes, */
    sf_store_be(p + 28, 4, page_count);
    sf_store_be(p + 40, 4, 1); /* those of the schema, */
    sf_store_be(p + 44, 4, 4); /* its format */
    sf_store_be(p + 56, 4, 1); /* UTF-8 */
    sf_store_be(p + 92, 4, 1); /* changes when the size and the next were right */
    sf_store_be(p + 96, 4, WRITTEN_BY);
}

/* The one row of sqlite_schema: type, name, tbl_name, rootpage, sql. */
static size_t schema_row_put(uint8_t *out)
{
    static const char type[] = "table", name[] = "kv", sql[] = SCHEMA_SQL;
    uint8_t row[sizeof(sql) + 64];
    size_t header = 1, n, prefix;

    row[header++] = SF_RECORD_TEXT + 2 * (sizeof(type) - 1);
    row[header++] = SF_RECORD_TEXT + 2 * (sizeof(name) - 1);
    row[header++] = SF_RECORD_TEXT + 2 * (sizeof(name) - 1);
    row[header++] = 1; /* an integer of a byte */
    header += sf__record_varint_put(row + header, SF_RECORD_TEXT + 2 * (sizeof(sql) - 1));
    row[0] = (uint8_t)header;
    n = header;
    memcpy(row + n, type, sizeof(type) - 1);
    n += sizeof(type) - 1;
    for (unsigned i = 0; i < 2; i++, n += sizeof(name) - 1)
        memcpy(row + n, name, sizeof(name) - 1);
    row[n++] = ROOT_PAGE;
    memcpy(row + n, sql, sizeof(sql) - 1);
    n += sizeof(sql) - 1;
    prefix = sf__record_varint_put(out, n);
    out[prefix++] = 1; /* row id */
    memcpy(out + prefix, row, n);
    return prefix + n;
}

static sf_status schema_finish(sf_table_builder *b, sf_error *err)
{
    uint8_t row[sizeof(SCHEMA_SQL) + 64], *page = b->levels[0].page, *header = page + SF_DB_HEADER_BYTES;
    const size_t n = schema_row_put(row), content_off = b->page_bytes - n;
    const size_t pointers_end = SF_DB_HEADER_BYTES + SF_BTREE_LEAF_HEADER_BYTES + 2;
    sf_status rc = map_page(b, SCHEMA_PAGE, pointers_end + n, err);

    if (rc != SF_OK)
        return rc;
    memset(page, 0, b->page_bytes);
    header_put(page, b->page_bytes, sf__page_writer_count(&b->pages));
    header[0] = SF_BTREE_TABLE_LEAF;
    sf_store_be(header + 3, 2, 1);
    sf_store_be(header + 5, 2, content_off);
    sf_store_be(header + SF_BTREE_LEAF_HEADER_BYTES, 2, content_off);
    memcpy(page + content_off, row, n);
    return sf__page_writer_put(&b->pages, SCHEMA_PAGE, page, err);
}

sf_status sf__table_builder_finish(sf_table_builder *b, sf_file_view *file, const sf_sidecar_map **map, sf_error *err)
{
    sf_status rc = tree_finish(b, err);

    if (rc == SF_OK)
        rc = schema_finish(b, err);
    if (rc == SF_OK)
        rc = sf__page_writer_flush(&b->pages, err);
    if (rc != SF_OK)
        return rc;
    if (b->mapped)
        sf__sidecar_map_sort(&b->map);
    if (map)
        *map = b->mapped ? &b->map : NULL;
    *file = sf__file_view_of(b->fd, (uint64_t)sf__page_writer_count(&b->pages) * b->page_bytes);
    return SF_OK;
}
