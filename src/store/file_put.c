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
    if (op->verb == SF_STORE_PUT && op->create_only) {
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

/* An upload is a folder beside the file to be, with a file a part. */
static char *upload_folder(sf_store_op *op, const char *path, const char *id)
{
    const char *slash = strrchr(path, '/');
    char *folder;

    if (strspn(id, "0123456789abcdef") != UPLOAD_ID_LEN || id[UPLOAD_ID_LEN] != '\0') {
        sf_fail(&op->error, SF_NOT_FOUND, "no such upload");
        return NULL;
    }
    folder = sf__asprintf(op->store->alloc, "%.*s/" SF_FILE_UPLOAD "%s", (int)(slash - path), path, id);
    if (!folder)
        sf_fail(&op->error, SF_NOMEM, "upload");
    return folder;
}

static sf_status create_upload(sf_store_op *op, char *path)
{
    char id[UPLOAD_ID_LEN + 1];
    char *folder = NULL;
    sf_status rc = make_parents(op, path);

    if (rc == SF_OK)
        rc = random_name(op, id);
    if (rc == SF_OK && !(folder = upload_folder(op, path, id)))
        rc = op->error.code;
    if (rc == SF_OK && !(op->upload_id_out = sf__strdup(op->store->alloc, id)))
        rc = sf_fail(&op->error, SF_NOMEM, "upload");
    if (rc == SF_OK && mkdir(folder, 0777) != 0)
        rc = sf__file_error(op, "make folder");
    sf__free(op->store->alloc, folder);
    return rc;
}

static sf_status write_part(sf_store_op *op, int folder)
{
    char name[16];
    struct stat st;
    sf_status rc;
    int fd;

    snprintf(name, sizeof(name), "%05u", op->part_number);
    fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return sf__file_error(op, "create part");
    rc = write_all(op, fd, op->body);
    if (rc == SF_OK && fstat(fd, &st) != 0)
        rc = sf__file_error(op, "stat");
    if (close(fd) != 0 && rc == SF_OK)
        rc = sf__file_error(op, "close");
    if (rc == SF_OK)
        sf__file_etag(&st, op->etag);
    return rc;
}

static sf_status copy_part(sf_store_op *op, int folder, size_t number, int to)
{
    uint8_t chunk[1u << 16];
    char name[16], etag[64];
    struct stat st;
    sf_status rc = SF_OK;
    ssize_t n;
    int fd;

    snprintf(name, sizeof(name), "%05zu", number);
    fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return sf_fail(&op->error, SF_INVALID, "part %zu is missing", number);
    if (fstat(fd, &st) != 0)
        rc = sf__file_error(op, "stat");
    sf__file_etag(&st, etag);
    if (rc == SF_OK && strcmp(etag, op->keys[number - 1]) != 0)
        rc = sf_fail(&op->error, SF_INVALID, "part %zu is another one", number);
    while (rc == SF_OK && (n = read(fd, chunk, sizeof(chunk))) != 0)
        rc = n > 0 ? write_all(op, to, sf_bytes_of(chunk, (size_t)n))
                   : errno == EINTR ? SF_OK : sf__file_error(op, "read part");
    close(fd);
    return rc;
}

static void remove_upload(const char *name, int folder)
{
    char part[16];

    for (unsigned i = 1; i <= 10000; i++) {
        snprintf(part, sizeof(part), "%05u", i);
        unlinkat(folder, part, 0);
    }
    rmdir(name);
}

static sf_status complete_upload(sf_store_op *op, char *path, const char *name, int folder)
{
    struct temporary t;
    sf_status rc = open_temporary(op, path, &t);

    for (size_t i = 1; rc == SF_OK && i <= op->key_count; i++)
        rc = copy_part(op, folder, i, t.fd);
    rc = close_temporary(op, path, &t, rc);
    if (rc == SF_OK)
        remove_upload(name, folder);
    return rc;
}

static sf_status with_upload(sf_store_op *op, char *path)
{
    char *name = upload_folder(op, path, op->upload_id);
    bool abort_it = op->verb == SF_STORE_MULTIPART_ABORT;
    sf_status rc = SF_OK;
    int folder;

    if (!name)
        return op->error.code;
    folder = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 && errno == ENOENT)
        rc = abort_it ? SF_OK : sf_fail(&op->error, SF_NOT_FOUND, "no such upload");
    else if (folder < 0)
        rc = sf__file_error(op, "open upload");
    else if (abort_it)
        remove_upload(name, folder);
    else if (op->verb == SF_STORE_MULTIPART_PART)
        rc = write_part(op, folder);
    else
        rc = complete_upload(op, path, name, folder);
    if (folder >= 0)
        close(folder);
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
