#include "writer/cleanup_facts.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/grow.h"
#include "base/limits.h"
#include "snapshot/relocation.h"
#include "snapshot/run_record.h"
#include "writer/manifest_store.h"
#include "writer/site_lease.h"
#include "writer/pointer.h"
#include "writer/site_open.h"

static sf_status fail_nomem(sf_error *err)
{
    return sf_fail(err, SF_NOMEM, "clean-up");
}

/* ------------------------------------------------------------------ runs ----------------------------------------- */

static int compare_run(const void *key, const void *run)
{
    return strcmp(key, ((const sf_run_fact *)run)->run_id);
}

sf_run_fact *sf__cleanup_find_run(const sf_cleanup_facts *f, const char *run_id)
{
    return f->run_count > 0 ? bsearch(run_id, f->runs, f->run_count, sizeof(*f->runs), compare_run) : NULL;
}

/* Found or made, at its place. NULL without memory. Moves the others. */
static sf_run_fact *run_of(sf_cleanup_facts *f, const sf_site *s, const char *run_id, size_t n)
{
    const char *copy = sf__arena_strndup(&f->arena, run_id, n);
    sf_run_fact *found = copy ? sf__cleanup_find_run(f, copy) : NULL;
    size_t at = f->run_count;

    if (found || !copy)
        return found;
    if (!SF_RESERVE(s->rt->alloc, &f->runs, &f->run_cap, f->run_count + 1))
        return NULL;
    while (at > 0 && strcmp(f->runs[at - 1].run_id, copy) > 0)
        at--;
    memmove(f->runs + at + 1, f->runs + at, (f->run_count - at) * sizeof(*f->runs));
    f->runs[at] = (sf_run_fact){.run_id = copy};
    f->run_count++;
    return &f->runs[at];
}

static void see_sign(sf_run_fact *run, int64_t us)
{
    if (us > run->last_sign_us)
        run->last_sign_us = us;
}

/* ------------------------------------------------------------------ run records ---------------------------------- */

static bool add_record(sf_cleanup_facts *f, sf_run_fact *run, const char *folder)
{
    size_t n = run->record_count;
    const char **more = sf__arena_alloc(&f->arena, (n + 1) * sizeof(*more));

    if (!more)
        return false;
    if (n > 0)
        memcpy(more, run->records, n * sizeof(*more));
    more[n] = folder;
    run->records = more;
    run->record_count++;
    return true;
}

/* Of a caller's store all but locations, and of those what it lists. */
static bool is_elsewhere(const sf_site *s, const char *ref)
{
    char *name = NULL;
    sf_status rc = sf__manifest_locate(s, ref, &name, NULL);

    sf__free(s->rt->alloc, name);
    return s->manifests ? rc != SF_BAD_MANIFEST : rc != SF_OK;
}

/* A run that failed may name a manifest that it stored; its snapshot was not announced all the same. One that names a
 * manifest which is not ours was published through another store, which alone knows whether its shards are in use. */
static bool learn_record(sf_cleanup_facts *f, const sf_site *s, sf_run_fact *run, const sf_run_record *r, int64_t now_us)
{
    run->is_live = run->is_live || sf__run_record_is_live(r, now_us);
    run->announced = run->announced || r->status == SF_RUN_SUCCEEDED ||
                     (r->status == SF_RUN_RUNNING && r->manifest_ref && !s->manifests); /* there it may only be intended */
    see_sign(run, r->updated_at_us);
    see_sign(run, r->lease_expires_at_us < now_us ? r->lease_expires_at_us : now_us);
    if (r->manifest_ref && s->manifests && r->status == SF_RUN_SUCCEEDED && !is_elsewhere(s, r->manifest_ref)) {
        run->claimed = sf__arena_strndup(&f->arena, r->manifest_ref, strlen(r->manifest_ref));
        return run->claimed != NULL;
    }
    if (!r->manifest_ref || !is_elsewhere(s, r->manifest_ref))
        return true;
    if (run->elsewhere && strcmp(run->elsewhere, r->manifest_ref) != 0)
        run->is_named = run->is_opaque = true;
    run->elsewhere = sf__arena_strndup(&f->arena, r->manifest_ref, strlen(r->manifest_ref));
    return run->elsewhere != NULL;
}

static sf_status read_record(sf_cleanup_facts *f, const sf_site *s, sf_run_fact *run, const char *folder,
                             int64_t now_us, sf_error *err)
{
    char *name = sf__asprintf(s->rt->alloc, "%s" SF_RUN_RECORD_NAME, folder);
    sf_buf *bytes = NULL;
    sf_run_record r;
    sf_status rc;

    if (!name)
        return fail_nomem(err);
    rc = sf__site_get(s, name, SF_LIMIT_RUN_RECORD_BYTES, NULL, &bytes, NULL, err);
    sf__free(s->rt->alloc, name);
    if (rc == SF_OK)
        rc = sf__run_record_parse(&r, &f->arena, sf__buf_bytes(bytes), err);
    sf__buf_release(bytes);
    if (rc == SF_OK && !learn_record(f, s, run, &r, now_us))
        return fail_nomem(err);
    if (rc == SF_CORRUPT || rc == SF_NOT_FOUND) { /* an unknown run, which is not the same as a dead one */
        run->has_unread_record = true;
        sf_error_clear(err);
        return SF_OK;
    }
    return rc;
}

static sf_status gather_records(sf_cleanup_facts *f, const sf_site *s, const char *registry, int64_t now_us, sf_error *err)
{
    sf_store_listing l;
    sf_status rc = sf__site_list(s, s->store, registry, "/", NULL, &l, err);

    if (rc != SF_OK)
        return rc;
    for (size_t i = 0; i < l.entry_count && rc == SF_OK; i++) {
        const char *folder;
        sf_run_fact *run;
        sf_bytes id;

        if (!l.entries[i].is_prefix || !sf__run_folder_parse(l.entries[i].key, &id, NULL))
            continue; /* somebody else's */
        folder = sf__arena_strndup(&f->arena, l.entries[i].key, strlen(l.entries[i].key));
        run = folder ? run_of(f, s, (const char *)id.p, id.n) : NULL;
        rc = run && add_record(f, run, folder) ? read_record(f, s, run, folder, now_us, err) : fail_nomem(err);
    }
    sf__store_listing_cleanup(&l);
    return rc;
}

/* ------------------------------------------------------------------ manifests ------------------------------------ */

/* Where a manifest below the prefix lies. */
static sf_status find_folder(sf_cleanup_facts *f, const sf_site *s, sf_manifest_fact *m, sf_error *err)
{
    char *name;
    sf_status rc = sf__site_name_of(s, m->ref, &name, err);

    m->folder = name ? sf__arena_strndup(&f->arena, name, strlen(name) - strlen("manifest")) : NULL;
    sf__free(s->rt->alloc, name);
    return rc == SF_OK && !m->folder ? fail_nomem(err) : rc;
}

static sf_status gather_manifests(sf_cleanup_facts *f, const sf_site *s, sf_error *err)
{
    sf_manifest_ref *refs;
    size_t count;
    sf_status rc = sf__manifest_list(s, SIZE_MAX, NULL, &refs, &count, err);

    if (rc != SF_OK)
        return rc;
    f->manifests = sf__arena_alloc(&f->arena, (count > 0 ? count : 1) * sizeof(*f->manifests));
    if (!f->manifests)
        rc = fail_nomem(err);
    for (size_t i = 0; i < count && rc == SF_OK; i++) {
        sf_manifest_fact m = {.published_at_us = refs[i].published_at_us};
        sf_run_fact *run = run_of(f, s, refs[i].run_id, strlen(refs[i].run_id));

        m.ref = sf__arena_strndup(&f->arena, refs[i].ref, strlen(refs[i].ref));
        rc = !run || !m.ref ? fail_nomem(err) : s->manifests ? SF_OK : find_folder(f, s, &m, err);
        if (rc != SF_OK)
            break;
        if (run->elsewhere && strcmp(run->elsewhere, m.ref) == 0)
            run->elsewhere = NULL;
        if (run->claimed && strcmp(run->claimed, m.ref) == 0)
            run->claimed = NULL;
        m.run_id = run->run_id;
        m.is_current = sf__pointer_names(s, &f->pointer, m.ref);
        see_sign(run, m.published_at_us);
        f->manifests[f->manifest_count++] = m;
    }
    sf__manifest_refs_free(refs, count, s->rt->alloc);
    return rc;
}

/* Newer than what the pointer names, by a writer that died or failed before it said a word about it: it was never
 * announced, and the next fallback must not find it. */
static bool is_unannounced(const sf_cleanup_facts *f, size_t index)
{
    const sf_run_fact *run = sf__cleanup_find_run(f, f->manifests[index].run_id);

    if (!f->manifests[index].folder || !run || run->record_count == 0 || run->has_unread_record || run->announced)
        return false; /* a caller's store has a manifest and moves the pointer at once */
    for (size_t i = index + 1; i < f->manifest_count; i++)
        if (f->manifests[i].is_current)
            return true;
    return false;
}

static bool is_given_up(const sf_cleanup_facts *f, const sf_site *s, size_t index, const sf_cleanup_options *o,
                        int64_t now_us)
{
    const sf_manifest_fact *m = &f->manifests[index];
    const sf_run_fact *run = sf__cleanup_find_run(f, m->run_id);
    int64_t age_ms = (now_us - m->published_at_us) / 1000;

    if (s->manifests && !s->manifests->delete_manifest)
        return false;
    if (!o->old_runs || m->is_current || age_ms < o->min_age_ms || (run->is_live && !o->ignore_leases))
        return false;
    if (is_unannounced(f, index))
        return true;
    if (o->keep_last == 0 && o->older_than_ms < 0)
        return false;
    return (o->keep_last == 0 || index >= o->keep_last) && (o->older_than_ms < 0 || age_ms > o->older_than_ms);
}

/* ------------------------------------------------------------------ what stays ----------------------------------- */

static sf_status keep_folder(sf_cleanup_facts *f, const sf_site *s, const char *folder, sf_error *err)
{
    size_t n = strlen(folder);
    char *copy;

    if (!SF_RESERVE(s->rt->alloc, &f->kept_folders, &f->kept_cap, f->kept_count + 1))
        return fail_nomem(err);
    copy = sf__arena_alloc(&f->arena, n + 2);
    if (!copy)
        return fail_nomem(err);
    memcpy(copy, folder, n);
    memcpy(copy + n, "/", 2);
    f->kept_folders[f->kept_count++] = copy;
    return SF_OK;
}

/* Where any reader looks for it: of a snapshot that was copied here those that relocate do so here. */
static sf_status keep_shard(sf_cleanup_facts *f, const sf_site *s, const sf_snapshot_manifest *m, const char *db_url,
                            sf_error *err)
{
    sf_status rc = SF_OK;

    for (int relocate = 0; relocate < 2 && rc == SF_OK; relocate++) {
        char *folder;

        rc = sf__shard_locate(s, m, db_url, relocate, &folder, err);
        if (rc == SF_OK && folder)
            rc = keep_folder(f, s, folder, err);
        sf__free(s->rt->alloc, folder);
    }
    return rc;
}

/* `run`: of the manifest's name; NULL for what the pointer names, which must be read. */
static sf_status keep_shards(sf_cleanup_facts *f, const sf_site *s, const char *ref, sf_run_fact *run, sf_error *err)
{
    sf_snapshot_manifest *m;
    sf_error e = SF_ERROR_INIT;
    sf_status rc = sf__manifest_load(s, ref, NULL, &m, &e);

    if (rc == SF_OK) {
        if (!run && s->manifests && !sf__location_same(m->s3_prefix, s->prefix))
            rc = sf_fail(&e, SF_INVALID, "%s names a snapshot of %s: nothing of %s is deleted by what it says",
                         s->manifests->name, m->s3_prefix, s->prefix);
        for (size_t i = 0; i < m->shard_count && rc == SF_OK; i++)
            rc = keep_shard(f, s, m, m->shards[i].db_url, &e);
        sf__snapshot_manifest_free(m);
    }
    if (rc == SF_OK)
        return SF_OK;
    if (run && (rc == SF_BAD_MANIFEST || rc == SF_NOT_FOUND || rc == SF_UNSUPPORTED)) {
        run->is_opaque = true; /* no reader can open it either; its run stays by its name */
        return SF_OK;
    }
    if (err)
        *err = e;
    return rc;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A store that has never heard of what was published here is another one's. */
static sf_status check_store(const sf_cleanup_facts *f, const sf_site *s, sf_error *err)
{
    if (!s->manifests || f->pointer.exists)
        return SF_OK;
    for (size_t i = 0; i < f->run_count; i++)
        if (f->runs[i].announced && !f->runs[i].elsewhere)
            return sf_fail(err, SF_INVALID,
                           "%s names no snapshot, and run %s was published from %s: nothing is deleted by what it says",
                           s->manifests->name, f->runs[i].run_id, s->prefix);
    return SF_OK;
}

/* As many as a caller's store likes may be missing in its list. What it has published it is asked for by name, before the shards go. */
static sf_status ask_for_claimed(sf_cleanup_facts *f, const sf_site *s, sf_run_fact *run, sf_error *err)
{
    sf_snapshot_manifest *m;
    sf_error e = SF_ERROR_INIT;
    sf_status rc = sf__manifest_load(s, run->claimed, NULL, &m, &e);

    if (rc == SF_NOT_FOUND) /* given up, by a clean-up that got no further, or by somebody else */
        return SF_OK;
    if (rc == SF_OK)
        sf__snapshot_manifest_free(m);
    run->is_named = true;
    return keep_shards(f, s, run->claimed, run, err);
}

/* A caller's store may have manifests of other prefixes: these are not for us to give up. */
static sf_status leave_others(sf_cleanup_facts *f, const sf_site *s, sf_manifest_fact *fact, sf_error *err)
{
    sf_run_fact *run = sf__cleanup_find_run(f, fact->run_id);
    sf_snapshot_manifest *m;
    sf_error e = SF_ERROR_INIT;
    sf_status rc = sf__manifest_load(s, fact->ref, NULL, &m, &e);

    if (rc == SF_OK && !sf__location_same(m->s3_prefix, s->prefix)) {
        fact->given_up = false;
        run->is_opaque = true;
    }
    if (rc == SF_OK)
        sf__snapshot_manifest_free(m);
    if (rc == SF_OK || rc == SF_BAD_MANIFEST || rc == SF_NOT_FOUND || rc == SF_UNSUPPORTED)
        return SF_OK;
    if (err)
        *err = e;
    return rc;
}

static sf_status gather_kept(sf_cleanup_facts *f, const sf_site *s, const sf_cleanup_options *o, int64_t now_us,
                             sf_error *err)
{
    sf_status rc = SF_OK;

    for (size_t i = 0; i < f->run_count; i++)
        if (f->runs[i].elsewhere)
            f->runs[i].is_named = f->runs[i].is_opaque = true;
    for (size_t i = 0; i < f->run_count && rc == SF_OK; i++)
        if (f->runs[i].claimed)
            rc = ask_for_claimed(f, s, &f->runs[i], err);
    for (size_t i = 0; i < f->manifest_count && rc == SF_OK; i++) {
        f->manifests[i].given_up = is_given_up(f, s, i, o, now_us);
        if (f->manifests[i].given_up && s->manifests)
            rc = leave_others(f, s, &f->manifests[i], err);
    }
    for (size_t i = 0; i < f->manifest_count && rc == SF_OK; i++) {
        sf_run_fact *run = sf__cleanup_find_run(f, f->manifests[i].run_id);

        if (f->manifests[i].given_up) {
            run->lost_manifest = true;
            continue;
        }
        run->is_named = true;
        if (!f->manifests[i].is_current)
            rc = keep_shards(f, s, f->manifests[i].ref, run, err);
    }
    if (rc == SF_OK && f->pointer.exists)
        rc = keep_shards(f, s, f->pointer.current.manifest_ref, NULL, err);
    if (rc == SF_OK && f->kept_count > 1)
        qsort((void *)f->kept_folders, f->kept_count, sizeof(*f->kept_folders), by_text);
    return rc;
}

bool sf__cleanup_holds_kept(const sf_cleanup_facts *f, const char *folder)
{
    size_t low = 0, high = f->kept_count;

    while (low < high) { /* the first that is not below `folder` in order: those inside begin with it */
        size_t middle = low + (high - low) / 2;

        if (strcmp(f->kept_folders[middle], folder) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < f->kept_count && strncmp(f->kept_folders[low], folder, strlen(folder)) == 0;
}

/* ------------------------------------------------------------------ shards --------------------------------------- */

/* The id in a name below the shard prefix: "run_id=X/..." */
static bool run_id_of_shard(const char *name, sf_bytes *out)
{
    static const char mark[] = "run_id=";
    size_t n = strcspn(name, "/");

    if (name[n] != '/' || n < sizeof(mark) || strncmp(name, mark, sizeof(mark) - 1) != 0)
        return false;
    *out = sf_bytes_of(name + sizeof(mark) - 1, n - (sizeof(mark) - 1));
    return true;
}

static sf_status gather_shards(sf_cleanup_facts *f, const sf_site *s, const char *shard_prefix, sf_error *err)
{
    size_t skip = strlen(shard_prefix) + 1;
    sf_store_listing l;
    sf_status rc = sf__site_list(s, s->shard_store, shard_prefix, "/", NULL, &l, err);

    if (rc != SF_OK)
        return rc;
    for (size_t i = 0; i < l.entry_count && rc == SF_OK; i++) {
        sf_run_fact *run;
        sf_bytes id;

        if (!l.entries[i].is_prefix || !run_id_of_shard(l.entries[i].key + skip, &id))
            continue;
        run = run_of(f, s, (const char *)id.p, id.n);
        if (!run) {
            rc = fail_nomem(err);
            break;
        }
        run->has_shards = true;
        run->is_named = run->is_named || sf__cleanup_holds_kept(f, l.entries[i].key);
    }
    sf__store_listing_cleanup(&l);
    return rc;
}

/* A store that does not list them, not to us, or not as S3 does, is no reason to leave the rest. */
static sf_status gather_uploads(sf_cleanup_facts *f, const sf_site *s, const sf_cleanup_options *o, int64_t now_us,
                                sf_error *err)
{
    size_t n = strlen(o->shard_prefix);
    /* a killed put leaves a file beside whatever it was to become */
    const char *folder = strcmp(s->shard_store->url, "file://") == 0 ? "" : o->shard_prefix;
    sf_error e = SF_ERROR_INIT;
    sf_status rc = sf__site_uploads(s, s->shard_store, folder, &f->uploads, &e);

    if (sf_status_is_retryable(rc)) {
        *err = e;
        return rc;
    }
    if (rc != SF_OK)
        f->uploads_error = e;
    for (size_t i = 0; i < f->uploads.count; i++) {
        const sf_store_upload *u = &f->uploads.uploads[i];
        sf_run_fact *run;
        sf_bytes id;

        if (strncmp(u->key, o->shard_prefix, n) != 0 || u->key[n] != '/' || !run_id_of_shard(u->key + n + 1, &id))
            continue;
        run = run_of(f, s, (const char *)id.p, id.n);
        if (!run)
            return fail_nomem(err);
        run->has_shards = true;
        see_sign(run, u->begun_us < now_us ? u->begun_us : now_us);
    }
    return SF_OK;
}

/* ------------------------------------------------------------------ all ------------------------------------------ */

static sf_status gather_pointer(sf_cleanup_facts *f, const sf_site *s, sf_error *err)
{
    sf_status rc = sf__pointer_load(s, NULL, &f->pointer, err);

    if (rc != SF_OK || !f->pointer.exists || f->pointer.parsed)
        return rc;
    if (err)
        *err = f->pointer.why;
    return sf_error_prefix(err, SF_BAD_MANIFEST, "nothing is deleted while the pointer is malformed: ");
}

sf_status sf__cleanup_gather(sf_cleanup_facts *out, const sf_site *s, const sf_cleanup_options *o, int64_t *now_us,
                             sf_error *err)
{
    sf_status rc;

    *out = (sf_cleanup_facts){.uploads_error = SF_ERROR_INIT};
    sf__arena_init(&out->arena, s->rt->alloc);
    rc = gather_pointer(out, s, err);
    *now_us = sf__site_now_us(s); /* a bucket has told it by now */
    if (rc == SF_OK)
        rc = gather_records(out, s, o->run_registry_prefix, *now_us, err);
    if (rc == SF_OK)
        rc = gather_manifests(out, s, err);
    if (rc == SF_OK)
        rc = check_store(out, s, err);
    if (rc == SF_OK)
        rc = gather_kept(out, s, o, *now_us, err);
    if (rc == SF_OK)
        rc = gather_shards(out, s, o->shard_prefix, err);
    if (rc == SF_OK)
        rc = gather_uploads(out, s, o, *now_us, err);
    if (rc != SF_OK)
        sf__cleanup_facts_free(out, s);
    return rc;
}

void sf__cleanup_facts_free(sf_cleanup_facts *f, const sf_site *s)
{
    sf__pointer_cleanup(s, &f->pointer);
    sf__site_uploads_free(s, &f->uploads);
    sf__free(s->rt->alloc, f->runs);
    sf__free(s->rt->alloc, (void *)f->kept_folders);
    sf__arena_cleanup(&f->arena);
    f->runs = NULL;
    f->kept_folders = NULL;
}
