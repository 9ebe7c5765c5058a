#include "store/s3.h"

#include <assert.h>

#include "auth/credential_provider.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "net/proxy.h"
#include "net/retry.h"
#include "store/events.h"
#include "store/hedge.h"
#include "store/s3_call.h"
#include "store/s3_xml.h"

/* Of an operation whose caller sets no deadline: nothing goes on for ever, not even a body that drips. */
#define LONGEST_OPERATION_MS (INT64_C(60) * 60 * 1000)

/* ------------------------------------------------------------------ one operation -------------------------------- */

static void call_free(struct s3_call *c)
{
    const sf_allocator *a = c->s->base.alloc;

    sf__http_request_cleanup(&c->http, a);
    sf__s3_request_cleanup(&c->request, a);
    sf__credentials_release(c->credentials);
    sf__free(a, c->children);
    sf__free(a, c);
}

void sf__s3_call_cancelled(struct s3_call *c)
{
    sf__store_op_cleanup(c->op, c->s->base.alloc);
    sf_fail(&c->error, SF_CANCELLED, "cancelled");
    c->error.attempts = c->attempts;
}

/* Whether the store may have acted on an attempt that failed. */
static bool is_uncertain(const struct s3_call *c)
{
    return c->http.error->code != SF_OK || c->http.status / 100 == 2 || c->http.status == 408 ||
           (c->http.status >= 500 && c->http.status != 503);
}

void sf__s3_call_note_retry(struct s3_call *c, int64_t delay_ms)
{
    struct s3_store *s = c->s;

    if (s->hooks.on_retry)
        s->hooks.on_retry(s->hooks.ctx, sf__store_verb_name(c->op->verb), c->attempts, delay_ms);
    sf__store_events_note(s->events, SF_STORE_RETRY, c->op->verb, c->attempts, delay_ms);
}

static bool call_may_repeat(struct s3_call *c, const sf_s3_answer *ans)
{
    struct s3_store *s = c->s;
    uint64_t now = sf__clock_mono_ns();
    int64_t delay;

    if (!ans->retry || c->op->once)
        return false;
    if (!sf__retry_next(&s->policy, c->attempts - 1, c->started_ns, now, c->deadline_ns, ans->retry_after_ms,
                        sf__random_next(&s->random), &delay)) {
        sf__store_events_note(s->events, SF_STORE_RETRY_EXHAUSTED, c->op->verb, c->attempts, 0);
        if (sf__retry_next(&s->policy, c->attempts - 1, c->started_ns, now, SF_NO_DEADLINE, ans->retry_after_ms, 0,
                           &delay)) {
            sf_error *e = &c->error;

            sf_error_overdue(e, &(sf_overdue){c->started_ns, c->attempts, NULL, e, true});
        }
        return false;
    }
    c->resume_ns = now + (uint64_t)delay * UINT64_C(1000000);
    c->uncertain = c->uncertain || is_uncertain(c);
    sf__log(&s->log, SF_LOG_INFO, "s3", "%s %s/%s: attempt %u failed, the next one in %lld ms: %s",
            sf__store_verb_name(c->op->verb), s->base.url, c->op->key, c->attempts, (long long)delay, c->error.message);
    sf__s3_call_note_retry(c, delay);
    sf__hedge_note_trouble(s->base.hedge);
    return true;
}

/* Once: what is refused with the newest credentials, too, is refused for another reason. */
static bool call_may_renew(struct s3_call *c, sf_refusal why)
{
    struct s3_store *s = c->s;

    if (c->op->once || c->renewed || !sf__credential_provider_renew(s->credentials, c->credentials, why))
        return false;
    c->renewed = c->refused = true;
    sf__log(&s->log, SF_LOG_INFO, "s3", "%s %s/%s: the credentials are refused, others are got: %s",
            sf__store_verb_name(c->op->verb), s->base.url, c->op->key, c->error.message);
    return true;
}

/* ------------------------------------------------------------------ answers -------------------------------------- */

/* Without an error: what the answer does not tell is asked for. Empty objects of ours there are none, so that one is not
 * believed either. */
static enum s3_call_state after_success(struct s3_call *c)
{
    if (c->op->verb != SF_STORE_HEAD)
        return CALL_DONE;
    c->told_empty = c->op->object_size == 0;
    return c->told_empty || c->op->object_size == SF_STORE_ALL ? CALL_ASKING : CALL_DONE;
}

static const char *call_waits_for(const struct s3_call *c)
{
    switch (c->state) {
    case CALL_SIGNING:
        return "credentials";
    case CALL_SENDING:
        return sf__http_waits_for(&c->http);
    case CALL_WAITING:
        return "the time of the next attempt";
    default:
        return NULL;
    }
}

static void s3_progress(const sf_store *store, const sf_store_op *op, sf_store_progress *out)
{
    const struct s3_call *c = op->impl;

    (void)store;
    if (c)
        *out = (sf_store_progress){c->attempts, call_waits_for(c), &c->error};
}

static void call_overdue(struct s3_call *c, const char *waits_for)
{
    sf_error *e = &c->error; /* of the last attempt that ended */

    sf_error_overdue(e, &(sf_overdue){c->started_ns, c->attempts, waits_for, e, false});
}

static void call_on_response(sf_http_request *http)
{
    struct s3_call *c = http->ctx;
    struct s3_store *s = c->s;
    sf_s3_answer ans = {.http = http,
                        .bucket = s->bucket,
                        .region = s->region,
                        .credentials = c->credentials,
                        .attempts = c->attempts,
                        .sent_ns = c->sent_ns,
                        .on_condition = c->on_condition,
                        .uncertain = c->uncertain || http->resent,
                        .error = &c->error};
    enum s3_call_state next = CALL_DONE;
    sf_status rc;

    if (s->hooks.on_request)
        s->hooks.on_request(s->hooks.ctx, sf__buf_bytes(http->response).n);
    c->http_status = (int)http->status;
    c->came_bytes += sf__buf_bytes(http->response).n;
    if (c->state == CALL_CANCELLING) {
        sf__s3_call_cancelled(c);
        sf__s3_call_enter(c, CALL_DONE);
        return;
    }
    if (http->error->code == SF_TIMEOUT) {
        call_overdue(c, http->waited_for);
        sf__s3_call_enter(c, CALL_DONE);
        return;
    }
    rc = sf__s3_response_read(&ans, c->op, s->base.alloc);
    if (rc == SF_OK || ans.refusal == SF_REFUSAL_WRONG || ans.refusal == SF_REFUSAL_EXPIRED)
        atomic_store_explicit(&s->credentials_refused, rc != SF_OK, memory_order_relaxed);
    if (rc == SF_OK)
        next = after_success(c);
    else if (call_may_renew(c, ans.refusal))
        next = CALL_SIGNING;
    else if (ans.cannot)
        next = sf__s3_other_way(c, &ans);
    else if (call_may_repeat(c, &ans))
        next = CALL_WAITING;
    if (next == CALL_DONE && (rc == SF_OK || rc == SF_CONFLICT))
        sf__s3_note_present(c);
    sf__s3_call_enter(c, next);
}

static void call_on_timer(sf_timer *timer)
{
    struct s3_call *c = sf_container_of(timer, struct s3_call, timer);

    if (c->state == CALL_WAITING) {
        sf__s3_call_enter(c, CALL_SIGNING);
        return;
    }
    sf__credential_provider_leave(&c->wait);
    call_overdue(c, call_waits_for(c));
    sf__s3_call_enter(c, CALL_DONE);
}

static void call_on_task(sf_task *task)
{
    sf_store_op *op = sf_container_of(task, sf_store_op, task);

    sf__s3_call_enter(op->impl, CALL_DONE);
}

/* ------------------------------------------------------------------ signing -------------------------------------- */

/* The request is built for these; it stays as it is when they are the same as before. Takes them over. */
static sf_status call_take_credentials(struct s3_call *c, sf_credentials *credentials)
{
    struct s3_store *s = c->s;
    sf_s3_target target = s->target;

    if (credentials == c->credentials) {
        sf__credentials_release(credentials);
        return SF_OK;
    }
    sf__credentials_release(c->credentials);
    c->credentials = credentials;
    target.sign = credentials->access_key_id != NULL;
    target.session_token = credentials->session_token;
    c->on_condition = c->op->if_match || (c->op->create_only && !c->dropped &&
                                          (c->op->strict || !sf__s3_is_missing(s, sf__s3_ability_of(c->op->verb))));
    c->list_v1 = c->list_v1 || (c->op->verb == SF_STORE_LIST && sf__s3_is_missing(s, LISTS_V2) &&
                                (!c->op->continuation || sf__s3_list_marker(c->op->continuation)));
    target.on_condition = c->on_condition;
    target.list_v1 = c->list_v1;
    sf__s3_request_cleanup(&c->request, s->base.alloc);
    sf_error_clear(&c->error);
    return sf__s3_request_build(&c->request, &target, c->op, s->base.alloc, &c->error);
}

static void call_on_credentials(sf_credential_wait *w, sf_credentials *got, const sf_error *err)
{
    struct s3_call *c = sf_container_of(w, struct s3_call, wait);

    sf__timer_stop(c->s->base.loop, &c->timer);
    if (!got) {
        c->error = *err;
        c->error.attempts = c->attempts;
    }
    sf__s3_call_enter(c, got && call_take_credentials(c, got) == SF_OK ? CALL_SENDING : CALL_DONE);
}

static void call_sign(struct s3_call *c)
{
    sf_credentials *got = sf__credential_provider_try(c->s->credentials);

    if (got && c->refused && got == c->credentials) { /* good enough for others */
        sf__credentials_release(got);
        got = NULL;
    }
    if (got) {
        sf__s3_call_enter(c, call_take_credentials(c, got) == SF_OK ? CALL_SENDING : CALL_POSTED);
        return;
    }
    c->timer.fire = call_on_timer;
    sf__timer_start(c->s->base.loop, &c->timer, c->deadline_ns);
    c->wait.done = call_on_credentials;
    sf__credential_provider_wait(c->s->credentials, &c->wait);
}

/* ------------------------------------------------------------------ states --------------------------------------- */

static bool call_may_grow(sf_http_request *r, uint64_t bytes)
{
    struct s3_call *c = r->ctx;

    return c->op->grow(c->op, bytes);
}

static void call_send(struct s3_call *c)
{
    struct s3_store *s = c->s;

    if (c->refused) /* not before: without other credentials there is no other attempt */
        sf__s3_call_note_retry(c, 0);
    c->refused = false;
    c->attempts++;
    c->http = (sf_http_request){
        .config = &s->config,
        .method = c->request.method,
        .url = c->request.url,
        .headers = (const char *const *)c->request.headers,
        .sigv4 = c->credentials->access_key_id ? s->sigv4 : NULL,
        .access_key = c->credentials->access_key_id,
        .secret_key = c->credentials->secret_access_key,
        .body = c->request.body,
        .deadline_ns = c->deadline_ns,
        .max_body_bytes = c->request.max_body_bytes,
        .grow = c->op->grow ? call_may_grow : NULL,
        .expect_body_bytes = c->request.expect_body_bytes,
        .done = call_on_response,
        .ctx = c,
    };
    c->sent_ns = sf__clock_mono_ns();
    sf__http_submit(s->http, &c->http);
}

/* For whoever counts them. */
static void call_note_end(const struct s3_call *c)
{
    if (c->attempts == 0 || c->error.code == SF_CANCELLED) /* other operations did it, or nobody wants it */
        return;
    sf__store_events_note_request(c->s->events, c->op->verb,
                                  &(sf_store_request){
                                      .operation = sf__store_verb_name(c->op->verb),
                                      .http_status = c->http_status,
                                      .attempts = c->attempts,
                                      .bytes = c->op->body.n > 0 ? c->op->body.n : c->came_bytes,
                                      .duration_us = (int64_t)((sf__clock_mono_ns() - c->started_ns) / 1000),
                                      .count = 1,
                                  });
}

static void call_finish(struct s3_call *c)
{
    sf_store_op *op = c->op;
    sf_store *store = &c->s->base;

    if (sf__store_events_want_requests(c->s->events))
        call_note_end(c);
    if (c->error.code != SF_OK)
        sf__store_op_cleanup(op, store->alloc);
    op->impl = NULL;
    sf__store_op_finish(op, &c->error); /* op is the owner's again */
    call_free(c);
    sf__store_release(store);
}

void sf__s3_call_enter(struct s3_call *c, enum s3_call_state next)
{
    c->state = next;
    switch (next) {
    case CALL_SIGNING:
        sf__http_request_cleanup(&c->http, c->s->base.alloc);
        call_sign(c); /* ends in call_on_credentials(), or call_on_timer() */
        break;
    case CALL_SENDING:
        call_send(c); /* ends in call_on_response() */
        break;
    case CALL_WAITING:
        sf__http_request_cleanup(&c->http, c->s->base.alloc);
        c->timer.fire = call_on_timer;
        sf__timer_start(c->s->base.loop, &c->timer, c->resume_ns);
        break;
    case CALL_ASKING:
        sf__http_request_cleanup(&c->http, c->s->base.alloc);
        sf__s3_ask_others(c); /* ends in call_on_child() */
        break;
    case CALL_CANCELLING:
        sf__http_cancel(c->s->http, &c->http); /* ends in call_on_response() */
        break;
    case CALL_POSTED:
        sf__timer_stop(c->s->base.loop, &c->timer);
        c->op->task.run = call_on_task;
        sf__loop_post(c->s->base.loop, &c->op->task);
        break;
    case CALL_DONE:
        call_finish(c); /* c is gone: nothing after this line */
        break;
    }
}

static void s3_submit(sf_store *store, sf_store_op *op)
{
    struct s3_call *c = sf__calloc(store->alloc, 1, sizeof(*c));

    assert(sf__loop_is_current(store->loop));
    op->impl = c;
    if (!c) {
        sf__store_op_fail_later(op, SF_NOMEM, "S3 request");
        return;
    }
    c->s = (struct s3_store *)sf__store_acquire(store);
    c->op = op;
    c->error = (sf_error)SF_ERROR_INIT;
    c->started_ns = sf__clock_mono_ns();
    c->deadline_ns = sf__deadline_in_ms(LONGEST_OPERATION_MS);
    if (op->deadline_ns < c->deadline_ns)
        c->deadline_ns = op->deadline_ns;
    sf__s3_call_enter(c, sf__s3_needs_others(c) ? CALL_ASKING : CALL_SIGNING);
}

static void s3_cancel(sf_store *store, sf_store_op *op)
{
    struct s3_call *c = op->impl;

    assert(sf__loop_is_current(store->loop));
    if (!c) { /* there was no memory; the completion is in the inbox */
        sf__store_op_fail_later(op, SF_CANCELLED, "cancelled");
        return;
    }
    switch (c->state) {
    case CALL_SENDING:
        sf__s3_call_enter(c, CALL_CANCELLING);
        break;
    case CALL_SIGNING:
        sf__credential_provider_leave(&c->wait);
        sf__s3_call_cancelled(c);
        sf__s3_call_enter(c, CALL_POSTED);
        break;
    case CALL_WAITING:
        sf__s3_call_cancelled(c);
        sf__s3_call_enter(c, CALL_POSTED);
        break;
    case CALL_ASKING:
        c->cancelled = true;
        for (size_t i = 0; i < c->child_count; i++)
            if (c->children[i].open)
                sf__store_cancel(store, &c->children[i].op);
        break;
    case CALL_POSTED:
        sf__s3_call_cancelled(c);
        break;
    case CALL_CANCELLING:
    case CALL_DONE:
        break;
    }
}

/* ------------------------------------------------------------------ the store ------------------------------------ */

static void s3_free(sf_store *store)
{
    struct s3_store *s = sf_container_of(store, struct s3_store, base);
    const sf_allocator *a = store->alloc;

    sf__credential_provider_free(s->credentials);
    sf__s3_target_cleanup(&s->target, a);
    sf__free(a, s->sigv4);
    sf__free(a, s->endpoint);
    sf__free(a, s->credentials_said);
    sf__free(a, s->looked_at);
    sf__free(a, s->region);
    sf__free(a, s->ca_bundle);
    sf__free(a, s->bucket);
    sf_store_events_release(s->events);
    sf__hedge_release(store->hedge);
    sf__store_fini(store);
    sf__free(a, s);
}

static void s3_describe(const sf_store *store, sf_bucket_info *out)
{
    const struct s3_store *s = sf_container_of(store, struct s3_store, base);

    out->endpoint_url = s->endpoint;
    out->region = s->region;
    out->virtual_hosted = s->target.virtual_hosted;
    out->encrypted = s->target.encrypted;
    out->insecure = s->config.insecure;
    out->proxied = sf__proxy_of(s->target.bucket_url, &(sf_environment){0}) != NULL;
    out->ca_bundle = s->ca_bundle;
    out->credentials = s->credentials_said;
    out->looked_at = s->looked_at;
    out->credentials_refused = atomic_load_explicit(&s->credentials_refused, memory_order_relaxed);
}

/* What s3_describe() tells. */
static sf_status note_settings(struct s3_store *s, const sf_s3_resolved *resolved, sf_error *err)
{
    const sf_allocator *a = s->base.alloc;
    const sf_credential_origin *origin = &resolved->origin;

    s->endpoint = sf__strdup(a, resolved->options.endpoint_url);
    if (origin->kind != SF_ORIGIN_NONE)
        s->credentials_said = sf__credential_origin_describe(origin, a);
    if (origin->looked_at)
        s->looked_at = sf__strdup(a, origin->looked_at);
    if (!s->endpoint || (origin->kind != SF_ORIGIN_NONE && !s->credentials_said) || (origin->looked_at && !s->looked_at))
        return sf_fail(err, SF_NOMEM, "S3 store");
    return SF_OK;
}

static sf_status configure(struct s3_store *s, const char *bucket, const sf_s3_resolved *resolved,
                           int64_t (*now_us)(void), sf_error *err)
{
    const sf_allocator *a = s->base.alloc;
    const sf_s3_options *opts = &resolved->options;
    sf_status rc;

    s->bucket = sf__strdup(a, bucket);
    s->region = sf__strdup(a, opts->region);
    s->ca_bundle = opts->ca_bundle ? sf__strdup(a, opts->ca_bundle) : NULL;
    s->sigv4 = sf__asprintf(a, "aws:amz:%s:s3", opts->region);
    if (!s->bucket || !s->region || !s->sigv4 || (opts->ca_bundle && !s->ca_bundle))
        return sf_fail(err, SF_NOMEM, "S3 store");
    s->config = (sf_http_config){
        .ca_bundle = s->ca_bundle,
        .insecure = opts->insecure,
        .connect_timeout_ms = opts->connect_timeout_ms,
        .idle_timeout_ms = opts->read_timeout_ms,
    };
    s->policy = (sf_retry_policy){
        .max_retries = opts->max_retries,
        .base_ms = opts->retry_base_ms,
        .cap_ms = opts->retry_cap_ms,
        .total_ms = opts->retry_total_ms,
    };
    s->events = opts->events ? sf_store_events_acquire(opts->events) : NULL;
    sf__random_seed(&s->random);
    rc = note_settings(s, resolved, err);
    if (rc == SF_OK)
        rc = sf__s3_target_init(&s->target, bucket, opts, a, err);
    if (rc != SF_OK)
        return rc;
    return sf__credential_provider_new(&s->credentials, &resolved->origin, s->http, &s->log, now_us, s->base.loop, a,
                                       err);
}

sf_status sf__store_s3_new(sf_store **out, const char *bucket, const sf_s3_resolved *resolved, sf_http *http,
                           const sf_log *log, const sf_s3_hooks *hooks, sf_loop *loop, const sf_allocator *a,
                           sf_error *err)
{
    static const sf_store_vtable vtable = {s3_submit, s3_cancel, s3_free, s3_progress, s3_describe};
    struct s3_store *s;
    char *url;
    bool begun;
    sf_status rc;

    if (!resolved->options.endpoint_url || !resolved->options.region)
        return sf_fail(err, SF_INVALID, "S3 options are not resolved");
    s = sf__calloc(a, 1, sizeof(*s));
    url = sf__asprintf(a, "s3://%s", bucket);
    begun = s && url && sf__store_init(&s->base, &vtable, url, loop, a);
    if (begun)
        s->base.sends_digests = true;
    sf__free(a, url);
    if (!begun) {
        sf__free(a, s);
        return sf_fail(err, SF_NOMEM, "S3 store");
    }
    s->http = http;
    if (log)
        s->log = *log;
    if (hooks)
        s->hooks = *hooks;
    rc = configure(s, bucket, resolved, s->hooks.now_us, err);
    if (rc == SF_OK)
        *out = &s->base;
    else
        s3_free(&s->base);
    return rc;
}
