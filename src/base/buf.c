#include "base/buf.h"

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
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void sf__buf_release(sf_buf *b)
{
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    sf__free(b->alloc, b);
}
