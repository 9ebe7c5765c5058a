#include "backend/slatedb/format/block.h"

#include "backend/slatedb/format/block_row.h"
#include "backend/slatedb/format/compress.h" /* SF_TRANSFORMER_HINT */
#include "backend/slatedb/format/sst_info.h" /* versions */
#include "base/limits.h"

sf_status sf__block_bad_row(const sf_block *b, size_t pos, sf_error *err)
{
    return sf_fail(err, SF_CORRUPT, "block: no valid row at %zu of %zu bytes" SF_TRANSFORMER_HINT, pos, b->rows.n);
}

static sf_status bad_shared(size_t pos, uint32_t shared, size_t key_len, sf_error *err)
{
    return sf_fail(err, SF_CORRUPT, "block: the row at %zu shares %u bytes with a key of %zu" SF_TRANSFORMER_HINT, pos,
                   shared, key_len);
}

sf_status sf__block_init(sf_block *out, sf_bytes plain, unsigned version, sf_error *err)
{
    size_t trailer;
    uint32_t n;

    if (version < SF_SST_VERSION_MIN || version > SF_SST_VERSION_MAX)
        return sf__sst_version_check(version, err);
    if (plain.n < 2)
        return sf_fail(err, SF_CORRUPT, "block of %zu bytes" SF_TRANSFORMER_HINT, plain.n);
    n = (uint32_t)sf_load_be(plain.p + plain.n - 2, 2);
    trailer = 2 * (size_t)n + 2;
    if (n == 0 || trailer >= plain.n)
        return sf_fail(err, SF_CORRUPT, "block: %u offsets in %zu bytes" SF_TRANSFORMER_HINT, n, plain.n);
    out->rows = (sf_bytes){plain.p, plain.n - trailer};
    out->offsets = plain.p + (plain.n - trailer);
    out->offset_count = n;
    out->version = (uint8_t)version;
    return SF_OK;
}

static sf_status check_v1(const sf_block *b, sf_error *err)
{
    sf_cursor c = b->rows;
    sf_stored_row r;
    size_t first_len = 0;

    for (uint32_t i = 0; i < b->offset_count; i++) {
        size_t pos = b->rows.n - c.n;

        if (sf__block_offset(b, i) != pos)
            return sf_fail(err, SF_CORRUPT, "block: row %u lies at %zu, its offset says %zu" SF_TRANSFORMER_HINT, i,
                           pos, sf__block_offset(b, i));
        if (!sf__row_v1(&c, &r))
            return sf__block_bad_row(b, pos, err);
        if (r.shared > first_len)
            return bad_shared(pos, r.shared, first_len, err);
        if (i == 0)
            first_len = r.suffix.n;
    }
    if (c.n > 0)
        return sf_fail(err, SF_CORRUPT, "block: %zu bytes behind the last row" SF_TRANSFORMER_HINT, c.n);
    return SF_OK;
}

static sf_status check_v2(const sf_block *b, sf_error *err)
{
    sf_cursor c = b->rows;
    sf_stored_row r;
    size_t prev_len = 0;
    uint32_t restart = 0;

    while (c.n > 0) {
        size_t pos = b->rows.n - c.n;
        bool at_restart = restart < b->offset_count && sf__block_offset(b, restart) == pos;

        if (!sf__row_v2(&c, &r))
            return sf__block_bad_row(b, pos, err);
        if (r.shared > (at_restart ? 0 : prev_len))
            return bad_shared(pos, r.shared, at_restart ? 0 : prev_len, err);
        if (pos == 0 && !at_restart)
            break;
        restart += at_restart;
        prev_len = r.shared + r.suffix.n;
    }
    if (restart < b->offset_count)
        return sf_fail(err, SF_CORRUPT,
                       "block: restart %u is said to lie at %zu, where no row begins" SF_TRANSFORMER_HINT, restart,
                       sf__block_offset(b, restart));
    return SF_OK;
}

sf_status sf__block_check(sf_bytes plain, unsigned version, sf_error *err)
{
    sf_block b;
    sf_status rc = sf__block_init(&b, plain, version, err);

    if (rc != SF_OK)
        return rc;
    if (plain.n > SF_LIMIT_BLOCK_OF_ROWS_BYTES) { /* looking for a row in it must not take long */
        sf_cursor c = b.rows;
        sf_stored_row r;
        bool valid = b.version == 1 ? sf__row_v1(&c, &r) : sf__row_v2(&c, &r);

        if (valid && c.n > 0)
            return sf_fail(
                err, SF_CORRUPT,
                "block of %zu bytes, which only a single row may take; its first one takes %zu" SF_TRANSFORMER_HINT,
                plain.n, b.rows.n - c.n);
    }
    return b.version == 1 ? check_v1(&b, err) : check_v2(&b, err);
}

/* How many bytes a and b begin with in common. */
static inline size_t common(sf_bytes a, sf_bytes b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    size_t i = 0;

    while (n - i >= 8) {
        uint64_t x, y;

        memcpy(&x, a.p + i, 8);
        memcpy(&y, b.p + i, 8);
        if (x != y)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            return i + (size_t)(__builtin_ctzll(x ^ y) >> 3);
#else
            return i + (size_t)(__builtin_clzll(x ^ y) >> 3);
#endif
        i += 8;
    }
    while (i < n && a.p[i] == b.p[i])
        i++;
    return i;
}

sf_status sf__block_restart_below(const sf_block *b, sf_bytes key, uint32_t *restart, bool *none, sf_error *err)
{
    uint32_t lo = 0, hi = b->offset_count; /* restarts below lo have a key < key, those from hi on do not */

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        size_t pos = sf__block_offset(b, mid);
        sf_cursor c;
        sf_stored_row r;
        size_t k;

        if (!sf__block_rows_from(b, pos, &c) || !sf__row_v2(&c, &r) || r.shared != 0)
            return sf__block_bad_row(b, pos, err);
        k = common(r.suffix, key);
        if (k < key.n && (k == r.suffix.n || r.suffix.p[k] < key.p[k]))
            lo = mid + 1;
        else
            hi = mid;
    }
    *none = lo == 0;
    *restart = lo > 0 ? lo - 1 : 0;
    return SF_OK;
}

/* Walks the rows without ever building a key. `m` = how many bytes the key before has in common with `key`; that key
 * is below `key`, or an invisible version of it. A row that shares more than m bytes with it differs from `key` at the
 * same byte in the same way. */
static sf_status get_v2(const sf_block *b, sf_bytes key, uint64_t max_seq, bool *found, sf_block_row *row, sf_error *err)
{
    uint32_t restart;
    bool none;
    sf_cursor c;
    sf_stored_row r;
    size_t m = 0, prev_len = 0;
    sf_status rc = sf__block_restart_below(b, key, &restart, &none, err);

    if (rc != SF_OK)
        return rc;
    if (!sf__block_rows_from(b, sf__block_offset(b, restart), &c))
        return sf__block_bad_row(b, sf__block_offset(b, restart), err);
    while (c.n > 0) {
        size_t pos = b->rows.n - c.n;

        if (!sf__row_v2(&c, &r))
            return sf__block_bad_row(b, pos, err);
        if (r.shared > prev_len)
            return bad_shared(pos, r.shared, prev_len, err);
        prev_len = r.shared + r.suffix.n;
        if (r.shared <= m) {
            size_t k = common(r.suffix, (sf_bytes){key.p + r.shared, key.n - r.shared});

            m = r.shared + k;
            if (m == key.n) {
                if (k < r.suffix.n)
                    break; /* longer than `key`, so above it */
                if (r.seq <= max_seq) {
                    sf__row_out(&r, row);
                    row->key = key;
                    *found = true;
                    return SF_OK;
                }
            } else if (k < r.suffix.n && r.suffix.p[k] > key.p[m]) {
                break;
            }
        }
    }
    *found = false;
    return SF_OK;
}

sf_status sf__block_v1_first_key(const sf_block *b, sf_bytes *first_key, sf_error *err)
{
    sf_cursor c = b->rows;
    sf_stored_row r;

    if (!sf__row_v1(&c, &r) || r.shared != 0)
        return sf__block_bad_row(b, 0, err);
    *first_key = r.suffix;
    return SF_OK;
}

/* Order of the key of row i against `key`, which has `m` bytes in common with the block's first key. */
static sf_status v1_cmp(const sf_block *b, uint32_t i, sf_bytes key, sf_bytes first, size_t m, int *order,
                        sf_stored_row *r, sf_error *err)
{
    size_t pos = sf__block_offset(b, i);
    sf_cursor c;

    if (!sf__block_rows_from(b, pos, &c) || !sf__row_v1(&c, r))
        return sf__block_bad_row(b, pos, err);
    if (i == 0 ? r->shared != 0 : r->shared > first.n)
        return bad_shared(pos, r->shared, i == 0 ? 0 : first.n, err);
    if (r->shared > m) /* like the first key, of which more than m bytes are here */
        *order = m == key.n ? 1 : first.p[m] > key.p[m] ? 1 : -1;
    else
        *order = sf_bytes_cmp(r->suffix, (sf_bytes){key.p + r->shared, key.n - r->shared});
    return SF_OK;
}

sf_status sf__block_v1_lower_bound(const sf_block *b, sf_bytes key, uint32_t *row, sf_bytes *first_key, sf_error *err)
{
    uint32_t lo = 0, hi = b->offset_count;
    sf_stored_row r;
    size_t m;
    sf_status rc = sf__block_v1_first_key(b, first_key, err);

    if (rc != SF_OK)
        return rc;
    if (!key.p) /* the empty key: NULL + 0 is undefined */
        key.p = (const uint8_t *)"";
    m = common(*first_key, key);
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        int order;

        rc = v1_cmp(b, mid, key, *first_key, m, &order, &r, err);
        if (rc != SF_OK)
            return rc;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *row = lo;
    return SF_OK;
}

static sf_status get_v1(const sf_block *b, sf_bytes key, uint64_t max_seq, bool *found, sf_block_row *row, sf_error *err)
{
    sf_bytes first;
    sf_stored_row r;
    uint32_t i;
    size_t m;
    sf_status rc = sf__block_v1_lower_bound(b, key, &i, &first, err);

    if (rc != SF_OK)
        return rc;
    m = common(first, key);
    for (; i < b->offset_count; i++) {
        int order;

        rc = v1_cmp(b, i, key, first, m, &order, &r, err);
        if (rc != SF_OK)
            return rc;
        if (order != 0)
            break;
        if (r.seq <= max_seq) {
            sf__row_out(&r, row);
            row->key = key;
            *found = true;
            return SF_OK;
        }
    }
    *found = false;
    return SF_OK;
}

sf_status sf__block_get(const sf_block *b, sf_bytes key, uint64_t max_seq, bool *found, sf_block_row *row, sf_error *err)
{
    if (!key.p) /* the empty key: NULL + 0 is undefined */
        key.p = (const uint8_t *)"";
    return b->version == 1 ? get_v1(b, key, max_seq, found, row, err) : get_v2(b, key, max_seq, found, row, err);
}
