/* How much may be under way at once, in requests and in bytes, and the line of those who wait for their turn: strictly first
 * come, first served. Loop thread only, but for what operations hold and for reading the counters. */
#ifndef SF_CACHE_BUDGET_H
#define SF_CACHE_BUDGET_H

#include <stdatomic.h>

#include "net/loop.h"

/* Something that waits for its turn, or has it. Embedded by its owner. */
typedef struct sf_turn {
    struct sf_turn *next, *prev;
    uint64_t bytes; /* set aside while it has its turn */
    uint32_t requests;
    bool (*ready)(struct sf_turn *t); /* optional: false when there is no memory for it before another turn has ended */
    void (*go)(struct sf_turn *t);    /* runs no callback of anybody */
} sf_turn;

typedef struct sf_budget {
    /* set at creation */
    sf_loop *loop;
    uint32_t max_requests;
    uint64_t max_bytes;
    /* loop thread */
    sf_turn *first, *last; /* those that wait */
    /* written by the loop thread (`bytes_held` by any), read by any */
    atomic_uint_fast64_t requests_in_flight, bytes_in_flight, waiting, bytes_held;
} sf_budget;

void sf__budget_init(sf_budget *b, sf_loop *loop, uint32_t max_requests, uint64_t max_bytes);

/* Into the line, with one request and so many bytes, or the whole budget where they are more: then it goes alone. `go` may
 * be called at once. */
void sf__turn_wait(sf_budget *b, sf_turn *t, uint64_t bytes);
/* The same without waiting: false when others wait, or there is no room just now. `go` is not called. */
bool sf__turn_try(sf_budget *b, sf_turn *t, uint64_t bytes) SF_MUST_USE;
void sf__turn_leave(sf_budget *b, sf_turn *t); /* while it waits; sf__budget_pump() is due */
void sf__turn_end(sf_budget *b, sf_turn *t);   /* gives back what it had */
/* More of the bytes for one that has its turn: false when others wait, or there is no room just now. */
bool sf__turn_grow(sf_budget *b, sf_turn *t, uint64_t bytes) SF_MUST_USE;
/* Somebody has left the line, or there is memory again. */
void sf__budget_pump(sf_budget *b);
/* SF_TIMEOUT for one whose turn has not come since then. */
void sf__turn_overdue(const sf_budget *b, uint64_t since_ns, sf_error *err);

/* What an operation under way takes for itself comes out of the same budget: the more of them are pending, the less is asked
 * for at once. Half of the budget stays for requests whatever happens, or those that are pending would stay so for long. Any
 * thread. */
void sf__budget_hold(sf_budget *b, size_t bytes);
void sf__budget_let_go(sf_budget *b, size_t bytes);

/* Bytes of the budget for something else than a request: what is to be unpacked. Embedded by its owner. */
typedef struct sf_claim {
    sf_turn turn; /* first; private, as all that follows but for `done`, `ctx` and `error` */
    sf_budget *budget;
    bool waiting, held;
    sf_status ended; /* once it is over */
    uint64_t since_ns;
    sf_timer timer;
    sf_task task;
    void (*done)(struct sf_claim *c); /* exactly once, never inside the call: SF_OK, SF_TIMEOUT or SF_CANCELLED */
    void *ctx;
    const sf_error *error; /* never NULL; valid inside `done` */
} sf_claim;

/* Goes ahead of all requests that wait: whoever claims holds bytes already, which others cannot have before it has ended.
 * More than the budget has when it is alone. After SF_OK sf__claim_end() is due. */
void sf__claim_start(sf_budget *b, sf_claim *c, uint64_t bytes, uint64_t deadline_ns);
void sf__claim_cancel(sf_claim *c); /* harmless when it does not wait */
void sf__claim_end(sf_claim *c);    /* harmless when it holds nothing */

#endif
