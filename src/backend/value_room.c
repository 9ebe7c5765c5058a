#include "backend/value_room.h"

/* For the next ones, too, as if they were as long. */
static bool room_grow(sf_value_room *room, size_t n)
{
    size_t bytes = room->keys > SF_VALUE_ROOM_BYTES / n ? SF_VALUE_ROOM_BYTES : room->keys * n;

    sf__buf_release(room->buf);
    room->used = 0;
    room->buf = sf__buf_new(room->alloc, bytes > n ? bytes : n);
    return room->buf != NULL;
}

bool sf__value_room_copy(sf_value_room *room, sf_bytes value, sf_value *out)
{
    sf_buf *b = room->buf;
    uint8_t *to;

    if (value.n > SF_VALUE_COPIED_BYTES)
        return false;
    if (!b || b->cap - room->used < value.n) {
        if (!room_grow(room, value.n > 0 ? value.n : 1))
            return false;
        b = room->buf;
    }
    to = b->data + room->used;
    if (value.n > 0)
        memcpy(to, value.p, value.n);
    room->used += value.n;
    /* no other thread has it before the look-up ends */
    atomic_store_explicit(&b->refs, atomic_load_explicit(&b->refs, memory_order_relaxed) + 1, memory_order_relaxed);
    *out = (sf_value){.found = true, .bytes = {to, value.n}, .owner = b};
    return true;
}

void sf__value_room_cleanup(sf_value_room *room)
{
    sf__buf_release(room->buf);
    room->buf = NULL;
}
