/* A place among the cells of a tree, moved in either direction. As with walks, a move that misses a page goes on from there. One
 * thread at a time. */
#ifndef SF_BACKEND_SQLITE_CURSOR_H
#define SF_BACKEND_SQLITE_CURSOR_H

#include "backend/sqlite/tree.h"

typedef struct sf_tree_level {
    sf_tree_page page;
    uint32_t index; /* cells before the place: that of the child which the next level is, of an interior page */
} sf_tree_level;

typedef struct sf_tree_cursor {
    bool backwards; /* in the tree's order */
    /* where it begins: behind the cells that are before `bound`, and behind one that equals it if `with` */
    bool has_bound, with;
    sf_bytes bound; /* borrowed while it is sought */
    /* private */
    enum sf_cursor_state { SF_CURSOR_DESCENDING, SF_CURSOR_AT_CELL, SF_CURSOR_AT_END } state;
    bool seeking;
    uint32_t want;           /* DESCENDING: the page of the level that comes next; 0: the root */
    uint32_t depth;          /* levels */
    uint32_t leaf_depth;     /* of all leaves, once one was seen */
    sf_tree_payload payload; /* of what is compared */
    sf_tree_level levels[SF_TREE_DEPTH_MAX];
} sf_tree_cursor;

/* Back to its bound, which may be set anew. Takes a zeroed one. */
void sf__cursor_rewind(sf_tree_cursor *c);
/* To the next cell; state tells whether there was one. */
sf_status sf__cursor_next(sf_tree_walk *w, sf_tree_cursor *c, sf_error *err) SF_MUST_USE;
/* AT_CELL: where it is. */
const sf_tree_page *sf__cursor_page(const sf_tree_cursor *c);
uint32_t sf__cursor_cell(const sf_tree_cursor *c);
/* AT_CELL, in a leaf: how many cells come behind it there; and past so many of them. */
uint32_t sf__cursor_left(const sf_tree_cursor *c);
void sf__cursor_skip(sf_tree_cursor *c, uint32_t cells);

/* After it has missed a leaf: the leaves that come next, at most `most`, that one first, as far as memory tells; how many. */
size_t sf__cursor_upcoming(sf_tree_walk *w, const sf_tree_cursor *c, uint32_t *out, size_t most);
/* AT_CELL: where the payloads of the cells behind it go on, on pages that memory does not have: at most `most`, of `pages` pages; how
 * many. */
size_t sf__cursor_upcoming_chains(sf_tree_walk *w, const sf_tree_cursor *c, sf_page_need *out, size_t most,
                                  uint32_t pages);

#endif
