/* What an SST's blocks are as an image (cache/image.h): one file for all processes, mapped by each. One question or one writing at a time, by a worker;
 * everything else is the loop thread's. */
#ifndef SF_BACKEND_SLATEDB_SST_IMAGE_H
#define SF_BACKEND_SLATEDB_SST_IMAGE_H

#include "backend/slatedb/sst.h"
#include "cache/image.h"
#include "net/loop.h"

typedef struct sf_sst_image {
    sf_image image;
    bool waits; /* for an answer, or for the process that writes it: its blocks are not read before */
    bool asked; /* and there is an answer, in image.state */
    /* private */
    const sf_sst *sst;
    sf_block_cache *cache;
    void (*done)(void *ctx);
    void *ctx;
    sf_work work;
} sf_sst_image;

/* False: there is none: nothing of the SST lies on disk, it is small, or `a`, where its blocks are
 * allocated, is a caller's. All is borrowed, and outlives it. */
bool sf__sst_image_init(sf_sst_image *m, const sf_sst *sst, sf_block_cache *cache, int64_t since_us,
                        uint64_t deadline_ns, const sf_allocator *a);
/* The loop thread's; done() once, never inside. `image.state` says what came of it. */
void sf__sst_image_claim(sf_sst_image *m, sf_loop *loop, void (*done)(void *ctx), void *ctx);
void sf__sst_image_write(sf_sst_image *m, sf_loop *loop, void (*done)(void *ctx),
                         void *ctx); /* all of its blocks are kept */

/* MAPPED: block i stays where it is mapped, instead of what was there. By how much what its owner charges has grown. */
int64_t sf__sst_image_keep(const sf_sst_image *m, uint32_t block);

#endif
