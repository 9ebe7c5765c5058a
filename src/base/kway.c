/* A loser tree: leaf i stands at count + i, the children of node n are 2n and 2n + 1, inner nodes are 1 .. count - 1. */
#include "base/kway.h"

bool sf__kway_init(sf_kway *k, uint32_t count, sf_kway_order order, const sf_allocator *a)
{
    *k = (sf_kway){.alloc = a, .order = order, .count = count};
    k->losers = sf__calloc(a, (size_t)count + 1, sizeof(*k->losers));
    k->slots = sf__calloc(a, (size_t)count + 1, sizeof(*k->slots));
    if (!k->losers || !k->slots) {
        sf__kway_cleanup(k);
        return false;
    }
    for (uint32_t i = 0; i <= count; i++)
        sf__kway_end(k, i);
    return true;
}

void sf__kway_cleanup(sf_kway *k)
{
    if (k->alloc) {
        sf__free(k->alloc, k->losers);
        sf__free(k->alloc, k->slots);
    }
    *k = (sf_kway){0};
}

/* Of two that begin with the same head. */
static bool __attribute__((noinline)) is_before_among_equals(const sf_kway *k, uint32_t a, uint32_t b)
{
    const struct sf_kway_slot *x = &k->slots[a], *y = &k->slots[b];
    int c;

    if (x->ended || y->ended)
        return !x->ended;
    c = sf_bytes_cmp(x->key, y->key);
    if (c != 0)
        return k->order == SF_KWAY_REVERSE ? c > 0 : c < 0;
    return k->order == SF_KWAY_NEWEST_FIRST ? a > b : a < b;
}

static struct sf_kway_match build(sf_kway *k, size_t node)
{
    struct sf_kway_match a, b;
    bool first;

    if (node >= k->count) {
        a.source = (uint32_t)(node - k->count);
        a.head = k->slots[a.source].head;
        return a;
    }
    a = build(k, 2 * node);
    b = build(k, 2 * node + 1);
    first = a.head != b.head ? a.head < b.head : is_before_among_equals(k, a.source, b.source);
    k->losers[node] = first ? b : a;
    return first ? a : b;
}

void sf__kway_build(sf_kway *k)
{
    k->losers[0] = k->count > 1 ? build(k, 1) : (struct sf_kway_match){0};
}

void sf__kway_replay(sf_kway *k)
{
    struct sf_kway_match w = k->losers[0];

    w.head = k->slots[w.source].head;
    for (size_t node = ((size_t)w.source + k->count) / 2; node > 0; node /= 2) {
        struct sf_kway_match *loser = &k->losers[node];
        bool swap = loser->head < w.head;
        uint64_t head;
        uint32_t source;

        if (__builtin_expect(loser->head == w.head, 0))
            swap = is_before_among_equals(k, loser->source, w.source);
        head = (loser->head ^ w.head) & -(uint64_t)swap;
        source = (loser->source ^ w.source) & -(uint32_t)swap;
        loser->head ^= head;
        loser->source ^= source;
        w.head ^= head;
        w.source ^= source;
    }
    k->losers[0] = w;
}
