/* What decoding may unpack in all, where somebody has to set the bytes aside for it first. What shrinks nothing takes none of
 * it. */
#ifndef SF_BASE_PLAIN_ROOM_H
#define SF_BASE_PLAIN_ROOM_H

#include <stdint.h>

typedef struct sf_plain_room {
    uint64_t left;
    uint64_t wanted; /* after SF_WOULD_BLOCK: what the piece that did not fit takes, or 0: it does not say */
} sf_plain_room;

#endif
