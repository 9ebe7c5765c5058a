/* A tournament of sorted sources: tells which of them stands at the first key, in log2(count) comparisons per row. Most
 * comparisons look at two numbers only, the first 8 bytes of the keys, and choose without a branch: which source comes next is
 * what no processor foretells. One thread at a time.
 *
 * The owner says where each source stands (sf__kway_set, sf__kway_end), builds once all have said so, and from then on
 * moves the winner only: set or end it, then replay.
 *
 * Where many keys begin with the same 8 bytes these tell nothing: after some ties the numbers are taken behind what all keys have in common, for
 * as long as they do. */
#ifndef SF_BASE_KWAY_H
#define SF_BASE_KWAY_H

#include "base/alloc.h"
#include "base/bytes.h"

typedef enum sf_kway_order {
    SF_KWAY_FORWARD,      /* smallest key first; of equal keys the source with the smaller number */
    SF_KWAY_REVERSE,      /* largest key first; of equal keys as above */
    SF_KWAY_NEWEST_FIRST, /* as FORWARD, but of equal keys the source with the larger number */
} sf_kway_order;

#define SF_KWAY_SKIP_MAX 64u

typedef struct sf_kway {
    const sf_allocator *alloc;
    sf_kway_order order;
    uint32_t count;
    struct sf_kway_match {
        uint64_t head; /* decides where it differs: smaller comes first */
        uint32_t source;
    } *losers; /* of each match; losers[0] is the winner of all */
    struct sf_kway_slot {
        uint64_t head;
        sf_bytes key; /* borrowed from the source while it stands there */
        bool ended;   /* comes last */
    } *slots;
    uint32_t skip;           /* heads are of the bytes behind so many, which all keys begin with: */
    uint32_t ties, ties_max; /* since the last look at what they have in common; before the next one */
    uint8_t prefix[SF_KWAY_SKIP_MAX];
} sf_kway;

/* All sources have ended. False without memory. */
bool sf__kway_init(sf_kway *k, uint32_t count, sf_kway_order order, const sf_allocator *a) SF_MUST_USE;
void sf__kway_cleanup(sf_kway *k); /* takes a zeroed one, and leaves one */
void sf__kway_build(sf_kway *k);
/* The winner stands elsewhere now. */
void sf__kway_replay(sf_kway *k);

void sf__kway_set_behind(sf_kway *k, uint32_t i, sf_bytes key); /* sf__kway_set() with `skip` */

static inline void sf__kway_set(sf_kway *k, uint32_t i, sf_bytes key)
{
    uint64_t head = sf__key_head(key, 0);

    if (__builtin_expect(k->skip > 0, 0)) {
        sf__kway_set_behind(k, i, key);
        return;
    }
    k->slots[i] = (struct sf_kway_slot){k->order == SF_KWAY_REVERSE ? ~head : head, key, false};
}

static inline void sf__kway_end(sf_kway *k, uint32_t i)
{
    k->slots[i] = (struct sf_kway_slot){UINT64_MAX, {NULL, 0}, true};
}

/* Meaningful after build, with at least one source. */
static inline uint32_t sf__kway_winner(const sf_kway *k)
{
    return k->losers[0].source;
}

/* The source that stands at the first key but for the winner's; false: all others have ended. */
bool sf__kway_runner_up(const sf_kway *k, uint32_t *source);

static inline bool sf__kway_is_over(const sf_kway *k)
{
    return k->count == 0 || k->slots[k->losers[0].source].ended;
}

#endif
