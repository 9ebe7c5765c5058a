#include "auth/credential_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/wipe.h"

#define MAX_WORDS 64u
#define COMPLAINT_BYTES 4096u
#define LOOK_MS 50 /* how often a waiting worker looks whether it is to stop */

extern char **environ;

/* ------------------------------------------------------------------ words ---------------------------------------- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* One word to *to, which it leaves behind the terminator. False for a quote that stays open. */
static bool take_word(const char **from, char **to)
{
    const char *s = *from;
    char quote = '\0';

    for (; *s && (quote || !is_blank(*s)); s++) {
        if (quote ? *s == quote : *s == '\'' || *s == '"') {
            quote = quote ? '\0' : *s;
        } else if (*s == '\\' && quote != '\'' && s[1] && (!quote || s[1] == '"' || s[1] == '\\')) {
            *(*to)++ = *++s;
        } else {
            *(*to)++ = *s;
        }
    }
    *(*to)++ = '\0';
    *from = s;
    return !quote;
}

sf_status sf__command_split(char ***out, const char *command, const sf_allocator *a, sf_error *err)
{
    char **words = sf__calloc(a, 1, (MAX_WORDS + 1) * sizeof(*words) + strlen(command) + 1), *to;
    size_t n = 0;

    if (!words)
        return sf_fail(err, SF_NOMEM, "command");
    to = (char *)(words + MAX_WORDS + 1);
    for (;;) {
        while (is_blank(*command))
            command++;
        if (!*command)
            break;
        if (n == MAX_WORDS) {
            sf__free(a, words);
            return sf_fail(err, SF_INVALID, "a command of more than %u words", MAX_WORDS);
        }
        words[n++] = to;
        if (!take_word(&command, &to)) {
            sf__free(a, words);
            return sf_fail(err, SF_INVALID, "a quote of the command stays open");
        }
    }
    if (n == 0) {
        sf__free(a, words);
        return sf_fail(err, SF_INVALID, "an empty command");
    }
    *out = words;
    return SF_OK;
}

/* ------------------------------------------------------------------ the child ------------------------------------ */

struct process_child {
    pid_t pid;            /* also its process group */
    int fd, complaint_fd; /* what it prints, and where it complains; -1: closed */
    char *complaint;      /* the last of it */
    size_t complaint_n;
    const atomic_bool *stop;
    uint64_t deadline_ns;
};

/* It gets no signal mask of ours, no descriptors but the standard ones, and a process group of its own. */
static int child_spawn(struct process_child *c, char **words, int out, int complaint)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t none, all;
    int rc;

    sigemptyset(&none);
    sigfillset(&all);
    sigdelset(&all, SIGKILL);
    sigdelset(&all, SIGSTOP);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&how);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, complaint, STDERR_FILENO);
    posix_spawnattr_setpgroup(&how, 0);
    posix_spawnattr_setsigmask(&how, &none);
    posix_spawnattr_setsigdefault(&how, &all);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    rc = posix_spawnp(&c->pid, words[0], &files, &how, words, environ);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&files);
    return rc;
}

static sf_status child_start(struct process_child *c, const char *command, const sf_allocator *a, sf_error *err)
{
    sf_allocator wiping; /* a command may hold a secret */
    char **words;
    int out[2], complaint[2], rc;
    sf_status status;

    sf__wiping_allocator(&wiping, a);
    status = sf__command_split(&words, command, &wiping, err);
    if (status != SF_OK)
        return status;
    if (SF_FD(pipe2(out, O_CLOEXEC)) != 0) {
        status = sf__fail_errno(err, errno, SF_UNAVAILABLE, "a pipe");
    } else if (SF_FD(pipe2(complaint, O_CLOEXEC)) != 0) {
        status = sf__fail_errno(err, errno, SF_UNAVAILABLE, "a pipe");
        close(out[0]);
        close(out[1]);
    } else {
        rc = child_spawn(c, words, out[1], complaint[1]);
        close(out[1]);
        close(complaint[1]);
        c->fd = out[0];
        c->complaint_fd = complaint[0];
        if (rc != 0) {
            close(out[0]);
            close(complaint[0]);
            status =
                sf__fail_errno(err, rc, rc == EAGAIN ? SF_EXHAUSTED : SF_INVALID, "\"%s\" cannot be started", words[0]);
        }
    }
    sf__free(&wiping, words);
    return status;
}

/* Whether to go on waiting. */
static sf_status child_check(const struct process_child *c, sf_error *err)
{
    if (atomic_load(c->stop))
        return sf_fail(err, SF_CANCELLED, "cancelled");
    if (sf__clock_mono_ns() >= c->deadline_ns)
        return sf_fail(err, SF_TIMEOUT, "the command has not ended in time");
    return SF_OK;
}

/* Of what it complains the end says why: the beginning makes room. */
static void child_hear(struct process_child *c)
{
    ssize_t got;

    if (c->complaint_n == COMPLAINT_BYTES) {
        c->complaint_n = COMPLAINT_BYTES / 2;
        memmove(c->complaint, c->complaint + COMPLAINT_BYTES - c->complaint_n, c->complaint_n);
    }
    got = read(c->complaint_fd, c->complaint + c->complaint_n, COMPLAINT_BYTES - c->complaint_n);
    if (got > 0) {
        c->complaint_n += (size_t)got;
    } else if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
        close(c->complaint_fd);
        c->complaint_fd = -1;
    }
}

/* What is there already; what it has started may keep the pipe open for ever. */
static void child_hear_rest(struct process_child *c)
{
    struct pollfd p = {.fd = c->complaint_fd, .events = POLLIN};
    unsigned rounds = 64; /* a pipe's worth */

    while (rounds-- > 0 && c->complaint_fd >= 0 && poll(&p, 1, 0) > 0)
        child_hear(c);
}

static sf_status child_read(struct process_child *c, char *to, size_t *n, sf_error *err)
{
    sf_status rc;

    while ((rc = child_check(c, err)) == SF_OK) {
        struct pollfd p[] = {{.fd = c->fd, .events = POLLIN}, {.fd = c->complaint_fd, .events = POLLIN}};
        ssize_t got;

        if (poll(p, 2, LOOK_MS) <= 0)
            continue;
        if (p[1].revents)
            child_hear(c);
        if (!p[0].revents)
            continue;
        got = read(c->fd, to + *n, SF_CREDENTIAL_PROCESS_BYTES + 1 - *n);
        if (got < 0 && errno != EINTR && errno != EAGAIN)
            return sf_fail(err, SF_UNAVAILABLE, "reading what the command prints: %s", strerror(errno));
        if (got == 0)
            return SF_OK;
        if (got > 0)
            *n += (size_t)got;
        if (*n > SF_CREDENTIAL_PROCESS_BYTES)
            return sf_fail(err, SF_CORRUPT, "the command prints more than %u bytes", SF_CREDENTIAL_PROCESS_BYTES);
    }
    return rc;
}

/* It has closed its output, which is not yet its end. */
static sf_status child_wait(struct process_child *c, int *status, sf_error *err)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    sf_status rc;

    while ((rc = child_check(c, err)) == SF_OK) {
        pid_t done = waitpid(c->pid, status, WNOHANG);

        if (done == c->pid)
            return SF_OK;
        if (done < 0 && errno == ECHILD) { /* a program that ignores SIGCHLD never learns it: what was printed decides */
            *status = 0;
            return SF_OK;
        }
        child_hear_rest(c); /* else it waits for room in the pipe */
        nanosleep(&pause, NULL);
    }
    return rc;
}

static void child_kill(const struct process_child *c)
{
    kill(-c->pid, SIGKILL);
    kill(c->pid, SIGKILL); /* in case it has no group yet */
    while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/* "...: what it said last". */
static sf_status append_complaint(sf_error *err, sf_status rc, const char *complaint)
{
    size_t n = err ? strlen(err->message) : 0;

    if (err && complaint[0])
        snprintf(err->message + n, sizeof(err->message) - n, ": %s", complaint);
    return rc;
}

sf_status sf__credential_process_run(char **out, size_t *n, char complaint[SF_SAID_BYTES], const char *command,
                                     uint64_t deadline_ns, const atomic_bool *stop, const sf_allocator *a, sf_error *err)
{
    struct process_child c = {.stop = stop, .deadline_ns = deadline_ns, .fd = -1, .complaint_fd = -1};
    char *text = sf__calloc(a, 1, SF_CREDENTIAL_PROCESS_BYTES + 2 + COMPLAINT_BYTES);
    size_t have = 0;
    int status = 0;
    sf_status rc;

    complaint[0] = '\0';
    if (!text)
        return sf_fail(err, SF_NOMEM, "output of the command");
    c.complaint = text + SF_CREDENTIAL_PROCESS_BYTES + 2;
    rc = child_start(&c, command, a, err);
    if (rc == SF_OK) {
        rc = child_read(&c, text, &have, err);
        if (rc == SF_OK)
            rc = child_wait(&c, &status, err);
        if (rc != SF_OK)
            child_kill(&c);
        child_hear_rest(&c);
        close(c.fd);
        if (c.complaint_fd >= 0)
            close(c.complaint_fd);
        sf__said_last(complaint, SF_SAID_BYTES, sf_bytes_of(c.complaint, c.complaint_n));
        if (rc == SF_OK && WIFSIGNALED(status))
            rc = sf_fail(err, SF_DENIED, "the command was ended by signal %d", WTERMSIG(status));
        else if (rc == SF_OK && WEXITSTATUS(status) != 0)
            rc = sf_fail(err, SF_DENIED, "the command ended with status %d", WEXITSTATUS(status));
        if (rc != SF_OK)
            append_complaint(err, rc, complaint);
    }
    if (rc == SF_OK) {
        *out = text;
        *n = have;
        return SF_OK;
    }
    explicit_bzero(text, SF_CREDENTIAL_PROCESS_BYTES + 2 + COMPLAINT_BYTES);
    sf__free(a, text);
    return rc;
}
