#include "base/private_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h> /* not <limits.h>: this folder has one */
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"

#define MAX_LINKS 40u
#define MAX_GROUPS 256
#define LOCK_TRIES 50u /* of a millisecond each */

struct walk {
    bool make;
    int fd; /* of the folder where it stands */
    struct stat st;
    bool mounted;                      /* something is, there */
    char at[PATH_MAX], rest[PATH_MAX]; /* its name, and what is still to go */
    unsigned links;
};

/* ------------------------------------------------------------------ who may write -------------------------------- */

static bool owner_is_trusted(const struct stat *st)
{
    return st->st_uid == geteuid() || st->st_uid == 0;
}

bool sf__is_private(const struct stat *st)
{
    return owner_is_trusted(st) && (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static bool group_is_ours(gid_t group)
{
    gid_t groups[MAX_GROUPS];
    int n = getgroups(MAX_GROUPS, groups);

    if (group == getegid())
        return true;
    for (int i = 0; i < n; i++)
        if (groups[i] == group)
            return true;
    return false;
}

static bool may_be_above(const struct walk *w)
{
    const struct stat *st = &w->st;

    if (w->mounted)
        return true;
    if (!owner_is_trusted(st))
        return false;
    if (st->st_mode & S_ISVTX)
        return true;
    return !(st->st_mode & S_IWOTH) && (!(st->st_mode & S_IWGRP) || group_is_ours(st->st_gid));
}

static sf_status refuse_above(const struct walk *w, sf_error *err)
{
    return sf_fail(
        err, SF_DENIED,
        "others may replace what lies in the folder %s (owner %u, mode %04o): it must belong to root or to user %u, and be "
        "writable for them alone (chmod go-w) or have the sticky bit (chmod +t); or name a folder elsewhere " SF_FOLDER_SETTING,
        w->at, (unsigned)w->st.st_uid, (unsigned)w->st.st_mode & 07777, (unsigned)geteuid());
}

static sf_status refuse_folder(const struct walk *w, sf_error *err)
{
    return sf_fail(
        err, SF_DENIED,
        "others could have put files into the folder %s (owner %u, mode %04o): it must belong to user %u and be writable "
        "for nobody else (chmod 700), or name another one " SF_FOLDER_SETTING,
        w->at, (unsigned)w->st.st_uid, (unsigned)w->st.st_mode & 07777, (unsigned)geteuid());
}

/* ------------------------------------------------------------------ walking -------------------------------------- */

sf_status sf__private_folder_closed(int fd, const char *path, sf_error *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return sf__fail_errno(err, errno, SF_IO, "folder %s", path);
    return sf_fail(err, SF_DENIED,
                   "the folder %s (owner %u, mode %04o) is closed to user %u: name another one " SF_FOLDER_SETTING,
                   path, (unsigned)st.st_uid, (unsigned)st.st_mode & 07777, (unsigned)geteuid());
}

static sf_status system_fail(const struct walk *w, int e, const char *name, sf_error *err)
{
    if (e == EACCES && w->make && faccessat(w->fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
        return sf__private_folder_closed(w->fd, w->at, err);
    return sf__fail_errno(err, e, e == EACCES || e == EPERM ? SF_DENIED : SF_IO, "folder %s/%s", w->at[1] ? w->at : "",
                          name);
}

static bool append(char *path, const char *name)
{
    size_t n = strlen(path);

    if (n + 1 + strlen(name) >= PATH_MAX)
        return false;
    snprintf(path + n, PATH_MAX - n, "%s%s", n > 0 && path[n - 1] == '/' ? "" : "/", name);
    return true;
}

/* Where the kernel does not say, a change of the device does. */
static bool is_mounted(const struct walk *w, int fd, const struct stat *st)
{
#ifdef STATX_ATTR_MOUNT_ROOT
    struct statx x;

    if (statx(fd, "", AT_EMPTY_PATH, 0, &x) == 0 && (x.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT))
        return (x.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
#endif
    (void)fd;
    return w->fd < 0 || st->st_dev != w->st.st_dev;
}

/* To a folder that was opened just now. */
static void stand_at(struct walk *w, int fd, const struct stat *st)
{
    w->mounted = is_mounted(w, fd, st);
    if (w->fd >= 0)
        close(w->fd);
    w->fd = fd;
    w->st = *st;
}

static sf_status go_to_root(struct walk *w, sf_error *err)
{
    struct stat st;
    int fd = SF_FD(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));

    if (fd < 0 || fstat(fd, &st) != 0)
        return system_fail(w, errno, "", err);
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    stand_at(w, fd, &st);
    snprintf(w->at, sizeof(w->at), "/");
    return SF_OK;
}

/* The link's text goes before what is still to go. */
static sf_status follow(struct walk *w, int link, const struct stat *st, const char *name, sf_error *err)
{
    char text[PATH_MAX];
    ssize_t n;

    if (!owner_is_trusted(st))
        return sf_fail(err, SF_DENIED, "the symbolic link %s/%s belongs to user %u: name a folder elsewhere",
                       w->at[1] ? w->at : "", name, (unsigned)st->st_uid);
    n = readlinkat(link, "", text, sizeof(text) - 1);
    if (n < 0)
        return system_fail(w, errno, name, err);
    text[n] = '\0';
    if (++w->links > MAX_LINKS)
        return system_fail(w, ELOOP, name, err);
    if (!append(text, w->rest))
        return system_fail(w, ENAMETOOLONG, name, err);
    memcpy(w->rest, text, strlen(text) + 1);
    return text[0] == '/' ? go_to_root(w, err) : SF_OK;
}

static int open_child(struct walk *w, const char *name)
{
    int fd = SF_FD(openat(w->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));

    if (fd >= 0 || errno != ENOENT || !w->make)
        return fd;
    if (mkdirat(w->fd, name, 0700) != 0 && errno != EEXIST)
        return -1;
    return SF_FD(openat(w->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

static sf_status enter(struct walk *w, const char *name, sf_error *err)
{
    struct stat st;
    int fd = open_child(w, name);
    sf_status rc = SF_OK;

    if (fd < 0 || fstat(fd, &st) != 0) {
        rc = system_fail(w, errno, name, err);
    } else if (S_ISLNK(st.st_mode)) {
        rc = follow(w, fd, &st, name, err);
    } else if (!S_ISDIR(st.st_mode)) {
        rc = system_fail(w, ENOTDIR, name, err);
    } else if (!append(w->at, name)) {
        rc = system_fail(w, ENAMETOOLONG, name, err);
    } else {
        stand_at(w, fd, &st);
        return SF_OK;
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

/* The next name of what is still to go; empty at its end. */
static void take_name(struct walk *w, char name[NAME_MAX + 2])
{
    const char *p = w->rest + strspn(w->rest, "/");
    size_t n = strcspn(p, "/"), kept = n <= NAME_MAX ? n : NAME_MAX + 1; /* one too many: the system says so */

    memcpy(name, p, kept);
    name[kept] = '\0';
    memmove(w->rest, p + n, strlen(p + n) + 1);
}

static sf_status walk(struct walk *w, sf_error *err)
{
    char name[NAME_MAX + 2];
    sf_status rc = go_to_root(w, err);

    while (rc == SF_OK) {
        take_name(w, name);
        if (name[0] == '\0')
            return SF_OK;
        if (strcmp(name, ".") == 0)
            continue;
        /* One that is left by ".." was passed through all the same. */
        rc = may_be_above(w) ? enter(w, name, err) : refuse_above(w, err);
    }
    return rc;
}

static sf_status begin(struct walk *w, const char *path, sf_error *err)
{
    w->rest[0] = '\0';
    if (path[0] != '/' && (!getcwd(w->rest, sizeof(w->rest)) || w->rest[0] != '/'))
        return sf__fail_errno(err, errno, SF_IO, "folder %s: the working directory", path);
    if (!append(w->rest, path))
        return sf__fail_errno(err, ENAMETOOLONG, SF_IO, "folder %s", path);
    return walk(w, err);
}

sf_status sf__private_folder_open(const char *path, bool make, int *fd, sf_error *err)
{
    struct walk w = {.make = make, .fd = -1};
    sf_status rc = begin(&w, path, err);

    if (rc == SF_OK && !sf__is_private(&w.st))
        rc = refuse_folder(&w, err);
    if (rc == SF_OK) {
        int folder = SF_FD(openat(w.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));

        if (folder >= 0)
            *fd = folder;
        else if (errno == EACCES)
            rc = sf__private_folder_closed(w.fd, w.at, err);
        else
            rc = sf__fail_errno(err, errno, SF_IO, "folder %s", w.at);
    }
    if (w.fd >= 0)
        close(w.fd);
    return rc;
}

bool sf__private_folder_lock(int fd, int how)
{
    int rc = -1;

    for (unsigned tries = 0; rc != 0 && tries < LOCK_TRIES; tries++) {
        rc = flock(fd, how | LOCK_NB);
        if (rc != 0 && errno == EWOULDBLOCK)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        else if (rc != 0 && errno != EINTR)
            break;
    }
    return rc == 0;
}
