/* Counted, immutable-once-shared byte buffers. Long-lived bytes sit in one; a span into it is valid while it is held,
 * and the two travel together. Acquire and release from any thread.
 *
 * A buffer may also lie in a mapped file (cache/image_file.h), where nobody may write: then what is counted is the mapping, which goes with the
 * last reference on any of its buffers. */
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
    union {
        const sf_allocator *alloc;
        uintptr_t in_mapping; /* with SF_BUF_IS_MAPPED in its lowest bit: bytes from the sf_buf_mapping to here */
    };
    uint8_t data[];
} sf_buf;

#define SF_BUF_IS_MAPPED ((uintptr_t)1)

/* What stands directly before the first byte of a mapped file. */
typedef struct sf_buf_mapping {
    _Alignas(64) atomic_uint refs;
    void *start; /* of all that is mapped: this and the file */
    size_t bytes;
} sf_buf_mapping;

/* Where its references are counted. */
static inline atomic_uint *sf__buf_refs(sf_buf *b)
{
    if ((b->in_mapping & SF_BUF_IS_MAPPED) == 0)
        return &b->refs;
    return &((sf_buf_mapping *)((uint8_t *)b - (b->in_mapping & ~SF_BUF_IS_MAPPED)))->refs;
}

/* The first `bytes` of a file, to read, one reference. The caller answers for what its buffers say of themselves. NULL: the system does not want
 * to. */
sf_buf_mapping *sf__buf_mapping_new(int fd, size_t bytes) SF_MUST_USE;
void sf__buf_mapping_release(sf_buf_mapping *m); /* any thread; takes NULL */

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
