#include "base/token_bucket.h"

#define ROUNDING 1e-9   /* of tokens: sums of many small gains are a little off */
#define OVERTAKEN_S 1.0 /* a thread that read its clock before others took tokens brings a time that little ago */

static double capacity(const sf_token_bucket *b)
{
    return b->burst > 0 ? b->burst : b->rate;
}

void sf__token_bucket_init(sf_token_bucket *b, double rate, double burst, double now)
{
    sf_mutex_init(&b->lock);
    b->rate = rate;
    b->burst = burst;
    b->tokens = capacity(b);
    b->at = now;
}

void sf__token_bucket_cleanup(sf_token_bucket *b)
{
    sf_mutex_destroy(&b->lock);
}

static void refill(sf_token_bucket *b, double now)
{
    double gained = b->tokens + (now - b->at) * b->rate;

    if (now > b->at)
        b->tokens = gained < capacity(b) ? gained : capacity(b);
    else if (b->at - now < OVERTAKEN_S)
        return;
    b->at = now; /* also when that is long ago: another clock, of the process that the bucket was copied from, say */
}

double sf__token_bucket_take(sf_token_bucket *b, double tokens, double now)
{
    double missing = 0;

    sf_mutex_lock(&b->lock);
    refill(b, now);
    if (b->tokens >= tokens - ROUNDING || tokens <= 0)
        b->tokens -= tokens;
    else
        missing = (tokens - b->tokens) / b->rate;
    sf_mutex_unlock(&b->lock);
    return missing;
}

double sf__token_bucket_reserve(sf_token_bucket *b, double tokens, double now)
{
    double left, rate;

    sf_mutex_lock(&b->lock);
    refill(b, now);
    left = b->tokens -= tokens;
    rate = b->rate;
    sf_mutex_unlock(&b->lock);
    return left >= -ROUNDING ? 0 : -left / rate;
}

void sf__token_bucket_give_back(sf_token_bucket *b, double tokens)
{
    sf_mutex_lock(&b->lock);
    b->tokens = b->tokens + tokens < capacity(b) ? b->tokens + tokens : capacity(b);
    sf_mutex_unlock(&b->lock);
}

void sf__token_bucket_set_rate(sf_token_bucket *b, double rate, double now)
{
    sf_mutex_lock(&b->lock);
    refill(b, now);
    b->rate = rate;
    if (b->tokens > capacity(b))
        b->tokens = capacity(b);
    sf_mutex_unlock(&b->lock);
}

sf_token_bucket_level sf__token_bucket_level(sf_token_bucket *b)
{
    sf_token_bucket_level level;

    sf_mutex_lock(&b->lock);
    level = (sf_token_bucket_level){b->rate, b->tokens, b->at, b->burst};
    sf_mutex_unlock(&b->lock);
    return level;
}

void sf__token_bucket_set_level(sf_token_bucket *b, sf_token_bucket_level level)
{
    sf_mutex_lock(&b->lock);
    b->rate = level.rate;
    b->tokens = level.tokens;
    b->at = level.at;
    b->burst = level.burst;
    sf_mutex_unlock(&b->lock);
}
