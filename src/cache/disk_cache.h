/* Extents of immutable objects, kept in a folder on local disk that any number of processes may share and that outlives them. What
 * comes out is what was put in, checked, or nothing: files that are torn, damaged, of another version or another's are a miss. The
 * folder is one of base/private_folder.h.
 *
 *     0123456789ab.extents       files of one size (extent_file.h), by their numbers; whoever makes one takes the next number
 *
 * Extents are read, not mapped: their files are cut off when they go, and are appended to. So what is hot is each process's own, within its block cache;
 * the rest they share in the page cache. Blocks that stay in memory are shared in files of another kind beside them, which are mapped (image.h), and across a
 * fork (kept.h).
 *
 * Each process appends to a file that it has locked; when that is full it makes another one, and the oldest files go until all
 * together are within max_bytes. An extent that is asked for when its file is among the oldest is written again. Where the disk is full
 * nothing is written for a while. Memory: 32 to 64 bytes an extent, and what waits to be written (32 MiB at most).
 *
 * Loop thread, but for making, counting references and stats. Files are read and written by workers; what the page cache
 * has is read at once. */
#ifndef SF_CACHE_DISK_CACHE_H
#define SF_CACHE_DISK_CACHE_H

#include "base/buf.h"
#include "base/thread.h"
#include "cache/extent_file.h"
#include "net/loop.h"

#define SF_DISK_CACHE_MIN_BYTES (UINT64_C(1) << 20)
#define SF_DISK_CACHE_MAX_BYTES (UINT64_C(1) << 40)

typedef struct sf_disk_cache sf_disk_cache;

typedef struct sf_disk_cache_stats {
    uint64_t hits, misses, bytes_read, bytes_written; /* extents; of their bytes */
    uint64_t dropped;                                 /* not written: too much waited, or the disk was full */
} sf_disk_cache_stats;

/* Those of a loop. */
typedef struct sf_disk_caches {
    sf_mutex lock;
    sf_disk_cache *first; /* under the lock; none is referenced by it */
    atomic_uint jobs;     /* under way: the loop may end when there are none */
} sf_disk_caches;

void sf__disk_caches_init(sf_disk_caches *all);
void sf__disk_caches_cleanup(sf_disk_caches *all); /* all have been released */

/* One that is open with this folder and this bound, or a new one. Makes the folder where it is missing. SF_INVALID: max_bytes;
 * SF_DENIED, SF_IO: the folder. Released with sf__disk_cache_release(). Any thread; it blocks. */
sf_status sf__disk_cache_open(sf_disk_cache **out, const char *folder, uint64_t max_bytes, sf_loop *loop,
                              sf_disk_caches *all, const sf_allocator *a, sf_error *err) SF_MUST_USE;
sf_disk_cache *sf__disk_cache_acquire(sf_disk_cache *c);
void sf__disk_cache_release(sf_disk_cache *c); /* takes NULL */
void sf__disk_cache_get_stats(const sf_disk_cache *c, sf_disk_cache_stats *out);

/* Where the bytes of an object may lie on disk, too. */
typedef struct sf_disk_place {
    sf_disk_cache *cache; /* NULL: nowhere */
    sf_hash128 object;    /* names it for good: where it is stored, and which of all that ever had its name it is */
} sf_disk_place;

/* Neighbouring extents of one object, to be had at once or not at all. */
typedef struct sf_disk_read {
    sf_hash128 object;
    const uint64_t *cuts; /* part_count + 1 offsets: where the extents begin, and where the last one ends. Borrowed until it ends */
    uint32_t part_count;
    void (*done)(struct sf_disk_read *r);
    /* results */
    sf_buf *data; /* NULL: not there. The caller's reference */
    bool old;     /* it goes soon: keep it again */
    /* private */
    sf_disk_cache *cache; /* acquired */
    struct sf_disk_read *next;
    sf_work work;
} sf_disk_read;

/* True: it has ended inside the call, without done(). False: done() follows. */
bool sf__disk_cache_read(sf_disk_cache *c, sf_disk_read *r) SF_MUST_USE;
/* Whether it says that it has it, as far as memory knows. Any thread. */
bool sf__disk_cache_knows(sf_disk_cache *c, const sf_extent_name *name);
/* `data` = the bytes from cuts[0] on. Acquired, if it is kept; written behind. `wanted`: which of the parts; NULL: all. */
void sf__disk_cache_keep(sf_disk_cache *c, sf_hash128 object, const uint64_t *cuts, const bool *wanted,
                         uint32_t part_count, sf_buf *data);
/* Bytes that are still to be written. */
uint64_t sf__disk_cache_backlog(const sf_disk_cache *c);
/* Of how many bytes of extents it can be said that all stay, if nobody else puts any there: less than max_bytes, for what lies beside
 * them and for the file that goes when the next one is begun. */
uint64_t sf__disk_cache_room(const sf_disk_cache *c);
/* For files that lie beside the extents' (image.h): the folder, which stays the cache's, and what all may take together. The oldest extents go until
 * `bytes` more are within that; false: they are not. That one blocks; under the lock of the folder, by a descriptor of the caller's own. */
int sf__disk_cache_folder(const sf_disk_cache *c);
uint64_t sf__disk_cache_max_bytes(const sf_disk_cache *c);
bool sf__disk_cache_make_room(const sf_disk_cache *c, uint64_t bytes) SF_MUST_USE;
/* They are no good. */
void sf__disk_cache_forget(sf_disk_cache *c, sf_hash128 object, const uint64_t *cuts, uint32_t part_count);

#endif
