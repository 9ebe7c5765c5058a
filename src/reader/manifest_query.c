#include "reader/manifest_query.h"

#include "base/error.h"

static const sf_manifests_type *type_of(const sf_manifest_query *q)
{
    return q->source->foreign ? &sf__foreign_manifests : &sf__stored_manifests;
}

static void forget_answer(sf_manifest_query *q)
{
    const sf_allocator *a = q->source->alloc;

    sf__free(a, q->ref);
    sf__buf_release(q->manifest);
    for (size_t i = 0; i < q->ref_count; i++)
        sf__free(a, q->refs[i]);
    sf__free(a, q->refs);
    sf_error_drop(a, q->error);
    q->error = NULL;
    q->ref = NULL;
    q->manifest = NULL;
    q->refs = NULL;
    q->ref_count = 0;
}

static void begin(sf_manifest_query *q)
{
    forget_answer(q);
    q->asked = false;
    q->running = true;
}

void sf__query_current(sf_manifest_query *q)
{
    begin(q);
    type_of(q)->current(q);
}

void sf__query_manifest(sf_manifest_query *q, const char *ref)
{
    begin(q);
    type_of(q)->manifest(q, ref);
}

void sf__query_list(sf_manifest_query *q, size_t limit)
{
    begin(q);
    type_of(q)->list(q, limit);
}

void sf__query_cancel(sf_manifest_query *q)
{
    if (q->running)
        type_of(q)->cancel(q);
}

void sf__query_name_manifest(const sf_manifest_query *q, const char *ref, sf_error *e)
{
    type_of(q)->name(q, ref, e);
}

void sf__query_fail(sf_manifest_query *q, const sf_error *e)
{
    if (!q->error)
        q->error = sf_error_keep(q->source->alloc, e);
}

void sf__query_end(sf_manifest_query *q)
{
    q->running = false;
    q->done(q);
}

bool sf__query_refs_new(sf_manifest_query *q, size_t count)
{
    q->refs = sf__calloc(q->source->alloc, count + 1, sizeof(*q->refs));
    q->ref_count = q->refs ? count : 0;
    return q->refs;
}

void sf__query_cleanup(sf_manifest_query *q)
{
    forget_answer(q);
    sf__free(q->source->alloc, q->key);
    q->key = NULL;
}
