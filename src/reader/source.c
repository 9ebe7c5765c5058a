#include "reader/source.h"

#include "base/error.h"
#include "store/credentials.h"

/* NULL stays NULL: all from the environment. Fields that the caller's header did not have yet keep their defaults. */
static sf_status copy_s3(sf_s3_options **to, const sf_s3_options *from, const sf_allocator *a, sf_error *err)
{
    sf_s3_options whole = SF_S3_OPTIONS_INIT;

    if (!from)
        return SF_OK;
    if (from->size < sizeof(size_t) || from->size > sizeof(whole))
        return sf_fail(err, SF_UNSUPPORTED, "S3 options of %zu bytes: this library knows %zu", from->size,
                       sizeof(whole));
    memcpy(&whole, from, from->size);
    whole.size = sizeof(whole);
    *to = sf__s3_options_copy(&whole, a);
    return *to ? SF_OK : sf_fail(err, SF_NOMEM, "S3 options");
}

/* "s3://bucket", "mem://name" or "file://" (for bare paths as well). */
static char *url_root(const char *url, const sf_allocator *a)
{
    const char *scheme = sf__url_scheme(url);
    const char *rest = strstr(url, "://");

    if (!rest || strcmp(scheme, "file") == 0)
        return sf__strdup(a, "file://");
    return sf__strndup(a, url, (size_t)(rest + 3 - url) + strcspn(rest + 3, "/"));
}

static struct source_store *known_store(sf_source *s, sf_source_kind kind, const char *root)
{
    for (size_t i = 0; i < s->store_count; i++)
        if (s->stores[i].kind == kind && strcmp(s->stores[i].root, root) == 0)
            return &s->stores[i];
    return NULL;
}

/* Takes over root and store, also on failure. */
static sf_status remember_store(sf_source *s, sf_source_kind kind, char *root, sf_store *store, sf_error *err)
{
    struct source_store *grown = NULL;

    if (root)
        grown = sf__realloc(s->alloc, s->stores, (s->store_count + 1) * sizeof(*grown));
    if (!grown) {
        sf__store_release(store);
        sf__free(s->alloc, root);
        return sf_fail(err, SF_NOMEM, "store");
    }
    s->stores = grown;
    s->stores[s->store_count++] = (struct source_store){kind, root, store};
    return SF_OK;
}

sf_status sf__source_new(sf_source **out, sf_runtime *rt, const char *prefix, const sf_reader_options *given,
                         sf_error *err)
{
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_source *s;
    sf_store *store;
    sf_status rc;
    size_t n = strlen(prefix);

    if (given) {
        if (given->size < sizeof(size_t) || given->size > sizeof(o))
            return sf_fail(err, SF_UNSUPPORTED, "reader options of %zu bytes: this library knows %zu", given->size,
                           sizeof(o));
        memcpy(&o, given, given->size);
    }
    s = sf__calloc(rt->alloc, 1, sizeof(*s));
    if (!s)
        return sf_fail(err, SF_NOMEM, "reader");
    atomic_init(&s->refs, 1);
    s->alloc = rt->alloc;
    s->rt = sf_runtime_acquire(rt);
    s->relocate = o.relocate;
    s->legacy_manifests = o.legacy_manifests;
    s->max_fallbacks = o.max_fallbacks;
    s->open_timeout_ms = o.open_timeout_ms;
    while (n > 1 && prefix[n - 1] == '/')
        n--;
    s->prefix = sf__strndup(s->alloc, prefix, n);
    s->current_name = sf__strdup(s->alloc, o.current_name ? o.current_name : "_CURRENT");
    if (!s->prefix || !s->current_name) {
        rc = sf_fail(err, SF_NOMEM, "reader");
        goto fail;
    }
    rc = copy_s3(&s->s3[SF_SOURCE_MANIFESTS], o.s3, s->alloc, err);
    if (rc == SF_OK)
        rc = copy_s3(&s->s3[SF_SOURCE_SHARDS], o.shard_s3 ? o.shard_s3 : o.s3, s->alloc, err);
    if (rc == SF_OK)
        rc = sf__runtime_open_store(rt, s->prefix, s->s3[SF_SOURCE_MANIFESTS], &store, &s->path, err);
    if (rc == SF_OK)
        rc = remember_store(s, SF_SOURCE_MANIFESTS, url_root(s->prefix, s->alloc), store, err);
    if (rc != SF_OK)
        goto fail;
    s->store = store;
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
    for (size_t i = 0; i < 2; i++)
        sf__s3_options_free(s->s3[i], s->alloc);
    sf__free(s->alloc, s->prefix);
    sf__free(s->alloc, s->path);
    sf__free(s->alloc, s->current_name);
    rt = s->rt;
    sf__free(s->alloc, s);
    sf_runtime_release(rt);
}

sf_status sf__source_store(sf_source *s, sf_source_kind kind, const char *url, sf_store **store, char **path,
                           sf_error *err)
{
    char *root = url_root(url, s->alloc);
    struct source_store *known;
    sf_store *opened;
    char *below;
    sf_status rc;

    if (!root)
        return sf_fail(err, SF_NOMEM, "store");
    known = known_store(s, kind, root);
    if (known && strcmp(root, "file://") != 0) {
        const char *p = url + strlen(root);
        size_t n;

        p += strspn(p, "/");
        for (n = strlen(p); n > 0 && p[n - 1] == '/';)
            n--;
        sf__free(s->alloc, root);
        *path = sf__strndup(s->alloc, p, n);
        *store = known->store;
        return *path ? SF_OK : sf_fail(err, SF_NOMEM, "path");
    }
    rc = sf__runtime_open_store(s->rt, url, s->s3[kind], &opened, &below, err);
    if (rc != SF_OK) {
        sf__free(s->alloc, root);
        return rc;
    }
    if (known) { /* files: only the path was wanted */
        sf__store_release(opened);
        sf__free(s->alloc, root);
        *store = known->store;
        *path = below;
        return SF_OK;
    }
    rc = remember_store(s, kind, root, opened, err);
    if (rc != SF_OK) {
        sf__free(s->alloc, below);
        return rc;
    }
    *store = opened;
    *path = below;
    return SF_OK;
}
