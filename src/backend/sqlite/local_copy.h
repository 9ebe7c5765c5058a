/* One copy of shard.db on disk on its way into use: taken and verified, or made, filled, and given its name. It goes by descriptors from
 * the first step on. Blocking file I/O; one thread at a time, but for sf__local_copy_write(). */
#ifndef SF_BACKEND_SQLITE_LOCAL_COPY_H
#define SF_BACKEND_SQLITE_LOCAL_COPY_H

#include <sys/stat.h>

#include "backend/sqlite/copy_check.h"

typedef struct sf_local_copy {
    const sf_allocator *alloc;
    char *folder; /* or NULL: copies have no place */
    /* set by the owner once it is known */
    uint64_t size;    /* of the object */
    const char *file; /* the copy's name, with the folder (copies.h); borrowed */
    /* private, but for reading */
    int folder_fd;   /* or -1 */
    int fd;          /* of the copy, or -1 */
    char *temporary; /* the name of one that is being made, in the folder */
    bool taken;      /* there was one, and it has not turned out bad */
    sf_copy_digest digest;
    uint64_t verified; /* bytes of it */
    uint8_t record[SF_COPY_RECORD_BYTES];
    struct stat seen; /* one that was taken, before it was read */
} sf_local_copy;

void sf__local_copy_init(sf_local_copy *c, const sf_allocator *a, char *folder); /* takes the folder over */
void sf__local_copy_cleanup(sf_local_copy *c);

/* One that is there. Fails as sf__copy_take() does. */
sf_status sf__local_copy_take(sf_local_copy *c, sf_error *err) SF_MUST_USE;
/* Whether this process has found it right before. */
bool sf__local_copy_is_known(const sf_local_copy *c);
/* Reads its next piece; after the last one it says SF_CORRUPT if it is not what was downloaded. */
sf_status sf__local_copy_verify(sf_local_copy *c, sf_error *err) SF_MUST_USE;
/* A new one, without its name. */
sf_status sf__local_copy_make(sf_local_copy *c, sf_error *err) SF_MUST_USE;
/* Any thread; the owner adds to the digest. */
sf_status sf__local_copy_write(sf_local_copy *c, uint64_t off, sf_bytes bytes, sf_error *err) SF_MUST_USE;
sf_file_view sf__local_copy_view(const sf_local_copy *c);
/* It is right, and in use from now on: a new one gets its name, others of its lineage go. */
sf_status sf__local_copy_keep(sf_local_copy *c, sf_error *err) SF_MUST_USE;
void sf__local_copy_drop(sf_local_copy *c); /* a new one */
/* Its descriptor is the caller's from now on; -1: there is none. */
int sf__local_copy_give_away(sf_local_copy *c);

#endif
