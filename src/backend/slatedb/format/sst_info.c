#include "backend/slatedb/format/sst_info.h"

#include "base/limits.h"

sf_status sf__sst_version_check(unsigned version, sf_error *err)
{
    if (version < SF_SST_VERSION_MIN || version > SF_SST_VERSION_MAX)
        return sf_fail(err, SF_UNSUPPORTED, "SST format version %u", version);
    return SF_OK;
}

/* [off, off + len) starts at or after *pos and ends at or before `end`; *pos moves to its end. */
static sf_status part_check(const char *what, uint64_t off, uint64_t len, uint64_t *pos, uint64_t end, sf_error *err)
{
    if (len < SF_STORED_CRC_BYTES)
        return sf_fail(err, SF_CORRUPT, "SST info: %s of %llu bytes", what, (unsigned long long)len);
    if (off < *pos || off > end || len > end - off)
        return sf_fail(err, SF_CORRUPT, "SST info: %s at %llu, %llu bytes, does not lie between %llu and %llu", what,
                       (unsigned long long)off, (unsigned long long)len, (unsigned long long)*pos,
                       (unsigned long long)end);
    if (len > SF_LIMIT_META_BYTES)
        return sf_fail(err, SF_UNSUPPORTED, "SST info: %s of %llu bytes, more than %u", what, (unsigned long long)len,
                       SF_LIMIT_META_BYTES);
    *pos = off + len;
    return SF_OK;
}

sf_status sf__sst_info_check(const sf_sst_info *info, uint64_t end, sf_error *err)
{
    uint64_t pos = 0;
    sf_status rc = SF_OK;

    if (info->codec < SF_CODEC_NONE || info->codec > SF_CODEC_ZSTD)
        return sf_fail(err, SF_UNSUPPORTED, "SST info: compression format %d", (int)info->codec);
    if (info->sst_type > SF_SST_WAL)
        return sf_fail(err, SF_UNSUPPORTED, "SST info: SST type %u", info->sst_type);
    if (info->filter_len > 0)
        rc = part_check("filter", info->filter_off, info->filter_len, &pos, end, err);
    if (rc == SF_OK)
        rc = part_check("index", info->index_off, info->index_len, &pos, end, err);
    if (rc == SF_OK && info->filter_len > 0 && info->index_off != info->filter_off + info->filter_len)
        rc = sf_fail(err, SF_CORRUPT, "SST info: the index at %llu does not follow the filter",
                     (unsigned long long)info->index_off);
    if (rc == SF_OK && info->stats_len > 0)
        rc = part_check("stats", info->stats_off, info->stats_len, &pos, end, err);
    if (rc == SF_OK && info->has_first_key && info->has_last_key && sf_bytes_cmp(info->first_key, info->last_key) > 0)
        rc = sf_fail(err, SF_CORRUPT, "SST info: the first key is above the last");
    return rc;
}

sf_status sf__sst_info_from_table(sf_sst_info *out, const sf_fb_table *t, uint64_t end, sf_error *err)
{
    sf_sst_info info = {0};
    uint8_t codec = 0;
    sf_status rc;

    if ((rc = sf__fb_bytes(t, SF_SST_INFO_FIRST_ENTRY, SF_FB_OPTIONAL, "first_entry", &info.first_key,
                           &info.has_first_key, err)) != SF_OK ||
        (rc = sf__fb_u64(t, SF_SST_INFO_INDEX_OFFSET, 0, &info.index_off, err)) != SF_OK ||
        (rc = sf__fb_u64(t, SF_SST_INFO_INDEX_LEN, 0, &info.index_len, err)) != SF_OK ||
        (rc = sf__fb_u64(t, SF_SST_INFO_FILTER_OFFSET, 0, &info.filter_off, err)) != SF_OK ||
        (rc = sf__fb_u64(t, SF_SST_INFO_FILTER_LEN, 0, &info.filter_len, err)) != SF_OK ||
        (rc = sf__fb_u8(t, SF_SST_INFO_COMPRESSION_FORMAT, 0, &codec, err)) != SF_OK ||
        (rc = sf__fb_u8(t, SF_SST_INFO_SST_TYPE, 0, &info.sst_type, err)) != SF_OK ||
        (rc = sf__fb_bytes(t, SF_SST_INFO_LAST_ENTRY, SF_FB_OPTIONAL, "last_entry", &info.last_key, &info.has_last_key,
                           err)) != SF_OK ||
        (rc = sf__fb_u64(t, SF_SST_INFO_STATS_OFFSET, 0, &info.stats_off, err)) != SF_OK ||
        (rc = sf__fb_u64(t, SF_SST_INFO_STATS_LEN, 0, &info.stats_len, err)) != SF_OK ||
        (rc = sf__fb_u8(t, SF_SST_INFO_FILTER_FORMAT, 0, &info.filter_format, err)) != SF_OK)
        return sf_error_prefix(err, rc, "SST info: ");
    info.codec = (sf_codec)codec;
    rc = sf__sst_info_check(&info, end, err);
    if (rc == SF_OK)
        *out = info;
    return rc;
}

sf_status sf__sst_footer_decode(sf_sst_footer *out, sf_bytes tail, uint64_t object_size, sf_error *err)
{
    sf_sst_footer f;
    sf_cursor c;
    uint64_t body;
    sf_status rc;

    if (object_size <= SF_SST_FOOTER_BYTES || tail.n < SF_SST_FOOTER_BYTES || tail.n > object_size ||
        !sf_bytes_slice(tail, tail.n - SF_SST_FOOTER_BYTES, SF_SST_FOOTER_BYTES, &c) ||
        !sf_cursor_u64be(&c, &f.info_off) || !sf_cursor_u16be(&c, &f.version))
        return sf_fail(err, SF_CORRUPT, "an object of %llu bytes cannot be an SST", (unsigned long long)object_size);
    rc = sf__sst_version_check(f.version, err);
    if (rc != SF_OK)
        return rc;
    body = object_size - SF_SST_FOOTER_BYTES;
    if (f.info_off >= body || body - f.info_off <= SF_STORED_CRC_BYTES)
        return sf_fail(err, SF_CORRUPT, "SST footer: info at %llu of %llu bytes", (unsigned long long)f.info_off,
                       (unsigned long long)object_size);
    f.info_len = body - f.info_off;
    *out = f;
    return SF_OK;
}

sf_status sf__sst_info_decode(sf_sst_info *out, sf_bytes stored, uint64_t info_off, sf_error *err)
{
    sf_bytes plain;
    sf_fb_table root;
    sf_status rc = sf__stored_block_check(stored, &plain, err);

    if (rc == SF_OK)
        rc = sf__fb_root(plain, &root, err);
    if (rc != SF_OK)
        return sf_error_prefix(err, rc, "SST info at %llu: ", (unsigned long long)info_off);
    return sf__sst_info_from_table(out, &root, info_off, err);
}

sf_status sf__sst_open(sf_sst_info *out, sf_sst_footer *footer, bool *empty, sf_bytes object, sf_error *err)
{
    sf_sst_footer f;
    sf_bytes stored;
    sf_status rc;

    if (object.n <= SF_SST_FOOTER_BYTES) {
        *empty = true;
        *out = (sf_sst_info){0};
        *footer = (sf_sst_footer){0};
        return SF_OK;
    }
    rc = sf__sst_footer_decode(&f, object, object.n, err);
    if (rc != SF_OK)
        return rc;
    if (!sf_bytes_slice(object, f.info_off, f.info_len, &stored))
        return sf_fail(err, SF_CORRUPT, "SST footer: info at %llu of %zu bytes", (unsigned long long)f.info_off,
                       object.n);
    rc = sf__sst_info_decode(out, stored, f.info_off, err);
    if (rc != SF_OK)
        return rc;
    *empty = false;
    *footer = f;
    return SF_OK;
}
