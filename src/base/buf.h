/* Counted, immutable-once-shared byte buffers. Long-lived bytes sit in one; a span into it is valid while it is held,
 * and the two travel together. Acquire and release from any thread. */
#ifndef SF_BASE_BUF_H
#define SF_BASE_BUF_H

#include <stdatomic.h>

#include "base/alloc.h"
#include "base/bytes.h"

typedef struct sf_buf {
    atomic_uint refs;
    uint32_t front; /* bytes of data before its content: what whoever made it knows about that; mostly 0 */
    size_t n;       /* bytes of content */
    size_t cap;     /* bytes allocated, what a cache charges */
    const sf_allocator *alloc;
    uint8_t data[];
} sf_buf;

/* n bytes, uninitialised, one reference. NULL without memory. */
sf_buf *sf__buf_new(const sf_allocator *a, size_t n) SF_MUST_USE;
sf_buf *sf__buf_copy(const sf_allocator *a, sf_bytes src) SF_MUST_USE;
/* Growing while there is one reference; frees nothing on failure (NULL). May move. */
sf_buf *sf__buf_reserve(sf_buf *b, size_t cap) SF_MUST_USE;
sf_buf *sf__buf_acquire(sf_buf *b);
void sf__buf_release(sf_buf *b); /* takes NULL */

static inline sf_bytes sf__buf_bytes(const sf_buf *b)
{
    return b ? (sf_bytes){b->data + b->front, b->n} : (sf_bytes){NULL, 0};
}

#endif
