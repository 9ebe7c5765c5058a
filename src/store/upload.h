/* One object, written front to back by a thread that may wait (wait.h). What fits into one part goes as a single PUT,
 * more as a multipart upload whose parts travel while the next one fills. Memory: `parts_in_flight` + 1 parts. */
#ifndef SF_STORE_UPLOAD_H
#define SF_STORE_UPLOAD_H

#include "store/wait.h"

/* The smallest part that every S3 takes is 5 MiB; 10,000 parts are the most. Parts double every 1000, so that 8 MiB
 * ones reach 8 TiB, above the largest object; below 8 GiB all are equal, as some stores want them. */
#define SF_UPLOAD_PART_BYTES (UINT64_C(8) << 20)
#define SF_UPLOAD_PARTS_PER_SIZE 1000u

typedef struct sf_upload_options {
    uint64_t part_bytes;          /* of the first parts */
    uint32_t parts_in_flight;     /* 1 .. 64 */
    int64_t timeout_ms;           /* of each request, retries included */
    const sf_cancel_flag *cancel; /* may be NULL; must outlive the upload */
    bool create_only;             /* SF_CONFLICT when the object exists; it stays then. Where a store cannot complete
                                     parts on a condition: as near as a look before */
} sf_upload_options;
#define SF_UPLOAD_OPTIONS_INIT {.part_bytes = SF_UPLOAD_PART_BYTES, .parts_in_flight = 3, .timeout_ms = 120000}

typedef struct sf_upload sf_upload;

typedef struct sf_upload_result {
    uint64_t size;
    char etag[128]; /* as the store gave it, with its quotes */
    bool ours;      /* no other writer can have stored it: not so when create_only and an answer was lost */
} sf_upload_result;

/* No request yet. `key` and `content_type` (may be NULL) are copied. */
sf_status sf__upload_open(sf_upload **out, sf_store *store, const char *key, const char *content_type,
                          const sf_upload_options *opts, sf_error *err) SF_MUST_USE;
/* Copies; waits while too many parts are in flight. The first failure of a part stays. */
sf_status sf__upload_append(sf_upload *u, sf_bytes bytes, sf_error *err) SF_MUST_USE;
uint64_t sf__upload_size(const sf_upload *u); /* appended so far */
/* Sends what is left, completes, and asks the store what it has: SF_CORRUPT when that is not what was sent. */
sf_status sf__upload_finish(sf_upload *u, sf_upload_result *out, sf_error *err) SF_MUST_USE;
/* Without a successful finish: waits for the parts in flight, aborts the upload, and deletes the object when it may
 * have come into being and is nobody else's: with create_only one whose answer was lost stays. Takes NULL. */
void sf__upload_free(sf_upload *u);

#endif
