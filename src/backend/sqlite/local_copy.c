#include "backend/sqlite/local_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "backend/sqlite/copies.h"
#include "backend/sqlite/shard_writer.h" /* SF_SQLITE_DB_NAME */
#include "base/fd.h"
#include "base/private_folder.h"
#include "base/temp_file.h"

static const char *name_of_copy(const sf_local_copy *c)
{
    return strrchr(c->file, '/') + 1;
}

static sf_status file_fail(const sf_local_copy *c, int e, const char *what, sf_error *err)
{
    return sf__fail_errno(err, e, SF_IO, "copy of " SF_SQLITE_DB_NAME ": %s %s/%s", what, c->folder,
                          c->temporary ? c->temporary : name_of_copy(c));
}

/* In front of what a function of a folder or a file says. */
static sf_status about_copy(sf_status rc, sf_error *err)
{
    return rc == SF_OK ? rc : sf_error_prefix(err, rc, "copy of " SF_SQLITE_DB_NAME ": ");
}

static void set_fd(sf_local_copy *c, int fd)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = fd;
}

sf_file_view sf__local_copy_view(const sf_local_copy *c)
{
    return sf__file_view_of(c->fd, c->size);
}

sf_status sf__local_copy_take(sf_local_copy *c, sf_error *err)
{
    sf_file_view whole;
    sf_status rc = about_copy(sf__private_folder_open(c->folder, true, &c->folder_fd, err), err);
    int fd;

    if (rc != SF_OK)
        return rc;
    rc = sf__copy_take(c->folder_fd, c->file, c->size + SF_COPY_RECORD_BYTES, &fd, err);
    if (rc != SF_OK)
        return rc;
    set_fd(c, fd);
    c->taken = true;
    if (fstat(fd, &c->seen) != 0)
        return file_fail(c, errno, "look at", err);
    whole = sf__file_view_of(fd, c->size + SF_COPY_RECORD_BYTES);
    return whole.read(whole.ctx, c->size, sizeof(c->record), c->record, err);
}

sf_status sf__local_copy_verify(sf_local_copy *c, sf_error *err)
{
    uint8_t record[SF_COPY_RECORD_BYTES];
    sf_file_view view = sf__local_copy_view(c);
    sf_hash128 hash;
    sf_status rc = sf__copy_piece_hash(&view, c->verified, c->alloc, &hash, err);

    if (rc != SF_OK)
        return rc;
    sf__copy_digest_add(&c->digest, c->verified, hash);
    c->verified += c->size - c->verified < SF_COPY_PIECE_BYTES ? c->size - c->verified : SF_COPY_PIECE_BYTES;
    if (c->verified < c->size)
        return SF_OK;
    sf__copy_record(&c->digest, name_of_copy(c), c->size, record);
    if (memcmp(record, c->record, sizeof(record)) != 0)
        return sf_fail(err, SF_CORRUPT, "%s: it is not what was downloaded", c->file);
    return SF_OK;
}

sf_status sf__local_copy_make(sf_local_copy *c, sf_error *err)
{
    sf_status rc;
    int fd;

    c->digest = (sf_copy_digest){0};
    rc = sf__temp_file_named(c->folder_fd, c->alloc, &fd, &c->temporary, err);
    if (rc == SF_OK)
        set_fd(c, fd);
    else if (rc == SF_DENIED)
        rc = sf__private_folder_closed(c->folder_fd, c->folder, err);
    else
        sf_error_prefix(err, rc, "folder %s: ", c->folder);
    return about_copy(rc, err);
}

static sf_status name_it(sf_local_copy *c, sf_error *err)
{
    int fd = c->fd, e;
    sf_status rc;

    sf__copy_record(&c->digest, name_of_copy(c), c->size, c->record);
    e = sf__pwrite_all(fd, sf_bytes_of(c->record, sizeof(c->record)), c->size);
    if (e != 0)
        return file_fail(c, e, "write", err);
    if (fsync(fd) != 0)
        return file_fail(c, errno, "sync", err);
    rc = sf__copy_keep(c->folder_fd, fd, c->temporary, c->file, err);
    if (rc == SF_OK) {
        sf__free(c->alloc, c->temporary);
        c->temporary = NULL;
    }
    return rc;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

sf_status sf__local_copy_keep(sf_local_copy *c, sf_error *err)
{
    bool settled = c->taken;
    struct stat st;
    sf_status rc = c->temporary ? name_it(c, err) : SF_OK;

    if (rc != SF_OK)
        return rc;
    settled = settled && fstat(c->fd, &st) == 0 && is_same(&st, &c->seen);
    sf__copies_prune(c->folder_fd, c->file, c->fd);
    if (settled && fstat(c->fd, &st) == 0)
        sf__copy_remember(&st, c->record);
    return SF_OK;
}

void sf__local_copy_drop(sf_local_copy *c)
{
    unlinkat(c->folder_fd, c->temporary, 0);
    sf__free(c->alloc, c->temporary);
    c->temporary = NULL;
}

sf_status sf__local_copy_write(sf_local_copy *c, uint64_t off, sf_bytes bytes, sf_error *err)
{
    int e = sf__pwrite_all(c->fd, bytes, off);

    return e == 0 ? SF_OK : file_fail(c, e, "write", err);
}

bool sf__local_copy_is_known(const sf_local_copy *c)
{
    return sf__copy_is_known(&c->seen, c->record);
}

int sf__local_copy_give_away(sf_local_copy *c)
{
    int fd = c->fd;

    c->fd = -1;
    return fd;
}

void sf__local_copy_init(sf_local_copy *c, const sf_allocator *a, char *folder)
{
    *c = (sf_local_copy){.alloc = a, .folder = folder, .folder_fd = -1, .fd = -1};
}

void sf__local_copy_cleanup(sf_local_copy *c)
{
    set_fd(c, -1);
    if (c->folder_fd >= 0)
        close(c->folder_fd);
    sf__free(c->alloc, c->folder);
}
