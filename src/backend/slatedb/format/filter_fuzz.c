/* Input: u8 format | u8 length of a key | key | plain filter block.
 *
 * The answer agrees with the text of docs/formats/slatedb.md 5.5 taken literally, and a legacy filter wrapped up as a
 * composite one answers the same. */
#include <stdlib.h>

#include "backend/slatedb/format/filter.h"

static void must(bool ok)
{
    if (!ok)
        abort();
}

static bool literal_may_contain(const sf_bloom *b, uint64_t hash)
{
    uint64_t m = b->bit_count, h, d;

    if (m == 0)
        return false;
    h = (hash & UINT32_MAX) % m;
    d = (hash >> 32) % m;
    for (uint64_t i = 0; i < b->probes; i++) {
        d = (d + i) % m;
        if ((b->bits[h / 8] & 1u << h % 8) == 0)
            return false;
        h = (h + d) % m;
    }
    return true;
}

static void check_wrapped(sf_bytes plain, sf_bytes key, bool want)
{
    sf_buf *b = sf__buf_new(&sf__allocator_default, 2 + 2 + 3 + 8 + plain.n);
    sf_filter f;

    must(b != NULL);
    sf_store_be(b->data, 2, 1);
    sf_store_be(b->data + 2, 2, 3);
    memcpy(b->data + 4, "_bf", 3);
    sf_store_be(b->data + 7, 8, plain.n);
    memcpy(b->data + 15, plain.p, plain.n);
    must(sf__filter_decode(&f, sf__buf_bytes(b), b, SF_FILTER_COMPOSITE, NULL) == SF_OK);
    sf__buf_release(b);
    must(f.count == 1 && sf__filter_may_contain(&f, key) == want);
    sf__filter_cleanup(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_cursor in = {data, size};
    uint8_t format, key_len;
    sf_bytes key;
    sf_filter f;
    bool want = true;
    sf_status rc;

    if (!sf_cursor_u8(&in, &format) || !sf_cursor_u8(&in, &key_len) || !sf_cursor_take(&in, key_len, &key))
        return 0;
    rc = sf__filter_decode(&f, in, NULL, format, NULL);
    must((rc == SF_UNSUPPORTED) == (format > SF_FILTER_COMPOSITE));
    if (rc != SF_OK)
        return 0;
    must(f.count <= SF_FILTER_MAX_BLOOMS && (format != SF_FILTER_LEGACY || f.count == 1));
    for (uint32_t i = 0; i < f.count; i++) {
        must(f.blooms[i].bits >= in.p && f.blooms[i].bits + f.blooms[i].bit_count / 8 <= in.p + in.n);
        want = want && literal_may_contain(&f.blooms[i], sf__siphash13(key));
    }
    must(sf__filter_may_contain(&f, key) == want);
    must(sf__filter_may_contain_hash(&f, sf__filter_hash(key)) == want);
    must(sf__filter_may_contain_all(&f, (uint64_t[]){sf__filter_hash(key), sf__filter_hash(key)}, 2) == want);
    if (format == SF_FILTER_LEGACY)
        check_wrapped(in, key, want);
    sf__filter_cleanup(&f);
    return 0;
}
