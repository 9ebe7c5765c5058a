/* Blocks in files that processes map: what is mapped is what was written, or nothing, whatever happened to the folder. Writes pass through this
 * file, so that they can be refused, or be the last thing that a process does. */
#include "../net/on_loop.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../support/heap.h"
#include "base/error.h"
#include "base/pin.h"
#include "cache/block_cache.h"
#include "cache/image.h"
#include "cache/image_folder.h"

#define BLOCKS 40u
#define FRONT 8u

/* ------------------------------------------------------------------ writes --------------------------------------- */

static enum { WRITES_GO, KILL_BEFORE, KILL_HALFWAY, DISK_FULL, DISK_LOSES } fate;
static atomic_int writes_left; /* before that */

ssize_t pwrite(int fd, const void *p, size_t n, off_t off)
{
    bool due = fate != WRITES_GO && fate != DISK_LOSES && atomic_fetch_sub(&writes_left, 1) <= 0;

    if (due && fate == DISK_FULL) {
        errno = ENOSPC;
        return -1;
    }
    if (due && fate == KILL_HALFWAY)
        syscall(SYS_pwrite64, fd, p, n / 2, off);
    if (due) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    return syscall(SYS_pwrite64, fd, p, n, off);
}

int fdatasync(int fd)
{
    (void)fd;
    errno = EIO;
    return fate == DISK_LOSES ? -1 : 0;
}

/* ------------------------------------------------------------------ the world ------------------------------------ */

struct world {
    struct test_heap heap;
    sf_loop *loop;
    sf_disk_caches all;
    sf_disk_cache *cache;
    unsigned seed; /* of what is in the blocks */
    bool lacks;    /* a block */
    uint32_t block_bytes;
};

static char folder[64];
static uint64_t cache_bytes = SF_DISK_CACHE_MIN_BYTES;

static void begin(struct world *w)
{
    sf_error e = SF_ERROR_INIT;

    *w = (struct world){.block_bytes = 1000};
    heap_init(&w->heap);
    assert_int_equal(sf__loop_new(&w->loop, &w->heap.alloc, NULL), SF_OK);
    sf__disk_caches_init(&w->all);
    if (sf__disk_cache_open(&w->cache, folder, cache_bytes, w->loop, &w->all, &w->heap.alloc, &e) != SF_OK)
        fail_msg("%s", e.message);
}

static void end(struct world *w)
{
    sf__disk_cache_release(w->cache);
    sf__disk_caches_cleanup(&w->all);
    sf__loop_free(w->loop);
    assert_int_equal(atomic_load(&w->heap.live), 0);
}

static void folder_make(void)
{
    snprintf(folder, sizeof(folder), "/tmp/image-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

/* How many there are whose names end so. */
static unsigned files(const char *suffix, bool remove)
{
    DIR *d = opendir(folder);
    unsigned n = 0;

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name), tail = strlen(suffix);

        if (e->d_name[0] == '.' || len < tail || strcmp(e->d_name + len - tail, suffix) != 0)
            continue;
        n++;
        if (remove)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
    return n;
}

static void folder_remove(void)
{
    files("", true);
    assert_int_equal(rmdir(folder), 0);
}

/* Block i: what stands in front is made of the content. Lengths differ, one is of one byte. */
static uint32_t len_of(const struct world *w, uint32_t i)
{
    return i == 3 ? 1 : w->block_bytes + 7 * i;
}

static uint8_t byte_of(const struct world *w, uint32_t i, size_t k)
{
    return (uint8_t)(31 * k + (size_t)7 * i + w->seed + (k >> 8));
}

static void front_of(const uint8_t *content, size_t n, uint8_t out[FRONT])
{
    uint64_t sum = n;

    for (size_t k = 0; k < n; k++)
        sum = sum * 31 + content[k];
    memcpy(out, &sum, FRONT);
}

static sf_buf *get(void *ctx, uint32_t i)
{
    struct world *w = ctx;
    sf_buf *b = w->lacks && i == BLOCKS / 2 ? NULL : sf__buf_new(&w->heap.alloc, FRONT + len_of(w, i));

    if (!b)
        return NULL;
    b->front = FRONT;
    b->n = len_of(w, i);
    for (size_t k = 0; k < b->n; k++)
        b->data[FRONT + k] = byte_of(w, i, k);
    front_of(b->data + FRONT, b->n, b->data);
    return b;
}

static bool holds(void *ctx, uint32_t i, const sf_buf *b)
{
    uint8_t front[FRONT];

    if (b->front != FRONT || b->n == 0)
        return false;
    front_of(b->data + FRONT, b->n, front);
    return memcmp(front, b->data, FRONT) == 0;
}

static sf_image image_of(struct world *w, uint64_t which)
{
    return (sf_image){.cache = w->cache,
                      .object = {7, which},
                      .blocks = BLOCKS,
                      .since_us = INT64_MAX,
                      .deadline_ns = SF_NO_DEADLINE,
                      .holds = holds,
                      .get = get,
                      .ctx = w,
                      .alloc = &w->heap.alloc};
}

static uint64_t bytes_of(const struct world *w)
{
    return (uint64_t)BLOCKS * (w->block_bytes + 400);
}

/* What somebody has left behind takes a second question. */
static sf_image_state claim(struct world *w, sf_image *m)
{
    sf__image_claim(m, bytes_of(w));
    if (m->state == SF_IMAGE_OTHERS)
        sf__image_claim(m, bytes_of(w));
    return m->state;
}

static void check_block(struct world *w, const sf_image *m, uint32_t i)
{
    const sf_buf *b = sf__image_block(m, i);
    sf_buf *right = get(w, i);

    assert_non_null(right);
    assert_int_equal((uintptr_t)b % SF_IMAGE_UNIT, 0);
    assert_int_equal(b->front, FRONT);
    assert_int_equal(b->n, right->n);
    assert_int_equal(b->cap, right->cap);
    assert_memory_equal(b->data, right->data, FRONT + b->n);
    sf__buf_release(right);
}

static void check_all(struct world *w, const sf_image *m)
{
    assert_int_equal(m->state, SF_IMAGE_MAPPED);
    for (uint32_t i = 0; i < BLOCKS; i++)
        check_block(w, m, i);
}

/* Claims it, and writes it where it is not there. */
static void have(struct world *w, sf_image *m, uint64_t which, bool was_there)
{
    *m = image_of(w, which);
    assert_int_equal(claim(w, m), was_there ? SF_IMAGE_MAPPED : SF_IMAGE_OURS);
    if (!was_there)
        sf__image_write(m);
    check_all(w, m);
}

/* ------------------------------------------------------------------ having them ---------------------------------- */

static void one_writes_and_all_map(void **state)
{
    struct world w, other;
    sf_image mine, theirs;

    begin(&w);
    begin(&other);
    mine = image_of(&w, 1);
    theirs = image_of(&other, 1);
    assert_int_equal(claim(&w, &mine), SF_IMAGE_OURS);
    assert_int_equal(claim(&other, &theirs), SF_IMAGE_OTHERS);
    sf__image_cleanup(&theirs);
    assert_int_equal(claim(&other, &theirs), SF_IMAGE_OTHERS);
    sf__image_write(&mine);
    check_all(&w, &mine);
    assert_int_equal(files(SF_IMAGE_MAKING_SUFFIX, false), 0);
    assert_int_equal(claim(&other, &theirs), SF_IMAGE_MAPPED);
    check_all(&other, &theirs);
    sf__image_cleanup(&mine);
    check_all(&other, &theirs);
    sf__image_cleanup(&theirs);
    mine = image_of(&w, 1);
    mine.blocks = BLOCKS - 1; /* it has not so many */
    assert_int_equal(claim(&w, &mine), SF_IMAGE_OURS);
    sf__image_cleanup(&mine);
    assert_int_equal(files("", true), 0);
    end(&other);
    end(&w);
}

static void a_claim_is_given_up(void **state)
{
    struct world w;
    sf_image m;

    begin(&w);
    m = image_of(&w, 1);
    assert_int_equal(claim(&w, &m), SF_IMAGE_OURS);
    sf__image_cleanup(&m);
    assert_int_equal(files("", false), 0);
    w.lacks = true;
    m = image_of(&w, 1);
    assert_int_equal(claim(&w, &m), SF_IMAGE_OURS);
    sf__image_write(&m);
    assert_int_equal(m.state, SF_IMAGE_NONE);
    w.lacks = false;
    atomic_store(&m.unwanted, true);
    assert_int_equal(claim(&w, &m), SF_IMAGE_OURS);
    sf__image_write(&m);
    assert_int_equal(m.state, SF_IMAGE_NONE);
    m.deadline_ns = 1;
    atomic_store(&m.unwanted, false);
    assert_int_equal(claim(&w, &m), SF_IMAGE_OURS);
    sf__image_write(&m);
    assert_int_equal(m.state, SF_IMAGE_NONE);
    assert_int_equal(files("", false), 0);
    end(&w);
}

/* Blocks are found, pinned and held in a table like any other, and the mapping goes with the last of them. */
static void a_mapping_stays_while_it_is_used(void **state)
{
    sf_block_cache *cache = NULL;
    sf_pins *mine = sf__pins_of_thread();
    sf_pin *pin = &mine->pins[SF_PIN_VALUES];
    sf_block_table *t;
    sf_buf *held, *pinned, *old;
    sf_image m;
    struct world w;

    begin(&w);
    have(&w, &m, 1, false);
    assert_int_equal(files("", true), 1); /* as another process removes it */
    assert_int_equal(sf__block_cache_new(&cache, 4 << 20, &w.heap.alloc, NULL), SF_OK);
    t = sf__block_table_new(cache, BLOCKS, true);
    assert_non_null(t);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        sf_cache_key key = {.object = {1, 1}, .off = i, .table = t, .block = i};
        sf_buf *b = sf__image_block(&m, i);

        if (i % 2 == 0) {
            assert_int_equal(sf__block_cache_replace(cache, &key, b), 0); /* nothing is kept there */
            assert_true(sf__block_cache_keep(cache, &key, b));
            continue;
        }
        old = sf__buf_new(&w.heap.alloc, b->cap + 10);
        memset(old->data, 1, old->n);
        assert_true(sf__block_cache_keep(cache, &key, old));
        if (i == 5) { /* somebody looks at the old one meanwhile */
            assert_ptr_equal(sf__block_table_find(t, i, mine, pin), old);
            assert_int_equal(sf__block_cache_replace(cache, &key, b), -10);
            sf__buf_release(old);
            assert_int_equal(old->data[7], 1);
            assert_true(sf__pin_take_off(pin));
        } else {
            assert_int_equal(sf__block_cache_replace(cache, &key, b), -10);
        }
        sf__buf_release(old);
    }
    sf__image_cleanup(&m);
    for (uint32_t i = 0; i < BLOCKS; i++)
        assert_true(sf__block_table_keeps(t, i));
    held = sf__buf_acquire(sf__block_table_peek(t, 4));
    pinned = sf__block_table_find(t, 6, mine, pin);
    assert_non_null(pinned);
    sf__block_table_close(t);
    assert_int_equal(held->data[FRONT], byte_of(&w, 4, 0));
    sf__buf_release(held);
    assert_int_equal(pinned->data[FRONT + 100], byte_of(&w, 6, 100)); /* the pin has become a reference */
    assert_true(sf__pin_take_off(pin));
    sf__buf_release(pinned);
    sf__block_cache_release(cache);
    end(&w);
}

static void children_read_what_is_mapped(void **state)
{
    struct world w;
    sf_image m;
    pid_t child;
    int status;

    begin(&w);
    have(&w, &m, 1, false);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        sf_buf *b = sf__buf_acquire(sf__image_block(&m, 9));
        bool right = b->data[FRONT] == byte_of(&w, 9, 0);

        sf__buf_release(b);
        _exit(right ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    sf__image_cleanup(&m);
    files("", true);
    end(&w);
}

/* ------------------------------------------------------------------ damage --------------------------------------- */

static void path_of(uint64_t which, const char *suffix, char out[160])
{
    char name[SF_IMAGE_NAME_BYTES];

    sf__image_name((sf_hash128){7, which}, suffix, name);
    snprintf(out, 160, "%s/%s", folder, name);
}

static void flip(int fd, off_t at)
{
    uint8_t byte;

    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x20;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

/* An older version's: all but that is right. */
static void make_old(int fd)
{
    uint8_t header[SF_IMAGE_UNIT];

    assert_int_equal(pread(fd, header, sizeof(header), 0), sizeof(header));
    sf_store_le(header + 8, 4, SF_IMAGE_VERSION + 1);
    sf_store_le(header + 56, 8, sf__xxh3_64_seeded(sf_bytes_of(header, 56), sf_load_le(header + 24, 8)));
    assert_int_equal(pwrite(fd, header, sizeof(header), 0), sizeof(header));
}

/* Whoever can make the hashes right still cannot have a front that is not the content's. */
static void forge(int fd, uint64_t at)
{
    uint8_t whole[8192];
    sf_image_file f;
    sf_image_slot slot;
    struct stat st;
    size_t slots = (size_t)BLOCKS * SF_IMAGE_SLOT;
    uint8_t *table = whole + SF_IMAGE_UNIT;

    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(pread(fd, whole, sizeof(whole), 0), sizeof(whole));
    assert_true(
        sf__image_file_decode(&f, sf_bytes_of(whole, SF_IMAGE_UNIT), (uint64_t)st.st_size, (sf_hash128){7, 1}, BLOCKS));
    assert_true(sf__image_slot_decode(&slot, &f, sf_bytes_of(table, SF_IMAGE_SLOT), 0));
    whole[slot.at + at] ^= 1;
    slot.hash = sf__image_block_hash(&f, 0, sf_bytes_of(whole + slot.at, slot.len));
    sf__image_slot_encode(&slot, table);
    f.slots_hash = sf__image_slots_hash(&f, sf_bytes_of(table, slots));
    sf__image_file_encode(&f, whole);
    assert_int_equal(pwrite(fd, whole, sizeof(whole), 0), sizeof(whole));
}

static void damage_is_made_anew(void **state)
{
    enum { FLIP, FLIP_LAST, CUT, EMPTY, GROWN, OLD, FORGED_FRONT, FORGED_BUF, OPEN_TO_OTHERS, LINK, ANOTHERS, FOLDER };
    static const struct {
        const char *name;
        int what;
        off_t at;
    } cases[] = {
        {"magic", FLIP, 0},
        {"blocks", FLIP, 12},
        {"salt", FLIP, 24},
        {"object", FLIP, 40},
        {"slots' hash", FLIP, 50},
        {"check", FLIP, 60},
        {"a slot", FLIP, 64},
        {"a slot's hash", FLIP, 64 + 16 + 9},
        {"a length", FLIP, 68},
        {"an sf_buf", FLIP, 704},
        {"a front", FLIP, 704 + 33},
        {"a content", FLIP, 704 + 300},
        {"the end", FLIP_LAST, 0},
        {"a byte less", CUT, 1},
        {"half", CUT, 20000},
        {"nothing", EMPTY, 0},
        {"a byte more", GROWN, 0},
        {"a version", OLD, 0},
        {"a forged front", FORGED_FRONT, 0},
        {"a forged sf_buf", FORGED_BUF, 0},
        {"open to others", OPEN_TO_OTHERS, 0},
        {"a link", LINK, 0},
        {"another's name", ANOTHERS, 0},
    };
    struct world w;

    begin(&w);
    for (size_t n = 0; n < sizeof(cases) / sizeof(*cases); n++) {
        char path[160], other[160];
        struct stat st;
        sf_image m;
        int fd;

        print_message("case: %s\n", cases[n].name);
        have(&w, &m, 1, false);
        sf__image_cleanup(&m);
        path_of(1, SF_IMAGE_SUFFIX, path);
        path_of(2, SF_IMAGE_SUFFIX, other);
        fd = open(path, O_RDWR);
        assert_true(fd >= 0 && fstat(fd, &st) == 0);
        switch (cases[n].what) {
        case FLIP:
            flip(fd, cases[n].at);
            break;
        case FLIP_LAST: /* of the last block's content: behind it is what it is filled up with */
            flip(fd, st.st_size - SF_IMAGE_UNIT);
            break;
        case CUT:
            assert_int_equal(ftruncate(fd, st.st_size - cases[n].at), 0);
            break;
        case EMPTY:
            assert_int_equal(ftruncate(fd, 0), 0);
            break;
        case GROWN:
            assert_int_equal(ftruncate(fd, st.st_size + 1), 0);
            break;
        case OLD:
            make_old(fd);
            break;
        case FORGED_FRONT:
            forge(fd, sizeof(sf_buf) + 3);
            break;
        case FORGED_BUF:
            forge(fd, offsetof(sf_buf, n));
            break;
        case OPEN_TO_OTHERS:
            assert_int_equal(fchmod(fd, 0666), 0);
            break;
        case LINK:
            assert_int_equal(rename(path, other), 0);
            assert_int_equal(symlink(other, path), 0);
            break;
        case ANOTHERS:
            assert_int_equal(rename(path, other), 0);
            m = image_of(&w, 2);
            assert_int_equal(claim(&w, &m), SF_IMAGE_OURS);
            sf__image_cleanup(&m);
            break;
        }
        close(fd);
        have(&w, &m, 1, false);
        sf__image_cleanup(&m);
        have(&w, &m, 1, true);
        sf__image_cleanup(&m);
        files("", true);
    }
    end(&w);
}

/* What is no file of ours stands in the way: then there is none. */
static void something_else_has_the_name(void **state)
{
    static const char *const suffixes[] = {SF_IMAGE_SUFFIX, SF_IMAGE_MAKING_SUFFIX};
    struct world w;

    begin(&w);
    for (size_t n = 0; n < 2; n++) {
        char path[160];
        sf_image m = image_of(&w, 1);

        path_of(1, suffixes[n], path);
        assert_int_equal(mkdir(path, 0700), 0);
        if (claim(&w, &m) == SF_IMAGE_OURS)
            sf__image_write(&m);
        assert_int_equal(m.state, SF_IMAGE_NONE);
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(mkfifo(path, 0600), 0);
        if (claim(&w, &m) == SF_IMAGE_OURS) {
            sf__image_write(&m); /* a file takes the place of what was never one */
            check_all(&w, &m);
            sf__image_cleanup(&m);
        }
        files("", true);
    }
    end(&w);
}

/* ------------------------------------------------------------------ crashes and a full disk ---------------------- */

static void a_writer_is_killed(void **state)
{
    static const int fates[] = {KILL_BEFORE, KILL_HALFWAY};

    for (size_t n = 0; n < 2; n++) {
        bool killed = true;

        for (int nth = 0; killed; nth += 1) {
            pid_t child = fork();
            struct world w;
            sf_image m;
            int status;

            assert_true(child >= 0);
            begin(&w);
            if (child == 0) {
                m = image_of(&w, 1);
                fate = fates[n];
                atomic_store(&writes_left, nth);
                _exit(claim(&w, &m) == SF_IMAGE_OURS && (sf__image_write(&m), m.state == SF_IMAGE_MAPPED) ? 0 : 1);
            }
            assert_int_equal(waitpid(child, &status, 0), child);
            killed = WIFSIGNALED(status);
            assert_true(killed || status == 0);
            assert_int_equal(files(SF_IMAGE_MAKING_SUFFIX, false), killed);
            assert_int_equal(files(SF_IMAGE_SUFFIX, false), !killed);
            have(&w, &m, 1, !killed);
            sf__image_cleanup(&m);
            assert_int_equal(files("", true), 1);
            end(&w);
        }
    }
}

/* What a writer of another snapshot has left goes with the next file that is made. */
static void what_is_left_behind_goes(void **state)
{
    struct world w;
    char path[160];
    sf_image m;
    int fd;

    begin(&w);
    path_of(2, SF_IMAGE_MAKING_SUFFIX, path);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, 100000), 0);
    assert_int_equal(flock(fd, LOCK_EX), 0); /* it is being written */
    have(&w, &m, 1, false);
    sf__image_cleanup(&m);
    assert_int_equal(access(path, F_OK), 0);
    close(fd);
    have(&w, &m, 3, false);
    sf__image_cleanup(&m);
    assert_int_not_equal(access(path, F_OK), 0);
    files("", true);
    end(&w);
}

static void a_full_disk(void **state)
{
    sf_image_state ended = SF_IMAGE_NONE;
    struct world w;

    begin(&w);
    for (int nth = 0; ended != SF_IMAGE_MAPPED; nth++) {
        sf_image m = image_of(&w, 1);

        assert_int_equal(claim(&w, &m), SF_IMAGE_OURS);
        fate = DISK_FULL;
        atomic_store(&writes_left, nth);
        sf__image_write(&m);
        fate = WRITES_GO;
        ended = m.state;
        sf__image_cleanup(&m);
        assert_int_equal(files("", true), ended == SF_IMAGE_MAPPED);
    }
    end(&w);
}

/* What it took is not on it. */
static void a_disk_that_loses_what_is_written(void **state)
{
    struct world w;
    sf_image m;

    begin(&w);
    m = image_of(&w, 1);
    assert_int_equal(claim(&w, &m), SF_IMAGE_OURS);
    fate = DISK_LOSES;
    sf__image_write(&m);
    fate = WRITES_GO;
    assert_int_equal(m.state, SF_IMAGE_NONE);
    assert_int_equal(files("", true), 0);
    end(&w);
}

/* Whoever cannot map a file does not make it again: others have that one in memory. */
static void what_is_there_is_not_made_again(void **state)
{
    struct world w;
    bool fired = true;
    char path[160];
    struct rlimit all, none;
    struct stat before, now;
    sf_image m;

    begin(&w);
    have(&w, &m, 1, false);
    sf__image_cleanup(&m);
    path_of(1, SF_IMAGE_SUFFIX, path);
    assert_int_equal(stat(path, &before), 0);
    for (long nth = 0; fired; nth += TEST_STEP) {
        heap_arm(&w.heap, nth);
        sf__image_claim(&m, bytes_of(&w));
        fired = w.heap.fired;
        heap_arm(&w.heap, -1);
        assert_int_equal(m.state, fired ? SF_IMAGE_NONE : SF_IMAGE_MAPPED);
        sf__image_cleanup(&m);
    }
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = all.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    sf__image_claim(&m, bytes_of(&w));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
    assert_int_equal(m.state, SF_IMAGE_NONE);
    atomic_store(&m.unwanted, true);
    sf__image_claim(&m, bytes_of(&w));
    assert_int_equal(m.state, SF_IMAGE_NONE);
    assert_int_equal(stat(path, &now), 0);
    assert_int_equal(now.st_ino, before.st_ino);
    assert_int_equal(files("", true), 1);
    end(&w);
}

static void no_memory(void **state)
{
    struct world w;
    bool fired = true;

    begin(&w);
    for (long nth = 0; fired; nth += TEST_STEP) {
        sf_image m = image_of(&w, 1);

        heap_arm(&w.heap, nth);
        if (claim(&w, &m) == SF_IMAGE_OURS)
            sf__image_write(&m);
        fired = w.heap.fired;
        heap_arm(&w.heap, -1);
        assert_true(m.state == SF_IMAGE_MAPPED || (fired && m.state == SF_IMAGE_NONE));
        if (m.state == SF_IMAGE_MAPPED)
            check_all(&w, &m);
        sf__image_cleanup(&m);
        files("", true);
    }
    end(&w);
}

/* ------------------------------------------------------------------ the bound ------------------------------------ */

static void they_stay_within_half(void **state)
{
    struct world w;
    char path[160];
    sf_image m, first;

    begin(&w);
    w.block_bytes = 3000; /* some 130 KiB each, and there are 512 for all */
    m = image_of(&w, 1);
    sf__image_claim(&m, cache_bytes / 2 + 1);
    assert_int_equal(m.state, SF_IMAGE_NONE);
    have(&w, &first, 1, false);
    for (uint64_t which = 2; which <= 6; which++) {
        struct timespec long_ago[2] = {{.tv_sec = (time_t)(1000 * which)}, {.tv_sec = (time_t)(1000 * which)}};

        have(&w, &m, which, false);
        sf__image_cleanup(&m);
        path_of(which, SF_IMAGE_SUFFIX, path);
        assert_int_equal(utimensat(AT_FDCWD, path, long_ago, 0), 0);
    }
    assert_int_equal(files(SF_IMAGE_SUFFIX, false), 4);
    path_of(1, SF_IMAGE_SUFFIX, path); /* used a moment ago */
    assert_int_equal(access(path, F_OK), 0);
    path_of(2, SF_IMAGE_SUFFIX, path);
    assert_int_not_equal(access(path, F_OK), 0);
    w.block_bytes = 20000; /* too much, which is seen when it is written */
    m = image_of(&w, 9);
    sf__image_claim(&m, 1000);
    assert_int_equal(m.state, SF_IMAGE_OURS);
    sf__image_write(&m);
    assert_int_equal(m.state, SF_IMAGE_NONE);
    w.block_bytes = 3000;
    check_all(&w, &first);
    sf__image_cleanup(&first);
    files("", true);
    end(&w);
}

/* What a process maps is on its disk, whether it has a name or not. So one that needs more than there is maps as much as there is, and the next one maps the same. */
static void what_was_mapped_since_stays(void **state)
{
    struct world w;
    unsigned most = 0;
    sf_image m;
    bool fits;

    begin(&w);
    w.block_bytes = 3000;
    for (unsigned round = 0; round < 2; round++) {
        int64_t since_us = sf__clock_files_us();

        for (uint64_t which = 1; which <= 6; which++) {
            m = image_of(&w, which);
            m.since_us = since_us;
            if (claim(&w, &m) == SF_IMAGE_OURS)
                sf__image_write(&m);
            fits = round == 0 ? files(SF_IMAGE_SUFFIX, false) == which : which <= most;
            assert_int_equal(m.state, fits ? SF_IMAGE_MAPPED : SF_IMAGE_NONE);
            sf__image_cleanup(&m);
        }
        most = files(SF_IMAGE_SUFFIX, false);
        assert_int_equal(files("", false), most);
        assert_in_range(most, 3, 5);
    }
    have(&w, &m, 9, false); /* that came later */
    sf__image_cleanup(&m);
    assert_int_equal(files("", true), most);
    end(&w);
}

static int each_has_a_folder(void **state)
{
    folder_make();
    return 0;
}

static int which_is_empty_then(void **state)
{
    folder_remove();
    return 0;
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, each_has_a_folder, which_is_empty_then)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(one_writes_and_all_map),
        IN_FOLDER(a_claim_is_given_up),
        IN_FOLDER(a_mapping_stays_while_it_is_used),
        IN_FOLDER(children_read_what_is_mapped),
        IN_FOLDER(damage_is_made_anew),
        IN_FOLDER(something_else_has_the_name),
        IN_FOLDER(a_writer_is_killed),
        IN_FOLDER(what_is_left_behind_goes),
        IN_FOLDER(a_full_disk),
        IN_FOLDER(a_disk_that_loses_what_is_written),
        IN_FOLDER(what_is_there_is_not_made_again),
        IN_FOLDER(no_memory),
        IN_FOLDER(they_stay_within_half),
        IN_FOLDER(what_was_mapped_since_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
