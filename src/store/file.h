/* What the parts of the file store share. The functions run on a worker and fill op's results or its job's error. */
#ifndef SF_STORE_FILE_H
#define SF_STORE_FILE_H

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "net/retry.h"
#include "store/store.h"

/* Files that a writer has not finished begin like this; listings do not show them. What is left of a writer that was
 * killed lists as an upload, whose id begins with "tmp-" when it was one of the first kind. */
#define SF_FILE_TEMPORARY ".sf-tmp-"
#define SF_FILE_UPLOAD ".sf-upload-"
#define SF_FILE_TEMPORARY_ID "tmp-"
static inline bool sf__file_is_temporary_id(const char *id) /* behind the first */
{
    return id[0] && strspn(id, "0123456789abcdefghijklmnopqrstuvwxyz-") == strlen(id);
}
/* A put writes all the time, and holds a lock on its file where there are locks. */
#define SF_FILE_ABANDONED_S 3600

/* One operation. `locked`: the last try met a folder that somebody else had locked; nothing happened but that the
 * temporary file is there, and the job is to be run again. */
typedef struct sf_file_job {
    sf_work work;
    sf_timer timer; /* loop thread, with the next two */
    sf_random random;
    uint32_t tries;
    uint64_t since_ns; /* when it was submitted */
    atomic_bool cancelled;
    sf_store_op *op;
    sf_error error; /* how it has failed; a worker's, then the loop thread's */
    /* workers */
    bool locked;
    bool synced; /* the upload is, by an earlier try */
    long holder; /* the process that has the lock; 0: unknown */
    int fd;      /* the finished temporary file, locked, or -1 */
    char *temporary;
    size_t made; /* how long the name of the first folder is that was made for it; 0: none */
} sf_file_job;

/* Of one under way. */
static inline sf_error *sf__file_error_of(const sf_store_op *op)
{
    return &((sf_file_job *)op->impl)->error;
}

sf_status sf__file_list(sf_store_op *op); /* of objects, or of uploads */
sf_status sf__file_put(sf_file_job *job);
/* A put that ends without success takes back what it wrote. */
void sf__file_put_end(sf_file_job *job);
sf_status sf__file_multipart(sf_file_job *job);
/* The time of the server, when there is one: what it has just made bears it. */
sf_status sf__file_time(sf_store_op *op);

/* Gives the finished file `fd`, named `temporary`, the name `path` on op's conditions: readers see the old file or the
 * new one, whole. SF_OK with job->locked: not yet. */
sf_status sf__file_put_in_place(sf_file_job *job, int fd, const char *temporary, const char *path);
/* Whether a temporary file's writer is alive; where there are no locks nobody knows, and it is false. */
bool sf__file_is_being_written(int fd);
/* Removes temporary files beside `path` that were left behind; `now` is the file system's time. */
void sf__file_sweep(const char *path, time_t now);
/* Removes the folder of `path` and those above it while they are empty and their names have `floor` bytes or more. */
void sf__file_remove_empty(char *path, size_t floor);
/* Deleting leaves empty folders, and a bucket has no such thing. The floor, for the function above, of those that a writer
 * of this library made above `path`; SIZE_MAX: none. */
size_t sf__file_first_of_ours(const char *path);
/* Whether errno says that the file system cannot do such a thing at all, which is not the same as that it failed, or
 * that we may not. */
bool sf__file_cannot(int e);
sf_status sf__file_sync(sf_store_op *op, int fd, const char *what);

/* "/key"; freed with sf__free. NULL, with an error, for a key with empty, "." or ".." segments. */
char *sf__file_path(sf_store_op *op, const char *key);
/* By errno; names what was tried. */
sf_status sf__file_error(sf_store_op *op, const char *what);
void sf__file_etag(const struct stat *st, char out[static 64]);

#endif
