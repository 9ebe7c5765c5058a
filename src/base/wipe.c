#include "base/wipe.h"

#include <stdalign.h>
#include <string.h>

/* In front of every block, so that its size is known when it goes. */
struct header {
    alignas(max_align_t) size_t n;
};

static void wipe_free(void *ctx, void *p)
{
    struct header *h = (struct header *)((char *)p - sizeof(*h));

    explicit_bzero(p, h->n);
    sf__free(ctx, h);
}

/* Never in place: growing may move, and what moved away must not stay behind. */
static void *wipe_realloc(void *ctx, void *p, size_t n)
{
    struct header *old = p ? (struct header *)((char *)p - sizeof(*old)) : NULL, *h;

    if (n > SIZE_MAX - sizeof(*h))
        return NULL;
    h = sf__alloc(ctx, sizeof(*h) + n);
    if (!h)
        return NULL;
    h->n = n;
    if (old) {
        memcpy(h + 1, p, old->n < n ? old->n : n);
        wipe_free(ctx, p);
    }
    return h + 1;
}

void sf__wiping_allocator(sf_allocator *out, const sf_allocator *base)
{
    *out = (sf_allocator){.size = sizeof(*out), .realloc = wipe_realloc, .free = wipe_free, .ctx = (void *)base};
}
