/* Rows that are left out because a newer one has their key: counted, or refused. Any thread. */
#ifndef SF_WRITER_DUPLICATES_H
#define SF_WRITER_DUPLICATES_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "base/error.h"

typedef struct sf_duplicates {
    bool refused; /* set before the first row */
    atomic_uint_fast64_t count;
} sf_duplicates;

/* SF_INVALID "duplicate key" where they are refused: the work ends. */
sf_status sf__duplicates_add(sf_duplicates *d, uint32_t group, sf_bytes key, sf_error *err) SF_MUST_USE;

#endif
