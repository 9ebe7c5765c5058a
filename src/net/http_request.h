/* One HTTP request with its response: who asks fills it in, http.h sends it, http_response.h collects what comes. */
#ifndef SF_NET_HTTP_REQUEST_H
#define SF_NET_HTTP_REQUEST_H

#include "base/buf.h"
#include "net/work.h"

/* Error texts of servers are short; they are wanted even where the caller asked for a range of 100 bytes. Longer ones
 * are cut: what a 503 means does not depend on the size of its page. */
#define SF_HTTP_ERROR_BODY_BYTES (64u << 10)

/* Transport settings shared by many requests; borrowed while a request is in flight. */
typedef struct sf_http_config {
    const char *ca_bundle; /* path, NULL: the system's */
    bool insecure;         /* do not verify certificates */
    int64_t connect_timeout_ms;
    int64_t idle_timeout_ms; /* give up when no byte moves for so long, once connected; 0 = off */
    bool direct;             /* past the proxies of the environment, see net/proxy.h */
} sf_http_config;

typedef struct sf_http_header {
    char *name;  /* lower case */
    char *value; /* without surrounding blanks */
} sf_http_header;

/* One request. The owner embeds it, fills the first part, submits it, and gets `done` exactly once, on the loop
 * thread, never inside sf__http_submit(). After `done` has been entered the owner may read the results; it calls
 * sf__http_request_cleanup() when finished with them. */
typedef struct sf_http_request {
    /* set by the owner; everything is borrowed until done */
    const sf_http_config *config;
    const char *method;                  /* GET, HEAD, PUT, POST, DELETE */
    const char *url;                     /* complete and percent-encoded */
    const char *const *headers;          /* "Name: value", NULL-terminated; may be NULL */
    const char *sigv4;                   /* CURLOPT_AWS_SIGV4 value such as "aws:amz:us-east-1:s3", or NULL: unsigned */
    const char *access_key, *secret_key; /* with sigv4 */
    sf_bytes body;
    uint64_t deadline_ns;
    uint64_t max_body_bytes; /* a longer response body ends the request with SF_CORRUPT; that of a response
                                other than 2xx is cut, at SF_HTTP_ERROR_BODY_BYTES or max_body_bytes,
                                whichever is more */
    /* Optional, loop thread: a body of more than max_body_bytes is announced, of a good answer. True: it may be that long. */
    bool (*grow)(struct sf_http_request *r, uint64_t bytes);
    uint64_t expect_body_bytes; /* hint for the first allocation; 0 = unknown */
    void (*done)(struct sf_http_request *r);
    void *ctx;
    /* results. error->code: SF_OK when a complete response arrived, whatever its status; SF_TIMEOUT for the deadline,
     * SF_CANCELLED, SF_NOMEM, SF_CORRUPT (body over its bound), SF_UNAVAILABLE for everything that a new attempt may
     * mend (resolve, connect, reset, stall, short body), SF_INVALID for what it cannot (bad URL, bad CA file). */
    const sf_error *error; /* never NULL; valid inside `done`. http_status: also of an answer that broke off */
    long status;
    const char *waited_for; /* SF_TIMEOUT: what it was doing, as sf__http_waits_for() says */
    bool too_long;          /* SF_CORRUPT because of max_body_bytes; the headers are there and may tell the length */
    bool resent; /* it went out twice: the kept connection died before any answer, which the server may have meant */
    sf_http_header *response_headers;
    size_t response_header_count;
    sf_buf *response; /* body; NULL when empty. Detach by taking it and setting it NULL */
    void *impl;       /* http.c's */
    sf_task task;     /* http.c's */
} sf_http_request;

/* Of the response, by lower-case name; NULL when absent. */
const char *sf__http_response_header(const sf_http_request *r, const char *name);
void sf__http_request_cleanup(sf_http_request *r, const sf_allocator *a);

#endif
