/* Room that a look-up of several keys copies small values to: buffers that many of them share, where each value would else keep a block
 * alive, and its line in the processor's cache would be written to for that. Zeroed but for `alloc` and `keys`; one thread. */
#ifndef SF_BACKEND_VALUE_ROOM_H
#define SF_BACKEND_VALUE_ROOM_H

#include "base/buf.h"
#include "shardyfusion/reader.h"

#define SF_VALUE_COPIED_BYTES 512u /* the largest value that is copied */
#define SF_VALUE_ROOM_BYTES \
    (16u << 10) /* of a buffer, at most: so much a value that is kept for long keeps in memory */

typedef struct sf_value_room {
    const sf_allocator *alloc;
    size_t keys; /* that may still have a value */
    sf_buf *buf; /* with a reference of the room's; NULL: none so far */
    size_t used;
} sf_value_room;

/* A new buffer, with room for a value. False without memory. */
bool sf__value_room_grow(sf_value_room *room, size_t value_bytes) SF_MUST_USE;

/* The value, copied, with a reference. False: too large, or no memory; keep it otherwise. */
SF_MUST_USE static inline bool sf__value_room_copy(sf_value_room *room, sf_bytes value, sf_value *out)
{
    sf_buf *b = room->buf;
    uint8_t *to;

    if (value.n > SF_VALUE_COPIED_BYTES)
        return false;
    if (!b || b->cap - room->used < value.n) {
        if (!sf__value_room_grow(room, value.n))
            return false;
        b = room->buf;
    }
    to = b->data + room->used;
    memcpy(to, value.p, value.n);
    room->used += value.n;
    /* no other thread has it before the look-up ends */
    atomic_store_explicit(&b->refs, atomic_load_explicit(&b->refs, memory_order_relaxed) + 1, memory_order_relaxed);
    *out = (sf_value){.found = true, .bytes = {to, value.n}, .owner = b};
    return true;
}

void sf__value_room_cleanup(sf_value_room *room);

#endif
