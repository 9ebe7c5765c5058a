#include "backend/slatedb/format/index.h"

#include "backend/slatedb/format/flatbuf.h"

enum { INDEX_BLOCK_META };
enum { META_OFFSET, META_FIRST_KEY };

/* What an entry takes at least: its slot, and a table with an offset or a key. */
#define ENTRY_MIN_BYTES 20u

/* The 8 bytes of s from `skip` on as a number that sorts like them; a shorter rest is filled up with zeroes. */
static uint64_t head_of(sf_bytes s, size_t skip)
{
    size_t n = s.n - skip;
    uint64_t v;

    if (n >= 8)
        return sf_load_be(s.p + skip, 8);
    v = sf_load_be(n > 0 ? s.p + skip : s.p, n);
    return n > 0 ? v << (8 * (8 - n)) : 0;
}

static sf_status entry_decode(const sf_fb_vector *v, uint32_t i, uint64_t *off, sf_bytes *key, sf_error *err)
{
    sf_fb_table t;
    sf_status rc = sf__fb_tables_at(v, i, &t, err);

    if (rc == SF_OK)
        rc = sf__fb_u64(&t, META_OFFSET, 0, off, err);
    if (rc == SF_OK)
        rc = sf__fb_bytes(&t, META_FIRST_KEY, SF_FB_REQUIRED, "first_key", key, NULL, err);
    return rc;
}

/* Pass 1: everything that can be wrong. */
static sf_status entries_check(const sf_fb_vector *v, size_t plain_n, uint64_t blocks_end, size_t *key_bytes,
                               sf_error *err)
{
    uint64_t off, prev_off = 0;
    sf_bytes key, prev_key = {0};

    *key_bytes = 0;
    if (v->count > plain_n / ENTRY_MIN_BYTES)
        return sf_fail(err, SF_CORRUPT, "%u blocks in %zu bytes", v->count, plain_n);
    for (uint32_t i = 0; i < v->count; i++) {
        sf_status rc = entry_decode(v, i, &off, &key, err);

        if (rc != SF_OK)
            return sf_error_prefix(err, rc, "block %u: ", i);
        if (i > 0 && off <= prev_off)
            return sf_fail(err, SF_CORRUPT, "block %u at %llu, the one before at %llu", i, (unsigned long long)off,
                           (unsigned long long)prev_off);
        if (off >= blocks_end)
            return sf_fail(err, SF_CORRUPT, "block %u at %llu, but the blocks end at %llu", i, (unsigned long long)off,
                           (unsigned long long)blocks_end);
        if (i > 0 && sf_bytes_cmp(key, prev_key) < 0)
            return sf_fail(err, SF_CORRUPT, "block %u: its first key is below that of the block before", i);
        if (key.n > plain_n - *key_bytes) /* keys are not shared, so they fit together */
            return sf_fail(err, SF_CORRUPT, "block %u: more bytes of keys than the index has", i);
        *key_bytes += key.n;
        prev_off = off;
        prev_key = key;
    }
    return SF_OK;
}

static size_t bytes_for(uint32_t count, size_t key_bytes)
{
    return (size_t)count * (2 * sizeof(uint64_t) + sizeof(uint32_t)) + sizeof(uint64_t) + sizeof(uint32_t) + key_bytes;
}

static sf_status index_alloc(sf_index *idx, uint32_t count, size_t key_bytes, const sf_allocator *a, sf_error *err)
{
    uint64_t *p = sf__alloc(a, bytes_for(count, key_bytes));

    if (!p)
        return sf_fail(err, SF_NOMEM, "index of %u blocks", count);
    *idx = (sf_index){.count = count, .offs = p};
    return SF_OK;
}

static size_t shared_prefix(sf_bytes a, sf_bytes b)
{
    size_t n = 0;

    while (n < a.n && n < b.n && a.p[n] == b.p[n])
        n++;
    return n;
}

/* Sorted bounds share what the first and the last share. */
static void heads_fill(sf_index *idx)
{
    uint64_t *heads = sf__index_heads(idx);
    uint32_t e = 0;

    while (e < idx->count && sf__index_block_bound(idx, e).n == 0)
        e++;
    idx->leading_empty = e;
    if (e < idx->count)
        idx->shared_len = (uint32_t)shared_prefix(sf__index_block_bound(idx, e),
                                                  sf__index_block_bound(idx, idx->count - 1));
    for (uint32_t i = 0; i < idx->count; i++)
        heads[i] = i < e ? 0 : head_of(sf__index_block_bound(idx, i), idx->shared_len);
    if (e < idx->count && heads[idx->count - 1] > heads[e])
        idx->blocks_per_head = (double)(idx->count - 1 - e) / (double)(heads[idx->count - 1] - heads[e]);
}

sf_status sf__index_decode(sf_index *out, sf_bytes plain, uint64_t blocks_end, const sf_allocator *a, sf_error *err)
{
    sf_index idx = {0};
    sf_fb_table root;
    sf_fb_vector v;
    size_t key_bytes;
    uint32_t pos = 0;
    sf_bytes key;
    sf_status rc;

    rc = sf__fb_root(plain, &root, err);
    if (rc == SF_OK)
        rc = sf__fb_tables(&root, INDEX_BLOCK_META, SF_FB_REQUIRED, "block_meta", &v, NULL, err);
    if (rc == SF_OK)
        rc = entries_check(&v, plain.n, blocks_end, &key_bytes, err);
    if (rc == SF_CORRUPT) {
        sf_error_prefix(err, rc, "index" SF_TRANSFORMER_HINT ": ");
        return rc;
    }
    if (rc == SF_OK)
        rc = index_alloc(&idx, v.count, key_bytes, a, err);
    if (rc != SF_OK)
        return rc;
    for (uint32_t i = 0; i < v.count; i++) {
        rc = entry_decode(&v, i, &idx.offs[i], &key, err);
        if (rc != SF_OK) {
            sf__index_cleanup(&idx, a);
            return rc;
        }
        sf__index_key_pos(&idx)[i] = pos;
        if (key.n > 0)
            memcpy(sf__index_keys(&idx) + pos, key.p, key.n);
        pos += (uint32_t)key.n;
    }
    sf__index_key_pos(&idx)[v.count] = pos;
    idx.offs[v.count] = blocks_end;
    heads_fill(&idx);
    *out = idx;
    return SF_OK;
}

void sf__index_cleanup(sf_index *idx, const sf_allocator *a)
{
    sf__free(a, idx->offs);
    *idx = (sf_index){0};
}

size_t sf__index_bytes(const sf_index *idx)
{
    return idx->offs ? bytes_for(idx->count, sf__index_key_pos(idx)[idx->count]) : 0;
}

#define NEAR 16u /* blocks: so far off is the guess of keys that are spread evenly, mostly */

/* Most keys are integers or hashes, spread evenly: then the place can be told, and the search begins around it. From heads[*lo], *n of
 * them; what is looked for is among those that are left, or right behind them. */
static inline void heads_narrow(const sf_index *idx, uint32_t *lo, uint32_t *n, uint64_t head)
{
    const uint64_t *heads = sf__index_heads(idx) + *lo;
    uint64_t first = sf__index_heads(idx)[idx->leading_empty];
    double guess = (head > first ? (double)(head - first) : 0) * idx->blocks_per_head + idx->leading_empty - *lo;
    uint32_t at, from, to;

    if (*n <= 4 * NEAR)
        return;
    at = guess <= 0 ? 0 : guess >= *n - 1 ? *n - 1 : (uint32_t)guess;
    from = at > NEAR ? at - NEAR : 0;
    to = at + NEAR < *n ? at + NEAR : *n - 1;
    if (heads[to] >= head)
        *n = to + 1;
    else
        from = to;
    if (heads[from] < head) {
        *lo += from;
        *n -= from;
    } else {
        *n = from + 1;
    }
}

/* First of heads[lo .. count) that is >= head; no branch of the search depends on what is compared. */
static uint32_t heads_lower_bound(const sf_index *idx, uint32_t lo, uint64_t head)
{
    const uint64_t *base;
    uint32_t n = idx->count - lo;

    if (n == 0)
        return lo;
    heads_narrow(idx, &lo, &n, head);
    base = sf__index_heads(idx) + lo;
    while (n > 1) {
        uint32_t half = n / 2;

        base += base[half - 1] < head ? half : 0;
        n -= half;
    }
    return (uint32_t)(base - sf__index_heads(idx)) + (*base < head);
}

static int bound_cmp(const sf_index *idx, uint32_t i, sf_bytes key)
{
    sf_bytes bound = sf__index_block_bound(idx, i);
    uint32_t skip = idx->shared_len; /* the key begins with it, like the bound */

    return sf_bytes_cmp((sf_bytes){bound.p + skip, bound.n - skip}, (sf_bytes){key.p + skip, key.n - skip});
}

/* First in [lo, hi) whose bound is >= key (> key with `above`), by whole keys. */
static uint32_t keys_bound(const sf_index *idx, uint32_t lo, uint32_t hi, sf_bytes key, bool above)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        int c = bound_cmp(idx, mid, key);

        if (c < 0 || (above && c == 0))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Both bounds at once: *lower = first bound >= key, *upper = first bound > key. */
static void search(const sf_index *idx, sf_bytes key, uint32_t *lower, uint32_t *upper)
{
    uint32_t e = idx->leading_empty, lo, hi;
    size_t n = key.n < idx->shared_len ? key.n : idx->shared_len;
    uint64_t head;
    int c;

    if (key.n == 0 || e == idx->count) {
        *lower = key.n == 0 ? 0 : e;
        *upper = e;
        return;
    }
    c = n > 0 ? memcmp(key.p, sf__index_keys(idx), n) : 0; /* the first bound that is not empty lies at keys */
    if (c != 0 || n < idx->shared_len) {
        *lower = *upper = c > 0 ? idx->count : e;
        return;
    }
    head = head_of(key, n);
    lo = heads_lower_bound(idx, e, head);
    if (lo == idx->count || sf__index_heads(idx)[lo] != head) {
        *lower = *upper = lo;
        return;
    }
    hi = head == UINT64_MAX ? idx->count : heads_lower_bound(idx, lo, head + 1);
    *lower = keys_bound(idx, lo, hi, key, false);
    *upper = keys_bound(idx, *lower, hi, key, true);
}

uint32_t sf__index_lower_bound(const sf_index *idx, sf_bytes key)
{
    uint32_t lower, upper;

    search(idx, key, &lower, &upper);
    return lower;
}

uint32_t sf__index_upper_bound(const sf_index *idx, sf_bytes key)
{
    uint32_t lower, upper;

    search(idx, key, &lower, &upper);
    return upper;
}

sf_index_range sf__index_candidates(const sf_index *idx, sf_bytes key)
{
    uint32_t lower, upper;

    search(idx, key, &lower, &upper);
    if (upper == 0)
        return (sf_index_range){1, 0};
    return (sf_index_range){lower > 0 ? lower - 1 : 0, upper - 1};
}
