/* When a second request for the same range is worth sending (docs/guides/caches.md, "Slow answers"): the one place that decides it. It learns how long
 * answers take, earns a share of a request with each that is sent, and tells a store that is sick, or slow as a whole, from one slow
 * answer. Arithmetic only: cache/fetch.c brings the times, sends and cancels. Loop thread, but for references and statistics. */
#ifndef SF_STORE_HEDGE_H
#define SF_STORE_HEDGE_H

#include "shardyfusion/reader.h"
#include "store/events.h"

typedef struct sf_hedge sf_hedge; /* of one reader, for all its stores of shards; counted */

typedef enum sf_hedge_verdict {
    SF_HEDGE_SEND,
    SF_HEDGE_WAIT,   /* it is not late by what is known now: ask again after sf__hedge_after_ns() */
    SF_HEDGE_REFUSED /* noted, with the reason: do not ask again */
} sf_hedge_verdict;

/* `share`: of requests, above 0. `after_ns`: when, or 0: as learned. `events` hears of what becomes of late answers; it may be NULL. */
sf_status sf__hedge_new(sf_hedge **out, double share, uint64_t after_ns, sf_store_events *events, const sf_allocator *a,
                        sf_error *err);
sf_hedge *sf__hedge_acquire(sf_hedge *h); /* any thread, as the next one; both take NULL */
void sf__hedge_release(sf_hedge *h);
void sf__hedge_get_stats(const sf_hedge *h, sf_hedge_stats *out); /* any thread */

/* Whether a read of so many bytes may ever be hedged; false for NULL. */
bool sf__hedge_covers(const sf_hedge *h, uint64_t len);
/* How long an answer of so many bytes may take before it is late. */
uint64_t sf__hedge_after_ns(const sf_hedge *h, uint64_t len);
/* A first request goes out. */
void sf__hedge_note_request(sf_hedge *h);
/* It has not been answered for so long. */
sf_hedge_verdict sf__hedge_ask(sf_hedge *h, uint64_t len, uint64_t waited_ns);
/* After SF_HEDGE_SEND: it goes out, or there is no room for it in the bounds of what is under way. */
void sf__hedge_note_sent(sf_hedge *h);
void sf__hedge_note_no_room(sf_hedge *h);
/* A read has what it wanted, so long after its first request; `late`: it was asked about, with another answer than SF_HEDGE_WAIT. */
void sf__hedge_note_answer(sf_hedge *h, uint64_t len, uint64_t took_ns, bool late, bool by_second);
/* An attempt failed as one does that is worth repeating. Takes NULL, as the next one. */
void sf__hedge_note_trouble(sf_hedge *h);
/* Whoever reads has waited so long, until its deadline, for what was asked for. */
void sf__hedge_note_deadline(sf_hedge *h, uint64_t waited_ns);

#endif
