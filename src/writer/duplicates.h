/* Rows that are left out because a newer one has their key: counted, or refused. Any thread. */
#ifndef SF_WRITER_DUPLICATES_H
#define SF_WRITER_DUPLICATES_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "base/error.h"
#include "snapshot/key.h"

/* Where duplicates are refused, values end in the number of their row, from 1, so that the message can name both rows. */
#define SF_ROW_NUMBER_BYTES 8u

typedef struct sf_duplicate_rows {
    bool refused;             /* set before the first row, as the next */
    sf_key_encoding encoding; /* for the message, as the next */
    bool groups_are_shards;
    atomic_uint_fast64_t count;
} sf_duplicate_rows;

/* 0 unless the values have one. */
static inline uint64_t sf__row_number(const sf_duplicate_rows *d, sf_bytes value)
{
    return d->refused ? sf_load_be(value.p + value.n - SF_ROW_NUMBER_BYTES, SF_ROW_NUMBER_BYTES) : 0;
}

/* SF_INVALID "row 9: duplicate key 'k'" where they are refused: the work ends. */
sf_status sf__duplicates_add(sf_duplicate_rows *d, uint32_t group, sf_bytes key, uint64_t older, uint64_t newer,
                             sf_error *err) SF_MUST_USE;

#endif
