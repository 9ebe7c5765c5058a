/* SsTableInfo, the description of one SST, and the footer that finds it (docs/formats/slatedb.md 5.1, 5.6).
 *
 *   data blocks | filter | index | stats | info | u64be info_offset | u16be version
 *
 * Spans borrow the decoded bytes. Pure; any thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_SST_INFO_H
#define SF_BACKEND_SLATEDB_FORMAT_SST_INFO_H

#include "backend/slatedb/format/compress.h"
#include "backend/slatedb/format/flatbuf.h"

#define SF_SST_FOOTER_BYTES 10u
#define SF_SST_VERSION_MIN 1u
#define SF_SST_VERSION_MAX 2u

typedef enum sf_sst_type { SF_SST_COMPACTED = 0, SF_SST_WAL = 1 } sf_sst_type;

/* Field ids of SsTableInfo. */
enum {
    SF_SST_INFO_FIRST_ENTRY,
    SF_SST_INFO_INDEX_OFFSET,
    SF_SST_INFO_INDEX_LEN,
    SF_SST_INFO_FILTER_OFFSET,
    SF_SST_INFO_FILTER_LEN,
    SF_SST_INFO_COMPRESSION_FORMAT,
    SF_SST_INFO_SST_TYPE,
    SF_SST_INFO_LAST_ENTRY,
    SF_SST_INFO_STATS_OFFSET,
    SF_SST_INFO_STATS_LEN,
    SF_SST_INFO_FILTER_FORMAT,
    SF_SST_INFO_FIELDS
};

typedef struct sf_sst_info {
    sf_bytes first_key; /* WAL: u64be first sequence number */
    sf_bytes last_key;  /* may be absent: then the SST may reach to the end of the key space */
    uint64_t index_off, index_len;
    uint64_t filter_off, filter_len; /* length 0: no filter; else the index follows at once */
    uint64_t stats_off, stats_len;   /* length 0: no stats */
    sf_codec codec;                  /* known */
    uint8_t sst_type;                /* sf_sst_type; others are refused */
    uint8_t filter_format;           /* checked by sf__filter_decode() */
    bool has_first_key;              /* false: no rows */
    bool has_last_key;
} sf_sst_info;

/* Where the info lies, and which layout the data blocks have. */
typedef struct sf_sst_footer {
    uint64_t info_off, info_len; /* length with its checksum */
    uint16_t version;            /* SF_SST_VERSION_MIN .. SF_SST_VERSION_MAX */
} sf_sst_footer;

/* SF_UNSUPPORTED unless this code can read data blocks of that version. */
sf_status sf__sst_version_check(unsigned version, sf_error *err) SF_MUST_USE;

/* Parts in order, not overlapping, before `end` (the info's offset, or UINT64_MAX when only the manifest is at hand); then of a table
 * that is read. */
sf_status sf__sst_info_check(const sf_sst_info *info, uint64_t end, sf_error *err) SF_MUST_USE;
sf_status sf__sst_info_from_table(sf_sst_info *out, const sf_fb_table *t, uint64_t end, sf_error *err) SF_MUST_USE;

/* `tail` = the last bytes of the object, at least SF_SST_FOOTER_BYTES; object_size > SF_SST_FOOTER_BYTES. */
sf_status sf__sst_footer_decode(sf_sst_footer *out, sf_bytes tail, uint64_t object_size, sf_error *err) SF_MUST_USE;

/* `stored` = exactly footer.info_off .. + info_len of the object, checksum included. */
sf_status sf__sst_info_decode(sf_sst_info *out, sf_bytes stored, uint64_t info_off, sf_error *err) SF_MUST_USE;

/* Footer and info of a whole object. An object of SF_SST_FOOTER_BYTES or fewer sets *empty (a WAL fence marker of
 * 0.17; anywhere else the caller calls it damage) and zeroes the rest. */
sf_status sf__sst_open(sf_sst_info *out, sf_sst_footer *footer, bool *empty, sf_bytes object, sf_error *err) SF_MUST_USE;

/* The data blocks are the bytes 0 .. this. */
static inline uint64_t sf__sst_blocks_end(const sf_sst_info *info)
{
    return info->filter_len > 0 ? info->filter_off : info->index_off;
}

/* Filter and index are adjacent (checked), neither above SF_LIMIT_META_BYTES: one GET of [off, off + len) has both. */
static inline uint64_t sf__sst_meta_off(const sf_sst_info *info)
{
    return sf__sst_blocks_end(info);
}

static inline uint64_t sf__sst_meta_len(const sf_sst_info *info)
{
    return info->index_off + info->index_len - sf__sst_meta_off(info);
}

#endif
