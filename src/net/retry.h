/* Back-off arithmetic with full jitter, and the small random generator it is fed from. Pure: time and randomness are
 * handed in. A generator belongs to one thread. */
#ifndef SF_NET_RETRY_H
#define SF_NET_RETRY_H

#include "shardyfusion/base.h"

/* SplitMix64: one word of state, every seed is a good one. */
typedef struct sf_random {
    uint64_t state;
} sf_random;

/* Mixed from the clock, the process and the generator's own address, so that processes of a fleet that start at the
 * same instant do not back off in step. */
void sf__random_seed(sf_random *r);
uint64_t sf__random_next(sf_random *r);

typedef struct sf_retry_policy {
    int32_t max_retries; /* after the first attempt */
    int64_t base_ms;     /* bound of the first back-off; doubles with every attempt */
    int64_t cap_ms;      /* of that bound */
    int64_t total_ms;    /* from the start of the first attempt to the start of the last; <= 0: no bound */
} sf_retry_policy;

/* Uniform in [0, min(cap, base * 2^retry)]; `retry` counts from 0. */
int64_t sf__retry_delay_ms(const sf_retry_policy *p, uint32_t retry, uint64_t random);

/* Whether retry number `retry` (from 0) may be made, and after how long. `server_ms` is what the server asked for
 * (Retry-After) or 0: a floor under the jittered delay. False when the retries are used up, or when the attempt would
 * begin after total_ms or at or after the deadline: waiting for something that cannot succeed helps nobody. */
bool sf__retry_next(const sf_retry_policy *p, uint32_t retry, uint64_t started_ns, uint64_t now_ns,
                    uint64_t deadline_ns, int64_t server_ms, uint64_t random, int64_t *delay_ms) SF_MUST_USE;

#endif
