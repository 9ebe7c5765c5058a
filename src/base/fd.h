/* Descriptors of ours never sit on 0 to 2. A process that was started without its standard streams gives those numbers to
 * whatever opens next; what anybody prints would then go into one of our sockets or files, and libuv refuses to work there. */
#ifndef SF_BASE_FD_H
#define SF_BASE_FD_H

#include "shardyfusion/base.h"

/* Around everything that opens: meanwhile 0 to 2 are taken, by nothing that can be read or written. Nests; any thread. SQLite
 * does so by itself, and for ever, where it gets one of them. */
void sf__std_fds_hold(void);
void sf__std_fds_let_go(void); /* leaves errno alone */

/* Around one call that opens one descriptor, such as SF_FD(open(path, O_RDONLY | O_CLOEXEC)): what it returns, errno too. */
#define SF_FD(call) (sf__std_fds_hold(), sf__fd_let_go(call))
int sf__fd_let_go(int fd);
/* From now on around every fork() too: libuv opens in the child. Call it when libuv has registered its own handler. */
void sf__std_fds_hold_at_fork(void);

/* pread(2) and pwrite(2) for all bytes, at a place. The first is false where the file ends too early, as well; the second is 0, or the error
 * number. */
bool sf__pread_all(int fd, void *to, size_t n, uint64_t off);
int sf__pwrite_all(int fd, sf_bytes b, uint64_t off);

/* 0 when `count` more (at most SF_FD_PROBE_MAX) may be had at this moment, else the error number: for libraries that abort where
 * they get none, or say something else. */
#define SF_FD_PROBE_MAX 16u
int sf__fd_probe(unsigned count);
/* Whether this error number says that there are no descriptors left. */
bool sf__errno_is_exhausted(int e);
/* What was tried, then why not: SF_EXHAUSTED, with what to raise, for such a number; SF_NOMEM for ENOMEM; else `otherwise`,
 * which is SF_EXHAUSTED itself where a thread or a process could not be started. */
sf_status sf__fail_errno(sf_error *err, int e, sf_status otherwise, const char *fmt, ...) SF_PRINTF(4, 5);

#endif
