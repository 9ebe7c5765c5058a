#include "backend/slatedb/format/sst_info_write.h"

#include "base/checksum.h"

sf_fb_layout sf__sst_info_layout(void)
{
    static const uint8_t sizes[SF_SST_INFO_FIELDS] = {
        [SF_SST_INFO_FIRST_ENTRY] = 4,   [SF_SST_INFO_INDEX_OFFSET] = 8,  [SF_SST_INFO_INDEX_LEN] = 8,
        [SF_SST_INFO_FILTER_OFFSET] = 8, [SF_SST_INFO_FILTER_LEN] = 8,    [SF_SST_INFO_COMPRESSION_FORMAT] = 1,
        [SF_SST_INFO_SST_TYPE] = 1,      [SF_SST_INFO_LAST_ENTRY] = 4,    [SF_SST_INFO_STATS_OFFSET] = 8,
        [SF_SST_INFO_STATS_LEN] = 8,     [SF_SST_INFO_FILTER_FORMAT] = 1,
    };

    return sf__fb_layout(sizes, SF_SST_INFO_FIELDS);
}

void sf__sst_info_put(sf_fb_writer *w, const sf_fb_layout *l, size_t vtable, size_t ref, const sf_sst_info *info)
{
    size_t t = sf__fb_put_table(w, l, vtable, ref);

    sf__fb_set(w, l, t, SF_SST_INFO_INDEX_OFFSET, info->index_off);
    sf__fb_set(w, l, t, SF_SST_INFO_INDEX_LEN, info->index_len);
    sf__fb_set(w, l, t, SF_SST_INFO_FILTER_OFFSET, info->filter_off);
    sf__fb_set(w, l, t, SF_SST_INFO_FILTER_LEN, info->filter_len);
    sf__fb_set(w, l, t, SF_SST_INFO_COMPRESSION_FORMAT, info->codec);
    sf__fb_set(w, l, t, SF_SST_INFO_SST_TYPE, info->sst_type);
    sf__fb_set(w, l, t, SF_SST_INFO_STATS_OFFSET, info->stats_off);
    sf__fb_set(w, l, t, SF_SST_INFO_STATS_LEN, info->stats_len);
    sf__fb_set(w, l, t, SF_SST_INFO_FILTER_FORMAT, info->filter_format);
    sf__fb_put_bytes(w, sf__fb_slot(l, t, SF_SST_INFO_FIRST_ENTRY), info->first_key);
    sf__fb_put_bytes(w, sf__fb_slot(l, t, SF_SST_INFO_LAST_ENTRY), info->last_key);
}

sf_buf *sf__sst_tail_encode(const sf_sst_info *info, uint64_t info_off, const sf_allocator *a)
{
    sf_fb_layout l = sf__sst_info_layout();
    sf_fb_writer w;
    sf_bytes fb;
    sf_buf *b = NULL;

    sf__fb_writer_init(&w, (sf_bytes){0}, a);
    sf__sst_info_put(&w, &l, sf__fb_put_vtable(&w, &l), 0, info);
    fb = sf__fb_written(&w);
    if (sf__fb_ok(&w))
        b = sf__buf_new(a, fb.n + SF_STORED_CRC_BYTES + SF_SST_FOOTER_BYTES);
    if (b) {
        memcpy(b->data, fb.p, fb.n);
        sf_store_be(b->data + fb.n, 4, sf__crc32(fb));
        sf_store_be(b->data + fb.n + 4, 8, info_off);
        sf_store_be(b->data + fb.n + 12, 2, SF_SST_VERSION_WRITTEN);
    }
    sf__fb_writer_cleanup(&w);
    return b;
}
