#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/thread.h"

#define STD_FDS 3

/* ------------------------------------------------------------------ the guard ------------------------------------ */

static sf_mutex lock = PTHREAD_MUTEX_INITIALIZER; /* covers what follows */
static unsigned holders;
static bool placed[STD_FDS]; /* ours, to be closed by whoever leaves last */

/* Readable where one writes and the other way round, so that a use fails as it does on a closed one. */
static void place(int fd)
{
    int got = open("/dev/null", (fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) | O_CLOEXEC);

    if (got == fd)
        placed[fd] = true;
    else if (got >= 0)
        close(got); /* somebody else was quicker */
}

void sf__std_fds_hold(void)
{
    struct pollfd fds[STD_FDS] = {{.fd = 0}, {.fd = 1}, {.fd = 2}};

    sf_mutex_lock(&lock);
    if (holders++ == 0 && poll(fds, STD_FDS, 0) > 0)
        for (int i = 0; i < STD_FDS; i++) /* upwards: each open() takes the lowest that is free */
            if (fds[i].revents & POLLNVAL)
                place(i);
    sf_mutex_unlock(&lock);
}

void sf__std_fds_let_go(void)
{
    int e = errno;

    sf_mutex_lock(&lock);
    if (--holders == 0)
        for (int i = 0; i < STD_FDS; i++)
            if (placed[i]) {
                placed[i] = false;
                close(i);
            }
    sf_mutex_unlock(&lock);
    errno = e;
}

int sf__fd_let_go(int fd)
{
    sf__std_fds_let_go();
    return fd;
}

/* The lock is taken over the fork, or the child could find it held by a thread that it has not. */
static void before_fork(void)
{
    sf__std_fds_hold();
    sf_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
    sf_mutex_unlock(&lock);
    sf__std_fds_let_go();
}

static void after_fork_in_child(void)
{
    holders = 1; /* the other holders stayed in the parent */
    after_fork_in_parent();
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void sf__std_fds_hold_at_fork(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, watch_forks);
}

/* ------------------------------------------------------------------ exhaustion ----------------------------------- */

int sf__fd_probe(unsigned count)
{
    int fds[SF_FD_PROBE_MAX], e = 0;
    unsigned n = 0;

    while (n < count && e == 0) {
        fds[n] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (fds[n] >= 0)
            n++;
        else
            e = errno;
    }
    while (n > 0)
        close(fds[--n]);
    return e;
}

bool sf__errno_is_exhausted(int e)
{
    return e == EMFILE || e == ENFILE;
}

sf_status sf__fail_errno(sf_error *err, int e, sf_status otherwise, const char *fmt, ...)
{
    const char *advice = "";
    char what[512], text[128];
    va_list args;

    if (sf__errno_is_exhausted(e))
        otherwise = SF_EXHAUSTED;
    else if (e == ENOMEM)
        otherwise = SF_NOMEM;
    if (e == EMFILE)
        advice = ": this process has as many descriptors as it may have; raise its limit (ulimit -n)";
    else if (e == ENFILE)
        advice = ": the machine has no descriptors left; raise fs.file-max";
    else if (e == EAGAIN && otherwise == SF_EXHAUSTED)
        advice =
            ": no more threads or processes may be started, or there is no memory for one's stack; raise the limit (ulimit -u, "
            "ulimit -v, or pids.max of the container)";
    else if (e == ENOSPC || e == EDQUOT)
        advice = ": make room there, or name a folder on another disk";
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    return sf_fail(err, otherwise, "%s: %s%s", what, strerror_r(e, text, sizeof(text)), advice);
}

/* ------------------------------------------------------------------ all bytes ------------------------------------ */

bool sf__pread_all(int fd, void *to, size_t n, uint64_t off)
{
    for (uint8_t *p = to; n > 0;) {
        ssize_t got = pread(fd, p, n, (off_t)off);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        p += got;
        n -= (size_t)got;
        off += (uint64_t)got;
    }
    return true;
}

int sf__pwrite_all(int fd, sf_bytes b, uint64_t off)
{
    while (b.n > 0) {
        ssize_t put = pwrite(fd, b.p, b.n, (off_t)off);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? errno : EIO;
        b.p += put;
        b.n -= (size_t)put;
        off += (uint64_t)put;
    }
    return 0;
}
