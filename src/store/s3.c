#include "store/s3.h"

#include <assert.h>

#include "auth/credential_provider.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "net/proxy.h"
#include "net/retry.h"
#include "store/events.h"
#include "store/s3_request.h"
#include "store/s3_response.h"
#include "store/s3_xml.h"

/* Of an operation whose caller sets no deadline: nothing goes on for ever, not even a body that drips. */
#define LONGEST_OPERATION_MS (INT64_C(60) * 60 * 1000)

/* What a store may be unable to do. It is asked in another form from then on: for its life when it has said so by name, or
 * when it is the third time; a proxy's bad moment costs one request a time. */
enum ability { PUTS_ON_CONDITION, COMPLETES_ON_CONDITION, LISTS_V2, DELETES_MANY, HEADS, ABILITIES };
#define LAST_REFUSAL 3u
static const char *const lacks[ABILITIES] = {
    ("store objects on a condition; it is asked before whether they are there, and two writers of one object that look at the "
     "same instant are not told apart"),
    "complete uploads on a condition; two writers of one object that end at the same instant are not told apart",
    "list objects the second way; they are listed the first way",
    "delete many objects at once; they are deleted one by one",
    "say what HEAD asks; one byte of the object is read instead",
};

struct s3_store {
    sf_store base;
    sf_http *http;
    sf_log log;
    sf_s3_hooks hooks;
    sf_credential_provider *credentials;
    sf_s3_target target;
    char *bucket, *region, *ca_bundle, *sigv4;
    char *endpoint, *credentials_said, *looked_at; /* for s3_describe() */
    atomic_bool credentials_refused;
    sf_http_config config;
    sf_retry_policy policy;
    sf_store_events *events; /* acquired, or NULL */
    /* loop thread */
    sf_random random;
    struct {
        uint32_t refusals; /* in a row */
        bool told;
    } missing[ABILITIES];
};

/*   SIGNING --> SENDING <--> WAITING       credentials are awaited; an attempt is under way; its back-off is
 *    |  ^ ^      |  |  |       |  |
 *    |  | +------+--|--|-------+  |         signed anew: after a back-off, and once when they were refused
 *    |  |           |  |          |
 *    |  |           |  +-> CANCELLING       the HTTP layer owes us its completion
 *    |  +- ASKING <-+  |       |            other operations find out, or do, what this one cannot
 *    +------ | --------|-------|--+-> POSTED     ended where done() must not be called
 *            +---------+-------+---------|---> DONE
 * Every arrow passes through call_enter(). */
enum call_state { CALL_SIGNING, CALL_SENDING, CALL_WAITING, CALL_ASKING, CALL_CANCELLING, CALL_POSTED, CALL_DONE };

/* An operation that another one needs. */
struct child {
    sf_store_op op;
    struct call *parent;
    bool open;
};
#define MOST_CHILDREN 16u

struct call {
    struct s3_store *s;
    sf_store_op *op;
    sf_error error; /* of the last attempt that ended; in the end the operation's */
    enum call_state state;
    sf_credentials *credentials; /* what `request` was built for */
    sf_credential_wait wait;
    sf_s3_request request;
    sf_http_request http;
    sf_timer timer; /* SIGNING: the deadline; WAITING: the end of the back-off */
    uint64_t started_ns, resume_ns, deadline_ns;
    uint32_t attempts;
    bool list_v1;      /* `request` does */
    bool on_condition; /* `request` has one */
    bool dropped;      /* its condition: the store does not know it */
    bool told_empty;   /* HEAD's answer: the object */
    bool cancelled;    /* ASKING */
    struct child *children; /* ASKING */
    size_t child_count, children_open, next_key;
    bool renewed;   /* the credentials, because the store refused them */
    bool refused;   /* those that are held: with others, or not at all */
    bool uncertain; /* an attempt ended without saying whether the store did what was asked */
};

static void call_enter(struct call *c, enum call_state next);
static void call_on_child(sf_store_op *done);

/* ------------------------------------------------------------------ one operation -------------------------------- */

static void call_free(struct call *c)
{
    const sf_allocator *a = c->s->base.alloc;

    sf__http_request_cleanup(&c->http, a);
    sf__s3_request_cleanup(&c->request, a);
    sf__credentials_release(c->credentials);
    sf__free(a, c->children);
    sf__free(a, c);
}

static void set_cancelled(struct call *c)
{
    sf__store_op_cleanup(c->op, c->s->base.alloc);
    sf_fail(&c->error, SF_CANCELLED, "cancelled");
    c->error.attempts = c->attempts;
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
        if (sf__retry_next(&s->policy, c->attempts - 1, c->started_ns, now, SF_NO_DEADLINE, ans->retry_after_ms, 0, &delay)) {
            sf_error *e = &c->error;

            sf_error_overdue(e, &(sf_overdue){c->started_ns, c->attempts, NULL, e, true});
        }
        return false;
    }
    c->resume_ns = now + (uint64_t)delay * UINT64_C(1000000);
    c->uncertain = c->uncertain || is_uncertain(c);
    sf__log(&s->log, SF_LOG_INFO, "s3", "%s %s/%s: attempt %u failed, the next one in %lld ms: %s",
            sf__store_verb_name(c->op->verb), s->base.url, c->op->key, c->attempts, (long long)delay,
            c->error.message);
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
            sf__store_verb_name(c->op->verb), s->base.url, c->op->key, c->error.message);
    return true;
}

/* ------------------------------------------------------------------ what a store cannot --------------------------- */

static bool is_missing(const struct s3_store *s, enum ability what)
{
    return s->missing[what].refusals >= LAST_REFUSAL;
}

static void note_missing(struct call *c, enum ability what, bool plainly)
{
    struct s3_store *s = c->s;

    s->missing[what].refusals = plainly ? LAST_REFUSAL : s->missing[what].refusals + !is_missing(s, what);
    if (!s->missing[what].told)
        sf__log(&s->log, SF_LOG_WARN, "s3", "%s: the store cannot %s%s%s", s->base.url, lacks[what],
                c->error.message[0] ? ": " : "", c->error.message);
    s->missing[what].told = true;
}


static enum ability ability_of(sf_store_verb verb)
{
    switch (verb) {
    case SF_STORE_PUT:
        return PUTS_ON_CONDITION;
    case SF_STORE_MULTIPART_COMPLETE:
        return COMPLETES_ON_CONDITION;
    case SF_STORE_LIST:
        return LISTS_V2;
    case SF_STORE_DELETE_MANY:
        return DELETES_MANY;
    case SF_STORE_HEAD:
        return HEADS;
    default:
        return ABILITIES;
    }
}

/* After an answer that shows that the store knows what was asked: what it has refused before was somebody's bad moment. */
static void note_present(struct call *c)
{
    enum ability what = ability_of(c->op->verb);
    bool asked = what == LISTS_V2 ? !c->list_v1 : what == DELETES_MANY || what == HEADS || c->on_condition;

    if (what != ABILITIES && asked && !is_missing(c->s, what))
        c->s->missing[what].refusals = 0;
}

/* Whether other operations have to come before this one, or in its place. */
static bool needs_others(const struct call *c)
{
    enum ability what = ability_of(c->op->verb);

    switch (what) {
    case PUTS_ON_CONDITION:
        return c->op->create_only && !c->op->strict && is_missing(c->s, what);
    case DELETES_MANY:
    case HEADS:
        return is_missing(c->s, what);
    default:
        return false;
    }
}

/* Begun anew, with a request that is built anew. */
static enum call_state rebuilt(struct call *c)
{
    sf__credentials_release(c->credentials);
    c->credentials = NULL;
    return CALL_SIGNING;
}

/* After an answer that the store does not know what was asked in this form: the other form; CALL_DONE when that is none. A
 * completed upload goes without its condition: its callers have looked before whether the object is there, which is as near as
 * it gets. */
static enum call_state call_other_way(struct call *c, const sf_s3_answer *ans)
{
    enum ability what = ability_of(c->op->verb);

    if (what == HEADS)
        return CALL_ASKING; /* what that says decides what is noted */
    if (what == PUTS_ON_CONDITION && (c->op->if_match || c->op->strict))
        return CALL_DONE;
    if (what == LISTS_V2 && (c->list_v1 || (c->op->continuation && !sf__s3_list_marker(c->op->continuation))))
        return CALL_DONE; /* halfway through there is no other */
    note_missing(c, what, ans->plainly);
    note_retry(c, 0);
    if (what == DELETES_MANY)
        return CALL_ASKING;
    c->list_v1 = what == LISTS_V2;
    c->dropped = what == PUTS_ON_CONDITION || what == COMPLETES_ON_CONDITION;
    return what == PUTS_ON_CONDITION ? CALL_ASKING : rebuilt(c);
}

/* What the last byte of an object tells of it. */
static void after_size(struct call *c, const sf_store_op *child)
{
    sf_store_op *op = c->op;
    uint64_t size = child->object_size;

    if (c->error.code != SF_OK && child->longer > 0 && child->longer != SF_STORE_ALL) { /* ranges are ignored, but that is told */
        sf_error_clear(&c->error);
        size = child->longer;
    }
    if (c->error.code != SF_OK && c->told_empty) {
        sf_error_clear(&c->error);
        return;
    }
    if (c->error.code != SF_OK)
        return;
    if (!c->told_empty || size > 0)
        note_missing(c, HEADS, false);
    op->object_size = size;
    if (child->etag[0])
        memcpy(op->etag, child->etag, sizeof(op->etag));
}

/* What the other operations ended with is this one's end, unless they were but to find something out. */
static enum call_state after_others(struct call *c)
{
    sf_store_op *op = c->op, *child = &c->children[0].op;

    if (c->cancelled) {
        set_cancelled(c);
        return CALL_DONE;
    }
    if (op->verb == SF_STORE_PUT && c->error.code == SF_NOT_FOUND) {
        sf_error_clear(&c->error);
        c->dropped = true;
        return rebuilt(c);
    }
    if (op->verb == SF_STORE_PUT && c->error.code == SF_OK) {
        op->may_be_ours = c->uncertain;
        sf_fail(&c->error, SF_CONFLICT, "the object is there; the store cannot compare, so it was asked before%s",
                c->uncertain ? "; an earlier attempt, whose answer was lost, may have succeeded" : "");
        c->error.http_status = 200;
    } else if (op->verb == SF_STORE_HEAD) {
        after_size(c, child);
    }
    if (op->verb != SF_STORE_DELETE_MANY)
        c->error.attempts = c->attempts;
    return CALL_DONE;
}

static void child_start(struct call *c, struct child *child)
{
    static const struct {
        sf_store_verb verb;
        uint64_t len;
    } asks[] = {[SF_STORE_PUT] = {SF_STORE_HEAD, 0}, [SF_STORE_HEAD] = {SF_STORE_GET_SUFFIX, 1},
                [SF_STORE_DELETE_MANY] = {SF_STORE_DELETE, 0}};

    child->parent = c;
    child->open = true;
    child->op = (sf_store_op){
        .verb = asks[c->op->verb].verb,
        .len = asks[c->op->verb].len,
        .key = c->op->verb == SF_STORE_DELETE_MANY ? c->op->keys[c->next_key++] : c->op->key,
        .deadline_ns = c->deadline_ns,
        .done = call_on_child,
        .ctx = child,
    };
    c->children_open++;
    sf__store_submit(&c->s->base, &child->op);
}

static void call_on_child(sf_store_op *done)
{
    struct child *child = done->ctx;
    struct call *c = child->parent;

    child->open = false;
    c->children_open--;
    c->attempts += done->error->attempts;
    if (done->error->code != SF_OK && c->error.code == SF_OK) {
        c->error = *done->error;
        c->error.operation[0] = '\0'; /* it is a part of ours */
    }
    sf__store_op_cleanup(done, c->s->base.alloc);
    if (c->error.code == SF_OK && !c->cancelled && c->op->verb == SF_STORE_DELETE_MANY && c->next_key < c->op->key_count)
        child_start(c, child);
    else if (c->children_open == 0)
        call_enter(c, after_others(c));
}

/* Ends in call_on_child(): no operation completes inside of its submission. */
static void call_ask(struct call *c)
{
    size_t count = c->op->verb == SF_STORE_DELETE_MANY ? c->op->key_count : 1;

    c->child_count = count < MOST_CHILDREN ? count : MOST_CHILDREN;
    sf_error_clear(&c->error);
    c->children = sf__calloc(c->s->base.alloc, c->child_count, sizeof(*c->children));
    if (!c->children) {
        sf_fail(&c->error, SF_NOMEM, "S3 request");
        call_enter(c, CALL_POSTED);
        return;
    }
    for (size_t i = 0; i < c->child_count; i++)
        child_start(c, &c->children[i]);
}

/* ------------------------------------------------------------------ answers -------------------------------------- */

/* Without an error: what the answer does not tell is asked for. Empty objects of ours there are none, so that one is not
 * believed either. */
static enum call_state after_success(struct call *c)
{
    if (c->op->verb != SF_STORE_HEAD)
        return CALL_DONE;
    c->told_empty = c->op->object_size == 0;
    return c->told_empty || c->op->object_size == SF_STORE_ALL ? CALL_ASKING : CALL_DONE;
}

static const char *call_waits_for(const struct call *c)
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
    const struct call *c = op->impl;

    (void)store;
    if (c)
        *out = (sf_store_progress){c->attempts, call_waits_for(c), &c->error};
}

static void call_overdue(struct call *c, const char *waits_for)
{
    sf_error *e = &c->error; /* of the last attempt that ended */

    sf_error_overdue(e, &(sf_overdue){c->started_ns, c->attempts, waits_for, e, false});
}

static void call_on_response(sf_http_request *http)
{
    struct call *c = http->ctx;
    struct s3_store *s = c->s;
    sf_s3_answer ans = {.http = http, .bucket = s->bucket, .region = s->region, .credentials = c->credentials,
                        .attempts = c->attempts, .on_condition = c->on_condition,
                        .uncertain = c->uncertain || http->resent, .error = &c->error};
    enum call_state next = CALL_DONE;
    sf_status rc;

    if (s->hooks.on_request)
        s->hooks.on_request(s->hooks.ctx, sf__buf_bytes(http->response).n);
    if (c->state == CALL_CANCELLING) {
        set_cancelled(c);
        call_enter(c, CALL_DONE);
        return;
    }
    if (http->error.code == SF_TIMEOUT) {
        call_overdue(c, http->waited_for);
        call_enter(c, CALL_DONE);
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
        next = call_other_way(c, &ans);
    else if (call_may_repeat(c, &ans))
        next = CALL_WAITING;
    if (next == CALL_DONE && (rc == SF_OK || rc == SF_CONFLICT))
        note_present(c);
    call_enter(c, next);
}

static void call_on_timer(sf_timer *timer)
{
    struct call *c = sf_container_of(timer, struct call, timer);

    if (c->state == CALL_WAITING) {
        call_enter(c, CALL_SIGNING);
        return;
    }
    sf__credential_provider_leave(&c->wait);
    call_overdue(c, call_waits_for(c));
    call_enter(c, CALL_DONE);
}

static void call_on_task(sf_task *task)
{
    sf_store_op *op = sf_container_of(task, sf_store_op, task);

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
    c->on_condition = c->op->if_match || (c->op->create_only && !c->dropped &&
                                          (c->op->strict || !is_missing(s, ability_of(c->op->verb))));
    c->list_v1 = c->list_v1 || (c->op->verb == SF_STORE_LIST && is_missing(s, LISTS_V2) &&
                                (!c->op->continuation || sf__s3_list_marker(c->op->continuation)));
    target.on_condition = c->on_condition;
    target.list_v1 = c->list_v1;
    sf__s3_request_cleanup(&c->request, s->base.alloc);
    sf_error_clear(&c->error);
    return sf__s3_request_build(&c->request, &target, c->op, s->base.alloc, &c->error);
}

static void call_on_credentials(sf_credential_wait *w, sf_credentials *got, const sf_error *err)
{
    struct call *c = sf_container_of(w, struct call, wait);

    sf__timer_stop(c->s->base.loop, &c->timer);
    if (!got) {
        c->error = *err;
        c->error.attempts = c->attempts;
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

    if (c->error.code != SF_OK)
        sf__store_op_cleanup(op, store->alloc);
    op->impl = NULL;
    sf__store_op_finish(op, &c->error); /* op is the owner's again */
    call_free(c);
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
    case CALL_ASKING:
        sf__http_request_cleanup(&c->http, c->s->base.alloc);
        call_ask(c); /* ends in call_on_child() */
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
    call_enter(c, needs_others(c) ? CALL_ASKING : CALL_SIGNING);
}

static void s3_cancel(sf_store *store, sf_store_op *op)
{
    struct call *c = op->impl;

    assert(sf__loop_is_current(store->loop));
    if (!c) { /* there was no memory; the completion is in the inbox */
        sf__store_op_fail_later(op, SF_CANCELLED, "cancelled");
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
    case CALL_ASKING:
        c->cancelled = true;
        for (size_t i = 0; i < c->child_count; i++)
            if (c->children[i].open)
                sf__store_cancel(store, &c->children[i].op);
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
    sf__free(a, s->endpoint);
    sf__free(a, s->credentials_said);
    sf__free(a, s->looked_at);
    sf__free(a, s->region);
    sf__free(a, s->ca_bundle);
    sf__free(a, s->bucket);
    sf_store_events_release(s->events);
    sf__store_fini(store);
    sf__free(a, s);
}

static void s3_describe(const sf_store *store, sf_bucket_info *out)
{
    const struct s3_store *s = (const struct s3_store *)store;

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
    rc = note_settings(s, resolved, err);
    if (rc == SF_OK)
        rc = sf__s3_target_init(&s->target, bucket, opts, a, err);
    if (rc != SF_OK)
        return rc;
    return sf__credential_provider_new(&s->credentials, &resolved->origin, s->http, &s->log, now_us, s->base.loop, a, err);
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
