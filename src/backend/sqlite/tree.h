/* The table kv of a shard as a tree of pages: the walk to one key, and payloads that go on on other pages. Nothing here reads:
 * pages come from whoever walks, and a walk that misses one says so and goes on from there. One thread per walk. */
#ifndef SF_BACKEND_SQLITE_TREE_H
#define SF_BACKEND_SQLITE_TREE_H

#include "backend/sqlite/btree_page.h"
#include "backend/sqlite/record.h"
#include "shardyfusion/base.h"

/* SQLite goes no deeper. */
#define SF_TREE_DEPTH_MAX 20u

/* What the schema of shard.db says. */
typedef struct sf_tree {
    uint32_t root;      /* of the tree that is ordered by k: the table itself, or the index on k */
    uint32_t rows_root; /* of the table that the index leads to by row ids; 0: there is none, the tree has the rows */
    uint32_t value;     /* which column of the rows' records is v */
    bool value_is_real; /* v is declared so: an integer stands for a real number, which takes less room so */
    bool descending;    /* k, in the tree */
    uint32_t usable;    /* bytes of a page, without those that are reserved at its end */
    uint32_t page_count;
} sf_tree;

/* Memory only: a page, by what keeps it alive (base/pin.h) for the caller; or NULL when it is not there. */
typedef sf_buf *(*sf_page_fn)(void *ctx, uint32_t number);

/* Pages that are missing, or that turned out damaged: the first for sure, the others likely. */
typedef struct sf_page_need {
    uint32_t first, count;
} sf_page_need;

/* What a walk works with. */
typedef struct sf_tree_walk {
    const sf_tree *tree;
    sf_page_fn page;
    void *ctx;
    const sf_allocator *alloc;
    sf_page_need need; /* after SF_WOULD_BLOCK, and after SF_CORRUPT: whose fault it is */
} sf_tree_walk;

/* A page of a tree, as it is looked at. */
typedef struct sf_tree_page {
    sf_buf *owner; /* what keeps it alive (base/pin.h); NULL: none */
    uint32_t number;
    sf_btree_header header;
    sf_bytes bytes; /* usable */
    bool searching; /* among the cells from lo to hi */
    uint32_t lo, hi;
} sf_tree_page;

/* SF_OK, SF_WOULD_BLOCK or SF_CORRUPT: a page that does not belong to such a tree. Replaces what *out holds. */
sf_status sf__tree_page(sf_tree_walk *w, uint32_t number, bool table, sf_tree_page *out, sf_error *err) SF_MUST_USE;
void sf__tree_page_drop(sf_tree_page *p); /* takes a zeroed one and leaves one */

/* The payload of one cell as far as it is needed; goes on where it missed a page. Zeroed: of none. */
typedef struct sf_tree_payload {
    uint32_t page, cell; /* whose; page 0: nobody's */
    sf_bytes bytes;      /* the beginning, in the page or in `whole` */
    sf_buf *whole; /* of one that goes on on other pages: grows, and may move, as those come; NULL: all of it lies in the page */
    uint64_t total; /* bytes that it says it has */
    uint32_t next;  /* page that it goes on on */
    bool scattered; /* its pages do not lie side by side */
    uint32_t mark, steps,
        lap; /* a page that was passed; steps since then, of so many: whoever comes to it again goes in a circle */
} sf_tree_payload;

/* The pages that a cell's payload goes on on, if they lie side by side; `most` at most. False: none. */
bool sf__tree_chain(const sf_tree_walk *w, const sf_tree_page *p, uint32_t cell, uint32_t most, sf_page_need *out);

/* At least `want` bytes of it, or all there are. */
sf_status sf__tree_payload(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, uint64_t want, sf_tree_payload *out,
                           sf_btree_cell *cell, sf_error *err) SF_MUST_USE;
void sf__tree_payload_drop(sf_tree_payload *p); /* takes a zeroed one and leaves one */

/* k of a cell of the ordered tree. *found false: no blob, so it lies below all keys. */
sf_status sf__tree_key(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, sf_tree_payload *payload, bool *found,
                       sf_bytes *key, sf_error *err) SF_MUST_USE;
/* How many cells of the page are before the key in the tree's order, `with` one that equals it; *equal: there is one. Goes on
 * where it missed a page. */
sf_status sf__tree_search(sf_tree_walk *w, sf_tree_page *p, sf_bytes key, bool with, sf_tree_payload *payload,
                          uint32_t *count, bool *equal, sf_error *err) SF_MUST_USE;
/* The child page left of a cell of an interior page; that of the cell behind the last one is the rightmost. */
sf_status sf__tree_child(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, uint32_t *child, sf_error *err) SF_MUST_USE;

/* Where a walk to one key is; plain numbers, so that it may be kept. Zeroed: it has not begun. */
typedef struct sf_tree_place {
    uint32_t page, depth;
    int64_t row_id; /* of the row, once the index has told */
    bool in_rows;
} sf_tree_place;

typedef struct sf_tree_descent {
    sf_tree_place place;
    sf_tree_page at; /* kept while a payload is gathered */
    bool searched;   /* in that page: */
    bool equal;
    uint32_t cell;
    sf_tree_payload payload;
} sf_tree_descent;

/* To the key's row. SF_OK with *out (owner acquired), or not found; SF_WOULD_BLOCK: w->need; then call it again. */
sf_status sf__tree_get(sf_tree_walk *w, sf_tree_descent *d, sf_bytes key, sf_value *out, sf_error *err) SF_MUST_USE;
/* The row of a row id: d->place says in_rows. */
sf_status sf__tree_get_row(sf_tree_walk *w, sf_tree_descent *d, sf_value *out, sf_error *err) SF_MUST_USE;
/* v of a cell that is a row. Without an owner: it lies in the page, as long as that is held. */
sf_status sf__tree_value(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, sf_tree_payload *payload, sf_value *out,
                         sf_error *err) SF_MUST_USE;
/* k and v of a cell of the ordered tree that is a row, if that lies in the page and is as most are: a short blob, and then v, which has bytes. False: look
 * at it as above. */
bool sf__tree_short_row(const sf_tree_walk *w, const sf_tree_page *p, uint32_t cell, sf_bytes *key, sf_bytes *value);
/* The row id that a cell of the index ends with. */
sf_status sf__tree_row_id(sf_tree_walk *w, const sf_tree_page *p, uint32_t i, sf_tree_payload *payload, int64_t *out,
                          sf_error *err) SF_MUST_USE;
void sf__tree_descent_drop(sf_tree_descent *d); /* takes a zeroed one; its place stays */

#endif
