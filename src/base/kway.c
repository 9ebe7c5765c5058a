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

static inline bool is_before(const sf_kway *k, uint32_t a, uint32_t b)
{
    const struct sf_kway_slot *x = &k->slots[a], *y = &k->slots[b];
    int c;

    if (x->head != y->head)
        return x->head < y->head;
    if (x->ended || y->ended)
        return !x->ended;
    c = sf_bytes_cmp(x->key, y->key);
    if (c != 0)
        return k->order == SF_KWAY_REVERSE ? c > 0 : c < 0;
    return k->order == SF_KWAY_NEWEST_FIRST ? a > b : a < b;
}

static uint32_t build(sf_kway *k, size_t node)
{
    uint32_t a, b;

    if (node >= k->count)
        return (uint32_t)(node - k->count);
    a = build(k, 2 * node);
    b = build(k, 2 * node + 1);
    if (is_before(k, a, b)) {
        k->losers[node] = b;
        return a;
    }
    k->losers[node] = a;
    return b;
}

void sf__kway_build(sf_kway *k)
{
    k->losers[0] = k->count > 1 ? build(k, 1) : 0;
}

void sf__kway_replay(sf_kway *k)
{
    uint32_t winner = k->losers[0];

    for (size_t node = ((size_t)winner + k->count) / 2; node > 0; node /= 2)
        if (is_before(k, k->losers[node], winner)) {
            uint32_t t = k->losers[node];

            k->losers[node] = winner;
            winner = t;
        }
    k->losers[0] = winner;
}
