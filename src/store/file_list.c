/* Listing folders as if they were prefixes of a bucket. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/grow.h"
#include "base/limits.h"
#include "base/strbuf.h"
#include "store/file.h"

#define MAX_DEPTH 64u
#define MAX_ENTRIES ((size_t)SF_LIMIT_LIST_PAGES * 1000)

struct listing {
    sf_store_op *op;
    size_t cap;
    char name[4096]; /* key of the folder being read, with its slash */
};

static bool is_upload(const char *name)
{
    return strncmp(name, SF_FILE_UPLOAD, strlen(SF_FILE_UPLOAD)) == 0;
}

static bool is_temporary(const char *name)
{
    return strncmp(name, SF_FILE_TEMPORARY, strlen(SF_FILE_TEMPORARY)) == 0 || is_upload(name);
}

/* What a put left tells no more of its object than an upload does. */
static bool is_temporary_put(const char *name)
{
    size_t n = strlen(SF_FILE_TEMPORARY);

    return strncmp(name, SF_FILE_TEMPORARY, n) == 0 && sf__file_is_temporary_id(name + n);
}

/* `st` is NULL of a prefix. */
static sf_status add(struct listing *l, const char *key, const struct stat *st)
{
    sf_store_op *op = l->op;
    const sf_allocator *a = op->store->alloc;
    char etag[64] = "";

    if (op->start_after && strcmp(key, op->start_after) <= 0)
        return SF_OK;
    if (op->entry_count == MAX_ENTRIES)
        return sf_fail(sf__file_error_of(op), SF_UNSUPPORTED, "more than %zu files", MAX_ENTRIES);
    if (!SF_RESERVE(a, &op->entries, &l->cap, op->entry_count + 1))
        return sf_fail(sf__file_error_of(op), SF_NOMEM, "listing");
    if (st)
        sf__file_etag(st, etag);
    op->entries[op->entry_count] = (sf_store_entry){.key = sf__strdup(a, key),
                                                    .size = st ? (uint64_t)st->st_size : 0,
                                                    .etag_hash = sf__store_etag_hash(etag),
                                                    .is_prefix = !st};
    if (!op->entries[op->entry_count].key)
        return sf_fail(sf__file_error_of(op), SF_NOMEM, "listing");
    op->entry_count++;
    return SF_OK;
}

/* The name of the upload's file stands for the object to be, which it does not tell. */
static sf_status add_upload(struct listing *l, const char *entry, const struct stat *st)
{
    sf_store_op *op = l->op;
    const sf_allocator *a = op->store->alloc;
    sf_store_upload *to;

    if (op->upload_count == MAX_ENTRIES)
        return sf_fail(sf__file_error_of(op), SF_UNSUPPORTED, "more than %zu uploads", MAX_ENTRIES);
    if (!SF_RESERVE(a, &op->uploads, &l->cap, op->upload_count + 1))
        return sf_fail(sf__file_error_of(op), SF_NOMEM, "list of uploads");
    to = &op->uploads[op->upload_count++];
    *to = (sf_store_upload){sf__strdup(a, l->name),
                            is_upload(entry)
                                ? sf__strdup(a, entry + strlen(SF_FILE_UPLOAD))
                                : sf__asprintf(a, SF_FILE_TEMPORARY_ID "%s", entry + strlen(SF_FILE_TEMPORARY)),
                            (int64_t)st->st_mtim.tv_sec * 1000000 + st->st_mtim.tv_nsec / 1000};
    return to->key && to->id ? SF_OK : sf_fail(sf__file_error_of(op), SF_NOMEM, "list of uploads");
}

/* Links to folders are there for whoever asks for what lies below one by name. Nobody walks through them: with a few that lead
 * back up there is no end to it, and what lies elsewhere is not ours to list, nor to delete. */
static bool is_link(int dir, const char *entry)
{
    struct stat st;

    return fstatat(dir, entry, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

/* Whether a file lies below: deleting leaves empty folders behind, and a bucket has no such thing. What cannot be read
 * counts as one, so that the listing proper says why. */
static bool holds_file(int dir, const char *entry, unsigned depth)
{
    int fd = SF_FD(openat(dir, entry, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;
    bool found = false;

    if (!d) {
        found = errno != ENOENT;
        if (fd >= 0)
            close(fd);
        return found;
    }
    while (!found && (e = readdir(d)) != NULL) {
        struct stat st;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || is_temporary(e->d_name))
            continue;
        if (fstatat(dirfd(d), e->d_name, &st, 0) == 0)
            found = S_ISREG(st.st_mode) || (S_ISDIR(st.st_mode) && !is_link(dirfd(d), e->d_name) &&
                                            (depth == MAX_DEPTH || holds_file(dirfd(d), e->d_name, depth + 1)));
    }
    closedir(d);
    return found;
}

static sf_status read_folder(struct listing *l, int fd, unsigned depth);

/* Whether it, and all that lies below it where it is a folder, is left out anyway: not even looked at then. */
static bool is_left_out(const sf_store_op *op, const char *name)
{
    return (op->start_after && strncmp(op->start_after, name, strlen(name)) != 0 && strcmp(name, op->start_after) < 0) ||
           (op->until && strcmp(name, op->until) >= 0);
}

/* `l->name` names the folder's entry already. */
static sf_status visit(struct listing *l, int dir, const char *entry, unsigned depth)
{
    sf_store_op *op = l->op;
    size_t n = strlen(l->name);
    struct stat st;
    sf_status rc;
    int fd;

    if (strncmp(l->name, op->key, strlen(op->key)) != 0 && strncmp(l->name, op->key, n) != 0)
        return SF_OK; /* neither below the prefix nor on the way to it */
    if (is_left_out(op, l->name))
        return SF_OK;
    if (fstatat(dir, entry, &st, 0) != 0)
        return errno == ENOENT ? SF_OK : sf__file_error(op, l->name); /* deleted since, or a dangling link */
    if (S_ISREG(st.st_mode) && op->verb == SF_STORE_MULTIPART_LIST)
        return (is_upload(entry) || is_temporary_put(entry)) && n >= strlen(op->key) ? add_upload(l, entry, &st) : SF_OK;
    if (S_ISREG(st.st_mode))
        return n >= strlen(op->key) ? add(l, l->name, &st) : SF_OK;
    if (!S_ISDIR(st.st_mode))
        return SF_OK;
    if (n + 2 > sizeof(l->name))
        return sf_fail(sf__file_error_of(op), SF_UNSUPPORTED, "a name is longer than %zu bytes", sizeof(l->name) - 2);
    memcpy(l->name + n, "/", 2);
    if (op->delimiter && n + 1 > strlen(op->key)) {
        rc = holds_file(dir, entry, depth) ? add(l, l->name, NULL) : SF_OK;
    } else if (n + 1 > strlen(op->key) && is_link(dir, entry)) {
        rc = SF_OK;
    } else if (depth == MAX_DEPTH) {
        rc = sf_fail(sf__file_error_of(op), SF_UNSUPPORTED, "%s: more than %u folders deep", l->name, MAX_DEPTH);
    } else {
        fd = SF_FD(openat(dir, entry, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (fd < 0)
            return errno == ENOENT ? SF_OK : sf__file_error(op, l->name);
        rc = read_folder(l, fd, depth + 1);
    }
    return rc;
}

/* Takes `fd` over. */
static sf_status read_folder(struct listing *l, int fd, unsigned depth)
{
    size_t n = strlen(l->name);
    sf_status rc = SF_OK;
    DIR *d = fdopendir(fd);
    struct dirent *entry;

    if (!d) {
        rc = sf__file_error(l->op, "open folder");
        close(fd);
        return rc;
    }
    for (errno = 0; rc == SF_OK && (entry = readdir(d)) != NULL; errno = 0) {
        size_t len = strlen(entry->d_name);

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            (l->op->verb == SF_STORE_LIST && is_temporary(entry->d_name)))
            continue;
        if (n + len + 1 > sizeof(l->name)) {
            rc = sf_fail(sf__file_error_of(l->op), SF_UNSUPPORTED, "a name is longer than %zu bytes",
                         sizeof(l->name) - 1);
            break;
        }
        memcpy(l->name + n, entry->d_name, len + 1);
        rc = visit(l, dirfd(d), entry->d_name, depth);
        l->name[n] = '\0';
    }
    if (rc == SF_OK && errno != 0)
        rc = sf__file_error(l->op, "read folder");
    closedir(d);
    return rc;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const sf_store_entry *)a)->key, ((const sf_store_entry *)b)->key);
}

sf_status sf__file_list(sf_store_op *op)
{
    const char *slash = strrchr(op->key, '/');
    size_t n = slash ? (size_t)(slash - op->key) + 1 : 0;
    struct listing l = {.op = op};
    char *folder;
    sf_status rc;
    int fd;

    if (op->delimiter && strcmp(op->delimiter, "/") != 0)
        return sf_fail(sf__file_error_of(op), SF_INVALID, "delimiter \"%s\": files know only \"/\"", op->delimiter);
    if (n >= sizeof(l.name))
        return sf_fail(sf__file_error_of(op), SF_INVALID, "prefix of %zu bytes", n);
    memcpy(l.name, op->key, n);
    folder = sf__asprintf(op->store->alloc, "/%s", l.name);
    if (!folder)
        return sf_fail(sf__file_error_of(op), SF_NOMEM, "listing");
    fd = SF_FD(open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    sf__free(op->store->alloc, folder);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? SF_OK : sf__file_error(op, "open folder");
    rc = read_folder(&l, fd, 0);
    if (rc == SF_OK && op->entry_count > 1)
        qsort(op->entries, op->entry_count, sizeof(*op->entries), by_key);
    return rc;
}
