#include "backend/slatedb/gather.h"

#include <stdlib.h>

/* More waves than these run into each other, and what one more would take is no longer to be seen. */
#define WAVES 8u
#define STEPS 6u /* of the search for a gap: a sixty-fourth of what it may become */

static int need_cmp(const void *pa, const void *pb)
{
    const sf_block_need *a = pa, *b = pb;

    if (a->sst != b->sst)
        return a->sst < b->sst ? -1 : 1;
    return (a->block > b->block) - (a->block < b->block);
}

size_t sf__gather_sort(sf_block_need *needs, size_t count)
{
    size_t n = 0;

    qsort(needs, count, sizeof(*needs), need_cmp);
    for (size_t i = 0; i < count; i++) {
        if (n > 0 && need_cmp(&needs[n - 1], &needs[i]) == 0)
            continue; /* several keys, one block */
        needs[n] = needs[i];
        needs[n].on_disk = sf__sst_block_is_on_disk(needs[n].sst, needs[n].block);
        n++;
    }
    return n;
}

static uint64_t off_of(const sf_block_need *n)
{
    return sf__index_block_off(&n->sst->index, n->block);
}

static uint64_t end_of(const sf_block_need *n)
{
    return off_of(n) + sf__index_block_len(&n->sst->index, n->block);
}

size_t sf__gather_range(const sf_block_need *needs, size_t count, const sf_read_cost *cost)
{
    uint64_t gap = needs[0].on_disk ? 0 : cost->gap_bytes;
    size_t n = 1;

    while (n < count && needs[n].sst == needs[0].sst && needs[n].on_disk == needs[0].on_disk &&
           off_of(&needs[n]) - end_of(&needs[n - 1]) <= gap && end_of(&needs[n]) - off_of(&needs[0]) <= cost->max_bytes)
        n++;
    return n;
}

static sf_gather_room ranges_of(const sf_block_need *needs, size_t count, const sf_read_cost *cost)
{
    sf_gather_room all = {0};

    for (size_t i = 0, n; i < count; i += n) {
        n = sf__gather_range(needs + i, count - i, cost);
        all.requests++;
        all.bytes += end_of(&needs[i + n - 1]) - off_of(&needs[i]);
    }
    return all;
}

static bool fits(const sf_gather_room *all, const sf_gather_room *room, uint64_t waves)
{
    return (all->requests + waves - 1) / waves <= room->requests && (all->bytes + waves - 1) / waves <= room->bytes;
}

sf_read_cost sf__gather_cost(const sf_block_need *needs, size_t count, const sf_read_cost *cost,
                             const sf_gather_room *room)
{
    const sf_read_cost widest = {cost->gap_bytes * SF_GATHER_WIDER, cost->max_bytes};
    sf_gather_room all, least;

    if (count <= room->requests || cost->gap_bytes == 0 || cost->gap_bytes > UINT64_MAX / SF_GATHER_WIDER)
        return *cost;
    all = ranges_of(needs, count, cost);
    least = (sf_gather_room){ranges_of(needs, count, &widest).requests, all.bytes};
    for (uint64_t waves = 1; waves <= WAVES && !fits(&all, room, waves); waves++) {
        sf_read_cost wider = widest;
        uint64_t low = cost->gap_bytes; /* which is too little */
        sf_gather_room found;

        if (!fits(&least, room, waves))
            continue; /* whatever the gap: each look at all needs takes time that the loop thread has for nothing else */
        for (unsigned step = 0; step < STEPS; step++) { /* the least gap that leaves few enough ranges */
            sf_read_cost middle = {low + (wider.gap_bytes - low) / 2, cost->max_bytes};

            if ((ranges_of(needs, count, &middle).requests + waves - 1) / waves <= room->requests)
                wider = middle;
            else
                low = middle.gap_bytes;
        }
        found = ranges_of(needs, count, &wider);
        if (fits(&found, room, waves))
            return wider;
    }
    return *cost;
}
