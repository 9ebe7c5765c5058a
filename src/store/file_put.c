/* Writing files so that a reader sees the old one or the new one, whole: a temporary file, fsync, then file_place.c. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/strbuf.h"
#include "store/file.h"

#define ID_LEN 32u

/* ------------------------------------------------------------------ pieces --------------------------------------- */

static sf_status random_name(sf_store_op *op, char out[static ID_LEN + 1])
{
    uint8_t bytes[ID_LEN / 2];

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return sf__file_error(op, "random name");
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    return SF_OK;
}

/* Makes the folders above `path`. `made` (may be NULL) as in the job. */
static sf_status make_parents(sf_store_op *op, char *path, size_t *made)
{
    for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
        int e;

        *p = '\0';
        e = mkdir(path, 0777) == 0 ? 0 : errno;
        *p = '/';
        if (e == 0 && made && *made == 0)
            *made = (size_t)(p - path);
        if (e != 0 && e != EEXIST) {
            errno = e;
            return sf__file_error(op, "make folder");
        }
    }
    return SF_OK;
}

void sf__file_remove_empty(char *path, size_t floor)
{
    for (char *p = strrchr(path, '/'); p && (size_t)(p - path) >= floor && p > path; p = strrchr(path, '/')) {
        bool gone;

        *p = '\0';
        gone = rmdir(path) == 0;
        if (!gone)
            return;
    }
}

static sf_status write_all(sf_store_op *op, int fd, sf_bytes body)
{
    while (body.n > 0) {
        ssize_t n = write(fd, body.p, body.n);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sf__file_error(op, "write");
        body.p += n;
        body.n -= (size_t)n;
    }
    return SF_OK;
}

/* Of a file that was made just now. */
static void note_time(sf_store_op *op, int fd)
{
    struct stat st;

    if (fstat(fd, &st) == 0)
        sf__store_note_time(op->store, (int64_t)st.st_mtim.tv_sec * 1000000 + st.st_mtim.tv_nsec / 1000, 0);
}

/* A new file beside `path`, whose folders exist then; one that somebody found empty may be gone again meanwhile. -1 with
 * op's error. */
static int create_beside(sf_store_op *op, char *path, const char *name, size_t *made)
{
    int fd = -1;

    for (unsigned tries = 0; fd < 0 && tries < 10; tries++) {
        if (make_parents(op, path, made) != SF_OK)
            return -1;
        fd = SF_FD(open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
        if (fd < 0 && errno != ENOENT)
            break;
    }
    if (fd < 0)
        sf__file_error(op, "create");
    else
        note_time(op, fd);
    return fd;
}

/* ------------------------------------------------------------------ one put -------------------------------------- */

static sf_status write_temporary(sf_file_job *job, char *path)
{
    sf_store_op *op = job->op;
    char id[ID_LEN + 1];
    sf_status rc = random_name(op, id);

    if (rc != SF_OK)
        return rc;
    job->temporary =
        sf__asprintf(op->store->alloc, "%.*s/" SF_FILE_TEMPORARY "%s", (int)(strrchr(path, '/') - path), path, id);
    if (!job->temporary)
        return sf_fail(sf__file_error_of(op), SF_NOMEM, "file name");
    job->fd = create_beside(op, path, job->temporary, &job->made);
    if (job->fd < 0)
        return sf__file_error_of(op)->code;
    flock(job->fd, LOCK_EX | LOCK_NB); /* who sweeps sees that somebody is at it; without locks the age has to do */
    rc = write_all(op, job->fd, op->body);
    return rc == SF_OK ? sf__file_sync(op, job->fd, "sync") : rc;
}

sf_status sf__file_put(sf_file_job *job)
{
    sf_store_op *op = job->op;
    char *path = sf__file_path(op, op->key);
    struct stat st;
    sf_status rc = SF_OK;

    if (!path)
        return sf__file_error_of(op)->code;
    if (!job->temporary)
        rc = write_temporary(job, path);
    if (rc == SF_OK)
        rc = sf__file_put_in_place(job, job->fd, job->temporary, path);
    if (rc == SF_OK && !job->locked && fstat(job->fd, &st) == 0)
        sf__file_sweep(path, st.st_mtime);
    sf__free(op->store->alloc, path);
    return rc;
}

sf_status sf__file_time(sf_store_op *op)
{
    char *folder = sf__file_path(op, op->key), *name = NULL;
    char id[ID_LEN + 1];
    sf_status rc = folder ? random_name(op, id) : sf__file_error_of(op)->code;
    int fd;

    if (rc == SF_OK && !(name = sf__asprintf(op->store->alloc, "%s/" SF_FILE_TEMPORARY "%s", folder, id)))
        rc = sf_fail(sf__file_error_of(op), SF_NOMEM, "file name");
    if (rc == SF_OK) {
        fd = SF_FD(open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
        if (fd >= 0) {
            note_time(op, fd);
            unlink(name);
            close(fd);
        } else if (errno != ENOENT) {
            rc = sf__file_error(op, "create");
        }
    }
    sf__free(op->store->alloc, name);
    sf__free(op->store->alloc, folder);
    return rc;
}

void sf__file_put_end(sf_file_job *job)
{
    const sf_allocator *a = job->op->store->alloc;
    char *path;

    if (job->fd >= 0) {
        if (job->error.code != SF_OK)
            unlink(job->temporary);
        close(job->fd);
    }
    job->fd = -1;
    sf__free(a, job->temporary);
    job->temporary = NULL;
    path = job->error.code != SF_OK && job->made > 0 ? sf__asprintf(a, "/%s", job->op->key) : NULL;
    if (path)
        sf__file_remove_empty(path, job->made);
    sf__free(a, path);
}

/* ------------------------------------------------------------------ multipart ------------------------------------ */

/* An upload is one file beside the file to be. A part is written where it belongs, so completing copies nothing; its
 * ETag says where that is. */
static char *upload_file(sf_store_op *op, const char *path, const char *id)
{
    const char *slash = strrchr(path, '/');
    size_t skip = strncmp(id, SF_FILE_TEMPORARY_ID, strlen(SF_FILE_TEMPORARY_ID)) == 0 ? strlen(SF_FILE_TEMPORARY_ID) : 0;
    char *name;

    id += skip;
    if (skip > 0 ? op->verb != SF_STORE_MULTIPART_ABORT || !sf__file_is_temporary_id(id)
                 : strspn(id, "0123456789abcdef") != ID_LEN || id[ID_LEN] != '\0') {
        sf_fail(sf__file_error_of(op), SF_NOT_FOUND, "no such upload");
        return NULL;
    }
    name = sf__asprintf(op->store->alloc, "%.*s/%s%s", (int)(slash - path), path,
                        skip > 0 ? SF_FILE_TEMPORARY : SF_FILE_UPLOAD, id);
    if (!name)
        sf_fail(sf__file_error_of(op), SF_NOMEM, "upload");
    return name;
}

static sf_status create_upload(sf_store_op *op, char *path)
{
    char id[ID_LEN + 1];
    char *name = NULL;
    size_t made = 0;
    sf_status rc = random_name(op, id);
    int fd;

    if (rc == SF_OK && !(name = upload_file(op, path, id)))
        rc = sf__file_error_of(op)->code;
    if (rc == SF_OK && !(op->upload_id_out = sf__strdup(op->store->alloc, id)))
        rc = sf_fail(sf__file_error_of(op), SF_NOMEM, "upload");
    if (rc == SF_OK) {
        fd = create_beside(op, path, name, &made);
        if (fd < 0)
            rc = sf__file_error_of(op)->code;
        else if (close(fd) != 0)
            rc = sf__file_error(op, "create");
    }
    if (rc != SF_OK && made > 0)
        sf__file_remove_empty(path, made);
    sf__free(op->store->alloc, name);
    return rc;
}

static sf_status write_part(sf_store_op *op, int fd)
{
    sf_status rc;

    if (lseek(fd, (off_t)op->off, SEEK_SET) < 0)
        return sf__file_error(op, "seek");
    rc = write_all(op, fd, op->body);
    if (rc == SF_OK)
        snprintf(op->etag, sizeof(op->etag), "\"%u-%llu-%zu\"", op->part_number, (unsigned long long)op->off, op->body.n);
    return rc;
}

/* The parts follow one another and are all there is. */
static sf_status check_parts(sf_store_op *op, int fd)
{
    unsigned long long end = 0;
    struct stat st;

    for (size_t i = 0; i < op->key_count; i++) {
        unsigned long long number, off, n;
        char quote;

        if (sscanf(op->keys[i], "\"%llu-%llu-%llu%c", &number, &off, &n, &quote) != 4 || number != i + 1 ||
            off != end || __builtin_add_overflow(off, n, &end))
            return sf_fail(sf__file_error_of(op), SF_INVALID,
                           "part %zu is another one, or does not follow the one before", i + 1);
    }
    if (fstat(fd, &st) != 0)
        return sf__file_error(op, "stat");
    if ((unsigned long long)st.st_size != end)
        return sf_fail(sf__file_error_of(op), SF_INVALID, "parts of %llu bytes, %llu are there", end,
                       (unsigned long long)st.st_size);
    return SF_OK;
}

static sf_status complete_upload(sf_file_job *job, const char *path, const char *name, int fd)
{
    sf_status rc = check_parts(job->op, fd);

    if (rc == SF_OK && !job->synced)
        rc = sf__file_sync(job->op, fd, "sync");
    job->synced = rc == SF_OK;
    return rc == SF_OK ? sf__file_put_in_place(job, fd, name, path) : rc;
}

/* A put that is under way is not aborted: its writer takes it back, or it is an object in a moment. */
static bool is_put_under_way(const sf_store_op *op, const char *name)
{
    bool is_put = strncmp(op->upload_id, SF_FILE_TEMPORARY_ID, strlen(SF_FILE_TEMPORARY_ID)) == 0, alive;
    int fd = is_put ? SF_FD(open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)) : -1;

    if (fd < 0)
        return false;
    alive = sf__file_is_being_written(fd);
    close(fd);
    return alive;
}

static sf_status abort_upload(sf_store_op *op, char *path, const char *name)
{
    if (is_put_under_way(op, name))
        return SF_OK;
    if (unlink(name) != 0 && errno != ENOENT)
        return sf__file_error(op, "delete upload");
    if (op->tidy)
        sf__file_remove_empty(path, sf__file_first_of_ours(path));
    return SF_OK;
}

static sf_status with_upload(sf_file_job *job, char *path)
{
    sf_store_op *op = job->op;
    char *name = upload_file(op, path, op->upload_id);
    sf_status rc = SF_OK;
    int fd = -1;

    if (!name)
        return sf__file_error_of(op)->code;
    if (op->verb == SF_STORE_MULTIPART_ABORT) {
        rc = abort_upload(op, path, name);
    } else {
        fd = SF_FD(open(name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
        if (fd < 0)
            rc = errno == ENOENT ? sf_fail(sf__file_error_of(op), SF_NOT_FOUND, "no such upload")
                                 : sf__file_error(op, "open upload");
        else if (op->verb == SF_STORE_MULTIPART_PART)
            rc = write_part(op, fd);
        else
            rc = complete_upload(job, path, name, fd);
        if (fd >= 0 && close(fd) != 0 && rc == SF_OK && !job->locked)
            rc = sf__file_error(op, "close");
    }
    sf__free(op->store->alloc, name);
    return rc;
}

sf_status sf__file_multipart(sf_file_job *job)
{
    sf_store_op *op = job->op;
    char *path = sf__file_path(op, op->key);
    sf_status rc;

    if (!path)
        return sf__file_error_of(op)->code;
    rc = op->verb == SF_STORE_MULTIPART_CREATE ? create_upload(op, path) : with_upload(job, path);
    sf__free(op->store->alloc, path);
    return rc;
}
