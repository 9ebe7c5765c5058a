#include "store/s3.h"

#include <assert.h>

#include "auth/credential_provider.h"
#include "base/clock.h"
#include "base/error.h"
#include "net/retry.h"
#include "store/events.h"
#include "store/s3_request.h"
#include "store/s3_response.h"

/* Of an operation whose caller sets no deadline: nothing goes on for ever, not even a body that drips. */
#define LONGEST_OPERATION_MS (INT64_C(60) * 60 * 1000)

struct s3_store {
    sf_store base;
    sf_http *http;
    sf_log log;
    sf_s3_hooks hooks;
    sf_credential_provider *credentials;
    sf_s3_target target;
    char *bucket, *region, *ca_bundle, *sigv4;
    sf_http_config config;
    sf_retry_policy policy;
    sf_store_events *events; /* acquired, or NULL */
    sf_random random; /* loop thread */
};

/*   SIGNING --> SENDING <--> WAITING       credentials are awaited; an attempt is under way; its back-off is
 *    |  ^ ^      |  |  |       |  |
 *    |  | +------+--|--|-------+  |         signed anew: after a back-off, and once when they were refused
 *    |  |           |  |          |
 *    |  |           |  +-> CANCELLING       the HTTP layer owes us its completion
 *    +--|-----------|----------|--+-> POSTED     ended where done() must not be called
 *       |           +----------+---------|---> DONE
 * Every arrow passes through call_enter(). */
enum call_state { CALL_SIGNING, CALL_SENDING, CALL_WAITING, CALL_CANCELLING, CALL_POSTED, CALL_DONE };

struct call {
    struct s3_store *s;
    sf_store_op *op;
    enum call_state state;
    sf_credentials *credentials; /* what `request` was built for */
    sf_credential_wait wait;
    sf_s3_request request;
    sf_http_request http;
    sf_timer timer; /* SIGNING: the deadline; WAITING: the end of the back-off */
    uint64_t started_ns, resume_ns, deadline_ns;
    uint32_t attempts;
    bool on_condition; /* `request` completes an upload and has one */
    bool renewed;   /* the credentials, because the store refused them */
    bool refused;   /* those that are held: with others, or not at all */
    bool uncertain; /* an attempt ended without saying whether the store did what was asked */
};

static void call_enter(struct call *c, enum call_state next);

/* ------------------------------------------------------------------ one operation -------------------------------- */

static void call_free(struct call *c)
{
    const sf_allocator *a = c->s->base.alloc;

    sf__http_request_cleanup(&c->http, a);
    sf__s3_request_cleanup(&c->request, a);
    sf__credentials_release(c->credentials);
    sf__free(a, c);
}

static void set_cancelled(struct call *c)
{
    sf__store_op_cleanup(c->op, c->s->base.alloc);
    sf_fail(&c->op->error, SF_CANCELLED, "cancelled");
    c->op->error.attempts = c->attempts;
}

/* Whether the store may have acted on an attempt that failed. */
static bool is_uncertain(const struct call *c)
{
    return c->http.error.code != SF_OK || c->http.status / 100 == 2 || c->http.status == 408 ||
           (c->http.status >= 500 && c->http.status != 503);
}

static void note_retry(struct call *c, int64_t delay_ms)
{
    struct s3_store *s = c->s;

    if (s->hooks.on_retry)
        s->hooks.on_retry(s->hooks.ctx, sf__store_verb_name(c->op->verb), c->attempts, delay_ms);
    sf__store_events_note(s->events, SF_STORE_RETRY, c->op->verb, c->attempts, delay_ms);
}

static bool call_may_repeat(struct call *c, const sf_s3_answer *ans)
{
    struct s3_store *s = c->s;
    uint64_t now = sf__clock_mono_ns();
    int64_t delay;

    if (!ans->retry)
        return false;
    if (!sf__retry_next(&s->policy, c->attempts - 1, c->started_ns, now, c->deadline_ns, ans->retry_after_ms,
                        sf__random_next(&s->random), &delay)) {
        sf__store_events_note(s->events, SF_STORE_RETRY_EXHAUSTED, c->op->verb, c->attempts, 0);
        return false;
    }
    c->resume_ns = now + (uint64_t)delay * UINT64_C(1000000);
    c->uncertain = c->uncertain || is_uncertain(c);
    sf__log(&s->log, SF_LOG_INFO, "s3", "%s %s/%s: attempt %u failed, the next one in %lld ms: %s",
            sf__store_verb_name(c->op->verb), s->base.url, c->op->key, c->attempts, (long long)delay,
            c->op->error.message);
    note_retry(c, delay);
    return true;
}

/* Once: what is refused with the newest credentials, too, is refused for another reason. */
static bool call_may_renew(struct call *c, sf_refusal why)
{
    struct s3_store *s = c->s;

    if (c->renewed || !sf__credential_provider_renew(s->credentials, c->credentials, why))
        return false;
    c->renewed = c->refused = true;
    sf__log(&s->log, SF_LOG_INFO, "s3", "%s %s/%s: the credentials are refused, others are got: %s",
            sf__store_verb_name(c->op->verb), s->base.url, c->op->key, c->op->error.message);
    return true;
}

/* From here on no upload of this store is completed on a condition. Its callers have looked before whether the object is
 * there, which is as near as it gets. */
static bool call_may_drop_condition(struct call *c)
{
    struct s3_store *s = c->s;

    if (!c->on_condition)
        return false;
    if (s->target.completes_on_condition)
        sf__log(&s->log, SF_LOG_WARN, "s3", "%s: the store cannot complete uploads on a condition; two writers of one object "
                "that end at the same instant are not told apart: %s", s->base.url, c->op->error.message);
    s->target.completes_on_condition = false;
    note_retry(c, 0);
    sf__credentials_release(c->credentials); /* so that the request is built anew */
    c->credentials = NULL;
    return true;
}

static void call_on_response(sf_http_request *http)
{
    struct call *c = http->ctx;
    struct s3_store *s = c->s;
    sf_s3_answer ans = {.http = http, .bucket = s->bucket, .region = s->region, .credentials = c->credentials,
                        .attempts = c->attempts, .uncertain = c->uncertain || http->resent};
    sf_status rc;

    if (s->hooks.on_request)
        s->hooks.on_request(s->hooks.ctx, sf__buf_bytes(http->response).n);
    if (c->state == CALL_CANCELLING) {
        set_cancelled(c);
        call_enter(c, CALL_DONE);
        return;
    }
    rc = sf__s3_response_read(&ans, c->op, s->base.alloc);
    if ((rc == SF_UNSUPPORTED && call_may_drop_condition(c)) || (rc != SF_OK && call_may_renew(c, ans.refusal)))
        call_enter(c, CALL_SIGNING);
    else
        call_enter(c, rc != SF_OK && call_may_repeat(c, &ans) ? CALL_WAITING : CALL_DONE);
}

static void call_on_timer(sf_timer *timer)
{
    struct call *c = (struct call *)((char *)timer - offsetof(struct call, timer));

    if (c->state == CALL_WAITING) {
        call_enter(c, CALL_SIGNING);
        return;
    }
    sf__credential_provider_leave(&c->wait);
    sf_fail(&c->op->error, SF_TIMEOUT, "the deadline passed while credentials were awaited");
    c->op->error.attempts = c->attempts;
    call_enter(c, CALL_DONE);
}

static void call_on_task(sf_task *task)
{
    sf_store_op *op = (sf_store_op *)((char *)task - offsetof(sf_store_op, task));

    call_enter(op->impl, CALL_DONE);
}

/* ------------------------------------------------------------------ signing -------------------------------------- */

/* The request is built for these; it stays as it is when they are the same as before. Takes them over. */
static sf_status call_take_credentials(struct call *c, sf_credentials *credentials)
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
    c->on_condition = c->op->verb == SF_STORE_MULTIPART_COMPLETE && c->op->create_only && target.completes_on_condition;
    sf__s3_request_cleanup(&c->request, s->base.alloc);
    sf_error_clear(&c->op->error);
    return sf__s3_request_build(&c->request, &target, c->op, s->base.alloc, &c->op->error);
}

static void call_on_credentials(sf_credential_wait *w, sf_credentials *got, const sf_error *err)
{
    struct call *c = (struct call *)((char *)w - offsetof(struct call, wait));

    sf__timer_stop(c->s->base.loop, &c->timer);
    if (!got) {
        c->op->error = *err;
        c->op->error.attempts = c->attempts;
    }
    call_enter(c, got && call_take_credentials(c, got) == SF_OK ? CALL_SENDING : CALL_DONE);
}

static void call_sign(struct call *c)
{
    sf_credentials *got = sf__credential_provider_try(c->s->credentials);

    if (got && c->refused && got == c->credentials) { /* good enough for others */
        sf__credentials_release(got);
        got = NULL;
    }
    if (got) {
        call_enter(c, call_take_credentials(c, got) == SF_OK ? CALL_SENDING : CALL_POSTED);
        return;
    }
    c->timer.fire = call_on_timer;
    sf__timer_start(c->s->base.loop, &c->timer, c->deadline_ns);
    c->wait.done = call_on_credentials;
    sf__credential_provider_wait(c->s->credentials, &c->wait);
}

/* ------------------------------------------------------------------ states --------------------------------------- */

static void call_send(struct call *c)
{
    struct s3_store *s = c->s;

    if (c->refused) /* not before: without other credentials there is no other attempt */
        note_retry(c, 0);
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
        .expect_body_bytes = c->request.expect_body_bytes,
        .done = call_on_response,
        .ctx = c,
        .error = SF_ERROR_INIT,
    };
    sf__http_submit(s->http, &c->http);
}

static void call_finish(struct call *c)
{
    sf_store_op *op = c->op;
    sf_store *store = &c->s->base;

    if (op->error.code != SF_OK)
        sf__store_op_cleanup(op, store->alloc);
    op->impl = NULL;
    call_free(c);
    sf__store_op_finish(op); /* op is the owner's again */
    sf__store_release(store);
}

static void call_enter(struct call *c, enum call_state next)
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
    struct call *c = sf__calloc(store->alloc, 1, sizeof(*c));

    assert(sf__loop_is_current(store->loop));
    op->impl = c;
    if (!c) {
        sf_fail(&op->error, SF_NOMEM, "S3 request");
        sf__store_op_finish_later(op);
        return;
    }
    c->s = (struct s3_store *)sf__store_acquire(store);
    c->op = op;
    c->started_ns = sf__clock_mono_ns();
    c->deadline_ns = sf__deadline_in_ms(LONGEST_OPERATION_MS);
    if (op->deadline_ns < c->deadline_ns)
        c->deadline_ns = op->deadline_ns;
    call_enter(c, CALL_SIGNING);
}

static void s3_cancel(sf_store *store, sf_store_op *op)
{
    struct call *c = op->impl;

    assert(sf__loop_is_current(store->loop));
    if (!c) { /* there was no memory; the completion is in the inbox */
        sf_fail(&op->error, SF_CANCELLED, "cancelled");
        return;
    }
    switch (c->state) {
    case CALL_SENDING:
        call_enter(c, CALL_CANCELLING);
        break;
    case CALL_SIGNING:
        sf__credential_provider_leave(&c->wait);
        set_cancelled(c);
        call_enter(c, CALL_POSTED);
        break;
    case CALL_WAITING:
        set_cancelled(c);
        call_enter(c, CALL_POSTED);
        break;
    case CALL_POSTED:
        set_cancelled(c);
        break;
    case CALL_CANCELLING:
    case CALL_DONE:
        break;
    }
}

/* ------------------------------------------------------------------ the store ------------------------------------ */

static void s3_free(sf_store *store)
{
    struct s3_store *s = (struct s3_store *)store;
    const sf_allocator *a = store->alloc;

    sf__credential_provider_free(s->credentials);
    sf__s3_target_cleanup(&s->target, a);
    sf__free(a, s->sigv4);
    sf__free(a, s->region);
    sf__free(a, s->ca_bundle);
    sf__free(a, s->bucket);
    sf_store_events_release(s->events);
    sf__store_fini(store);
    sf__free(a, s);
}

static sf_status configure(struct s3_store *s, const char *bucket, const sf_s3_resolved *resolved, int64_t (*now_us)(void),
                           sf_error *err)
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
    rc = sf__s3_target_init(&s->target, bucket, opts, a, err);
    if (rc != SF_OK)
        return rc;
    return sf__credential_provider_new(&s->credentials, &resolved->origin, s->http, &s->log, now_us, s->base.loop, a, err);
}

sf_status sf__store_s3_new(sf_store **out, const char *bucket, const sf_s3_resolved *resolved, sf_http *http,
                           const sf_log *log, const sf_s3_hooks *hooks, sf_loop *loop, const sf_allocator *a,
                           sf_error *err)
{
    static const sf_store_vtable vtable = {s3_submit, s3_cancel, s3_free};
    struct s3_store *s;
    char *url;
    bool begun;
    sf_status rc;

    if (!resolved->options.endpoint_url || !resolved->options.region)
        return sf_fail(err, SF_INVALID, "S3 options are not resolved");
    s = sf__calloc(a, 1, sizeof(*s));
    url = sf__asprintf(a, "s3://%s", bucket);
    begun = s && url && sf__store_init(&s->base, &vtable, url, loop, a);
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
