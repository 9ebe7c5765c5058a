/* Manifests below a prefix of a store: a pointer object, and `manifests/`. */
#include "base/error.h"
#include "base/limits.h"
#include "reader/manifest_query.h"
#include "site/location.h"
#include "snapshot/current.h"
#include "snapshot/manifest_name.h"
#include "snapshot/relocation.h"

static void end_failed(sf_manifest_query *q, const sf_error *e)
{
    sf__query_fail(q, e);
    sf__query_end(q);
}

static void end_without_memory(sf_manifest_query *q, const char *what)
{
    sf_error e;

    sf_fail(&e, SF_NOMEM, "%s", what);
    end_failed(q, &e);
}

/* Of the object that was read. */
static void name_object(const sf_manifest_query *q, const char *ref, sf_error *e)
{
    char url[512];

    (void)ref;
    sf__store_object_url(q->store, q->key, url, sizeof(url));
    sf_error_prefix(e, e->code, "%s: ", url);
    sf_error_object(e, url);
}

static void fetch_whole(sf_manifest_query *q, uint64_t max_bytes, const char *if_none_match, void (*done)(sf_fetch *))
{
    q->asked = true;
    q->fetch = (sf_fetch){
        .store = q->store,
        .key = q->key,
        .len = SF_STORE_ALL,
        .max_bytes = max_bytes,
        .if_none_match = if_none_match,
        .deadline_ns = q->deadline_ns,
        .done = done,
        .ctx = q,
    };
    sf__fetch_start(q->source->site.rt->fetcher, &q->fetch);
}

static bool key_below(sf_manifest_query *q, const char *name)
{
    const sf_source *source = q->source;

    sf__free(source->alloc, q->key);
    q->key = source->site.path[0] ? sf__asprintf(source->alloc, "%s/%s", source->site.path, name)
                                  : sf__strdup(source->alloc, name);
    q->store = source->site.store;
    return q->key;
}

/* What its store is asked next time. Without memory it is read again then. */
static void pointer_remember(sf_source *s, const char *etag, const char *ref)
{
    sf__free(s->alloc, s->pointer_etag);
    sf__free(s->alloc, s->pointer_ref);
    s->pointer_etag = etag[0] ? sf__strdup(s->alloc, etag) : NULL;
    s->pointer_ref = s->pointer_etag ? sf__strdup(s->alloc, ref) : NULL;
}

static void pointer_answer(sf_manifest_query *q, const char *ref)
{
    q->ref = sf__strdup(q->source->alloc, ref);
    if (q->ref)
        sf__query_end(q);
    else
        end_without_memory(q, "manifest reference");
}

static void pointer_fetched(sf_fetch *f)
{
    sf_manifest_query *q = f->ctx;
    const sf_allocator *a = q->source->alloc;
    sf_current current = {0};
    sf_error e = *f->error;
    sf_status rc;

    if (e.code != SF_OK) {
        if (e.code == SF_NOT_FOUND)
            sf_error_prefix(&e, SF_NO_CURRENT, "CURRENT pointer not found: ");
        end_failed(q, &e);
        return;
    }
    if (f->not_modified && q->source->pointer_ref) { /* what is remembered may be newer: of a refresh that was quicker */
        sf__buf_release(f->data);
        f->data = NULL;
        pointer_answer(q, q->source->pointer_ref);
        return;
    }
    rc = sf__current_parse(&current, sf__buf_bytes(f->data), a, &e);
    sf__buf_release(f->data);
    f->data = NULL;
    if (rc != SF_OK) {
        name_object(q, NULL, &e);
        end_failed(q, &e);
        return;
    }
    pointer_remember(q->source, f->etag, current.manifest_ref);
    pointer_answer(q, current.manifest_ref); /* q may be gone */
    sf__current_cleanup(&current, a);
}

static void current(sf_manifest_query *q)
{
    if (key_below(q, q->source->site.current_name))
        fetch_whole(q, SF_LIMIT_CURRENT_BYTES, q->source->pointer_ref ? q->source->pointer_etag : NULL, pointer_fetched);
    else
        end_without_memory(q, "name of the pointer");
}

static void manifest_fetched(sf_fetch *f)
{
    sf_manifest_query *q = f->ctx;

    if (f->error->code != SF_OK)
        sf__query_fail(q, f->error);
    q->manifest = f->data;
    f->data = NULL;
    sf__query_end(q);
}

static void manifest(sf_manifest_query *q, const char *ref)
{
    const sf_source *source = q->source;
    const sf_reach reach = {source->site.prefix, source->relocate, source->confine};
    char *url = NULL, *path = NULL;
    sf_error e; /* filled by failures only */
    sf_status rc = sf__location_reach_manifest(&url, ref, &reach, source->alloc, &e);

    if (rc == SF_OK) {
        rc = sf__site_store(&q->source->site, SF_SITE_MANIFESTS, url, &q->store, &path, &e);
        if (rc == SF_INVALID) /* the pointer's fault, not the caller's */
            e.code = SF_BAD_MANIFEST;
    }
    sf__free(source->alloc, url);
    if (rc != SF_OK) {
        end_failed(q, &e);
        return;
    }
    sf__free(source->alloc, q->key);
    q->key = path;
    fetch_whole(q, SF_LIMIT_SNAPSHOT_MANIFEST_BYTES, NULL, manifest_fetched);
}

static void listed(sf_store_listing *listing)
{
    sf_manifest_query *q = listing->ctx;
    const sf_allocator *a = q->source->alloc;
    sf_manifest_ref *refs = NULL;
    size_t count = 0;
    sf_error e = *listing->error;

    if (e.code == SF_OK &&
        sf__manifest_refs_from_listing(&refs, &count, q->source->site.prefix, SF_MANIFEST_NAME, listing->entries,
                                       listing->entry_count, q->limit, a, &e) == SF_OK &&
        !sf__query_refs_new(q, count))
        sf_fail(&e, SF_NOMEM, "listing");
    for (size_t i = 0; i < q->ref_count; i++) {
        q->refs[i] = refs[i].ref;
        refs[i].ref = NULL;
    }
    sf__manifest_refs_free(refs, count, a);
    sf__store_listing_cleanup(listing);
    if (e.code != SF_OK)
        sf__query_fail(q, &e);
    q->listing = (sf_store_listing){0};
    sf__query_end(q);
}

static void list(sf_manifest_query *q, size_t limit)
{
    if (!key_below(q, "manifests/")) {
        end_without_memory(q, "listing");
        return;
    }
    q->asked = true;
    q->limit = limit;
    q->listing = (sf_store_listing){
        .store = q->store,
        .prefix = q->key,
        .delimiter = "/",
        .deadline_ns = q->deadline_ns,
        .done = listed,
        .ctx = q,
    };
    sf__fetcher_list(q->source->site.rt->fetcher, &q->listing);
}

static void cancel(sf_manifest_query *q)
{
    if (q->listing.done)
        sf__fetcher_list_cancel(q->source->site.rt->fetcher, &q->listing);
    else
        sf__fetch_cancel(&q->fetch);
}

const sf_manifests_type sf__stored_manifests = {
    .current = current, .manifest = manifest, .list = list, .cancel = cancel, .name = name_object};
