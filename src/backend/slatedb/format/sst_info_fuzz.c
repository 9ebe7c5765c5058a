/* Input: u8 mode | bytes. Mode 0: a whole object. Mode 1: a plain info, which is taken directly, and then with a checksum
 * and a footer as the end of an object: both ways agree. */
#include <stdlib.h>

#include "backend/slatedb/format/sst_info.h"
#include "base/checksum.h"
#include "base/limits.h"

static void must(bool ok)
{
    if (!ok)
        abort();
}

static bool same_info(const sf_sst_info *a, const sf_sst_info *b)
{
    return sf_bytes_eq(a->first_key, b->first_key) && sf_bytes_eq(a->last_key, b->last_key) &&
           a->has_first_key == b->has_first_key && a->has_last_key == b->has_last_key && a->index_off == b->index_off &&
           a->index_len == b->index_len && a->filter_off == b->filter_off && a->filter_len == b->filter_len &&
           a->stats_off == b->stats_off && a->stats_len == b->stats_len && a->codec == b->codec &&
           a->sst_type == b->sst_type && a->filter_format == b->filter_format;
}

/* The parts lie one after the other before `end`, and can be asked for. */
static void check_info(const sf_sst_info *info, uint64_t end)
{
    uint64_t blocks_end = sf__sst_blocks_end(info), meta_len = sf__sst_meta_len(info);

    must(blocks_end <= info->index_off && info->index_off < end && info->index_len <= end - info->index_off);
    must(info->index_len >= SF_STORED_CRC_BYTES && info->index_len <= SF_LIMIT_META_BYTES);
    must(sf__sst_meta_off(info) == blocks_end && meta_len == info->filter_len + info->index_len);
    must(info->filter_len == 0 || info->filter_off + info->filter_len == info->index_off);
    if (info->stats_len > 0)
        must(info->stats_off >= info->index_off + info->index_len && info->stats_off <= end &&
             info->stats_len <= end - info->stats_off);
    must(info->codec >= SF_CODEC_NONE && info->codec <= SF_CODEC_ZSTD && info->sst_type <= SF_SST_WAL);
    must(info->has_first_key || info->first_key.n == 0);
    must(!info->has_first_key || !info->has_last_key || sf_bytes_cmp(info->first_key, info->last_key) <= 0);
}

static void check_object(sf_bytes object)
{
    sf_sst_info info;
    sf_sst_footer footer;
    bool empty = false;

    if (sf__sst_open(&info, &footer, &empty, object, NULL) != SF_OK)
        return;
    must(empty == (object.n <= SF_SST_FOOTER_BYTES));
    if (empty)
        return;
    must(footer.info_off + footer.info_len + SF_SST_FOOTER_BYTES == object.n);
    check_info(&info, footer.info_off);
}

static void check_plain(sf_bytes plain)
{
    enum { INFO_OFF = 5000 };
    size_t n = INFO_OFF + plain.n + SF_STORED_CRC_BYTES + SF_SST_FOOTER_BYTES;
    sf_fb_table t;
    sf_sst_info direct, open;
    sf_sst_footer footer;
    bool empty;
    sf_status rc = sf__fb_root(plain, &t, NULL);
    sf_buf *b;

    if (rc == SF_OK && sf__sst_info_from_table(&direct, &t, UINT64_MAX, NULL) == SF_OK)
        check_info(&direct, UINT64_MAX);
    if (rc == SF_OK)
        rc = sf__sst_info_from_table(&direct, &t, INFO_OFF, NULL);
    b = sf__buf_new(&sf__allocator_default, n);
    must(b != NULL);
    memset(b->data, 0, INFO_OFF);
    if (plain.n > 0)
        memcpy(b->data + INFO_OFF, plain.p, plain.n);
    sf_store_be(b->data + INFO_OFF + plain.n, 4, sf__crc32(plain));
    sf_store_be(b->data + n - SF_SST_FOOTER_BYTES, 8, INFO_OFF);
    sf_store_be(b->data + n - 2, 2, 2);
    must((sf__sst_open(&open, &footer, &empty, sf__buf_bytes(b), NULL) == SF_OK) == (rc == SF_OK));
    if (rc == SF_OK) {
        must(!empty && same_info(&direct, &open));
        check_info(&open, INFO_OFF);
    }
    sf__buf_release(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_cursor in = {data, size};
    uint8_t mode;

    if (!sf_cursor_u8(&in, &mode))
        return 0;
    if (mode & 1)
        check_plain(in);
    else
        check_object(in);
    return 0;
}
