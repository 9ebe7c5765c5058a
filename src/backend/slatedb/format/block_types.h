/* A data block and a row of it, decoded (block.h). Views: they borrow the bytes. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_BLOCK_TYPES_H
#define SF_BACKEND_SLATEDB_FORMAT_BLOCK_TYPES_H

#include "base/bytes.h"

#define SF_ROW_TOMBSTONE 1u
#define SF_ROW_HAS_EXPIRE 2u
#define SF_ROW_HAS_CREATE 4u
#define SF_ROW_MERGE 8u /* the value is a merge operand */

#define SF_SEQ_MAX UINT64_MAX

typedef struct sf_block_row {
    sf_bytes key;   /* cursors: in the cursor, until it moves; sf__block_get(): the key asked for */
    sf_bytes value; /* in the block; empty for a tombstone */
    uint64_t seq;
    int64_t create_ts, expire_ts; /* Unix ms; 0 when the flag is not set */
    uint8_t flags;                /* known bits only, never tombstone and merge together */
} sf_block_row;

typedef struct sf_block {
    sf_bytes rows;          /* the row area */
    const uint8_t *offsets; /* u16be[offset_count], right behind the rows */
    uint32_t offset_count;  /* >= 1 */
    uint8_t version;        /* 1 or 2 */
} sf_block;

#endif
