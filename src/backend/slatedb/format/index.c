#include "backend/slatedb/format/index.h"

#include "backend/slatedb/format/flatbuf.h"

enum { INDEX_BLOCK_META };
enum { META_OFFSET, META_FIRST_KEY };

/* What an entry takes at least: its slot, and a table with an offset or a key. */
#define ENTRY_MIN_BYTES 20u

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
    size_t marks = sf__index_mark_count(&(sf_index){.count = count}) + 1;

    return (size_t)count * (2 * sizeof(uint64_t) + sizeof(uint32_t)) + sizeof(uint64_t) +
           (marks + 1) * sizeof(uint32_t) + key_bytes;
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

static void marks_fill(sf_index *idx)
{
    const uint64_t *heads = sf__index_heads(idx);
    uint64_t span = heads[idx->count - 1] - heads[idx->leading_empty];
    uint32_t *marks = sf__index_marks(idx), count = sf__index_mark_count(idx), part = 0;

    if (count > 1 && count <= span)
        idx->parts_per_head = (uint64_t)(((unsigned __int128)count << 64) / ((unsigned __int128)span + 1));
    for (uint32_t i = idx->leading_empty; i < idx->count; i++)
        for (; part <= sf__index_part_of(idx, heads[i]); part++)
            marks[part] = i;
    for (; part <= count; part++)
        marks[part] = idx->count;
}

/* Whether the first 8 bytes tell bounds from one another, from `from` on. */
static bool first_bytes_differ(const sf_index *idx, uint32_t from)
{
    for (uint32_t i = from + 1; i < idx->count; i++)
        if (sf_bytes_head(sf__index_block_bound(idx, i - 1), 0) == sf_bytes_head(sf__index_block_bound(idx, i), 0))
            return false;
    return true;
}

/* Sorted bounds share what the first and the last share. It is left out of heads unless they do without that, as those of integers do. */
static void heads_fill(sf_index *idx)
{
    uint64_t *heads = sf__index_heads(idx);
    uint32_t e = 0;

    while (e < idx->count && sf__index_block_bound(idx, e).n == 0)
        e++;
    idx->leading_empty = e;
    if (e < idx->count && !first_bytes_differ(idx, e))
        idx->shared_len =
            (uint32_t)shared_prefix(sf__index_block_bound(idx, e), sf__index_block_bound(idx, idx->count - 1));
    for (uint32_t i = 0; i < idx->count; i++)
        heads[i] = i < e ? 0 : sf_bytes_head(sf__index_block_bound(idx, i), idx->shared_len);
    idx->quick = idx->shared_len == 0 && idx->count - e >= SF_INDEX_FEW;
    if (e < idx->count)
        marks_fill(idx);
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

/* First of `n` > 0 heads that is >= head; no branch depends on what is compared. */
static inline const uint64_t *lower_bound(const uint64_t *heads, uint32_t n, uint64_t head)
{
    while (n > 1) {
        uint32_t half = n / 2;

        heads += half & -(uint32_t)(heads[half - 1] < head); /* of a choice a compiler may make a branch */
        n -= half;
    }
    return heads + (*heads < head);
}

/* First of the heads, from the first bound that is not empty on, that is >= head. There is such a bound. */
static uint32_t heads_lower_bound(const sf_index *idx, uint64_t head)
{
    const uint64_t *heads = sf__index_heads(idx);
    const uint32_t *marks = sf__index_marks(idx);
    uint32_t e = idx->leading_empty, part, n, from;

    if (head <= heads[e])
        return e;
    if (head > heads[idx->count - 1])
        return idx->count;
    if (idx->count - e >= SF_INDEX_FEW && sf__index_few(idx, head, &from))
        return sf__index_bound_of_few(idx, head, from);
    part = sf__index_part_of(idx, head);
    n = marks[part + 1] - marks[part];
    return (uint32_t)(lower_bound(heads + marks[part], n > 0 ? n : 1, head) - heads);
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
static inline void search(const sf_index *idx, sf_bytes key, uint32_t *lower, uint32_t *upper)
{
    uint32_t e = idx->leading_empty, lo, hi;
    uint64_t head;

    if (key.n == 0 || e == idx->count) {
        *lower = key.n == 0 ? 0 : e;
        *upper = e;
        return;
    }
    if (idx->shared_len > 0 && (key.n < idx->shared_len ||
                                !sf_bytes_same(key.p, sf__index_keys(idx),
                                               idx->shared_len))) { /* the first bound that is not empty lies at keys */
        *lower = *upper = sf_bytes_cmp(key, sf_bytes_of(sf__index_keys(idx), idx->shared_len)) > 0 ? idx->count : e;
        return;
    }
    head = sf_bytes_head(key, idx->shared_len);
    lo = heads_lower_bound(idx, head);
    if (lo == idx->count || sf__index_heads(idx)[lo] != head) {
        *lower = *upper = lo;
        return;
    }
    hi = head == UINT64_MAX ? idx->count : heads_lower_bound(idx, head + 1);
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

bool sf__index_only_candidate(const sf_index *idx, sf_bytes key, uint32_t *block)
{
    sf_index_range r = sf__index_candidates(idx, key);

    *block = r.first;
    return key.n > 0 && r.first == r.last;
}
