/* What decoding may unpack in all, where somebody has to set the bytes aside for it first. What shrinks nothing takes none of
 * it. And the decompressors that those who unpack hand on to one another. */
#ifndef SF_BASE_PLAIN_ROOM_H
#define SF_BASE_PLAIN_ROOM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* A decompressor, embedded first by whoever has made it: making one takes longer than to unpack a block. One thread at a time. */
typedef struct sf_unpacker {
    int codec;
    void (*free)(struct sf_unpacker *u);
} sf_unpacker;

/* Those that nobody uses at the moment, SF_UNPACKERS at most. Zeroed: none. Any thread. */
#define SF_UNPACKERS 4u
typedef struct sf_unpackers {
    _Atomic(sf_unpacker *) spare[SF_UNPACKERS];
} sf_unpackers;

/* For the next one; one too many is freed. Takes NULL: then it is one too many. */
static inline void sf__unpacker_leave(sf_unpackers *s, sf_unpacker *u)
{
    for (size_t i = 0; s && i < SF_UNPACKERS && u; i++)
        u = atomic_exchange_explicit(&s->spare[i], u, memory_order_acq_rel);
    if (u)
        u->free(u);
}

/* NULL: there is none of this codec, or `s` is NULL. */
static inline sf_unpacker *sf__unpacker_take(sf_unpackers *s, int codec)
{
    for (size_t i = 0; s && i < SF_UNPACKERS; i++) {
        sf_unpacker *u = atomic_exchange_explicit(&s->spare[i], NULL, memory_order_acq_rel);

        if (u && u->codec == codec)
            return u;
        if (u)
            sf__unpacker_leave(s, u);
    }
    return NULL;
}

/* Nobody uses any more of them. */
static inline void sf__unpackers_cleanup(sf_unpackers *s)
{
    for (size_t i = 0; i < SF_UNPACKERS; i++) {
        sf_unpacker *u = atomic_exchange_explicit(&s->spare[i], NULL, memory_order_acq_rel);

        if (u)
            u->free(u);
    }
}

typedef struct sf_plain_room {
    uint64_t left;
    uint64_t wanted;         /* after SF_WOULD_BLOCK: what the piece that did not fit takes, or 0: it does not say */
    sf_unpackers *unpackers; /* of the runtime's; NULL: each block makes its own */
} sf_plain_room;

#endif
