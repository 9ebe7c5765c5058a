#include "writer/sorter.h"

#include <stdlib.h>

#include "base/grow.h"
#include "writer/rows.h"
#include "writer/run_merge.h"
#include "writer/run_set.h"

#define CHUNK_MAX ((size_t)1 << 20)
#define CHUNK_MIN ((size_t)1 << 12)
#define MEMORY_MIN ((uint64_t)1 << 16)
#define MEMORY_MAX \
    ((uint64_t)24 << 30) /* places of rows are 32 bit numbers of 8 bytes; one row of 8 GiB has room above */
/*   ADDING --> IN_MEMORY        nothing was spilled: the readers sort and read the rows where they are
 *      |  \
 *      |   --> IN_RUNS          all rows are in runs, the memory is free again
 *      v
 *    FAILED                                                                                                     */
enum sorter_state { SORTER_ADDING, SORTER_IN_MEMORY, SORTER_IN_RUNS, SORTER_FAILED };

struct sf_sorter {
    const sf_allocator *alloc;
    sf_sorter_options opts; /* spill_folder: ours */
    char *folder;
    enum sorter_state state;
    sf_rows rows;
    size_t *group_off;  /* IN_MEMORY: rows.groups + 1 */
    uint8_t *is_sorted; /* IN_MEMORY, by group: a byte each, for readers of other groups are at work beside */
    sf_run_set runs;
    bool spilled; /* at least once */
    uint64_t row_count;
    uint64_t left_out;            /* rows that were given and did not come here: messages count them */
    sf_duplicate_rows duplicates; /* readers count too */
    uint8_t *numbered;            /* a value with its row's number, where duplicates are refused */
    size_t numbered_cap;
};

struct sf_sorter_reader {
    sf_sorter *sorter;
    uint32_t group;
    size_t at, end;     /* IN_MEMORY: entries */
    sf_run_merge merge; /* IN_RUNS */
};

/* ------------------------------------------------------------------ life ----------------------------------------- */

static const char *default_folder(void)
{
    const char *t = getenv("TMPDIR");

    return t && *t ? t : "/tmp";
}

sf_status sf__sorter_new(sf_sorter **out, const sf_sorter_options *opts, const sf_allocator *a, sf_error *err)
{
    size_t chunk = CHUNK_MAX;
    sf_sorter *s;

    if (opts->groups == 0)
        return sf_fail(err, SF_INVALID, "a sorter has at least one group");
    if (opts->memory_bytes < MEMORY_MIN)
        return sf_fail(err, SF_INVALID, "a sorter needs at least %llu bytes of memory, not %llu",
                       (unsigned long long)MEMORY_MIN, (unsigned long long)opts->memory_bytes);
    s = sf__calloc(a, 1, sizeof(*s));
    if (!s)
        return sf_fail(err, SF_NOMEM, "sorter");
    s->alloc = a;
    s->opts = *opts;
    if (s->opts.memory_bytes > MEMORY_MAX)
        s->opts.memory_bytes = MEMORY_MAX;
    while (chunk > CHUNK_MIN && chunk > opts->memory_bytes / 32)
        chunk /= 2;
    sf__rows_init(&s->rows, chunk, a);
    s->duplicates.refused = opts->refuse_duplicates;
    s->duplicates.encoding = opts->key_encoding;
    s->duplicates.groups_are_shards = opts->groups_are_shards;
    atomic_init(&s->duplicates.count, 0);
    s->folder = sf__strdup(a, opts->spill_folder ? opts->spill_folder : default_folder());
    s->opts.spill_folder = s->folder;
    if (!s->folder) {
        sf__sorter_free(s);
        return sf_fail(err, SF_NOMEM, "sorter");
    }
    s->runs.alloc = a;
    s->runs.folder = s->folder;
    s->runs.duplicates = &s->duplicates;
    s->runs.cancel = opts->cancel;
    *out = s;
    return SF_OK;
}

void sf__sorter_free(sf_sorter *s)
{
    if (!s)
        return;
    sf__run_set_cleanup(&s->runs);
    sf__rows_cleanup(&s->rows);
    sf__free(s->alloc, s->group_off);
    sf__free(s->alloc, s->is_sorted);
    sf__free(s->alloc, s->folder);
    sf__free(s->alloc, s->numbered);
    sf__free(s->alloc, s);
}

void sf__sorter_get_stats(sf_sorter *s, sf_sorter_stats *out)
{
    sf_status told = sf__run_set_wait(&s->runs, NULL); /* by add() or seal() */

    (void)told;
    *out = (sf_sorter_stats){
        .rows = s->row_count,
        .duplicates = atomic_load_explicit(&s->duplicates.count, memory_order_relaxed),
        .spilled_bytes = s->runs.spilled_bytes,
        .spilled_runs = s->runs.spilled_runs,
    };
}

/* ------------------------------------------------------------------ adding --------------------------------------- */

/* Until the first time all memory is for rows that are added, since they may be all there are. From then on a half is, and
 * the other half becomes a run meanwhile. */
static uint64_t memory_for_rows(const sf_sorter *s)
{
    return s->spilled ? s->opts.memory_bytes / 2 : s->opts.memory_bytes;
}

static sf_status spill(sf_sorter *s, sf_error *err)
{
    sf_status rc = sf__run_set_add(&s->runs, &s->rows, err);

    if (rc == SF_OK && !s->spilled)
        rc = sf__run_set_wait(&s->runs, err);
    s->spilled = true;
    return rc;
}

static sf_status check_adding(const sf_sorter *s, sf_error *err)
{
    return s->state == SORTER_ADDING ? SF_OK : sf_fail(err, SF_STATE, "the sorter takes no more rows");
}

static uint64_t next_number(const sf_sorter *s)
{
    return s->row_count + s->left_out + 1;
}

void sf__sorter_leave_out(sf_sorter *s)
{
    s->left_out++;
}

/* A copy of the value with the number of its row behind it. False without memory. */
static bool number_value(sf_sorter *s, sf_bytes *value)
{
    size_t n = value->n + SF_ROW_NUMBER_BYTES;

    if (!SF_RESERVE(s->alloc, &s->numbered, &s->numbered_cap, n))
        return false;
    if (value->n > 0)
        memcpy(s->numbered, value->p, value->n);
    sf_store_be(s->numbered + value->n, SF_ROW_NUMBER_BYTES, next_number(s));
    *value = sf_bytes_of(s->numbered, n);
    return true;
}

sf_status sf__sorter_add(sf_sorter *s, uint32_t group, sf_bytes key, sf_bytes value, sf_error *err)
{
    sf_status rc = check_adding(s, err);

    if (rc != SF_OK)
        return rc;
    if (group >= s->opts.groups)
        return sf_fail(err, SF_INVALID, "group %u of %u", group, s->opts.groups);
    if (key.n > UINT32_MAX || value.n > UINT32_MAX - SF_ROW_NUMBER_BYTES)
        return sf_fail(err, SF_INVALID, "row %llu: %zu + %zu bytes are too many for a row",
                       (unsigned long long)next_number(s), key.n, value.n);
    if (sf__is_cancelled(s->opts.cancel))
        rc = sf_fail(err, SF_CANCELLED, "cancelled at row %llu", (unsigned long long)next_number(s));
    else if (s->duplicates.refused && !number_value(s, &value))
        rc = sf_fail(err, SF_NOMEM, "row %llu of %zu bytes", (unsigned long long)next_number(s), key.n + value.n);
    else if (s->rows.count > 0 && sf__rows_bytes_with(&s->rows, key.n, value.n) > memory_for_rows(s))
        rc = spill(s, err);
    if (rc == SF_OK && !sf__rows_add(&s->rows, group, key, value))
        rc = sf_fail(err, SF_NOMEM, "row %llu of %zu bytes", (unsigned long long)next_number(s), key.n + value.n);
    if (rc != SF_OK) {
        s->state = SORTER_FAILED;
        return rc;
    }
    s->row_count++;
    return SF_OK;
}

static sf_status group_in_memory(sf_sorter *s, sf_error *err)
{
    uint32_t groups = s->rows.groups;
    sf_row_entry *scratch = NULL;

    s->group_off = sf__calloc(s->alloc, (size_t)groups + 1, sizeof(*s->group_off));
    s->is_sorted = sf__calloc(s->alloc, (size_t)groups + 1, sizeof(*s->is_sorted));
    if (groups > 1)
        scratch = sf__alloc(s->alloc, s->rows.count * sizeof(*scratch));
    if (!s->group_off || !s->is_sorted || (groups > 1 && !scratch)) {
        sf__free(s->alloc, scratch);
        return sf_fail(err, SF_NOMEM, "sorting of %zu rows in %u groups", s->rows.count, groups);
    }
    sf__rows_by_group(&s->rows, s->group_off, groups, scratch);
    sf__free(s->alloc, scratch);
    return SF_OK;
}

sf_status sf__sorter_seal(sf_sorter *s, sf_error *err)
{
    bool in_memory = !s->spilled;
    sf_status rc = check_adding(s, err);

    if (rc != SF_OK)
        return rc;
    if (in_memory)
        rc = group_in_memory(s, err);
    else if (s->rows.count > 0)
        rc = spill(s, err);
    if (rc == SF_OK && !in_memory)
        rc = sf__run_set_wait(&s->runs, err);
    if (rc != SF_OK) {
        s->state = SORTER_FAILED;
        return rc;
    }
    if (!in_memory)
        sf__rows_cleanup(&s->rows);
    s->state = in_memory ? SORTER_IN_MEMORY : SORTER_IN_RUNS;
    return SF_OK;
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

static sf_status sort_group(sf_sorter *s, sf_sorter_reader *r, sf_error *err)
{
    sf_row_entry *scratch;

    if (r->group >= s->rows.groups)
        return SF_OK; /* it has no rows */
    r->at = s->group_off[r->group];
    r->end = s->group_off[r->group + 1];
    if (s->is_sorted[r->group]) /* heads stand deep in the keys by now: sorting again would mix them up */
        return SF_OK;
    scratch = sf__alloc(s->alloc, (r->end - r->at) * sizeof(*scratch));
    if (!scratch)
        return sf_fail(err, SF_NOMEM, "sorting of %zu rows", r->end - r->at);
    sf__rows_sort(&s->rows, s->rows.entries + r->at, r->end - r->at, scratch);
    sf__free(s->alloc, scratch);
    s->is_sorted[r->group] = 1;
    return SF_OK;
}

sf_status sf__sorter_open(sf_sorter *s, uint32_t group, sf_sorter_reader **out, sf_error *err)
{
    sf_sorter_reader *r;
    sf_status rc;

    if (s->state != SORTER_IN_MEMORY && s->state != SORTER_IN_RUNS)
        return sf_fail(err, SF_STATE, "the sorter is not sealed");
    if (group >= s->opts.groups)
        return sf_fail(err, SF_INVALID, "group %u of %u", group, s->opts.groups);
    r = sf__calloc(s->alloc, 1, sizeof(*r));
    if (!r)
        return sf_fail(err, SF_NOMEM, "reader of group %u", group);
    r->sorter = s;
    r->group = group;
    if (s->state == SORTER_IN_MEMORY) {
        rc = sort_group(s, r, err);
    } else {
        rc = sf__run_merge_init(&r->merge, s->runs.runs, s->runs.count, &s->duplicates, s->alloc, err);
        if (rc == SF_OK)
            rc = sf__run_merge_group(&r->merge, group, err);
    }
    if (rc != SF_OK) {
        sf__sorter_close(r);
        return rc;
    }
    *out = r;
    return SF_OK;
}

static sf_status next_in_memory(sf_sorter_reader *r, bool *end, sf_bytes *key, sf_bytes *value, sf_error *err)
{
    const sf_packed_row *p;
    sf_status rc;

    *end = r->at == r->end;
    if (*end)
        return SF_OK;
    rc = sf__rows_next_key(&r->sorter->rows, &r->at, r->end, &r->sorter->duplicates, &p, err);
    if (rc != SF_OK)
        return rc;
    *key = sf__packed_key(p);
    *value = sf__packed_value(p);
    return SF_OK;
}

sf_status sf__sorter_next(sf_sorter_reader *r, bool *end, sf_bytes *key, sf_bytes *value, sf_error *err)
{
    sf_sorter *s = r->sorter;
    sf_status rc;

    if (sf__is_cancelled(s->opts.cancel))
        return sf_fail(err, SF_CANCELLED, "cancelled while reading sorted rows");
    rc = s->state == SORTER_IN_MEMORY ? next_in_memory(r, end, key, value, err)
                                      : sf__run_merge_next(&r->merge, end, key, value, err);
    if (rc == SF_OK && !*end && s->duplicates.refused)
        value->n -= SF_ROW_NUMBER_BYTES;
    return rc;
}

void sf__sorter_close(sf_sorter_reader *r)
{
    if (!r)
        return;
    sf__run_merge_cleanup(&r->merge);
    sf__free(r->sorter->alloc, r);
}
