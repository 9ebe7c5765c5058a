#include "site/site.h"

#include "base/error.h"
#include "base/options.h"
#include "site/location.h"

/* Only what has to do with memory is an error now: nobody may ever ask for a bucket. */
static sf_status resolve(sf_site *s, sf_site_part part, const sf_s3_options *o, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_status rc = sf__s3_options_resolve(&s->resolved[part], o, NULL, NULL, s->rt->alloc, &e);

    if (rc == SF_NOMEM)
        return sf_fail(err, rc, "S3 options");
    if (rc != SF_OK)
        s->unresolved[part] = sf_error_keep(s->rt->alloc, &e);
    return SF_OK;
}

static sf_status take_s3(sf_site *s, sf_site_part part, const sf_s3_options *o, bool needed, sf_error *err)
{
    sf_s3_options whole = SF_S3_OPTIONS_INIT;
    sf_status rc = sf__options_take(&whole, sizeof(whole), o, "S3 options", err);

    return rc == SF_OK && needed ? resolve(s, part, o, err) : rc;
}

static sf_status take_setup(sf_site *s, const char *prefix, const sf_site_setup *setup, sf_error *err)
{
    const sf_allocator *a = s->rt->alloc;
    bool needed = setup->roams || strcmp(sf__url_scheme(prefix), "s3") == 0;
    sf_status rc = SF_OK;

    if (setup->is_name)
        s->prefix = sf__strdup(a, prefix);
    else
        rc = sf__location_canonical(&s->prefix, prefix, a, err);
    if (rc != SF_OK)
        return rc;
    s->current_name = sf__strdup(a, setup->current_name ? setup->current_name : "_CURRENT");
    if (!s->prefix || !s->current_name)
        return sf_fail(err, SF_NOMEM, "prefix of a snapshot");
    rc = take_s3(s, SF_SITE_MANIFESTS, setup->s3, needed, err);
    return rc == SF_OK && setup->shard_s3 ? take_s3(s, SF_SITE_SHARDS, setup->shard_s3, needed, err) : rc;
}

sf_status sf__site_init(sf_site *s, sf_runtime *rt, const char *prefix, const sf_site_setup *setup, sf_error *err)
{
    sf_status rc;

    *s = (sf_site){.rt = sf__runtime_ref(rt)};
    rc = take_setup(s, prefix, setup, err);
    if (rc != SF_OK)
        sf__site_cleanup(s);
    return rc;
}

void sf__site_cleanup(sf_site *s)
{
    sf_runtime *rt = s->rt;

    if (!rt)
        return;
    for (size_t i = 0; i < s->store_count; i++) {
        sf__free(rt->alloc, s->stores[i].root);
        sf__store_release(s->stores[i].store);
    }
    sf__free(rt->alloc, s->stores);
    for (size_t i = 0; i < 2; i++) {
        sf__s3_resolved_free(s->resolved[i], rt->alloc);
        sf_error_drop(rt->alloc, s->unresolved[i]);
    }
    sf__hedge_release(s->hedge);
    sf__free(rt->alloc, s->prefix);
    sf__free(rt->alloc, s->path);
    sf__free(rt->alloc, s->current_name);
    *s = (sf_site){0};
    sf__runtime_unref(rt);
}

/* ------------------------------------------------------------------ stores ---------------------------------------- */

static struct site_store *known_store(sf_site *s, sf_site_part part, const char *root)
{
    for (size_t i = 0; i < s->store_count; i++)
        if (s->stores[i].part == part && strcmp(s->stores[i].root, root) == 0)
            return &s->stores[i];
    return NULL;
}

/* The part whose options go for this one. */
static sf_site_part said_of(const sf_site *s, sf_site_part part)
{
    return s->resolved[part] || s->unresolved[part] ? part : SF_SITE_MANIFESTS;
}

const sf_s3_options *sf__site_s3(const sf_site *s, sf_site_part part)
{
    const sf_s3_resolved *r = s->resolved[said_of(s, part)];

    return r ? &r->options : NULL;
}

static sf_status open_bucket(const sf_site *s, sf_site_part part, const char *root, sf_store **store, sf_error *err)
{
    sf_site_part said = said_of(s, part);

    if (s->resolved[said]) {
        sf_status rc = sf__location_open_bucket(s->rt, root, s->resolved[said], store, err);

        if (rc == SF_OK && part == SF_SITE_SHARDS)
            (*store)->hedge = sf__hedge_acquire(s->hedge);
        return rc;
    }
    if (!s->unresolved[said])
        return sf_fail(err, SF_DENIED, "%s: what lies below %s comes to no bucket", root, s->prefix);
    if (err)
        *err = *s->unresolved[said];
    return s->unresolved[said]->code;
}

/* Opens the store of `root`; takes the text over on success. */
static sf_status add_store(sf_site *s, sf_site_part part, char *root, sf_store **store, sf_error *err)
{
    struct site_store *grown = sf__realloc(s->rt->alloc, s->stores, (s->store_count + 1) * sizeof(*grown));
    sf_status rc;

    if (!grown)
        return sf_fail(err, SF_NOMEM, "store");
    s->stores = grown;
    if (strcmp(sf__url_scheme(root), "s3") == 0)
        rc = open_bucket(s, part, root, store, err);
    else
        rc = sf__location_open_root(s->rt, root, NULL, store, err);
    if (rc == SF_OK)
        s->stores[s->store_count++] = (struct site_store){part, root, *store};
    return rc;
}

sf_status sf__site_store(sf_site *s, sf_site_part part, const char *url, sf_store **store, char **path, sf_error *err)
{
    struct site_store *known;
    char *root, *below;
    sf_status rc = sf__location_split(url, s->rt->alloc, &root, &below, err);

    if (rc != SF_OK)
        return rc;
    known = known_store(s, part, root);
    if (known)
        *store = known->store;
    else
        rc = add_store(s, part, root, store, err);
    if (known || rc != SF_OK)
        sf__free(s->rt->alloc, root);
    if (rc == SF_OK)
        *path = below;
    else
        sf__free(s->rt->alloc, below);
    return rc;
}

sf_status sf__site_open_manifests(sf_site *s, sf_error *err)
{
    return sf__site_store(s, SF_SITE_MANIFESTS, s->prefix, &s->store, &s->path, err);
}
