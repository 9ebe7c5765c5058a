#include "writer/sorter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "writer/rows.h"
#include "writer/run_merge.h"

/* Runs of one level are merged into one of the next when there are this many: a merge, and the number of open files,
 * stays bounded whatever the input (64 runs of 128 MiB are 8 GiB, two levels 512 GiB). */
#define FAN_IN 64u
#define CHUNK_MAX ((size_t)1 << 20)
#define CHUNK_MIN ((size_t)1 << 12)
#define MEMORY_MIN ((uint64_t)1 << 16)
#define MEMORY_MAX ((uint64_t)24 << 30) /* places of rows are 32 bit numbers of 8 bytes; one row of 8 GiB has room above */
/* How many rows ahead memory is asked for: rows lie in the order of adding, so every one is a cache miss. */
#define PREFETCH_ROWS 16u
#define CACHE_LINE 64u

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
    size_t *group_off; /* groups + 1; after by_group() */
    uint8_t *is_sorted; /* IN_MEMORY, by group: a byte each, for readers of other groups are at work beside */
    sf_spill_run **runs; /* oldest first; levels never rise */
    size_t run_count, run_cap;
    uint64_t row_count;
    uint64_t spilled_bytes, spilled_runs;
    atomic_uint_fast64_t duplicates; /* readers count too */
};

struct sf_sorter_reader {
    sf_sorter *sorter;
    uint32_t group;
    size_t at, end;      /* IN_MEMORY: entries */
    sf_run_merge merge;  /* IN_RUNS */
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
    atomic_init(&s->duplicates, 0);
    s->folder = sf__strdup(a, opts->spill_folder ? opts->spill_folder : default_folder());
    s->opts.spill_folder = s->folder;
    s->group_off = sf__calloc(a, (size_t)opts->groups + 1, sizeof(*s->group_off));
    s->is_sorted = sf__calloc(a, opts->groups, sizeof(*s->is_sorted));
    if (!s->folder || !s->group_off || !s->is_sorted) {
        sf__sorter_free(s);
        return sf_fail(err, SF_NOMEM, "sorter of %u groups", opts->groups);
    }
    *out = s;
    return SF_OK;
}

void sf__sorter_free(sf_sorter *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->run_count; i++)
        sf__spill_run_free(s->runs[i]);
    sf__free(s->alloc, s->runs);
    sf__rows_cleanup(&s->rows);
    sf__free(s->alloc, s->group_off);
    sf__free(s->alloc, s->is_sorted);
    sf__free(s->alloc, s->folder);
    sf__free(s->alloc, s);
}

void sf__sorter_get_stats(sf_sorter *s, sf_sorter_stats *out)
{
    *out = (sf_sorter_stats){
        .rows = s->row_count,
        .duplicates = atomic_load_explicit(&s->duplicates, memory_order_relaxed),
        .spilled_bytes = s->spilled_bytes,
        .spilled_runs = s->spilled_runs,
    };
}

/* ------------------------------------------------------------------ duplicates ----------------------------------- */

static sf_status duplicate(void *ctx, uint32_t group, sf_bytes key, sf_error *err)
{
    sf_sorter *s = ctx;
    char hex[2 * 32 + 1] = "";
    size_t n = key.n < 32 ? key.n : 32;

    atomic_fetch_add_explicit(&s->duplicates, 1, memory_order_relaxed);
    if (!s->opts.refuse_duplicates)
        return SF_OK;
    for (size_t i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", key.p[i]);
    return sf_fail(err, SF_INVALID, "duplicate key in shard %u: 0x%s%s, %zu bytes", group, hex, n < key.n ? "..." : "",
                   key.n);
}

/* The beginning of a row: lengths, key, and of most values something. */
static inline void prefetch(const sf_sorter *s, const sf_row_entry *e)
{
    uintptr_t p = (uintptr_t)sf__rows_at(&s->rows, e->row);

    __builtin_prefetch((const void *)p);
    __builtin_prefetch((const void *)(p + CACHE_LINE)); /* harmless where nothing is */
}

/* The row at *at of a sorted range: the last one of its key. *at is behind it then. */
static sf_status take_last(sf_sorter *s, const sf_row_entry *e, size_t *at, size_t end, const sf_packed_row **out,
                           sf_error *err)
{
    const sf_packed_row *p = sf__rows_at(&s->rows, e[*at].row), *q;

    for (++*at; *at < end; ++*at) {
        if (*at + PREFETCH_ROWS < end)
            prefetch(s, &e[*at + PREFETCH_ROWS]);
        q = sf__rows_at(&s->rows, e[*at].row);
        if (p->key_len != q->key_len || memcmp(p->bytes, q->bytes, p->key_len) != 0)
            break;
        if (duplicate(s, e[*at].group, sf__packed_key(q), err) != SF_OK)
            return SF_INVALID;
        p = q;
    }
    *out = p;
    return SF_OK;
}

/* ------------------------------------------------------------------ runs ----------------------------------------- */

static sf_status runs_reserve(sf_sorter *s, sf_error *err)
{
    size_t cap = s->run_cap ? 2 * s->run_cap : 16;
    sf_spill_run **p;

    if (s->run_count < s->run_cap)
        return SF_OK;
    p = sf__realloc(s->alloc, s->runs, cap * sizeof(*p));
    if (!p)
        return sf_fail(err, SF_NOMEM, "%zu spill runs", s->run_count);
    s->runs = p;
    s->run_cap = cap;
    return SF_OK;
}

static sf_status spill_group(sf_sorter *s, sf_spill_writer *w, uint32_t group, sf_row_entry *scratch, sf_error *err)
{
    size_t at = s->group_off[group], end = s->group_off[group + 1];
    sf_status rc = SF_OK;

    sf__rows_sort(&s->rows, s->rows.entries + at, end - at, scratch);
    while (at < end && rc == SF_OK) {
        const sf_packed_row *p;

        rc = take_last(s, s->rows.entries, &at, end, &p, err);
        if (rc == SF_OK)
            rc = sf__spill_writer_add(w, group, sf__packed_key(p), sf__packed_value(p), err);
    }
    return rc;
}

/* Sorts what is in memory into a new run. */
static sf_status write_run(sf_sorter *s, sf_spill_run *run, sf_error *err)
{
    sf_row_entry *scratch = sf__alloc(s->alloc, s->rows.count * sizeof(*scratch));
    sf_spill_writer w;
    sf_status rc = SF_OK;

    if (!scratch)
        return sf_fail(err, SF_NOMEM, "sorting of %zu rows", s->rows.count);
    sf__spill_writer_init(&w, run);
    sf__rows_by_group(&s->rows, s->group_off, s->opts.groups, scratch);
    for (uint32_t g = 0; g < s->opts.groups && rc == SF_OK; g++) {
        if (sf__is_cancelled(s->opts.cancel))
            rc = sf_fail(err, SF_CANCELLED, "cancelled while sorting");
        else if (s->group_off[g] < s->group_off[g + 1])
            rc = spill_group(s, &w, g, scratch, err);
    }
    if (rc == SF_OK)
        rc = sf__spill_writer_finish(&w, err);
    sf__spill_writer_cleanup(&w);
    sf__free(s->alloc, scratch);
    return rc;
}

static sf_status copy_merged(sf_sorter *s, sf_run_merge *m, sf_spill_writer *w, sf_error *err)
{
    sf_status rc = SF_OK;

    for (uint32_t g = 0; g < s->opts.groups && rc == SF_OK; g++) {
        bool end = false;

        if (sf__is_cancelled(s->opts.cancel))
            return sf_fail(err, SF_CANCELLED, "cancelled while sorting");
        rc = sf__run_merge_group(m, g, err);
        while (rc == SF_OK && !end) {
            sf_bytes key, value;

            rc = sf__run_merge_next(m, &end, &key, &value, err);
            if (rc == SF_OK && !end)
                rc = sf__spill_writer_add(w, g, key, value, err);
        }
    }
    return rc == SF_OK ? sf__spill_writer_finish(w, err) : rc;
}

/* The newest FAN_IN runs become one. */
static sf_status merge_newest(sf_sorter *s, sf_error *err)
{
    sf_spill_run **from = s->runs + s->run_count - FAN_IN, *run = NULL;
    sf_run_merge m = {0};
    sf_spill_writer w;
    sf_status rc = sf__spill_run_new(&run, s->folder, s->alloc, err);

    if (rc != SF_OK)
        return rc;
    run->level = from[0]->level + 1;
    sf__spill_writer_init(&w, run);
    rc = sf__run_merge_init(&m, from, FAN_IN, duplicate, s, s->alloc, err);
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
    s->run_count -= FAN_IN;
    s->runs[s->run_count++] = run;
    s->spilled_bytes += run->size;
    return SF_OK;
}

static bool newest_are_of_one_level(const sf_sorter *s)
{
    return s->run_count >= FAN_IN && s->runs[s->run_count - FAN_IN]->level == s->runs[s->run_count - 1]->level;
}

static sf_status spill(sf_sorter *s, sf_error *err)
{
    sf_spill_run *run = NULL;
    sf_status rc = runs_reserve(s, err);

    if (rc == SF_OK)
        rc = sf__spill_run_new(&run, s->folder, s->alloc, err);
    if (rc != SF_OK)
        return rc;
    rc = write_run(s, run, err);
    if (rc != SF_OK) {
        sf__spill_run_free(run);
        return rc;
    }
    s->runs[s->run_count++] = run;
    s->spilled_runs++;
    s->spilled_bytes += run->size;
    sf__rows_clear(&s->rows);
    while (rc == SF_OK && newest_are_of_one_level(s))
        rc = merge_newest(s, err);
    return rc;
}

/* ------------------------------------------------------------------ adding --------------------------------------- */

static sf_status check_adding(const sf_sorter *s, sf_error *err)
{
    return s->state == SORTER_ADDING ? SF_OK : sf_fail(err, SF_STATE, "the sorter takes no more rows");
}

sf_status sf__sorter_add(sf_sorter *s, uint32_t group, sf_bytes key, sf_bytes value, sf_error *err)
{
    sf_status rc = check_adding(s, err);

    if (rc != SF_OK)
        return rc;
    if (group >= s->opts.groups)
        return sf_fail(err, SF_INVALID, "group %u of %u", group, s->opts.groups);
    if (key.n > UINT32_MAX || value.n > UINT32_MAX)
        return sf_fail(err, SF_INVALID, "row %llu: %zu + %zu bytes are too many for a row",
                       (unsigned long long)s->row_count + 1, key.n, value.n);
    if (sf__is_cancelled(s->opts.cancel))
        rc = sf_fail(err, SF_CANCELLED, "cancelled at row %llu", (unsigned long long)s->row_count + 1);
    else if (s->rows.count > 0 && sf__rows_bytes_with(&s->rows, key.n, value.n) > s->opts.memory_bytes)
        rc = spill(s, err);
    if (rc == SF_OK && !sf__rows_add(&s->rows, group, key, value))
        rc = sf_fail(err, SF_NOMEM, "row %llu of %zu bytes", (unsigned long long)s->row_count + 1, key.n + value.n);
    if (rc != SF_OK) {
        s->state = SORTER_FAILED;
        return rc;
    }
    s->row_count++;
    return SF_OK;
}

static sf_status group_in_memory(sf_sorter *s, sf_error *err)
{
    sf_row_entry *scratch = NULL;

    if (s->opts.groups > 1) {
        scratch = sf__alloc(s->alloc, s->rows.count * sizeof(*scratch));
        if (!scratch)
            return sf_fail(err, SF_NOMEM, "sorting of %zu rows", s->rows.count);
    }
    sf__rows_by_group(&s->rows, s->group_off, s->opts.groups, scratch);
    sf__free(s->alloc, scratch);
    return SF_OK;
}

sf_status sf__sorter_seal(sf_sorter *s, sf_error *err)
{
    bool in_memory = s->run_count == 0;
    sf_status rc = check_adding(s, err);

    if (rc != SF_OK)
        return rc;
    if (in_memory)
        rc = group_in_memory(s, err);
    else if (s->rows.count > 0)
        rc = spill(s, err);
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
        rc = sf__run_merge_init(&r->merge, s->runs, s->run_count, duplicate, s, s->alloc, err);
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
    rc = take_last(r->sorter, r->sorter->rows.entries, &r->at, r->end, &p, err);
    if (rc != SF_OK)
        return rc;
    *key = sf__packed_key(p);
    *value = sf__packed_value(p);
    return SF_OK;
}

sf_status sf__sorter_next(sf_sorter_reader *r, bool *end, sf_bytes *key, sf_bytes *value, sf_error *err)
{
    sf_sorter *s = r->sorter;

    if (sf__is_cancelled(s->opts.cancel))
        return sf_fail(err, SF_CANCELLED, "cancelled while reading sorted rows");
    return s->state == SORTER_IN_MEMORY ? next_in_memory(r, end, key, value, err)
                                        : sf__run_merge_next(&r->merge, end, key, value, err);
}

void sf__sorter_close(sf_sorter_reader *r)
{
    if (!r)
        return;
    sf__run_merge_cleanup(&r->merge);
    sf__free(r->sorter->alloc, r);
}
