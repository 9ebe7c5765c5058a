/* Giving a finished file its name, on conditions, on file systems that are more or less POSIX.
 *
 * What must be new is linked; where there are no hard links, renamed with RENAME_NOREPLACE; where there is neither, looked
 * for and renamed by the only one who may give names in this folder just now. That is also how what replaces a file is
 * renamed, so that nobody gets between the look and the renaming. Who may, has the folder's lock (flock); where there are
 * no locks, a claim: a file ".sf-tmp-claim-<hash of the name>" that was made with O_EXCL. A claim holds nothing of the
 * object, and the object's name is only ever given to a whole file: whenever a writer dies, readers see the old file, or
 * the new one. A claim is there for the moment between its making and the renaming; one that is older than CLAIM_S when
 * the file that is to be named was written is a dead writer's, and is taken away.
 *
 * Nobody waits here: what somebody else has is tried again, by a timer, until the operation's deadline. Reading takes no
 * lock at all. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/strbuf.h"
#include "store/file.h"

#define CLAIM SF_FILE_TEMPORARY "claim-"
#define CLAIM_S 60
/* A put looks at so many names of its folder for what others left; clean-up looks at all. */
#define SWEEP_NAMES 256u

/* ------------------------------------------------------------------ the lock ------------------------------------- */

/* Sole right to give names; `held` tells how. */
struct right {
    enum { RIGHT_NONE, RIGHT_LOCK, RIGHT_CLAIM } held;
    int folder;  /* or -1 */
    char *claim; /* RIGHT_CLAIM */
};

static int open_folder(const char *path)
{
    char folder[4096];
    size_t n = (size_t)(strrchr(path, '/') - path);

    if (n >= sizeof(folder)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(folder, path, n);
    memcpy(folder + n, n ? "" : "/", n ? 1 : 2);
    return SF_FD(open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

/* As the kernel tells everybody: "1: FLOCK  ADVISORY  WRITE 1234 08:01:131090 0 EOF". 0 when it does not. */
static long holder_of(int fd)
{
    FILE *f = fopen("/proc/locks", "re");
    unsigned long ino;
    unsigned major_no, minor_no;
    char line[256];
    struct stat st;
    long pid = 0, found = 0;

    if (!f)
        return 0;
    while (fstat(fd, &st) == 0 && found == 0 && fgets(line, sizeof(line), f))
        if (sscanf(line, "%*s FLOCK %*s %*s %ld %x:%x:%lu", &pid, &major_no, &minor_no, &ino) == 4 &&
            ino == st.st_ino && major_no == major(st.st_dev) && minor_no == minor(st.st_dev))
            found = pid;
    fclose(f);
    return found;
}

/* True when it was somebody's who died. Two that find it so at the same instant might take the second one's claim for
 * it, too; that takes a third crash to matter. */
static bool take_away_dead(const char *claim, const struct stat *file)
{
    struct stat st;

    if (lstat(claim, &st) != 0)
        return errno == ENOENT;
    return file->st_mtime - st.st_mtime > CLAIM_S && unlink(claim) == 0;
}

static sf_status claim_name(sf_file_job *job, int fd, const char *path, struct right *r)
{
    const sf_allocator *a = job->op->store->alloc;
    const char *name = strrchr(path, '/') + 1;
    struct stat st;
    int made;

    if (fstat(fd, &st) != 0)
        return sf__file_error(job->op, "stat");
    r->claim = sf__asprintf(a, "%.*s" CLAIM "%016" PRIx64, (int)(name - path), path,
                            sf__xxh3_64(sf_bytes_of(name, strlen(name))));
    if (!r->claim)
        return sf_fail(&job->error, SF_NOMEM, "file name");
    made = SF_FD(open(r->claim, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (made < 0 && errno == EEXIST && take_away_dead(r->claim, &st))
        made = SF_FD(open(r->claim, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (made < 0 && errno != EEXIST)
        return sf__file_error(job->op, "claim the name");
    if (made < 0) {
        job->locked = true;
        return SF_OK;
    }
    close(made);
    r->held = RIGHT_CLAIM;
    return SF_OK;
}

/* SF_OK with job->locked: somebody else has it. */
static sf_status take_right(sf_file_job *job, int fd, const char *path, struct right *r)
{
    int rc;

    if (r->folder < 0)
        return sf__file_error(job->op, "open folder");
    do
        rc = flock(r->folder, LOCK_EX | LOCK_NB);
    while (rc != 0 && errno == EINTR);
    if (rc == 0) {
        r->held = RIGHT_LOCK;
        return SF_OK;
    }
    if (errno == EWOULDBLOCK) {
        job->locked = true;
        job->holder = holder_of(r->folder);
        return SF_OK;
    }
    return sf__file_cannot(errno) ? claim_name(job, fd, path, r) : sf__file_error(job->op, "lock folder");
}

static void give_back_right(sf_file_job *job, struct right *r)
{
    if (r->held == RIGHT_LOCK)
        flock(r->folder, LOCK_UN); /* not by closing: a process that was forked just now has the descriptor, too */
    if (r->held == RIGHT_CLAIM)
        unlink(r->claim);
    if (r->folder >= 0)
        close(r->folder);
    sf__free(job->op->store->alloc, r->claim);
}

/* ------------------------------------------------------------------ naming --------------------------------------- */

static sf_status fail_exists(sf_store_op *op)
{
    return sf_fail(sf__file_error_of(op), SF_CONFLICT, "the file exists");
}

/* A link whose answer was lost on the way from a server says that there is one: the very file. */
static bool is_linked(int fd, const char *path)
{
    struct stat ours, there;

    return fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
}

/* Without replacing anything, in one step. *can is false when the file system has none that does. */
static sf_status name_new(sf_store_op *op, int fd, const char *temporary, const char *path, bool *can)
{
    int rc;

    *can = true;
    do
        rc = link(temporary, path);
    while (rc != 0 && errno == EINTR);
    if (rc == 0 || (errno == EEXIST && is_linked(fd, path))) {
        unlink(temporary);
        return SF_OK;
    }
    if (sf__file_cannot(errno)) {
        rc = renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE);
        if (rc != 0 && sf__file_cannot(errno)) {
            *can = false;
            return SF_OK;
        }
    }
    return rc == 0 ? SF_OK : errno == EEXIST ? fail_exists(op) : sf__file_error(op, "name the new file");
}

/* With the right to. */
static sf_status name_file(sf_store_op *op, const char *temporary, const char *path)
{
    struct stat st;
    char etag[64];

    if (op->create_only) {
        if (lstat(path, &st) == 0)
            return fail_exists(op);
        if (errno != ENOENT)
            return sf__file_error(op, "stat");
    }
    if (op->verb == SF_STORE_PUT && op->if_match) {
        if (stat(path, &st) != 0)
            return errno == ENOENT ? sf_fail(sf__file_error_of(op), SF_CONFLICT, "the file is gone")
                                   : sf__file_error(op, "stat");
        sf__file_etag(&st, etag);
        if (strcmp(etag, op->if_match) != 0)
            return sf_fail(sf__file_error_of(op), SF_CONFLICT, "the file changed");
    }
    return rename(temporary, path) == 0 ? SF_OK : sf__file_error(op, "rename");
}

bool sf__file_is_being_written(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) != 0 && !sf__file_cannot(errno);
}

sf_status sf__file_put_in_place(sf_file_job *job, int fd, const char *temporary, const char *path)
{
    sf_store_op *op = job->op;
    struct right r = {.folder = -1};
    bool can = false;
    struct stat st;
    sf_status rc = SF_OK;

    if (op->create_only)
        rc = name_new(op, fd, temporary, path, &can);
    r.folder = open_folder(path); /* some may be written to, but not read: then what is new is not synced */
    if (rc == SF_OK && !can) {
        rc = take_right(job, fd, path, &r);
        if (rc == SF_OK && !job->locked)
            rc = name_file(op, temporary, path);
    }
    if (rc == SF_OK && !job->locked) {
        if (stat(path, &st) != 0)
            rc = sf__file_error(op, "stat");
        else
            sf__file_etag(&st, op->etag);
        if (rc == SF_OK && r.folder >= 0)
            rc = sf__file_sync(op, r.folder, "sync folder");
    }
    give_back_right(job, &r);
    return rc;
}

/* ------------------------------------------------------------------ what was left behind -------------------------- */

/* Nobody writes it: it is old, and not locked. */
static void remove_abandoned(int folder, const char *name, time_t now)
{
    int fd = SF_FD(openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    struct stat st;

    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && now - st.st_mtime > SF_FILE_ABANDONED_S &&
        !sf__file_is_being_written(fd))
        unlinkat(folder, name, 0);
    close(fd);
}

void sf__file_sweep(const char *path, time_t now)
{
    int folder = open_folder(path);
    DIR *d = folder >= 0 ? fdopendir(folder) : NULL;
    unsigned seen = 0;

    if (!d) {
        if (folder >= 0)
            close(folder);
        return;
    }
    for (struct dirent *e; seen < SWEEP_NAMES && (e = readdir(d)); seen++)
        if (strncmp(e->d_name, SF_FILE_TEMPORARY, strlen(SF_FILE_TEMPORARY)) == 0)
            remove_abandoned(dirfd(d), e->d_name, now);
    closedir(d);
}
