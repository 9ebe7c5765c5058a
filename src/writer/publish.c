/* From stored shards to a visible snapshot: winners, gate, manifest, pointer, and what lost (docs/formats/snapshot.md
 * 11). */
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "base/limits.h"
#include "snapshot/manifest_name.h"
#include "snapshot/manifest_write.h"
#include "snapshot/relocation.h"
#include "writer/manifest_store.h"
#include "writer/own_custom.h"
#include "writer/pointer.h"
#include "writer/rerun.h"
#include "writer/site_open.h"
#include "writer/winner.h"
#include "writer/writer.h"

#define SUGGESTED_SHARD_BYTES (UINT64_C(256) << 20)
#define MAX_SKEW 2.0
/* Few rows are never spread evenly; a warning about them would only be noise. */
#define SKEW_MIN_ROWS_PER_SHARD 100u

/* ------------------------------------------------------------------ winners -------------------------------------- */

static sf_status choose_winners(sf_writer *w, sf_error *err)
{
    const sf_allocator *a = w->site.rt->alloc;
    size_t *indexes, count;
    sf_status rc = sf__winners_choose(&indexes, &count, w->attempts, w->attempt_count, w->options.num_dbs, a, err);

    if (rc != SF_OK)
        return rc;
    w->winners = sf__arena_alloc(&w->arena, (count > 0 ? count : 1) * sizeof(*w->winners));
    w->winner_openings = sf__arena_alloc(&w->arena, (count > 0 ? count : 1) * sizeof(*w->winner_openings));
    if (!w->winners || !w->winner_openings) {
        sf__free(a, indexes);
        return sf_fail(err, SF_NOMEM, "%zu winners", count);
    }
    for (size_t i = 0; i < count; i++) {
        w->winners[i] = w->attempts[indexes[i]];
        w->winner_openings[i] = w->openings[indexes[i]];
    }
    w->winner_count = count;
    sf__free(a, indexes);
    return SF_OK;
}

/* ------------------------------------------------------------------ report --------------------------------------- */

static const char *warn_about_skew(sf_writer *w, double skew, uint64_t fullest)
{
    char text[256];

    snprintf(text, sizeof(text),
             "the fullest of %u shards holds %llu rows, %.1f times the mean: look-ups and builds wait for it",
             w->options.num_dbs, (unsigned long long)fullest, skew);
    return sf__arena_strndup(&w->arena, text, strlen(text)); /* without memory there is no warning */
}

/* Readers route by what is in front of it, too, so nothing is lost but balance. */
static const char *warn_about_cut(sf_writer *w)
{
    char text[256];

    snprintf(text, sizeof(text),
             "of %llu rows a routing column has a NUL: what stands behind it did not count for their shard",
             (unsigned long long)w->cel.cut_rows);
    return sf__arena_strndup(&w->arena, text, strlen(text));
}

static void measure_winners(sf_writer *w)
{
    sf_write_report *r = &w->report;
    uint64_t fullest = 0;

    r->published_rows = r->published_bytes = r->published_duplicates = 0;
    for (size_t i = 0; i < w->winner_count; i++) {
        r->published_rows += w->winners[i].row_count;
        r->published_bytes += w->winners[i].db_bytes;
        r->published_duplicates += w->winners[i].duplicates;
        if (w->winners[i].row_count > fullest)
            fullest = w->winners[i].row_count;
    }
    r->winners = w->winners;
    r->winner_count = w->winner_count;
    r->suggested_num_dbs = (uint32_t)(r->published_bytes / SUGGESTED_SHARD_BYTES + 1);
    r->largest_over_mean = 0;
    if (r->published_rows == 0)
        return;
    r->largest_over_mean = (double)fullest * w->options.num_dbs / (double)r->published_rows;
    if (w->cel.cut_rows > 0)
        r->warning = warn_about_cut(w);
    else if (r->largest_over_mean > MAX_SKEW &&
             r->published_rows >= (uint64_t)SKEW_MIN_ROWS_PER_SHARD * w->options.num_dbs)
        r->warning = warn_about_skew(w, r->largest_over_mean, fullest);
    if (r->warning)
        sf__log(&w->site.rt->log, SF_LOG_WARN, "writer", "run %s: %s", w->run_id, r->warning);
}

/* ------------------------------------------------------------------ manifest ------------------------------------- */

static sf_status custom_of(const char **out, sf_writer *w, sf_error *err)
{
    const sf_allocator *a = w->site.rt->alloc;
    const char *given = w->options.custom_json; /* an object, checked when the writer was opened */
    size_t inner = strlen(given) - 1;
    sf_strbuf merged, sorted;
    sf_json_doc doc;
    sf_status rc;

    sf__strbuf_init(&merged, a);
    sf__strbuf_add(&merged, given, inner);
    if (strspn(given + 1, " \t\r\n") + 1 < inner)
        sf__strbuf_puts(&merged, ", ");
    sf__own_custom_write(&merged, &(sf_own_custom){w->options.backend, &w->sqlite, w->winners,
                                                   w->winner_count}); /* of one name the last counts */
    sf__strbuf_putc(&merged, '}');
    if (merged.failed) {
        sf__strbuf_cleanup(&merged);
        return sf_fail(err, SF_NOMEM, "custom fields of the manifest");
    }
    rc = sf__json_parse(&doc, sf_bytes_of(merged.s, merged.n), SF_JSON_NAN, a, err);
    if (rc == SF_OK) {
        sf__strbuf_init(&sorted, a);
        rc = sf__json_write_sorted(&sorted, doc.root, err);
        *out = rc == SF_OK && !sorted.failed ? sf__arena_strndup(&w->arena, sorted.s, sorted.n) : NULL;
        if (rc == SF_OK && !*out)
            rc = sf_fail(err, SF_NOMEM, "custom fields of the manifest");
        sf__strbuf_cleanup(&sorted);
        sf__json_cleanup(&doc);
    }
    sf__strbuf_cleanup(&merged);
    return rc;
}

static const char *writer_info_of(sf_writer *w, const sf_attempt *at, const char *opening)
{
    sf_writer_info info = {
        .attempt = at->attempt,
        .duration_ms = at->duration_ms,
        .has_stage_id = at->has_stage_id,
        .stage_id = at->stage_id,
        .has_task_attempt_id = at->has_task_attempt_id,
        .task_attempt_id = at->task_attempt_id,
        .opening = opening,
    };
    sf_strbuf text;
    const char *kept;

    sf__strbuf_init(&text, w->site.rt->alloc);
    sf__writer_info_write(&text, &info);
    kept = text.failed ? NULL : sf__arena_strndup(&w->arena, text.s, text.n);
    sf__strbuf_cleanup(&text);
    return kept;
}

static sf_status describe_shards(sf_snapshot_manifest *m, sf_writer *w, sf_error *err)
{
    size_t room = SF_LIMIT_OPENING_RECORDS_BYTES;

    m->shard_count = w->winner_count;
    m->shards = sf__arena_alloc(&w->arena, (m->shard_count > 0 ? m->shard_count : 1) * sizeof(*m->shards));
    if (!m->shards)
        return sf_fail(err, SF_NOMEM, "snapshot manifest");
    for (size_t i = 0; i < m->shard_count; i++) {
        const sf_attempt *at = &w->winners[i];
        const char *opening = w->winner_openings[i];

        if (opening && strlen(opening) > room)
            opening = NULL;
        room -= opening ? strlen(opening) : 0;
        m->shards[i] = (sf_manifest_shard){
            .db_id = (uint32_t)at->db_id,
            .attempt = at->attempt,
            .row_count = at->row_count,
            .db_bytes = at->db_bytes,
            .db_url = at->db_url,
            .min_key_json = at->min_key_json,
            .max_key_json = at->max_key_json,
            .checkpoint_id = at->checkpoint_id,
            .writer_info_json = writer_info_of(w, at, opening),
        };
        if (!m->shards[i].writer_info_json)
            return sf_fail(err, SF_NOMEM, "snapshot manifest");
    }
    return SF_OK;
}

static sf_status encode_manifest(sf_buf **out, sf_writer *w, sf_error *err)
{
    sf_snapshot_manifest m = {
        .run_id = w->run_id,
        .s3_prefix = w->site.prefix,
        .key_col = w->options.key_col,
        .db_path_template = w->options.db_path_template,
        .shard_prefix = w->options.shard_prefix,
        .sharding_json = w->report.sharding_json,
        .created_at_us = sf__clock_unix_us(),
        .num_dbs = w->options.num_dbs,
        .format_version = 4,
        .key_encoding = w->options.key_encoding,
        .strategy = w->partition.cel ? SF_SHARDING_CEL : SF_SHARDING_HASH,
    };
    sf_status rc = custom_of(&m.custom_json, w, err);

    if (rc == SF_OK)
        rc = describe_shards(&m, w, err);
    if (rc == SF_OK)
        rc = sf__snapshot_manifest_write(out, &m, w->site.rt->alloc, err);
    return rc;
}

/* "manifests/2026-01-02T03:04:05.678901Z_run_id=r/manifest" */
static sf_status name_manifest(char **out, const sf_writer *w, sf_error *err)
{
    const sf_allocator *a = w->site.rt->alloc;
    char *folder;
    sf_status rc = sf__manifest_name_format(&folder, sf__clock_unix_us(), w->run_id, a, err);

    if (rc != SF_OK)
        return rc;
    *out = sf__asprintf(a, "manifests/%s/" SF_MANIFEST_NAME, folder);
    sf__free(a, folder);
    return *out ? SF_OK : sf_fail(err, SF_NOMEM, "name of the manifest");
}

static sf_status put_manifest(sf_writer *w, const char *name, sf_error *err)
{
    sf_site_put put = {.name = name, .content_type = SF_MANIFEST_CONTENT_TYPE, .create_only = true};
    bool uncertain = false;
    sf_buf *bytes;
    char *url;
    sf_status rc = encode_manifest(&bytes, w, err);

    if (rc != SF_OK)
        return rc;
    put.body = sf__buf_bytes(bytes);
    url = sf__site_url(&w->site, name);
    w->report.manifest_ref = url ? sf__arena_strndup(&w->arena, url, strlen(url)) : NULL;
    sf__free(w->site.rt->alloc, url);
    if (!w->report.manifest_ref)
        rc = sf_fail(err, SF_NOMEM, "manifest reference");
    if (rc == SF_OK)
        rc = sf__writer_check_cancelled(w, err);
    if (rc == SF_OK) {
        rc = sf__site_put(&w->site, &put, NULL, &uncertain, err);
        w->manifest_stored = rc == SF_OK || uncertain;
    }
    if (rc != SF_OK && !uncertain)
        w->report.manifest_ref = NULL;
    sf__buf_release(bytes);
    return rc;
}

/* ------------------------------------------------------------------ pointer -------------------------------------- */

/* A shard of the snapshot before is sure to stay only while that is the one that the pointer names: clean-up keeps it then, and
 * sees the manifest that takes over from it. NULL: there is none. */
static const char *taken_from(const sf_writer *w)
{
    for (size_t i = 0; i < w->winner_count; i++)
        if (w->winners[i].taken_from)
            return w->winners[i].taken_from;
    return NULL;
}

static sf_expectation expectation_of(const sf_writer *w)
{
    sf_expectation expected = {w->options.expected_current, w->options.expected_ref};

    if (expected.kind == SF_EXPECT_ANY && taken_from(w))
        expected = (sf_expectation){SF_EXPECT_REF, taken_from(w)};
    return expected;
}

/* All of one snapshot, and that the one that is expected. */
static sf_status check_taken(const sf_writer *w, sf_error *err)
{
    sf_expectation expected = expectation_of(w);

    for (size_t i = 0; i < w->winner_count; i++) {
        const char *from = w->winners[i].taken_from;

        if (from && !(expected.kind == SF_EXPECT_REF && sf__same_reference(&w->site, from, expected.ref)))
            return sf_fail(err, SF_CONFLICT, "another snapshot was published: shard %lld is one of %s, expected was %s",
                           (long long)w->winners[i].db_id, from, expected.kind == SF_EXPECT_REF ? expected.ref : "none");
    }
    return SF_OK;
}

/* Another snapshot was published meanwhile. Better found out before our manifest is in the history. */
static sf_status check_expectation(sf_writer *w, sf_error *err)
{
    sf_expectation expected = expectation_of(w);
    char *found = NULL;
    sf_status rc = check_taken(w, err);

    if (rc == SF_OK)
        rc = sf__pointer_check(&w->site, &expected, &w->stop, &found, err);
    if (found)
        w->report.found_ref = sf__arena_strndup(&w->arena, found, strlen(found));
    sf__free(w->site.rt->alloc, found);
    return rc;
}

/* Our manifest was never announced and never will be: it must not be the newest in the history, where a fallback would
 * find it. */
static void withdraw_manifest(sf_writer *w, const char *name)
{
    uint64_t count = 0;
    sf_error e = SF_ERROR_INIT;
    char folder[1200];

    snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(name, '/') - name), name);
    if (sf__site_delete_folder(&w->site, w->site.store, folder, false, NULL, &count, &e) == SF_OK) {
        w->manifest_stored = false;
        w->report.manifest_ref = NULL;
        return;
    }
    sf__log(&w->site.rt->log, SF_LOG_WARN, "writer", "%s was not announced and could not be deleted: %s",
            w->report.manifest_ref, e.message);
}

static sf_status move_pointer(sf_writer *w, const char *manifest_name, sf_error *err)
{
    sf_expectation expected = expectation_of(w);
    bool uncertain = false;
    char *found = NULL;
    sf_status rc =
        sf__pointer_move(&w->site, w->report.manifest_ref, w->run_id, &expected, NULL, &found, &uncertain, err);

    if (found)
        w->report.found_ref = sf__arena_strndup(&w->arena, found, strlen(found));
    sf__free(w->site.rt->alloc, found);
    if (rc == SF_CONFLICT && !uncertain)
        withdraw_manifest(w, manifest_name);
    return rc;
}

/* ------------------------------------------------------------------ lease ---------------------------------------- */

sf_status sf__writer_find_shards(sf_writer *w, const sf_attempt *shards, size_t count, sf_error *err)
{
    sf_status rc = SF_OK;

    sf__log(&w->site.rt->log, SF_LOG_WARN, "writer",
            "run %s: its lease was not renewed in time; looking whether its shards are still there", w->run_id);
    for (size_t i = 0; i < count && rc == SF_OK; i++) {
        sf_store_listing l;
        char *folder;

        if (!shards[i].db_url)
            continue; /* it has no rows */
        rc = sf__site_name_of(&w->site, shards[i].db_url, &folder, err);
        if (rc != SF_OK || !folder)
            continue; /* no clean-up of this prefix reaches it */
        rc = sf__site_list(&w->site, w->site.shard_store, folder, "/", &w->stop, &l, err);
        sf__free(w->site.rt->alloc, folder);
        if (rc != SF_OK)
            break;
        if (l.entry_count == 0)
            rc = sf_fail(err, SF_NOT_FOUND,
                         "shard %lld is gone: the lease of run %s had run out, and a clean-up removed it",
                         (long long)shards[i].db_id, w->run_id);
        sf__store_listing_cleanup(&l);
    }
    return rc;
}

/* What earlier tries of the run had finished when it began may have been cleaned up since: before that it had no lease. */
static sf_status find_resumed(sf_writer *w, sf_error *err)
{
    sf_earlier_attempts now = {.listed = false};
    bool any = false;
    sf_status rc = SF_OK;

    for (size_t i = 0; i < w->winner_count && !any; i++)
        any = w->winners[i].reused && !w->winners[i].taken_from;
    if (any)
        rc = sf__earlier_attempts_list(&now, &w->site, w->options.shard_prefix, w->run_id, &w->stop, err);
    for (size_t i = 0; i < w->winner_count && any && rc == SF_OK; i++) {
        const sf_attempt *at = &w->winners[i];
        char *name = NULL, *folder = NULL;

        if (!at->reused || at->taken_from)
            continue;
        rc = sf__site_name_of(&w->site, at->db_url, &name, err);
        if (rc != SF_OK || !name)
            continue; /* no clean-up of this prefix reaches it */
        folder = sf__asprintf(w->site.rt->alloc, "%s/", name);
        if (!folder)
            rc = sf_fail(err, SF_NOMEM, "shards of earlier tries");
        else if (sf__earlier_attempts_bytes(&now, folder) <
                 (at->db_bytes > 0 ? at->db_bytes : 1)) /* a clean-up may be at it just now */
            rc = sf_fail(err, SF_NOT_FOUND,
                         "shard %lld, which an earlier try of run %s had finished, is gone: a clean-up removed it",
                         (long long)at->db_id, w->run_id);
        sf__free(w->site.rt->alloc, folder);
        sf__free(w->site.rt->alloc, name);
    }
    sf__earlier_attempts_free(&now);
    return rc;
}

/* ------------------------------------------------------------------ losers --------------------------------------- */

/* NULL: it has none below the prefix, or there is no memory; then clean-up finds it. */
static char *folder_of(sf_writer *w, const sf_attempt *at)
{
    char *folder = NULL;

    return at->db_url && sf__site_name_of(&w->site, at->db_url, &folder, NULL) == SF_OK ? folder : NULL;
}

/* One attempt's folder, which lies below the prefix, and never is the prefix itself. */
static bool delete_attempt(sf_writer *w, const sf_attempt *at, const char *folder)
{
    sf_error e = SF_ERROR_INIT;
    uint64_t count = 0;

    if (sf__site_delete_folder(&w->site, w->site.shard_store, folder, false, NULL, &count, &e) == SF_OK)
        return true;
    sf__log(&w->site.rt->log, SF_LOG_WARN, "writer", "%s could not be deleted: %s", at->db_url, e.message);
    return false;
}

/* Attempts may come from elsewhere, so their places may be anything: what lies in a winner's folder, or around it, is no
 * loser's to lose. */
static void delete_losers(sf_writer *w)
{
    const sf_allocator *a = w->site.rt->alloc;
    sf_folder_set kept = {.folders = sf__calloc(a, w->winner_count + 1, sizeof(*kept.folders))};
    bool ok = kept.folders != NULL; /* without memory clean-up finds them */
    char *folder;

    for (size_t i = 0; i < w->winner_count && ok; i++) {
        ok = sf__site_name_of(&w->site, w->winners[i].db_url, &folder, NULL) == SF_OK;
        if (folder)
            kept.folders[kept.count++] = folder;
    }
    if (ok)
        sf__folder_set_sort(&kept);
    for (size_t i = 0; i < w->attempt_count && ok; i++) {
        folder = folder_of(w, &w->attempts[i]);
        if (folder && !w->attempts[i].reused && !sf__folder_set_touches(&kept, folder) &&
            delete_attempt(w, &w->attempts[i], folder))
            w->report.losers_deleted++;
        sf__free(a, folder);
    }
    for (size_t i = 0; i < kept.count; i++)
        sf__free(a, (void *)kept.folders[i]);
    sf__free(a, (void *)kept.folders);
}

void sf__writer_delete_own(sf_writer *w)
{
    for (size_t i = 0; i < w->own_count; i++) {
        const sf_attempt *at = &w->attempts[w->own_begin + i];
        char *folder = at->reused || w->options.resume ? NULL : folder_of(w, at);

        if (folder)
            delete_attempt(w, at, folder);
        sf__free(w->site.rt->alloc, folder);
    }
    w->own_count = 0;
}

/* ------------------------------------------------------------------ all ------------------------------------------ */

/* Below the prefix. */
static sf_status publish_here(sf_writer *w, sf_error *err)
{
    char *name;
    sf_status rc = name_manifest(&name, w, err);

    if (rc != SF_OK)
        return rc;
    rc = put_manifest(w, name, err);
    if (rc == SF_OK)
        rc = move_pointer(w, name, err);
    sf__free(w->site.rt->alloc, name);
    return rc;
}

static sf_status publish_to_store(sf_writer *w, const sf_publication *what, sf_error *err)
{
    char *ref = NULL, *found = NULL;
    sf_status rc;

    /* Whoever cleans up and does not know of the store leaves a run alone whose record names a manifest that is not below the
     * prefix. Were it named only afterwards, a run that is killed in between would lose shards that are in use. */
    sf__site_lease_intend(&w->lease, w->run_id);
    rc = sf__manifest_store_publish(&w->site, what, &ref, &found, err);
    w->manifest_stored = ref != NULL;
    if (ref)
        w->report.manifest_ref = sf__arena_strndup(&w->arena, ref, strlen(ref));
    if (found)
        w->report.found_ref = sf__arena_strndup(&w->arena, found, strlen(found));
    if (ref && !w->report.manifest_ref)
        w->report.manifest_ref = w->run_id; /* no memory for its name; it must not be taken back */
    if (rc != SF_OK && !w->manifest_stored)
        sf__lease_announce(&w->lease.lease, NULL);
    sf__free(w->site.rt->alloc, ref);
    sf__free(w->site.rt->alloc, found);
    return rc;
}

/* In the caller's store, manifest and pointer at once. */
static sf_status publish_elsewhere(sf_writer *w, sf_error *err)
{
    sf_expectation expected = expectation_of(w);
    sf_publication what = {
        .size = sizeof(what), .run_id = w->run_id, .expected_current = expected.kind, .expected_ref = expected.ref};
    sf_buf *bytes;
    sf_status rc = encode_manifest(&bytes, w, err);

    if (rc != SF_OK)
        return rc;
    what.manifest = sf__buf_bytes(bytes);
    rc = sf__writer_check_cancelled(w, err);
    if (rc == SF_OK)
        rc = publish_to_store(w, &what, err);
    sf__buf_release(bytes);
    return rc;
}

static sf_status publish_winners(sf_writer *w, sf_error *err)
{
    sf_status rc = w->site.manifests ? publish_elsewhere(w, err) : publish_here(w, err);

    if (rc != SF_OK)
        return rc;
    w->report.published = true;
    sf__lease_announce(&w->lease.lease, w->report.manifest_ref);
    sf__writer_enter_phase(w, SF_PHASE_CLEANING);
    if (!w->options.keep_losers)
        delete_losers(w);
    return SF_OK;
}

sf_status sf__writer_publish(sf_writer *w, sf_error *err)
{
    uint64_t begin = sf__clock_mono_ns();
    sf_status rc;

    sf__writer_enter_phase(w, SF_PHASE_CHECKING);
    rc = choose_winners(w, err);
    if (rc == SF_OK) {
        measure_winners(w);
        sf_writer_report(w); /* for the caller's own check */
        rc = sf__writer_check_gate(w, err);
    }
    if (rc == SF_OK)
        rc = check_expectation(w, err);
    if (rc == SF_OK && sf__site_lease_has_lapsed(&w->lease))
        rc = sf__writer_find_shards(w, w->winners, w->winner_count, err);
    if (rc == SF_OK)
        rc = find_resumed(w, err);
    if (rc == SF_OK) {
        sf__writer_enter_phase(w, SF_PHASE_PUBLISHING);
        rc = publish_winners(w, err);
    }
    w->report.publishing_ms = (int64_t)((sf__clock_mono_ns() - begin) / 1000000);
    return rc;
}
