/* Wraps a store: counts requests, fails the nth, loses answers, lets a test change what comes back. */
#ifndef TESTS_SUPPORT_FAULT_STORE_H
#define TESTS_SUPPORT_FAULT_STORE_H

#include "net/wait.h"
#include "store/store.h"

typedef enum fault_kind {
    FAULT_NONE,
    FAULT_REFUSE, /* the request never reaches the store */
    FAULT_LOSE,   /* it is carried out, but the answer is an error */
    FAULT_HOLD,   /* no answer until it is cancelled: a stall */
    FAULT_SHORT,  /* GET: the last byte of the body is missing, the answer a success all the same */
    FAULT_ETAG,   /* another ETag than the object's */
    FAULT_BREAK,  /* GET: it breaks off after half of the body: an error, as after a reset and all retries */
    FAULT_REORDER /* its answer waits until a later request has got its own */
} fault_kind;

typedef struct fault_store {
    sf_store base;
    sf_store *inner; /* acquired */
    /* set by the test while nothing is under way, or on the loop thread */
    fault_kind kind;
    unsigned long at;                                      /* the request that gets it, from 1; 0: none */
    bool for_good;                                         /* and all after it */
    unsigned long times;                                   /* how many get it when it is not for good; 0: one */
    sf_status status;                                      /* REFUSE, LOSE, BREAK */
    uint32_t attempts;                                     /* what the error claims */
    sf_cancel_flag *on_hold;                               /* HOLD: set when it happens; may be NULL */
    void (*after)(struct fault_store *f, sf_store_op *op); /* loop thread, on every success */
    void *ctx;
    /* counted on the loop thread */
    unsigned long requests, verbs[SF_STORE_VERBS];
    unsigned in_flight, most_in_flight; /* of parts */
    bool fired;
    sf_store_op *held;
    sf_store_op *late; /* REORDER: answered, and not yet told */
    sf_error late_error;
    sf_error error; /* what a success becomes */
} fault_store;

/* Released with sf__store_release(&f->base). */
fault_store *fault_store_new(sf_store *inner);
void fault_store_reset(fault_store *f);
/* For `after`: the success is a failure from now on. */
sf_status fault_store_answer(fault_store *f, sf_store_op *op, sf_status code, const char *text);

#endif
