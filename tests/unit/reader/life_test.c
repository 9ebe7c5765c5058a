/* The life of a runtime as an embedding program sees it: what it has started has ended when its last handle is gone, nothing of
 * it sits where others expect their standard streams, and nobody waits inside of it for what cannot come. */
#include "world.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dirent.h>

#include "reader/source.h"
#include "runtime/runtime.h"
#include "shardyfusion/writer.h"

#define PATIENCE_MS 120000
#define S3_URL "s3://bucket/prefix"

/* ------------------------------------------------------------------ looking ------------------------------------- */

/* Threads of this process whose name begins so. */
static unsigned threads_named(const char *prefix)
{
    DIR *d = opendir("/proc/self/task");
    unsigned n = 0;

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[64], name[32] = "";
        FILE *f;

        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", e->d_name);
        f = fopen(path, "re");
        if (!f)
            continue; /* it has just ended */
        if (fgets(name, sizeof(name), f))
            n += strncmp(name, prefix, strlen(prefix)) == 0;
        fclose(f);
    }
    closedir(d);
    return n;
}

/* A thread that has just begun bears its creator's name for a moment, and one that was joined stands in /proc for another. */
static void expect_threads(const char *prefix, unsigned expected)
{
    unsigned n = threads_named(prefix);

    for (int i = 0; i < 30000 && n != expected; i++) {
        usleep(1000);
        n = threads_named(prefix);
    }
    assert_int_equal(n, expected);
}

static char *temp_file(const char *text)
{
    static char path[64];
    int fd;

    strcpy(path, "/tmp/shardyfusion-life-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    return path;
}

static sf_s3_options s3_at(const char *endpoint)
{
    sf_s3_options s3 = SF_S3_OPTIONS_INIT;

    s3.endpoint_url = endpoint;
    s3.region = "us-east-1";
    s3.anonymous = true;
    s3.max_retries = 0;
    return s3;
}

/* ------------------------------------------------------------------ the last release ----------------------------- */

/* An allocator that is gone, with the memory it is made of, right after the last release. */
struct mortal {
    sf_allocator alloc;
    atomic_long live;
};

static void *mortal_realloc(void *ctx, void *p, size_t n)
{
    struct mortal *m = ctx;

    if (!p)
        atomic_fetch_add(&m->live, 1);
    return realloc(p, n);
}

static void mortal_free(void *ctx, void *p)
{
    atomic_fetch_sub(&((struct mortal *)ctx)->live, 1);
    free(p);
}

static void arrive(void *ctx, sf_call *call)
{
    (void)call;
    gate_arrive(ctx);
}

enum ending {
    END_BLOCKING,    /* blocking calls only, the runtime last */
    END_CALLED_BACK, /* on a callback's word, which comes before the loop is done with the call */
    END_READER_LAST,
    END_SNAPSHOT_LAST,
    END_CALL_LAST,
    END_SCAN_LAST,
    END_BUCKET_LAST,
    END_FORGOTTEN, /* calls under way whose handles were released */
    END_CANCELLED,
    END_FILES,
    END_S3,
    ENDINGS
};

static void live_and_end(enum ending how, const sf_allocator *a, const char *file)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    sf_scan_options scanning = SF_SCAN_OPTIONS_INIT;
    sf_s3_options s3 = s3_at("http://127.0.0.1:1");
    struct gate gate = GATE_INIT;
    struct world w;
    sf_key key = sf_key_int(7), keys[20];
    sf_value value = {0};
    sf_snapshot *snap;
    sf_scan *scan = NULL;
    sf_reader *r;
    sf_call *call = NULL;
    sf_object object = {0};

    o.allocator = a;
    o.cache_bytes = 0; /* every look-up is an operation */
    world_open(&w, &o);
    r = world_open_reader(&w);
    snap = sf_reader_borrow(r, NULL);
    for (int i = 0; i < 20; i++)
        keys[i] = sf_key_int(i);
    assert_int_equal(sf_scan_open(&scan, snap, &scanning, NULL), SF_OK);
    assert_int_equal(sf_reader_get(r, &key, PATIENCE_MS, &value, NULL), SF_OK);
    sf_value_release(&value);
    if (how == END_CALL_LAST)
        assert_int_equal(sf_reader_get_start(&call, r, &key, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    if (how != END_SCAN_LAST)
        sf_scan_close(scan);
    if (how != END_SNAPSHOT_LAST)
        sf_snapshot_give_back(snap);
    switch (how) {
    case END_CALLED_BACK:
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(sf_reader_multi_get_start(&call, r, keys, 20, PATIENCE_MS, arrive, &gate, NULL), SF_OK);
            sf_call_release(call);
        }
        gate_wait(&gate, 3);
        gate_leave(&gate);
        break;
    case END_FORGOTTEN:
    case END_CANCELLED:
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(sf_reader_multi_get_start(&call, r, keys, 20, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
            if (how == END_CANCELLED)
                sf_call_cancel(call);
            sf_call_release(call);
        }
        break;
    case END_FILES:
    case END_S3: {
        sf_bucket *b = NULL;

        assert_int_equal(sf_bucket_open(&b, w.rt, how == END_S3 ? S3_URL : "file:///", &s3, NULL), SF_OK);
        assert_int_equal(sf_bucket_get(b, file + 1, 100, PATIENCE_MS, &object, NULL),
                         how == END_S3 ? SF_UNAVAILABLE : SF_OK);
        sf_object_release(&object);
        sf_bucket_close(b);
        break;
    }
    default:
        break;
    }
    if (how != END_READER_LAST)
        sf_reader_free(r);
    if (how != END_BUCKET_LAST)
        sf_bucket_close(w.bucket);
    sf_runtime_release(w.rt);
    switch (how) {
    case END_READER_LAST:
        sf_reader_free(r);
        break;
    case END_SNAPSHOT_LAST:
        sf_snapshot_give_back(snap);
        break;
    case END_CALL_LAST:
        sf_call_release(call);
        break;
    case END_SCAN_LAST:
        sf_scan_close(scan);
        break;
    case END_BUCKET_LAST:
        sf_bucket_close(w.bucket);
        break;
    default:
        break;
    }
}

static void nothing_runs_after_the_last_release(void **state)
{
    char *file = temp_file("object");

    for (int round = 0; round < 20 * ENDINGS; round++) {
        struct mortal *m = calloc(1, sizeof(*m));

        m->alloc = (sf_allocator){sizeof(m->alloc), mortal_realloc, mortal_free, m};
        live_and_end((enum ending)(round % ENDINGS), &m->alloc, file);
        if (atomic_load(&m->live) != 0)
            fail_msg("ending %d: %ld allocations are left", round % ENDINGS, atomic_load(&m->live));
        free(m); /* the sanitizers see who comes behind */
    }
    expect_threads("sf-", 0);
    unlink(file);
}

/* A callback brings a handle to life while the last one is on its way out: that was not the last, then. */
struct late {
    struct gate gate;
    sf_reader *reader;
};

static void take_reader(void *ctx, sf_call *call)
{
    ((struct late *)ctx)->reader = sf_call_take_reader(call);
}

static void a_callback_may_keep_the_runtime(void **state)
{
    for (int round = 0; round < 20; round++) {
        struct late late = {.gate = GATE_INIT};
        sf_key key = sf_key_int(7);
        sf_value value = {0};
        struct world w;
        sf_call *call = NULL;

        world_open(&w, NULL);
        assert_int_equal(sf_reader_open_start(&call, w.rt, PREFIX, NULL, take_reader, &late, NULL), SF_OK);
        sf_call_release(call);
        sf_bucket_close(w.bucket);
        sf_runtime_release(w.rt); /* waits for the opening */
        assert_non_null(late.reader);
        assert_int_equal(sf_reader_get(late.reader, &key, PATIENCE_MS, &value, NULL), SF_OK);
        sf_value_release(&value);
        sf_reader_free(late.reader);
        expect_threads("sf-", 0);
    }
}

struct owner {
    struct world w;
    sf_reader *reader;
    struct gate gate;
};

static void release_all(void *ctx, sf_call *call)
{
    struct owner *o = ctx;

    (void)call;
    sf_reader_free(o->reader);
    sf_bucket_close(o->w.bucket);
    sf_runtime_release(o->w.rt);
    gate_arrive(&o->gate);
}

static void released_inside_a_callback_it_ends_by_itself(void **state)
{
    struct owner o = {.gate = GATE_INIT};
    sf_key key = sf_key_int(7);
    sf_call *call = NULL;

    world_open(&o.w, NULL);
    o.reader = world_open_reader(&o.w);
    assert_int_equal(sf_reader_get_start(&call, o.reader, &key, PATIENCE_MS, release_all, &o, NULL), SF_OK);
    sf_call_release(call);
    gate_wait(&o.gate, 1);
    gate_leave(&o.gate);
    while (threads_named("sf-") > 0) /* until the test's own timeout */
        usleep(1000);
}

/* ------------------------------------------------------------------ waiting inside a callback -------------------- */

struct inside {
    struct world *w;
    sf_reader *reader;
    sf_snapshot *snap;
    sf_scan *scan;
    sf_writer *writer, *doomed;
    sf_shard_builder *builder;
    sf_status got[32];
    sf_error error;
    unsigned count;
    struct gate gate;
};

static void note(struct inside *in, sf_status rc)
{
    in->got[in->count++] = rc;
}

static void wait_for_everything(void *ctx, sf_call *call)
{
    struct inside *in = ctx;
    sf_runtime *rt = in->w->rt;
    sf_bucket *b = in->w->bucket;
    const char *const names[] = {"left-alone"};
    sf_writer_options wo = SF_WRITER_OPTIONS_INIT;
    sf_key key = sf_key_int(9);
    sf_bytes bytes = sf_bytes_str("x");
    sf_call *listed = NULL, *started = NULL;
    sf_writer *w = NULL;
    sf_shard_builder *builder = NULL;
    sf_shard_summary summary;
    sf_cleanup_report *report = NULL;
    sf_history *history = NULL;
    sf_object o = {0};
    sf_value value = {0};
    sf_reader *r = NULL;
    sf_snapshot *s = NULL;
    const sf_row *rows;
    size_t count;
    bool changed;

    (void)call;
    wo.num_dbs = 1;
    note(in, sf_writer_open(&w, rt, PREFIX "-new", &wo, &in->error));
    note(in, sf_writer_add(in->writer, &key, bytes, NULL));
    note(in, sf_writer_build(in->writer, NULL));
    note(in, sf_writer_publish(in->writer, NULL));
    note(in, sf_writer_finish(in->writer, NULL));
    note(in, sf_shard_builder_open(&builder, rt, PREFIX "-shard", NULL, NULL));
    note(in, sf_shard_builder_add(in->builder, bytes, bytes, NULL));
    note(in, sf_shard_builder_finish(in->builder, &summary, NULL));
    note(in, sf_history_list(&history, rt, PREFIX, NULL, 10, NULL));
    note(in, sf_rollback(rt, PREFIX, "x", NULL, NULL));
    note(in, sf_cleanup(&report, rt, PREFIX, NULL, NULL));
    note(in, sf_bucket_get(b, "left-alone", 100, PATIENCE_MS, &o, NULL));
    note(in, sf_bucket_get_range(b, "left-alone", 0, 1, PATIENCE_MS, &o, NULL));
    note(in, sf_bucket_head(b, "left-alone", PATIENCE_MS, &o, NULL));
    note(in, sf_bucket_put(b, "never", bytes, NULL, PATIENCE_MS, NULL, NULL));
    note(in, sf_bucket_list(&listed, b, "", NULL, PATIENCE_MS, NULL));
    note(in, sf_bucket_delete(b, "left-alone", PATIENCE_MS, NULL));
    note(in, sf_bucket_delete_many(b, names, 1, PATIENCE_MS, NULL));
    note(in, sf_reader_open(&r, rt, PREFIX, NULL, NULL));
    note(in, sf_reader_get(in->reader, &key, PATIENCE_MS, &value, NULL));
    note(in, sf_reader_multi_get(in->reader, &key, 1, PATIENCE_MS, &value, NULL));
    note(in, sf_reader_refresh(in->reader, PATIENCE_MS, &changed, NULL));
    note(in, sf_snapshot_open_shard(&s, rt, PREFIX "/x", NULL, NULL, PATIENCE_MS, NULL));
    note(in, sf_scan_next(in->scan, 1, PATIENCE_MS, &rows, &count, NULL));
    if (sf_reader_get_start(&started, in->reader, &key, PATIENCE_MS, NULL, NULL, NULL) == SF_OK) {
        note(in, sf_call_wait(started, NULL));
        sf_call_release(started);
    }
    sf_writer_abort(in->doomed, "Error", "inside a callback"); /* these two return nothing, so they must do it */
    sf_writer_free(in->doomed);
    gate_arrive(&in->gate);
}

static void blocking_calls_inside_a_callback_are_refused(void **state)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    sf_writer_options wo = SF_WRITER_OPTIONS_INIT;
    sf_scan_options so = SF_SCAN_OPTIONS_INIT;
    struct inside in = {.gate = GATE_INIT, .error = SF_ERROR_INIT};
    sf_key key = sf_key_int(7);
    sf_object object = {0};
    struct world w;
    sf_call *call = NULL;

    o.cache_bytes = 0;
    wo.num_dbs = 1;
    world_open(&w, &o);
    in.w = &w;
    in.reader = world_open_reader(&w);
    in.snap = sf_reader_borrow(in.reader, NULL);
    assert_int_equal(sf_scan_open(&in.scan, in.snap, &so, NULL), SF_OK);
    assert_int_equal(sf_writer_open(&in.writer, w.rt, PREFIX "-kept", &wo, NULL), SF_OK);
    assert_int_equal(sf_writer_open(&in.doomed, w.rt, PREFIX "-doomed", &wo, NULL), SF_OK);
    assert_int_equal(sf_shard_builder_open(&in.builder, w.rt, PREFIX "-shard", NULL, NULL), SF_OK);
    world_put_object(&w, "left-alone", sf_bytes_str("x"));
    assert_int_equal(sf_reader_get_start(&call, in.reader, &key, PATIENCE_MS, wait_for_everything, &in, NULL), SF_OK);
    gate_wait(&in.gate, 1);
    gate_leave(&in.gate);
    sf_call_release(call);
    for (unsigned i = 0; i < in.count; i++)
        if (in.got[i] != SF_INVALID)
            fail_msg("call %u: %s", i, sf_status_name(in.got[i]));
    assert_int_equal(in.count, 25);
    assert_non_null(strstr(in.error.message, "callback"));
    /* refused means that nothing was done, and that the objects are as good as before */
    assert_int_equal(sf_bucket_head(w.bucket, "never", PATIENCE_MS, &object, NULL), SF_NOT_FOUND);
    assert_int_equal(sf_bucket_head(w.bucket, "left-alone", PATIENCE_MS, &object, NULL), SF_OK);
    sf_object_release(&object);
    assert_int_equal(sf_writer_add(in.writer, &key, sf_bytes_str("v"), NULL), SF_OK);
    assert_int_equal(sf_writer_finish(in.writer, NULL), SF_OK);
    sf_writer_free(in.writer);
    sf_shard_builder_free(in.builder);
    sf_scan_close(in.scan);
    sf_snapshot_give_back(in.snap);
    sf_reader_free(in.reader);
    world_close(&w);
    expect_threads("sf-", 0);
}

/* ------------------------------------------------------------------ nothing holds up what has nothing to do with it */

static void sleeping_credential_processes_hold_up_nobody(void **state)
{
    enum { STORES = 20 };
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_s3_options s3 = SF_S3_OPTIONS_INIT;
    sf_call *calls[STORES] = {0};
    char config[64];
    sf_runtime *rt = NULL;
    sf_bucket *files = NULL;
    sf_object object = {0};

    strcpy(config, temp_file("[profile slow]\ncredential_process = sleep 300\nregion = us-east-1\n"));
    setenv("AWS_CONFIG_FILE", config, 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null", 1);
    s3.profile = "slow";
    s3.endpoint_url = "http://127.0.0.1:1";
    o.s3 = &s3;
    assert_int_equal(sf_runtime_new(&rt, NULL, NULL), SF_OK);
    assert_int_equal(sf_bucket_open(&files, rt, "file:///", NULL, NULL), SF_OK);
    for (int i = 0; i < STORES; i++)
        assert_int_equal(sf_reader_open_start(&calls[i], rt, S3_URL, &o, NULL, NULL, NULL), SF_OK);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(sf_bucket_get(files, config + 1, 1000, PATIENCE_MS, &object, NULL), SF_OK);
        sf_object_release(&object);
    }
    for (int i = 0; i < STORES; i++) {
        assert_false(sf_call_is_done(calls[i])); /* the sleep, or its deadline, is longer than all this */
        sf_call_cancel(calls[i]);
        assert_int_equal(sf_call_wait(calls[i], NULL), SF_CANCELLED);
        sf_call_release(calls[i]);
    }
    expect_threads("sf-loop", 1); /* a pool of libuv's would bear the name of the thread that started it */
    sf_bucket_close(files);
    sf_runtime_release(rt);
    expect_threads("sf-", 0);
    unlink(config);
}

/* The system's resolver, for libcurl too: this program's comes first. */
static struct gate resolving = GATE_INIT, resolved = GATE_INIT;

__attribute__((visibility("default"))) int getaddrinfo(const char *host, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **out)
{
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

    if (host && strcmp(host, "hangs.invalid") == 0) {
        gate_arrive(&resolving);
        pthread_mutex_lock(&resolved.lock);
        while (resolved.count == 0)
            pthread_cond_wait(&resolved.changed, &resolved.lock);
        pthread_mutex_unlock(&resolved.lock);
        return EAI_AGAIN;
    }
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real(host, service, hints, out);
}

static void a_name_server_that_hangs_holds_up_nobody(void **state)
{
    sf_s3_options s3 = s3_at("http://hangs.invalid");
    sf_runtime *rt = NULL;
    sf_bucket *b = NULL;
    sf_call *call = NULL;

    for (unsigned i = 0; i < 2; i++) /* cancelled; in time, which is so long that the resolver is asked */
        for (int64_t ms = i == 0 ? PATIENCE_MS : 200; gate_count(&resolving) <= i; ms *= 2) {
            assert_int_equal(sf_runtime_new(&rt, NULL, NULL), SF_OK);
            assert_int_equal(sf_bucket_open(&b, rt, S3_URL, &s3, NULL), SF_OK);
            assert_int_equal(sf_bucket_get_start(&call, b, "x", 100, ms, NULL, NULL, NULL), SF_OK);
            if (i == 0) {
                gate_wait(&resolving, 1);
                sf_call_cancel(call);
            }
            assert_int_equal(sf_call_wait(call, NULL), i == 0 ? SF_CANCELLED : SF_TIMEOUT);
            sf_call_release(call);
            sf_bucket_close(b);
            sf_runtime_release(rt);
            expect_threads("sf-file", 0);
        }
    gate_arrive(&resolved);
}

/* ------------------------------------------------------------------ descriptors ---------------------------------- */

/* In a process of its own, whose main() comes here. The exit code tells. */
static int run_self(const char *what, unsigned arg)
{
    char number[16];
    int status;
    pid_t child = fork();

    snprintf(number, sizeof(number), "%u", arg);
    if (child == 0) {
        execl("/proc/self/exe", "life_test", what, number, (char *)NULL);
        _exit(99);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

/* Nothing that one could print into, or that others would close, may be seen there at any time. Files that are only read for a
 * moment do no harm: glibc looks at /sys for the number of processors. */
static atomic_bool watching = true;

static bool is_bad(int fd)
{
    struct stat st, again;
    long flags;

    /* past the sanitizers, who take looking at a descriptor that another thread opens for a race */
    if (syscall(SYS_fstat, fd, &st) != 0 || (flags = syscall(SYS_fcntl, fd, F_GETFL)) < 0 ||
        syscall(SYS_fstat, fd, &again) != 0 || st.st_ino != again.st_ino || S_ISCHR(st.st_mode))
        return false; /* or another one meanwhile */
    return !S_ISREG(st.st_mode) || (flags & O_ACCMODE) != O_RDONLY;
}

static void *watch_standard_descriptors(void *arg)
{
    unsigned closed = *(unsigned *)arg;

    while (atomic_load(&watching)) {
        for (int fd = 0; fd < 3; fd++)
            if (closed >> fd & 1 && is_bad(fd))
                _exit(41 + fd);
        sched_yield();
    }
    return NULL;
}

static int without_standard_descriptors(unsigned closed)
{
    static const char *const endpoints[] = {"http://127.0.0.1:1", "http://localhost:1"};
    sf_writer_options wo = SF_WRITER_OPTIONS_INIT;
    char folder[] = "/tmp/shardyfusion-life-XXXXXX", url[64], command[80];
    sf_key key = sf_key_int(7);
    sf_value value = {0};
    sf_object object = {0};
    sf_reader *r = NULL;
    sf_writer *w = NULL;
    sf_runtime *rt = NULL;
    sf_bucket *b = NULL;
    pthread_t watcher;

    if (!mkdtemp(folder))
        return 10;
    for (int fd = 0; fd < 3; fd++)
        if (closed >> fd & 1)
            close(fd);
    if (pthread_create(&watcher, NULL, watch_standard_descriptors, &closed) != 0)
        return 11;
    if (sf_runtime_new(&rt, NULL, NULL) != SF_OK)
        return 12;
    snprintf(url, sizeof(url), "file://%s/snapshot", folder);
    wo.num_dbs = 2;
    wo.memory_bytes = 1 << 16; /* spills */
    wo.spill_folder = folder;
    if (sf_writer_open(&w, rt, url, &wo, NULL) != SF_OK)
        return 13;
    for (int64_t i = 0; i < 3000; i++) {
        sf_key k = sf_key_int(i);

        if (sf_writer_add(w, &k, sf_bytes_str("a value of some length, so that it spills"), NULL) != SF_OK)
            return 14;
    }
    if (sf_writer_finish(w, NULL) != SF_OK)
        return 15;
    sf_writer_free(w);
    if (sf_reader_open(&r, rt, url, NULL, NULL) != SF_OK)
        return 16;
    if (sf_reader_get(r, &key, PATIENCE_MS, &value, NULL) != SF_OK || !value.found)
        return 17;
    sf_value_release(&value);
    sf_reader_free(r);
    for (size_t i = 0; i < 2; i++) {
        sf_s3_options s3 = s3_at(endpoints[i]);

        if (sf_bucket_open(&b, rt, S3_URL, &s3, NULL) != SF_OK)
            return 18;
        if (sf_bucket_get(b, "x", 100, PATIENCE_MS, &object, NULL) != SF_UNAVAILABLE)
            return 19;
        sf_bucket_close(b);
    }
    sf_runtime_release(rt);
    atomic_store(&watching, false);
    pthread_join(watcher, NULL);
    for (int fd = 0; fd < 3; fd++)
        if ((closed >> fd & 1) != (fcntl(fd, F_GETFD) < 0))
            return 20 + fd;
    snprintf(command, sizeof(command), "rm -r %s", folder);
    return system(command) == 0 ? 0 : 30;
}

static void closed_standard_streams_stay_closed(void **state)
{
    for (unsigned closed = 0; closed < 8; closed++) {
        int code = run_self("closed", closed);

        if (code != 0)
            fail_msg("0 to 2 closed as in %u: %d", closed, code);
    }
}

static bool is_told(sf_status rc, const sf_error *e)
{
    return rc == SF_EXHAUSTED && strstr(e->message, "ulimit -n") && sf_status_is_retryable(rc);
}

static int with_few_descriptors(unsigned most)
{
    const struct rlimit limit = {most, most};
    sf_s3_options s3 = s3_at("http://localhost:1");
    sf_error e = SF_ERROR_INIT;
    sf_object object = {0};
    sf_runtime *rt = NULL;
    sf_bucket *b = NULL;
    sf_status rc;

    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 10;
    rc = sf_runtime_new(&rt, NULL, &e);
    if (rc != SF_OK)
        return is_told(rc, &e) ? 1 : 11;
    if (sf_bucket_open(&b, rt, "file:///", NULL, &e) != SF_OK)
        return 12;
    while (open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0) /* the last ones go */
        continue;
    rc = sf_bucket_get(b, "etc/passwd", 1 << 20, PATIENCE_MS, &object, &e);
    if (!is_told(rc, &e))
        return 13;
    sf_bucket_close(b);
    rc = sf_bucket_open(&b, rt, S3_URL, &s3, &e); /* looks into the shared config file */
    if (rc == SF_OK) {
        rc = sf_bucket_get(b, "x", 100, PATIENCE_MS, &object, &e);
        sf_bucket_close(b);
    }
    if (!is_told(rc, &e))
        return 15;
    sf_runtime_release(rt);
    return 0;
}

static void missing_descriptors_are_called_so(void **state)
{
    bool refused = false, worked = false;

    for (unsigned most = 4; most < 40; most++) {
        int code = run_self("few", most);

        if (code > 1)
            fail_msg("%u descriptors: %d", most, code);
        refused |= code == 1;
        worked |= code == 0;
    }
    assert_true(refused && worked);
}

/* ------------------------------------------------------------------ a library that is loaded and unloaded -------- */

static void loaded_used_and_unloaded(void **state)
{
    for (int round = 0; round < 100; round++) {
        sf_status (*make)(sf_runtime **, const sf_runtime_options *, sf_error *);
        sf_status (*open_bucket)(sf_bucket **, sf_runtime *, const char *, const sf_s3_options *, sf_error *);
        sf_status (*head)(sf_bucket *, const char *, int64_t, sf_object *, sf_error *);
        void (*close_bucket)(sf_bucket *), (*release)(sf_runtime *);
        void *lib = dlopen(SF_SHARED_LIBRARY, RTLD_NOW | RTLD_LOCAL);
        sf_runtime *rt = NULL;
        sf_bucket *b = NULL;
        sf_object o = {0};

        if (!lib)
            fail_msg("%s", dlerror());
        *(void **)&make = dlsym(lib, "sf_runtime_new");
        *(void **)&open_bucket = dlsym(lib, "sf_bucket_open");
        *(void **)&head = dlsym(lib, "sf_bucket_head");
        *(void **)&close_bucket = dlsym(lib, "sf_bucket_close");
        *(void **)&release = dlsym(lib, "sf_runtime_release");
        assert_int_equal(make(&rt, NULL, NULL), SF_OK);
        assert_int_equal(open_bucket(&b, rt, "file:///", NULL, NULL), SF_OK);
        assert_int_equal(head(b, "etc/passwd", PATIENCE_MS, &o, NULL), SF_OK);
        close_bucket(b);
        release(rt);
        assert_int_equal(dlclose(lib), 0);
    }
    expect_threads("sf-", 0);
}

/* ------------------------------------------------------------------ files of the user ---------------------------- */

struct second_bucket {
    sf_source *source;
    sf_status rc;
    sf_error error;
};

static void ask_for_second_bucket(void *arg)
{
    struct second_bucket *b = arg;
    sf_store *store;
    char *path;

    b->error = (sf_error)SF_ERROR_INIT;
    b->rc = sf__site_store(&b->source->site, SF_SITE_SHARDS, "s3://other/shards", &store, &path, &b->error);
    if (b->rc == SF_OK)
        sf__free(b->source->alloc, path);
}

/* The loop thread does not read them: what they say is known since the reader was made, also when they are gone since. */
static void a_new_bucket_reads_no_files(void **state)
{
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_s3_options s3 = SF_S3_OPTIONS_INIT;
    char file[] = "/tmp/shardyfusion-life-XXXXXX";
    int fd = mkstemp(file);
    struct second_bucket b = {0};
    sf_runtime *rt;

    (void)state;
    assert_true(fd >= 0);
    assert_true(dprintf(fd, "[profile far]\nregion = eu-north-1\n") > 0);
    close(fd);
    setenv("AWS_CONFIG_FILE", file, 1);
    s3.profile = "far";
    o.s3 = &s3;
    assert_int_equal(sf_runtime_new(&rt, NULL, NULL), SF_OK);
    assert_int_equal(sf__source_new(&b.source, rt, S3_URL, &o, NULL), SF_OK);
    unlink(file);
    on_loop(rt->loop, ask_for_second_bucket, &b);
    if (b.rc != SF_OK)
        fail_msg("%s", b.error.message);
    sf__source_release(b.source);
    /* a profile that is nowhere is told where a bucket is asked for, and not before */
    assert_int_equal(sf__source_new(&b.source, rt, "mem://no-profile/x", &o, NULL), SF_OK);
    on_loop(rt->loop, ask_for_second_bucket, &b);
    assert_int_equal(b.rc, SF_INVALID);
    assert_non_null(strstr(b.error.message, "profile \"far\""));
    sf__source_release(b.source);
    unsetenv("AWS_CONFIG_FILE");
    sf_runtime_release(rt);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_runs_after_the_last_release),
        cmocka_unit_test(a_callback_may_keep_the_runtime),
        cmocka_unit_test(released_inside_a_callback_it_ends_by_itself),
        cmocka_unit_test(blocking_calls_inside_a_callback_are_refused),
        cmocka_unit_test(sleeping_credential_processes_hold_up_nobody),
        cmocka_unit_test(a_name_server_that_hangs_holds_up_nobody),
        cmocka_unit_test(closed_standard_streams_stay_closed),
        cmocka_unit_test(a_new_bucket_reads_no_files),
        cmocka_unit_test(missing_descriptors_are_called_so),
        cmocka_unit_test(loaded_used_and_unloaded),
    };

    if (argc == 3 && strcmp(argv[1], "closed") == 0)
        _exit(without_standard_descriptors((unsigned)atoi(argv[2])));
    if (argc == 3 && strcmp(argv[1], "few") == 0)
        _exit(with_few_descriptors((unsigned)atoi(argv[2])));
    return cmocka_run_group_tests_name("life", tests, NULL, NULL);
}
