#include "auth/credential_provider.h"

#include <assert.h>

#include "auth/credential_fetch.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"

/* After a failure the origin is left alone for so long, twice as long after the next one. */
#define REST_MIN_MS 1000
#define REST_MAX_MS 60000
/* A store that refuses fresh credentials is wrong, or its clock is, or they may not do it: getting others would not help. */
#define FRESH_US (INT64_C(5) * 1000000)

/*   IDLE --> BASE --> FETCHING --> IDLE      BASE: a role waits for the credentials that it is assumed with
 * Every arrow passes through provider_enter(). */
enum provider_state { PROVIDER_IDLE, PROVIDER_BASE, PROVIDER_FETCHING };

struct sf_credential_provider {
    const sf_allocator *alloc;
    sf_loop *loop;
    sf_http *http;
    sf_log log;
    int64_t (*now_us)(void);
    sf_credential_origin origin;
    sf_credential_provider *base; /* SF_ORIGIN_ROLE */
    sf_credential_wait base_wait;
    enum provider_state state;
    sf_credentials *current, *base_credentials;
    bool refused;     /* the current ones, by the store; whoever comes waits for others */
    int64_t ahead_us; /* how long before their end newer ones are sent for */
    int64_t fetched_us;
    uint64_t deadline_ns;
    sf_credential_fetch *fetch;
    sf_credential_wait *waiting;
    uint64_t rest_until_ns;
    int64_t rest_ms;
    sf_error failure; /* of the last attempt, for those who come while it rests */
    sf_task failure_task;
    bool told_of_none;
    bool failure_posted, freed; /* freed: as soon as the task is home */
};

static void provider_enter(sf_credential_provider *p, enum provider_state next);
static void failure_post(sf_credential_provider *p);

/* ------------------------------------------------------------------ who waits ------------------------------------ */

static void wait_unlink(sf_credential_wait *w)
{
    *w->link = w->next;
    if (w->next)
        w->next->link = w->link;
    w->next = NULL;
    w->link = NULL;
}

/* Whoever is told may come back at once, or go: so one by one, from the front, and no further than those of now. */
static void tell_all(sf_credential_provider *p, sf_credentials *got, const sf_error *err)
{
    sf_credential_wait *list = p->waiting;
    sf_error copy = err ? *err : (sf_error)SF_ERROR_INIT;

    p->waiting = NULL;
    if (list)
        list->link = &list;
    while (list) {
        sf_credential_wait *w = list;

        wait_unlink(w);
        w->done(w, got ? sf__credentials_acquire(got) : NULL, &copy);
    }
}

void sf__credential_provider_leave(sf_credential_wait *w)
{
    if (w->link)
        wait_unlink(w);
}

/* ------------------------------------------------------------------ getting them --------------------------------- */

static void fail_all(sf_credential_provider *p, const sf_error *err)
{
    p->failure = *err;
    p->rest_ms = p->rest_ms == 0 ? REST_MIN_MS : p->rest_ms * 2 < REST_MAX_MS ? p->rest_ms * 2 : REST_MAX_MS;
    p->rest_until_ns = sf__deadline_in_ms(p->rest_ms);
    sf__log(&p->log, SF_LOG_WARN, "s3", "%s", err->message);
    provider_enter(p, PROVIDER_IDLE);
    tell_all(p, NULL, &p->failure);
}

static void set_current(sf_credential_provider *p, sf_credentials *got, int64_t now)
{
    int64_t life = got->expires_us - now; /* of no meaning when they never end */

    if (got->looked_at && !p->told_of_none) {
        p->told_of_none = true;
        sf__log(&p->log, SF_LOG_WARN, "s3", "no credentials were found; requests go unsigned. Looked at: %s",
                got->looked_at);
    }
    sf__credentials_release(p->current);
    p->current = got;
    p->refused = false;
    p->ahead_us = life / 4 < SF_CREDENTIALS_AHEAD_US ? life / 4 : SF_CREDENTIALS_AHEAD_US;
}

static void on_fetched(void *ctx, sf_status rc, const sf_error *err, sf_credentials *got)
{
    sf_credential_provider *p = ctx;
    int64_t now = p->now_us();

    p->fetch = NULL;
    if (rc == SF_OK && got->expires_us != 0 && got->expires_us <= now) {
        sf_error late = SF_ERROR_INIT;

        sf__credentials_release(got);
        sf_fail(&late, SF_DENIED, "credentials by %s: they have expired before they came",
                sf__origin_name(p->origin.kind));
        fail_all(p, &late);
        return;
    }
    if (rc != SF_OK) {
        fail_all(p, err);
        return;
    }
    set_current(p, got, now);
    p->rest_ms = 0;
    p->rest_until_ns = 0;
    p->fetched_us = now;
    provider_enter(p, PROVIDER_IDLE);
    tell_all(p, got, NULL);
}

static void on_base(sf_credential_wait *w, sf_credentials *got, const sf_error *err)
{
    sf_credential_provider *p = sf_container_of(w, sf_credential_provider, base_wait);

    if (!got) {
        fail_all(p, err);
        return;
    }
    p->base_credentials = got;
    provider_enter(p, PROVIDER_FETCHING);
}

static void fetch_start(sf_credential_provider *p)
{
    sf_error nomem = SF_ERROR_INIT;

    p->fetch = sf__credential_fetch_start(&(sf_credential_fetch_job){
        .origin = &p->origin,
        .base = p->base_credentials,
        .known = p->current,
        .loop = p->loop,
        .http = p->http,
        .alloc = p->alloc,
        .now_us = p->now_us(),
        .deadline_ns = p->deadline_ns,
        .done = on_fetched,
        .ctx = p,
    });
    sf__credentials_release(p->base_credentials);
    p->base_credentials = NULL;
    if (p->fetch)
        return;
    sf_fail(&nomem, SF_NOMEM, "credentials");
    p->failure = nomem;
    provider_enter(p, PROVIDER_IDLE);
    failure_post(p);
}

static void base_start(sf_credential_provider *p)
{
    p->base_credentials = sf__credential_provider_try(p->base);
    if (p->base_credentials) {
        provider_enter(p, PROVIDER_FETCHING);
        return;
    }
    p->base_wait.done = on_base;
    sf__credential_provider_wait(p->base, &p->base_wait);
}

static void provider_enter(sf_credential_provider *p, enum provider_state next)
{
    p->state = next;
    switch (next) {
    case PROVIDER_IDLE:
        break;
    case PROVIDER_BASE:
        base_start(p); /* ends in on_base() */
        break;
    case PROVIDER_FETCHING:
        fetch_start(p); /* ends in on_fetched() */
        break;
    }
}

static void provider_begin(sf_credential_provider *p)
{
    p->deadline_ns = sf__deadline_in_ms(SF_CREDENTIALS_DEADLINE_MS);
    provider_enter(p, p->base ? PROVIDER_BASE : PROVIDER_FETCHING);
}

static bool is_resting(const sf_credential_provider *p)
{
    return p->rest_until_ns > sf__clock_mono_ns();
}

sf_credentials *sf__credential_provider_try(sf_credential_provider *p)
{
    sf_credentials *c = p->current;
    int64_t left;

    assert(sf__loop_is_current(p->loop));
    if (!c || p->refused)
        return NULL;
    if (c->expires_us != 0) {
        left = c->expires_us - p->now_us();
        if (left <= 0)
            return NULL;
        if (left <= p->ahead_us && p->state == PROVIDER_IDLE && !is_resting(p))
            provider_begin(p);
    }
    return sf__credentials_acquire(c);
}

void sf__credential_provider_wait(sf_credential_provider *p, sf_credential_wait *w)
{
    assert(sf__loop_is_current(p->loop));
    w->next = p->waiting;
    w->link = &p->waiting;
    if (w->next)
        w->next->link = &w->next;
    p->waiting = w;
    if (p->state != PROVIDER_IDLE)
        return;
    if (is_resting(p))
        failure_post(p);
    else
        provider_begin(p);
}

static bool is_fresh(const sf_credential_provider *p)
{
    int64_t age = p->now_us() - p->fetched_us;

    return age >= 0 && age < FRESH_US; /* below 0: the clock was set back */
}

bool sf__credential_provider_renew(sf_credential_provider *p, const sf_credentials *refused, sf_refusal why)
{
    bool is_source = p->origin.kind == SF_ORIGIN_SOURCE,
         of_all = why == SF_REFUSAL_EXPIRED || why == SF_REFUSAL_WRONG || !is_source;

    if (why == SF_REFUSAL_NONE || (!is_source && why != SF_REFUSAL_EXPIRED && why != SF_REFUSAL_UNSAID))
        return false;
    if (p->current != refused)
        return true;
    if (p->origin.kind == SF_ORIGIN_GIVEN || p->origin.kind == SF_ORIGIN_NONE || is_fresh(p) ||
        (!of_all && is_resting(p)))
        return false;
    p->refused = p->refused || of_all;
    return true;
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

static void provider_destroy(sf_credential_provider *p)
{
    sf__credential_provider_free(p->base);
    sf__credentials_release(p->current);
    sf__credentials_release(p->base_credentials);
    sf__credential_origin_cleanup(&p->origin);
    sf__free(p->alloc, p);
}

/* For those who must not be told inside their own call. */
static void failure_on_task(sf_task *task)
{
    sf_credential_provider *p = sf_container_of(task, sf_credential_provider, failure_task);

    p->failure_posted = false;
    if (p->freed)
        provider_destroy(p);
    else if (p->state == PROVIDER_IDLE)
        tell_all(p, NULL, &p->failure);
}

static void failure_post(sf_credential_provider *p)
{
    if (p->failure_posted)
        return;
    p->failure_posted = true;
    p->failure_task.run = failure_on_task;
    sf__loop_post(p->loop, &p->failure_task);
}

void sf__credential_provider_free(sf_credential_provider *p)
{
    if (!p)
        return;
    assert(!p->waiting);
    if (p->fetch)
        sf__credential_fetch_drop(p->fetch);
    p->fetch = NULL;
    sf__credential_provider_leave(&p->base_wait);
    p->freed = true;
    if (!p->failure_posted)
        provider_destroy(p);
}

static int64_t clock_now_us(void)
{
    return sf__clock_unix_us();
}

/* What needs no getting is there from the start. Not as something fresh: nobody knows how old it is. */
static sf_status set_given(sf_credential_provider *p, sf_error *err)
{
    const sf_credential_origin *o = &p->origin;
    sf_credentials *got;
    sf_status rc;

    if (o->kind != SF_ORIGIN_NONE && !o->access_key_id)
        return SF_OK;
    if (o->kind == SF_ORIGIN_NONE)
        rc = sf__credentials_none(&got, o->looked_at, 0, p->alloc, err);
    else
        rc = sf__credential_origin_keys(&got, o, p->alloc, err);
    if (rc == SF_OK)
        set_current(p, got, p->now_us());
    return rc;
}

sf_status sf__credential_provider_new(sf_credential_provider **out, const sf_credential_origin *origin, sf_http *http,
                                      const sf_log *log, int64_t (*now_us)(void), sf_loop *loop, const sf_allocator *a,
                                      sf_error *err)
{
    sf_credential_provider *p = sf__calloc(a, 1, sizeof(*p));
    sf_status rc;

    if (!p)
        return sf_fail(err, SF_NOMEM, "credentials");
    p->alloc = a;
    p->loop = loop;
    p->http = http;
    p->now_us = now_us ? now_us : clock_now_us;
    if (log)
        p->log = *log;
    rc = sf__credential_origin_copy(&p->origin, origin, a, err);
    if (rc == SF_OK)
        rc = set_given(p, err);
    if (rc == SF_OK && origin->base)
        rc = sf__credential_provider_new(&p->base, origin->base, http, log, now_us, loop, a, err);
    if (rc == SF_OK)
        *out = p;
    else
        provider_destroy(p);
    return rc;
}
