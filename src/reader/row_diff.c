/* The rows in which two snapshots differ: scans of both, merged by key.
 *
 *   next shard --> both scans are open --> merging --> the scans have ended --+
 *       ^                                                                     |
 *       +---------------------------------------------------------------------+--> no shard left: the end */
#include <string.h>

#include "base/error.h"
#include "base/grow.h"
#include "reader/compare.h"
#include "runtime/runtime.h"

#define ROWS_AT_A_TIME 1000u
/* After so many rows without a change a step ends, so that whoever asks for steps may show where it is, or
 * give up. */
#define ROWS_PER_STEP 20000u

struct diff_side {
    sf_snapshot *snap;
    sf_scan *scan; /* NULL: between shards */
    const sf_row *rows;
    size_t count, at;
    bool ended;
};

struct sf_row_diff {
    const sf_allocator *alloc;
    sf_shard_comparison shards;
    struct diff_side from, to;
    bool by_shard;
    uint32_t next_shard;
    sf_row_diff_progress progress;
    sf_row_change *changes; /* of the last step */
    size_t count, cap;
};

/* ------------------------------------------------------------------ opening ------------------------------------------ */

static bool same_places(const sf_snapshot *a, const sf_snapshot *b)
{
    if (!a->manifest || !b->manifest)
        return !a->manifest && !b->manifest;
    return a->num_dbs == b->num_dbs &&
           ((a->manifest->strategy == SF_SHARDING_HASH && b->manifest->strategy == SF_SHARDING_HASH) ||
            strcmp(a->manifest->sharding_json, b->manifest->sharding_json) == 0);
}

static void diff_free(sf_row_diff *d)
{
    sf_snapshot *from = d->from.snap, *to = d->to.snap;

    sf_scan_close(d->from.scan);
    sf_scan_close(d->to.scan);
    sf__shard_comparison_cleanup(&d->shards);
    sf__free(d->alloc, d->changes);
    sf__free(d->alloc, d);
    sf_snapshot_give_back(from);
    sf_snapshot_give_back(to);
}

sf_status sf_row_diff_open(sf_row_diff **out, sf_snapshot *from, sf_snapshot *to, sf_error *err)
{
    sf_error local = SF_ERROR_INIT;
    sf_row_diff *d;
    sf_status rc = sf__runtime_check_process(from->rt, err);

    if (rc != SF_OK)
        return rc;
    if (from->manifest && to->manifest && from->manifest->key_encoding != to->manifest->key_encoding)
        return sf_fail(err, SF_INVALID, "the two have keys of different encodings: their rows cannot be compared");
    d = sf__calloc(from->alloc, 1, sizeof(*d));
    if (!d)
        return sf_fail(err, SF_NOMEM, "comparing rows");
    d->alloc = from->alloc;
    rc = sf__shard_comparison_init(&d->shards, from, to, err ? err : &local);
    if (rc != SF_OK) {
        sf__free(d->alloc, d);
        return rc;
    }
    d->from.snap = sf_snapshot_acquire(from);
    d->to.snap = sf_snapshot_acquire(to);
    d->by_shard = same_places(from, to);
    d->progress.shards_total = d->by_shard ? from->num_dbs : 1;
    *out = d;
    return SF_OK;
}

void sf_row_diff_close(sf_row_diff *d)
{
    if (d && sf__runtime_check_process(d->from.snap->rt, NULL) == SF_OK)
        diff_free(d);
}

void sf_row_diff_get_progress(const sf_row_diff *d, sf_row_diff_progress *out)
{
    *out = d->progress;
}

/* ------------------------------------------------------------------ merging ------------------------------------------ */

static sf_status side_open(struct diff_side *s, uint32_t db_id, sf_error *err)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;

    o.db_id = db_id;
    sf_scan_close(s->scan); /* of an attempt that failed */
    *s = (struct diff_side){.snap = s->snap};
    return sf_scan_open(&s->scan, s->snap, &o, err);
}

static void side_close(struct diff_side *s)
{
    sf_scan_close(s->scan);
    s->scan = NULL;
}

static sf_status side_fill(sf_row_diff *d, struct diff_side *s, int64_t timeout_ms, sf_error *err)
{
    sf_status rc;

    if (s->ended || s->at < s->count)
        return SF_OK;
    s->at = s->count = 0;
    rc = sf_scan_next(s->scan, ROWS_AT_A_TIME, timeout_ms, &s->rows, &s->count, err);
    s->ended = rc == SF_OK && s->count == 0;
    if (rc == SF_OK)
        d->progress.rows += s->count;
    return rc;
}

/* Opens the next shard that is to be read. *end: there is none. */
static sf_status next_shard(sf_row_diff *d, bool *end, sf_error *err)
{
    uint32_t db_id;
    sf_status rc;

    while (d->by_shard && d->from.snap->manifest && d->next_shard < d->progress.shards_total &&
           sf__shard_comparison_same(&d->shards, d->next_shard)) {
        d->next_shard++;
        d->progress.shards_done++;
        d->progress.shards_skipped++;
    }
    *end = d->next_shard == d->progress.shards_total;
    if (*end)
        return SF_OK;
    db_id = d->by_shard ? d->next_shard : SF_ALL_SHARDS;
    rc = side_open(&d->from, db_id, err);
    if (rc == SF_OK)
        rc = side_open(&d->to, db_id, err);
    return rc;
}

static bool has_row(const struct diff_side *s)
{
    return s->at < s->count;
}

static void change(sf_row_diff *d, sf_change kind, const sf_row *from, const sf_row *to)
{
    sf_bytes none = {0};

    d->changes[d->count++] = (sf_row_change){
        .change = kind, .key = from ? from->key : to->key, .from = from ? from->value : none, .to = to ? to->value : none};
}

/* Until a side must be read on, or there are `max` changes. */
static void merge(sf_row_diff *d, size_t max)
{
    struct diff_side *x = &d->from, *y = &d->to;

    while (d->count < max && (has_row(x) || x->ended) && (has_row(y) || y->ended) && (has_row(x) || has_row(y))) {
        const sf_row *from = has_row(x) ? &x->rows[x->at] : NULL, *to = has_row(y) ? &y->rows[y->at] : NULL;
        int order = !from ? 1 : !to ? -1 : sf_bytes_cmp(from->key, to->key);

        if (order < 0)
            change(d, SF_ROW_REMOVED, from, NULL);
        else if (order > 0)
            change(d, SF_ROW_ADDED, NULL, to);
        else if (!sf_bytes_eq(from->value, to->value))
            change(d, SF_ROW_CHANGED, from, to);
        x->at += order <= 0;
        y->at += order >= 0;
    }
}

static sf_status make_room(sf_row_diff *d, size_t max, sf_error *err)
{
    return SF_RESERVE(d->alloc, &d->changes, &d->cap, max) ? SF_OK : sf_fail(err, SF_NOMEM, "room for %zu changes", max);
}

static sf_status diff_step(sf_row_diff *d, size_t max, int64_t timeout_ms, bool *end, sf_error *err)
{
    sf_status rc = SF_OK;

    if (!d->from.scan || !d->to.scan)
        rc = next_shard(d, end, err);
    if (rc != SF_OK || *end)
        return rc;
    rc = side_fill(d, &d->from, timeout_ms, err);
    if (rc == SF_OK)
        rc = side_fill(d, &d->to, timeout_ms, err);
    if (rc != SF_OK)
        return rc;
    merge(d, max);
    if (d->from.ended && d->to.ended) {
        side_close(&d->from);
        side_close(&d->to);
        d->next_shard++;
        d->progress.shards_done++;
    }
    return SF_OK;
}

sf_status sf_row_diff_next(sf_row_diff *d, size_t max_changes, int64_t timeout_ms, const sf_row_change **changes,
                           size_t *count, bool *end, sf_error *err)
{
    /* more come of no step: each side has so many rows at most */
    const size_t most = 2 * (size_t)ROWS_AT_A_TIME;
    size_t max = max_changes < most ? max_changes : most;
    uint64_t before = d->progress.rows;
    sf_status rc = sf__runtime_check_may_wait(d->from.snap->rt, err);
    bool over = false;

    if (rc == SF_OK && max == 0)
        rc = sf_fail(err, SF_INVALID, "max_changes must be at least 1");
    if (rc == SF_OK)
        rc = make_room(d, max, err);
    d->count = 0;
    while (rc == SF_OK && d->count == 0 && !over && d->progress.rows - before < ROWS_PER_STEP)
        rc = diff_step(d, max, timeout_ms, &over, err);
    if (rc != SF_OK)
        return rc;
    *changes = d->changes;
    *count = d->count;
    *end = over;
    return SF_OK;
}
