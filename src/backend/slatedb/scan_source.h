/* One source of a scan: the replayed WAL, one L0 SST, or one sorted run. It shows its visible rows, every version of a
 * key, in one direction, and reads ahead in growing windows. One thread at a time, any. */
#ifndef SF_BACKEND_SLATEDB_SCAN_SOURCE_H
#define SF_BACKEND_SLATEDB_SCAN_SOURCE_H

#include "backend/slatedb/window.h"

/* Plain bytes of the first window, if the scan allows as many. What is read ahead doubles with each window that is used, up to
 * what the scan allows, in windows of SF_EXTENT_MAX_BYTES at most. */
#define SF_SCAN_FIRST_WINDOW (UINT64_C(64) << 10)
/* Windows that a source has ahead of the one it is in: enough for the bandwidth of a fast network times the latency of a store. */
#define SF_SCAN_WINDOWS_AHEAD 64u

#define SF_ROWS_OUT_OF_ORDER "the rows of an SST, or the SSTs of a sorted run, are not in key order"

/* [lo, hi), or [lo, ...) without has_hi; a view may exclude lo or include hi. */
typedef struct sf_scan_bounds {
    sf_bytes lo, hi;
    bool lo_excluded, has_hi, hi_included;
} sf_scan_bounds;

/* What the sources of one scan share. */
typedef struct sf_scan_io {
    const sf_slatedb_shard *shard;
    bool reverse;
    uint64_t max_window; /* plain bytes, or a block */
    uint64_t max_ahead;  /* plain bytes beyond the window that a source is in, or a block; 0: none */
} sf_scan_io;

/* A block in the order of the scan. */
typedef struct sf_scan_pos {
    uint32_t view;         /* of the source's SSTs */
    uint32_t block, last;  /* last: the one this view ends with */
    bool entry;            /* the first block of its view */
    sf_scan_bounds bounds; /* of the view */
} sf_scan_pos;

typedef enum sf_source_state { SF_SOURCE_AT_ROW, SF_SOURCE_NEEDS_BLOCK, SF_SOURCE_END } sf_source_state;

typedef struct sf_scan_source {
    sf_source_state state;
    /* AT_ROW; borrowed until the source moves */
    sf_bytes key, value;
    sf_buf *owner; /* holds the value; SSTs: and the block, also while it stands at no row of it; NULL: it has none */
    uint64_t seq;
    uint8_t flags;
    bool new_key;        /* SSTs, forwards: the key is not that of the row shown before, */
    bool passed_new_key; /* nor is that of a row that was passed over since then */
    /* private */
    sf_scan_io *io;
    sf_scan_bounds bounds;
    const sf_memtable *mem; /* NULL: SSTs */
    size_t mem_next, mem_left;
    const sf_sst_view *ssts;
    uint32_t count;
    sf_scan_pos pos;
    sf_block_cursor cursor;
    sf_bytes plain; /* what the cursor walks */
    sf_buf *next;   /* the block that follows, if memory has that; acquired */
    uint32_t next_view, next_block;
    sf_window *now;
    sf_window **ahead; /* those that follow it, ahead_count of them; NULL: never had any */
    uint32_t ahead_count;
    sf_scan_pos ahead_end;      /* their last block */
    uint64_t reach;             /* plain bytes to read ahead */
    uint32_t expansion_percent; /* of the last one: plain bytes for 100 stored ones */
} sf_scan_source;

/* Both leave it before its first row: in NEEDS_BLOCK, AT_ROW or END. The bounds are borrowed. */
/* `mem` may be NULL: no rows. */
void sf__source_of_memtable(sf_scan_source *src, sf_scan_io *io, const sf_memtable *mem, const sf_scan_bounds *bounds);
void sf__source_of_ssts(sf_scan_source *src, sf_scan_io *io, const sf_sst_view *ssts, uint32_t count,
                        const sf_scan_bounds *bounds);
/* Takes a zeroed one. What is under way is cancelled. */
void sf__source_cleanup(sf_scan_source *src);

/* From NEEDS_BLOCK: takes the block when it is in memory, else asks for it and stays. A failed read is reported once;
 * the next call reads again. */
sf_status sf__source_resume(sf_scan_source *src, sf_error *err) SF_MUST_USE;
/* From AT_ROW. After a failure the source is lost. */
sf_status sf__source_next(sf_scan_source *src, sf_error *err) SF_MUST_USE;
/* SSTs, AT_ROW: that row and those behind it, which it passes, before `before` in the order of the scan unless that is NULL; there may be none that show.
 * Keys and values are borrowed until it moves. False, backwards only: no row shows, and it stays at the one where it is. */
bool sf__source_rows(sf_scan_source *src, const sf_bytes *before, sf_block_rows *out);

/* From NEEDS_BLOCK after resume, loop thread: the window that has its block, if that is not home yet, is waited for. */
bool sf__source_wait(sf_scan_source *src, sf_window_waiter *waiter);
void sf__source_forget(sf_scan_source *src); /* undoes that */

#endif
