/* What a hit of the disk cache costs beside a plain pread of as many bytes, both from the page cache, and how many preads it makes:
 *     ninja -C BUILD bench/disk_hit && BUILD/bench/disk_hit FOLDER
 * On the loop thread, without the trip there: blocks of 4 KiB in an order that is none, 64 MiB in all. */
#include <sys/uio.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench.h"
#include "cache/disk_cache.h"

#define BLOCKS 16384u
#define BLOCK_BYTES 4096u
#define READS 200000u
#define STEP 6007u /* odd: visits every block */

struct bench {
    sf_task task;
    sf_disk_cache *cache;
    sf_disk_caches all;
    const char *folder;
    unsigned next;
    atomic_bool kept, done;
};

static const sf_hash128 object = {3, 4};

static unsigned by_worker;
static atomic_ulong preads;

/* The linker puts these in place of the calls (bench/meson.build). */
ssize_t __real_pread64(int fd, void *to, size_t n, off_t off);
ssize_t __wrap_pread64(int fd, void *to, size_t n, off_t off);
ssize_t __real_preadv64v2(int fd, const struct iovec *to, int n, off_t off, int flags);
ssize_t __wrap_preadv64v2(int fd, const struct iovec *to, int n, off_t off, int flags);

ssize_t __wrap_pread64(int fd, void *to, size_t n, off_t off)
{
    atomic_fetch_add_explicit(&preads, 1, memory_order_relaxed);
    return __real_pread64(fd, to, n, off);
}

ssize_t __wrap_preadv64v2(int fd, const struct iovec *to, int n, off_t off, int flags)
{
    atomic_fetch_add_explicit(&preads, 1, memory_order_relaxed);
    return __real_preadv64v2(fd, to, n, off, flags);
}

/* The page cache did not have it any more. */
static void read_done(sf_disk_read *r)
{
    sf__buf_release(r->data);
    free(r);
    by_worker++;
}

static uint64_t from_cache(struct bench *b)
{
    uint64_t begin = (uint64_t)(thread_cpu() * 1e9);

    for (unsigned i = 0; i < READS; i++) {
        static uint64_t cuts[READS][2];
        sf_disk_read *r = malloc(sizeof(*r));

        cuts[i][0] = (uint64_t)(i * STEP % BLOCKS) * BLOCK_BYTES;
        cuts[i][1] = cuts[i][0] + BLOCK_BYTES;
        *r = (sf_disk_read){.object = object, .cuts = cuts[i], .part_count = 1, .done = read_done};
        if (!sf__disk_cache_read(b->cache, r))
            continue;
        if (!r->data)
            abort();
        sf__buf_release(r->data);
        free(r);
    }
    return ((uint64_t)(thread_cpu() * 1e9) - begin) / READS;
}

static uint64_t plain(struct bench *b)
{
    char name[4096];
    static uint8_t block[BLOCK_BYTES];
    uint64_t begin;
    int fd;

    snprintf(name, sizeof(name), "%s/plain", b->folder);
    fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (unsigned i = 0; i < BLOCKS; i++)
        if (pwrite(fd, block, sizeof(block), (off_t)i * BLOCK_BYTES) != BLOCK_BYTES)
            abort();
    begin = (uint64_t)(thread_cpu() * 1e9);
    for (unsigned i = 0; i < READS; i++)
        if (pread(fd, block, sizeof(block), (off_t)(i * STEP % BLOCKS) * BLOCK_BYTES) != BLOCK_BYTES)
            abort();
    begin = ((uint64_t)(thread_cpu() * 1e9) - begin) / READS;
    close(fd);
    unlink(name);
    return begin;
}

static void loaded(sf_disk_read *r)
{
    free(r);
}

static void measure(sf_task *t)
{
    struct bench *b = (struct bench *)t;

    for (unsigned round = 0; round < 5; round++) {
        unsigned long before;

        sample("disk hit", "4 KiB", "pread", "ns", (double)plain(b));
        before = atomic_load(&preads);
        sample("disk hit", "4 KiB", "ours", "ns", (double)from_cache(b));
        sample("disk hit", "4 KiB", "preads", "preads", (double)(atomic_load(&preads) - before) / READS);
    }
    sample("disk hit", "4 KiB", "left to a worker", "reads", by_worker);
    atomic_store(&b->done, true);
}

/* A few at a time: what waits to be written is bounded. */
static void keep(sf_task *t)
{
    struct bench *b = (struct bench *)t;

    for (unsigned i = 0; i < 256; i++, b->next++) {
        uint64_t off = (uint64_t)b->next * BLOCK_BYTES, cuts[2] = {off, off + BLOCK_BYTES};
        sf_buf *data = sf__buf_new(&sf__allocator_default, BLOCK_BYTES);

        memset(data->data, (int)b->next, BLOCK_BYTES);
        sf__disk_cache_keep(b->cache, object, cuts, NULL, 1, data);
        sf__buf_release(data);
    }
    if (b->next == 256) { /* loads the folder */
        uint64_t *cuts = calloc(2, sizeof(*cuts));
        sf_disk_read *r = calloc(1, sizeof(*r));

        cuts[1] = 1;
        *r = (sf_disk_read){.object = object, .cuts = cuts, .part_count = 1, .done = loaded};
        if (sf__disk_cache_read(b->cache, r))
            free(r);
    }
    atomic_store(&b->kept, true);
}

int main(int argc, char **argv)
{
    static struct bench b;
    sf_loop *loop;
    sf_error e;

    b.folder = argc > 1 ? argv[1] : ".";
    sf__disk_caches_init(&b.all);
    if (sf__loop_new(&loop, &sf__allocator_default, &e) != SF_OK ||
        sf__disk_cache_open(&b.cache, b.folder, UINT64_C(256) << 20, loop, &b.all, &sf__allocator_default, &e) != SF_OK) {
        fprintf(stderr, "%s\n", e.message);
        return 1;
    }
    while (b.next < BLOCKS) {
        atomic_store(&b.kept, false);
        b.task.run = keep;
        sf__loop_post(loop, &b.task);
        while (!atomic_load(&b.kept) || atomic_load(&b.all.jobs) > 0)
            usleep(100);
    }
    b.task.run = measure;
    sf__loop_post(loop, &b.task);
    while (!atomic_load(&b.done))
        usleep(1000);
    sf__disk_cache_release(b.cache);
    sf__disk_caches_cleanup(&b.all);
    sf__loop_free(loop);
    return 0;
}
