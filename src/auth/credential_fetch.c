#include "auth/credential_fetch.h"

#include <stdio.h>

#include "auth/credential_process.h"
#include "auth/fault.h"
#include "auth/profile.h"
#include "auth/said.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/wipe.h"
#include "net/retry.h"
#include "net/url.h"

#define MAX_ANSWER_BYTES (64u << 10)
#define MAX_ATTEMPTS 3u
/* The machine's own endpoints answer at once or not at all. */
#define NEAR_CONNECT_MS 1000
#define NEAR_IDLE_MS 2000
#define FAR_CONNECT_MS 5000
#define FAR_IDLE_MS 10000
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define METADATA_PATH "/latest/meta-data/iam/security-credentials/"
#define MAX_HEADERS 4u
/* That nobody answers may pass: a metadata service that is busy while its machine starts must not leave us without
 * credentials for good. */
#define NOBODY_US (INT64_C(60) * 1000000)

/*   START --> GATHERING --> ASKING <--> PAUSING      a worker reads a file or runs the command; requests, one after the
 *     |          |            |                      other; the back-off between two attempts at one
 *     +--> CALLING            |                      a source of the caller's thinks
 *                |            |
 *                +------------+------> DONE          completed by its done(), through the inbox where it must not be now
 *                |
 *                +--> DROPPED                        nobody waits any more, a worker or the inbox still has it
 * Every arrow passes through fetch_enter(). */
enum fetch_state {
    FETCH_START,
    FETCH_GATHERING,
    FETCH_CALLING,
    FETCH_ASKING,
    FETCH_PAUSING,
    FETCH_DONE,
    FETCH_DROPPED
};

struct sf_credential_fetch {
    sf_credential_fetch_job job;
    sf_origin_kind kind;
    enum fetch_state state;
    sf_allocator wiping; /* for everything below that may hold a secret */
    sf_error error;
    sf_credentials *base, *known, *got;
    sf_credential_answer *answer; /* CALLING */
    /* GATHERING; a worker's while it runs */
    sf_work work;
    char *path_or_command, complaint[SF_SAID_BYTES];
    atomic_bool stop;
    char *text;
    size_t text_n;
    sf_status gathered;
    /* ASKING */
    unsigned step, attempts; /* which of the requests, and how often it was made */
    sf_http_config config;
    sf_http_request http;
    char *url, *body, *headers[MAX_HEADERS + 1], *sigv4;
    size_t header_count;
    char *token, *role; /* of the metadata service: what the steps before brought */
    sf_timer timer;     /* CALLING: the deadline; PAUSING: the end of the back-off */
    sf_task task;
};

static void fetch_enter(sf_credential_fetch *f, enum fetch_state next);

/* ------------------------------------------------------------------ parts ---------------------------------------- */

static void request_clear(sf_credential_fetch *f)
{
    for (size_t i = 0; i < f->header_count; i++) {
        sf__free(&f->wiping, f->headers[i]);
        f->headers[i] = NULL;
    }
    f->header_count = 0;
    sf__free(&f->wiping, f->url);
    sf__free(&f->wiping, f->body);
    sf__free(&f->wiping, f->sigv4);
    f->url = f->body = f->sigv4 = NULL;
}

static void answer_clear(sf_credential_fetch *f)
{
    if (f->http.response)
        explicit_bzero(f->http.response->data, f->http.response->n);
    sf__http_request_cleanup(&f->http, f->job.alloc);
}

static void fetch_free(sf_credential_fetch *f)
{
    const sf_allocator *a = f->job.alloc;

    request_clear(f);
    answer_clear(f);
    sf__credentials_release(f->base);
    sf__credentials_release(f->known);
    sf__credentials_release(f->got);
    sf__secret_free(a, f->path_or_command);
    if (f->text)
        explicit_bzero(f->text, f->text_n);
    sf__free(a, f->text);
    sf__free(&f->wiping, f->token);
    sf__free(&f->wiping, f->role);
    sf__free(a, f);
}

static sf_status fail_nomem(sf_credential_fetch *f)
{
    return sf_fail(&f->error, SF_NOMEM, "credentials");
}

/* Text from elsewhere that goes into a header or a URL: without the blanks around it, and none inside. */
static sf_bytes trimmed(sf_bytes b)
{
    while (b.n > 0 && b.p[b.n - 1] <= ' ')
        b.n--;
    while (b.n > 0 && b.p[0] <= ' ')
        b = sf_bytes_of(b.p + 1, b.n - 1);
    return b;
}

static bool is_plain(sf_bytes b)
{
    for (size_t i = 0; i < b.n; i++)
        if (b.p[i] <= ' ' || b.p[i] == 0x7f)
            return false;
    return b.n > 0;
}

/* "Basic abc" has a blank, and may. */
static bool has_control(sf_bytes b)
{
    for (size_t i = 0; i < b.n; i++)
        if (b.p[i] < ' ' || b.p[i] == 0x7f)
            return true;
    return false;
}

static void add_header(sf_credential_fetch *f, const char *name, sf_bytes value)
{
    sf_strbuf b;

    sf__strbuf_init(&b, &f->wiping);
    sf__strbuf_printf(&b, "%s: ", name);
    sf__strbuf_add(&b, value.p, value.n);
    f->headers[f->header_count] = sf__strbuf_detach(&b);
    if (f->headers[f->header_count])
        f->header_count++;
    else
        fail_nomem(f);
}

static void add_parameter(sf_strbuf *b, const char *name, sf_bytes value)
{
    if (b->n > 0 && b->s[b->n - 1] != '?')
        sf__strbuf_putc(b, '&');
    sf__strbuf_printf(b, "%s=", name);
    sf__url_encode(b, value, false);
}

static void set_url(sf_credential_fetch *f, sf_strbuf *b)
{
    f->url = sf__strbuf_detach(b);
    if (!f->url)
        fail_nomem(f);
}

/* Whether it holds what we know to be secret, beyond what looks so. */
static bool leaks(const sf_credential_fetch *f, const char *text)
{
    const char *const secrets[] = {
        f->known ? f->known->secret_access_key : NULL,
        f->known ? f->known->session_token : NULL,
        f->base ? f->base->secret_access_key : NULL,
        f->base ? f->base->session_token : NULL,
        f->token,
        f->job.origin->authorization,
    };

    for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++)
        if (secrets[i] && *secrets[i] && strstr(text, secrets[i]))
            return true;
    return false;
}

/* "...; VERB: what it said", for whoever has to mend it. */
static void append_said(sf_credential_fetch *f, const char *verb, sf_bytes text)
{
    char said[SF_SAID_BYTES];
    size_t n = strlen(f->error.message);

    sf__said(said, sizeof(said), text);
    snprintf(f->error.message + n, sizeof(f->error.message) - n, "; %s%s%s", verb, said[0] ? ": " : " nothing",
             leaks(f, said) ? "(text withheld)" : said);
}

/* ------------------------------------------------------------------ gathering ------------------------------------ */

static void gather_on_worker(sf_work *work)
{
    sf_credential_fetch *f = sf_container_of(work, sf_credential_fetch, work);
    sf_text_file file = {0};

    if (f->kind == SF_ORIGIN_PROCESS) {
        f->gathered = sf__credential_process_run(&f->text, &f->text_n, f->complaint, f->path_or_command,
                                                 f->job.deadline_ns, &f->stop, f->job.alloc, &f->error);
        return;
    }
    f->gathered = sf__text_file_read(&file, f->path_or_command, true, f->job.alloc, &f->error);
    if (f->gathered == SF_OK && !file.s)
        f->gathered = sf_fail(&f->error, SF_INVALID, "%s: no such file", f->path_or_command);
    f->text = file.s;
    f->text_n = file.n;
}

static sf_status read_sso_token(sf_credential_fetch *f)
{
    char *token;
    int64_t expires_us;
    sf_status rc = sf__sso_token_parse(&token, &expires_us, sf_bytes_of(f->text, f->text_n), f->job.alloc, &f->error);

    if (rc != SF_OK)
        return sf_error_prefix(&f->error, rc, "%s: ", f->path_or_command);
    f->token = sf__strdup(&f->wiping, token);
    sf__secret_free(f->job.alloc, token);
    if (!f->token)
        return fail_nomem(f);
    if (expires_us <= f->job.now_us)
        return sf_fail(&f->error, SF_DENIED, "%s: the log-in has expired: run `aws sso login`", f->path_or_command);
    return SF_OK;
}

static sf_status read_token(sf_credential_fetch *f)
{
    sf_bytes token = trimmed(sf_bytes_of(f->text, f->text_n));

    if (!is_plain(token))
        return sf_fail(&f->error, SF_INVALID, "%s: not a token", f->path_or_command);
    f->token = sf__strndup(&f->wiping, token.p, token.n);
    return f->token ? SF_OK : fail_nomem(f);
}

static void gather_on_done(sf_work *work)
{
    sf_credential_fetch *f = sf_container_of(work, sf_credential_fetch, work);
    sf_status rc = f->gathered;

    if (f->state == FETCH_DROPPED) {
        fetch_free(f);
        return;
    }
    if (rc == SF_OK && f->kind == SF_ORIGIN_PROCESS) {
        rc = sf__credentials_parse(&f->got, SF_CREDENTIALS_FROM_PROCESS, sf_bytes_of(f->text, f->text_n), f->job.alloc,
                                   &f->error);
        if (rc != SF_OK)
            append_said(f, "it printed", sf_bytes_of(f->text, f->text_n));
        if (rc != SF_OK && f->complaint[0])
            append_said(f, "it complained", sf_bytes_str(f->complaint));
        fetch_enter(f, FETCH_DONE);
        return;
    }
    if (rc == SF_OK)
        rc = f->kind == SF_ORIGIN_SSO ? read_sso_token(f) : read_token(f);
    fetch_enter(f, rc == SF_OK ? FETCH_ASKING : FETCH_DONE);
}

/* ------------------------------------------------------------------ calling -------------------------------------- */

static void call_on_answer(sf_task *task)
{
    sf_credential_fetch *f = sf_container_of(task, sf_credential_fetch, task);

    sf__timer_stop(f->job.loop, &f->timer);
    sf__answer_take(&f->got, f->answer, f->known, f->job.alloc, &f->error);
    if (f->state == FETCH_DROPPED)
        fetch_free(f);
    else
        fetch_enter(f, FETCH_DONE);
}

static void call_on_timer(sf_timer *timer)
{
    sf_credential_fetch *f = sf_container_of(timer, sf_credential_fetch, timer);

    if (!sf__answer_drop(f->answer)) /* it is in the inbox, after all */
        return;
    sf_fail(&f->error, SF_TIMEOUT, "it has not answered in time");
    fetch_enter(f, FETCH_DONE);
}

static void call_start(sf_credential_fetch *f)
{
    f->task.run = call_on_answer;
    if (sf__asker_ask(&f->answer, f->job.origin->asker, f->job.loop, &f->task, &f->error) != SF_OK) {
        fetch_enter(f, FETCH_DONE);
        return;
    }
    f->timer.fire = call_on_timer;
    sf__timer_start(f->job.loop, &f->timer, f->job.deadline_ns);
}

/* ------------------------------------------------------------------ asking --------------------------------------- */

static void ask_token_service(sf_credential_fetch *f)
{
    const sf_credential_origin *o = f->job.origin;
    bool with_token = f->kind == SF_ORIGIN_WEB_IDENTITY;
    sf_strbuf b;

    sf__strbuf_init(&b, &f->wiping);
    if (!with_token)
        sf__strbuf_printf(&b, "%s/?", o->endpoint);
    /* in the order of their names: that is how they are signed */
    add_parameter(&b, "Action", sf_bytes_str(with_token ? "AssumeRoleWithWebIdentity" : "AssumeRole"));
    if (o->external_id)
        add_parameter(&b, "ExternalId", sf_bytes_str(o->external_id));
    add_parameter(&b, "RoleArn", sf_bytes_str(o->role_arn));
    add_parameter(&b, "RoleSessionName", sf_bytes_str(o->session_name));
    add_parameter(&b, "Version", sf_bytes_str("2011-06-15"));
    if (!with_token) {
        set_url(f, &b);
        add_header(f, "x-amz-content-sha256", sf_bytes_str(EMPTY_SHA256));
        if (f->base->session_token)
            add_header(f, "x-amz-security-token", sf_bytes_str(f->base->session_token));
        f->sigv4 = sf__asprintf(&f->wiping, "aws:amz:%s:sts", o->region);
        if (!f->sigv4)
            fail_nomem(f);
        return;
    }
    add_parameter(&b, "WebIdentityToken", sf_bytes_str(f->token)); /* in the body: URLs get around */
    f->body = sf__strbuf_detach(&b);
    f->url = sf__asprintf(&f->wiping, "%s/", o->endpoint);
    if (!f->body || !f->url)
        fail_nomem(f);
    add_header(f, "Content-Type", sf_bytes_str("application/x-www-form-urlencoded"));
}

static void ask_portal(sf_credential_fetch *f)
{
    const sf_credential_origin *o = f->job.origin;
    sf_strbuf b;

    sf__strbuf_init(&b, &f->wiping);
    sf__strbuf_printf(&b, "%s/federation/credentials?", o->endpoint);
    add_parameter(&b, "account_id", sf_bytes_str(o->account));
    add_parameter(&b, "role_name", sf_bytes_str(o->role_name));
    set_url(f, &b);
    add_header(f, "x-amz-sso_bearer_token", sf_bytes_str(f->token));
}

static void ask_container(sf_credential_fetch *f)
{
    const sf_credential_origin *o = f->job.origin;
    const char *authorization = f->token ? f->token : o->authorization;

    f->url = sf__strdup(&f->wiping, o->endpoint);
    if (!f->url)
        fail_nomem(f);
    if (authorization && has_control(trimmed(sf_bytes_str(authorization))))
        sf_fail(&f->error, SF_INVALID, "the authorization token holds a control character");
    else if (authorization)
        add_header(f, "Authorization", trimmed(sf_bytes_str(authorization)));
}

/* Version 2 of the metadata service: a token for this session, the name of the role, its credentials. */
static void ask_machine(sf_credential_fetch *f)
{
    const sf_credential_origin *o = f->job.origin;
    sf_strbuf b;

    sf__strbuf_init(&b, &f->wiping);
    sf__strbuf_puts(&b, o->endpoint);
    sf__strbuf_puts(&b, f->step == 0 ? "/latest/api/token" : METADATA_PATH);
    if (f->step == 2)
        sf__url_encode(&b, sf_bytes_str(f->role), false);
    set_url(f, &b);
    if (f->step == 0)
        add_header(f, "X-aws-ec2-metadata-token-ttl-seconds", sf_bytes_str("21600"));
    else
        add_header(f, "X-aws-ec2-metadata-token", sf_bytes_str(f->token));
}

static const char *method_of(const sf_credential_fetch *f)
{
    if (f->kind == SF_ORIGIN_WEB_IDENTITY)
        return "POST";
    return f->kind == SF_ORIGIN_MACHINE && f->step == 0 ? "PUT" : "GET";
}

static void request_build(sf_credential_fetch *f)
{
    bool near = f->kind == SF_ORIGIN_MACHINE || f->kind == SF_ORIGIN_CONTAINER;

    request_clear(f);
    f->config = (sf_http_config){
        .ca_bundle = f->job.origin->ca_bundle,
        .connect_timeout_ms = near ? NEAR_CONNECT_MS : FAR_CONNECT_MS,
        .idle_timeout_ms = near ? NEAR_IDLE_MS : FAR_IDLE_MS,
        .direct = near, /* no proxy knows this machine's own addresses */
    };
    switch (f->kind) {
    case SF_ORIGIN_WEB_IDENTITY:
    case SF_ORIGIN_ROLE:
        ask_token_service(f);
        break;
    case SF_ORIGIN_SSO:
        ask_portal(f);
        break;
    case SF_ORIGIN_CONTAINER:
        ask_container(f);
        break;
    case SF_ORIGIN_MACHINE:
        ask_machine(f);
        break;
    default:
        sf_fail(&f->error, SF_INVALID, "there is nothing to ask");
        break;
    }
}

static void ask_on_answer(sf_http_request *http);

static void ask_send(sf_credential_fetch *f)
{
    f->attempts++;
    sf_error_clear(&f->error);
    if (!f->url)
        request_build(f);
    if (f->error.code != SF_OK) {
        fetch_enter(f, FETCH_DONE);
        return;
    }
    f->http = (sf_http_request){
        .config = &f->config,
        .method = method_of(f),
        .url = f->url,
        .headers = (const char *const *)f->headers,
        .sigv4 = f->sigv4,
        .access_key = f->sigv4 ? f->base->access_key_id : NULL,
        .secret_key = f->sigv4 ? f->base->secret_access_key : NULL,
        .body = f->body ? sf_bytes_str(f->body) : (sf_bytes){0},
        .deadline_ns = f->job.deadline_ns,
        .max_body_bytes = MAX_ANSWER_BYTES,
        .done = ask_on_answer,
        .ctx = f,
    };
    sf__http_submit(f->job.http, &f->http);
}

/* ------------------------------------------------------------------ answers -------------------------------------- */

/* A 200. SF_OK with f->got, or with the next step set up. */
static sf_status read_answer(sf_credential_fetch *f)
{
    sf_bytes body = sf__buf_bytes(f->http.response), line;
    sf_credential_document kind = f->kind == SF_ORIGIN_SSO ? SF_CREDENTIALS_FROM_SSO
                                  : f->kind == SF_ORIGIN_WEB_IDENTITY || f->kind == SF_ORIGIN_ROLE
                                      ? SF_CREDENTIALS_FROM_STS
                                      : SF_CREDENTIALS_FROM_ENDPOINT;
    const uint8_t *end;

    if (f->kind != SF_ORIGIN_MACHINE || f->step == 2) {
        sf_status rc = sf__credentials_parse(&f->got, kind, body, f->job.alloc, &f->error);

        if (rc != SF_OK)
            append_said(f, "it said", body);
        return rc;
    }
    line = trimmed(body);
    end = line.n > 0 ? memchr(line.p, '\n', line.n) : NULL; /* a machine has one role; the first line names it */
    if (end)
        line = trimmed(sf_bytes_of(line.p, (size_t)(end - line.p)));
    if (!is_plain(line)) {
        sf_fail(&f->error, SF_CORRUPT, f->step == 0 ? "not a token" : "not the name of a role");
        append_said(f, "it said", line);
        return SF_CORRUPT;
    }
    if (f->step == 0)
        f->token = sf__strndup(&f->wiping, line.p, line.n);
    else
        f->role = sf__strndup(&f->wiping, line.p, line.n);
    if (f->step == 0 ? !f->token : !f->role)
        return fail_nomem(f);
    f->step++;
    f->attempts = 0;
    return SF_OK;
}

static sf_status read_refusal(sf_credential_fetch *f)
{
    long status = f->http.status;
    sf_s3_fault fault;
    sf_bytes body = sf__buf_bytes(f->http.response);

    sf_fail(&f->error, status == 429 || status >= 500 ? SF_UNAVAILABLE : SF_DENIED, "answered %ld", status);
    if (sf__s3_fault_read(body, &fault, f->job.alloc))
        sf_fail(&f->error, f->error.code, "answered %ld %s: %s", status, fault.code,
                leaks(f, fault.message) ? "(text withheld)" : fault.message);
    else if (body.n > 0)
        append_said(f, "it said", body);
    f->error.http_status = (int)status;
    return f->error.code;
}

/* Where nobody has a metadata service, nobody has credentials: that is an answer, too. */
static bool is_nobody(const sf_credential_fetch *f)
{
    bool silent = f->http.error->code != SF_OK && f->http.error->http_status == 0 &&
                  (f->http.error->code == SF_UNAVAILABLE || f->http.error->code == SF_TIMEOUT);

    if (f->kind != SF_ORIGIN_MACHINE || !f->job.origin->optional)
        return false;
    return (f->step == 0 && silent) || (f->step == 1 && f->http.error->code == SF_OK && f->http.status == 404);
}

static sf_status judge(sf_credential_fetch *f)
{
    if (is_nobody(f))
        return sf__credentials_none(&f->got, f->job.origin->looked_at, f->job.now_us + NOBODY_US, f->job.alloc,
                                    &f->error);
    if (f->http.error->code != SF_OK) {
        f->error = *f->http.error;
        return f->error.code;
    }
    if (f->http.status == 200)
        return read_answer(f);
    return read_refusal(f);
}

static void ask_on_answer(sf_http_request *http)
{
    sf_credential_fetch *f = http->ctx;
    const char *method = method_of(f);
    sf_status rc;

    if (f->state == FETCH_DROPPED) {
        fetch_free(f);
        return;
    }
    rc = judge(f);
    answer_clear(f);
    if (rc == SF_UNAVAILABLE && f->attempts < MAX_ATTEMPTS) {
        fetch_enter(f, FETCH_PAUSING);
        return;
    }
    if (rc != SF_OK)
        sf_error_prefix(&f->error, rc, "%s %.*s: ", method, (int)strcspn(f->url, "?"), f->url);
    request_clear(f);
    fetch_enter(f, rc == SF_OK && !f->got ? FETCH_ASKING : FETCH_DONE);
}

/* ------------------------------------------------------------------ states --------------------------------------- */

static void pause_on_timer(sf_timer *timer)
{
    fetch_enter(sf_container_of(timer, sf_credential_fetch, timer), FETCH_ASKING);
}

static void pause_start(sf_credential_fetch *f)
{
    static const sf_retry_policy policy = {.max_retries = MAX_ATTEMPTS, .base_ms = 100, .cap_ms = 1000};
    sf_random random;

    sf__random_seed(&random);
    f->timer.fire = pause_on_timer;
    sf__timer_start(f->job.loop, &f->timer,
                    sf__deadline_in_ms(sf__retry_delay_ms(&policy, f->attempts - 1, sf__random_next(&random))));
}

static void finish_on_task(sf_task *task)
{
    sf_credential_fetch *f = sf_container_of(task, sf_credential_fetch, task);
    sf_credentials *got = f->got;
    sf_status rc = got ? SF_OK : f->error.code;

    if (f->state == FETCH_DROPPED) {
        fetch_free(f);
        return;
    }
    f->got = NULL;
    /* What is no such document, or one that we cannot read, means no access. It is nothing that the store holds: whoever
     * hears "damaged" looks for other bytes of a snapshot, and in Python for another manifest. */
    if (rc == SF_CORRUPT || rc == SF_BAD_MANIFEST || rc == SF_UNSUPPORTED || rc == SF_NOT_FOUND) {
        rc = SF_DENIED;
        f->error.code = rc;
    }
    if (rc != SF_OK)
        sf_error_prefix(&f->error, rc, "credentials by %s: ", sf__origin_name(f->kind));
    f->job.done(f->job.ctx, rc, &f->error, got);
    fetch_free(f);
}

static void fetch_enter(sf_credential_fetch *f, enum fetch_state next)
{
    f->state = next;
    switch (next) {
    case FETCH_START:
        break;
    case FETCH_GATHERING:
        f->work.run = gather_on_worker;
        f->work.done = gather_on_done;
        sf__work_submit(f->job.loop, SF_WORK_WAIT, &f->work); /* ends in gather_on_done() */
        break;
    case FETCH_CALLING:
        call_start(f); /* ends in call_on_answer(), or call_on_timer() */
        break;
    case FETCH_ASKING:
        ask_send(f); /* ends in ask_on_answer() */
        break;
    case FETCH_PAUSING:
        pause_start(f); /* ends in pause_on_timer() */
        break;
    case FETCH_DONE: /* always through the inbox: some of this runs inside the starting call */
        f->task.run = finish_on_task;
        sf__loop_post(f->job.loop, &f->task);
        break;
    case FETCH_DROPPED:
        break;
    }
}

sf_credential_fetch *sf__credential_fetch_start(const sf_credential_fetch_job *job)
{
    const sf_credential_origin *o = job->origin;
    const char *gather = o->kind == SF_ORIGIN_PROCESS ? o->command : o->file;
    sf_credential_fetch *f = sf__calloc(job->alloc, 1, sizeof(*f));

    if (!f)
        return NULL;
    f->job = *job;
    f->kind = o->kind;
    f->error = (sf_error)SF_ERROR_INIT;
    sf__wiping_allocator(&f->wiping, job->alloc);
    if (job->base)
        f->base = sf__credentials_acquire(job->base);
    if (job->known)
        f->known = sf__credentials_acquire(job->known);
    if (gather) {
        f->path_or_command = sf__strdup(job->alloc, gather);
        if (!f->path_or_command) {
            fetch_free(f);
            return NULL;
        }
    }
    if (f->kind == SF_ORIGIN_ROLE && !(f->base && f->base->access_key_id)) {
        sf_fail(&f->error, SF_DENIED, "nothing to assume the role with");
        fetch_enter(f, FETCH_DONE);
    } else if (f->kind == SF_ORIGIN_SOURCE) {
        fetch_enter(f, FETCH_CALLING);
    } else {
        fetch_enter(f, gather ? FETCH_GATHERING : FETCH_ASKING);
    }
    return f;
}

void sf__credential_fetch_drop(sf_credential_fetch *f)
{
    enum fetch_state was = f->state;

    atomic_store(&f->stop, true);
    fetch_enter(f, FETCH_DROPPED);
    switch (was) {
    case FETCH_ASKING:
        if (sf__http_abandon(f->job.http, &f->http))
            fetch_free(f);
        break;
    case FETCH_PAUSING:
        sf__timer_stop(f->job.loop, &f->timer);
        fetch_free(f);
        break;
    case FETCH_CALLING:
        sf__timer_stop(f->job.loop, &f->timer);
        if (sf__answer_drop(f->answer))
            fetch_free(f);
        break;
    default: /* a worker or the inbox has it, and sees it freed */
        break;
    }
}
