/* The checks between the last shard and the manifest: a bad snapshot is not announced. */
#include "writer/gate.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "writer/pointer.h"
#include "writer/published.h"
#include "writer/read_back.h"
#include "writer/writer.h"

#define MAX_NAMED 8u /* in a message */

static sf_status refuse(sf_error *err)
{
    return sf_error_prefix(err, SF_REFUSED, "not published: ");
}

/* ------------------------------------------------------------------ empty shards --------------------------------- */

sf_status sf__gate_check_empty_shards(const sf_attempt *winners, size_t count, uint32_t num_dbs, uint32_t most,
                                      sf_error *err)
{
    uint32_t empty = num_dbs - (uint32_t)count;
    char named[MAX_NAMED * 12] = "";
    size_t n = 0, next = 0;

    if (empty <= most)
        return SF_OK;
    for (uint32_t i = 0; i < num_dbs && n < MAX_NAMED; i++) {
        if (next < count && winners[next].db_id == i) {
            next++;
            continue;
        }
        snprintf(named + strlen(named), sizeof(named) - strlen(named), n > 0 ? ", %u" : "%u", i);
        n++;
    }
    sf_fail(err, SF_REFUSED, "%u of %u shards are empty, at most %u may be: %s%s", empty, num_dbs, most, named,
            empty > MAX_NAMED ? ", …" : "");
    return refuse(err);
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

sf_status sf__gate_check_rows(uint64_t rows, uint64_t previous_rows, double least_share, double most_share, sf_error *err)
{
    double now = (double)rows, before = (double)previous_rows;

    if (least_share > 0 && now < least_share * before)
        sf_fail(err, SF_REFUSED, "%llu rows are less than %g of the %llu published before", (unsigned long long)rows,
                least_share, (unsigned long long)previous_rows);
    else if (most_share > 0 && now > most_share * before)
        sf_fail(err, SF_REFUSED, "%llu rows are more than %g of the %llu published before", (unsigned long long)rows,
                most_share, (unsigned long long)previous_rows);
    else
        return SF_OK;
    return refuse(err);
}

/* ------------------------------------------------------------------ previous snapshot ---------------------------- */

static sf_status count_previous(sf_writer *w, const sf_pointer *p, sf_error *err)
{
    sf_snapshot_manifest *m;
    sf_status rc;

    if (!p->exists)
        return SF_OK;
    if (!p->parsed) {
        if (err)
            *err = p->why;
        return SF_BAD_MANIFEST;
    }
    rc = sf__manifest_load(&w->site, p->current.manifest_ref, &w->stop, &m, err);
    if (rc != SF_OK)
        return rc;
    w->report.has_previous = true;
    w->report.previous_rows = m->row_count;
    sf__snapshot_manifest_free(m);
    return SF_OK;
}

static sf_status load_previous(sf_writer *w, sf_error *err)
{
    sf_pointer p = {.exists = false};
    sf_status rc = sf__pointer_load(&w->site, &w->stop, &p, err);

    if (rc == SF_OK)
        rc = count_previous(w, &p, err);
    sf__pointer_cleanup(&w->site, &p);
    if (rc != SF_BAD_MANIFEST && rc != SF_NOT_FOUND && rc != SF_UNSUPPORTED)
        return rc;
    sf_error_prefix(err, rc, "the snapshot before cannot be compared with: "); /* and asking again would not help */
    return refuse(err);
}

static sf_status check_row_share(sf_writer *w, sf_error *err)
{
    double least = w->options.min_rows_share, most = w->options.max_rows_share;
    sf_status rc;

    if (least <= 0 && most <= 0 && !w->options.check)
        return SF_OK;
    rc = load_previous(w, err);
    if (rc == SF_REFUSED && least <= 0 && most <= 0)
        return SF_OK; /* only the caller's check would have liked to know */
    if (rc != SF_OK || !w->report.has_previous)
        return rc;
    return sf__gate_check_rows(w->report.published_rows, w->report.previous_rows, least, most, err);
}

/* ------------------------------------------------------------------ reading back --------------------------------- */

static const sf_attempt *winner_of(const sf_writer *w, uint32_t db_id)
{
    size_t low = 0, high = w->winner_count;

    while (low < high) { /* they stand by db_id */
        size_t middle = low + (high - low) / 2;

        if (w->winners[middle].db_id < db_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < w->winner_count && w->winners[low].db_id == db_id ? &w->winners[low] : NULL;
}

static sf_status compare_values(const sf_writer *w, const sf_sampled *const *rows, size_t count, const sf_value *values,
                                sf_error *err)
{
    for (size_t i = 0; i < count; i++) {
        char key[SF_KEY_DESCRIPTION];
        sf_hash128 h;

        if (values[i].found) {
            h = sf__xxh3_128(values[i].bytes);
            if (h.hi == rows[i]->value_hash.hi && h.lo == rows[i]->value_hash.lo)
                continue;
        }
        sf__key_describe(key, w->options.key_encoding, rows[i]->key);
        sf_fail(err, SF_REFUSED,
                values[i].found ? "shard %u has another value for the key %s than was added"
                                : "shard %u does not have the key %s that was added",
                rows[i]->db_id, key);
        return refuse(err);
    }
    return SF_OK;
}

static sf_status read_keys(sf_writer *w, const sf_attempt *winner, const sf_sampled *const *rows, size_t count,
                           sf_error *err)
{
    const sf_read_back from = {
        .site = &w->site, .backend = w->options.backend, .spill_folder = w->options.spill_folder, .cancel = &w->stop};
    const sf_allocator *a = w->site.rt->alloc;
    sf_bytes *keys = sf__calloc(a, count, sizeof(*keys));
    sf_value *values = sf__calloc(a, count, sizeof(*values));
    sf_status rc = keys && values ? SF_OK : sf_fail(err, SF_NOMEM, "%zu keys to read back", count);

    for (size_t i = 0; i < count && rc == SF_OK; i++)
        keys[i] = rows[i]->key;
    if (rc == SF_OK)
        rc = sf__read_back(&from, winner, keys, count, values, err);
    if (rc == SF_OK)
        rc = compare_values(w, rows, count, values, err);
    for (size_t i = 0; i < count && values; i++)
        sf_value_release(&values[i]);
    sf__free(a, values);
    sf__free(a, keys);
    return rc;
}

static sf_status check_shard(sf_writer *w, uint32_t db_id, const sf_sampled *const *rows, size_t count, sf_error *err)
{
    const sf_attempt *winner = winner_of(w, db_id);
    sf_status rc;

    if (!winner) {
        sf_fail(err, SF_REFUSED, "shard %u is empty, but rows were added to it", db_id);
        return refuse(err);
    }
    rc = read_keys(w, winner, rows, count, err);
    if (rc == SF_OK || rc == SF_REFUSED)
        return rc;
    sf_error_prefix(err, rc, "reading back from shard %u: ", db_id);
    if (rc != SF_CORRUPT && rc != SF_NOT_FOUND && rc != SF_UNSUPPORTED)
        return rc;
    return refuse(err);
}

static int by_shard(const void *x, const void *y)
{
    const sf_sampled *a = *(const sf_sampled *const *)x, *b = *(const sf_sampled *const *)y;

    return (a->db_id > b->db_id) - (a->db_id < b->db_id);
}

static sf_status check_sample(sf_writer *w, sf_error *err)
{
    const sf_sample *s = &w->sample;
    const sf_sampled **rows;
    sf_status rc = SF_OK;

    if (s->count == 0)
        return SF_OK;
    rows = sf__calloc(w->site.rt->alloc, s->count, sizeof(*rows));
    if (!rows)
        return sf_fail(err, SF_NOMEM, "%zu keys to read back", s->count);
    for (size_t i = 0; i < s->count; i++)
        rows[i] = &s->rows[i];
    qsort((void *)rows, s->count, sizeof(*rows), by_shard);
    for (size_t i = 0, end; i < s->count && rc == SF_OK; i = end) {
        for (end = i + 1; end < s->count && rows[end]->db_id == rows[i]->db_id;)
            end++;
        rc = sf__writer_check_cancelled(w, err);
        if (rc == SF_OK)
            rc = check_shard(w, rows[i]->db_id, rows + i, end - i, err);
        sf__writer_progress(w, false);
    }
    sf__free(w->site.rt->alloc, (void *)rows);
    return rc;
}

/* ------------------------------------------------------------------ all ------------------------------------------ */

static sf_status ask_user(sf_writer *w, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;

    if (!w->options.check || w->options.check(w->options.check_ctx, &w->report, &e) == SF_OK)
        return SF_OK;
    if (e.message[0] == '\0')
        sf_fail(&e, SF_REFUSED, "the check of the caller did not pass");
    if (err)
        *err = e;
    return refuse(err);
}

sf_status sf__writer_check_gate(sf_writer *w, sf_error *err)
{
    sf_status rc =
        sf__gate_check_empty_shards(w->winners, w->winner_count, w->options.num_dbs, w->options.max_empty_shards, err);

    if (rc == SF_OK)
        rc = check_row_share(w, err);
    if (rc == SF_OK)
        rc = check_sample(w, err);
    if (rc == SF_OK)
        rc = sf__writer_check_cancelled(w, err);
    if (rc == SF_OK)
        rc = ask_user(w, err);
    return rc;
}
