/* Keeps the credentials of one origin current: gets them when they are first needed, again ahead of their end, once for
 * all who wait. Loop thread, except creation. */
#ifndef SF_AUTH_CREDENTIAL_PROVIDER_H
#define SF_AUTH_CREDENTIAL_PROVIDER_H

#include "auth/credential_origin.h"
#include "auth/credentials.h"
#include "base/log.h"
#include "net/http.h"

/* Getting them takes no longer, whatever happens: files, a command, and requests with their repetitions. */
#define SF_CREDENTIALS_DEADLINE_MS 60000
/* So long before the end newer ones are got while the old ones serve; for short-lived ones a quarter of their life. */
#define SF_CREDENTIALS_AHEAD_US (INT64_C(300) * 1000000)

typedef struct sf_credential_provider sf_credential_provider;

/* `origin` is copied. `now_us` tells the time of day; NULL: the clock does. */
sf_status sf__credential_provider_new(sf_credential_provider **out, const sf_credential_origin *origin, sf_http *http,
                                      const sf_log *log, int64_t (*now_us)(void), sf_loop *loop, const sf_allocator *a,
                                      sf_error *err);
/* Nobody may wait any more; what is under way is dropped. Takes NULL. */
void sf__credential_provider_free(sf_credential_provider *p);

/* Those to sign with, acquired; NULL when they have to be got first. Newer ones may be sent for on the side. */
sf_credentials *sf__credential_provider_try(sf_credential_provider *p) SF_MUST_USE;

/* One who waits. `done` comes once, never inside the waiting call; `got` is the callee's, NULL with *err filled. */
typedef struct sf_credential_wait {
    void (*done)(struct sf_credential_wait *w, sf_credentials *got, const sf_error *err);
    struct sf_credential_wait *next, **link; /* the provider's */
} sf_credential_wait;
void sf__credential_provider_wait(sf_credential_provider *p, sf_credential_wait *w);
/* Not any more, without a completion. Harmless after it. */
void sf__credential_provider_leave(sf_credential_wait *w);

/* The store has refused these. True when there may be others: those that are there already, or the ones that the next
 * sf__credential_provider_wait() gets. A caller's source is asked whatever the reason, the other origins when their
 * credentials may be over. Where only this one request may have been refused, the others go on with what they have. */
bool sf__credential_provider_renew(sf_credential_provider *p, const sf_credentials *refused, sf_refusal why);

#endif
