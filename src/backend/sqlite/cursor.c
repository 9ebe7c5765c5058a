#include "backend/sqlite/cursor.h"

#include <assert.h>

#include "base/error.h"
#include "base/pin.h"

void sf__cursor_rewind(sf_tree_cursor *c)
{
    for (uint32_t i = 0; i < SF_TREE_DEPTH_MAX; i++) /* one more than `depth` when it was about to enter it */
        sf__tree_page_drop(&c->levels[i].page);
    c->depth = 0;
    sf__tree_payload_drop(&c->payload);
    c->state = SF_CURSOR_DESCENDING;
    c->seeking = true;
    c->want = 0;
}

const sf_tree_page *sf__cursor_page(const sf_tree_cursor *c)
{
    return &c->levels[c->depth - 1].page;
}

uint32_t sf__cursor_cell(const sf_tree_cursor *c)
{
    return c->levels[c->depth - 1].index - c->backwards;
}

uint32_t sf__cursor_left(const sf_tree_cursor *c)
{
    const sf_tree_level *l = &c->levels[c->depth - 1];

    return c->backwards ? l->index - 1 : l->page.header.cells - l->index - 1;
}

void sf__cursor_skip(sf_tree_cursor *c, uint32_t cells)
{
    sf_tree_level *l = &c->levels[c->depth - 1];

    assert(!l->page.header.interior && cells <= sf__cursor_left(c));
    l->index = c->backwards ? l->index - cells : l->index + cells;
}

/* Down to a leaf: to the bound, or to the first cell of what is below. */
static sf_status descend(sf_tree_walk *w, sf_tree_cursor *c, sf_error *err)
{
    for (;;) {
        sf_tree_level *l = &c->levels[c->depth];
        bool equal;
        sf_status rc = SF_OK;

        if (c->depth == SF_TREE_DEPTH_MAX) {
            w->need = (sf_page_need){c->want, 1};
            return sf_fail(err, SF_CORRUPT, "page %u: the tree is too deep", c->want);
        }
        if (!l->page.owner)
            rc = sf__tree_page(w, c->want ? c->want : w->tree->root, false, &l->page, err);
        if (rc == SF_OK && c->seeking && c->has_bound)
            rc = sf__tree_search(w, &l->page, c->bound, c->with, &c->payload, &l->index, &equal, err);
        else
            l->index = c->backwards ? l->page.header.cells : 0;
        if (rc == SF_OK && l->page.header.interior)
            rc = sf__tree_child(w, &l->page, l->index, &c->want, err);
        if (rc != SF_OK)
            return rc;
        c->depth++;
        if (!l->page.header.interior)
            break;
    }
    c->leaf_depth = c->depth;
    c->seeking = false;
    return SF_OK;
}

/* At the cell that is next in the levels that there are; those without one are left. */
static void settle(sf_tree_cursor *c)
{
    while (c->depth > 0) {
        sf_tree_level *l = &c->levels[c->depth - 1];

        if (c->backwards ? l->index > 0 : l->index < l->page.header.cells) {
            c->state = SF_CURSOR_AT_CELL;
            return;
        }
        sf__tree_page_drop(&l->page);
        c->depth--;
    }
    c->state = SF_CURSOR_AT_END;
}

sf_status sf__cursor_next(sf_tree_walk *w, sf_tree_cursor *c, sf_error *err)
{
    sf_status rc = SF_OK;

    if (c->state == SF_CURSOR_AT_CELL) {
        sf_tree_level *l = &c->levels[c->depth - 1];

        l->index = c->backwards ? l->index - 1 : l->index + 1;
        if (l->page.header.interior) {
            rc = sf__tree_child(w, &l->page, l->index, &c->want, err);
            c->state = SF_CURSOR_DESCENDING;
        }
    }
    if (rc == SF_OK && c->state == SF_CURSOR_DESCENDING)
        rc = descend(w, c, err);
    if (rc == SF_OK && c->state != SF_CURSOR_AT_END)
        settle(c);
    return rc;
}

/* ------------------------------------------------------------------ what comes next ------------------------------ */

/* The levels above the leaves, as borrowed ones and then, where they were left, as ones of its own. */
struct lookout {
    const sf_tree_page *pages[SF_TREE_DEPTH_MAX];
    sf_tree_page own[SF_TREE_DEPTH_MAX];
    uint32_t index[SF_TREE_DEPTH_MAX], depth;
};

/* To the next child of the lowest level, by way of those above. False: memory does not tell, or there is none. */
static bool lookout_move(sf_tree_walk *w, struct lookout *l, bool backwards, uint32_t *child)
{
    uint32_t depth = l->depth;

    while (depth > 0 && (backwards ? l->index[depth - 1] == 0 : l->index[depth - 1] >= l->pages[depth - 1]->header.cells))
        depth--;
    if (depth == 0)
        return false;
    l->index[depth - 1] = backwards ? l->index[depth - 1] - 1 : l->index[depth - 1] + 1;
    for (; sf__tree_child(w, l->pages[depth - 1], l->index[depth - 1], child, NULL) == SF_OK; depth++) {
        if (depth == l->depth)
            return true;
        if (sf__tree_page(w, *child, false, &l->own[depth], NULL) != SF_OK || !l->own[depth].header.interior)
            return false;
        l->pages[depth] = &l->own[depth];
        l->index[depth] = backwards ? l->own[depth].header.cells : 0;
    }
    return false;
}

size_t sf__cursor_upcoming(sf_tree_walk *w, const sf_tree_cursor *c, uint32_t *out, size_t most)
{
    struct lookout l = {.depth = c->depth};
    sf_page_need need = w->need;
    size_t n = 1;

    out[0] = need.first;
    if (c->state != SF_CURSOR_DESCENDING || c->depth == 0 || c->depth + 1 != c->leaf_depth || c->want != need.first)
        return 1;
    for (uint32_t i = 0; i < c->depth; i++) {
        l.pages[i] = &c->levels[i].page;
        l.index[i] = c->levels[i].index;
    }
    while (n < most && lookout_move(w, &l, c->backwards, &out[n]))
        n++;
    for (uint32_t i = 0; i < l.depth; i++)
        sf__tree_page_drop(&l.own[i]);
    w->need = need;
    return n;
}

size_t sf__cursor_upcoming_chains(sf_tree_walk *w, const sf_tree_cursor *c, sf_page_need *out, size_t most, uint32_t pages)
{
    sf_tree_cursor ahead = *c;
    sf_page_need need = w->need;
    size_t n = 0;

    ahead.payload = (sf_tree_payload){0};
    for (uint32_t i = 0; i < SF_TREE_DEPTH_MAX; i++)
        if (ahead.levels[i].page.owner)
            ahead.levels[i].page.owner = sf__buf_acquire(sf__owner_buf(ahead.levels[i].page.owner));
    while (n < most && pages > 0 && sf__cursor_next(w, &ahead, NULL) == SF_OK && ahead.state == SF_CURSOR_AT_CELL) {
        sf_buf *page;

        if (!sf__tree_chain(w, sf__cursor_page(&ahead), sf__cursor_cell(&ahead), pages, &out[n]))
            continue;
        page = w->page(w->ctx, out[n].first);
        if (!page)
            pages -= out[n++].count;
        sf__owner_release(page);
    }
    sf__cursor_rewind(&ahead);
    w->need = need;
    return n;
}
