#include "store/s3_response.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "store/s3_xml.h"

/* A server that asks for more is asked again after so long, or not at all when that is too late. */
#define MAX_RETRY_AFTER_MS 20000

typedef unsigned long long ull;

/* ------------------------------------------------------------------ parsing -------------------------------------- */

static bool take_u64(const char **s, uint64_t *out)
{
    const char *p = *s;
    uint64_t v = 0;

    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return false;
    *s = p;
    *out = v;
    return true;
}

static bool take_char(const char **s, char c)
{
    if (**s != c)
        return false;
    ++*s;
    return true;
}

struct content_range {
    uint64_t first, last, total; /* bytes first..last; SF_STORE_ALL: of an object whose size is not told */
};

/* "bytes 0-99/1234"; some write "bytes=", as in the question, and some an asterisk for a size that they do not know */
static bool parse_content_range(const char *s, struct content_range *out)
{
    if (!s || strncasecmp(s, "bytes", 5) != 0 || (s[5] != ' ' && s[5] != '='))
        return false;
    s += 6;
    if (!take_u64(&s, &out->first) || !take_char(&s, '-') || !take_u64(&s, &out->last) || !take_char(&s, '/'))
        return false;
    out->total = SF_STORE_ALL;
    return (take_char(&s, '*') || take_u64(&s, &out->total)) && *s == '\0' && out->first <= out->last &&
           out->last < out->total;
}

/* The answer to a range that no byte lies in: "bytes", a blank, an asterisk and "/1234". */
static bool parse_unsatisfied(const char *s, uint64_t *total)
{
    return s && strncasecmp(s, "bytes */", 8) == 0 && (s += 8) && take_u64(&s, total) && *s == '\0';
}

static bool parse_length(const char *s, uint64_t *out)
{
    return s && take_u64(&s, out) && *s == '\0';
}

static const char *header(const sf_s3_answer *ans, const char *name)
{
    return sf__http_response_header(ans->http, name);
}

/* Also of an answer that broke off; 0 when none began. */
static long http_status(const sf_s3_answer *ans)
{
    return ans->http->status ? ans->http->status : ans->http->error->http_status;
}

/* ------------------------------------------------------------------ messages ------------------------------------- */

struct error_text {
    char s[sizeof(((sf_error *)0)->message)];
    size_t n;
};

SF_PRINTF(2, 3) static void text_add(struct error_text *t, const char *fmt, ...)
{
    size_t room = sizeof(t->s) - t->n;
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(t->s + t->n, room, fmt, args);
    va_end(args);
    if (n > 0)
        t->n += (size_t)n < room ? (size_t)n : room - 1;
}

/* Letters, digits and the marks that request ids and regions are made of; anything else is not worth showing. */
static bool is_token(const char *s)
{
    if (!s || !*s || strlen(s) > 128)
        return false;
    for (; *s; s++)
        if (*s <= ' ' || *s >= 0x7f)
            return false;
    return true;
}

static bool holds(const char *message, const char *secret)
{
    return secret && *secret && strstr(message, secret);
}

static void add_fault(struct error_text *t, const sf_s3_answer *ans, const sf_s3_fault *f)
{
    const char *id = header(ans, "x-amz-request-id");
    const sf_credentials *c = ans->credentials;
    bool leaks = holds(f->message, c->secret_access_key) || holds(f->message, c->session_token) ||
                 holds(f->message, c->access_key_id);

    text_add(t, "%s answered %ld", ans->http->method, http_status(ans));
    if (f->code[0])
        text_add(t, " %s", f->code);
    if (f->message[0])
        text_add(t, ": %s", leaks ? "(text withheld)" : f->message);
    if (!is_token(id))
        id = f->request_id;
    if (is_token(id))
        text_add(t, " (request id %s)", id);
}

/* Where the bucket really is, or NULL when the answer does not say so or it is where we asked. */
static const char *other_region(const sf_s3_answer *ans, const sf_s3_fault *f)
{
    const char *region = header(ans, "x-amz-bucket-region");

    if (!is_token(region))
        region = f->region;
    return is_token(region) && strcmp(region, ans->region) != 0 ? region : NULL;
}

static void add_advice(struct error_text *t, const sf_s3_answer *ans, const sf_store_op *op, const sf_s3_fault *f)
{
    long status = http_status(ans);
    const char *region = other_region(ans, f), *date = header(ans, "date");

    if (ans->cannot && (op->verb == SF_STORE_PUT || op->verb == SF_STORE_MULTIPART_COMPLETE))
        text_add(t, "; this store cannot compare with what is there before it puts%s",
                 op->verb == SF_STORE_PUT && !op->if_match && !op->strict
                     ? ""
                     : ", as was asked: do without, or use another one");
    if (strcmp(f->code, "NoSuchBucket") == 0)
        text_add(t, "; there is no bucket \"%s\"", ans->bucket);
    if (region && (status / 100 == 3 || status == 400 || status == 403))
        text_add(t, "; the bucket is in region %s, not %s", region, ans->region);
    else if (status / 100 == 3)
        text_add(t, "; the bucket is not at this endpoint: check region and endpoint");
    if ((status == 401 || status == 403) && ans->credentials->looked_at)
        text_add(t, "; no credentials were found, the request went unsigned (looked at: %s)",
                 ans->credentials->looked_at);
    if (strcmp(f->code, "RequestTimeTooSkewed") == 0)
        text_add(t, "; the clock of this machine is wrong%s%.40s", date ? ", the store's says " : "", date ? date : "");
}

/* Everything that ends an attempt comes by here. */
static sf_status report(const sf_s3_answer *ans, sf_store_op *op, sf_status rc, const struct error_text *t)
{
    bool was_new = (op->verb == SF_STORE_PUT || op->verb == SF_STORE_MULTIPART_COMPLETE) &&
                   (op->create_only || op->if_match) && rc == SF_CONFLICT;
    bool was_open = op->verb == SF_STORE_MULTIPART_COMPLETE && rc == SF_NOT_FOUND;
    char count[48] = "";

    op->may_be_ours = ans->uncertain && (was_new || was_open);
    if (ans->attempts > 1)
        snprintf(count, sizeof(count), ", in attempt %u", ans->attempts);
    sf_fail(ans->error, rc, "%s%s%s", t->s, count,
            op->may_be_ours ? "; an earlier attempt, whose answer was lost, may have succeeded" : "");
    ans->error->http_status = (int)http_status(ans);
    ans->error->attempts = ans->attempts;
    return rc;
}

SF_PRINTF(4, 5)
static sf_status answer_fail(const sf_s3_answer *ans, sf_store_op *op, sf_status rc, const char *fmt, ...)
{
    struct error_text t = {.n = 0};
    char what[400];
    va_list args;

    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    text_add(&t, "%s answered %ld: %s", ans->http->method, http_status(ans), what);
    if (is_token(header(ans, "x-amz-request-id")))
        text_add(&t, " (request id %s)", header(ans, "x-amz-request-id"));
    return report(ans, op, rc, &t);
}

/* ------------------------------------------------------------------ errors --------------------------------------- */

static sf_status status_of(long http, const char *code)
{
    static const struct {
        const char *code;
        sf_status rc;
    } codes[] = {
        {"NoSuchKey", SF_NOT_FOUND},
        {"NoSuchBucket", SF_NOT_FOUND},
        {"NoSuchUpload", SF_NOT_FOUND},
        {"AccessDenied", SF_DENIED},
        {"InvalidAccessKeyId", SF_DENIED},
        {"SignatureDoesNotMatch", SF_DENIED},
        {"XAdminUserNotFound", SF_DENIED}, /* versitygw's word for the first, with 404 */
        {"ExpiredToken", SF_DENIED},
        {"InvalidToken", SF_DENIED},
        {"ExpiredTokenException", SF_DENIED},
        {"RequestExpired", SF_DENIED},
        {"TokenRefreshRequired", SF_DENIED},
        {"RequestTimeTooSkewed", SF_DENIED},
        {"PreconditionFailed", SF_CONFLICT},
        {"ConditionalRequestConflict", SF_CONFLICT},
        {"OperationAborted", SF_CONFLICT},
        {"SlowDown", SF_UNAVAILABLE},
        {"RequestTimeout", SF_UNAVAILABLE},
        {"InternalError", SF_UNAVAILABLE},
        {"ServiceUnavailable", SF_UNAVAILABLE},
        {"Throttling", SF_UNAVAILABLE},
        {"ThrottlingException", SF_UNAVAILABLE},
        {"RequestThrottled", SF_UNAVAILABLE},
        {"TooManyRequests", SF_UNAVAILABLE},
        {"NotImplemented", SF_UNSUPPORTED},
        {"MethodNotAllowed", SF_UNSUPPORTED},
        {"UnsupportedOperation", SF_UNSUPPORTED},
    };

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (strcmp(code, codes[i].code) == 0)
            return codes[i].rc;
    switch (http) {
    case 401:
    case 403:
        return SF_DENIED;
    case 404:
        return SF_NOT_FOUND;
    case 409:
    case 412:
        return SF_CONFLICT;
    case 408:
    case 429:
        return SF_UNAVAILABLE;
    case 405:
    case 501:
    case 505:
        return SF_UNSUPPORTED;
    default:
        return http >= 500 ? SF_UNAVAILABLE : SF_IO;
    }
}

static void set_retry(sf_s3_answer *ans, sf_status rc)
{
    uint64_t seconds;

    ans->retry = rc == SF_UNAVAILABLE;
    if (ans->retry && parse_length(header(ans, "retry-after"), &seconds))
        ans->retry_after_ms = seconds < MAX_RETRY_AFTER_MS / 1000 ? (int64_t)seconds * 1000 : MAX_RETRY_AFTER_MS;
}

/* By name; an answer to HEAD has none, and S3 gives it 400 for a token that is over. */
static sf_refusal refusal_of(const sf_s3_answer *ans, const sf_store_op *op, sf_status rc, const char *code)
{
    static const struct {
        const char *code;
        sf_refusal refusal;
    } codes[] = {
        {"ExpiredToken", SF_REFUSAL_EXPIRED},         {"ExpiredTokenException", SF_REFUSAL_EXPIRED},
        {"TokenRefreshRequired", SF_REFUSAL_EXPIRED}, {"RequestExpired", SF_REFUSAL_EXPIRED},
        {"InvalidAccessKeyId", SF_REFUSAL_WRONG},     {"SignatureDoesNotMatch", SF_REFUSAL_WRONG},
        {"XAdminUserNotFound", SF_REFUSAL_WRONG},     {"InvalidToken", SF_REFUSAL_WRONG},
        {"RequestTimeTooSkewed", SF_REFUSAL_NONE}, /* our clock's fault */
    };
    long status = http_status(ans);

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (strcmp(code, codes[i].code) == 0)
            return codes[i].refusal;
    if (op->verb == SF_STORE_HEAD && code[0] == '\0' && (status == 400 || status == 401 || status == 403))
        return SF_REFUSAL_UNSAID;
    return rc == SF_DENIED ? SF_REFUSAL_DENIED : SF_REFUSAL_NONE;
}

/* What servers say of a header or a parameter that they do not know, beside that it is not implemented. */
static bool is_stranger(long status, const char *code)
{
    static const char *const codes[] = {"",
                                        "InvalidArgument",
                                        "InvalidRequest",
                                        "BadRequest",
                                        "UnsupportedArgument",
                                        "UnsupportedHeader",
                                        "InvalidHeader",
                                        "UnsupportedParameter"};

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (strcmp(code, codes[i]) == 0)
            return status == 400;
    return false;
}

/* Whether the same can be asked in another form. Where that has the same meaning and costs little, any refusal will do that
 * is none of the credentials, the bucket or the moment. */
static bool is_beyond(const sf_s3_answer *ans, const sf_store_op *op, sf_status rc, const char *code)
{
    long status = http_status(ans);
    bool unknown = rc == SF_UNSUPPORTED || is_stranger(status, code);

    switch (op->verb) {
    case SF_STORE_PUT:
    case SF_STORE_MULTIPART_COMPLETE:
        return unknown && ans->on_condition;
    case SF_STORE_LIST:
        return unknown;
    case SF_STORE_DELETE_MANY: /* to some it is a form that a browser sends */
        return unknown || (status == 404 && strcmp(code, "NoSuchBucket") != 0) ||
               ((rc == SF_IO || rc == SF_CONFLICT) && (status == 400 || status == 411 || status == 412 || status == 415));
    case SF_STORE_HEAD: /* a 403 because proxies forbid what they do not know */
        return rc == SF_UNSUPPORTED || status == 403;
    default:
        return false;
    }
}

static sf_status read_fault(sf_s3_answer *ans, sf_store_op *op, const sf_s3_fault *f)
{
    sf_status rc = status_of(http_status(ans), f->code);
    struct error_text t = {.n = 0};

    ans->cannot = is_beyond(ans, op, rc, f->code);
    ans->plainly = ans->cannot && rc == SF_UNSUPPORTED && f->code[0];
    if (ans->cannot && op->verb == SF_STORE_PUT)
        rc = SF_UNSUPPORTED;

    if (rc == SF_NOT_FOUND && op->verb == SF_STORE_PUT && op->if_match && strcmp(f->code, "NoSuchBucket") != 0)
        rc = SF_CONFLICT; /* what was to be replaced is gone */
    set_retry(ans, rc);
    if (op->verb == SF_STORE_PUT && strcmp(f->code, "ConditionalRequestConflict") == 0)
        ans->retry =
            true; /* another one is at it: the next attempt tells how that ended. An upload has to begin again then */
    ans->refusal = refusal_of(ans, op, rc, f->code);
    add_fault(&t, ans, f);
    add_advice(&t, ans, op, f);
    return report(ans, op, rc, &t);
}

/* Nothing of a document can be trusted when it does not read as one; the next one may. */
static sf_status read_garbage(sf_s3_answer *ans, sf_store_op *op, const sf_error *e)
{
    ans->retry = e->code == SF_CORRUPT;
    return answer_fail(ans, op, e->code == SF_CORRUPT ? SF_IO : e->code, "%s", e->message);
}

/* ------------------------------------------------------------------ bodies of objects ---------------------------- */

static uint64_t bound_of(const sf_store_op *op)
{
    return op->max_bytes ? op->max_bytes : op->len;
}

static bool is_ranged(const sf_store_op *op)
{
    return op->verb == SF_STORE_GET_SUFFIX || (op->verb == SF_STORE_GET && op->len != SF_STORE_ALL);
}

/* The part of the body that was asked for becomes the result; without a copy when that is all of it. */
static sf_status take_body(const sf_s3_answer *ans, sf_store_op *op, uint64_t off, uint64_t len, const sf_allocator *a)
{
    sf_buf *body = ans->http->response;
    sf_bytes part;

    if (len > bound_of(op))
        return answer_fail(ans, op, SF_CORRUPT, "object of %llu bytes, at most %llu expected", (ull)op->object_size,
                           (ull)bound_of(op));
    if (!sf_bytes_slice(sf__buf_bytes(body), off, len, &part))
        return answer_fail(ans, op, SF_CORRUPT, "bytes %llu + %llu wanted, the object has %llu", (ull)off, (ull)len,
                           (ull)op->object_size);
    if (body && part.n == body->n) {
        op->data = body;
        ans->http->response = NULL;
    } else {
        op->data = part.n > 0 ? sf__buf_copy(a, part) : sf__buf_new(a, 0);
    }
    return op->data ? SF_OK : answer_fail(ans, op, SF_NOMEM, "%llu bytes", (ull)len);
}

/* All of the object came: because that was asked, or because the server does not do ranges. */
static sf_status read_whole(const sf_s3_answer *ans, sf_store_op *op, const sf_allocator *a)
{
    uint64_t size = sf__buf_bytes(ans->http->response).n, off = op->off, len = op->len;

    op->object_size = size;
    if (op->verb == SF_STORE_GET_SUFFIX) {
        off = size > len ? size - len : 0;
        len = size - off;
    } else if (len == SF_STORE_ALL) {
        len = size;
    }
    if (op->store && len < size)
        atomic_store_explicit(&op->store->ignores_ranges, true, memory_order_relaxed);
    return take_body(ans, op, off, len, a);
}

static sf_status read_part(sf_s3_answer *ans, sf_store_op *op, const sf_allocator *a)
{
    const char *text = header(ans, "content-range");
    uint64_t have = sf__buf_bytes(ans->http->response).n, off = op->off, len = op->len;
    struct content_range cr;

    if (!is_ranged(op) || !parse_content_range(text, &cr))
        return answer_fail(ans, op, SF_IO, "Content-Range \"%.60s\"", text ? text : "");
    if (cr.total == SF_STORE_ALL && op->verb == SF_STORE_GET_SUFFIX)
        cr.total = cr.last + 1;
    op->object_size = cr.total;
    if (op->verb == SF_STORE_GET_SUFFIX) {
        len = len < cr.total ? len : cr.total;
        off = cr.total - len;
    } else {
        uint64_t end =
            cr.total == SF_STORE_ALL && cr.last - cr.first + 1 < len ? cr.last + 1 : cr.total; /* all that there is */

        if (off < end && len > end - off)
            return answer_fail(ans, op, SF_CORRUPT, "bytes %llu + %llu wanted, the object has %llu", (ull)off, (ull)len,
                               (ull)end);
    }
    if (cr.first != off || cr.last - cr.first + 1 != len)
        return answer_fail(ans, op, SF_IO, "bytes %llu + %llu wanted, Content-Range \"%.60s\"", (ull)off, (ull)len, text);
    if (have < len) { /* curl notices it only when the length was announced */
        ans->retry = true;
        return answer_fail(ans, op, SF_UNAVAILABLE, "the body ends after %llu of %llu bytes", (ull)have, (ull)len);
    }
    if (have > len)
        return answer_fail(ans, op, SF_IO, "%llu bytes in the body, %llu wanted", (ull)have, (ull)len);
    return take_body(ans, op, 0, len, a);
}

/* No byte of the object lies in the range. For a suffix that is so when there is none at all. */
static sf_status read_unsatisfied(const sf_s3_answer *ans, sf_store_op *op, const sf_s3_fault *f, const sf_allocator *a)
{
    uint64_t size = f->actual_size;

    if (!parse_unsatisfied(header(ans, "content-range"), &size) && !f->has_actual_size)
        return answer_fail(ans, op, op->verb == SF_STORE_GET ? SF_CORRUPT : SF_IO,
                           "the object ends before the range, its size is not told");
    op->object_size = size;
    if (op->verb == SF_STORE_GET_SUFFIX && size == 0) {
        op->data = sf__buf_new(a, 0);
        return op->data ? SF_OK : answer_fail(ans, op, SF_NOMEM, "empty object");
    }
    return answer_fail(ans, op, op->verb == SF_STORE_GET ? SF_CORRUPT : SF_IO,
                       "bytes %llu + %llu wanted, the object has %llu", (ull)(op->verb == SF_STORE_GET ? op->off : 0),
                       (ull)op->len, (ull)size);
}

/* ------------------------------------------------------------------ the other verbs ------------------------------ */

static sf_status take_etag(const sf_s3_answer *ans, sf_store_op *op)
{
    const char *etag = header(ans, "etag");

    op->etag[0] = '\0';
    if (!etag)
        return op->verb == SF_STORE_MULTIPART_PART ? answer_fail(ans, op, SF_IO, "no ETag of the part") : SF_OK;
    if (strlen(etag) >= sizeof(op->etag))
        return answer_fail(ans, op, SF_IO, "ETag of %zu bytes", strlen(etag));
    memcpy(op->etag, etag, strlen(etag) + 1);
    return SF_OK;
}

static sf_status read_page(sf_s3_answer *ans, sf_store_op *op, const sf_allocator *a)
{
    const char *before = op->continuation ? sf__s3_list_marker(op->continuation) : NULL, *marker;
    sf_error e = SF_ERROR_INIT;
    sf_s3_page page;

    if (sf__s3_xml_page(sf__buf_bytes(ans->http->response), op->key, &page, a, &e) != SF_OK)
        return read_garbage(ans, op, &e);
    marker = page.next ? sf__s3_list_marker(page.next) : NULL;
    if (before && marker && strcmp(marker, before) <= 0) {
        sf__s3_page_cleanup(&page, a);
        return answer_fail(ans, op, SF_IO, "the listing goes on behind \"%.80s\" once more", before);
    }
    op->entries = page.entries;
    op->entry_count = page.entry_count;
    op->unsorted = page.unsorted;
    op->next = page.next;
    return SF_OK;
}

static sf_status read_uploads(sf_s3_answer *ans, sf_store_op *op, const sf_allocator *a)
{
    sf_error e = SF_ERROR_INIT;
    sf_s3_uploads page;

    if (sf__s3_xml_uploads(sf__buf_bytes(ans->http->response), op->key, &page, a, &e) != SF_OK)
        return read_garbage(ans, op, &e);
    op->uploads = page.uploads;
    op->upload_count = page.upload_count;
    op->next = page.next_key;
    op->upload_id_out = page.next_id;
    return SF_OK;
}

/* Deletions and completed uploads report their failures in the body of a success. */
static sf_status read_late(sf_s3_answer *ans, sf_store_op *op, const sf_allocator *a)
{
    sf_bytes body = sf__buf_bytes(ans->http->response);
    sf_error e = SF_ERROR_INIT;
    sf_s3_fault fault;
    sf_status rc;

    if (op->verb == SF_STORE_DELETE_MANY && body.n == 0 && header(ans, "content-length"))
        rc = SF_OK; /* told in as many words: nothing stayed */
    else if (op->verb == SF_STORE_DELETE_MANY && body.n == 0 && http_status(ans) == 204)
        rc = SF_OK;
    else if (op->verb == SF_STORE_DELETE_MANY)
        rc = sf__s3_xml_deleted(body, &fault, a, &e);
    else
        rc = sf__s3_xml_completed(body, op->etag, &fault, a, &e);
    if (rc == SF_OK)
        return SF_OK;
    if (rc != SF_IO)
        return read_garbage(ans, op, &e);
    rc = read_fault(ans, op, &fault);
    return sf_error_prefix(ans->error, rc, "%s: ", e.message);
}

/* "No such object" tells it, too; what begins with 5 may be a proxy's. */
static void note_time(const sf_s3_answer *ans, sf_store *store)
{
    const char *date = header(ans, "date");
    int64_t then_s = date ? sf__http_date(date) : -1;

    if (then_s > 0 && store && http_status(ans) / 100 != 5)
        sf__store_note_time(store, then_s * 1000000, (int64_t)((sf__clock_mono_ns() - ans->sent_ns) / 1000));
}

/* What was asked for is what the caller has. */
static bool is_not_modified(const sf_s3_answer *ans, const sf_store_op *op)
{
    return http_status(ans) == 304 && op->verb == SF_STORE_GET && op->if_none_match;
}

static sf_status read_not_modified(const sf_s3_answer *ans, sf_store_op *op, const sf_allocator *a)
{
    op->not_modified = true;
    op->object_size = SF_STORE_ALL;
    op->data = sf__buf_copy(a, (sf_bytes){NULL, 0});
    return op->data ? SF_OK : answer_fail(ans, op, SF_NOMEM, "its body");
}

static sf_status read_success(sf_s3_answer *ans, sf_store_op *op, const sf_allocator *a)
{
    sf_error e = SF_ERROR_INIT;
    long status = http_status(ans);
    sf_status rc;

    switch (op->verb) {
    case SF_STORE_HEAD:
        if (!parse_length(header(ans, "content-length"), &op->object_size))
            op->object_size = SF_STORE_ALL;
        return take_etag(ans, op);
    case SF_STORE_GET:
    case SF_STORE_GET_SUFFIX:
        rc = take_etag(ans, op);
        if (rc == SF_OK && op->if_match && !sf__store_etag_same(op->etag, op->if_match))
            rc = answer_fail(ans, op, SF_CONFLICT, "ETag %s, %s was asked for", op->etag,
                             op->if_match); /* a cache ignores it */
        if (rc != SF_OK)
            return rc;
        if (status == 200)
            return read_whole(ans, op, a);
        return status == 206 ? read_part(ans, op, a) : answer_fail(ans, op, SF_IO, "200 or 206 expected");
    case SF_STORE_PUT:
    case SF_STORE_MULTIPART_PART:
        return take_etag(ans, op);
    case SF_STORE_LIST:
        return read_page(ans, op, a);
    case SF_STORE_MULTIPART_LIST:
        return read_uploads(ans, op, a);
    case SF_STORE_MULTIPART_CREATE:
        if (sf__s3_xml_created(sf__buf_bytes(ans->http->response), &op->upload_id_out, a, &e) != SF_OK)
            return read_garbage(ans, op, &e);
        return SF_OK;
    case SF_STORE_DELETE_MANY:
    case SF_STORE_MULTIPART_COMPLETE:
        return read_late(ans, op, a);
    case SF_STORE_DELETE:
    case SF_STORE_MULTIPART_ABORT:
        return SF_OK;
    case SF_STORE_TIME: /* never goes out */
        break;
    }
    return answer_fail(ans, op, SF_INVALID, "unknown verb");
}

/* An answer without a document says no more than this. */
static bool is_gone(const sf_s3_answer *ans, const sf_s3_fault *f)
{
    return f->code[0] == '\0' && (http_status(ans) == 404 || http_status(ans) == 410);
}

static sf_status read_failure(sf_s3_answer *ans, sf_store_op *op, const sf_allocator *a)
{
    sf_s3_fault fault;

    /* an answer to HEAD has no body, a proxy's has another one: the status has to do */
    if (!sf__s3_fault_read(sf__buf_bytes(ans->http->response), &fault, a))
        fault = (sf_s3_fault){0};
    if ((op->verb == SF_STORE_DELETE && (strcmp(fault.code, "NoSuchKey") == 0 || is_gone(ans, &fault))) ||
        (op->verb == SF_STORE_MULTIPART_ABORT && (strcmp(fault.code, "NoSuchUpload") == 0 || is_gone(ans, &fault))))
        return SF_OK; /* what was to go is gone */
    if (http_status(ans) == 416 && is_ranged(op))
        return read_unsatisfied(ans, op, &fault, a);
    return read_fault(ans, op, &fault);
}

/* More than was asked for, which is known as soon as the length is announced. */
static sf_status read_longer(const sf_s3_answer *ans, sf_store_op *op)
{
    if (!parse_length(header(ans, "content-length"), &op->longer) || op->longer <= op->max_bytes)
        op->longer = SF_STORE_ALL;
    return op->longer == SF_STORE_ALL
               ? answer_fail(ans, op, SF_CORRUPT, "object of more than the %llu bytes expected at most",
                             (ull)op->max_bytes)
               : answer_fail(ans, op, SF_CORRUPT, "object of %llu bytes, at most %llu expected", (ull)op->longer,
                             (ull)op->max_bytes);
}

/* No answer, or one that broke off. */
static sf_status read_nothing(sf_s3_answer *ans, sf_store_op *op)
{
    const sf_error *e = ans->http->error;
    struct error_text t = {.n = 0};

    if (ans->http->too_long && op->verb == SF_STORE_GET && op->len == SF_STORE_ALL)
        return read_longer(ans, op);
    if (e->code == SF_CORRUPT && http_status(ans) == 200 && is_ranged(op)) {
        if (op->verb == SF_STORE_GET_SUFFIX && !parse_length(header(ans, "content-length"), &op->longer))
            op->longer = 0;
        return answer_fail(ans, op, SF_IO, "the server ignores ranges and sends all of a large object");
    }
    ans->retry = e->code == SF_UNAVAILABLE || e->code == SF_EXHAUSTED;
    text_add(&t, "%s: %s", ans->http->method, e->message);
    return report(ans, op, e->code, &t);
}

sf_status sf__s3_response_read(sf_s3_answer *ans, sf_store_op *op, const sf_allocator *a)
{
    sf_status rc;

    ans->retry = ans->cannot = ans->plainly = false;
    ans->refusal = SF_REFUSAL_NONE;
    ans->retry_after_ms = 0;
    if (ans->http->error->code != SF_OK)
        return read_nothing(ans, op);
    note_time(ans, op->store);
    if (is_not_modified(ans, op))
        rc = read_not_modified(ans, op, a);
    else
        rc = http_status(ans) / 100 == 2 ? read_success(ans, op, a) : read_failure(ans, op, a);
    if (rc == SF_OK) {
        *ans->error = (sf_error)SF_ERROR_INIT;
        ans->error->attempts = ans->attempts;
    }
    return rc;
}
