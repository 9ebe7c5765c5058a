/* A look-up of keys in one shard, as one operation of the loop thread. In rounds, every key walks on until it is answered or misses
 * something that is not in memory; what the keys of a round miss is read together. A backend says how a key walks and how that is
 * read; deadline, cancelling, the end and what the operation may cost are here, for all of them.
 *
 *   WALKING --> READING --> WALKING ...
 *      |           |
 *      +---------> POSTED --> DONE        done() fires exactly once, never inside the starting call */
#ifndef SF_BACKEND_LOOKUP_H
#define SF_BACKEND_LOOKUP_H

#include "backend/backend.h"

typedef struct sf_lookup sf_lookup;

/* What a backend adds. Loop thread only. */
typedef struct sf_lookup_type {
    size_t size;           /* of its struct, which has the sf_lookup in it first, and is zeroed */
    const char *waits_for; /* "the blocks of some of its keys", for messages */
    /* False without memory; cleanup() follows. */
    bool (*init)(sf_lookup *l);
    /* Key `i` goes on. SF_OK: its value is there, or it has none. SF_WOULD_BLOCK: it has noted what it misses. Or how it failed. */
    sf_status (*walk)(sf_lookup *l, size_t i, sf_error *err);
    /* Makes reads of what was noted since the last time; how many, or 0 without memory. */
    size_t (*plan)(sf_lookup *l);
    /* Read `i`. sf__lookup_read_done() follows, not inside. */
    void (*read)(sf_lookup *l, size_t i);
    void (*read_cancel)(sf_lookup *l, size_t i);
    void (*drop)(sf_lookup *l);    /* the reads, which have served their round, or could not all be made */
    void (*cleanup)(sf_lookup *l); /* all else */
} sf_lookup_type;

/* Embedded first. */
struct sf_lookup {
    const sf_lookup_type *type;
    sf_shard *shard; /* acquired */
    sf_shard_get_many *op;
    enum sf_lookup_state { SF_LOOKUP_WALKING, SF_LOOKUP_READING, SF_LOOKUP_POSTED, SF_LOOKUP_DONE } state;
    bool cancelled;
    uint64_t since_ns;
    size_t walking; /* keys that have no answer yet: their status is SF_WOULD_BLOCK */
    size_t read_count, in_flight;
};

void sf__lookup_start(const sf_lookup_type *type, sf_shard *s, sf_shard_get_many *op);
void sf__lookup_read_done(sf_lookup *l);
/* As sf_shard_vtable has it. */
void sf__lookup_cancel(sf_shard *s, sf_shard_get_many *op);

#endif
