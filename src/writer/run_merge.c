#include "writer/run_merge.h"

#include <string.h>

#include "base/grow.h"

sf_status sf__run_merge_init(sf_run_merge *m, sf_spill_run *const *runs, size_t count, sf_duplicate_rows *duplicates,
                             const sf_allocator *a, sf_error *err)
{
    *m = (sf_run_merge){.alloc = a, .duplicates = duplicates, .runs = runs, .run_count = count};
    m->cursors = sf__calloc(a, count + 1, sizeof(*m->cursors));
    if (m->cursors && sf__kway_init(&m->kway, (uint32_t)count, SF_KWAY_NEWEST_FIRST, a))
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
    sf__kway_cleanup(&m->kway);
    sf__free(m->alloc, m->last_key);
    *m = (sf_run_merge){0};
}

/* Where a run's cursor stands now. */
static void stand(sf_run_merge *m, uint32_t run)
{
    if (m->cursors[run].valid)
        sf__kway_set(&m->kway, run, m->cursors[run].key);
    else
        sf__kway_end(&m->kway, run);
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
        stand(m, (uint32_t)i);
    }
    sf__kway_build(&m->kway);
    return SF_OK;
}

static bool remember(sf_run_merge *m, const sf_spill_cursor *c)
{
    if (!SF_RESERVE(m->alloc, &m->last_key, &m->last_cap, c->key.n))
        return false;
    if (c->key.n > 0)
        memcpy(m->last_key, c->key.p, c->key.n);
    m->last_len = c->key.n;
    m->last_row = sf__row_number(m->duplicates, c->value);
    return true;
}

static sf_status winner_advance(sf_run_merge *m, sf_error *err)
{
    uint32_t run = sf__kway_winner(&m->kway);
    sf_status rc = sf__spill_cursor_next(&m->cursors[run], err);

    if (rc != SF_OK)
        return rc;
    stand(m, run);
    sf__kway_replay(&m->kway);
    return SF_OK;
}

/* Past the row that was handed out, and older rows of its key. */
static sf_status advance(sf_run_merge *m, sf_error *err)
{
    sf_status rc = winner_advance(m, err);

    while (rc == SF_OK) {
        const sf_spill_cursor *c = &m->cursors[sf__kway_winner(&m->kway)];

        if (!c->valid || !sf_bytes_eq(c->key, sf_bytes_of(m->last_key, m->last_len)))
            break;
        rc = sf__duplicates_add(m->duplicates, m->group, c->key, sf__row_number(m->duplicates, c->value), m->last_row,
                                err);
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
    c = &m->cursors[sf__kway_winner(&m->kway)];
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
