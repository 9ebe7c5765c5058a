/* From an HTTP answer to the results or the error of an operation, and whether another attempt may mend it. No I/O.
 * Loop thread. */
#ifndef SF_STORE_S3_RESPONSE_H
#define SF_STORE_S3_RESPONSE_H

#include "auth/credentials.h"
#include "net/http.h"
#include "store/store.h"

typedef struct sf_s3_answer {
    sf_http_request *http; /* done */
    const char *bucket;
    const char *region;                /* that was asked */
    const sf_credentials *credentials; /* that signed; no message may hold them */
    uint32_t attempts;                 /* this one included */
    uint64_t sent_ns;                  /* when the request went out */
    bool on_condition;                 /* the request had one */
    bool uncertain; /* an earlier attempt got no clear answer: the store may have done what was asked */
    /* result */
    sf_error *error;        /* where to; set by the caller */
    bool retry;             /* `error` is what to report when there is no further attempt */
    int64_t retry_after_ms; /* what the server asked for, 0 without */
    sf_refusal refusal;     /* of the credentials; others may mend it */
    bool cannot;            /* the store does not know what was asked in this form: there is another one */
    bool plainly;           /* it says so itself, by name: nothing between us and it does */
} sf_s3_answer;

/* Fills op's results, or `error`. Takes the body over where it is the result. A HEAD whose answer does not tell the size
 * ends well, with SF_STORE_ALL. */
sf_status sf__s3_response_read(sf_s3_answer *answer, sf_store_op *op, const sf_allocator *a);

#endif
