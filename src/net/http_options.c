#include "net/http_options.h"

#include <string.h>
#include <strings.h>

#include "net/proxy.h"

/* S3 closes connections that idle for about 20 s or more; one that is younger is still there when we reuse it. */
#define IDLE_CONNECTION_SECONDS 18L
#define RECEIVE_BUFFER_BYTES (64L << 10)
#define EXPECT_100_MS 200L
/* Asking before a body goes out costs a round trip; a refusal costs the body. */
#define EXPECT_100_BYTES (1u << 20)

/* "." and ".." are parts of keys, and curl takes them away unless the path is to stay as it is. Newer versions of libcurl sign no request of that
 * kind. So only one with such a part is: there it is refused, where otherwise another key would be read. */
static bool has_dot_segment(const char *url)
{
    for (const char *p = strstr(url, "/."); p; p = strstr(p + 1, "/.")) {
        const char *end = p + (p[2] == '.' ? 3 : 2);

        if (*end == '/' || *end == '?' || *end == 0)
            return true;
    }
    return false;
}

static CURLcode set_transport(CURL *e, const sf_http_request *r)
{
    const sf_http_config *c = r->config;
    const char *proxy = c->direct ? NULL : sf__proxy_of(r->url, &(sf_environment){0});
    CURLcode rc = c->connect_timeout_ms < 0 ? CURLE_BAD_FUNCTION_ARGUMENT : CURLE_OK; /* some curls take it for "never" */

    SF_CURL_SET(rc, e, CURLOPT_NOSIGNAL, 1L);
    SF_CURL_SET(rc, e, CURLOPT_PROTOCOLS_STR, "http,https");
    SF_CURL_SET(rc, e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SF_CURL_SET(rc, e, CURLOPT_PATH_AS_IS, !r->sigv4 || has_dot_segment(r->url) ? 1L : 0L);
    SF_CURL_SET(rc, e, CURLOPT_FOLLOWLOCATION, 0L); /* a redirect is an answer: it has to be signed anew */
    SF_CURL_SET(rc, e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SF_CURL_SET(rc, e, CURLOPT_MAXAGE_CONN, IDLE_CONNECTION_SECONDS);
    SF_CURL_SET(rc, e, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES);
    SF_CURL_SET(rc, e, CURLOPT_EXPECT_100_TIMEOUT_MS, EXPECT_100_MS);
    SF_CURL_SET(rc, e, CURLOPT_QUICK_EXIT, 1L); /* cancelling must not wait for a name server */
    SF_CURL_SET(rc, e, CURLOPT_USERAGENT, "shardyfusion/" SF_VERSION_STRING);
    SF_CURL_SET(rc, e, CURLOPT_CONNECTTIMEOUT_MS, (long)c->connect_timeout_ms);
    SF_CURL_SET(rc, e, CURLOPT_SSL_VERIFYPEER, c->insecure ? 0L : 1L);
    SF_CURL_SET(rc, e, CURLOPT_SSL_VERIFYHOST, c->insecure ? 0L : 2L);
    if (c->ca_bundle)
        SF_CURL_SET(rc, e, CURLOPT_CAINFO, c->ca_bundle);
    SF_CURL_SET(rc, e, CURLOPT_PROXY, proxy ? proxy : ""); /* decided here: curl's own rules vary by its version */
    SF_CURL_SET(rc, e, CURLOPT_NOPROXY, "");
    return rc;
}

static CURLcode add_header(struct curl_slist **headers, const char *line)
{
    struct curl_slist *more = curl_slist_append(*headers, line);

    if (!more)
        return CURLE_OUT_OF_MEMORY;
    *headers = more;
    return CURLE_OK;
}

static bool has_content_type(const sf_http_request *r)
{
    for (const char *const *h = r->headers; h && *h; h++)
        if (strncasecmp(*h, "Content-Type:", 13) == 0)
            return true;
    return false;
}

/* A small body goes out as that of a form does, with the header and unasked. Uploads wait for the server's word first,
 * and cannot be told otherwise when they are signed: curl 7.88 signs the empty Expect header that switches it off and then
 * leaves it out, which AWS refuses. Without a content type of ours the form would bring its own. */
static CURLcode set_body(CURL *e, const sf_http_request *r, struct curl_slist **headers)
{
    CURLcode rc = CURLE_OK;
    bool small = r->body.n < EXPECT_100_BYTES;

    SF_CURL_SET(rc, e, CURLOPT_CUSTOMREQUEST, r->method);
    if (small && r->body.n > 0 && has_content_type(r)) {
        SF_CURL_SET(rc, e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.n);
        SF_CURL_SET(rc, e, CURLOPT_POSTFIELDS, (const char *)r->body.p);
        return rc;
    }
    SF_CURL_SET(rc, e, CURLOPT_UPLOAD, 1L);
    SF_CURL_SET(rc, e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body.n);
    if (small && !r->sigv4)
        rc = rc == CURLE_OK ? add_header(headers, "Expect:") : rc;
    return rc;
}

CURLcode sf__http_options_set(CURL *e, const sf_http_request *r, struct curl_slist **headers)
{
    CURLcode rc = set_transport(e, r);

    SF_CURL_SET(rc, e, CURLOPT_URL, r->url);
    if (strcmp(r->method, "HEAD") == 0)
        SF_CURL_SET(rc, e, CURLOPT_NOBODY, 1L);
    else if (r->body.n > 0 || strcmp(r->method, "PUT") == 0 || strcmp(r->method, "POST") == 0)
        rc = rc == CURLE_OK ? set_body(e, r, headers) : rc;
    else if (strcmp(r->method, "GET") != 0)
        SF_CURL_SET(rc, e, CURLOPT_CUSTOMREQUEST, r->method);
    if (r->sigv4) {
        SF_CURL_SET(rc, e, CURLOPT_AWS_SIGV4, r->sigv4);
        SF_CURL_SET(rc, e, CURLOPT_USERNAME, r->access_key); /* not USERPWD: that one splits at the first colon */
        SF_CURL_SET(rc, e, CURLOPT_PASSWORD, r->secret_key);
    }
    for (const char *const *h = r->headers; rc == CURLE_OK && h && *h; h++)
        rc = add_header(headers, *h);
    if (*headers)
        SF_CURL_SET(rc, e, CURLOPT_HTTPHEADER, *headers);
    return rc;
}

bool sf__http_options_reset(CURL *e)
{
    curl_easy_reset(e);
    /* After a transfer that could not even connect (no such host) curl 7.88 keeps the receive buffer beyond the reset, and
     * takes no size for it any more: such a handle would fail every request to come. */
    return curl_easy_setopt(e, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES) == CURLE_OK;
}
