#include "backend/sqlite/copies.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backend/sqlite/temp_file.h"
#include "base/checksum.h"
#include "base/fd.h"
#include "base/strbuf.h"

#define LINEAGE_CHARS 17u /* with its dash */
/* A download writes all the time; one that has not for so long is dead. */
#define ABANDONED_S 3600
#define LOCK_TRIES 50u /* of a millisecond each */

/* ------------------------------------------------------------------ names ---------------------------------------- */

/* The URL up to its run, which changes with every snapshot, and the shard's number. Without a run the URL itself. */
static uint64_t lineage_of(sf_strbuf *scratch, const char *store_url, const char *key, int32_t db_id)
{
    int n = (int)strlen(key);

    for (const char *run = key; (run = strstr(run, "run_id=")); run++) /* the last: a prefix may have the word, too */
        if (run == key || run[-1] == '/')
            n = (int)(run - key);
    sf__strbuf_printf(scratch, "%s/%.*s", store_url, n, key);
    sf__strbuf_putc(scratch, '\0');
    sf__strbuf_printf(scratch, "%d", (int)db_id);
    return scratch->failed ? 0 : sf__xxh3_128(sf_bytes_of(scratch->s, scratch->n)).lo;
}

char *sf__copy_name(const char *folder, const char *store_url, const char *key, int32_t db_id, const char *checkpoint,
                    const char *etag, const sf_allocator *a)
{
    sf_strbuf lineage, identity;
    char *name = NULL;
    uint64_t family;
    sf_hash128 h;

    sf__strbuf_init(&lineage, a);
    sf__strbuf_init(&identity, a);
    family = lineage_of(&lineage, store_url, key, db_id);
    sf__strbuf_printf(&identity, "%s/%s", store_url, key);
    sf__strbuf_putc(&identity, '\0');
    sf__strbuf_puts(&identity, checkpoint ? checkpoint : "");
    sf__strbuf_putc(&identity, '\0');
    sf__strbuf_puts(&identity, etag);
    if (!lineage.failed && !identity.failed) {
        h = sf__xxh3_128(sf_bytes_of(identity.s, identity.n));
        name = sf__asprintf(a, "%s/%016" PRIx64 "-%016" PRIx64 "%016" PRIx64 ".db", folder, family, h.hi, h.lo);
    }
    sf__strbuf_cleanup(&lineage);
    sf__strbuf_cleanup(&identity);
    return name;
}

/* ------------------------------------------------------------------ the folder ----------------------------------- */

static bool is_ours(const struct stat *st)
{
    return (st->st_uid == geteuid() || st->st_uid == 0) && (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static sf_status check_folder(const char *path, sf_error *err)
{
    struct stat st;
    int fd = SF_FD(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    sf_status rc = SF_OK;

    if (fd < 0 || fstat(fd, &st) != 0)
        rc = sf_fail(err, errno == EACCES || errno == ELOOP || errno == ENOTDIR ? SF_DENIED : SF_IO,
                     "copy of shard.db: folder %s: %s", path, strerror(errno));
    else if (!is_ours(&st))
        rc = sf_fail(err, SF_DENIED,
                     "copy of shard.db: others could have put files into the folder %s (owner %u, mode %03o): it must belong to user %u "
                     "and be writable for nobody else (chmod 700), or name another one", path, (unsigned)st.st_uid,
                     (unsigned)st.st_mode & 0777, (unsigned)geteuid());
    if (fd >= 0)
        close(fd);
    return rc;
}

sf_status sf__copies_folder(const char *path, const sf_allocator *a, sf_error *err)
{
    char *copy = sf__strdup(a, path);
    size_t n = strlen(path);
    sf_status rc;

    if (!copy)
        return sf_fail(err, SF_NOMEM, "name of a folder");
    while (n > 1 && copy[n - 1] == '/') /* a link behind a slash would be followed */
        copy[--n] = '\0';
    for (char *p = strchr(copy[0] ? copy + 1 : copy, '/'); p; p = strchr(p + 1, '/')) {
        *p = '\0';
        mkdir(copy, 0700); /* one that cannot be made shows in the last */
        *p = '/';
    }
    if (mkdir(copy, 0700) != 0 && errno != EEXIST)
        rc = sf_fail(err, SF_IO, "copy of shard.db: make %s: %s", copy, strerror(errno));
    else
        rc = check_folder(copy, err);
    sf__free(a, copy);
    return rc;
}

/* ------------------------------------------------------------------ taking and keeping ---------------------------- */

int sf__copy_take(const char *file, uint64_t size)
{
    struct stat st;
    int fd = SF_FD(open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));

    if (fd < 0)
        return -1;
    /* Whoever has it to himself is about to remove it. A file system without locks does without: nothing is removed. */
    if ((flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) || fstat(fd, &st) != 0 || st.st_nlink == 0 ||
        !S_ISREG(st.st_mode) || !is_ours(&st) || (uint64_t)st.st_size != size) {
        close(fd);
        return -1;
    }
    futimens(fd, NULL); /* the one that was taken last; somebody else's file does not mind */
    return fd;
}

static int open_folder_of(const char *file)
{
    const char *end = strrchr(file, '/');
    char path[4096];

    if ((size_t)(end - file) >= sizeof(path))
        return -1;
    memcpy(path, file, (size_t)(end - file));
    path[end - file] = '\0';
    return SF_FD(open(path[0] ? path : "/", O_RDONLY | O_CLOEXEC | O_DIRECTORY));
}

/* Whoever gives a copy its name shares the lock, whoever removes one has it to himself, for a moment. Nobody waits longer than
 * such moments take: without the lock a copy may lose its name, which costs another download some day and nothing else. */
static bool lock_folder(int folder, int how)
{
    int rc = -1;

    for (unsigned tries = 0; rc != 0 && tries < LOCK_TRIES; tries++) {
        rc = folder >= 0 ? flock(folder, how | LOCK_NB) : 0;
        if (rc != 0 && errno == EWOULDBLOCK)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        else if (rc != 0 && errno != EINTR)
            break;
    }
    return rc == 0;
}

sf_status sf__copy_keep(int fd, const char *temporary, const char *file, sf_error *err)
{
    int folder = open_folder_of(file);
    sf_status rc = SF_OK;

    flock(fd, LOCK_SH | LOCK_NB); /* nobody else knows it */
    futimens(fd, NULL);
    lock_folder(folder, LOCK_SH); /* without locks, see above */
    if (rename(temporary, file) != 0)
        rc = sf_fail(err, SF_IO, "copy of shard.db: rename %s: %s", temporary, strerror(errno));
    lock_folder(folder, LOCK_UN); /* not by closing: a process that was forked just now has the descriptor, too */
    if (folder >= 0)
        close(folder);
    return rc;
}

/* ------------------------------------------------------------------ removing -------------------------------------- */

static bool is_newer(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* The name of the lineage's copy that was taken last; empty when there is none. */
static void find_newest(DIR *d, const char *lineage, char newest[256])
{
    struct timespec when = {0};

    newest[0] = '\0';
    rewinddir(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;

        if (strncmp(e->d_name, lineage, LINEAGE_CHARS) != 0 ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (newest[0] == '\0' || is_newer(&st.st_mtim, &when)) {
            snprintf(newest, 256, "%s", e->d_name);
            when = st.st_mtim;
        }
    }
}

/* While the folder is locked no other copy gets this name: the one that goes is the one that nobody reads. */
static void remove_unread(int folder, const char *name)
{
    int fd;

    if (!lock_folder(folder, LOCK_EX))
        return;
    fd = SF_FD(openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        unlinkat(folder, name, 0);
    if (fd >= 0)
        close(fd);
    lock_folder(folder, LOCK_UN);
}

static void remove_abandoned(int folder, const char *name, time_t now)
{
    struct stat st;

    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && now - st.st_mtime > ABANDONED_S)
        unlinkat(folder, name, 0);
}

void sf__copies_prune(const char *file)
{
    const char *name = strrchr(file, '/') + 1;
    char lineage[LINEAGE_CHARS + 1], newest[256];
    time_t now = time(NULL);
    int folder = strlen(name) > LINEAGE_CHARS ? open_folder_of(file) : -1;
    DIR *d = folder >= 0 ? fdopendir(folder) : NULL;

    if (!d) {
        if (folder >= 0)
            close(folder);
        return;
    }
    memcpy(lineage, name, LINEAGE_CHARS);
    lineage[LINEAGE_CHARS] = '\0';
    find_newest(d, lineage, newest);
    rewinddir(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (strncmp(e->d_name, lineage, LINEAGE_CHARS) == 0 && strcmp(e->d_name, newest) != 0)
            remove_unread(folder, e->d_name);
        else if (sf__temp_file_is_one(e->d_name))
            remove_abandoned(folder, e->d_name, now);
    }
    closedir(d);
}
