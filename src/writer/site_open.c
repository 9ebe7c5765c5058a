#include "writer/site_open.h"

#include "base/error.h"
#include "base/options.h"
#include "snapshot/relocation.h"

/* A bucket as a whole is nobody's snapshot: readers of the format expect a segment. */
static sf_status check_place(const sf_site *s, sf_error *err)
{
    if (s->path[0] == '\0')
        return sf_fail(err, SF_INVALID, "s3_prefix must include a non-empty key prefix, e.g. s3://bucket/prefix");
    if (s->current_name[0] == '\0' || strchr(s->current_name, '/'))
        return sf_fail(err, SF_INVALID, "the pointer's name must be one path segment, not '%s'", s->current_name);
    if (s->timeout_ms <= 0)
        return sf_fail(err, SF_INVALID, "the timeout of requests must be above 0");
    return SF_OK;
}

static sf_status open_shards(sf_site *s, bool apart, sf_error *err)
{
    char *path;
    sf_status rc;

    s->shard_store = s->store;
    if (!apart)
        return SF_OK;
    rc = sf__site_store(s, SF_SITE_SHARDS, s->prefix, &s->shard_store, &path, err);
    if (rc == SF_OK)
        sf__free(s->rt->alloc, path);
    return rc;
}

sf_status sf__site_open(sf_site *out, sf_runtime *rt, const char *prefix, const sf_site_options *opts, sf_error *err)
{
    sf_site_options o = SF_SITE_OPTIONS_INIT;
    sf_site_setup setup = {0};
    sf_site s;
    sf_status rc = sf__runtime_check_may_wait(rt, err);

    if (rc == SF_OK)
        rc = sf__options_take(&o, sizeof(o), opts, "options of a prefix", err);
    if (rc != SF_OK)
        return rc;
    setup.current_name = o.current_name;
    setup.s3 = o.s3;
    setup.shard_s3 = o.shard_s3 == o.s3 ? NULL : o.shard_s3;
    rc = sf__site_init(&s, rt, prefix, &setup, err);
    if (rc != SF_OK)
        return rc;
    s.timeout_ms = o.request_timeout_ms;
    rc = sf__site_open_manifests(&s, err);
    if (rc == SF_OK)
        rc = check_place(&s, err);
    if (rc == SF_OK)
        rc = open_shards(&s, setup.shard_s3 != NULL, err);
    if (rc == SF_OK)
        *out = s;
    else
        sf__site_cleanup(&s);
    return rc;
}

char *sf__site_url(const sf_site *s, const char *name)
{
    return sf__location_join(s->prefix, name, s->rt->alloc);
}

sf_status sf__site_name_of(const sf_site *s, const char *url, char **out, sf_error *err)
{
    return sf__location_below(out, url, s->prefix, s->rt->alloc, err);
}
