#include "backend/value_room.h"

bool sf__value_room_grow(sf_value_room *room, size_t value_bytes)
{
    size_t n = value_bytes > 0 ? value_bytes : 1;
    size_t bytes = room->keys > SF_VALUE_ROOM_BYTES / n ? SF_VALUE_ROOM_BYTES
                                                        : room->keys * n; /* as if the next ones were as long */

    sf__buf_release(room->buf);
    room->used = 0;
    room->buf = sf__buf_new(room->alloc, bytes > n ? bytes : n);
    return room->buf != NULL;
}

void sf__value_room_cleanup(sf_value_room *room)
{
    sf__buf_release(room->buf);
    room->buf = NULL;
}
