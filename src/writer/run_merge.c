#include "writer/run_merge.h"

#include <string.h>

#include "writer/rows.h" /* sf__key_head */

sf_status sf__run_merge_init(sf_run_merge *m, sf_spill_run *const *runs, size_t count, sf_duplicates *duplicates,
                             const sf_allocator *a, sf_error *err)
{
    *m = (sf_run_merge){.alloc = a, .duplicates = duplicates, .runs = runs, .run_count = count};
    m->cursors = sf__calloc(a, count + 1, sizeof(*m->cursors));
    m->tree = sf__calloc(a, count + 1, sizeof(*m->tree));
    if (m->cursors && m->tree)
        return SF_OK;
    sf__run_merge_cleanup(m);
    return sf_fail(err, SF_NOMEM, "merge of %zu runs", count);
}

void sf__run_merge_cleanup(sf_run_merge *m)
{
    if (!m->alloc)
        return;
    for (size_t i = 0; m->cursors && i < m->run_count; i++)
        sf__spill_cursor_cleanup(&m->cursors[i]);
    sf__free(m->alloc, m->cursors);
    sf__free(m->alloc, m->tree);
    sf__free(m->alloc, m->last_key);
    *m = (sf_run_merge){0};
}

/* Whether run a's row comes before run b's: by key, then the newer run; what has ended comes last. */
static inline bool is_before(const sf_run_merge *m, uint32_t a, uint32_t b)
{
    const sf_spill_cursor *ca = &m->cursors[a], *cb = &m->cursors[b];
    int c;

    if (!ca->valid || !cb->valid)
        return ca->valid;
    if (ca->head != cb->head)
        return ca->head < cb->head;
    c = sf_bytes_cmp(ca->key, cb->key);
    return c != 0 ? c < 0 : a > b;
}

/* Leaf i stands at run_count + i; node n's children are 2n and 2n + 1; inner nodes are 1 .. run_count - 1. */
static uint32_t tree_build(sf_run_merge *m, size_t node)
{
    uint32_t a, b;

    if (node >= m->run_count)
        return (uint32_t)(node - m->run_count);
    a = tree_build(m, 2 * node);
    b = tree_build(m, 2 * node + 1);
    m->tree[node] = is_before(m, a, b) ? b : a;
    return is_before(m, a, b) ? a : b;
}

/* The winner's cursor has moved. */
static void tree_replay(sf_run_merge *m)
{
    uint32_t winner = m->tree[0];

    for (size_t node = (winner + m->run_count) / 2; node > 0; node /= 2)
        if (is_before(m, m->tree[node], winner)) {
            uint32_t t = m->tree[node];

            m->tree[node] = winner;
            winner = t;
        }
    m->tree[0] = winner;
}

sf_status sf__run_merge_group(sf_run_merge *m, uint32_t group, sf_error *err)
{
    m->on_row = false;
    m->group = group;
    for (size_t i = 0; i < m->run_count; i++) {
        uint64_t off = 0, end = 0;
        sf_status rc;

        if (!sf__spill_run_find(m->runs[i], group, &off, &end))
            off = end = 0;
        sf__spill_cursor_set(&m->cursors[i], m->runs[i], off, end);
        rc = sf__spill_cursor_next(&m->cursors[i], err);
        if (rc != SF_OK)
            return rc;
    }
    if (m->run_count > 0)
        m->tree[0] = m->run_count > 1 ? tree_build(m, 1) : 0;
    return SF_OK;
}

static bool remember(sf_run_merge *m, const sf_spill_cursor *c)
{
    if (c->key.n > m->last_cap) {
        size_t cap = c->key.n > 2 * m->last_cap ? c->key.n : 2 * m->last_cap;
        uint8_t *p = sf__realloc(m->alloc, m->last_key, cap);

        if (!p)
            return false;
        m->last_key = p;
        m->last_cap = cap;
    }
    if (c->key.n > 0)
        memcpy(m->last_key, c->key.p, c->key.n);
    m->last_len = c->key.n;
    m->last_head = c->head;
    return true;
}

static sf_status winner_advance(sf_run_merge *m, sf_error *err)
{
    sf_status rc = sf__spill_cursor_next(&m->cursors[m->tree[0]], err);

    if (rc == SF_OK)
        tree_replay(m);
    return rc;
}

/* Past the row that was handed out, and older rows of its key. */
static sf_status advance(sf_run_merge *m, sf_error *err)
{
    sf_status rc = winner_advance(m, err);

    while (rc == SF_OK) {
        const sf_spill_cursor *c = &m->cursors[m->tree[0]];

        if (!c->valid || c->head != m->last_head || !sf_bytes_eq(c->key, sf_bytes_of(m->last_key, m->last_len)))
            break;
        rc = sf__duplicates_add(m->duplicates, m->group, c->key, err);
        if (rc == SF_OK)
            rc = winner_advance(m, err);
    }
    return rc;
}

sf_status sf__run_merge_next(sf_run_merge *m, bool *end, sf_bytes *key, sf_bytes *value, sf_error *err)
{
    const sf_spill_cursor *c;
    sf_status rc = SF_OK;

    *end = true;
    if (m->run_count == 0)
        return SF_OK;
    if (m->on_row)
        rc = advance(m, err);
    if (rc != SF_OK)
        return rc;
    c = &m->cursors[m->tree[0]];
    m->on_row = c->valid;
    if (!c->valid)
        return SF_OK;
    if (!remember(m, c))
        return sf_fail(err, SF_NOMEM, "key of %zu bytes", c->key.n);
    *key = c->key;
    *value = c->value;
    *end = false;
    return SF_OK;
}
