/* Removing what writers left behind (docs/formats/snapshot.md 13). */
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/grow.h"
#include "base/options.h"
#include "snapshot/names.h"
#include "store/file.h"
#include "writer/cleanup_facts.h"
#include "writer/maintenance.h"
#include "writer/manifest_store.h"
#include "writer/pointer.h"
#include "writer/rerun.h"
#include "writer/site_open.h"

/* More than clocks that are set over a network differ by. */
#define CLOCK_DIFFERS_S 60

struct sf_cleanup_report {
    sf_runtime *rt; /* acquired */
    sf_arena arena; /* all texts */
    sf_leftover *leftovers;
    size_t count, cap;
    sf_error warning; /* SF_OK: none */
};

struct cleanup {
    const sf_site *site;
    const sf_cleanup_options *options;
    sf_cleanup_facts facts;
    sf_cleanup_report *report;
    int64_t now_us;
    sf_error *err;
};

/* ------------------------------------------------------------------ report --------------------------------------- */

static sf_cleanup_report *report_new(sf_runtime *rt)
{
    sf_cleanup_report *r = sf__calloc(rt->alloc, 1, sizeof(*r));

    if (!r)
        return NULL;
    r->rt = sf_runtime_acquire(rt);
    sf__arena_init(&r->arena, rt->alloc);
    r->warning = (sf_error)SF_ERROR_INIT;
    return r;
}

void sf_cleanup_report_free(sf_cleanup_report *r)
{
    sf_runtime *rt;

    if (!r)
        return;
    rt = r->rt;
    sf__arena_cleanup(&r->arena);
    sf__free(rt->alloc, r->leftovers);
    sf__free(rt->alloc, r);
    sf_runtime_release(rt);
}

const sf_leftover *sf_cleanup_leftovers(const sf_cleanup_report *r, size_t *count)
{
    *count = r->count;
    return r->leftovers;
}

const char *sf_cleanup_warning(const sf_cleanup_report *r)
{
    return r->warning.code != SF_OK ? r->warning.message : NULL;
}

/* The first one stays. */
static void warn(struct cleanup *c, const char *what, const sf_error *why)
{
    sf_error *w = &c->report->warning;

    if (w->code != SF_OK)
        return;
    *w = *why;
    sf_error_prefix(w, why->code, "unfinished uploads could not be %s: ", what);
}

/* The store's clock counts; who is told so can set this one. */
static void warn_of_clock(struct cleanup *c)
{
    sf_error *w = &c->report->warning;
    int64_t ahead_us = atomic_load_explicit(&c->site->store->ahead_us, memory_order_relaxed);
    long long ahead_s = (ahead_us + (ahead_us < 0 ? -500000 : 500000)) / 1000000;

    if (w->code == SF_OK && (ahead_s > CLOCK_DIFFERS_S || ahead_s < -CLOCK_DIFFERS_S))
        sf_fail(w, SF_STATE, "the clock of this machine is %lld s %s that of %s, by which ages were told",
                llabs(ahead_s), ahead_s > 0 ? "behind" : "ahead of", c->site->store->url);
}

/* Noted before anything is deleted, so that the report never lacks what is gone. Takes over `url`, which may be NULL. */
static sf_leftover *note_url(struct cleanup *c, sf_leftover_kind kind, const char *run_id, char *url)
{
    sf_cleanup_report *r = c->report;
    sf_leftover l = {.kind = kind};

    l.url = url ? sf__arena_strndup(&r->arena, url, strlen(url)) : NULL;
    l.run_id = sf__arena_strndup(&r->arena, run_id, strlen(run_id));
    sf__free(r->rt->alloc, url);
    if (!l.url || !l.run_id || !SF_RESERVE(r->rt->alloc, &r->leftovers, &r->cap, r->count + 1)) {
        sf_fail(c->err, SF_NOMEM, "clean-up report");
        return NULL;
    }
    r->leftovers[r->count] = l;
    return &r->leftovers[r->count++];
}

static sf_leftover *note(struct cleanup *c, sf_leftover_kind kind, const char *run_id, const char *folder)
{
    return note_url(c, kind, run_id, sf__site_url(c->site, folder));
}

static void tell(const struct cleanup *c, const sf_leftover *l)
{
    if (c->options->progress)
        c->options->progress(c->options->progress_ctx, l);
}

/* ------------------------------------------------------------------ deleting ------------------------------------- */

/* A folder with its slash. Where nothing lies, nothing is noted. */
static sf_status remove_folder(struct cleanup *c, sf_leftover_kind kind, const char *run_id, const char *folder,
                               const sf_store_listing *objects)
{
    sf_store *store = kind == SF_LEFTOVER_ATTEMPT || kind == SF_LEFTOVER_RUN ? c->site->shard_store : c->site->store;
    size_t n = strlen(folder);
    uint64_t count = 0;
    sf_leftover *l;
    sf_status rc = SF_OK;

    for (size_t i = 0; i < objects->entry_count; i++)
        count += strncmp(objects->entries[i].key, folder, n) == 0;
    if (count == 0)
        return SF_OK;
    l = note(c, kind, run_id, folder);
    if (!l)
        return SF_NOMEM;
    l->objects = count;
    tell(c, l);
    if (c->options->dry_run)
        return SF_OK;
    l->objects = 0;
    rc = sf__site_delete_listed(c->site, store, objects, folder, NULL, &l->objects, c->err);
    l->deleted = rc == SF_OK;
    tell(c, l);
    return rc;
}

/* What was decided holds for the run as it was then. A scheduler repeats one under its id, in the same folders, and the new writer's
 * record is there before anything else of it: so what was listed before this look is not its, or the record is seen. */
static sf_status look_again(const struct cleanup *c, const char *run_id, bool *begun_again)
{
    sf_status rc;

    *begun_again = false;
    if (c->options->dry_run || c->options->ignore_leases)
        return SF_OK;
    rc = sf__rerun_check_lease(c->site, c->options->run_registry_prefix, run_id, NULL, c->err);
    if (rc != SF_CONFLICT)
        return rc;
    *begun_again = true;
    sf_error_clear(c->err);
    return SF_OK;
}

/* *left: it stays, since the run has begun again. */
static sf_status list_and_remove(struct cleanup *c, sf_leftover_kind kind, const char *run_id, const char *folder,
                                 bool *left)
{
    sf_store *store = kind == SF_LEFTOVER_RUN ? c->site->shard_store : c->site->store;
    char *without_slash = sf__strndup(c->site->rt->alloc, folder, strlen(folder) - 1);
    sf_store_listing l;
    sf_status rc;

    if (!without_slash)
        return sf_fail(c->err, SF_NOMEM, "clean-up");
    rc = sf__site_list(c->site, store, without_slash, NULL, NULL, &l, c->err);
    sf__free(c->site->rt->alloc, without_slash);
    if (rc != SF_OK)
        return rc;
    *left = false;
    if (kind == SF_LEFTOVER_RUN)
        rc = look_again(c, run_id, left);
    if (rc == SF_OK && !*left)
        rc = remove_folder(c, kind, run_id, folder, &l);
    sf__store_listing_cleanup(&l);
    return rc;
}

/* Of a caller's store. */
static sf_status remove_stored_manifest(struct cleanup *c, const sf_manifest_fact *m)
{
    const sf_manifest_store *store = c->site->manifests;
    sf_error e = SF_ERROR_INIT;
    sf_leftover *l =
        note_url(c, SF_LEFTOVER_MANIFEST, m->run_id, sf__asprintf(c->site->rt->alloc, "%s#%s", store->name, m->ref));
    sf_status rc;

    if (!l)
        return SF_NOMEM;
    l->objects = 1;
    tell(c, l);
    if (c->options->dry_run)
        return SF_OK;
    rc = store->delete_manifest(store->ctx, m->ref, &e);
    l->deleted = rc == SF_OK;
    l->objects = l->deleted;
    tell(c, l);
    if (rc != SF_OK)
        *c->err = e;
    return rc == SF_CONFLICT ? sf_error_prefix(c->err, rc, "the pointer moved during the clean-up; run it again: ") : rc;
}

/* The uploads in a folder (with slash). Readers see nothing of them, a writer that lives loses what it has sent. */
static sf_status abort_uploads(struct cleanup *c, const char *run_id, const char *folder)
{
    const sf_site_uploads *all = &c->facts.uploads;
    size_t n = strlen(folder), first = 0, end = all->count;
    sf_leftover *l;

    while (first < end) { /* the first that is not before `folder` in order: those inside begin with it */
        size_t middle = first + (end - first) / 2;

        if (strcmp(all->uploads[middle].key, folder) < 0)
            first = middle + 1;
        else
            end = middle;
    }
    for (end = first; end < all->count && strncmp(all->uploads[end].key, folder, n) == 0;)
        end++;
    if (first == end)
        return SF_OK;
    l = note(c, SF_LEFTOVER_UPLOAD, run_id, folder);
    if (!l)
        return SF_NOMEM;
    l->objects = end - first;
    tell(c, l);
    for (size_t i = first; i < end && c->options->dry_run; i++)
        all->uploads[i].id[0] = '\0'; /* not to be counted again */
    if (!c->options->dry_run)
        l->objects = 0;
    for (size_t i = first; i < end && !c->options->dry_run; i++, l->objects++) {
        sf_error e = SF_ERROR_INIT;
        sf_status rc = sf__site_abort_upload(c->site, c->site->shard_store, all->uploads[i].key, all->uploads[i].id, &e);

        if (sf_status_is_retryable(rc)) {
            *c->err = e;
            return rc;
        }
        if (rc != SF_OK) {
            warn(c, "aborted", &e);
            l->objects = end - first;
            return SF_OK;
        }
        all->uploads[i].id[0] = '\0';
    }
    l->deleted = !c->options->dry_run;
    if (l->deleted)
        tell(c, l);
    return SF_OK;
}

/* What was decided holds for the pointer as it was then. */
static sf_status check_pointer(struct cleanup *c)
{
    const sf_pointer *before = &c->facts.pointer;
    sf_pointer now;
    bool same;
    sf_status rc = sf__pointer_load(c->site, NULL, &now, c->err);

    if (rc != SF_OK)
        return rc;
    same = now.exists == before->exists && now.parsed == before->parsed &&
           (!now.exists || sf__pointer_names(c->site, &now, before->current.manifest_ref));
    sf__pointer_cleanup(c->site, &now);
    return same ? SF_OK : sf_fail(c->err, SF_CONFLICT, "the pointer moved during the clean-up; run it again");
}

/* ------------------------------------------------------------------ stale attempts ------------------------------- */

/* "shards/run_id=X/some/where/attempt=01/" of an object in it; 0 when it lies in no attempt. */
static size_t attempt_length(const char *key, size_t begin)
{
    static const char mark[] = "attempt=";

    for (const char *p = key + begin; *p;) {
        size_t n = strcspn(p, "/");

        if (p[n] == '/' && strncmp(p, mark, sizeof(mark) - 1) == 0 && n >= sizeof(mark) &&
            strspn(p + sizeof(mark) - 1, "0123456789") == n - (sizeof(mark) - 1))
            return (size_t)(p - key) + n + 1;
        p += n + (p[n] == '/');
    }
    return 0;
}

/* The folder of the next attempt in order; false when the key lies in none, or in the one before. */
static bool next_attempt(const char *key, size_t begin, char folder[4096])
{
    size_t n = attempt_length(key, begin);

    if (n == 0 || n >= 4096 || (strncmp(folder, key, n) == 0 && folder[n] == '\0'))
        return false;
    memcpy(folder, key, n);
    folder[n] = '\0';
    return true;
}

static sf_status abort_attempts(struct cleanup *c, const sf_run_fact *run, const char *run_folder)
{
    const sf_site_uploads *all = &c->facts.uploads;
    size_t begin = strlen(run_folder);
    char folder[4096] = "";
    sf_status rc = SF_OK;

    for (size_t i = 0; i < all->count && rc == SF_OK; i++)
        if (strncmp(all->uploads[i].key, run_folder, begin) == 0 && next_attempt(all->uploads[i].key, begin, folder) &&
            !sf__cleanup_holds_kept(&c->facts, folder))
            rc = abort_uploads(c, run->run_id, folder);
    return rc;
}

static sf_status remove_attempts(struct cleanup *c, const sf_run_fact *run, const sf_store_listing *l, size_t begin)
{
    char folder[4096] = "";
    bool looked = false, begun_again = false;
    sf_status rc = SF_OK;

    for (size_t i = 0; i < l->entry_count && rc == SF_OK && !begun_again; i++) {
        if (!next_attempt(l->entries[i].key, begin, folder) || sf__cleanup_holds_kept(&c->facts, folder))
            continue;
        if (!looked)
            rc = look_again(c, run->run_id, &begun_again);
        looked = true;
        if (rc == SF_OK && !begun_again)
            rc = remove_folder(c, SF_LEFTOVER_ATTEMPT, run->run_id, folder, l);
    }
    return rc;
}

static sf_status clean_attempts(struct cleanup *c, const sf_run_fact *run)
{
    char *folder = sf__asprintf(c->site->rt->alloc, "%s/run_id=%s/", c->options->shard_prefix, run->run_id);
    sf_store_listing l;
    size_t n;
    sf_status rc;

    if (!folder)
        return sf_fail(c->err, SF_NOMEM, "clean-up");
    n = strlen(folder);
    rc = abort_attempts(c, run, folder);
    folder[n - 1] = '\0';
    if (rc == SF_OK)
        rc = sf__site_list(c->site, c->site->shard_store, folder, NULL, NULL, &l, c->err);
    if (rc == SF_OK) {
        rc = remove_attempts(c, run, &l, n);
        sf__store_listing_cleanup(&l);
    }
    sf__free(c->site->rt->alloc, folder);
    return rc;
}

/* ------------------------------------------------------------------ runs ----------------------------------------- */

static bool is_alive(const struct cleanup *c, const sf_run_fact *run)
{
    return run->is_live && !c->options->ignore_leases;
}

static bool is_given_up(const struct cleanup *c, const sf_run_fact *run)
{
    if (run->is_named || is_alive(c, run))
        return false;
    if (run->has_unread_record && !c->options->unrecorded_runs)
        return false;
    if (run->record_count == 0 && !run->lost_manifest && !c->options->unrecorded_runs)
        return false; /* nobody knows its age, or whether it goes on */
    return (c->now_us - run->last_sign_us) / 1000 >= c->options->min_age_ms;
}

/* Manifests, then uploads (one that is completed meanwhile is data), then data, then records: cut short anywhere, what
 * is left is found again. */
static sf_status clean_run(struct cleanup *c, const sf_run_fact *run)
{
    bool left = false;
    char *folder;
    sf_status rc = c->options->dry_run ? SF_OK : check_pointer(c);

    for (size_t i = 0; i < c->facts.manifest_count && rc == SF_OK; i++)
        if (c->facts.manifests[i].given_up && c->facts.manifests[i].run_id == run->run_id)
            rc = c->site->manifests
                     ? remove_stored_manifest(c, &c->facts.manifests[i])
                     : list_and_remove(c, SF_LEFTOVER_MANIFEST, run->run_id, c->facts.manifests[i].folder, &left);
    if (rc != SF_OK || !is_given_up(c, run)) /* a manifest that stays may use shards of this run */
        return rc;
    folder = sf__asprintf(c->site->rt->alloc, "%s/run_id=%s/", c->options->shard_prefix, run->run_id);
    rc = folder ? abort_uploads(c, run->run_id, folder) : sf_fail(c->err, SF_NOMEM, "clean-up");
    if (rc == SF_OK)
        rc = list_and_remove(c, SF_LEFTOVER_RUN, run->run_id, folder, &left);
    sf__free(c->site->rt->alloc, folder);
    for (size_t i = 0; i < run->record_count && rc == SF_OK && !left; i++)
        rc = list_and_remove(c, SF_LEFTOVER_RUN_RECORD, run->run_id, run->records[i], &left);
    return rc;
}

/* ------------------------------------------------------------------ what killed puts left ------------------------ */

/* Of files only: a bucket does not show what was never stored. */
static bool is_killed_put(const struct cleanup *c, const sf_store_upload *u)
{
    const int64_t abandoned_ms = SF_FILE_ABANDONED_S * INT64_C(1000);
    int64_t age_ms = (c->now_us - u->begun_us) / 1000;

    return strncmp(u->id, SF_FILE_TEMPORARY_ID, strlen(SF_FILE_TEMPORARY_ID)) == 0 && age_ms > abandoned_ms &&
           age_ms >= c->options->min_age_ms;
}

/* Length of the folder with its slash; 0: the prefix itself. */
static size_t folder_length(const char *key)
{
    const char *slash = strrchr(key, '/');

    return slash ? (size_t)(slash - key) + 1 : 0;
}

/* Those in the folder of the first, which stand together in order: all are named alike. *end: the first of another. */
static sf_status abort_puts(struct cleanup *c, size_t first, size_t *end)
{
    const sf_store_upload *u = c->facts.uploads.uploads;
    size_t n = folder_length(u[first].key);
    char *folder = sf__strndup(c->site->rt->alloc, u[first].key, n);
    sf_leftover *l = folder ? note(c, SF_LEFTOVER_UPLOAD, "", folder) : NULL;
    sf_status rc = SF_OK;

    sf__free(c->site->rt->alloc, folder);
    if (!l)
        return sf_fail(c->err, SF_NOMEM, "clean-up");
    for (*end = first;
         *end < c->facts.uploads.count && folder_length(u[*end].key) == n && strncmp(u[*end].key, u[first].key, n) == 0;
         ++*end)
        l->objects += is_killed_put(c, &u[*end]);
    tell(c, l);
    if (c->options->dry_run)
        return SF_OK;
    l->objects = 0;
    for (size_t i = first; i < *end && rc == SF_OK; i++) {
        if (!is_killed_put(c, &u[i]))
            continue;
        rc = sf__site_abort_upload(c->site, c->site->store, u[i].key, u[i].id, c->err);
        l->objects += rc == SF_OK;
    }
    l->deleted = rc == SF_OK;
    tell(c, l);
    return rc;
}

static sf_status clean_puts(struct cleanup *c)
{
    sf_status rc = SF_OK;

    for (size_t i = 0, end; i < c->facts.uploads.count && rc == SF_OK; i = end) {
        end = i + 1;
        if (is_killed_put(c, &c->facts.uploads.uploads[i]))
            rc = abort_puts(c, i, &end);
    }
    return rc;
}

/* ------------------------------------------------------------------ all ------------------------------------------ */

static sf_status clean(struct cleanup *c)
{
    sf_status rc = SF_OK;

    for (size_t i = 0; i < c->facts.run_count && rc == SF_OK; i++) {
        const sf_run_fact *run = &c->facts.runs[i];

        if (c->options->old_runs && (run->lost_manifest || is_given_up(c, run)))
            rc = clean_run(c, run);
        if (rc == SF_OK && c->options->stale_attempts && run->is_named && !run->is_opaque && run->has_shards &&
            !is_alive(c, run))
            rc = clean_attempts(c, run);
    }
    return rc == SF_OK ? clean_puts(c) : rc;
}

/* ------------------------------------------------------------------ public --------------------------------------- */

static sf_status check_options(const sf_cleanup_options *o, sf_error *err)
{
    sf_status rc = sf__prefix_segment_check("output.shard_prefix", o->shard_prefix ? o->shard_prefix : "", err);

    if (rc == SF_OK)
        rc = sf__prefix_segment_check("output.run_registry_prefix",
                                      o->run_registry_prefix ? o->run_registry_prefix : "", err);
    if (rc == SF_OK && o->min_age_ms < 0)
        rc = sf_fail(err, SF_INVALID, "min_age must not be negative");
    return rc;
}

sf_status sf__cleanup_on(sf_cleanup_report **out, const sf_site *s, const sf_cleanup_options *opts, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    struct cleanup c = {.site = s, .options = opts, .err = &e};
    sf_status rc = check_options(opts, err);

    if (rc != SF_OK)
        return rc;
    c.report = report_new(s->rt);
    if (!c.report)
        return sf_fail(err, SF_NOMEM, "clean-up report");
    rc = sf__cleanup_gather(&c.facts, s, opts, &c.now_us, &e);
    if (rc == SF_OK) {
        if (c.facts.uploads_error.code != SF_OK)
            warn(&c, "listed", &c.facts.uploads_error);
        warn_of_clock(&c);
        rc = clean(&c);
        sf__cleanup_facts_free(&c.facts, s);
    }
    if (rc != SF_OK && err)
        *err = e;
    *out = c.report;
    return rc;
}

sf_status sf_cleanup(sf_cleanup_report **out, sf_runtime *rt, const char *prefix, const sf_cleanup_options *opts,
                     sf_error *err)
{
    sf_cleanup_options o = SF_CLEANUP_OPTIONS_INIT;
    sf_manifest_store manifests = {0};
    sf_site site;
    sf_status rc = sf__options_take(&o, sizeof(o), opts, "clean-up options", err);

    *out = NULL;
    if (rc == SF_OK)
        rc = sf__site_open(&site, rt, prefix, &o.site, err);
    if (rc != SF_OK)
        return rc;
    if (o.manifests)
        rc = sf__manifest_store_copy(&manifests, o.manifests, err);
    site.manifests = o.manifests ? &manifests : NULL;
    if (rc == SF_OK)
        rc = sf__cleanup_on(out, &site, &o, err);
    sf__manifest_store_release(&manifests);
    sf__site_cleanup(&site);
    return rc;
}
