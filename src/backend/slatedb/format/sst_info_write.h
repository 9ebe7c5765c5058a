/* Writes what sst_info.h reads. Pure; any thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_SST_INFO_WRITE_H
#define SF_BACKEND_SLATEDB_FORMAT_SST_INFO_WRITE_H

#include "backend/slatedb/format/flatbuf_write.h"
#include "backend/slatedb/format/sst_info.h"

#define SF_SST_VERSION_WRITTEN 2u

/* The layout of SsTableInfo: a table of it is the root of the info block, and part of the manifest. */
sf_fb_layout sf__sst_info_layout(void);
/* The table that the slot `ref` points to (0: the root). */
void sf__sst_info_put(sf_fb_writer *w, const sf_fb_layout *l, size_t vtable, size_t ref, const sf_sst_info *info);

/* `info | crc32 | u64be info_offset | u16be version`: the end of an SST file. NULL without memory. */
sf_buf *sf__sst_tail_encode(const sf_sst_info *info, uint64_t info_off, const sf_allocator *a) SF_MUST_USE;

#endif
