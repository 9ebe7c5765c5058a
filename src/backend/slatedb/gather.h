/* Which blocks that look-ups miss are read with one request. Pure, but for what the disk cache knows; one thread at a time. */
#ifndef SF_BACKEND_SLATEDB_GATHER_H
#define SF_BACKEND_SLATEDB_GATHER_H

#include "backend/backend.h"
#include "backend/slatedb/sst.h"

/* How much wider gaps become at most where requests would wait for each other. */
#define SF_GATHER_WIDER 8u

/* A block that some key waits for. */
typedef struct sf_block_need {
    const sf_sst *sst;
    uint32_t block;
    bool on_disk; /* as far as is known: then it is asked for by itself, since what lies between is not there, perhaps */
} sf_block_need;

/* What may be under way at once of them. */
typedef struct sf_gather_room {
    uint64_t requests, bytes;
} sf_gather_room;

/* By SST and block, each once. How many they are; `on_disk` is set. */
size_t sf__gather_sort(sf_block_need *needs, size_t count);
/* What reading them is to cost: `cost`, or wider gaps where its ranges are more than there is room for at once and theirs need fewer waves. A
 * gap of that size takes a small part of the time that a request takes, and what waits for another request to end takes all of it. */
sf_read_cost sf__gather_cost(const sf_block_need *needs, size_t count, const sf_read_cost *cost,
                             const sf_gather_room *room);
/* The range that begins with needs[i], of one SST: how many of them are in it. */
size_t sf__gather_range(const sf_block_need *needs, size_t count, const sf_read_cost *cost);

#endif
