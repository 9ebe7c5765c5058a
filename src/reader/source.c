#include "reader/source.h"

#include "base/error.h"
#include "base/options.h"
#include "site/location.h"

/* Shards that are opened at a time: as many as there may be requests by default, so that opening takes no more round trips;
 * each needs some 30 KB until it is opened. */
#define OPEN_CONCURRENCY 256u

/* NULL stays NULL: all from the environment. */
static sf_status copy_s3(sf_s3_options **to, const sf_s3_options *from, const sf_allocator *a, sf_error *err)
{
    sf_s3_options whole = SF_S3_OPTIONS_INIT;
    sf_status rc = sf__options_take(&whole, sizeof(whole), from, "S3 options", err);

    return rc == SF_OK && from ? sf__s3_options_copy(to, &whole, a, err) : rc;
}

/* A local snapshot names other places only where its reader may follow. */
static bool may_meet_buckets(const sf_source *s)
{
    return s->foreign || strcmp(sf__url_scheme(s->prefix), "file") != 0 || s->confine == SF_CONFINE_NO;
}

/* Only what has to do with memory is an error now: nobody may ever ask for a bucket. */
static sf_status resolve_s3(sf_source *s, sf_source_kind kind, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_status rc = sf__s3_options_resolve(&s->resolved[kind], s->s3[kind], NULL, NULL, s->alloc, &e);

    if (rc == SF_NOMEM)
        return sf_fail(err, rc, "reader");
    if (rc != SF_OK)
        s->unresolved[kind] = sf_error_keep(s->alloc, &e);
    return SF_OK;
}

static sf_status open_bucket(const sf_source *s, sf_source_kind kind, const char *root, sf_store **store, sf_error *err)
{
    const sf_error *why = s->unresolved[kind];

    if (!why)
        return sf__location_open_bucket(s->rt, root, s->resolved[kind], store, err);
    if (err)
        *err = *why;
    return why->code;
}

static struct source_store *known_store(sf_source *s, sf_source_kind kind, const char *root)
{
    for (size_t i = 0; i < s->store_count; i++)
        if (s->stores[i].kind == kind && strcmp(s->stores[i].root, root) == 0)
            return &s->stores[i];
    return NULL;
}

/* Opens the store of `root`; takes the text over on success. */
static sf_status add_store(sf_source *s, sf_source_kind kind, char *root, sf_store **store, sf_error *err)
{
    struct source_store *grown = sf__realloc(s->alloc, s->stores, (s->store_count + 1) * sizeof(*grown));
    sf_status rc;

    if (!grown)
        return sf_fail(err, SF_NOMEM, "store");
    s->stores = grown;
    if (may_meet_buckets(s) && strcmp(sf__url_scheme(root), "s3") == 0)
        rc = open_bucket(s, kind, root, store, err);
    else
        rc = sf__location_open_root(s->rt, root, s->s3[kind], store, err);
    if (rc == SF_OK)
        s->stores[s->store_count++] = (struct source_store){kind, root, *store};
    return rc;
}

/* Beside a foreign source it is a location only when it bounds where shards may lie. */
static sf_status take_prefix(sf_source *s, const char *prefix, sf_error *err)
{
    if (!s->foreign || s->confine == SF_CONFINE_YES)
        return sf__location_canonical(&s->prefix, prefix, s->alloc, err);
    s->prefix = sf__strdup(s->alloc, prefix);
    return s->prefix ? SF_OK : sf_fail(err, SF_NOMEM, "reader");
}

sf_status sf__source_new(sf_source **out, sf_runtime *rt, const char *prefix, const sf_reader_options *given,
                         sf_error *err)
{
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_source *s;
    sf_status rc = sf__options_take(&o, sizeof(o), given, "reader options", err);

    if (rc != SF_OK)
        return rc;
    s = sf__calloc(rt->alloc, 1, sizeof(*s));
    if (!s)
        return sf_fail(err, SF_NOMEM, "reader");
    atomic_init(&s->refs, 1);
    s->alloc = rt->alloc;
    s->rt = sf__runtime_ref(rt);
    s->relocate = o.relocate && !o.manifests;
    s->confine = o.confine;
    s->legacy_manifests = o.legacy_manifests;
    s->lazy_shards = o.lazy_shards;
    s->open_concurrency = o.open_concurrency > 0 ? o.open_concurrency : OPEN_CONCURRENCY;
    s->max_fallbacks = o.manifest_ref ? 0 : o.max_fallbacks;
    s->open_timeout_ms = o.open_timeout_ms;
    if (o.manifests)
        rc = sf__foreign_manifests_new(&s->foreign, o.manifests, err);
    if (rc == SF_OK)
        rc = take_prefix(s, prefix, err);
    if (rc != SF_OK)
        goto fail;
    s->current_name = sf__strdup(s->alloc, o.current_name ? o.current_name : "_CURRENT");
    s->sqlite_folder = o.sqlite_folder ? sf__strdup(s->alloc, o.sqlite_folder) : NULL;
    s->manifest_ref = o.manifest_ref ? sf__strdup(s->alloc, o.manifest_ref) : NULL;
    if (!s->current_name || (o.sqlite_folder && !s->sqlite_folder) || (o.manifest_ref && !s->manifest_ref)) {
        rc = sf_fail(err, SF_NOMEM, "reader");
        goto fail;
    }
    rc = copy_s3(&s->s3[SF_SOURCE_MANIFESTS], o.s3, s->alloc, err);
    if (rc == SF_OK && o.shard_opener)
        rc = sf__foreign_opener_new(&s->opener, o.shard_opener, err);
    if (rc == SF_OK)
        rc = copy_s3(&s->s3[SF_SOURCE_SHARDS], o.shard_s3 ? o.shard_s3 : o.s3, s->alloc, err);
    for (int kind = 0; rc == SF_OK && may_meet_buckets(s) && kind < 2; kind++)
        rc = resolve_s3(s, (sf_source_kind)kind, err);
    if (rc == SF_OK && !s->foreign)
        rc = sf__source_store(s, SF_SOURCE_MANIFESTS, s->prefix, &s->store, &s->path, err);
    if (rc != SF_OK)
        goto fail;
    *out = s;
    return SF_OK;
fail:
    sf__source_release(s);
    return rc;
}

sf_source *sf__source_acquire(sf_source *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void sf__source_release(sf_source *s)
{
    sf_runtime *rt;

    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < s->store_count; i++) {
        sf__free(s->alloc, s->stores[i].root);
        sf__store_release(s->stores[i].store);
    }
    sf__free(s->alloc, s->stores);
    for (size_t i = 0; i < 2; i++) {
        sf__s3_resolved_free(s->resolved[i], s->alloc);
        sf_error_drop(s->alloc, s->unresolved[i]);
        sf__s3_options_free(s->s3[i], s->alloc);
    }
    sf__free(s->alloc, s->prefix);
    sf__free(s->alloc, s->path);
    sf__free(s->alloc, s->current_name);
    sf__free(s->alloc, s->sqlite_folder);
    sf__foreign_opener_release(s->opener);
    sf__free(s->alloc, s->manifest_ref);
    sf__foreign_manifests_release(s->foreign);
    rt = s->rt;
    sf__free(s->alloc, s);
    sf__runtime_unref(rt);
}

sf_status sf__source_store(sf_source *s, sf_source_kind kind, const char *url, sf_store **store, char **path,
                           sf_error *err)
{
    struct source_store *known;
    char *root, *below;
    sf_status rc = sf__location_split(url, s->alloc, &root, &below, err);

    if (rc != SF_OK)
        return rc;
    known = known_store(s, kind, root);
    if (known)
        *store = known->store;
    else
        rc = add_store(s, kind, root, store, err);
    if (known || rc != SF_OK)
        sf__free(s->alloc, root);
    if (rc == SF_OK)
        *path = below;
    else
        sf__free(s->alloc, below);
    return rc;
}
