/* A directory of a data block's rows, made when the block comes into memory to stay there: where each row lies, and how its key begins.
 * A look-up then costs a line or two of it and the row itself, where a search of the block (block.h) reads its end, some restarts, and
 * rows up to the one that is asked for. It stands in front of the block, in its buffer (sf_buf.front):
 *
 *   sf_block_dir | prefix, filled up to 8 bytes | heads[rows] | u16 offsets[rows + 1] | fill | the block
 *
 * All keys begin with `prefix`. A head is the next 2, 4 or 8 bytes of a key as a number that sorts like them, a shorter rest filled up with
 * zeroes. What a row shares with another row's key lies in prefix and head, so that these and its suffix decide. Made of a block that
 * was checked, and never stored. Pure; any thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_BLOCK_DIR_H
#define SF_BACKEND_SLATEDB_FORMAT_BLOCK_DIR_H

#include "backend/slatedb/format/block_types.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/plain_room.h"

typedef struct sf_block_dir {
    uint16_t count; /* rows */
    uint16_t prefix_len;
    uint8_t head_bytes;
    uint8_t version; /* of the block */
} sf_block_dir;

/* `plain` = a block that sf__block_check() has passed. *out is the caller's reference: a buffer with the same content and a directory, or
 * `plain` itself, where that would not help: rows that share much more than all do, a key with very many versions, a block of one
 * large row. It is taken from `slab`, where that is not NULL and has room, else from `a`. SF_WOULD_BLOCK when the directory does not fit
 * into `room` (NULL: no bound): before it is made. */
sf_status sf__block_dir_make(sf_plain_room *room, sf_buf *plain, unsigned version, const sf_allocator *slab,
                             const sf_allocator *a, sf_buf **out, sf_error *err) SF_MUST_USE;

/* The first row that may have the key, by the directory, which is there; the number of rows: none has. Fetches that row. */
uint32_t sf__block_dir_seek(const sf_buf *plain, sf_bytes key);
/* As sf__block_get(), with what that has found. */
sf_status sf__block_dir_get(const sf_buf *plain, sf_bytes key, uint32_t first, uint64_t max_seq, bool *found,
                            sf_block_row *row, sf_error *err) SF_MUST_USE;

#endif
