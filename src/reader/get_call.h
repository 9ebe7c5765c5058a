/* A look-up of keys as a call: what memory did not have, each shard's keys as one request on the loop thread; the last shard home
 * completes it. It is filled by one thread (get.c), begun, and then waited for as every call. A look-up of one key needs no memory
 * beyond its call. */
#ifndef SF_READER_GET_CALL_H
#define SF_READER_GET_CALL_H

#include "base/arena.h"
#include "reader/snapshot.h"
#include "runtime/call.h"

/* More keys than that are sorted by a worker: the thread that asks may be an event loop's, and the loop thread is everybody's. */
#define SF_GET_SORTED_AT_ONCE 2048u
#define SF_NO_SHARD UINT32_MAX /* for keys that are asked of none */

typedef struct sf_get_call sf_get_call;

/* The keys of one shard. */
typedef struct sf_get_part {
    sf_get_call *owner;
    sf_shard *shard; /* borrowed from the snapshot */
    uint32_t db_id;
    bool in_flight; /* loop thread */
    sf_shard_get_many op;
} sf_get_part;

struct sf_get_call {
    sf_call call;
    sf_snapshot *snap; /* acquired */
    /* what memory does not have; by shard once it has begun, those that no shard is asked for last */
    sf_shard_ask *asks, first_ask;
    size_t count, cap;
    sf_arena arena; /* of the stored keys but the first */
    sf_get_part *parts, first_part;
    size_t part_count, part_cap, pending;
    sf_work sorting;
    bool is_sorting, is_cancelled; /* loop thread */
    /* results, as many as keys were asked for, in their order */
    size_t result_count;
    sf_value *values;
    sf_status *statuses;
    sf_error *shard_errors; /* of those that failed; or NULL: of one at most, the call's */
    size_t shard_error_count;
    size_t first_key_cap;
    uint8_t first_key[];
};

/* `key_bytes`: how long its first key is. NULL without memory; until it is begun it is dropped with sf__call_drop(). */
sf_get_call *sf__get_call_new(sf_snapshot *s, size_t key_bytes, int64_t timeout_ms) SF_MUST_USE;
/* The look-up that a call is, or NULL. */
sf_get_call *sf__get_call_of(const sf_call *c);
/* Room for the results of `count` keys; without it there are as many as were added. */
bool sf__get_call_results(sf_get_call *l, size_t count) SF_MUST_USE;
/* One more key of a shard, as stored; `index` among the results. */
sf_shard_ask *sf__get_call_add(sf_get_call *l, uint32_t db_id, sf_bytes key, size_t index) SF_MUST_USE;
/* One more key that cannot be asked for: it fails its shard, as a damaged block would. The first such key of a shard is reported. */
bool sf__get_call_add_failed(sf_get_call *l, uint32_t db_id, const sf_error *e, size_t index) SF_MUST_USE;
/* Hands one over whose answers from memory lie where its results are to be. False without memory: it is as it was. */
bool sf__get_call_start(sf_get_call *l, sf_call_done_fn done, void *ctx) SF_MUST_USE;

/* Releases what they hold. */
void sf__values_release(sf_value *values, size_t count); /* takes NULL */

#endif
