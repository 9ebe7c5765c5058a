#include "reader/source.h"

#include "base/error.h"
#include "base/options.h"
#include "site/location.h"

/* Shards that are opened at a time: as many as there may be requests by default, so that opening takes no more round trips;
 * each needs some 30 KB until it is opened. */
#define OPEN_CONCURRENCY 256u

static sf_status take_texts(sf_source *s, const sf_reader_options *o, sf_error *err)
{
    s->sqlite = (sf_sqlite_reading){.mode = o->sqlite_mode,
                                    .folder = o->sqlite_folder ? sf__strdup(s->alloc, o->sqlite_folder) : NULL,
                                    .range_bytes = o->sqlite_shard_bytes,
                                    .uncached = o->sqlite_uncached};
    s->sqlite_total_bytes = o->sqlite_total_bytes;
    s->sqlite_only = o->sqlite_only;
    s->manifest_ref = o->manifest_ref ? sf__strdup(s->alloc, o->manifest_ref) : NULL;
    return (o->sqlite_folder && !s->sqlite.folder) || (o->manifest_ref && !s->manifest_ref)
               ? sf_fail(err, SF_NOMEM, "reader")
               : SF_OK;
}

static sf_status check_residency(const sf_reader_options *o, sf_error *err)
{
    if (o->residency != SF_RESIDENCY_NONE && o->lazy_shards)
        return sf_fail(
            err, SF_INVALID,
            "shards that are opened when they are first read cannot be resident before: leave out lazy_shards, or the residency");
    return SF_OK;
}

static sf_status open_disk(sf_source *s, const sf_reader_options *o, sf_error *err)
{
    sf_fetcher *f = s->site.rt->fetcher;

    if (!o->disk_folder)
        return sf_fail(err, SF_INVALID, "disk_bytes is set, and disk_folder is not");
    return sf__disk_cache_open(&s->disk, o->disk_folder, o->disk_bytes, f->loop, &f->disk_caches, f->alloc, err);
}

/* The site is there. */
static sf_status make_hedge(sf_source *s, const sf_reader_options *o, sf_error *err)
{
    const sf_s3_options *s3 = sf__site_s3(&s->site, SF_SITE_SHARDS);

    return sf__hedge_new(&s->site.hedge, o->hedge_share, (uint64_t)o->hedge_after_ms * UINT64_C(1000000),
                         s3 ? s3->events : NULL, s->alloc, err);
}

static sf_status check_hedging(const sf_reader_options *o, sf_error *err)
{
    if (!(o->hedge_share >= 0 && o->hedge_share <= 0.5))
        return sf_fail(err, SF_INVALID, "hedge_share is %g, and must be within 0 and 0.5", o->hedge_share);
    if (o->hedge_after_ms > 0 && o->hedge_share == 0)
        return sf_fail(err, SF_INVALID, "hedge_after_ms is set, and hedge_share is not: nothing is hedged");
    return SF_OK;
}

static sf_status init_site(sf_source *s, sf_runtime *rt, const char *prefix, const sf_reader_options *o, sf_error *err)
{
    bool local = strcmp(sf__url_scheme(prefix), "file") == 0;
    const sf_site_setup setup = {
        .current_name = o->current_name,
        .s3 = o->s3,
        .shard_s3 = o->shard_s3,
        /* Beside a foreign source it is a location only when it bounds where shards may lie. */
        .is_name = s->foreign && s->confine != SF_CONFINE_YES,
        /* A local snapshot names other places only where its reader may follow. */
        .roams = s->foreign || !local || s->confine == SF_CONFINE_NO,
    };

    return sf__site_init(&s->site, rt, prefix, &setup, err);
}

sf_status sf__source_new(sf_source **out, sf_runtime *rt, const char *prefix, const sf_reader_options *given,
                         sf_error *err)
{
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_source *s;
    sf_status rc = sf__options_take(&o, sizeof(o), given, "reader options", err);

    if (rc != SF_OK)
        return rc;
    if (o.refresh_interval_ms < 0)
        return sf_fail(err, SF_INVALID, "refresh_interval_ms is %lld, and cannot be below 0",
                       (long long)o.refresh_interval_ms);
    if (!(o.refresh_jitter >= 0 && o.refresh_jitter <= 1))
        return sf_fail(err, SF_INVALID, "refresh_jitter is %g, and must be within 0 and 1", o.refresh_jitter);
    rc = check_hedging(&o, err);
    if (rc != SF_OK)
        return rc;
    s = sf__calloc(rt->alloc, 1, sizeof(*s));
    if (!s)
        return sf_fail(err, SF_NOMEM, "reader");
    atomic_init(&s->refs, 1);
    s->alloc = rt->alloc;
    s->relocate = o.relocate && !o.manifests;
    s->confine = o.confine;
    s->legacy_manifests = o.legacy_manifests;
    s->lazy_shards = o.lazy_shards;
    s->open_concurrency = o.open_concurrency > 0 ? o.open_concurrency : OPEN_CONCURRENCY;
    s->max_fallbacks = o.manifest_ref ? 0 : o.max_fallbacks;
    s->open_timeout_ms = o.open_timeout_ms;
    s->cost = (sf_read_cost){o.read_gap_bytes, o.read_max_bytes};
    s->refresh_interval_ms = o.refresh_interval_ms;
    s->refresh_jitter = o.refresh_jitter;
    s->warm_bytes = o.warm_bytes;
    if (o.manifests)
        rc = sf__foreign_manifests_new(&s->foreign, o.manifests, err);
    if (rc == SF_OK)
        rc = init_site(s, rt, prefix, &o, err);
    if (rc == SF_OK && o.hedge_share > 0)
        rc = make_hedge(s, &o, err);
    if (rc == SF_OK)
        rc = take_texts(s, &o, err);
    if (rc == SF_OK)
        rc = check_residency(&o, err);
    s->residency = o.residency;
    if (rc == SF_OK && o.cache_bytes == SF_CACHE_SHARED)
        s->cache = sf__block_cache_acquire(rt->shared_cache);
    else if (rc == SF_OK)
        rc = sf__block_cache_new(&s->cache, o.cache_bytes, s->alloc, err);
    if (rc == SF_OK && o.disk_bytes > 0)
        rc = open_disk(s, &o, err);
    if (rc == SF_OK && o.shard_opener)
        rc = sf__foreign_opener_new(&s->opener, o.shard_opener, err);
    if (rc == SF_OK && !s->foreign)
        rc = sf__site_open_manifests(&s->site, err);
    if (rc == SF_OK)
        *out = s;
    else
        sf__source_release(s);
    return rc;
}

const char *sf__source_run(const sf_source *s)
{
    static const char named[] = "run_id=";

    return s->manifest_ref && strncmp(s->manifest_ref, named, sizeof(named) - 1) == 0
               ? s->manifest_ref + sizeof(named) - 1
               : NULL;
}

sf_source *sf__source_acquire(sf_source *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void sf__source_release(sf_source *s)
{
    sf_site site;

    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    sf__free(s->alloc, s->pointer_etag);
    sf__free(s->alloc, s->pointer_ref);
    sf__free(s->alloc, (char *)s->sqlite.folder);
    sf__disk_cache_release(s->disk);
    sf__block_cache_release(s->cache);
    sf__foreign_opener_release(s->opener);
    sf__free(s->alloc, s->manifest_ref);
    sf__foreign_manifests_release(s->foreign);
    site = s->site; /* whose runtime goes last */
    sf__free(s->alloc, s);
    sf__site_cleanup(&site);
}
