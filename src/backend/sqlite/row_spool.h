/* Rows kept in the order they came, to be read back once: in memory while they are few, else in a nameless file. One
 * thread; blocks on file I/O.
 *
 *     init --> add ... add --> rewind --> next ... next --> cleanup
 *
 * A row is `u32le key length | u32le value length | key | value`. */
#ifndef SF_BACKEND_SQLITE_ROW_SPOOL_H
#define SF_BACKEND_SQLITE_ROW_SPOOL_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/error.h"

typedef struct sf_row_spool {
    const sf_allocator *alloc;
    const char *folder; /* borrowed; as in temp_file.h */
    int fd;             /* -1: all rows are in the buffer */
    uint8_t *buf;       /* adding: not written yet; reading: read and not handed out yet */
    size_t pos, n, cap;
    uint64_t written, read_off; /* bytes of the file */
} sf_row_spool;

void sf__row_spool_init(sf_row_spool *s, const char *folder, const sf_allocator *a);
/* Lengths below 4 GiB. */
sf_status sf__row_spool_add(sf_row_spool *s, sf_bytes key, sf_bytes value, sf_error *err) SF_MUST_USE;
sf_status sf__row_spool_rewind(sf_row_spool *s, sf_error *err) SF_MUST_USE;
/* Both spans hold until the next call. *end: there is none. */
sf_status sf__row_spool_next(sf_row_spool *s, bool *end, sf_bytes *key, sf_bytes *value, sf_error *err) SF_MUST_USE;
void sf__row_spool_cleanup(sf_row_spool *s);

#endif
