/* The <Error> that AWS services, and those that speak like them, answer with. Untrusted bytes in: see base/xml.h. Pure; any
 * thread. */
#ifndef SF_AUTH_FAULT_H
#define SF_AUTH_FAULT_H

#include "base/alloc.h"
#include "base/bytes.h"

/* Texts are cut to fit, free of control characters, and empty when absent. */
typedef struct sf_s3_fault {
    char code[64];
    char message[320];
    char region[64]; /* where the bucket is, when the request went to the wrong place */
    char request_id[96];
    uint64_t actual_size; /* of the object, with InvalidRange */
    bool has_actual_size;
} sf_s3_fault;

/* False when `body` is something else (a proxy's HTML, nothing at all); *out is empty then. */
bool sf__s3_fault_read(sf_bytes body, sf_s3_fault *out, const sf_allocator *a) SF_MUST_USE;

/* For documents that hold such an error: an element, by its path from the root. True at the end of the <Error>. */
bool sf__s3_fault_element(sf_s3_fault *f, const char *path, const char *text);
/* `name` is the path below the <Error>. */
void sf__s3_fault_field(sf_s3_fault *f, const char *name, const char *text);

/* For messages: on one line, cut between characters. */
void sf__s3_fault_text(char *out, size_t cap, const char *s);

#endif
