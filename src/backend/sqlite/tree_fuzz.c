/* Input: u8 flags | u8 root | u8 root of the rows, 0: none | pages of 512 bytes. A tree of any kind, with rows of its own or in
 * another one, ascending or descending; in memory or, by flag 16, missed page by page.
 *
 * Walks and cursors end, whatever the pages say; rows of a scan that are in order have a value or lead to damage, and are the same where they are
 * taken the short way. */
#include <stdlib.h>

#include "backend/sqlite/cursor.h"

#define PAGE_BYTES 512u
#define MOST_ROWS 2000u /* a tree that leads in circles has no end; a scan notices by the order of keys */

static const sf_allocator *const heap = &sf__allocator_default;

static void must(bool ok)
{
    if (!ok)
        abort();
}

struct pages {
    sf_bytes bytes;
    uint32_t count;
    uint8_t *known; /* by number; NULL: all are */
};

static sf_buf *page_of(void *ctx, uint32_t number)
{
    const struct pages *p = ctx;
    sf_bytes page;

    must(number >= 1 && sf_bytes_slice(p->bytes, (uint64_t)(number - 1) * PAGE_BYTES, PAGE_BYTES, &page));
    return !p->known || p->known[number] ? sf__buf_copy(heap, page) : NULL;
}

/* What it missed has been read. False: nothing was missed, the walk is over. */
static bool goes_on(const sf_tree_walk *w, sf_status rc)
{
    const struct pages *p = w->ctx;

    if (rc != SF_WOULD_BLOCK)
        return false;
    must(w->need.first >= 1 && w->need.first <= p->count && !p->known[w->need.first]);
    must(w->need.count >= 1 && w->need.count <= p->count - w->need.first + 1);
    memset(p->known + w->need.first, 1, w->need.count);
    return true;
}

static void look_up(sf_tree_walk *w, sf_bytes key)
{
    sf_tree_descent d = {0};
    sf_value v = {0};
    sf_status rc;

    do
        rc = sf__tree_get(w, &d, key, &v, NULL);
    while (goes_on(w, rc));
    must(rc == SF_OK || rc == SF_CORRUPT);
    must(!v.found || v.owner);
    sf__buf_release(v.owner);
    sf__tree_descent_drop(&d);
}

/* The same bytes, at the same place unless there are none. */
static bool is_same(sf_bytes a, sf_bytes b)
{
    return a.n == b.n && (a.n == 0 || a.p == b.p);
}

/* A row that is taken the short way is the one that it is the long way. */
static void check_short_row(sf_tree_walk *w, const sf_tree_cursor *c, bool blob, sf_bytes key)
{
    sf_tree_payload payload = {0};
    sf_value v = {0};
    sf_bytes k, value;

    if (!sf__tree_short_row(w, sf__cursor_page(c), sf__cursor_cell(c), &k, &value))
        return;
    must(blob && is_same(k, key));
    must(sf__tree_value(w, sf__cursor_page(c), sf__cursor_cell(c), &payload, &v, NULL) == SF_OK);
    must(!v.owner && is_same(v.bytes, value));
    sf__tree_payload_drop(&payload);
}

static void scan(sf_tree_walk *w, bool backwards, sf_bytes bound)
{
    sf_tree_cursor c = {.backwards = backwards, .has_bound = bound.n > 0, .bound = bound};
    sf_tree_payload payload = {0};
    sf_status rc = SF_OK;

    sf__cursor_rewind(&c);
    for (unsigned rows = 0; rows < MOST_ROWS && rc == SF_OK; rows++) {
        sf_bytes key;
        bool blob;

        do {
            uint32_t next[8];

            rc = sf__cursor_next(w, &c, NULL);
            must(rc != SF_WOULD_BLOCK || sf__cursor_upcoming(w, &c, next, 8) >= 1);
        } while (goes_on(w, rc));
        if (rc != SF_OK || c.state == SF_CURSOR_AT_END)
            break;
        do
            rc = sf__tree_key(w, sf__cursor_page(&c), sf__cursor_cell(&c), &payload, &blob, &key, NULL);
        while (goes_on(w, rc));
        if (rc == SF_OK)
            check_short_row(w, &c, blob, key);
        if (rc == SF_OK && blob && rows < 20)
            look_up(w, key);
        if (rc == SF_OK && rows % 2 == 1 && !sf__cursor_page(&c)->header.interior)
            sf__cursor_skip(&c, sf__cursor_left(&c) / 2);
    }
    must(rc == SF_OK || rc == SF_CORRUPT);
    sf__tree_payload_drop(&payload);
    sf__cursor_rewind(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct pages pages = {0};
    sf_tree tree = {.usable = PAGE_BYTES};
    sf_tree_walk w = {.tree = &tree, .page = page_of, .ctx = &pages, .alloc = heap};

    if (n < 3 + PAGE_BYTES)
        return 0;
    pages.bytes = sf_bytes_of(data + 3, n - 3);
    pages.count = tree.page_count = (uint32_t)(pages.bytes.n / PAGE_BYTES);
    if (data[0] & 16)
        must((pages.known = calloc(pages.count + 1, 1)) != NULL);
    tree.descending = data[0] & 1;
    tree.value = data[0] >> 1 & 3;
    tree.root = 1 + data[1] % tree.page_count;
    tree.rows_root = data[2] == 0 ? 0 : 1 + data[2] % tree.page_count;
    scan(&w, false, (sf_bytes){0});
    scan(&w, true, (sf_bytes){0});
    scan(&w, data[0] & 8, sf_bytes_of(data, 3));
    look_up(&w, sf_bytes_of(data, 3));
    free(pages.known);
    return 0;
}
