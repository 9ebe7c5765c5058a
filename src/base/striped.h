/* A count that many threads add to: each to a line of its own, so that none waits for another's. Any thread. */
#ifndef SF_BASE_STRIPED_H
#define SF_BASE_STRIPED_H

#include <stdatomic.h>
#include <stdint.h>

#define SF_STRIPES 32u

typedef struct sf_striped {
    struct sf_stripe {
        _Alignas(64) atomic_uint_fast64_t n;
    } stripes[SF_STRIPES];
} sf_striped;

/* `thread` as sf_pins.number has it. Threads beyond those that have a line of their own share the last one. */
static inline void sf__striped_add(sf_striped *s, unsigned thread, uint64_t more)
{
    atomic_uint_fast64_t *n = &s->stripes[thread < SF_STRIPES - 1 ? thread : SF_STRIPES - 1].n;

    if (thread < SF_STRIPES - 1)
        atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + more, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(n, more, memory_order_relaxed);
}

static inline uint64_t sf__striped_sum(sf_striped *s)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < SF_STRIPES; i++)
        sum += atomic_load_explicit(&s->stripes[i].n, memory_order_relaxed);
    return sum;
}

#endif
