#include "base/buf.h"

#include <sys/mman.h>
#include <unistd.h>

sf_buf *sf__buf_new(const sf_allocator *a, size_t n)
{
    sf_buf *b = n <= SIZE_MAX - sizeof(sf_buf) ? sf__alloc(a, sizeof(*b) + n) : NULL;

    if (!b)
        return NULL;
    atomic_init(&b->refs, 1);
    b->front = 0;
    b->n = b->cap = n;
    b->alloc = a;
    return b;
}

sf_buf *sf__buf_copy(const sf_allocator *a, sf_bytes src)
{
    sf_buf *b = sf__buf_new(a, src.n);

    if (b && src.n > 0)
        memcpy(b->data, src.p, src.n);
    return b;
}

sf_buf *sf__buf_reserve(sf_buf *b, size_t cap)
{
    sf_buf *bigger;

    if (cap <= b->cap)
        return b;
    if (cap > SIZE_MAX - sizeof(*b))
        return NULL;
    bigger = sf__realloc(b->alloc, b, sizeof(*b) + cap);
    if (bigger)
        bigger->cap = cap;
    return bigger;
}

sf_buf *sf__buf_acquire(sf_buf *b)
{
    atomic_fetch_add_explicit(sf__buf_refs(b), 1, memory_order_relaxed);
    return b;
}

void sf__buf_release(sf_buf *b)
{
    if (!b)
        return;
    if (b->in_mapping & SF_BUF_IS_MAPPED)
        sf__buf_mapping_release((sf_buf_mapping *)((uint8_t *)b - (b->in_mapping & ~SF_BUF_IS_MAPPED)));
    else if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1)
        sf__free(b->alloc, b);
}

/* ------------------------------------------------------------------ mapped files --------------------------------- */

sf_buf_mapping *sf__buf_mapping_new(int fd, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    sf_buf_mapping *m;
    uint8_t *start;

    if (bytes == 0 || bytes > SIZE_MAX - page)
        return NULL;
    start = mmap(NULL, page + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    if (mmap(start + page, bytes, PROT_READ, MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0) == MAP_FAILED) {
        munmap(start, page + bytes);
        return NULL;
    }
    m = (sf_buf_mapping *)(start + page) - 1;
    atomic_init(&m->refs, 1);
    m->start = start;
    m->bytes = page + bytes;
    return m;
}

void sf__buf_mapping_release(sf_buf_mapping *m)
{
    if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1)
        munmap(m->start, m->bytes);
}
