/* The hash that an integer key routes by, inlined where look-ups begin. Pure; any thread. */
#ifndef SF_SNAPSHOT_INT_KEY_H
#define SF_SNAPSHOT_INT_KEY_H

#define XXH_INLINE_ALL /* with its length known, the hash of an integer is a handful of instructions */
#include <xxhash.h>

#include "snapshot/key.h"

static inline uint64_t sf__int_key_hash(uint64_t key)
{
    uint8_t bytes[8];

    sf__key_store_le64(bytes, key);
    return XXH3_64bits(bytes, sizeof(bytes));
}

#endif
