/* All blocks of an object in one mapped file (image_file.h) in the folder of a disk cache, so that processes which were not forked of one another have them in memory
 * once. One process writes it, under another name, and renames it when it is whole; the others wait for it, or have their own copy.
 *
 *     claim --> MAPPED                 it is there, and was checked
 *          \--> OURS --> write         nobody else writes it until that, or the clean-up
 *          \--> OTHERS                 a process writes it: ask again soon, and not for ever
 *          \--> NONE                   there is none, and cannot be
 *
 * A file that has its name is never written to or cut off, only unlinked: so a mapping stays whole, whatever other processes of ours do. It
 * does not where whoever may write to the folder (its user) does so by hand, or where the disk cannot read again what the system has let go
 * of: that ends the process (SIGBUS). So files are mapped on file systems only that are this machine's. Every byte is read and checked before
 * it is mapped. Blocking, a worker's, but for what says otherwise. */
#ifndef SF_CACHE_IMAGE_H
#define SF_CACHE_IMAGE_H

#include "cache/disk_cache.h"
#include "cache/image_file.h"

typedef enum sf_image_state { SF_IMAGE_NONE, SF_IMAGE_MAPPED, SF_IMAGE_OURS, SF_IMAGE_OTHERS } sf_image_state;

typedef struct sf_image {
    /* set by the owner */
    sf_disk_cache *cache; /* borrowed */
    sf_hash128 object;    /* names it for good */
    uint32_t blocks;
    int64_t since_us;     /* files that were mapped since then (sf__clock_files_us()) do not make room: whoever has one
                           * mapped has it on disk, too, whatever that may take */
    uint64_t deadline_ns; /* then, and once it is `unwanted`, what is under way ends as NONE */
    atomic_bool unwanted; /* any thread */
    /* Whether it is that block, with what whoever made it knows about it: `buf` may not be acquired. */
    bool (*holds)(void *ctx, uint32_t block, const sf_buf *buf);
    /* The block with a reference, for write; NULL: it is not there. */
    sf_buf *(*get)(void *ctx, uint32_t block);
    void *ctx;
    const sf_allocator *alloc;
    /* results */
    sf_image_state state;
    /* private */
    int making; /* OURS: locked */
    sf_buf_mapping *mapping;
} sf_image;

/* `expected_bytes` of blocks: what takes more than half of what the disk cache may have is not written. */
void sf__image_claim(sf_image *m, uint64_t expected_bytes);
/* OURS. MAPPED then, or NONE: the disk is full, say. */
void sf__image_write(sf_image *m);
/* MAPPED. Borrowed; a reference on it keeps all of the mapping. Any thread. */
sf_buf *sf__image_block(const sf_image *m, uint32_t block);
/* A claim that was not used is given up. Takes a zeroed one. Any thread, does not wait. */
void sf__image_cleanup(sf_image *m);

#endif
