/* Writing files so that a reader sees the old one or the new one, whole: a temporary file, fsync, rename. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "store/file.h"

#define UPLOAD_ID_LEN 32u

/* ------------------------------------------------------------------ pieces --------------------------------------- */

static sf_status random_name(sf_store_op *op, char out[static UPLOAD_ID_LEN + 1])
{
    uint8_t bytes[UPLOAD_ID_LEN / 2];

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return sf__file_error(op, "random name");
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    return SF_OK;
}

/* Makes the folders above `path`. */
static sf_status make_parents(sf_store_op *op, char *path)
{
    for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
        int failed;

        *p = '\0';
        failed = mkdir(path, 0777) != 0 && errno != EEXIST;
        *p = '/';
        if (failed)
            return sf__file_error(op, "make folder");
    }
    return SF_OK;
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

static sf_status sync_folder(sf_store_op *op, int dir)
{
    /* Some file systems cannot sync folders; then there is nothing to wait for. */
    return fsync(dir) == 0 || errno == EINVAL || errno == ENOTSUP ? SF_OK : sf__file_error(op, "sync folder");
}

/* The folder of `path`, locked against other writers of this library. */
static int lock_folder(const char *path)
{
    char folder[4096];
    size_t n = (size_t)(strrchr(path, '/') - path);
    int fd;

    if (n >= sizeof(folder)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(folder, path, n);
    memcpy(folder + n, n ? "" : "/", n ? 1 : 2);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fd >= 0 && flock(fd, LOCK_EX) != 0) {
        if (errno == EINTR)
            continue;
        if (errno == ENOLCK || errno == EOPNOTSUPP)
            break; /* a file system without locks: only replacing-if-unchanged is weaker there */
        close(fd);
        return -1;
    }
    return fd;
}

/* Puts the finished temporary file in place, on op's conditions. */
static sf_status publish(sf_store_op *op, const char *temporary, const char *path, int dir)
{
    struct stat st;
    char etag[64];

    if (op->verb == SF_STORE_PUT && op->if_match) {
        if (stat(path, &st) != 0)
            return errno == ENOENT ? sf_fail(&op->error, SF_CONFLICT, "the file is gone") : sf__file_error(op, "stat");
        sf__file_etag(&st, etag);
        if (strcmp(etag, op->if_match) != 0)
            return sf_fail(&op->error, SF_CONFLICT, "the file changed");
    }
    if (op->create_only) {
        if (link(temporary, path) != 0)
            return errno == EEXIST ? sf_fail(&op->error, SF_CONFLICT, "the file exists") : sf__file_error(op, "link");
        unlink(temporary);
    } else if (rename(temporary, path) != 0) {
        return sf__file_error(op, "rename");
    }
    if (stat(path, &st) != 0)
        return sf__file_error(op, "stat");
    sf__file_etag(&st, op->etag);
    return sync_folder(op, dir);
}

struct temporary {
    char *name;
    int fd;
};

/* Beside `path`, whose folders exist then. */
static sf_status open_temporary(sf_store_op *op, char *path, struct temporary *t)
{
    char id[UPLOAD_ID_LEN + 1];
    char *slash = strrchr(path, '/');

    t->fd = -1;
    t->name = NULL;
    if (make_parents(op, path) != SF_OK || random_name(op, id) != SF_OK)
        return op->error.code;
    t->name = sf__asprintf(op->store->alloc, "%.*s/" SF_FILE_TEMPORARY "%s", (int)(slash - path), path, id);
    if (!t->name)
        return sf_fail(&op->error, SF_NOMEM, "file name");
    t->fd = open(t->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return t->fd < 0 ? sf__file_error(op, "create") : SF_OK;
}

/* `rc` is how writing went; what is not published is deleted. */
static sf_status close_temporary(sf_store_op *op, const char *path, struct temporary *t, sf_status rc)
{
    int dir;

    if (t->fd >= 0) {
        if (rc == SF_OK && fsync(t->fd) != 0)
            rc = sf__file_error(op, "sync");
        if (close(t->fd) != 0 && rc == SF_OK)
            rc = sf__file_error(op, "close");
        if (rc == SF_OK) {
            dir = lock_folder(path);
            rc = dir < 0 ? sf__file_error(op, "lock folder") : publish(op, t->name, path, dir);
            if (dir >= 0)
                close(dir);
        }
        if (rc != SF_OK)
            unlink(t->name);
    }
    sf__free(op->store->alloc, t->name);
    return rc;
}

sf_status sf__file_put(sf_store_op *op)
{
    char *path = sf__file_path(op, op->key);
    struct temporary t;
    sf_status rc;

    if (!path)
        return op->error.code;
    rc = open_temporary(op, path, &t);
    if (rc == SF_OK)
        rc = write_all(op, t.fd, op->body);
    rc = close_temporary(op, path, &t, rc);
    sf__free(op->store->alloc, path);
    return rc;
}

/* ------------------------------------------------------------------ multipart ------------------------------------ */

/* An upload is one file beside the file to be. A part is written where it belongs, so completing copies nothing; its
 * ETag says where that is. */
static char *upload_file(sf_store_op *op, const char *path, const char *id)
{
    const char *slash = strrchr(path, '/');
    char *name;

    if (strspn(id, "0123456789abcdef") != UPLOAD_ID_LEN || id[UPLOAD_ID_LEN] != '\0') {
        sf_fail(&op->error, SF_NOT_FOUND, "no such upload");
        return NULL;
    }
    name = sf__asprintf(op->store->alloc, "%.*s/" SF_FILE_UPLOAD "%s", (int)(slash - path), path, id);
    if (!name)
        sf_fail(&op->error, SF_NOMEM, "upload");
    return name;
}

static sf_status create_upload(sf_store_op *op, char *path)
{
    char id[UPLOAD_ID_LEN + 1];
    char *name = NULL;
    sf_status rc = make_parents(op, path);
    int fd;

    if (rc == SF_OK)
        rc = random_name(op, id);
    if (rc == SF_OK && !(name = upload_file(op, path, id)))
        rc = op->error.code;
    if (rc == SF_OK && !(op->upload_id_out = sf__strdup(op->store->alloc, id)))
        rc = sf_fail(&op->error, SF_NOMEM, "upload");
    if (rc == SF_OK) {
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 || close(fd) != 0)
            rc = sf__file_error(op, "create");
    }
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

        if (sscanf(op->keys[i], "\"%llu-%llu-%llu%c", &number, &off, &n, &quote) != 4 || number != i + 1 || off != end ||
            __builtin_add_overflow(off, n, &end))
            return sf_fail(&op->error, SF_INVALID, "part %zu is another one, or does not follow the one before", i + 1);
    }
    if (fstat(fd, &st) != 0)
        return sf__file_error(op, "stat");
    if ((unsigned long long)st.st_size != end)
        return sf_fail(&op->error, SF_INVALID, "parts of %llu bytes, %llu are there", end, (unsigned long long)st.st_size);
    return SF_OK;
}

static sf_status complete_upload(sf_store_op *op, const char *path, const char *name, int fd)
{
    sf_status rc = check_parts(op, fd);
    int dir;

    if (rc != SF_OK)
        return rc;
    if (fsync(fd) != 0)
        return sf__file_error(op, "sync");
    dir = lock_folder(path);
    if (dir < 0)
        return sf__file_error(op, "lock folder");
    rc = publish(op, name, path, dir);
    close(dir);
    return rc;
}

static sf_status with_upload(sf_store_op *op, const char *path)
{
    char *name = upload_file(op, path, op->upload_id);
    bool abort_it = op->verb == SF_STORE_MULTIPART_ABORT;
    sf_status rc = SF_OK;
    int fd;

    if (!name)
        return op->error.code;
    fd = open(name, O_WRONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        rc = abort_it ? SF_OK : sf_fail(&op->error, SF_NOT_FOUND, "no such upload");
    else if (fd < 0)
        rc = sf__file_error(op, "open upload");
    else if (abort_it)
        rc = unlink(name) == 0 || errno == ENOENT ? SF_OK : sf__file_error(op, "delete upload");
    else if (op->verb == SF_STORE_MULTIPART_PART)
        rc = write_part(op, fd);
    else
        rc = complete_upload(op, path, name, fd);
    if (fd >= 0 && close(fd) != 0 && rc == SF_OK)
        rc = sf__file_error(op, "close");
    sf__free(op->store->alloc, name);
    return rc;
}

sf_status sf__file_multipart(sf_store_op *op)
{
    char *path = sf__file_path(op, op->key);
    sf_status rc;

    if (!path)
        return op->error.code;
    rc = op->verb == SF_STORE_MULTIPART_CREATE ? create_upload(op, path) : with_upload(op, path);
    sf__free(op->store->alloc, path);
    return rc;
}
