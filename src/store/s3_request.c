#include "store/s3_request.h"

#include <stdio.h>

#include <openssl/evp.h> /* base64 */

#include "base/error.h"
#include "base/limits.h"
#include "base/strbuf.h"
#include "net/url.h"
#include "store/digest.h"
#include "store/s3_xml.h"

/* A server may ignore the range and send all of the object; up to this size that costs less than failing. */
#define WHOLE_OBJECT_BYTES (1u << 20)
/* Above this, an encrypted connection vouches for the body: hashing megabytes would hold up the loop. */
#define SIGNED_BODY_BYTES (256u << 10)
/* Answers that are small documents. */
#define DOCUMENT_BYTES (64u << 10)
/* 1000 objects that stayed, with their keys of up to 1024 bytes. */
#define DELETED_BYTES (4u << 20)

/* ------------------------------------------------------------------ the target ----------------------------------- */

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_name(const char *s, size_t n)
{
    if (n == 0 || n > 255 || !is_alnum(s[0]))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!is_alnum(s[i]) && s[i] != '-' && s[i] != '.' && s[i] != '_')
            return false;
    return true;
}

/* Wider than today's rules of AWS (old buckets, other servers), but nothing that could change the URL's shape. Ceph has
 * buckets of a tenant, "tenant:bucket"; that of nobody is empty. */
sf_status sf__s3_bucket_check(const char *bucket, sf_error *err)
{
    const char *colon = strchr(bucket, ':'), *name = colon ? colon + 1 : bucket;

    if (!is_name(name, strlen(name)) || (colon && colon > bucket && !is_name(bucket, (size_t)(colon - bucket))))
        return sf_fail(err, SF_INVALID, "\"%s\" is not the name of a bucket", bucket);
    return SF_OK;
}

sf_status sf__s3_target_init(sf_s3_target *t, const char *bucket, const sf_s3_options *opts, const sf_allocator *a,
                             sf_error *err)
{
    sf_status rc = sf__s3_bucket_check(bucket, err);
    sf_strbuf b;
    sf_url u;

    if (rc == SF_OK)
        rc = sf__url_split(&u, opts->endpoint_url, err);
    if (rc != SF_OK)
        return rc;
    while (u.path.n > 0 && u.path.p[u.path.n - 1] == '/')
        u.path.n--;
    sf__strbuf_init(&b, a);
    t->virtual_hosted = opts->addressing == SF_ADDRESSING_VIRTUAL && !strchr(bucket, ':'); /* no host has a colon */
    t->encrypted = sf__url_scheme_is(u.scheme, "https");
    sf__strbuf_puts(&b, t->encrypted ? "https://" : "http://");
    if (t->virtual_hosted)
        sf__strbuf_printf(&b, "%s.", bucket);
    sf__strbuf_add(&b, u.host.p, u.host.n);
    if (u.port.n > 0) {
        sf__strbuf_putc(&b, ':');
        sf__strbuf_add(&b, u.port.p, u.port.n);
    }
    sf__strbuf_add(&b, u.path.p, u.path.n);
    if (!t->virtual_hosted) {
        sf__strbuf_putc(&b, '/');
        sf__url_encode(&b, sf_bytes_str(bucket), false);
    }
    t->bucket_url = sf__strbuf_detach(&b);
    if (!t->bucket_url)
        return sf_fail(err, SF_NOMEM, "S3 store");
    t->requester_pays = opts->requester_pays;
    return SF_OK;
}

void sf__s3_target_cleanup(sf_s3_target *t, const sf_allocator *a)
{
    sf__free(a, t->bucket_url);
    t->bucket_url = NULL;
}

/* ------------------------------------------------------------------ URLs ----------------------------------------- */

/* The caller adds the parameters in the order of their names: that is how they are signed. */
static void add_parameter(sf_strbuf *b, const char *name, const char *value)
{
    if (!value)
        return;
    sf__strbuf_putc(b, memchr(b->s ? b->s : "", '?', b->n) ? '&' : '?');
    sf__strbuf_printf(b, "%s=", name);
    sf__url_encode(b, sf_bytes_str(value), false);
}

/* A page that says where it ended by a key goes on behind that key, whichever way the server takes it. */
static void add_list_parameters(sf_strbuf *b, const sf_store_op *op, bool v1)
{
    const char *behind = op->continuation                        ? sf__s3_list_marker(op->continuation)
                         : op->start_after && op->start_after[0] ? op->start_after
                                                                 : NULL;

    add_parameter(b, "continuation-token", op->continuation && !behind ? op->continuation : NULL);
    add_parameter(b, "delimiter", op->delimiter && op->delimiter[0] ? op->delimiter : NULL);
    add_parameter(b, "encoding-type", "url");
    add_parameter(b, "list-type", v1 ? NULL : "2");
    add_parameter(b, "marker", v1 || op->continuation ? behind : NULL);
    add_parameter(b, "prefix", op->key[0] ? op->key : NULL);
    add_parameter(b, "start-after", v1 ? NULL : behind);
}

static void add_uploads_parameters(sf_strbuf *b, const sf_store_op *op)
{
    add_parameter(b, "encoding-type", "url");
    add_parameter(b, "key-marker", op->continuation);
    add_parameter(b, "prefix", op->key[0] ? op->key : NULL);
    add_parameter(b, "upload-id-marker", op->continuation ? op->upload_id : NULL);
    add_parameter(b, "uploads", "");
}

static const char *add_query(sf_strbuf *b, const sf_s3_target *t, const sf_store_op *op)
{
    char number[16];

    switch (op->verb) {
    case SF_STORE_HEAD:
        return "HEAD";
    case SF_STORE_GET:
    case SF_STORE_GET_SUFFIX:
        return "GET";
    case SF_STORE_PUT:
        return "PUT";
    case SF_STORE_LIST:
        add_list_parameters(b, op, t->list_v1);
        return "GET";
    case SF_STORE_DELETE:
        return "DELETE";
    case SF_STORE_DELETE_MANY:
        add_parameter(b, "delete", "");
        return "POST";
    case SF_STORE_MULTIPART_CREATE:
        add_parameter(b, "uploads", "");
        return "POST";
    case SF_STORE_MULTIPART_PART:
        snprintf(number, sizeof(number), "%u", op->part_number);
        add_parameter(b, "partNumber", number);
        add_parameter(b, "uploadId", op->upload_id);
        return "PUT";
    case SF_STORE_MULTIPART_COMPLETE:
        add_parameter(b, "uploadId", op->upload_id);
        return "POST";
    case SF_STORE_MULTIPART_ABORT:
        add_parameter(b, "uploadId", op->upload_id);
        return "DELETE";
    case SF_STORE_MULTIPART_LIST:
        add_uploads_parameters(b, op);
        return "GET";
    case SF_STORE_TIME: /* never comes here */
        break;
    }
    return NULL;
}

static bool build_url(sf_s3_request *r, const sf_s3_target *t, const sf_store_op *op, const sf_allocator *a)
{
    bool whole_bucket =
        op->verb == SF_STORE_LIST || op->verb == SF_STORE_DELETE_MANY || op->verb == SF_STORE_MULTIPART_LIST;
    sf_strbuf b;

    sf__strbuf_init(&b, a);
    sf__strbuf_puts(&b, t->bucket_url);
    sf__strbuf_putc(&b, '/');
    if (!whole_bucket)
        sf__url_encode(&b, sf_bytes_str(op->key), true);
    r->method = add_query(&b, t, op);
    r->url = sf__strbuf_detach(&b);
    return r->url != NULL;
}

/* ------------------------------------------------------------------ bodies --------------------------------------- */

static sf_status build_body(sf_s3_request *r, const sf_store_op *op, const sf_allocator *a, sf_error *err)
{
    sf_strbuf b;
    sf_status rc;
    size_t n;

    if (op->verb == SF_STORE_PUT || op->verb == SF_STORE_MULTIPART_PART)
        r->body = op->body;
    if (op->verb != SF_STORE_DELETE_MANY && op->verb != SF_STORE_MULTIPART_COMPLETE)
        return SF_OK;
    sf__strbuf_init(&b, a);
    rc = op->verb == SF_STORE_DELETE_MANY ? sf__s3_xml_format_delete(&b, op->keys, op->key_count, err)
                                          : sf__s3_xml_format_complete(&b, op->keys, op->key_count, err);
    n = b.n;
    if (rc == SF_OK) {
        r->text = sf__strbuf_detach(&b);
        r->body = sf_bytes_of(r->text, n);
    }
    sf__strbuf_cleanup(&b);
    return rc;
}

/* What an answer other than an error may weigh. */
static void set_bounds(sf_s3_request *r, const sf_store_op *op)
{
    uint64_t bound = op->max_bytes ? op->max_bytes : op->len;

    switch (op->verb) {
    case SF_STORE_GET:
        r->max_body_bytes = bound;
        r->expect_body_bytes = op->len == SF_STORE_ALL ? 0 : op->len;
        if (op->len != SF_STORE_ALL && bound < WHOLE_OBJECT_BYTES)
            r->max_body_bytes = WHOLE_OBJECT_BYTES;
        break;
    case SF_STORE_GET_SUFFIX:
        r->max_body_bytes = bound < WHOLE_OBJECT_BYTES ? WHOLE_OBJECT_BYTES : bound;
        r->expect_body_bytes = op->len;
        break;
    case SF_STORE_LIST:
    case SF_STORE_MULTIPART_LIST:
        r->max_body_bytes = SF_LIMIT_LIST_PAGE_BYTES;
        break;
    case SF_STORE_DELETE_MANY:
        r->max_body_bytes = DELETED_BYTES;
        break;
    default:
        r->max_body_bytes = DOCUMENT_BYTES;
        break;
    }
    if (r->expect_body_bytes > r->max_body_bytes)
        r->expect_body_bytes = r->max_body_bytes;
}

/* ------------------------------------------------------------------ headers -------------------------------------- */

struct header_list {
    sf_s3_request *r;
    const sf_allocator *alloc;
    size_t n;
    sf_status rc;
    sf_error *err;
};

static void add_header(struct header_list *l, const char *name, const char *value)
{
    if (!value || l->rc != SF_OK)
        return;
    for (const char *p = value; *p; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) { /* would begin a header of its own */
            l->rc = sf_fail(l->err, SF_INVALID, "the value of %s holds a control character", name);
            return;
        }
    }
    l->r->headers[l->n] = sf__asprintf(l->alloc, "%s: %s", name, value);
    if (l->r->headers[l->n])
        l->n++;
    else
        l->rc = sf_fail(l->err, SF_NOMEM, "header");
}

static void add_range(struct header_list *l, const sf_store_op *op)
{
    char range[64];

    if (op->verb == SF_STORE_GET_SUFFIX)
        snprintf(range, sizeof(range), "bytes=-%llu", (unsigned long long)op->len);
    else
        snprintf(range, sizeof(range), "bytes=%llu-%llu", (unsigned long long)op->off,
                 (unsigned long long)(op->off + op->len - 1));
    add_header(l, "Range", range);
}

static void add_body_hash(struct header_list *l, const sf_s3_target *t)
{
    uint8_t raw[32];
    char hex[2 * sizeof(raw) + 1];

    if (!t->sign || l->rc != SF_OK)
        return;
    if (t->encrypted && l->r->body.n > SIGNED_BODY_BYTES) {
        add_header(l, "x-amz-content-sha256", "UNSIGNED-PAYLOAD");
        return;
    }
    if (!sf__sha256(l->r->body, raw)) {
        l->rc = sf_fail(l->err, SF_NOMEM, "SHA-256");
        return;
    }
    sf__hex_format(hex, sf_bytes_of(raw, sizeof(raw)));
    add_header(l, "x-amz-content-sha256", hex);
}

/* What every body that is to be stored goes with: buckets with Object Lock and deleting many demand one, and every store
 * knows MD5, while some refuse headers of the newer checksums, which parts have to announce besides. Where MD5 is not to be
 * had (FIPS) SHA-256 stands in, but for parts. */
static void add_checksum(struct header_list *l, const sf_store_op *op)
{
    unsigned char text[64];
    uint8_t raw[32];

    if (l->rc != SF_OK)
        return;
    if (op->has_md5)
        memcpy(raw, op->md5, sizeof(op->md5));
    if (op->has_md5 || sf__md5(l->r->body, raw)) {
        EVP_EncodeBlock(text, raw, 16);
        add_header(l, "Content-MD5", (const char *)text);
    } else if (op->verb != SF_STORE_MULTIPART_PART && sf__sha256(l->r->body, raw)) {
        EVP_EncodeBlock(text, raw, 32);
        add_header(l, "x-amz-checksum-sha256", (const char *)text);
    }
}

/* A weak tag never matches, so says the protocol, but the store that gave it means the object that it has. */
static void add_if_match(struct header_list *l, const char *etag)
{
    add_header(l, "If-Match", etag && etag[0] == 'W' && etag[1] == '/' ? etag + 2 : etag);
}

static sf_status build_headers(sf_s3_request *r, const sf_s3_target *t, const sf_store_op *op, const sf_allocator *a,
                               sf_error *err)
{
    struct header_list l = {.r = r, .alloc = a, .err = err};

    add_body_hash(&l, t);
    add_header(&l, "x-amz-security-token", t->session_token);
    add_header(&l, "x-amz-request-payer", t->requester_pays ? "requester" : NULL);
    switch (op->verb) {
    case SF_STORE_GET:
    case SF_STORE_GET_SUFFIX:
        if (op->verb == SF_STORE_GET_SUFFIX || op->len != SF_STORE_ALL)
            add_range(&l, op);
        add_if_match(&l, op->if_match);
        add_header(&l, "If-None-Match", op->if_none_match);
        break;
    case SF_STORE_PUT:
        add_checksum(&l, op);
        add_if_match(&l, op->if_match);
        add_header(&l, "If-None-Match", op->create_only && t->on_condition ? "*" : NULL);
        add_header(&l, "Content-Type", op->content_type ? op->content_type : "application/octet-stream");
        break;
    case SF_STORE_MULTIPART_PART:
        add_checksum(&l, op);
        add_header(&l, "Content-Type", "application/octet-stream"); /* of no meaning, but the body goes out unasked */
        break;
    case SF_STORE_MULTIPART_CREATE:
        add_header(&l, "Content-Type", op->content_type);
        break;
    case SF_STORE_DELETE_MANY:
        add_checksum(&l, op);
        add_header(&l, "Content-Type", "application/xml");
        break;
    case SF_STORE_MULTIPART_COMPLETE:
        add_header(&l, "If-None-Match", op->create_only && t->on_condition ? "*" : NULL);
        add_header(&l, "Content-Type", "application/xml");
        break;
    default:
        break;
    }
    return l.rc;
}

sf_status sf__s3_request_build(sf_s3_request *out, const sf_s3_target *t, const sf_store_op *op, const sf_allocator *a,
                               sf_error *err)
{
    sf_status rc;

    *out = (sf_s3_request){0};
    if (!build_url(out, t, op, a))
        return sf_fail(err, SF_NOMEM, "URL");
    rc = build_body(out, op, a, err);
    if (rc == SF_OK)
        rc = build_headers(out, t, op, a, err);
    set_bounds(out, op);
    return rc;
}

void sf__s3_request_cleanup(sf_s3_request *r, const sf_allocator *a)
{
    for (size_t i = 0; i < SF_S3_MAX_HEADERS && r->headers[i]; i++) {
        explicit_bzero(r->headers[i], strlen(r->headers[i])); /* one may be the session token */
        sf__free(a, r->headers[i]);
    }
    sf__free(a, r->url);
    sf__free(a, r->text);
    *r = (sf_s3_request){0};
}
