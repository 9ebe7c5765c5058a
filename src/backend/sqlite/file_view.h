/* A file to be read at any place, wherever its bytes are. Threads: as its maker says. */
#ifndef SF_BACKEND_SQLITE_FILE_VIEW_H
#define SF_BACKEND_SQLITE_FILE_VIEW_H

#include "base/bytes.h"
#include "base/error.h"

typedef struct sf_file_view {
    uint64_t size;
    /* [off, off + n), which lies inside, into `out`. May block. */
    sf_status (*read)(void *ctx, uint64_t off, size_t n, uint8_t *out, sf_error *err);
    void *ctx;
} sf_file_view;

/* The first `size` bytes of a local file, by its descriptor, which stays the caller's. Any number of threads. Not mapped: a file
 * that somebody cuts short fails a read, but not the process, and does not count as memory of it. */
sf_file_view sf__file_view_of(int fd, uint64_t size);

#endif
