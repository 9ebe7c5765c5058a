#include "writer/run_set.h"

#include "base/grow.h"
#include "base/thread.h"
#include "writer/run_merge.h"

/* Runs of one level are merged into one of the next when there are this many: a merge, and the number of open files,
 * stays bounded whatever the input (64 runs of 64 MiB are 4 GiB, two levels 256 GiB). */
#define FAN_IN 64u

static sf_status cancelled(sf_error *err)
{
    return sf_fail(err, SF_CANCELLED, "cancelled while sorting");
}

/* ------------------------------------------------------------------ a run of rows in memory ---------------------- */

static sf_status write_group(sf_run_set *s, sf_spill_writer *w, uint32_t group, size_t at, size_t end,
                             sf_row_entry *scratch, sf_error *err)
{
    sf_status rc = SF_OK;

    sf__rows_sort(&s->rows, s->rows.entries + at, end - at, scratch);
    while (at < end && rc == SF_OK) {
        const sf_packed_row *p;

        if (sf__is_cancelled(s->cancel))
            return cancelled(err);
        rc = sf__rows_next_key(&s->rows, &at, end, s->duplicates, &p, err);
        if (rc == SF_OK)
            rc = sf__spill_writer_add(w, group, sf__packed_key(p), sf__packed_value(p), err);
    }
    return rc;
}

static sf_status write_rows(sf_run_set *s, sf_spill_run *run, sf_error *err)
{
    sf_row_entry *scratch = sf__alloc(s->alloc, s->rows.count * sizeof(*scratch));
    size_t *off = sf__alloc(s->alloc, ((size_t)s->rows.groups + 1) * sizeof(*off));
    sf_spill_writer w;
    sf_status rc = scratch && off ? SF_OK : sf_fail(err, SF_NOMEM, "sorting of %zu rows", s->rows.count);

    sf__spill_writer_init(&w, run);
    if (rc == SF_OK)
        sf__rows_by_group(&s->rows, off, s->rows.groups, scratch);
    for (uint32_t g = 0; rc == SF_OK && g < s->rows.groups; g++)
        if (off[g] < off[g + 1])
            rc = write_group(s, &w, g, off[g], off[g + 1], scratch, err);
    if (rc == SF_OK)
        rc = sf__spill_writer_finish(&w, err);
    sf__spill_writer_cleanup(&w);
    sf__free(s->alloc, off);
    sf__free(s->alloc, scratch);
    if (s->rows.groups > s->groups)
        s->groups = s->rows.groups;
    return rc;
}

/* ------------------------------------------------------------------ a run of runs -------------------------------- */

static sf_status copy_merged(sf_run_set *s, sf_run_merge *m, sf_spill_writer *w, sf_error *err)
{
    sf_status rc = SF_OK;

    for (uint32_t g = 0; g < s->groups && rc == SF_OK; g++) {
        bool end = false;

        rc = sf__run_merge_group(m, g, err);
        while (rc == SF_OK && !end) {
            sf_bytes key, value;

            if (sf__is_cancelled(s->cancel)) /* a group may be all there is, and gigabytes */
                return cancelled(err);
            rc = sf__run_merge_next(m, &end, &key, &value, err);
            if (rc == SF_OK && !end)
                rc = sf__spill_writer_add(w, g, key, value, err);
        }
    }
    return rc == SF_OK ? sf__spill_writer_finish(w, err) : rc;
}

/* The newest FAN_IN runs become one. */
static sf_status merge_newest(sf_run_set *s, sf_error *err)
{
    sf_spill_run **from = s->runs + s->count - FAN_IN, *run = NULL;
    sf_run_merge m = {0};
    sf_spill_writer w;
    sf_status rc = sf__spill_run_new(&run, s->folder, s->alloc, err);

    if (rc != SF_OK)
        return rc;
    run->level = from[0]->level + 1;
    sf__spill_writer_init(&w, run);
    rc = sf__run_merge_init(&m, from, FAN_IN, s->duplicates, s->alloc, err);
    if (rc == SF_OK)
        rc = copy_merged(s, &m, &w, err);
    sf__run_merge_cleanup(&m);
    sf__spill_writer_cleanup(&w);
    if (rc != SF_OK) {
        sf__spill_run_free(run);
        return rc;
    }
    for (size_t i = 0; i < FAN_IN; i++)
        sf__spill_run_free(from[i]);
    s->count -= FAN_IN;
    s->runs[s->count++] = run;
    s->spilled_bytes += run->size;
    return SF_OK;
}

static bool newest_are_of_one_level(const sf_run_set *s)
{
    return s->count >= FAN_IN && s->runs[s->count - FAN_IN]->level == s->runs[s->count - 1]->level;
}

/* ------------------------------------------------------------------ the work ------------------------------------- */

static sf_status runs_reserve(sf_run_set *s, sf_error *err)
{
    return SF_RESERVE(s->alloc, &s->runs, &s->cap, s->count + 1) ? SF_OK
                                                                 : sf_fail(err, SF_NOMEM, "%zu spill runs", s->count);
}

static sf_status make_run(sf_run_set *s, sf_error *err)
{
    sf_spill_run *run = NULL;
    sf_status rc = runs_reserve(s, err);

    if (rc == SF_OK)
        rc = sf__spill_run_new(&run, s->folder, s->alloc, err);
    if (rc != SF_OK)
        return rc;
    rc = write_rows(s, run, err);
    if (rc != SF_OK) {
        sf__spill_run_free(run);
        return rc;
    }
    s->runs[s->count++] = run;
    s->spilled_runs++;
    s->spilled_bytes += run->size;
    sf__rows_clear(&s->rows);
    while (rc == SF_OK && newest_are_of_one_level(s))
        rc = merge_newest(s, err);
    return rc;
}

static void *work(void *ctx)
{
    sf_run_set *s = ctx;

    s->error = (sf_error)SF_ERROR_INIT;
    s->rc = make_run(s, &s->error);
    return NULL;
}

static sf_status settle(sf_run_set *s, sf_error *err)
{
    if (s->working)
        pthread_join(s->thread, NULL);
    s->working = false;
    if (s->rc != SF_OK && err)
        *err = s->error;
    return s->rc;
}

sf_status sf__run_set_add(sf_run_set *s, sf_rows *rows, sf_error *err)
{
    sf_rows empty;

    if (settle(s, err) != SF_OK)
        return s->rc;
    if (!s->rows.alloc)
        sf__rows_init(&s->rows, (size_t)1 << rows->chunk_shift, rows->alloc);
    empty = s->rows;
    s->rows = *rows;
    *rows = empty;
    s->working = sf__thread_start(&s->thread, work, s) == 0;
    if (!s->working)
        work(s); /* without a thread it takes longer */
    return SF_OK;
}

sf_status sf__run_set_wait(sf_run_set *s, sf_error *err)
{
    sf_status rc = settle(s, err);

    sf__rows_cleanup(&s->rows);
    s->rows = (sf_rows){0};
    return rc;
}

void sf__run_set_cleanup(sf_run_set *s)
{
    (void)settle(s, NULL);
    sf__rows_cleanup(&s->rows);
    for (size_t i = 0; i < s->count; i++)
        sf__spill_run_free(s->runs[i]);
    sf__free(s->alloc, s->runs);
    *s = (sf_run_set){0};
}
