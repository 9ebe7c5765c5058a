/* Timers in the order in which they are due: an intrusive pairing heap, so that starting a timer needs no memory and cannot
 * fail. Knows no clock: loop.h fires them. One thread at a time. */
#ifndef SF_NET_TIMER_H
#define SF_NET_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A one-shot timer, embedded. Zero-initialise; needs no closing. Timers that are due at the same instant fire in the
 * order they were started. */
typedef struct sf_timer {
    void (*fire)(struct sf_timer *timer);
    uint64_t due_ns;
    /* the queue's */
    uint64_t order; /* 0 = not armed */
    struct sf_timer *child, *sibling, *prev;
} sf_timer;

/* Zeroed: empty. */
typedef struct sf_timer_queue {
    sf_timer *first; /* the one that is due first, or NULL; the root of the heap */
    uint64_t newest; /* `order` of the one that was added last */
} sf_timer_queue;

void sf__timer_queue_add(sf_timer_queue *q, sf_timer *t, uint64_t due_ns); /* one that is not armed */
void sf__timer_queue_remove(sf_timer_queue *q, sf_timer *t);               /* one that is */

#endif
