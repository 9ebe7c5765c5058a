/* Memory for blocks in huge pages: a look-up reads a few lines of a block that may be anywhere, and with small pages pays for finding the
 * page as well. Memory comes in regions of 2 MiB, cut into chunks of what is asked for; free neighbours become one, and a region
 * that is empty is given back (one may stay). The system is asked for huge pages, and need not have any. Any thread. */
#ifndef SF_CACHE_SLAB_H
#define SF_CACHE_SLAB_H

#include "base/alloc.h"

#define SF_SLAB_REGION_BYTES (UINT64_C(2) << 20)
#define SF_SLAB_MAX_CHUNK_BYTES (64u << 10) /* more does not come from here */
#define SF_SLAB_LATER_BYTES (4u << 20)      /* so much is refused first: who needs little takes no region */

typedef struct sf_slab sf_slab;

typedef struct sf_slab_stats {
    uint64_t regions, used_bytes; /* of them, with what chunks are rounded up to */
} sf_slab_stats;

/* `max_free_bytes`: no region is added when more than that would be free. NULL without memory. */
sf_slab *sf__slab_new(uint64_t max_free_bytes, const sf_allocator *a) SF_MUST_USE;
/* Nothing is taken from it any more; it goes with the last chunk. Takes NULL. */
void sf__slab_close(sf_slab *s);
/* Takes chunks from it, and NULL means: from elsewhere, please. They cannot grow. Valid as long as there are chunks, or it is open. In a
 * forked child chunks stay. */
const sf_allocator *sf__slab_allocator(const sf_slab *s);

/* Bytes of regions that are in no chunk. */
uint64_t sf__slab_free_bytes(const sf_slab *s);
/* Of the regions with chunks that were marked since marks were last taken there, the one of which least is used: from there to
 * SF_SLAB_REGION_BYTES later. NULL: there is none. */
const void *sf__slab_sparsest(sf_slab *s);
/* Of a chunk of any slab's: what the owner knows it by, of which the highest bit is lost. Whoever holds the chunk. */
void sf__slab_mark(void *chunk, uint64_t mark);
/* Takes the marks off chunks of a region, `max` of them at most. 0: there are none, or the region is gone. */
size_t sf__slab_take_marks(sf_slab *s, const void *region, uint64_t *marks, size_t max);
void sf__slab_get_stats(sf_slab *s, sf_slab_stats *out);

#endif
