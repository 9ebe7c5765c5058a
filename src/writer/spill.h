/* Sorted runs on local disk. A run is a file without a name: it goes when it is closed, or when the process ends.
 *
 *   block: u32le payload length | u32le crc32(payload) | payload      payload: u32le key length | u32le value length |
 *                                                                              key | value, and so on
 *
 * A block holds rows of one group only. Blocking file I/O. A run is written by one thread; when it is finished any
 * number of cursors may read it, each on one thread at a time. */
#ifndef SF_WRITER_SPILL_H
#define SF_WRITER_SPILL_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/error.h"

/* A block is closed behind the row that fills it. */
#define SF_SPILL_BLOCK_BYTES (32u << 10)
/* What a cursor reads at once, and its buffer while blocks are no longer. */
#define SF_SPILL_READ_BYTES (64u << 10)

typedef struct sf_spill_segment {
    uint32_t group;
    uint64_t off; /* in the file; ends where the next one begins */
} sf_spill_segment;

typedef struct sf_spill_run {
    const sf_allocator *alloc;
    int fd;
    uint64_t size;
    unsigned level;             /* the sorter's: how often its rows were merged */
    sf_spill_segment *segments; /* ascending by group; only groups that have rows */
    size_t segment_count, segment_cap;
} sf_spill_run;

typedef struct sf_spill_writer {
    sf_spill_run *run;
    uint8_t *buf; /* whole blocks, and the one that is filling */
    size_t cap, n, block;
    bool block_open;
} sf_spill_writer;

/* A new file in `folder`. *out is freed with sf__spill_run_free(). */
sf_status sf__spill_run_new(sf_spill_run **out, const char *folder, const sf_allocator *a, sf_error *err) SF_MUST_USE;
void sf__spill_run_free(sf_spill_run *r); /* takes NULL */
/* Where the rows of a group lie; false when it has none. */
bool sf__spill_run_find(const sf_spill_run *r, uint32_t group, uint64_t *off, uint64_t *end) SF_MUST_USE;

/* Groups ascending, keys ascending in each. */
void sf__spill_writer_init(sf_spill_writer *w, sf_spill_run *run);
sf_status sf__spill_writer_add(sf_spill_writer *w, uint32_t group, sf_bytes key, sf_bytes value, sf_error *err)
    SF_MUST_USE;
sf_status sf__spill_writer_finish(sf_spill_writer *w, sf_error *err) SF_MUST_USE;
void sf__spill_writer_cleanup(sf_spill_writer *w);

/* Rows of one group of one run, in order. */
typedef struct sf_spill_cursor {
    bool valid; /* key and value are set: until the next call */
    sf_bytes key, value;
    /* private */
    const sf_spill_run *run;
    uint64_t off, end; /* not yet read */
    uint8_t *buf;
    size_t cap, n, pos; /* pos: behind the current block */
    sf_cursor rows;     /* what is left of it */
} sf_spill_cursor;

/* Takes a zeroed cursor or a used one, whose memory it keeps. Not on a row yet. */
void sf__spill_cursor_set(sf_spill_cursor *c, const sf_spill_run *run, uint64_t off, uint64_t end);
sf_status sf__spill_cursor_next(sf_spill_cursor *c, sf_error *err) SF_MUST_USE;
void sf__spill_cursor_cleanup(sf_spill_cursor *c);

#endif
