/* Local files. The key "a/b" is the file /a/b. Every operation is one job on a worker thread. */
#include "store/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/fd.h"

/* How long a folder that somebody else has locked is left alone; the deadline bounds how often. */
#define LOCKED_BASE_MS 5
#define LOCKED_CAP_MS 200
/* What moves more than this waits for what does not (net/pool.h). */
#define PROMPT_BYTES (64u << 10)

/* ------------------------------------------------------------------ shared pieces -------------------------------- */

sf_status sf__file_error(sf_store_op *op, const char *what)
{
    int e = errno;
    sf_status code = SF_IO;
    char text[128];

    if (sf__errno_is_exhausted(e))
        return sf__fail_errno(sf__file_error_of(op), e, SF_IO, "%s", what);
    if (e == ENOENT || e == ENOTDIR || e == EISDIR)
        code = SF_NOT_FOUND;
    else if (e == EACCES || e == EPERM || e == EROFS)
        code = SF_DENIED;
    else if (e == EEXIST)
        code = SF_CONFLICT;
    else if (e == ENOMEM)
        code = SF_NOMEM;
    return sf_fail(sf__file_error_of(op), code, "%s: %s", what, strerror_r(e, text, sizeof(text)));
}

bool sf__file_cannot(int e)
{
    switch (e) {
    case EPERM:  /* of link(): "the file system does not support hard links" */
    case EACCES: /* some say so instead; where it is the truth the next way says it, too */
    case ENOSYS:
    case ENOTTY:
    case EINVAL:
    case EOPNOTSUPP:
#if ENOTSUP != EOPNOTSUPP
    case ENOTSUP:
#endif
    case EMLINK:
    case EXDEV:
    case ENOLCK:
    case EBADF: /* NFS, of locking a descriptor that cannot be written to */
    case EISDIR:
        return true;
    default:
        return false;
    }
}

sf_status sf__file_sync(sf_store_op *op, int fd, const char *what)
{
    int rc;

    do
        rc = fsync(fd);
    while (rc != 0 && errno == EINTR);
    /* Some file systems cannot sync this; then there is nothing to wait for. */
    return rc == 0 || sf__file_cannot(errno) ? SF_OK : sf__file_error(op, what);
}

void sf__file_etag(const struct stat *st, char out[static 64])
{
    snprintf(out, 64, "\"%llx-%llx-%llx\"", (unsigned long long)st->st_ino, (unsigned long long)st->st_size,
             (unsigned long long)st->st_mtim.tv_sec * 1000000000u + (unsigned long long)st->st_mtim.tv_nsec);
}

static bool segments_ok(const char *key)
{
    for (;;) {
        size_t n = strcspn(key, "/");

        if (n == 0 || (n == 1 && key[0] == '.') || (n == 2 && key[0] == '.' && key[1] == '.'))
            return false;
        if (key[n] == '\0')
            return true;
        key += n + 1;
    }
}

char *sf__file_path(sf_store_op *op, const char *key)
{
    char *path;

    if (!segments_ok(key)) {
        sf_fail(sf__file_error_of(op), SF_INVALID, "\"%s\" is no file name: a segment is empty, \".\" or \"..\"", key);
        return NULL;
    }
    path = sf__asprintf(op->store->alloc, "/%s", key);
    if (!path)
        sf_fail(sf__file_error_of(op), SF_NOMEM, "file name");
    return path;
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

static sf_status read_range(sf_store_op *op, int fd, uint64_t off, uint64_t len)
{
    size_t done = 0;

    op->data = sf__buf_new(op->memory ? op->memory : op->store->alloc, (size_t)len);
    if (!op->data)
        return sf_fail(sf__file_error_of(op), SF_NOMEM, "%llu bytes", (unsigned long long)len);
    while (done < len) {
        ssize_t n = pread(fd, op->data->data + done, (size_t)len - done, (off_t)(off + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sf__file_error(op, "read");
        if (n == 0)
            return sf_fail(sf__file_error_of(op), SF_CORRUPT, "the file ends at byte %llu while it is read",
                           (unsigned long long)(off + done));
        done += (size_t)n;
    }
    return SF_OK;
}

static sf_status read_open(sf_store_op *op, int fd)
{
    uint64_t off = op->off, len = op->len, size, bound = op->max_bytes ? op->max_bytes : op->len;
    struct stat st;

    if (fstat(fd, &st) != 0)
        return sf__file_error(op, "stat");
    if (!S_ISREG(st.st_mode))
        return sf_fail(sf__file_error_of(op), SF_NOT_FOUND, "no regular file");
    size = op->object_size = (uint64_t)st.st_size;
    sf__file_etag(&st, op->etag);
    if (op->verb == SF_STORE_HEAD)
        return SF_OK;
    if (op->if_match && strcmp(op->if_match, op->etag) != 0)
        return sf_fail(sf__file_error_of(op), SF_CONFLICT, "the file changed");
    if (op->verb == SF_STORE_GET_SUFFIX)
        off = size > len ? size - len : 0;
    if (op->verb == SF_STORE_GET_SUFFIX || len == SF_STORE_ALL)
        len = size - off;
    if (len > bound)
        return sf__store_op_longer(op, size, sf__file_error_of(op));
    if (off > size || len > size - off)
        return sf_fail(sf__file_error_of(op), SF_CORRUPT, "bytes %llu + %llu wanted, the file has %llu",
                       (unsigned long long)off, (unsigned long long)len, (unsigned long long)size);
    return read_range(op, fd, off, len);
}

static sf_status read_file(sf_store_op *op)
{
    char *path = sf__file_path(op, op->key);
    sf_status rc;
    int fd;

    if (!path)
        return sf__file_error_of(op)->code;
    fd = SF_FD(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)); /* a FIFO must not hang us */
    rc = fd < 0 ? sf__file_error(op, "open") : read_open(op, fd);
    if (fd >= 0)
        close(fd);
    sf__free(op->store->alloc, path);
    return rc;
}

/* ------------------------------------------------------------------ deleting ------------------------------------- */

/* Those of a run ("run_id=X", "..._run_id=X_...") are, and the one that collects them, but not the prefix: that may be
 * somebody's. */
size_t sf__file_first_of_ours(const char *path)
{
    size_t floor = SIZE_MAX;

    for (const char *run = path; (run = strstr(run, "run_id=")); run++) { /* the last: a prefix may have the word, too */
        const char *begin = run;

        while (begin > path && begin[-1] != '/')
            begin--;
        if (begin > path + 1 && (begin == run || run[-1] == '_'))
            floor = (size_t)(begin - path) - 1;
    }
    return floor;
}

static sf_status delete_file(sf_store_op *op, const char *key)
{
    char *path = sf__file_path(op, key);
    sf_status rc = SF_OK;

    if (!path)
        return sf__file_error_of(op)->code;
    if (unlink(path) != 0 && errno != ENOENT && errno != ENOTDIR)
        rc = sf__file_error(op, key);
    else if (op->tidy)
        sf__file_remove_empty(path, sf__file_first_of_ours(path));
    sf__free(op->store->alloc, path);
    return rc;
}

static sf_status delete_files(sf_store_op *op)
{
    for (size_t i = 0; i < op->key_count; i++)
        if (delete_file(op, op->keys[i]) != SF_OK)
            return sf__file_error_of(op)->code;
    return SF_OK;
}

/* ------------------------------------------------------------------ the store ------------------------------------ */

static sf_status run_op(sf_file_job *job)
{
    sf_store_op *op = job->op;

    switch (op->verb) {
    case SF_STORE_HEAD:
    case SF_STORE_GET:
    case SF_STORE_GET_SUFFIX:
        return read_file(op);
    case SF_STORE_PUT:
        return sf__file_put(job);
    case SF_STORE_LIST:
    case SF_STORE_MULTIPART_LIST:
        return sf__file_list(op);
    case SF_STORE_DELETE:
        return delete_file(op, op->key);
    case SF_STORE_DELETE_MANY:
        return delete_files(op);
    case SF_STORE_TIME:
        return sf__file_time(op);
    default:
        return sf__file_multipart(job);
    }
}

static void fail_late(sf_file_job *job)
{
    char who[64] = "another process (/proc/locks may tell which)";
    int folder = (int)(strrchr(job->op->key, '/') ? strrchr(job->op->key, '/') - job->op->key : 0);

    if (!job->locked) {
        sf_error_overdue(&job->error, &(sf_overdue){.since_ns = job->since_ns, .waits_for = "a thread that is free"});
        return;
    }
    if (job->holder > 0)
        snprintf(who, sizeof(who), "process %ld", job->holder);
    sf_fail(&job->error, SF_TIMEOUT, "the folder /%.*s was locked all the time, by %s; tried %u times", folder,
            job->op->key, who, job->tries);
}

static void on_worker(sf_work *work)
{
    sf_file_job *job = sf_container_of(work, sf_file_job, work);

    if (atomic_load(&job->cancelled)) {
        sf_fail(&job->error, SF_CANCELLED, "cancelled");
    } else if (sf__clock_mono_ns() >= job->op->deadline_ns) {
        fail_late(job);
    } else {
        job->locked = false;
        run_op(job);
        if (job->op->arrived && job->error.code == SF_OK)
            job->op->arrived(job->op);
    }
    if (job->error.code != SF_OK)
        job->locked = false;
    if (!job->locked)
        sf__file_put_end(job);
}

static void submit_job(sf_file_job *job)
{
    sf__work_submit(job->op->store->loop, SF_WORK_FILE, &job->work);
}

static void on_timer(sf_timer *timer)
{
    submit_job(sf_container_of(timer, sf_file_job, timer));
}

/* Somebody else has the folder: another try a little later, by a timer, which holds up nothing but this operation. */
static void try_again(sf_file_job *job)
{
    const sf_retry_policy policy = {.base_ms = LOCKED_BASE_MS, .cap_ms = LOCKED_CAP_MS};
    int64_t delay_ms = 1 + sf__retry_delay_ms(&policy, job->tries, sf__random_next(&job->random));
    uint64_t due_ns = sf__deadline_in_ms(delay_ms);

    job->tries++;
    sf__timer_start(job->op->store->loop, &job->timer, due_ns < job->op->deadline_ns ? due_ns : job->op->deadline_ns);
}

static void on_done(sf_work *work)
{
    sf_file_job *job = sf_container_of(work, sf_file_job, work);
    sf_store_op *op = job->op;
    const sf_allocator *a = op->store->alloc;

    if (job->locked) {
        if (atomic_load(&job->cancelled))
            submit_job(job); /* takes back what it wrote */
        else
            try_again(job);
        return;
    }
    /* A write that happened is not called cancelled: its caller must know. */
    if (atomic_load(&job->cancelled) && (op->data || op->entries || op->uploads))
        sf_fail(&job->error, SF_CANCELLED, "cancelled");
    if (job->error.code != SF_OK)
        sf__store_op_cleanup(op, a);
    op->impl = NULL;
    sf__store_op_finish(op, &job->error); /* op is the owner's again */
    sf__free(a, job);
}

/* A block of a look-up does not wait for the windows of a scan and the parts of an upload. */
static bool is_bulk(const sf_store_op *op)
{
    switch (op->verb) {
    case SF_STORE_GET:
        return op->len != SF_STORE_ALL && op->len > PROMPT_BYTES;
    case SF_STORE_PUT:
    case SF_STORE_MULTIPART_PART:
        return op->body.n > PROMPT_BYTES;
    case SF_STORE_MULTIPART_COMPLETE: /* what it consists of is on the disk at the end */
        return true;
    default:
        return false;
    }
}

static void file_submit(sf_store *store, sf_store_op *op)
{
    sf_file_job *job = sf__calloc(store->alloc, 1, sizeof(*job));

    op->impl = job;
    if (!job) {
        sf__store_op_fail_later(op, SF_NOMEM, "file operation");
        return;
    }
    job->op = op;
    job->error = (sf_error)SF_ERROR_INIT;
    job->fd = -1;
    job->since_ns = sf__clock_mono_ns();
    sf__random_seed(&job->random);
    job->work.bulk = is_bulk(op);
    job->work.run = on_worker;
    job->work.done = on_done;
    job->timer.fire = on_timer;
    submit_job(job);
}

static void file_cancel(sf_store *store, sf_store_op *op)
{
    sf_file_job *job = op->impl;

    if (!job)
        return;
    atomic_store(&job->cancelled, true);
    if (job->timer.order != 0) { /* between two tries */
        sf__timer_stop(store->loop, &job->timer);
        submit_job(job);
    }
}

/* The worker's state is the worker's. */
static void file_progress(const sf_store *store, const sf_store_op *op, sf_store_progress *out)
{
    (void)store;
    (void)op;
    out->waits_for = "the file system, or a thread that is free";
}

static void file_free(sf_store *store)
{
    sf__store_fini(store);
    sf__free(store->alloc, store);
}

sf_status sf__store_file_new(sf_store **out, sf_loop *loop, const sf_allocator *a, sf_error *err)
{
    static const sf_store_vtable vtable = {file_submit, file_cancel, file_free, file_progress};
    sf_store *store = sf__calloc(a, 1, sizeof(*store));

    if (!store || !sf__store_init(store, &vtable, "file://", loop, a)) {
        sf__free(a, store);
        return sf_fail(err, SF_NOMEM, "file store");
    }
    store->is_asked_time = store->is_near = true;
    *out = store;
    return SF_OK;
}
