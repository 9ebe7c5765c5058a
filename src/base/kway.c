/* A loser tree: leaf i stands at count + i, the children of node n are 2n and 2n + 1, inner nodes are 1 .. count - 1. */
#include "base/kway.h"

#define TIES 64u /* so many cost more than a look at all keys */

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
    k->ties_max = TIES;
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
static bool compare_equals(const sf_kway *k, uint32_t a, uint32_t b)
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

static bool __attribute__((noinline)) is_before_among_equals(sf_kway *k, uint32_t a, uint32_t b)
{
    k->ties += !k->slots[a].ended && !k->slots[b].ended;
    return compare_equals(k, a, b);
}

static size_t common(sf_bytes a, const uint8_t *b, size_t n)
{
    size_t i = 0;

    n = a.n < n ? a.n : n;
    while (i < n && a.p[i] == b[i])
        i++;
    return i;
}

/* Who comes before whom does not depend on it, so who has lost to whom stays. */
static void skip_set(sf_kway *k, size_t skip)
{
    k->skip = (uint32_t)skip;
    for (uint32_t i = 0; i < k->count; i++) {
        struct sf_kway_slot *slot = &k->slots[i];
        uint64_t head = slot->ended ? 0 : sf__key_head(slot->key, skip);

        if (!slot->ended)
            slot->head = k->order == SF_KWAY_REVERSE ? ~head : head;
    }
    for (uint32_t i = 0; i < k->count; i++)
        k->losers[i].head = k->slots[k->losers[i].source].head;
}

void sf__kway_set_behind(sf_kway *k, uint32_t i, sf_bytes key)
{
    size_t same = key.n >= k->skip && memcmp(key.p, k->prefix, k->skip) == 0 ? k->skip : common(key, k->prefix, k->skip);
    uint64_t head = sf__key_head(key, same);

    k->slots[i] = (struct sf_kway_slot){k->order == SF_KWAY_REVERSE ? ~head : head, key, false};
    if (same < k->skip)
        skip_set(k, same);
}

/* What all keys have in common now. */
static void __attribute__((noinline)) look(sf_kway *k)
{
    size_t same = 0;
    bool first = true;

    for (uint32_t i = 0; i < k->count; i++) {
        const struct sf_kway_slot *slot = &k->slots[i];

        if (slot->ended)
            continue;
        if (first) {
            same = slot->key.n < SF_KWAY_SKIP_MAX ? slot->key.n : SF_KWAY_SKIP_MAX;
            if (same > 0)
                memcpy(k->prefix, slot->key.p, same);
            first = false;
        } else {
            same = common(slot->key, k->prefix, same);
        }
    }
    k->ties = 0;
    k->ties_max = same > k->skip ? TIES : k->ties_max < UINT32_MAX / 2 ? 2 * k->ties_max : k->ties_max;
    skip_set(k, same);
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
    if (__builtin_expect(k->ties >= k->ties_max, 0))
        look(k);
}

bool sf__kway_runner_up(const sf_kway *k, uint32_t *source)
{
    const struct sf_kway_match *best = NULL;

    for (size_t node = ((size_t)k->losers[0].source + k->count) / 2; node > 0; node /= 2) {
        const struct sf_kway_match *m = &k->losers[node];
        bool before = !best || m->head < best->head;

        if (best && m->head == best->head)
            before = compare_equals(k, m->source, best->source);
        best = before ? m : best;
    }
    if (!best || k->slots[best->source].ended)
        return false;
    *source = best->source;
    return true;
}
