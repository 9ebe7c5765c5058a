/* Getting credentials once, from one origin: one operation. Loop thread. */
#ifndef SF_AUTH_CREDENTIAL_FETCH_H
#define SF_AUTH_CREDENTIAL_FETCH_H

#include "auth/credential_origin.h"
#include "auth/credentials.h"
#include "net/http.h"

typedef struct sf_credential_fetch sf_credential_fetch;

typedef struct sf_credential_fetch_job {
    const sf_credential_origin *origin; /* borrowed; outlives the fetch, or its drop */
    sf_credentials *base;               /* SF_ORIGIN_ROLE: signs the request; borrowed during the call */
    sf_credentials *known;              /* those in use, or NULL: no text may hold them; borrowed during the call */
    sf_loop *loop;
    sf_http *http;
    const sf_allocator *alloc;
    int64_t now_us; /* the time of day */
    uint64_t deadline_ns;
    /* Once, never inside the starting call. `got` is the callee's when rc is SF_OK. */
    void (*done)(void *ctx, sf_status rc, const sf_error *err, sf_credentials *got);
    void *ctx;
} sf_credential_fetch_job;

/* NULL without memory; otherwise the fetch lives until `done` has returned or it was dropped. */
sf_credential_fetch *sf__credential_fetch_start(const sf_credential_fetch_job *job);
/* Ends it at once, without its completion. */
void sf__credential_fetch_drop(sf_credential_fetch *f);

#endif
