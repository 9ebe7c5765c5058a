/* Manifests of a source of the caller's: a question goes out, and comes home with an answer, unless its deadline or a
 * cancellation drops it first. */
#include "base/container.h"
#include "base/error.h"
#include "base/limits.h"
#include "net/question.h"
#include "reader/manifest_query.h"

#include <stdio.h>

/* Of a text only so much is kept; an sf_error shows less. */
#define TEXT_BYTES 1024u

enum request_kind { REQUEST_CURRENT, REQUEST_MANIFEST, REQUEST_LIST };

struct sf_manifest_request {
    sf_question question;
    atomic_uint refs;  /* the question's, while it lives, and the source's */
    atomic_bool taken; /* somebody answers, or has */
    enum request_kind kind;
    sf_foreign_manifests *manifests; /* acquired */
    void *call_ctx;
    sf_manifest_query *query; /* loop thread; NULL: dropped */
    /* the answer; the process's memory */
    sf_status code;
    char text[TEXT_BYTES];
    char *ref;
    uint8_t *bytes;
    size_t byte_count;
    char **list;
    size_t list_count;
};

/* ------------------------------------------------------------------ requests ------------------------------------- */

static void forget(sf_manifest_request *rq)
{
    const sf_allocator *a = &sf__allocator_default;

    sf__free(a, rq->ref);
    sf__free(a, rq->bytes);
    for (size_t i = 0; i < rq->list_count; i++)
        sf__free(a, rq->list[i]);
    sf__free(a, rq->list);
    rq->ref = NULL;
    rq->bytes = NULL;
    rq->list = NULL;
    rq->byte_count = rq->list_count = 0;
}

static void request_unref(sf_manifest_request *rq)
{
    if (atomic_fetch_sub_explicit(&rq->refs, 1, memory_order_acq_rel) != 1)
        return;
    forget(rq);
    sf__foreign_manifests_release(rq->manifests);
    sf__free(&sf__allocator_default, rq);
}

static void question_free(sf_question *q)
{
    request_unref(sf_container_of(q, sf_manifest_request, question));
}

static void set_failure(sf_manifest_request *rq, sf_status code, const char *text)
{
    size_t n;

    if (!text)
        text = "no reason was given";
    n = strnlen(text, TEXT_BYTES - 1);
    forget(rq);
    rq->code = code;
    memcpy(rq->text, text, n);
    rq->text[n] = '\0';
}

/* Whoever gets true answers, and nobody else. */
static bool take(sf_manifest_request *rq)
{
    return !atomic_exchange_explicit(&rq->taken, true, memory_order_acq_rel);
}

static bool send(sf_manifest_request *rq, bool complete)
{
    if (!complete)
        set_failure(rq, SF_NOMEM, "the answer");
    return sf__question_answer(&rq->question);
}

bool sf_manifest_request_current(sf_manifest_request *rq, const char *ref)
{
    if (rq->kind != REQUEST_CURRENT || !take(rq))
        return false;
    if (!ref) {
        set_failure(rq, SF_NO_CURRENT, "CURRENT pointer not found");
        return send(rq, true);
    }
    rq->ref = sf__strdup(&sf__allocator_default, ref);
    return send(rq, rq->ref);
}

bool sf_manifest_request_manifest(sf_manifest_request *rq, sf_bytes bytes)
{
    if (rq->kind != REQUEST_MANIFEST || !take(rq))
        return false;
    if (bytes.n > SF_LIMIT_SNAPSHOT_MANIFEST_BYTES) {
        set_failure(rq, SF_BAD_MANIFEST, "the manifest is longer than a manifest may be");
        return send(rq, true);
    }
    rq->bytes = sf__realloc(&sf__allocator_default, NULL, bytes.n + 1);
    if (rq->bytes && bytes.n > 0)
        memcpy(rq->bytes, bytes.p, bytes.n);
    rq->byte_count = bytes.n;
    return send(rq, rq->bytes);
}

bool sf_manifest_request_refs(sf_manifest_request *rq, const char *const *refs, size_t count)
{
    const sf_allocator *a = &sf__allocator_default;
    bool complete;

    if (rq->kind != REQUEST_LIST || !take(rq))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!refs || !refs[i]) {
            set_failure(rq, SF_INVALID, "the source of manifests lists one without a reference");
            return send(rq, true);
        }
    }
    rq->list = sf__calloc(a, count + 1, sizeof(*rq->list));
    complete = rq->list;
    for (size_t i = 0; complete && i < count; i++) {
        rq->list[i] = sf__strdup(a, refs[i]);
        rq->list_count = i + 1;
        complete = rq->list[i];
    }
    return send(rq, complete);
}

bool sf_manifest_request_fail(sf_manifest_request *rq, sf_status code, const char *text)
{
    if (!take(rq))
        return false;
    if (code <= SF_WOULD_BLOCK || code >= SF_STATUS_COUNT) /* no failures */
        code = SF_IO;
    set_failure(rq, code, text);
    return send(rq, true);
}

void *sf_manifest_request_call_ctx(const sf_manifest_request *rq)
{
    return rq->call_ctx;
}

void sf_manifest_request_release(sf_manifest_request *rq)
{
    if (!rq)
        return;
    sf_manifest_request_fail(rq, SF_INVALID, "the source of manifests has given no answer");
    request_unref(rq);
}

/* ------------------------------------------------------------------ asking --------------------------------------- */

/* Into memory of the reader's. */
static sf_status take_answer(sf_manifest_query *q, const sf_manifest_request *rq, sf_error *err)
{
    const sf_allocator *a = q->source->alloc;
    bool complete = true;

    if (rq->code != SF_OK)
        return sf_fail(err, rq->code, "%s", rq->text);
    switch (rq->kind) {
    case REQUEST_CURRENT:
        q->ref = sf__strdup(a, rq->ref);
        complete = q->ref;
        break;
    case REQUEST_MANIFEST:
        q->manifest = sf__buf_copy(a, sf_bytes_of(rq->bytes, rq->byte_count));
        complete = q->manifest;
        break;
    case REQUEST_LIST:
        complete = sf__query_refs_new(q, rq->list_count < q->limit ? rq->list_count : q->limit);
        for (size_t i = 0; complete && i < q->ref_count; i++) {
            q->refs[i] = sf__strdup(a, rq->list[i]);
            complete = q->refs[i];
        }
        break;
    }
    return complete ? SF_OK : sf_fail(err, SF_NOMEM, "the answer of the source of manifests");
}

static void request_answered(sf_question *question)
{
    sf_manifest_request *rq = sf_container_of(question, sf_manifest_request, question);
    sf_manifest_query *q = rq->query;
    sf_error e; /* filled by failures only */

    sf__timer_stop(q->source->site.rt->loop, &q->timer);
    q->request = NULL;
    if (!q->error && take_answer(q, rq, &e) != SF_OK) /* cancelled, or late: the answer was on its way already */
        sf__query_fail(q, &e);
    sf__question_release(&rq->question);
    sf__query_end(q);
}

/* Nobody waits any more, because of `e`. */
static void give_up(sf_manifest_query *q, const sf_error *e)
{
    sf_manifest_request *rq = q->request;
    const sf_manifest_source *source = &rq->manifests->source;

    sf__query_fail(q, e);
    atomic_fetch_add_explicit(&rq->refs, 1, memory_order_relaxed);
    if (sf__question_drop(&rq->question)) {
        sf__question_release(&rq->question);
        sf__timer_stop(q->source->site.rt->loop, &q->timer);
        q->request = NULL;
        if (source->abandoned)
            source->abandoned(source->ctx, rq);
        sf__query_end(q);
    }
    request_unref(rq);
}

static void request_late(sf_timer *timer)
{
    static const char *const names[] = {
        [REQUEST_CURRENT] = "load_current", [REQUEST_MANIFEST] = "load_manifest", [REQUEST_LIST] = "list_manifests"};
    sf_manifest_query *q = sf_container_of(timer, sf_manifest_query, timer);
    const char *name = names[q->request->kind];
    sf_error e;

    sf_error_overdue(&e, &(sf_overdue){.since_ns = q->since_ns, .waits_for = "the source of manifests to answer"});
    sf_error_prefix(&e, SF_TIMEOUT, "%s: ", name);
    snprintf(e.operation, sizeof(e.operation), "%s", name);
    give_up(q, &e);
}

static sf_manifest_request *request_new(sf_manifest_query *q, enum request_kind kind)
{
    sf_manifest_request *rq = sf__calloc(&sf__allocator_default, 1, sizeof(*rq));
    sf_error e; /* filled by failures only */

    if (!rq) {
        sf_fail(&e, SF_NOMEM, "a question to the source of manifests");
        sf__query_fail(q, &e);
        sf__query_end(q);
        return NULL;
    }
    sf__question_init(&rq->question, q->source->site.rt->loop, request_answered, question_free);
    atomic_init(&rq->refs, 2);
    rq->kind = kind;
    rq->manifests = sf__foreign_manifests_acquire(q->source->foreign);
    rq->call_ctx = q->call_ctx;
    rq->query = q;
    q->request = rq;
    q->asked = true;
    q->since_ns = sf__clock_mono_ns();
    q->timer.fire = request_late;
    sf__timer_start(q->source->site.rt->loop, &q->timer, q->deadline_ns);
    return rq;
}

static void current(sf_manifest_query *q)
{
    sf_manifest_request *rq = request_new(q, REQUEST_CURRENT);

    if (rq)
        rq->manifests->source.load_current(rq->manifests->source.ctx, rq);
}

static void manifest(sf_manifest_query *q, const char *ref)
{
    sf_manifest_request *rq = request_new(q, REQUEST_MANIFEST);

    if (rq)
        rq->manifests->source.load_manifest(rq->manifests->source.ctx, ref, rq);
}

static void list(sf_manifest_query *q, size_t limit)
{
    sf_manifest_request *rq;

    q->limit = limit;
    rq = request_new(q, REQUEST_LIST);
    if (rq)
        rq->manifests->source.list_manifests(rq->manifests->source.ctx, limit, rq);
}

static void cancel(sf_manifest_query *q)
{
    sf_error e;

    sf_fail(&e, SF_CANCELLED, "cancelled");
    give_up(q, &e);
}

static void name_manifest(const sf_manifest_query *q, const char *ref, sf_error *e)
{
    (void)q;
    sf_error_prefix(e, e->code, "%s: ", ref);
    sf_error_object(e, ref);
}

const sf_manifests_type sf__foreign_manifests = {
    .current = current, .manifest = manifest, .list = list, .cancel = cancel, .name = name_manifest};
