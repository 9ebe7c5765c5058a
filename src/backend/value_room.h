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

/* The value, copied, with a reference. False: too large, or no memory; keep it otherwise. */
bool sf__value_room_copy(sf_value_room *room, sf_bytes value, sf_value *out) SF_MUST_USE;
void sf__value_room_cleanup(sf_value_room *room);

#endif
