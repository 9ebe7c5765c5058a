#include "writer/published.h"

#include "base/error.h"
#include "base/limits.h"
#include "snapshot/relocation.h"
#include "writer/manifest_store.h"
#include "writer/site_open.h"

sf_status sf__manifest_locate(const sf_site *s, const char *ref, char **name, sf_error *err)
{
    char *url;
    sf_status rc = sf__location_resolve_manifest(&url, ref, s->prefix, false, s->rt->alloc, err);

    if (rc != SF_OK)
        return rc;
    rc = sf__site_name_of(s, url, name, err);
    if (rc == SF_OK && !*name)
        rc = sf_fail(err, SF_UNSUPPORTED, "manifest %s lies outside of %s", ref, s->prefix);
    sf__free(s->rt->alloc, url);
    return rc;
}

static sf_status get_manifest(const sf_site *s, const char *ref, const sf_cancel_flag *cancel, sf_buf **out, sf_error *err)
{
    char *name;
    sf_status rc = sf__manifest_locate(s, ref, &name, err);

    if (rc != SF_OK)
        return rc;
    rc = sf__site_get(s, name, SF_LIMIT_SNAPSHOT_MANIFEST_BYTES, cancel, out, NULL, err);
    sf__free(s->rt->alloc, name);
    return rc;
}

sf_status sf__manifest_load(const sf_site *s, const char *ref, const sf_cancel_flag *cancel, sf_snapshot_manifest **out,
                            sf_error *err)
{
    sf_buf *bytes = NULL;
    sf_status rc =
        s->manifests ? sf__manifest_store_load(s, ref, &bytes, err) : get_manifest(s, ref, cancel, &bytes, err);

    if (rc == SF_OK)
        rc = sf__snapshot_manifest_parse(out, sf__buf_bytes(bytes), 0, s->rt->alloc, err);
    if (rc == SF_BAD_MANIFEST)
        sf_error_prefix(err, rc, "%s: ", ref);
    sf__buf_release(bytes);
    return rc;
}

sf_status sf__manifest_list(const sf_site *s, size_t limit, const sf_cancel_flag *cancel, sf_manifest_ref **out,
                            size_t *count, sf_error *err)
{
    sf_store_listing l;
    sf_status rc;

    if (s->manifests)
        return sf__manifest_store_list(s, out, count, err);
    rc = sf__site_list(s, s->store, "manifests", "/", cancel, &l, err);
    if (rc != SF_OK)
        return rc;
    rc = sf__manifest_refs_from_listing(out, count, s->prefix, SF_MANIFEST_NAME, l.entries, l.entry_count, limit,
                                        s->rt->alloc, err);
    sf__store_listing_cleanup(&l);
    return rc;
}

sf_status sf__shard_locate(const sf_site *s, const sf_snapshot_manifest *m, const char *db_url, bool relocate,
                           char **folder, sf_error *err)
{
    char *url;
    sf_status rc;

    *folder = NULL;
    if (!db_url)
        return SF_OK;
    rc = sf__location_resolve_shard(&url, db_url, m->s3_prefix, s->prefix, relocate, s->rt->alloc, err);
    if (rc != SF_OK)
        return rc;
    rc = sf__site_name_of(s, url, folder, err);
    sf__free(s->rt->alloc, url);
    return rc;
}
