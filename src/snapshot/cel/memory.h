/* Memory of one evaluation: a piece inside, then the heap, up to a bound; and the steps it may take, which
 * bound its time. One thread. It also keeps why an evaluation failed, until the logic of && and || has
 * decided whether that matters. */
#ifndef SF_SNAPSHOT_CEL_MEMORY_H
#define SF_SNAPSHOT_CEL_MEMORY_H

#include "base/arena.h"

typedef struct sf_cel_memory {
    sf_arena heap;
    size_t used;      /* of `inside` */
    size_t heap_left; /* bytes that may still come from the heap */
    uint32_t steps_left;
    bool failed; /* `reason` holds */
    bool final;  /* a failure that no logic absorbs: a bound was reached, or there is no memory */
    bool cut;    /* text or bytes of a column ended at a NUL */
    char reason[192];
    _Alignas(16) uint8_t inside[512];
} sf_cel_memory;

void sf__cel_memory_init(sf_cel_memory *m, const sf_allocator *a);
void sf__cel_memory_cleanup(sf_cel_memory *m);
/* Aligned for any object. NULL at the bound or without memory: the failure is noted. */
void *sf__cel_memory_take(sf_cel_memory *m, size_t n) SF_MUST_USE;
/* The same for those who take a function with its context. */
void *sf__cel_memory_take_for(size_t n, void *memory) SF_MUST_USE;
/* There are no steps left: always false. */
bool sf__cel_memory_exhausted(sf_cel_memory *m);

/* Steps of the evaluation. False at the bound: the failure is noted. */
SF_MUST_USE static inline bool sf__cel_memory_steps(sf_cel_memory *m, size_t count)
{
    if (count > m->steps_left)
        return sf__cel_memory_exhausted(m);
    m->steps_left -= (uint32_t)count;
    return true;
}

/* Notes a failure; the first final one stays. Always false. */
bool sf__cel_fail(sf_cel_memory *m, const char *fmt, ...) SF_PRINTF(2, 3);

#endif
