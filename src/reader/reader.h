/* A reader: the pointer to the present snapshot, and what is needed to build the next one. */
#ifndef SF_READER_READER_H
#define SF_READER_READER_H

#include "base/pin.h"
#include "base/thread.h"
#include "net/retry.h"
#include "reader/source.h"
#include "reader/snapshot.h"

struct refresh_call;
struct reader_wait;

struct sf_reader {
    atomic_uint refs;
    const sf_allocator *alloc;
    sf_runtime *rt; /* a reference */

    /* set at open */
    sf_source *source;  /* prefix, stores, options */
    uint64_t opened_ns; /* when that began */

    /* Written under swap; read without it by look-ups, which pin it. NULL when closed */
    _Atomic(sf_snapshot *) current;

    sf_mutex swap; /* covers exactly the fields below, for a few instructions each, and the one above */
    bool closed;
    bool fallback;
    uint64_t refreshed_ns;
    char last_refresh_error[256];
    uint32_t refresh_failures;    /* since the last one that ended well */
    struct ready_progress *ready; /* of the ready() that began last, see ready.c; NULL: none has */

    /* loop thread */
    struct refresh_call *refresh_head, *refresh_tail; /* the head is running, the others wait their turn */
    uint64_t attempted_ns;                            /* when the last refresh ended, however; or the opening */
    struct reader_wait *waits;                        /* see wait.c */
    sf_random random;

    atomic_uint wait_count; /* of `waits`, and of those that are on their way there */
    sf_task closed_task;    /* has them look */
};

/* The present snapshot: to be released. NULL when the reader is closed. */
sf_snapshot *sf__reader_borrow(sf_reader *r, sf_error *err);
/* The same, for as long as a call takes: pinned where the calling thread has a pin, else with a reference. */
sf_snapshot *sf__reader_pin(sf_reader *r, sf_pin **pin, sf_error *err);
void sf__reader_unpin(sf_snapshot *s, sf_pin *pin);
/* Under swap: the snapshot that was current, with its reference, which goes by sf__snapshot_withdraw() once the lock is left. */
sf_snapshot *sf__reader_replace(sf_reader *r, sf_snapshot *next);
/* Why that failed: SF_STATE, or SF_FORKED in a child process. */
sf_status sf__reader_closed_status(sf_reader *r);
/* The opened reader for a loaded snapshot, which somebody began to open at `since_ns`; takes over both. */
sf_status sf__reader_new(sf_reader **out, sf_runtime *rt, sf_source *source, sf_snapshot *snap, bool fallback,
                         uint64_t since_ns, sf_error *err);
sf_reader *sf__reader_acquire(sf_reader *r);
void sf__reader_release(sf_reader *r);
/* Makes a reference the caller's, who brings it back by sf_reader_free(). Takes NULL. */
sf_reader *sf__reader_hand_out(sf_reader *r);

/* Loop thread: those who wait for what becomes of the reader look at it. */
void sf__reader_waits_look(sf_reader *r);
/* From the end of one refresh to the next one: the interval, longer after failures, and by up to that share of it longer or
 * shorter. */
int64_t sf__refresh_delay_ms(int64_t interval_ms, double jitter, uint32_t failures, uint64_t random);

void sf__ready_progress_release(struct ready_progress *p, const sf_allocator *a); /* takes NULL */

#endif
