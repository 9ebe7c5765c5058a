/* From one operation to the URL, headers and body of its HTTP request. No I/O. Loop thread. */
#ifndef SF_STORE_S3_REQUEST_H
#define SF_STORE_S3_REQUEST_H

#include "shardyfusion/store.h"
#include "store/store.h"

/* Where the requests of one store go; fixed for its life, but for what belongs to the credentials of each. */
typedef struct sf_s3_target {
    char *bucket_url; /* encoded, without trailing slash; "https://host/bucket" or "https://bucket.host" */
    bool encrypted;
    bool virtual_hosted;
    bool requester_pays;
    /* set by whoever builds a request */
    bool on_condition; /* what is to be new goes out with a condition */
    bool list_v1;      /* the first way to list */
    bool sign;
    const char *session_token; /* borrowed, NULL without */
} sf_s3_target;

/* SF_INVALID: no bucket can have that name. */
sf_status sf__s3_bucket_check(const char *bucket, sf_error *err) SF_MUST_USE;

sf_status sf__s3_target_init(sf_s3_target *t, const char *bucket, const sf_s3_options *opts, const sf_allocator *a,
                             sf_error *err);
void sf__s3_target_cleanup(sf_s3_target *t, const sf_allocator *a);

#define SF_S3_MAX_HEADERS 8u

/* Owned texts, stable while the operation lasts: an attempt may be repeated from it. */
typedef struct sf_s3_request {
    const char *method;
    char *url;
    char *headers[SF_S3_MAX_HEADERS + 1]; /* NULL-terminated */
    sf_bytes body;                        /* the operation's, or `text` */
    char *text;
    uint64_t max_body_bytes, expect_body_bytes;
} sf_s3_request;

/* *out may be cleaned up after a failure, too. */
sf_status sf__s3_request_build(sf_s3_request *out, const sf_s3_target *t, const sf_store_op *op, const sf_allocator *a,
                               sf_error *err);
void sf__s3_request_cleanup(sf_s3_request *r, const sf_allocator *a);

#endif
