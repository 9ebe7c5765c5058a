#include "backend/sqlite/tree.h"

#include "base/error.h"
#include "base/limits.h"
#include "base/pin.h"

/* As far as the header of a record of some columns goes. */
#define HEADER_BYTES 64u
/* What is asked for at a time of a chain that is expected to lie side by side. */
#define CHAIN_BYTES (1u << 20)
/* Memory for a row that is said to be longer is taken as its pages come; a page of the largest size has less. */
#define FIRST_BYTES (1u << 20)
/* Steps of a search in a page whose cells are fetched together. */
#define PREFETCH_STEPS 3u
/* The lengths in front of a cell's key, and the beginning of that. */
#define CELL_HEAD_BYTES 24u

static sf_status damaged(sf_tree_walk *w, uint32_t page, const char *why, sf_error *err)
{
    w->need = (sf_page_need){page, 1};
    return sf_fail(err, SF_CORRUPT, "page %u: %s", page, why);
}

static sf_status missing(sf_tree_walk *w, uint32_t page, uint64_t count)
{
    uint64_t left = w->tree->page_count - page + 1;

    w->need = (sf_page_need){page, (uint32_t)(count < left ? count : left)};
    return SF_WOULD_BLOCK;
}

static bool is_page(const sf_tree_walk *w, uint32_t number)
{
    return number >= 1 && number <= w->tree->page_count;
}

/* ------------------------------------------------------------------ pages ---------------------------------------- */

void sf__tree_page_drop(sf_tree_page *p)
{
    sf__owner_release(p->owner);
    *p = (sf_tree_page){0};
}

sf_status sf__tree_page(sf_tree_walk *w, uint32_t number, bool table, sf_tree_page *out, sf_error *err)
{
    sf_tree_page p = {.number = number};

    p.owner = w->page(w->ctx, number);
    if (!p.owner)
        return missing(w, number, 1);
    if (!sf_bytes_slice(sf__buf_bytes(sf__owner_buf(p.owner)), 0, w->tree->usable, &p.bytes) ||
        !sf__btree_header_decode(&p.header, p.bytes, number) || p.header.table != table) {
        sf__owner_release(p.owner);
        return damaged(w, number, table ? "it is no page of a table" : "it is no page of an index", err);
    }
    sf__tree_page_drop(out);
    *out = p;
    return SF_OK;
}

static sf_status cell_of(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, sf_btree_cell *cell, sf_error *err)
{
    if (!sf__btree_cell_decode(cell, &p->header, p->bytes, i))
        return damaged(w, p->number, "a cell runs past its end", err);
    return SF_OK;
}

sf_status sf__tree_child(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, uint32_t *child, sf_error *err)
{
    sf_btree_cell cell = {.left_child = p->header.right_child};
    sf_status rc = i < p->header.cells ? cell_of(w, p, i, &cell, err) : SF_OK;

    if (rc != SF_OK)
        return rc;
    if (!is_page(w, cell.left_child))
        return damaged(w, p->number, "a child lies outside of the file", err);
    *child = cell.left_child;
    return SF_OK;
}

/* ------------------------------------------------------------------ payloads ------------------------------------- */

void sf__tree_payload_drop(sf_tree_payload *p)
{
    sf__buf_release(p->whole);
    *p = (sf_tree_payload){0};
}

static sf_status payload_begin(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, const sf_btree_cell *cell,
                               sf_tree_payload *out, sf_error *err)
{
    sf__tree_payload_drop(out);
    if (cell->local.n < cell->payload_bytes) {
        if (cell->payload_bytes > (uint64_t)w->tree->page_count * w->tree->usable)
            return damaged(w, p->number, "a row is longer than the file", err);
        if (cell->payload_bytes > SF_LIMIT_SQLITE_ROW_BYTES)
            return damaged(w, p->number, "a row is longer than SQLite takes", err);
        out->total = cell->payload_bytes;
        out->whole = sf__buf_new(w->alloc, (size_t)(out->total < FIRST_BYTES ? out->total : FIRST_BYTES));
        if (!out->whole)
            return sf_fail(err, SF_NOMEM, "row of %llu bytes", (unsigned long long)out->total);
        memcpy(out->whole->data, cell->local.p, cell->local.n);
        out->bytes = sf_bytes_of(out->whole->data, cell->local.n);
        out->next = cell->overflow;
    } else {
        out->bytes = cell->local;
    }
    out->page = p->number;
    out->cell = i;
    return SF_OK;
}

/* The rest of a chain is likely to lie behind its first page. */
static uint64_t chain_pages(const sf_tree_walk *w, const sf_tree_payload *p)
{
    uint64_t most = CHAIN_BYTES / w->tree->usable, left = p->total - p->bytes.n, each = w->tree->usable - 4;

    if (p->scattered || most < 1)
        return 1;
    return (left + each - 1) / each < most ? (left + each - 1) / each : most;
}

bool sf__tree_chain(const sf_tree_walk *w, const sf_tree_page *p, uint32_t i, uint32_t most, sf_page_need *out)
{
    const uint64_t each = w->tree->usable - 4;
    sf_btree_cell cell;
    uint64_t count;

    if (!sf__btree_cell_decode(&cell, &p->header, p->bytes, i) || cell.local.n >= cell.payload_bytes ||
        !is_page(w, cell.overflow))
        return false;
    count = (cell.payload_bytes - cell.local.n + each - 1) / each;
    if (count > w->tree->page_count - cell.overflow + 1)
        count = w->tree->page_count - cell.overflow + 1;
    *out = (sf_page_need){cell.overflow, (uint32_t)(count < most ? count : most)};
    return true;
}

/* Room for `n` bytes more. */
static bool payload_grow(sf_tree_payload *p, size_t n)
{
    const size_t need = p->bytes.n + n, twice = 2 * p->whole->cap;
    sf_buf *bigger;

    if (need <= p->whole->cap)
        return true;
    bigger = sf__buf_reserve(p->whole, twice < p->total ? twice : (size_t)p->total);
    if (!bigger)
        return false;
    p->whole = bigger;
    p->bytes.p = bigger->data;
    return true;
}

/* Brent's way: each lap is twice as long as the one before, so that one is as long as the circle. */
static bool in_circle(sf_tree_payload *p, uint32_t next)
{
    if (next == p->mark)
        return true;
    if (p->steps++ >= p->lap) {
        p->mark = next;
        p->lap = 2 * p->lap + 1;
        p->steps = 0;
    }
    return false;
}

static sf_status payload_more(sf_tree_walk *w, sf_tree_payload *p, sf_error *err)
{
    uint64_t left = p->total - p->bytes.n;
    size_t n = w->tree->usable - 4 < left ? w->tree->usable - 4 : (size_t)left;
    uint32_t next;
    sf_cursor c;
    sf_bytes part;
    sf_buf *page;

    if (!is_page(w, p->next))
        return damaged(w, p->page, "a row goes on outside of the file", err);
    page = w->page(w->ctx, p->next);
    if (!page)
        return missing(w, p->next, chain_pages(w, p));
    c = sf__buf_bytes(sf__owner_buf(page));
    if (!sf_cursor_u32be(&c, &next) || !sf_cursor_take(&c, n, &part)) {
        sf__owner_release(page);
        return damaged(w, p->next, "it is cut short", err);
    }
    if (!payload_grow(p, n)) {
        sf__owner_release(page);
        return sf_fail(err, SF_NOMEM, "row of %llu bytes", (unsigned long long)p->total);
    }
    memcpy(p->whole->data + p->bytes.n, part.p, n);
    sf__owner_release(page);
    if (left > n && in_circle(p, next))
        return damaged(w, p->next, "a row's pages lead in a circle", err);
    p->scattered = next != p->next + 1;
    p->next = next;
    p->bytes.n += n;
    return SF_OK;
}

sf_status sf__tree_payload(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, uint64_t want, sf_tree_payload *out,
                           sf_btree_cell *cell, sf_error *err)
{
    sf_status rc = cell_of(w, p, i, cell, err);

    if (rc == SF_OK && (out->page != p->number || out->cell != i || !out->whole ||
                        out->total != cell->payload_bytes)) /* the page may have been read again */
        rc = payload_begin(w, p, i, cell, out, err);
    while (rc == SF_OK && out->bytes.n < want && out->bytes.n < cell->payload_bytes)
        rc = payload_more(w, out, err);
    return rc;
}

/* Where a column of it lies, with the beginning of it that is known. */
static sf_status column_of(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, uint32_t column,
                           sf_tree_payload *payload, sf_record_column *out, sf_btree_cell *cell, sf_error *err)
{
    sf_status rc = SF_WOULD_BLOCK;

    for (uint64_t want = HEADER_BYTES; rc == SF_WOULD_BLOCK; want *= 2) {
        rc = sf__tree_payload(w, p, i, want, payload, cell, err);
        if (rc != SF_OK)
            return rc;
        rc = sf__record_column(payload->bytes, cell->payload_bytes, column, out);
    }
    return rc == SF_OK ? SF_OK : damaged(w, p->number, "a cell is no row", err);
}

/* ------------------------------------------------------------------ keys ----------------------------------------- */

sf_status sf__tree_key(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, sf_tree_payload *payload, bool *found,
                       sf_bytes *key, sf_error *err)
{
    sf_record_column column;
    sf_btree_cell cell;
    sf_status rc = column_of(w, p, i, 0, payload, &column, &cell, err);

    if (rc == SF_OK)
        rc = sf__tree_payload(w, p, i, column.off + column.n, payload, &cell, err);
    if (rc != SF_OK)
        return rc;
    *found = sf__record_is_blob(&column);
    *key = (sf_bytes){0};
    if (*found && !sf_bytes_slice(payload->bytes, column.off, column.n, key))
        return damaged(w, p->number, "a cell is no row", err);
    return SF_OK;
}

/* One or two bytes of a varint; what is longer is for the slow way. */
static inline const uint8_t *short_varint(const uint8_t *p, uint32_t *out)
{
    if (p[0] < 0x80) {
        *out = p[0];
        return p + 1;
    }
    *out = (uint32_t)(p[0] & 0x7f) << 7 | p[1];
    return p[1] < 0x80 ? p + 2 : NULL;
}

/* The row of a cell as most are: short, in the page, and beginning with a blob. */
struct short_row {
    const uint8_t *record, *types; /* where it begins; the types of its columns but for the first */
    uint32_t header, bytes;        /* of the record: up to its columns, in all */
    uint32_t key_bytes;
};

/* False: look at it the slow way. */
static inline bool short_row(const sf_tree_page *p, uint32_t most, uint32_t i, struct short_row *out)
{
    const uint32_t pointer = p->header.cells_off + 2 * i;
    const uint8_t *begin = p->bytes.p;
    uint32_t off, type;

    if (pointer + 2 > p->bytes.n)
        return false;
    off = (uint32_t)sf_load_be(begin + pointer, 2) + (p->header.interior ? 4 : 0);
    if (off < p->header.cells_off || off + 8 > p->bytes.n) /* the lengths up to that of v */
        return false;
    out->record = short_varint(begin + off, &out->bytes);
    if (!out->record || out->bytes > most || out->bytes > p->bytes.n - (size_t)(out->record - begin) ||
        out->record[0] >= 0x80)
        return false;
    out->header = out->record[0];
    out->types = short_varint(out->record + 1, &type);
    if (!out->types || type < SF_RECORD_BLOB || type % 2 != 0 || out->header < (size_t)(out->types - out->record) ||
        out->header > out->bytes)
        return false;
    out->key_bytes = (type - SF_RECORD_BLOB) / 2;
    return out->key_bytes <= out->bytes - out->header;
}

static inline bool short_key(const sf_tree_page *p, uint32_t most, uint32_t i, sf_bytes *key)
{
    struct short_row r;

    if (!short_row(p, most, i, &r))
        return false;
    *key = sf_bytes_of(r.record + r.header, r.key_bytes);
    return true;
}

bool sf__tree_short_row(const sf_tree_walk *w, const sf_tree_page *p, uint32_t i, sf_bytes *key, sf_bytes *value)
{
    struct short_row r;
    const uint8_t *end;
    uint32_t type;

    if (i >= p->header.cells || w->tree->value != 1 || !short_row(p, sf__btree_local_max(w->tree->usable), i, &r))
        return false;
    end = short_varint(r.types, &type);
    if (!end || (size_t)(end - r.record) > r.header || type < SF_RECORD_BLOB ||
        (type - SF_RECORD_BLOB) / 2 > r.bytes - r.header - r.key_bytes)
        return false;
    *key = sf_bytes_of(r.record + r.header, r.key_bytes);
    *value = sf_bytes_of(key->p + key->n, (type - SF_RECORD_BLOB) / 2);
    return true;
}

/* As sf_bytes_cmp(): most keys differ in the first eight bytes. */
static inline int short_cmp(sf_bytes k, sf_bytes key)
{
    if (k.n >= 8 && key.n >= 8) {
        uint64_t a = sf_load_be(k.p, 8), b = sf_load_be(key.p, 8);

        if (a != b)
            return a < b ? -1 : 1;
    }
    return sf_bytes_cmp(k, key);
}

/* The cells that the next steps of a search may look at come into the processor's cache side by side, not one by one. */
static inline void prefetch_cells(const sf_tree_page *p, uint32_t lo, uint32_t hi, unsigned steps)
{
    const uint32_t mid = lo + (hi - lo) / 2, pointer = p->header.cells_off + 2 * mid;
    uint32_t off;

    if (lo >= hi || pointer + 2 > p->bytes.n)
        return;
    off = (uint32_t)sf_load_be(p->bytes.p + pointer, 2);
    if (off + CELL_HEAD_BYTES <= p->bytes.n) {
        __builtin_prefetch(p->bytes.p + off);
        __builtin_prefetch(p->bytes.p + off + CELL_HEAD_BYTES - 1); /* it may lie in two lines */
    }
    if (steps == 1)
        return;
    prefetch_cells(p, lo, mid, steps - 1);
    prefetch_cells(p, mid + 1, hi, steps - 1);
}

/* The order of a cell's k and the key. Of one that goes on elsewhere that is asked for only when the beginning does not tell. */
static sf_status cell_cmp(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, sf_bytes key, sf_tree_payload *payload,
                          int *order, sf_error *err)
{
    sf_record_column column;
    sf_btree_cell cell;
    sf_bytes k;
    bool found;
    sf_status rc;

    rc = column_of(w, p, i, 0, payload, &column, &cell, err);
    if (rc != SF_OK)
        return rc;
    if (!sf__record_is_blob(&column)) {
        *order = -1;
        return SF_OK;
    }
    if (column.off >= payload->bytes.n) {
        k = (sf_bytes){payload->bytes.p, 0};
    } else {
        size_t known = payload->bytes.n - (size_t)column.off;

        k = sf_bytes_of(payload->bytes.p + column.off, column.n < known ? (size_t)column.n : known);
    }
    if (k.n < column.n) {
        size_t n = k.n < key.n ? k.n : key.n;

        *order = n > 0 ? memcmp(k.p, key.p, n) : 0;
        if (*order != 0)
            return SF_OK;
        if (key.n <= k.n) {
            *order = 1;
            return SF_OK;
        }
        rc = sf__tree_key(w, p, i, payload, &found, &k, err);
        if (rc != SF_OK)
            return rc;
    }
    *order = sf_bytes_cmp(k, key);
    return SF_OK;
}

sf_status sf__tree_search(sf_tree_walk *w, sf_tree_page *p, sf_bytes key, bool with, sf_tree_payload *payload,
                          uint32_t *count, bool *equal, sf_error *err)
{
    const uint32_t most = sf__btree_local_max(w->tree->usable); /* of a payload that lies in the page */
    const bool descending = w->tree->descending;
    uint32_t lo = p->searching ? p->lo : 0, hi = p->searching ? p->hi : p->header.cells;

    *equal = false;
    for (unsigned left = 0; lo < hi; left--) {
        uint32_t mid = lo + (hi - lo) / 2;
        sf_bytes k;
        int order;

        if (left == 0) {
            prefetch_cells(p, lo, hi, PREFETCH_STEPS);
            left = PREFETCH_STEPS;
        }
        if (short_key(p, most, mid, &k)) {
            order = short_cmp(k, key);
        } else {
            sf_status rc = cell_cmp(w, p, mid, key, payload, &order, err);

            if (rc != SF_OK) {
                p->searching = true;
                p->lo = lo;
                p->hi = hi;
                return rc;
            }
        }
        if (order == 0) { /* it is the only one */
            *equal = true;
            lo = mid + with;
            break;
        }
        if ((order < 0) != descending)
            lo = mid + 1;
        else
            hi = mid;
    }
    p->searching = false;
    *count = lo;
    return SF_OK;
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

sf_status sf__tree_row_id(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, sf_tree_payload *payload, int64_t *out,
                          sf_error *err)
{
    sf_record_column column;
    sf_btree_cell cell;
    sf_bytes bytes = {0};
    sf_status rc = column_of(w, p, i, 1, payload, &column, &cell, err);

    if (rc == SF_OK)
        rc = sf__tree_payload(w, p, i, column.off + column.n, payload, &cell, err);
    if (rc != SF_OK)
        return rc;
    if (!sf_bytes_slice(payload->bytes, column.off, column.n, &bytes) || !sf__record_integer(&column, bytes, out))
        return damaged(w, p->number, "a cell of the index leads to no row", err);
    return SF_OK;
}

sf_status sf__tree_value(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, sf_tree_payload *payload, sf_value *out,
                         sf_error *err)
{
    sf_record_column column;
    sf_btree_cell cell;
    sf_bytes bytes = {0};
    sf_buf *owner;
    sf_status rc = column_of(w, p, i, w->tree->value, payload, &column, &cell, err);

    if (rc == SF_OK)
        rc = sf__tree_payload(w, p, i, column.off + column.n, payload, &cell, err);
    if (rc != SF_OK)
        return rc;
    if (!sf_bytes_slice(payload->bytes, column.off, column.n, &bytes))
        return damaged(w, p->number, "a cell is no row", err);
    if (column.type < 12) { /* no bytes: as SQLite gives it when it is asked for bytes */
        owner = sf__record_text(&column, bytes, w->tree->value_is_real, w->alloc);
        if (!owner)
            return sf_fail(err, SF_NOMEM, "value");
        *out = (sf_value){.found = true, .bytes = sf__buf_bytes(owner), .owner = owner};
        return SF_OK;
    }
    *out = (sf_value){.found = true, .bytes = bytes, .owner = payload->whole ? sf__buf_acquire(payload->whole) : NULL};
    return SF_OK;
}

/* ------------------------------------------------------------------ descents ------------------------------------- */

void sf__tree_descent_drop(sf_tree_descent *d)
{
    sf__tree_page_drop(&d->at);
    sf__tree_payload_drop(&d->payload);
    d->searched = false;
}

static sf_status enter(sf_tree_walk *w, sf_tree_descent *d, uint32_t page, sf_error *err)
{
    if (d->place.depth == SF_TREE_DEPTH_MAX)
        return damaged(w, page, "the tree is too deep", err);
    sf__tree_descent_drop(d);
    d->place.page = page;
    d->place.depth++;
    return SF_OK;
}

static sf_status row_search(sf_tree_walk *w, const sf_tree_page *p, int64_t row_id, uint32_t *count, bool *equal,
                            sf_error *err)
{
    uint32_t lo = 0, hi = p->header.cells;

    *equal = false;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        sf_btree_cell cell;
        sf_status rc = cell_of(w, p, mid, &cell, err);

        if (rc != SF_OK)
            return rc;
        *equal = *equal || cell.row_id == row_id;
        if (cell.row_id < row_id)
            lo = mid + 1;
        else
            hi = mid;
    }
    *count = lo;
    return SF_OK;
}

/* In the page that it is at; once, since a payload that is gathered afterwards may miss pages. */
static sf_status search(sf_tree_walk *w, sf_tree_descent *d, sf_bytes key, sf_error *err)
{
    sf_status rc = d->at.owner ? SF_OK : sf__tree_page(w, d->place.page, d->place.in_rows, &d->at, err);

    if (rc != SF_OK || d->searched)
        return rc;
    if (d->place.in_rows)
        rc = row_search(w, &d->at, d->place.row_id, &d->cell, &d->equal, err);
    else
        rc = sf__tree_search(w, &d->at, key, false, &d->payload, &d->cell, &d->equal, err);
    d->searched = rc == SF_OK;
    return rc;
}

/* The row that it has come to. A value that lies in the page takes that along. */
static sf_status arrive(sf_tree_walk *w, sf_tree_descent *d, sf_value *out, sf_error *err)
{
    sf_status rc = sf__tree_value(w, &d->at, d->cell, &d->payload, out, err);

    if (rc == SF_OK && !out->owner) {
        out->owner = d->at.owner;
        d->at.owner = NULL;
    }
    return rc;
}

static sf_status go_down(sf_tree_walk *w, sf_tree_descent *d, sf_error *err)
{
    uint32_t child;
    sf_status rc = sf__tree_child(w, &d->at, d->cell, &child, err);

    return rc == SF_OK ? enter(w, d, child, err) : rc;
}

sf_status sf__tree_get_row(sf_tree_walk *w, sf_tree_descent *d, sf_value *out, sf_error *err)
{
    sf_status rc = d->place.page == 0 ? enter(w, d, w->tree->rows_root, err) : SF_OK;

    while (rc == SF_OK) {
        rc = search(w, d, (sf_bytes){0}, err);
        if (rc != SF_OK)
            return rc;
        if (!d->at.header.interior && !d->equal)
            return damaged(w, d->place.page, "the index leads to a row that is not there", err);
        if (!d->at.header.interior)
            return arrive(w, d, out, err);
        rc = go_down(w, d, err); /* rows up to its row id */
    }
    return rc;
}

sf_status sf__tree_get(sf_tree_walk *w, sf_tree_descent *d, sf_bytes key, sf_value *out, sf_error *err)
{
    sf_status rc = SF_OK;

    *out = (sf_value){0};
    if (d->place.page == 0 && !d->place.in_rows)
        rc = enter(w, d, w->tree->root, err);
    while (rc == SF_OK && !d->place.in_rows) {
        rc = search(w, d, key, err);
        if (rc != SF_OK)
            return rc;
        if (d->equal && w->tree->rows_root == 0)
            return arrive(w, d, out, err);
        if (d->equal) {
            rc = sf__tree_row_id(w, &d->at, d->cell, &d->payload, &d->place.row_id, err);
            if (rc != SF_OK)
                return rc;
            sf__tree_descent_drop(d);
            d->place.page = d->place.depth = 0;
            d->place.in_rows = true;
        } else if (!d->at.header.interior) {
            return SF_OK;
        } else {
            rc = go_down(w, d, err);
        }
    }
    return rc == SF_OK ? sf__tree_get_row(w, d, out, err) : rc;
}
