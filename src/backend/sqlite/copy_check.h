/* Whether a copy on disk is what was downloaded. A digest of its bytes lies in a record behind them, in the same file, so that both
 * come and go together:
 *
 *     bytes of the object | "SFCOPY1\n" | u64le size | u128le digest          the digest covers the copy's name, too
 *
 * It tells accidents and mix-ups; whoever may write to the folder could write records as well, so nobody else may.
 *
 * The digest is taken piece by piece, in any order, of any number of threads. */
#ifndef SF_BACKEND_SQLITE_COPY_CHECK_H
#define SF_BACKEND_SQLITE_COPY_CHECK_H

#include "backend/sqlite/file_view.h"
#include "base/alloc.h"
#include "base/checksum.h"

struct stat;

#define SF_COPY_PIECE_BYTES (UINT64_C(8) << 20)
#define SF_COPY_RECORD_BYTES 32u

typedef struct sf_copy_digest {
    sf_hash128 sum; /* zeroed: of nothing */
} sf_copy_digest;

/* `off`: a multiple of SF_COPY_PIECE_BYTES; the piece ends there or at the end of the file. */
void sf__copy_digest_add(sf_copy_digest *d, uint64_t off, sf_hash128 piece);
/* The hash of one piece, read from the file. */
sf_status sf__copy_piece_hash(const sf_file_view *file, uint64_t off, const sf_allocator *a, sf_hash128 *out,
                              sf_error *err) SF_MUST_USE;
void sf__copy_record(const sf_copy_digest *d, const char *name, uint64_t size, uint8_t out[SF_COPY_RECORD_BYTES]);

/* What this process has found right it need not read again while the file is as it was: contents, owner, mode and names change
 * the times that are compared. Remembers some thousand files; a fork inherits them. Lock-free; any thread. */
bool sf__copy_is_known(const struct stat *st, const uint8_t record[SF_COPY_RECORD_BYTES]);
void sf__copy_remember(const struct stat *st, const uint8_t record[SF_COPY_RECORD_BYTES]);

#endif
