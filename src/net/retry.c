#include "net/retry.h"

#include <unistd.h>

#include "base/clock.h"

#define NS_PER_MS UINT64_C(1000000)

uint64_t sf__random_next(sf_random *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void sf__random_seed(sf_random *r)
{
    r->state = (uint64_t)sf__clock_unix_us();
    r->state = sf__random_next(r) ^ sf__clock_mono_ns();
    r->state = sf__random_next(r) ^ (uint64_t)getpid();
    r->state = sf__random_next(r) ^ (uint64_t)(uintptr_t)r;
}

/* In [0, bound], by multiplication: no division, and a bias far below anything measurable. */
static int64_t random_up_to(int64_t bound, uint64_t random)
{
    return (int64_t)((unsigned __int128)random * ((uint64_t)bound + 1) >> 64);
}

int64_t sf__retry_delay_ms(const sf_retry_policy *p, uint32_t retry, uint64_t random)
{
    int64_t bound = p->base_ms > 0 ? p->base_ms : 0;

    while (retry-- > 0 && bound > 0 && bound < p->cap_ms)
        bound = bound > INT64_MAX / 2 ? INT64_MAX : bound * 2;
    if (bound > p->cap_ms)
        bound = p->cap_ms > 0 ? p->cap_ms : 0;
    return random_up_to(bound, random);
}

bool sf__retry_next(const sf_retry_policy *p, uint32_t retry, uint64_t started_ns, uint64_t now_ns,
                    uint64_t deadline_ns, int64_t server_ms, uint64_t random, int64_t *delay_ms)
{
    int64_t delay;
    uint64_t delay_ns, begin_ns;

    if (p->max_retries <= 0 || retry >= (uint32_t)p->max_retries)
        return false;
    delay = sf__retry_delay_ms(p, retry, random);
    if (delay < server_ms)
        delay = server_ms;
    if (__builtin_mul_overflow((uint64_t)delay, NS_PER_MS, &delay_ns) ||
        __builtin_add_overflow(now_ns, delay_ns, &begin_ns))
        return false;
    if (begin_ns >= deadline_ns)
        return false;
    if (p->total_ms > 0 && (begin_ns - started_ns) / NS_PER_MS >= (uint64_t)p->total_ms)
        return false;
    *delay_ms = delay;
    return true;
}
