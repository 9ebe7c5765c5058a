#include "backend/sqlite/copies.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/fd.h"
#include "base/private_folder.h"
#include "base/strbuf.h"
#include "base/temp_file.h"

#define LINEAGE_CHARS 17u /* with its dash */
/* A download writes all the time; one that has not for so long is dead. */
#define ABANDONED_S 3600

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

/* ------------------------------------------------------------------ taking and keeping ---------------------------- */

static const char *name_in_folder(const char *file)
{
    return strrchr(file, '/') + 1;
}

static const char *why_not(int fd, uint64_t size)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return strerror(errno);
    if (!S_ISREG(st.st_mode))
        return "it is not a file";
    if (!sf__is_private(&st))
        return "others could have written it";
    if ((uint64_t)st.st_size != size)
        return "it has another size";
    /* Whoever has it to himself is about to remove it. A file system without locks does without: nothing is removed. */
    if (flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return "somebody else has it locked";
    return fstat(fd, &st) != 0 || st.st_nlink == 0 ? "it was removed" : NULL;
}

sf_status sf__copy_take(int folder, const char *file, uint64_t size, int *fd, sf_error *err)
{
    int got = SF_FD(openat(folder, name_in_folder(file), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    const char *why;

    if (got < 0 && errno == ENOENT)
        return sf_fail(err, SF_NOT_FOUND, "%s: no copy", file);
    if (got < 0 && sf__errno_is_exhausted(errno))
        return sf__fail_errno(err, errno, SF_IO, "copy of shard.db: open %s", file);
    why = got < 0 ? strerror(errno) : why_not(got, size);
    if (!why) {
        *fd = got;
        return SF_OK;
    }
    sf_fail(err, SF_CORRUPT, "%s: %s", file, why);
    if (got >= 0)
        close(got);
    return SF_CORRUPT;
}

sf_status sf__copy_keep(int folder, int fd, const char *temporary, const char *file, sf_error *err)
{
    sf_status rc = SF_OK;

    flock(fd, LOCK_SH | LOCK_NB); /* nobody else knows it */
    futimens(fd, NULL);
    /* Whoever gives a copy its name shares the lock, whoever removes one has it to himself. Without it a copy may lose its name, which
     * costs another download some day and nothing else. */
    sf__private_folder_lock(folder, LOCK_SH);
    if (renameat(folder, temporary, folder, name_in_folder(file)) != 0 &&
        (errno != EISDIR || unlinkat(folder, temporary, 0) != 0)) /* a folder that somebody made there stays */
        rc = sf_fail(err, SF_IO, "copy of shard.db: rename %s to %s: %s", temporary, file, strerror(errno));
    sf__private_folder_lock(folder,
                            LOCK_UN); /* not by closing: a process that was forked just now has the descriptor, too */
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

    if (!sf__private_folder_lock(folder, LOCK_EX))
        return;
    fd = SF_FD(openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        unlinkat(folder, name, 0);
    if (fd >= 0)
        close(fd);
    sf__private_folder_lock(folder, LOCK_UN);
}

static void remove_abandoned(int folder, const char *name, time_t now)
{
    struct stat st;

    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && now - st.st_mtime > ABANDONED_S)
        unlinkat(folder, name, 0);
}

/* Only where it must: a change of the file makes other readers of the same process look at it again. */
static void make_newest(DIR *d, const char *lineage, const char *name, int fd, char newest[256])
{
    if (fd >= 0 && newest[0] != '\0' && strcmp(newest, name) != 0) {
        futimens(fd, NULL); /* somebody else's file does not mind */
        find_newest(d, lineage, newest);
    }
}

void sf__copies_prune(int folder, const char *file, int fd)
{
    const char *name = name_in_folder(file);
    char lineage[LINEAGE_CHARS + 1], newest[256];
    time_t now = time(NULL);
    int own = SF_FD(fcntl(folder, F_DUPFD_CLOEXEC, 0));
    DIR *d = own >= 0 ? fdopendir(own) : NULL;

    if (!d) {
        if (own >= 0)
            close(own);
        return;
    }
    snprintf(lineage, sizeof(lineage), "%s", name);
    find_newest(d, lineage, newest);
    make_newest(d, lineage, name, fd, newest);
    rewinddir(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (strncmp(e->d_name, lineage, LINEAGE_CHARS) == 0 && strcmp(e->d_name, newest) != 0)
            remove_unread(folder, e->d_name);
        else if (sf__temp_file_is_one(e->d_name))
            remove_abandoned(folder, e->d_name, now);
    }
    closedir(d);
}

void sf__copies_prune_at(const char *file)
{
    size_t n = (size_t)(name_in_folder(file) - 1 - file);
    char path[PATH_MAX];
    int folder;

    if (n >= sizeof(path))
        return;
    memcpy(path, file, n);
    path[n] = '\0';
    if (sf__private_folder_open(n > 0 ? path : "/", false, &folder, NULL) != SF_OK)
        return;
    sf__copies_prune(folder, file, -1);
    close(folder);
}
