#include "backend/sqlite/file_view.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static sf_status read_fd(void *ctx, uint64_t off, size_t n, uint8_t *out, sf_error *err)
{
    int fd = (int)(intptr_t)ctx;

    while (n > 0) {
        ssize_t got = pread(fd, out, n, (off_t)off);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return sf_fail(err, SF_IO, "shard.db: read at %llu: %s", (unsigned long long)off,
                           got < 0 ? strerror(errno) : "the file is cut short");
        out += got;
        off += (uint64_t)got;
        n -= (size_t)got;
    }
    return SF_OK;
}

sf_file_view sf__file_view_of(int fd, uint64_t size)
{
    return (sf_file_view){.size = size, .read = read_fd, .ctx = (void *)(intptr_t)fd};
}
