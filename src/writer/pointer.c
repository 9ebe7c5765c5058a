#include "writer/pointer.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "snapshot/relocation.h"
#include "writer/manifest_store.h"

/* Of a caller's store: what it names is all that there is to know. */
static sf_status load_from_store(const sf_site *s, sf_pointer *out, sf_error *err)
{
    char *ref = NULL;
    sf_status rc = sf__manifest_store_current(s, &ref, err);

    if (rc == SF_OK)
        *out = (sf_pointer){.exists = ref != NULL, .parsed = ref != NULL, .current = {.manifest_ref = ref}};
    return rc;
}

sf_status sf__pointer_load(const sf_site *s, const sf_cancel_flag *cancel, sf_pointer *out, sf_error *err)
{
    sf_pointer p = {.exists = true, .why = SF_ERROR_INIT};
    sf_error e = SF_ERROR_INIT;
    sf_buf *bytes = NULL;
    sf_status rc;

    if (s->manifests)
        return load_from_store(s, out, err);
    rc = sf__site_get(s, s->current_name, SF_LIMIT_CURRENT_BYTES, cancel, &bytes, p.etag, &e);
    if (rc == SF_NOT_FOUND) {
        *out = (sf_pointer){.exists = false};
        return SF_OK;
    }
    if (rc == SF_OK) {
        rc = sf__current_parse(&p.current, sf__buf_bytes(bytes), s->rt->alloc, &e);
        p.parsed = rc == SF_OK;
        sf__buf_release(bytes);
    }
    if (rc == SF_BAD_MANIFEST) {
        p.why = e;
        rc = SF_OK;
    }
    if (rc == SF_OK)
        *out = p;
    else if (err)
        *err = e;
    return rc;
}

void sf__pointer_cleanup(const sf_site *s, sf_pointer *p)
{
    sf__current_cleanup(&p->current, s->rt->alloc);
    *p = (sf_pointer){0};
}

bool sf__pointer_names(const sf_site *s, const sf_pointer *p, const char *ref)
{
    return p->parsed && (s->manifests ? strcmp(p->current.manifest_ref, ref) == 0
                                      : sf__location_same_manifest(p->current.manifest_ref, ref));
}

static sf_status fail_conflict(const sf_site *s, const sf_pointer *p, const sf_expectation *expected, char **found,
                               sf_error *err)
{
    const char *now = !p->exists ? "nothing" : p->parsed ? p->current.manifest_ref : "something unreadable";
    char url[512];

    if (s->manifests)
        snprintf(url, sizeof(url), "%s", s->manifests->name);
    else
        snprintf(url, sizeof(url), "%s/%s", s->prefix, s->current_name);
    sf_fail(err, SF_CONFLICT, "another snapshot was published: the pointer names %s, expected was %s", now,
            expected->kind == SF_EXPECT_ABSENT ? "none"
            : expected->ref                    ? expected->ref
                                               : "what it was");
    sf_error_object(err, url);
    if (found && p->parsed)
        *found = sf__strdup(s->rt->alloc, p->current.manifest_ref);
    return SF_CONFLICT;
}

bool sf__same_reference(const sf_site *s, const char *a, const char *b)
{
    return s->manifests ? strcmp(a, b) == 0 : sf__location_same(a, b);
}

static bool is_expected(const sf_site *s, const sf_pointer *p, const sf_expectation *expected)
{
    switch (expected->kind) {
    case SF_EXPECT_ABSENT:
        return !p->exists;
    case SF_EXPECT_REF:
        return p->parsed && sf__same_reference(s, p->current.manifest_ref, expected->ref);
    case SF_EXPECT_ANY:
        break;
    }
    return true;
}

sf_status sf__pointer_check(const sf_site *s, const sf_expectation *expected, const sf_cancel_flag *cancel,
                            char **found, sf_error *err)
{
    sf_pointer now;
    sf_status rc;

    if (expected->kind == SF_EXPECT_ANY)
        return SF_OK;
    rc = sf__pointer_load(s, cancel, &now, err);
    if (rc != SF_OK)
        return rc;
    if (!is_expected(s, &now, expected))
        rc = fail_conflict(s, &now, expected, found, err);
    sf__pointer_cleanup(s, &now);
    return rc;
}

/* The pointer lost between our look at it and the put: says against what. */
static sf_status explain_conflict(const sf_site *s, const sf_expectation *expected, char **found, sf_error *err)
{
    sf_pointer now;

    if (sf__pointer_load(s, NULL, &now, NULL) != SF_OK)
        return SF_CONFLICT; /* the store's own words stay */
    fail_conflict(s, &now, expected, found, err);
    sf__pointer_cleanup(s, &now);
    return SF_CONFLICT;
}

sf_status sf__pointer_move(const sf_site *s, const char *ref, const char *run_id, const sf_expectation *expected,
                           const sf_cancel_flag *cancel, char **found, bool *uncertain, sf_error *err)
{
    sf_site_put put = {.name = s->current_name, .content_type = SF_CURRENT_CONTENT_TYPE};
    sf_pointer before = {.exists = false};
    char *text = NULL;
    sf_status rc = SF_OK;

    if (expected->kind != SF_EXPECT_ANY) {
        rc = sf__pointer_load(s, cancel, &before, err);
        if (rc == SF_OK && !is_expected(s, &before, expected))
            rc = fail_conflict(s, &before, expected, found, err);
        if (rc == SF_OK && expected->kind == SF_EXPECT_REF && before.etag[0] == '\0')
            rc = sf_fail(err, SF_UNSUPPORTED, "%s: the store gives no ETag to compare the pointer with", s->prefix);
        put.create_only = put.strict = expected->kind == SF_EXPECT_ABSENT;
        put.if_match = put.create_only ? NULL : before.etag;
    }
    if (rc == SF_OK)
        rc = sf__current_format(&text, ref, SF_MANIFEST_CONTENT_TYPE, run_id, sf__clock_unix_us(), s->rt->alloc, err);
    if (rc == SF_OK) {
        put.body = sf_bytes_str(text);
        /* not to be cancelled: it would not be known whether it moved */
        rc = sf__site_put(s, &put, NULL, uncertain, err);
        if (rc == SF_CONFLICT)
            rc = explain_conflict(s, expected, found, err);
    }
    sf__free(s->rt->alloc, text);
    sf__pointer_cleanup(s, &before);
    return rc;
}
