/* Copies of SQLite shards in a folder: which are taken again, which are not worth it, which go. */
#include "world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/sqlite/copies.h"
#include "backend/sqlite/copy_check.h"
#include "base/private_folder.h"
#include "backend/sqlite/shard_writer.h" /* SF_SQLITE_DB_NAME */
#include "base/clock.h"

/* One copy for one identity; what is damaged is copied again. */
static void takes_a_copy_again(void **state)
{
    struct world w;
    sf_buf *db, *other;
    struct table t;
    char path[512];
    sf_shard *s, *other_shard;
    sf_error e = SF_ERROR_INIT;
    glob_t found;
    FILE *f;

    golden_find(SF_SQLITE_DB_NAME, &found);
    db = golden_read(found.gl_pathv[0]);
    other = golden_read(found.gl_pathv[1]);
    world_init(&w);
    put_db(&w, sf__buf_bytes(db));
    table_read(&t, sf__buf_bytes(db));
    sf__shard_release(opened(&w));
    assert_int_equal(copies(&w, path), 1);
    assert_int_equal(w.faults->requests, 3); /* HEAD, GET, HEAD */

    fault_store_reset(w.faults);
    s = opened(&w);
    assert_int_equal(w.faults->requests, 1);
    assert_int_equal(w.faults->verbs[SF_STORE_HEAD], 1);
    check_look_ups("again", s, &t);
    sf__shard_release(s);

    assert_int_equal(truncate(path, 4096), 0); /* torn */
    fault_store_reset(w.faults);
    s = opened(&w);
    assert_int_equal(w.faults->verbs[SF_STORE_GET], 1);
    check_look_ups("after it was torn", s, &t);
    sf__shard_release(s);

    f = fopen(path, "r+b"); /* of the right size, but foreign */
    assert_non_null(f);
    for (size_t i = 0; i < db->n; i++)
        putc('x', f);
    fclose(f);
    fault_store_reset(w.faults);
    s = opened(&w);
    assert_int_equal(w.faults->verbs[SF_STORE_GET], 1);
    check_look_ups("after it was replaced", s, &t);
    assert_int_equal(copies(&w, path), 1);

    assert_int_equal(unlink(path), 0); /* under an open shard: it goes on */
    check_look_ups("without its file", s, &t);
    sf__shard_release(s);

    sf__shard_release(opened(&w));
    assert_int_equal(open_at(&w, "c2", &s, &e), SF_OK); /* another checkpoint, another ETag: copies of their own */
    put_db(&w, sf__buf_bytes(other));
    fault_store_reset(w.faults);
    other_shard = opened(&w);
    assert_int_equal(w.faults->verbs[SF_STORE_GET], 1);
    assert_int_equal(copies(&w, path), 2);
    check_look_ups("beside another one", s, &t);
    sf__shard_release(other_shard);
    sf__shard_release(s);
    table_free(&t);
    sf__buf_release(db);
    sf__buf_release(other);
    globfree(&found);
    world_cleanup(&w);
}

/* Whoever could put a file into the folder could answer any look-up: then there is an error, and not an answer. */
static void copies_of_others_are_not_read(void **state)
{
    struct world w;
    sf_buf *db;
    sf_error e = SF_ERROR_INIT;
    char path[512];
    struct stat st;
    glob_t found;
    sf_shard *s;

    golden_find(SF_SQLITE_DB_NAME, &found);
    db = golden_read(found.gl_pathv[0]);
    world_init(&w);
    put_db(&w, sf__buf_bytes(db));
    assert_int_equal(chmod(w.folder, 0777), 0);
    assert_int_equal(open_at(&w, "c1", &s, &e), SF_DENIED);
    assert_non_null(strstr(e.message, w.folder));
    assert_int_equal(chmod(w.folder, 0770), 0);
    assert_int_equal(open_at(&w, "c1", &s, &e), SF_DENIED);
    assert_int_equal(chmod(w.folder, 0700), 0);

    sf__shard_release(opened(&w));
    expect_copies(&w, 1, path);
    w.faults->verbs[SF_STORE_GET] = 0;
    sf__shard_release(opened(&w));
    assert_int_equal(w.faults->verbs[SF_STORE_GET], 0);
    expect_copies(&w, 1, path);
    assert_int_equal(chmod(path, 0666), 0); /* a file that others may have written */
    sf__shard_release(opened(&w));
    assert_int_equal(w.faults->verbs[SF_STORE_GET], 1);
    expect_copies(&w, 1, path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    if (geteuid() == 0) { /* nobody else may give files away */
        assert_int_equal(chown(path, 65534, 65534), 0);
        sf__shard_release(opened(&w));
        assert_int_equal(w.faults->verbs[SF_STORE_GET], 2);
        assert_int_equal(chown(w.folder, 65534, 65534), 0);
        assert_int_equal(open_at(&w, "c1", &s, &e), SF_DENIED);
        assert_int_equal(chown(w.folder, 0, 0), 0);
    }
    sf__buf_release(db);
    globfree(&found);
    world_cleanup(&w);
}

/* Snapshot after snapshot: what nobody reads goes, but for the copy that was taken last. */
static void old_copies_go(void **state)
{
    struct timespec old[2] = {{.tv_sec = time(NULL) - 2 * 3600}, {.tv_sec = time(NULL) - 2 * 3600}};
    struct world w;
    sf_buf *db;
    char path[512], dead[128], downloading[128], foreign[128];
    sf_shard *first, *second;
    glob_t found;
    int fd;

    golden_find(SF_SQLITE_DB_NAME, &found);
    db = golden_read(found.gl_pathv[0]);
    world_init(&w);
    put_db(&w, sf__buf_bytes(db));
    first = opened_at(&w, "run 1");
    second = opened_at(&w, "run 2");
    expect_copies(&w, 2, path);
    sf__shard_release(first); /* as a refresh does */
    expect_copies(&w, 1, path);
    sf__shard_release(second); /* as the end of a process does */
    fault_store_reset(w.faults);
    second = opened_at(&w, "run 2");
    assert_int_equal(w.faults->verbs[SF_STORE_GET], 0);

    first = opened_at(&w, "run 1"); /* rolled back: taken last, though it is not the newest snapshot */
    sf__shard_release(second);
    expect_copies(&w, 1, path);
    fd = open(path, O_RDONLY); /* another process reads it */
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_SH), 0);
    sf__shard_release(first);
    sf__shard_release(opened_at(&w, "run 2"));
    expect_copies(&w, 2, path);
    close(fd);

    snprintf(dead, sizeof(dead), "%s/.shardyfusion-dead00", w.folder);
    snprintf(downloading, sizeof(downloading), "%s/.shardyfusion-alive0", w.folder);
    snprintf(foreign, sizeof(foreign), "%s/readme", w.folder);
    for (unsigned i = 0; i < 3; i++) {
        const char *name = i == 0 ? dead : i == 1 ? downloading : foreign;

        fd = open(name, O_CREAT | O_WRONLY, 0600);
        assert_true(fd >= 0);
        if (i != 1)
            assert_int_equal(futimens(fd, old), 0);
        close(fd);
    }
    sf__shard_release(opened_at(&w, "run 2"));
    expect_copies(&w, 3, path); /* the last one taken, a download that goes on, what is none of ours */
    assert_int_equal(access(dead, F_OK), -1);
    assert_int_equal(access(downloading, F_OK), 0);
    assert_int_equal(access(foreign, F_OK), 0);
    sf__buf_release(db);
    globfree(&found);
    world_cleanup(&w);
}

/* Of one lineage are the copies of one shard number in all runs below one prefix. */
static void names_of_copies(void **state)
{
    static const struct {
        const char *store, *key;
        int32_t db_id;
        bool related; /* to the first */
    } cases[] = {
        {"s3://b", "p/shards/run_id=1/db=00000/attempt=00/shard.db", 0, true},
        {"s3://b", "p/shards/run_id=2/db=00000/attempt=03/shard.db", 0, true},
        {"s3://b", "p/shards/run_id=1/db=00001/attempt=00/shard.db", 1, false},
        {"s3://b", "q/shards/run_id=1/db=00000/attempt=00/shard.db", 0, false},
        {"s3://c", "p/shards/run_id=1/db=00000/attempt=00/shard.db", 0, false},
        {"s3://b", "p/shards/my_run_id=1/db=00000/attempt=00/shard.db", 0, false},
        {"s3://b", "run_id=1/shard.db", 0, false},
        {"s3://b", "run_id=1/p/shards/run_id=1/db=00000/attempt=00/shard.db", 0, false},
    };
    static const char *const datasets[] = {"run_id=1/p/run_id=1/shard.db", "run_id=1/q/run_id=1/shard.db"};
    char *of[2];
    char *first = sf__copy_name("f", cases[0].store, cases[0].key, 0, NULL, "e", &sf__allocator_default);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *name = sf__copy_name("f", cases[i].store, cases[i].key, cases[i].db_id, NULL, "e", &sf__allocator_default);

        assert_int_equal(strlen(name), 2 + 16 + 1 + 32 + 3);
        assert_int_equal(strcmp(name, first) == 0, i == 0);
        if ((strncmp(name, first, 2 + 17) == 0) != cases[i].related)
            fail_msg("%s/%s", cases[i].store, cases[i].key);
        sf__free(&sf__allocator_default, name);
    }
    sf__free(&sf__allocator_default, first);
    for (unsigned i = 0; i < 2; i++)
        of[i] = sf__copy_name("f", "s3://b", datasets[i], 0, NULL, "e", &sf__allocator_default);
    assert_int_not_equal(strncmp(of[0], of[1], 2 + 17), 0); /* the run is the last of that name, not a folder above */
    for (unsigned i = 0; i < 2; i++)
        sf__free(&sf__allocator_default, of[i]);
}

/* Of another process, which downloads the copy that is being removed here. */
struct rival {
    const char *folder, *file;
    int folder_fd;
    pthread_t thread;
    atomic_bool started, kept;
    int fd; /* holds the lock, as a reader does */
};

static struct rival *rival; /* of unlinkat() */

static void *rival_keep(void *arg)
{
    struct rival *r = arg;
    char temporary[512];

    snprintf(temporary, sizeof(temporary), "%s/.shardyfusion-rival0", r->folder);
    r->fd = open(temporary, O_CREAT | O_RDWR, 0600);
    assert_true(r->fd >= 0);
    assert_int_equal(sf__copy_keep(r->folder_fd, r->fd, strrchr(temporary, '/') + 1, r->file, NULL), SF_OK);
    atomic_store(&r->kept, true);
    return NULL;
}

/* The library's, too: at the last moment the rival comes, and is done unless something makes him wait. */
int unlinkat(int folder, const char *name, int flags)
{
    struct rival *r = rival;
    int probe;

    if (r && !atomic_exchange(&r->started, true)) {
        assert_int_equal(pthread_create(&r->thread, NULL, rival_keep, r), 0);
        probe = open(r->folder, O_RDONLY | O_DIRECTORY);
        while (!atomic_load(&r->kept) && flock(probe, LOCK_SH | LOCK_NB) == 0)
            flock(probe, LOCK_UN);
        close(probe);
    }
    return (int)syscall(SYS_unlinkat, folder, name, flags);
}

static void a_copy_of_a_name_that_is_being_removed_stays(void **state)
{
    struct timespec old[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    struct rival r = {.fd = -1};
    char folder[] = "/tmp/sf-copies-XXXXXX", command[64];
    char *names[2];
    int fd_of_folder;

    assert_non_null(mkdtemp(folder));
    assert_int_equal(sf__private_folder_open(folder, false, &fd_of_folder, NULL), SF_OK);
    assert_int_equal(sf__private_folder_open(folder, false, &r.folder_fd, NULL), SF_OK);
    for (int i = 0; i < 2; i++) {
        int fd;

        names[i] = sf__copy_name(folder, "s3://b", i ? "run_id=2/shard.db" : "run_id=1/shard.db", 0, NULL, "e",
                                 &sf__allocator_default);
        fd = open(names[i], O_CREAT | O_WRONLY, 0600);
        assert_true(fd >= 0);
        assert_int_equal(i ? 0 : futimens(fd, old), 0);
        close(fd);
    }
    r.folder = folder;
    r.file = names[0];
    rival = &r;
    sf__copies_prune(fd_of_folder, names[1], -1);
    rival = NULL;
    assert_true(atomic_load(&r.started));
    pthread_join(r.thread, NULL);
    assert_int_equal(access(names[0], F_OK), 0);
    assert_int_equal(access(names[1], F_OK), 0);
    close(r.fd);
    close(r.folder_fd);
    close(fd_of_folder);
    for (int i = 0; i < 2; i++)
        sf__free(&sf__allocator_default, names[i]);
    snprintf(command, sizeof(command), "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

/* ------------------------------------------------------------------ what was downloaded -------------------------- */

static struct {
    atomic_bool on;
    atomic_ulong bytes, fail_at; /* read; the nth read from now fails */
    atomic_int fd;               /* the last one that was read */
} reads;

/* The library's, too. SQLite's own reads go through it as well. */
ssize_t pread(int fd, void *out, size_t n, off_t off)
{
    ssize_t got;

    if (atomic_load(&reads.on) && atomic_load(&reads.fail_at) > 0 && atomic_fetch_sub(&reads.fail_at, 1) == 1) {
        errno = EIO;
        return -1;
    }
    got = syscall(SYS_pread64, fd, out, n, off);
    if (atomic_load(&reads.on) && got > 0) {
        atomic_fetch_add(&reads.bytes, (unsigned long)got);
        atomic_store(&reads.fd, fd);
    }
    return got;
}

/* What a thread reads that must not wait: while reads are counted the kernel has nothing in memory. */
ssize_t preadv2(int fd, const struct iovec *into, int count, off_t off, int flags)
{
    if (!atomic_load(&reads.on))
        return syscall(SYS_preadv2, fd, into, (unsigned long)count, (unsigned long)off, 0ul, flags);
    errno = EAGAIN;
    return -1;
}

static void reads_count(unsigned long fail_at)
{
    atomic_store(&reads.bytes, 0);
    atomic_store(&reads.fail_at, fail_at);
    atomic_store(&reads.on, true);
}

/* Two rows of a and b bytes: the file is a little longer. */
static void put_blobs(struct world *w, unsigned a, unsigned b)
{
    char sql[256];

    snprintf(sql, sizeof(sql),
             "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;"
             "INSERT INTO kv VALUES (x'61', zeroblob(%u)), (x'62', zeroblob(%u))",
             a, b);
    put_schema(w, sql);
}

static void check_blobs(const char *name, sf_shard *s, unsigned a, unsigned b)
{
    const sf_bytes keys[2] = {sf_bytes_str("a"), sf_bytes_str("b")};
    struct got g;

    get_begin(&g, s, keys, 2, SF_NO_DEADLINE);
    get_wait(&g);
    if (g.error.code != SF_OK)
        fail_msg("%s: %s", name, g.error.message);
    for (unsigned i = 0; i < 2; i++) {
        sf_bytes v = g.values[i].bytes;

        assert_int_equal(v.n, i == 0 ? a : b);
        for (size_t at = 0; at < v.n; at++)
            if (v.p[at] != 0)
                fail_msg("%s: byte %zu", name, at);
    }
    get_free(&g);
}

struct heard {
    unsigned warnings;
    char text[1024];
};

static void hear(void *ctx, sf_log_level level, const char *component, const char *message)
{
    struct heard *h = ctx;

    if (level != SF_LOG_WARN)
        return;
    h->warnings++;
    snprintf(h->text, sizeof(h->text), "%s", message);
}

#define BLOB_A (9u << 20) /* into the second piece */
#define BLOB_B 5000u

static void flip(const char *path, off_t off)
{
    int fd = open(path, O_RDWR);
    char c;

    assert_true(fd >= 0);
    if (off < 0)
        off += lseek(fd, 0, SEEK_END);
    assert_int_equal(syscall(SYS_pread64, fd, &c, 1, off), 1);
    c ^= 0x10;
    assert_int_equal(pwrite(fd, &c, 1, off), 1);
    close(fd);
}

static void flip_first_piece(const char *path)
{
    flip(path, 4 << 20);
}

static void flip_second_piece(const char *path)
{
    flip(path, (8 << 20) + 12345);
}

static void flip_record(const char *path)
{
    flip(path, -1);
}

static void flip_magic(const char *path)
{
    flip(path, -(off_t)SF_COPY_RECORD_BYTES);
}

static void cut_short(const char *path)
{
    assert_int_equal(truncate(path, 4096), 0);
}

static void without_record(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - SF_COPY_RECORD_BYTES), 0);
}

static void grown(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size + 1), 0);
}

static void all_zeros(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(truncate(path, st.st_size), 0);
}

static void a_link(const char *path)
{
    char other[600];

    snprintf(other, sizeof(other), "%s-", path);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(symlink(other, path), 0);
}

static void a_fifo(const char *path)
{
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
}

static void a_folder(const char *path)
{
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
}

/* Whatever became of it on disk, the rows are those of the object; the copy is made anew, which is logged, and has the name
 * then, unless that is a folder's, which stays. */
static void bad_copies_are_made_anew(void **state)
{
    static const struct {
        const char *name;
        void (*damage)(const char *path);
        const char *says;
        bool stays;
    } cases[] = {
        {"nothing", NULL, NULL},
        {"a bit of the first piece", flip_first_piece, "not what was downloaded"},
        {"a bit of the second piece", flip_second_piece, "not what was downloaded"},
        {"a bit of the digest", flip_record, "not what was downloaded"},
        {"a bit of the magic", flip_magic, "not what was downloaded"},
        {"cut short", cut_short, "another size"},
        {"without its record", without_record, "another size"},
        {"grown", grown, "another size"},
        {"zeros", all_zeros, "not what was downloaded"},
        {"a link", a_link, "symbolic links"},
        {"a fifo", a_fifo, "not a file"},
        {"a folder", a_folder, "not a file", true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct heard heard = {0};
        char path[512], other[600];
        struct world w;
        sf_shard *s;

        world_init(&w);
        w.env.rt->log = (sf_log){hear, &heard};
        put_blobs(&w, BLOB_A, BLOB_B);
        sf__shard_release(opened(&w));
        expect_closed(&w);
        expect_copies(&w, 1, path);
        assert_int_equal(heard.warnings, 0);
        if (cases[i].damage)
            cases[i].damage(path);
        fault_store_reset(w.faults);
        s = opened(&w);
        check_blobs(cases[i].name, s, BLOB_A, BLOB_B);
        if ((w.faults->verbs[SF_STORE_GET] > 0) != (cases[i].damage != NULL) ||
            heard.warnings != (cases[i].damage ? 1 : 0))
            fail_msg("%s: %lu GETs, %u warnings", cases[i].name, w.faults->verbs[SF_STORE_GET], heard.warnings);
        if (cases[i].says && (!strstr(heard.text, cases[i].says) || !strstr(heard.text, path)))
            fail_msg("%s: %s", cases[i].name, heard.text);
        sf__shard_release(s);
        expect_closed(&w);
        fault_store_reset(w.faults);
        s = opened(&w); /* and is as good as any */
        assert_int_equal(w.faults->verbs[SF_STORE_GET] > 0, cases[i].stays);
        check_blobs(cases[i].name, s, BLOB_A, BLOB_B);
        sf__shard_release(s);
        expect_closed(&w);
        snprintf(other, sizeof(other), "%s-", path);
        unlink(other);
        assert_int_equal(rmdir(path), cases[i].stays ? 0 : -1); /* empty: no download was left in it, nor beside it */
        world_cleanup(&w);
    }
}

/* Two good copies that have changed places. */
static void copies_know_their_names(void **state)
{
    char one[512], two[512];
    struct world w;
    sf_shard *s;

    world_init(&w);
    put_blobs(&w, 100, BLOB_B);
    sf__shard_release(opened_at(&w, "c1"));
    expect_closed(&w);
    expect_copies(&w, 1, one);
    assert_int_equal(unlink(one), 0);
    sf__shard_release(opened_at(&w, "c2"));
    expect_closed(&w);
    expect_copies(&w, 1, two);
    assert_string_not_equal(one, two);
    assert_int_equal(rename(two, one), 0);
    fault_store_reset(w.faults);
    s = opened_at(&w, "c1");
    assert_int_equal(w.faults->verbs[SF_STORE_GET], 1);
    check_blobs("another's", s, 100, BLOB_B);
    sf__shard_release(s);
    world_cleanup(&w);
}

/* A disk that cannot read it is no reason to fail while the object is there. */
static void a_copy_that_cannot_be_read_is_made_anew(void **state)
{
    for (unsigned long nth = 1; nth <= 4; nth++) { /* its record, its pieces */
        struct heard heard = {0};
        struct world w;
        sf_shard *s;

        world_init(&w);
        w.env.rt->log = (sf_log){hear, &heard};
        put_blobs(&w, 1 << 20, BLOB_B);
        sf__shard_release(opened(&w));
        fault_store_reset(w.faults);
        reads_count(nth);
        s = opened(&w);
        atomic_store(&reads.on, false);
        assert_int_equal(w.faults->verbs[SF_STORE_GET], 1);
        assert_int_equal(heard.warnings, 1);
        check_blobs("after an error", s, 1 << 20, BLOB_B);
        sf__shard_release(s);
        world_cleanup(&w);
    }
}

static void settle(const char *path)
{
    struct timespec now;
    struct stat st;

    do { /* the tick in which the file was made */
        clock_gettime(CLOCK_REALTIME, &now);
        assert_int_equal(stat(path, &st), 0);
    } while ((now.tv_sec - st.st_ctim.tv_sec) * 1000 + (now.tv_nsec - st.st_ctim.tv_nsec) / 1000000 < 30);
}

/* Of one shard a process reads at most its length, however often it is opened; then only what look-ups need. */
static void a_copy_is_read_once(void **state)
{
    unsigned long size;
    char path[512];
    struct stat st;
    struct world w;
    sf_shard *s;

    world_init(&w);
    put_blobs(&w, BLOB_A, BLOB_B);
    reads_count(0);
    s = opened(&w); /* what was downloaded just now needs no check */
    assert_true(atomic_load(&reads.bytes) < (1 << 20));
    expect_copies(&w, 1, path);
    assert_int_equal(stat(path, &st), 0);
    size = (unsigned long)st.st_size;
    settle(path);
    sf__shard_release(s);
    for (unsigned i = 0; i < 3; i++) {
        reads_count(0);
        s = opened(&w);
        if (i == 0)
            assert_true(atomic_load(&reads.bytes) >= size);
        else
            assert_true(atomic_load(&reads.bytes) < (1 << 20));
        sf__shard_release(s);
    }
    flip_second_piece(path); /* what has changed since is looked at again */
    fault_store_reset(w.faults);
    s = opened(&w);
    assert_int_equal(w.faults->verbs[SF_STORE_GET], 2);
    check_blobs("changed", s, BLOB_A, BLOB_B);
    sf__shard_release(s);
    atomic_store(&reads.on, false);
    world_cleanup(&w);
}

static void now_it_is_late(fault_store *f, sf_store_op *op)
{
    ((struct begun *)f->ctx)->op.deadline_ns = 1;
}

/* Checking ends with the deadline and when it is called back. */
static void a_check_can_be_ended(void **state)
{
    struct world w;
    struct begun b;
    char path[512];

    world_init(&w);
    put_blobs(&w, BLOB_A, BLOB_B);
    sf__shard_release(opened(&w));
    w.faults->after = now_it_is_late;
    w.faults->ctx = &b;
    open_begin_at(&b, &w, "c1", SF_NO_DEADLINE);
    gate_wait(&b.gate, 1);
    fault_store_reset(w.faults);
    assert_int_equal(b.error.code, SF_TIMEOUT);
    assert_non_null(strstr(b.error.message, "its copy on disk to be checked"));
    for (unsigned i = 0; i < 20; i++) { /* somewhere on its way */
        open_begin_at(&b, &w, "c1", SF_NO_DEADLINE);
        on_loop(w.env.rt->loop, begun_cancel, &b);
        gate_wait(&b.gate, 1);
        if (b.error.code == SF_OK)
            sf__shard_release(b.op.shard);
        else
            assert_int_equal(b.error.code, SF_CANCELLED);
    }
    expect_copies(&w, 1, path);
    world_cleanup(&w);
}

/* ------------------------------------------------------------------ one descriptor -------------------------------- */

static unsigned descriptors_of(const char *path)
{
    struct stat file, st;
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");

    assert_non_null(d);
    assert_int_equal(stat(path, &file), 0);
    for (struct dirent *e; (e = readdir(d));)
        if (fstatat(dirfd(d), e->d_name, &st, 0) == 0 && st.st_dev == file.st_dev && st.st_ino == file.st_ino)
            n++;
    closedir(d);
    return n;
}

/* Opened once: what comes to lie at its name afterwards is not read, by none of the connections. */
static void a_shard_reads_by_one_descriptor(void **state)
{
    enum { COUNT = 16 };
    const sf_bytes keys[2] = {sf_bytes_str("a"), sf_bytes_str("b")};
    struct got g[COUNT];
    char path[512];
    struct world w;
    sf_shard *s;
    int fd;

    world_init(&w);
    put_blobs(&w, 1 << 20, BLOB_B);
    s = opened(&w);
    expect_copies(&w, 1, path);
    assert_int_equal(descriptors_of(path), 1);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < COUNT; i++) /* a connection for each thread */
            get_begin(&g[i], s, keys, 2, SF_NO_DEADLINE);
        for (unsigned i = 0; i < COUNT; i++) {
            get_wait(&g[i]);
            assert_int_equal(g[i].error.code, SF_OK);
            assert_int_equal(g[i].values[0].bytes.n, 1 << 20);
            get_free(&g[i]);
        }
        if (round > 0)
            break;
        assert_int_equal(descriptors_of(path), 1);
        assert_int_equal(unlink(path), 0);
        fd = open(path, O_CREAT | O_WRONLY, 0600);
        assert_int_equal(write(fd, "planted", 7), 7);
        close(fd);
    }
    sf__shard_release(s);
    world_cleanup(&w);
}

/* What the system says of a read that fails reaches the message. */
static void a_failed_read_says_why(void **state)
{
    const sf_bytes key = sf_bytes_str("a");
    struct world w;
    struct got g;
    sf_shard *s;

    world_init(&w);
    put_blobs(&w, 1 << 20, BLOB_B);
    s = opened(&w);
    reads_count(2);
    get_begin(&g, s, &key, 1, SF_NO_DEADLINE);
    get_wait(&g);
    atomic_store(&reads.on, false);
    assert_int_equal(g.error.code, SF_IO);
    assert_non_null(strstr(g.error.message, "shard.db: read at "));
    assert_non_null(strstr(g.error.message, strerror(EIO)));
    get_free(&g);
    check_blobs("the next time", s, 1 << 20, BLOB_B);
    sf__shard_release(s);
    world_cleanup(&w);
}

/* ------------------------------------------------------------------ locks of others ------------------------------ */

/* Somebody who holds locks for ever costs the time of a download, and holds nobody up. */
static void foreign_locks_hold_nobody_up(void **state)
{
    struct heard heard = {0};
    int folder, file;
    char path[512];
    struct world w;
    sf_shard *s;

    world_init(&w);
    w.env.rt->log = (sf_log){hear, &heard};
    put_blobs(&w, 100, BLOB_B);
    folder = open(w.folder, O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(folder, LOCK_EX), 0);
    s = opened(&w); /* it gets its name all the same */
    expect_copies(&w, 1, path);
    check_blobs("in a locked folder", s, 100, BLOB_B);
    sf__shard_release(s);
    file = open(path, O_RDONLY);
    while (flock(file, LOCK_EX | LOCK_NB) != 0) /* closing ends on a worker */
        assert_int_equal(errno, EWOULDBLOCK);
    fault_store_reset(w.faults);
    s = opened(&w);
    check_blobs("beside a locked copy", s, 100, BLOB_B);
    assert_int_equal(w.faults->verbs[SF_STORE_GET], 1);
    assert_int_equal(heard.warnings, 1);
    assert_non_null(strstr(heard.text, path));
    assert_non_null(strstr(heard.text, "locked"));
    sf__shard_release(s);
    close(file);
    close(folder);
    world_cleanup(&w);
}

/* ------------------------------------------------------------------ the way to the folder ------------------------- */

/* Whoever may write to a folder above may put another one in the place of ours. */
static void folders_above_are_looked_at(void **state)
{
    static const struct {
        const char *name;
        mode_t mode;
        uid_t owner, group; /* of the folder above */
        bool link;          /* the way leads through a link of that owner */
        sf_status expected;
    } cases[] = {
        {"ours alone", 0700, 0, 0, false, SF_OK},
        {"all may read it", 0755, 0, 0, false, SF_OK},
        {"a group that we are in", 02775, 0, 0, false, SF_OK},
        {"another group", 0775, 0, 65533, false, SF_DENIED},
        {"anybody", 0777, 0, 0, false, SF_DENIED},
        {"anybody, sticky", 01777, 0, 0, false, SF_OK},
        {"another group, sticky", 01775, 0, 65533, false, SF_OK},
        {"somebody's", 0755, 65533, 0, false, SF_DENIED},
        {"somebody's, sticky", 01777, 65533, 0, false, SF_DENIED},
        {"a link of ours", 0755, 0, 0, true, SF_OK},
        {"a link of somebody's", 0755, 65533, 0, true, SF_DENIED},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool needs_root = cases[i].owner != 0 || cases[i].group != 0;
        char root[] = "/tmp/sf-above-XXXXXX", above[64], path[96], link[64], command[64];
        sf_error e = SF_ERROR_INIT;
        struct stat st;
        sf_status rc;
        int fd = -1;

        if (needs_root && geteuid() != 0)
            continue;
        assert_non_null(mkdtemp(root));
        snprintf(above, sizeof(above), "%s/above", root);
        snprintf(link, sizeof(link), "%s/link", root);
        assert_int_equal(mkdir(above, 0700), 0);
        if (cases[i].link) {
            assert_int_equal(symlink("above/../above", link), 0);
            assert_int_equal(needs_root ? lchown(link, cases[i].owner, cases[i].group) : 0, 0);
        } else {
            assert_int_equal(needs_root ? chown(above, cases[i].owner, cases[i].group) : 0, 0);
        }
        assert_int_equal(chmod(above, cases[i].mode), 0);
        snprintf(path, sizeof(path), "%s//made/./ours/", cases[i].link ? link : above);
        rc = sf__private_folder_open(path, true, &fd, &e);
        if (rc != cases[i].expected)
            fail_msg("%s: %s %s", cases[i].name, sf_status_name(rc), e.message);
        if (rc == SF_OK) {
            assert_int_equal(fstat(fd, &st), 0);
            assert_int_equal(st.st_mode & 0777, 0700);
            close(fd);
        } else if (!strstr(e.message, cases[i].link ? link : above)) {
            fail_msg("%s: %s", cases[i].name, e.message);
        }
        snprintf(command, sizeof(command), "rm -r '%s'", root);
        assert_int_equal(system(command), 0);
    }
}

/* In a mount namespace of its own: 0 right, 1 wrong, 2 the machine has none for us. */
static int look_at_a_volume(const char *at)
{
    char path[128], below[128];
    sf_error e = SF_ERROR_INIT;
    int fd;

    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", at, "tmpfs", 0, "mode=0777") != 0)
        return 2;
    snprintf(path, sizeof(path), "%s/copies", at);
    snprintf(below, sizeof(below), "%s/below", at);
    if (sf__private_folder_open(path, true, &fd, &e) != SF_OK)
        return 1;
    close(fd);
    if (mkdir(below, 0700) != 0 || chmod(below, 0777) != 0)
        return 1;
    strcat(below, "/copies");
    if (sf__private_folder_open(below, true, &fd, &e) != SF_DENIED)
        return 1;
    return sf__private_folder_open(at, true, &fd, &e) == SF_DENIED ? 0
                                                                   : 1; /* the folder of copies itself is not excepted */
}

/* Volumes of containers are writable for all. */
static void a_volume_may_be_above(void **state)
{
    char at[] = "/tmp/sf-volume-XXXXXX";
    int status;
    pid_t child;

    assert_non_null(mkdtemp(at));
    child = fork();
    if (child == 0)
        _exit(look_at_a_volume(at));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(rmdir(at), 0);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 2)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* As somebody who may not use it. 0: the message says so. */
static int look_at_a_closed_folder(const char *path)
{
    sf_error e = SF_ERROR_INIT;
    int fd;

    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        return 2;
    if (sf__private_folder_open(path, true, &fd, &e) != SF_DENIED)
        return 1;
    return strstr(e.message, "is closed to user ") && strstr(e.message, "local_root") ? 0 : 1;
}

/* Of root, who is trusted, or without the right to write: the folder in the way is named, its owner, and what to do. */
static void a_closed_folder_is_named(void **state)
{
    static const struct {
        const char *below; /* what is to be opened */
        mode_t mode;
    } cases[] = {{"/sqlite", 0500}, {"/sqlite", 0555}, {"", 0300}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char at[] = "/tmp/sf-closed-XXXXXX", path[64];
        int status;
        pid_t child;

        assert_non_null(mkdtemp(at));
        snprintf(path, sizeof(path), "%s%s", at, cases[i].below);
        assert_int_equal(chmod(at, cases[i].mode), 0);
        child = fork();
        if (child == 0)
            _exit(look_at_a_closed_folder(path));
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(rmdir(at), 0);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 2)
            skip();
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

/* A reader gets the message. */
static void a_folder_that_others_may_replace_is_refused(void **state)
{
    sf_error e = SF_ERROR_INIT;
    char above[sizeof(((struct world *)0)->folder)];
    struct world w;
    sf_shard *s;

    world_init(&w);
    put_blobs(&w, 100, BLOB_B);
    memcpy(above, w.folder, sizeof(above));
    assert_int_equal(chmod(above, 0777), 0);
    strcat(w.folder, "/sqlite");
    assert_int_equal(open_at(&w, "c1", &s, &e), SF_DENIED);
    assert_non_null(strstr(e.message, "others may replace what lies in the folder"));
    assert_non_null(strstr(e.message, above));
    assert_int_equal(access(w.folder, F_OK), -1);
    assert_int_equal(chmod(above, 01777), 0);
    sf__shard_release(opened(&w));
    memcpy(w.folder, above, sizeof(above));
    world_cleanup(&w);
}

static void odd_ways_to_a_folder(void **state)
{
    static const struct {
        const char *path;
        sf_status expected;
        const char *says;
    } cases[] = {
        {"/dev/null/x", SF_IO, "/dev/null: Not a directory"},
        {"/dev/null", SF_IO, "/dev/null: Not a directory"},
        {"/proc/self/nothing", SF_IO, "/nothing"},
        {"loop/x", SF_IO, "Too many levels of symbolic links"},
        {"here/../here", SF_OK, NULL},
        {"here", SF_OK, NULL},
    };
    char root[] = "/tmp/sf-odd-XXXXXX", back[4096], command[64], *deep = malloc(6000);
    sf_error e = SF_ERROR_INIT;
    int fd;

    assert_non_null(deep);
    assert_non_null(getcwd(back, sizeof(back)));
    assert_non_null(mkdtemp(root));
    assert_int_equal(chdir(root), 0);
    assert_int_equal(symlink("loop", "loop"), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_status rc = sf__private_folder_open(cases[i].path, true, &fd, &e);

        if (rc != cases[i].expected || (cases[i].says && !strstr(e.message, cases[i].says)))
            fail_msg("%s: %s %s", cases[i].path, sf_status_name(rc), e.message);
        if (rc == SF_OK)
            close(fd);
    }
    assert_int_equal(sf__private_folder_open("missing", false, &fd, &e), SF_IO);
    memset(deep, 'x', 5999);
    deep[5999] = '\0';
    assert_int_equal(sf__private_folder_open(deep, true, &fd, &e), SF_IO); /* one long name, then a long way */
    deep[300] = '\0';
    assert_int_equal(sf__private_folder_open(deep, true, &fd, &e), SF_IO);
    free(deep);
    assert_int_equal(chdir(back), 0);
    snprintf(command, sizeof(command), "rm -r '%s'", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_a_copy_again),
        cmocka_unit_test(old_copies_go),
        cmocka_unit_test(copies_of_others_are_not_read),
        cmocka_unit_test(names_of_copies),
        cmocka_unit_test(a_copy_of_a_name_that_is_being_removed_stays),
        cmocka_unit_test(bad_copies_are_made_anew),
        cmocka_unit_test(copies_know_their_names),
        cmocka_unit_test(a_copy_that_cannot_be_read_is_made_anew),
        cmocka_unit_test(a_copy_is_read_once),
        cmocka_unit_test(a_check_can_be_ended),
        cmocka_unit_test(a_shard_reads_by_one_descriptor),
        cmocka_unit_test(a_failed_read_says_why),
        cmocka_unit_test(foreign_locks_hold_nobody_up),
        cmocka_unit_test(folders_above_are_looked_at),
        cmocka_unit_test(a_volume_may_be_above),
        cmocka_unit_test(a_closed_folder_is_named),
        cmocka_unit_test(a_folder_that_others_may_replace_is_refused),
        cmocka_unit_test(odd_ways_to_a_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
