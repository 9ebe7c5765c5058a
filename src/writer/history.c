/* What was published, and setting the pointer back to it. */
#include "base/error.h"
#include "base/options.h"
#include "snapshot/relocation.h"
#include "writer/maintenance.h"
#include "writer/pointer.h"
#include "writer/published.h"
#include "writer/site_open.h"

struct sf_history {
    const sf_allocator *alloc;
    sf_runtime *rt; /* acquired: the allocator is its */
    sf_manifest_ref *refs;
    sf_history_entry *entries;
    size_t count;
};

void sf_history_free(sf_history *h)
{
    sf_runtime *rt;

    if (!h)
        return;
    rt = h->rt;
    sf__manifest_refs_free(h->refs, h->count, h->alloc);
    sf__free(h->alloc, h->entries);
    sf__free(h->alloc, h);
    sf_runtime_release(rt);
}

const sf_history_entry *sf_history_entries(const sf_history *h, size_t *count)
{
    *count = h->count;
    return h->entries;
}

static sf_status fill(sf_history *h, const sf_site *site, size_t limit, sf_error *err)
{
    sf_pointer p = {.exists = false};
    sf_status rc = sf__manifest_list(site, limit, NULL, &h->refs, &h->count, err);

    if (rc == SF_OK)
        rc = sf__pointer_load(site, NULL, &p, err);
    if (rc == SF_OK && h->count > 0) {
        h->entries = sf__calloc(h->alloc, h->count, sizeof(*h->entries));
        if (!h->entries)
            rc = sf_fail(err, SF_NOMEM, "history of %zu manifests", h->count);
    }
    for (size_t i = 0; i < h->count && rc == SF_OK; i++) {
        const sf_manifest_ref *r = &h->refs[i];

        h->entries[i] = (sf_history_entry){r->ref, r->run_id, r->published_at_us, sf__pointer_names(site, &p, r->ref)};
    }
    sf__pointer_cleanup(site, &p);
    return rc;
}

sf_status sf_history_list(sf_history **out, sf_runtime *rt, const char *prefix, const sf_site_options *opts,
                          size_t limit, sf_error *err)
{
    sf_history *h;
    sf_site site;
    sf_status rc = sf__site_open(&site, rt, prefix, opts, err);

    if (rc != SF_OK)
        return rc;
    h = sf__calloc(rt->alloc, 1, sizeof(*h));
    if (!h) {
        sf__site_cleanup(&site);
        return sf_fail(err, SF_NOMEM, "history");
    }
    h->alloc = rt->alloc;
    h->rt = sf_runtime_acquire(rt);
    rc = fill(h, &site, limit, err);
    sf__site_cleanup(&site);
    if (rc != SF_OK) {
        sf_history_free(h);
        return rc;
    }
    *out = h;
    return SF_OK;
}

/* ------------------------------------------------------------------ rollback ------------------------------------- */

/* Something must lie in its folder. */
static sf_status check_shard(const sf_site *s, const sf_snapshot_manifest *m, const sf_manifest_shard *shard,
                             sf_error *err)
{
    sf_store_listing l;
    char *folder;
    sf_status rc = sf__shard_locate(s, m, shard->db_url, false, &folder, err);

    if (rc != SF_OK)
        return rc;
    if (!folder)
        return shard->db_url ? sf_fail(err, SF_UNSUPPORTED, "shard %u lies outside of %s and cannot be looked for",
                                       shard->db_id, s->prefix)
                             : SF_OK;
    rc = sf__site_list(s, s->shard_store, folder, "/", NULL, &l, err);
    sf__free(s->rt->alloc, folder);
    if (rc != SF_OK)
        return rc;
    if (l.entry_count == 0)
        rc = sf_fail(err, SF_NOT_FOUND, "shard %u of run %s is gone: %s", shard->db_id, m->run_id, shard->db_url);
    sf__store_listing_cleanup(&l);
    return rc;
}

static sf_status check_snapshot(const sf_site *s, const char *ref, sf_error *err)
{
    sf_snapshot_manifest *m;
    sf_status rc = sf__manifest_load(s, ref, NULL, &m, err);

    if (rc != SF_OK)
        return rc;
    for (size_t i = 0; i < m->shard_count && rc == SF_OK; i++)
        rc = check_shard(s, m, &m->shards[i], err);
    sf__snapshot_manifest_free(m);
    return rc;
}

static sf_status run_id_of(char **out, const char *ref, const sf_allocator *a, sf_error *err)
{
    sf_bytes run_id;

    if (!sf__run_id_from_ref(sf_bytes_str(ref), &run_id))
        return sf_fail(err, SF_INVALID, "Cannot extract run_id from manifest ref: %s", ref);
    *out = sf__location_decode(ref, run_id, a);
    return *out ? SF_OK : sf_fail(err, SF_NOMEM, "run id");
}

sf_status sf__rollback_on(const sf_site *s, const char *ref, const sf_rollback_options *o, sf_error *err)
{
    sf_expectation expected = {o->expected_current, o->expected_ref};
    sf_pointer before = {.exists = false};
    char *run_id = NULL;
    sf_status rc = run_id_of(&run_id, ref, s->rt->alloc, err);

    if (rc == SF_OK && expected.kind == SF_EXPECT_REF && !expected.ref)
        rc = sf_fail(err, SF_INVALID, "expected_current needs the reference that is expected");
    if (rc == SF_OK && !o->force) {
        /* nobody may publish while we look: what is replaced is what was there before */
        rc = sf__pointer_load(s, NULL, &before, err);
        if (rc == SF_OK)
            rc = check_snapshot(s, ref, err);
        if (rc == SF_OK && expected.kind == SF_EXPECT_ANY && before.parsed)
            expected = (sf_expectation){SF_EXPECT_REF, before.current.manifest_ref};
        else if (rc == SF_OK && expected.kind == SF_EXPECT_ANY && !before.exists)
            expected.kind = SF_EXPECT_ABSENT;
    }
    if (rc == SF_OK)
        rc = sf__pointer_move(s, ref, run_id, &expected, NULL, NULL, NULL, err);
    sf__pointer_cleanup(s, &before);
    sf__free(s->rt->alloc, run_id);
    return rc;
}

sf_status sf_rollback(sf_runtime *rt, const char *prefix, const char *ref, const sf_rollback_options *opts, sf_error *err)
{
    sf_rollback_options o = SF_ROLLBACK_OPTIONS_INIT;
    sf_site site;
    sf_status rc = sf__options_take(&o, sizeof(o), opts, "rollback options", err);

    if (rc == SF_OK)
        rc = sf__site_open(&site, rt, prefix, &o.site, err);
    if (rc != SF_OK)
        return rc;
    rc = sf__rollback_on(&site, ref, &o, err);
    sf__site_cleanup(&site);
    return rc;
}
