/* Extents on disk: what comes out is what was put in, or nothing, whatever happened to the folder. Writes pass through this file, so
 * that they can be cut short, refused, or be the last thing that a process does. */
#include "../net/on_loop.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../support/heap.h"
#include "base/error.h"
#include "cache/fetch.h"

#define CACHE_BYTES SF_DISK_CACHE_MIN_BYTES
#define EXTENT_BYTES 3000u

/* ------------------------------------------------------------------ writes --------------------------------------- */

static enum { WRITES_GO, KILL_BEFORE, KILL_HALFWAY, KILL_AFTER, DISK_FULL } fate;
static atomic_int writes_left; /* before that */

static bool is_due(void)
{
    return fate != WRITES_GO && atomic_fetch_sub(&writes_left, 1) <= 0;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t off)
{
    bool due = is_due();
    struct iovec half = {v[0].iov_base, v[0].iov_len / 2};

    if (due && fate == DISK_FULL) {
        errno = ENOSPC;
        return -1;
    }
    if (due && fate == KILL_BEFORE)
        die();
    if (due && fate == KILL_HALFWAY) { /* of the head, and of what follows: the end is missing */
        if (n > 1)
            half = (struct iovec){v[0].iov_base, v[0].iov_len};
        syscall(SYS_pwritev, fd, &half, 1, off, 0);
        die();
    }
    ssize_t put = syscall(SYS_pwritev, fd, v, n, off, 0);
    if (due && fate == KILL_AFTER)
        die();
    return put;
}

int ftruncate(int fd, off_t n)
{
    bool due = is_due();
    int rc;

    if (due && fate != DISK_FULL && fate != KILL_AFTER)
        die();
    rc = (int)syscall(SYS_ftruncate, fd, n);
    if (due && fate == KILL_AFTER)
        die();
    return rc;
}

/* ------------------------------------------------------------------ the world ------------------------------------ */

struct world {
    struct test_heap heap;
    sf_loop *loop;
    sf_disk_caches all;
    sf_disk_cache *cache;
    /* of the step being run on the loop */
    unsigned which, parts;
    sf_disk_read read;
    uint64_t cuts[9];
    bool ended;
    struct gate gate;
};

static char folder[64];

static void folder_make(void)
{
    snprintf(folder, sizeof(folder), "/tmp/disk-cache-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static void each_file(void (*fn)(const char *path))
{
    DIR *d = opendir(folder);

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];

        snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        if (e->d_name[0] != '.')
            fn(path);
    }
    closedir(d);
}

static void file_remove(const char *path)
{
    if (unlink(path) != 0)
        rmdir(path);
}

static void folder_remove(void)
{
    each_file(file_remove);
    assert_int_equal(rmdir(folder), 0);
}

static void begin(struct world *w)
{
    sf_error e = SF_ERROR_INIT;

    *w = (struct world){0};
    heap_init(&w->heap);
    assert_int_equal(sf__loop_new(&w->loop, &w->heap.alloc, NULL), SF_OK);
    sf__disk_caches_init(&w->all);
    if (sf__disk_cache_open(&w->cache, folder, CACHE_BYTES, w->loop, &w->all, &w->heap.alloc, &e) != SF_OK)
        fail_msg("%s", e.message);
}

static void nothing(void *arg) {}

/* Until nothing is written or read any more. */
static void settle(struct world *w)
{
    do {
        on_loop(w->loop, nothing, NULL);
        sched_yield();
    } while (atomic_load(&w->all.jobs) > 0);
}

static void end(struct world *w)
{
    settle(w);
    sf__disk_cache_release(w->cache);
    sf__disk_caches_cleanup(&w->all);
    sf__loop_free(w->loop);
    assert_int_equal(atomic_load(&w->heap.live), 0);
}

/* Extent i is of EXTENT_BYTES, and different everywhere. */
static void fill(uint8_t *p, unsigned i)
{
    for (size_t k = 0; k < EXTENT_BYTES; k++)
        p[k] = (uint8_t)((k >> 8) + 31 * k + 7 * i + (i >> 8));
}

static void cuts_of(struct world *w)
{
    for (unsigned i = 0; i <= w->parts; i++)
        w->cuts[i] = (uint64_t)(w->which + i) * EXTENT_BYTES;
}

static const sf_hash128 object = {1, 2};

static void keep_on_loop(void *arg)
{
    struct world *w = arg;
    sf_buf *data = sf__buf_new(&w->heap.alloc, (size_t)w->parts * EXTENT_BYTES);

    if (!data)
        return;
    for (unsigned i = 0; i < w->parts; i++)
        fill(data->data + (size_t)i * EXTENT_BYTES, w->which + i);
    cuts_of(w);
    sf__disk_cache_keep(w->cache, object, w->cuts, NULL, w->parts, data);
    sf__buf_release(data);
}

static void keep(struct world *w, unsigned first, unsigned parts)
{
    w->which = first;
    w->parts = parts;
    on_loop(w->loop, keep_on_loop, w);
}

static void read_done(sf_disk_read *r)
{
    gate_arrive(&((struct world *)((char *)r - offsetof(struct world, read)))->gate);
}

static void read_on_loop(void *arg)
{
    struct world *w = arg;

    cuts_of(w);
    w->read = (sf_disk_read){.object = object, .cuts = w->cuts, .part_count = w->parts, .done = read_done};
    w->ended = sf__disk_cache_read(w->cache, &w->read);
}

/* Whether they are there: if so, they are right. */
static bool has(struct world *w, unsigned first, unsigned parts)
{
    uint8_t right[EXTENT_BYTES];
    bool found;

    w->which = first;
    w->parts = parts;
    w->gate = (struct gate)GATE_INIT;
    on_loop(w->loop, read_on_loop, w);
    if (!w->ended)
        gate_wait(&w->gate, 1);
    settle(w);
    found = w->read.data;
    for (unsigned i = 0; found && i < parts; i++) {
        fill(right, first + i);
        assert_int_equal(w->read.data->n, (size_t)parts * EXTENT_BYTES);
        assert_memory_equal(w->read.data->data + (size_t)i * EXTENT_BYTES, right, EXTENT_BYTES);
    }
    sf__buf_release(w->read.data);
    return found;
}

static unsigned count_of(struct world *w, unsigned n)
{
    unsigned found = 0;

    for (unsigned i = 0; i < n; i++)
        found += has(w, i, 1);
    return found;
}

/* ------------------------------------------------------------------ tests ---------------------------------------- */

static void kept_for_the_next(void **state)
{
    struct world w;
    sf_disk_cache_stats stats;

    folder_make();
    begin(&w);
    assert_false(has(&w, 0, 1));
    keep(&w, 0, 3);
    keep(&w, 5, 1);
    settle(&w);
    assert_true(has(&w, 0, 3));
    assert_true(has(&w, 1, 1));  /* each by itself */
    assert_false(has(&w, 2, 2)); /* all or nothing */
    assert_false(has(&w, 4, 1));
    end(&w);
    begin(&w); /* the next process */
    assert_true(has(&w, 0, 3));
    assert_true(has(&w, 5, 1));
    keep(&w, 6, 1); /* into the same file */
    settle(&w);
    sf__disk_cache_get_stats(w.cache, &stats);
    assert_int_equal(stats.hits, 4);
    assert_int_equal(stats.bytes_read, 4 * EXTENT_BYTES);
    assert_int_equal(stats.bytes_written, EXTENT_BYTES);
    assert_int_equal(stats.dropped, 0);
    end(&w);
    begin(&w);
    assert_true(has(&w, 5, 2));
    end(&w);
    folder_remove();
}

static void keep_and_read_on_loop(void *arg)
{
    keep_on_loop(arg);
    read_on_loop(arg);
}

/* What is kept before anybody has read: the folder is looked at once, by one job at a time. */
static void kept_before_the_first_read(void **state)
{
    struct world w;

    folder_make();
    begin(&w);
    w.which = 0;
    w.parts = 3;
    w.gate = (struct gate)GATE_INIT;
    on_loop(w.loop, keep_and_read_on_loop, &w);
    assert_false(w.ended);
    gate_wait(&w.gate, 1);
    settle(&w);
    assert_non_null(w.read.data); /* it is behind what was kept */
    sf__buf_release(w.read.data);
    assert_true(has(&w, 0, 3));
    end(&w);
    folder_remove();
}

static void forgotten_is_gone(void **state)
{
    struct world w;

    folder_make();
    begin(&w);
    keep(&w, 0, 2);
    settle(&w);
    w.which = 0;
    w.parts = 1;
    cuts_of(&w);
    sf__disk_cache_forget(w.cache, object, w.cuts, 1);
    assert_false(has(&w, 0, 1));
    assert_true(has(&w, 1, 1));
    keep(&w, 0, 1);
    settle(&w);
    assert_true(has(&w, 0, 1));
    end(&w);
    folder_remove();
}

static uint64_t folder_bytes, folder_files;

static void add_bytes(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    folder_bytes += (uint64_t)st.st_size;
    folder_files++;
}

/* What is new pushes out what is old; what is asked for stays. */
static void bounded(void **state)
{
    const unsigned many = 3 * CACHE_BYTES / EXTENT_BYTES;
    struct world w;

    folder_make();
    begin(&w);
    keep(&w, 0, 1);
    for (unsigned i = 1; i < many; i++) {
        keep(&w, i, 1);
        if (i % 16 == 0) {
            w.which = 0;
            w.parts = 1;
            settle(&w);
            folder_bytes = folder_files = 0;
            each_file(add_bytes);
            assert_true(folder_bytes <= CACHE_BYTES);
        }
    }
    settle(&w);
    assert_true(has(&w, many - 1, 1));
    assert_false(has(&w, 0, 1));
    assert_in_range(count_of(&w, many), CACHE_BYTES / EXTENT_BYTES / 2, CACHE_BYTES / EXTENT_BYTES);
    end(&w);
    folder_remove();
}

/* A file's bytes, and one place in it that is changed. */
static char the_file[512];

static void note_file(const char *path)
{
    snprintf(the_file, sizeof(the_file), "%s", path);
}

static void flip(off_t at)
{
    int fd = open(the_file, O_RDWR);
    uint8_t byte;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void damage_is_a_miss(void **state)
{
    const off_t first = (off_t)(64 + CACHE_BYTES / 16 / 1024 * 32); /* extent */
    const struct {
        const char *name;
        off_t at;
        unsigned found; /* of three */
    } cases[] = {
        {"magic", 0, 0},
        {"version", 8, 0},
        {"slots", 12, 0},
        {"bytes", 17, 0},
        {"salt", 24, 0},
        {"header's check", 63, 0},
        {"first slot's name", 64, 0},
        {"first slot's place", 72, 0},
        {"first slot's check", 95, 0},
        {"second slot", 64 + 32, 1},
        {"third slot's length", 64 + 64 + 12, 2},
        {"head's object", first, 2},
        {"head's offset", first + 16, 2},
        {"head's length", first + 24, 2},
        {"head's hash", first + 32, 2},
        {"head's check", first + 60, 2},
        {"first byte", first + 64, 2},
        {"last byte", first + 64 + EXTENT_BYTES - 1, 2},
        {"padding", first + 64 + EXTENT_BYTES, 3},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        unsigned found;

        folder_make();
        begin(&w);
        keep(&w, 0, 3);
        end(&w);
        each_file(note_file);
        flip(cases[i].at);
        begin(&w);
        found = count_of(&w, 3);
        if (found != cases[i].found)
            fail_msg("%s: %u of 3 found, not %u", cases[i].name, found, cases[i].found);
        keep(&w, 0, 3); /* and goes on */
        settle(&w);
        assert_int_equal(count_of(&w, 3), 3);
        end(&w);
        begin(&w);
        assert_int_equal(count_of(&w, 3), 3);
        end(&w);
        folder_remove();
    }
}

static void file_empty(const char *path)
{
    assert_int_equal(truncate(path, 0), 0);
}

static void torn_files_are_a_miss(void **state)
{
    static const off_t sizes[] = {0, 1, 63, 64, 100, 4000, 6000, 20000, 1 << 20};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct world w;

        folder_make();
        begin(&w);
        keep(&w, 0, 3);
        end(&w);
        each_file(note_file);
        assert_int_equal(truncate(the_file, sizes[i]), 0);
        begin(&w);
        assert_int_equal(count_of(&w, 3), 0);
        keep(&w, 0, 3);
        settle(&w);
        assert_int_equal(count_of(&w, 3), 3);
        each_file(file_empty); /* while they are in use */
        assert_int_equal(count_of(&w, 3), 0);
        end(&w);
        folder_remove();
    }
}

/* A process ends at its nth write, before, in the middle of or behind it. */
static void killed_at_every_write(void **state)
{
    for (int how = KILL_BEFORE; how <= KILL_AFTER; how++) {
        for (int nth = 0;; nth++) {
            struct world w;
            unsigned found;
            int status;
            pid_t child;

            folder_make();
            begin(&w); /* somebody was here before */
            keep(&w, 0, 2);
            end(&w);
            child = fork();
            assert_true(child >= 0);
            if (child == 0) {
                begin(&w);
                fate = how;
                atomic_store(&writes_left, nth);
                for (unsigned i = 2; i < 40; i += 2) { /* two files' worth */
                    keep(&w, i, 2);
                    settle(&w);
                }
                _exit(0);
            }
            assert_int_equal(waitpid(child, &status, 0), child);
            begin(&w);
            found = count_of(&w, 40);
            assert_true(found >= 2 && (int)found >= nth / 2 - 4);
            keep(&w, 0, 8);
            settle(&w);
            assert_true(has(&w, 0, 8));
            end(&w);
            folder_remove();
            if (WIFEXITED(status)) { /* untouched to the end */
                assert_int_equal(WEXITSTATUS(status), 0);
                assert_int_equal(found, 40);
                assert_true(nth > 70);
                break;
            }
            assert_int_equal(WTERMSIG(status), SIGKILL);
            if (nth > 8 && nth < 60)
                nth += 4; /* more of the same */
        }
    }
}

static void full_disk(void **state)
{
    for (int nth = 0; nth < 8; nth++) {
        struct world w;
        sf_disk_cache_stats stats;

        folder_make();
        fate = DISK_FULL;
        atomic_store(&writes_left, nth);
        begin(&w);
        for (unsigned i = 0; i < 8; i++) {
            keep(&w, i, 1);
            settle(&w);
        }
        count_of(&w, 8);
        sf__disk_cache_get_stats(w.cache, &stats);
        assert_true(stats.dropped > 0);
        end(&w);
        fate = WRITES_GO;
        begin(&w);
        keep(&w, 0, 8);
        settle(&w);
        assert_true(has(&w, 0, 8));
        end(&w);
        folder_remove();
    }
}

#define MANY_BYTES (8u << 20)

static void keep_many_on_loop(void *arg)
{
    struct world *w = arg;

    for (unsigned i = 0; i < 6; i++) {
        const uint64_t cuts[] = {(uint64_t)i * MANY_BYTES, (uint64_t)(i + 1) * MANY_BYTES};
        sf_buf *data = sf__buf_new(&w->heap.alloc, MANY_BYTES);

        assert_non_null(data);
        sf__disk_cache_keep(w->cache, object, cuts, NULL, 1, data);
        sf__buf_release(data);
        assert_true(sf__disk_cache_backlog(w->cache) <= 32u << 20);
    }
}

/* What is being written is memory, too. */
static void what_waits_is_bounded(void **state)
{
    struct world w;
    sf_disk_cache_stats stats;

    folder_make();
    begin(&w);
    on_loop(w.loop, keep_many_on_loop, &w);
    settle(&w);
    sf__disk_cache_get_stats(w.cache, &stats);
    assert_int_equal(stats.dropped, 2);
    end(&w);
    folder_remove();
}

/* A forked child that stays has the file's descriptor, and so its lock: the next one goes on with the file all the same. */
static void a_child_keeps_no_file(void **state)
{
    struct world w;
    int ends[2], status;
    char byte;
    pid_t child;

    folder_make();
    begin(&w);
    keep(&w, 0, 1);
    settle(&w);
    assert_int_equal(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        close(ends[1]);
        _exit(read(ends[0], &byte, 1) != 0); /* until the test ends */
    }
    assert_true(child > 0);
    close(ends[0]);
    end(&w);
    begin(&w);
    keep(&w, 1, 1);
    settle(&w);
    assert_int_equal(count_of(&w, 2), 2);
    end(&w);
    folder_files = 0;
    each_file(add_bytes);
    assert_int_equal(folder_files, 1);
    close(ends[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    folder_remove();
}

static void two_at_once(void **state)
{
    struct world a, b;

    folder_make();
    begin(&a);
    begin(&b);
    for (unsigned i = 0; i < 8; i++)
        keep(i % 2 ? &a : &b, i, 1);
    settle(&a);
    settle(&b);
    for (unsigned i = 0; i < 8; i++)
        assert_true(has(i % 2 ? &a : &b, i, 1));
    folder_bytes = folder_files = 0;
    each_file(add_bytes);
    assert_int_equal(folder_files, 2); /* each its own */
    end(&a);
    begin(&a);
    assert_int_equal(count_of(&a, 8), 8);
    end(&b);
    end(&a);
    folder_remove();
}

/* Of one process: what one has kept, and where it lies, the other knows, too. */
static void two_of_one_folder_are_one(void **state)
{
    struct world w;
    sf_disk_cache *again, *larger;
    char other_name[128];

    folder_make();
    begin(&w);
    snprintf(other_name, sizeof(other_name), "%s/../%s", folder, strrchr(folder, '/') + 1);
    assert_int_equal(sf__disk_cache_open(&again, other_name, CACHE_BYTES, w.loop, &w.all, &w.heap.alloc, NULL), SF_OK);
    assert_ptr_equal(again, w.cache);
    assert_int_equal(sf__disk_cache_open(&larger, folder, 2 * CACHE_BYTES, w.loop, &w.all, &w.heap.alloc, NULL), SF_OK);
    assert_ptr_not_equal(larger, w.cache); /* it bounds the folder in another way */
    sf__disk_cache_release(larger);
    keep(&w, 0, 1);
    settle(&w);
    sf__disk_cache_release(w.cache);
    w.cache = again;
    assert_true(has(&w, 0, 1));
    end(&w);
    folder_remove();
}

static void folders_of_others(void **state)
{
    struct world w;
    sf_disk_cache *c;
    sf_error e = SF_ERROR_INIT;

    folder_make();
    begin(&w);
    keep(&w, 0, 1);
    settle(&w);
    assert_int_equal(chmod(folder, 0777), 0);
    assert_int_equal(sf__disk_cache_open(&c, folder, CACHE_BYTES, w.loop, &w.all, &w.heap.alloc, &e), SF_DENIED);
    assert_int_equal(chmod(folder, 0700), 0);
    assert_int_equal(sf__disk_cache_open(&c, folder, CACHE_BYTES - 1, w.loop, &w.all, &w.heap.alloc, &e), SF_INVALID);
    assert_int_equal(sf__disk_cache_open(&c, folder, SF_DISK_CACHE_MAX_BYTES + 1, w.loop, &w.all, &w.heap.alloc, &e),
                     SF_INVALID);
    end(&w);
    each_file(note_file);
    assert_int_equal(chmod(the_file, 0666), 0); /* others could have written it */
    begin(&w);
    assert_false(has(&w, 0, 1));
    keep(&w, 0, 1);
    settle(&w);
    assert_true(has(&w, 0, 1));
    end(&w);
    folder_remove();
}

/* Odd things that lie there are no files of ours; those of another version go when there is no room. */
static void odd_folders(void **state)
{
    static const char *const names[] = {"0123456789ab.extents.old", "0123456789AB.extents", "123.extents", "notes.txt"};
    struct world w;
    char path[512];
    struct stat st;

    folder_make();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        close(open(path, O_CREAT | O_WRONLY, 0600));
    }
    snprintf(path, sizeof(path), "%s/%s", folder, "000000000007.extents");
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/%s", folder, "000000000005.extents");
    assert_int_equal(symlink("/etc/passwd", path), 0);
    snprintf(path, sizeof(path), "%s/%s", folder, "000000000001.extents");
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(truncate(path, CACHE_BYTES), 0); /* of a version to come, say */
    begin(&w);
    assert_false(has(&w, 0, 1));
    keep(&w, 0, 1);
    settle(&w);
    assert_true(has(&w, 0, 1));
    assert_int_equal(stat(path, &st), -1);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        assert_int_equal(stat(path, &st), 0);
    }
    end(&w);
    folder_remove();
}

/* Numbers end: a file of the last one does not end the writing. */
static void the_last_number(void **state)
{
    struct world w;
    char path[512];

    folder_make();
    snprintf(path, sizeof(path), "%s/%s", folder, "ffffffffffff.extents");
    close(open(path, O_CREAT | O_WRONLY, 0600));
    for (unsigned i = 0; i < 2; i++) {
        begin(&w);
        assert_int_equal(has(&w, 0, 1), i > 0);
        assert_false(has(&w, 0, 2 + i));
        keep(&w, 0, 1);
        keep(&w, 0, 2 + i);
        settle(&w);
        assert_true(has(&w, 0, 1) && has(&w, 0, 2 + i));
        end(&w);
    }
    folder_remove();
}

/* Without memory it is a miss. */
static void no_memory(void **state)
{
    bool fired = true;

    for (long nth = 0; fired; nth++) {
        struct world w;

        folder_make();
        begin(&w);
        keep(&w, 0, 2);
        end(&w);
        begin(&w);
        heap_arm(&w.heap, nth);
        has(&w, 0, 2);
        keep(&w, 2, 2);
        settle(&w);
        has(&w, 2, 2);
        fired = heap_disarm(&w.heap);
        assert_true(fired || (has(&w, 0, 2) && has(&w, 2, 2)));
        end(&w);
        folder_remove();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_for_the_next),     cmocka_unit_test(kept_before_the_first_read),
        cmocka_unit_test(forgotten_is_gone),     cmocka_unit_test(bounded),
        cmocka_unit_test(damage_is_a_miss),      cmocka_unit_test(torn_files_are_a_miss),
        cmocka_unit_test(killed_at_every_write), cmocka_unit_test(full_disk),
        cmocka_unit_test(what_waits_is_bounded), cmocka_unit_test(a_child_keeps_no_file),
        cmocka_unit_test(two_at_once),           cmocka_unit_test(two_of_one_folder_are_one),
        cmocka_unit_test(folders_of_others),     cmocka_unit_test(odd_folders),
        cmocka_unit_test(the_last_number),       cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
