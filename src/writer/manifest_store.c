#include "writer/manifest_store.h"

#include <string.h>

#include "base/error.h"
#include "base/grow.h"
#include "base/options.h"

struct sf_manifest_answer {
    const sf_allocator *alloc;
    char *ref, *found;
    sf_buf *manifest;
    sf_manifest_ref *refs;
    size_t count, cap;
};

/* ------------------------------------------------------------------ copies --------------------------------------- */

sf_status sf__manifest_store_copy(sf_manifest_store *out, const sf_manifest_store *given, sf_error *err)
{
    sf_manifest_store m = {.size = sizeof(m)};
    sf_status rc = sf__options_take(&m, sizeof(m), given, "store of manifests", err);

    if (rc != SF_OK)
        return rc;
    if (!m.name || !m.publish || !m.load_current || !m.load_manifest || !m.list_manifests || !m.retain != !m.release)
        return sf_fail(err, SF_INVALID, "the store of manifests lacks its name, or a function");
    if (m.retain)
        m.retain(m.ctx);
    *out = m;
    return SF_OK;
}

void sf__manifest_store_release(sf_manifest_store *m)
{
    if (m->release)
        m->release(m->ctx);
    *m = (sf_manifest_store){0};
}

/* ------------------------------------------------------------------ answers -------------------------------------- */

static sf_status set_text(const sf_manifest_answer *a, char **where, const char *text)
{
    sf__free(a->alloc, *where);
    *where = text ? sf__strdup(a->alloc, text) : NULL;
    return *where || !text ? SF_OK : SF_NOMEM;
}

sf_status sf_manifest_answer_ref(sf_manifest_answer *out, const char *ref)
{
    return set_text(out, &out->ref, ref);
}

sf_status sf_manifest_answer_found(sf_manifest_answer *out, const char *ref)
{
    return set_text(out, &out->found, ref);
}

sf_status sf_manifest_answer_manifest(sf_manifest_answer *out, sf_bytes manifest)
{
    sf__buf_release(out->manifest);
    out->manifest = sf__buf_copy(out->alloc, manifest);
    return out->manifest ? SF_OK : SF_NOMEM;
}

sf_status sf_manifest_answer_entry(sf_manifest_answer *out, const char *ref, const char *run_id, int64_t published_at_us)
{
    sf_manifest_ref r = {.published_at_us = published_at_us};

    if (!SF_RESERVE(out->alloc, &out->refs, &out->cap, out->count + 1))
        return SF_NOMEM;
    r.ref = sf__strdup(out->alloc, ref);
    r.run_id = sf__strdup(out->alloc, run_id);
    if (!r.ref || !r.run_id) {
        sf__free(out->alloc, r.ref);
        sf__free(out->alloc, r.run_id);
        return SF_NOMEM;
    }
    out->refs[out->count++] = r;
    return SF_OK;
}

static void answer_cleanup(sf_manifest_answer *a)
{
    sf__free(a->alloc, a->ref);
    sf__free(a->alloc, a->found);
    sf__buf_release(a->manifest);
    sf__manifest_refs_free(a->refs, a->count, a->alloc);
}

/* ------------------------------------------------------------------ questions ------------------------------------ */

/* Some store of somebody's: it may fail without a word. */
static sf_status said(const sf_site *s, sf_status rc, const char *what, sf_error *e, sf_error *err)
{
    if (rc == SF_OK)
        return rc;
    if (e->code != rc)
        sf_fail(e, rc, "%s: %s: %s", s->manifests->name, what, e->message[0] ? e->message : sf_status_name(rc));
    if (err)
        *err = *e;
    return rc;
}

sf_status sf__manifest_store_current(const sf_site *s, char **ref, sf_error *err)
{
    sf_manifest_answer a = {.alloc = s->rt->alloc};
    sf_error e = SF_ERROR_INIT;
    sf_status rc = said(s, s->manifests->load_current(s->manifests->ctx, &a, &e), "load_current", &e, err);

    if (rc == SF_OK) {
        *ref = a.ref;
        a.ref = NULL;
    }
    answer_cleanup(&a);
    return rc;
}

sf_status sf__manifest_store_load(const sf_site *s, const char *ref, sf_buf **out, sf_error *err)
{
    sf_manifest_answer a = {.alloc = s->rt->alloc};
    sf_error e = SF_ERROR_INIT;
    sf_status rc = said(s, s->manifests->load_manifest(s->manifests->ctx, ref, &a, &e), "load_manifest", &e, err);

    if (rc == SF_OK && !a.manifest)
        rc = sf_fail(err, SF_INVALID, "%s has told no manifest %s", s->manifests->name, ref);
    if (rc == SF_OK) {
        *out = a.manifest;
        a.manifest = NULL;
    }
    answer_cleanup(&a);
    return rc;
}

sf_status sf__manifest_store_list(const sf_site *s, sf_manifest_ref **out, size_t *count, sf_error *err)
{
    sf_manifest_answer a = {.alloc = s->rt->alloc};
    sf_error e = SF_ERROR_INIT;
    sf_status rc = said(s, s->manifests->list_manifests(s->manifests->ctx, &a, &e), "list_manifests", &e, err);

    if (rc == SF_OK) {
        *out = a.refs;
        *count = a.count;
        a.refs = NULL;
        a.count = 0;
    }
    answer_cleanup(&a);
    return rc;
}

sf_status sf__manifest_store_publish(const sf_site *s, const sf_publication *what, char **ref, char **found, sf_error *err)
{
    sf_manifest_answer a = {.alloc = s->rt->alloc};
    sf_error e = SF_ERROR_INIT;
    sf_status rc = said(s, s->manifests->publish(s->manifests->ctx, what, &a, &e), "publish", &e, err);

    if (rc == SF_OK && !a.ref) { /* readers may use its shards: it must not look as if nothing had happened */
        rc = sf_fail(err, SF_INVALID, "%s has published run %s and told no reference", s->manifests->name, what->run_id);
        (void)set_text(&a, &a.ref, what->run_id);
    }
    *ref = a.ref; /* of a conflict, too: the store tells it once it may have happened */
    *found = rc == SF_CONFLICT ? a.found : NULL;
    a.ref = NULL;
    if (*found)
        a.found = NULL;
    answer_cleanup(&a);
    return rc;
}
