/* A token bucket: it starts full, holds `burst` tokens at most and gains `rate` per second. Arithmetic only: whoever asks it
 * brings the time, in seconds of a clock that goes forward, and does the waiting. Any thread. */
#ifndef SF_BASE_TOKEN_BUCKET_H
#define SF_BASE_TOKEN_BUCKET_H

#include <stdbool.h>

#include "base/thread.h"

typedef struct sf_token_bucket {
    sf_mutex lock; /* covers what follows */
    double rate, at;
    double tokens; /* below 0: so many are reserved beyond what is there */
    double burst;  /* 0: as many as the rate, whatever that is */
} sf_token_bucket;

/* What a bucket holds, for a copy of it. */
typedef struct sf_token_bucket_level {
    double rate, tokens, at, burst;
} sf_token_bucket_level;

/* `rate` is above 0. `burst` 0: as the rate. */
void sf__token_bucket_init(sf_token_bucket *b, double rate, double burst, double now);
void sf__token_bucket_cleanup(sf_token_bucket *b);

/* The seconds until `tokens` will be there, behind all that is reserved; 0 or less: they were, and are taken. */
double sf__token_bucket_take(sf_token_bucket *b, double tokens, double now);

/* Takes the tokens ahead of time: they are there after so many seconds (0: now), which the caller waits. Whoever comes later waits
 * for these tokens, too, so waiters are served in the order in which they came; more than the bucket can hold take their fair time. */
double sf__token_bucket_reserve(sf_token_bucket *b, double tokens, double now);
/* Of a wait that was given up. */
void sf__token_bucket_give_back(sf_token_bucket *b, double tokens);

/* Holds from now on: what was gained up to now was gained at the old rate. */
void sf__token_bucket_set_rate(sf_token_bucket *b, double rate, double now);

sf_token_bucket_level sf__token_bucket_level(sf_token_bucket *b);
void sf__token_bucket_set_level(sf_token_bucket *b, sf_token_bucket_level level);

#endif
