/* Sorts any number of rows in bounded memory: rows in any order in, rows of each group (a shard) in key order out. What
 * does not fit is written to the spill folder as sorted runs, on a thread beside the one that adds, and merged when it is
 * read. Of rows with one key the last added wins.
 *
 *     new --> add ... add --> seal --> open a reader per group, next ... next, close --> free
 *
 * One thread at a time up to seal(); then readers of different groups may run on different threads at once (each on one
 * at a time). Blocks on file I/O: never on the loop thread. Spill files have no names: a killed process leaves none. Not to
 * be freed in a forked child. */
#ifndef SF_WRITER_SORTER_H
#define SF_WRITER_SORTER_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/error.h"
#include "net/wait.h" /* sf_cancel_flag */
#include "snapshot/key.h"

typedef struct sf_sorter_options {
    uint32_t groups;              /* >= 1; memory is taken for those that have rows, and for the ones below */
    uint64_t memory_bytes;        /* rows in memory before they spill; readers add 64 KiB for each run */
    const char *spill_folder;     /* NULL: $TMPDIR, else /tmp; copied; must exist when something is spilled */
    bool refuse_duplicates;       /* SF_INVALID "row 9: duplicate key 'k'" from next() or add() */
    sf_key_encoding key_encoding; /* how that message writes the key */
    bool groups_are_shards;       /* that message says which one */
    const sf_cancel_flag *cancel; /* may be NULL */
} sf_sorter_options;
#define SF_SORTER_OPTIONS_INIT {.groups = 1, .memory_bytes = UINT64_C(128) << 20, .groups_are_shards = true}

typedef struct sf_sorter sf_sorter;
typedef struct sf_sorter_reader sf_sorter_reader;

typedef struct sf_sorter_stats {
    uint64_t rows;       /* added */
    uint64_t duplicates; /* of them overwritten; complete when all readers are at their ends */
    uint64_t spilled_bytes, spilled_runs;
} sf_sorter_stats;

sf_status sf__sorter_new(sf_sorter **out, const sf_sorter_options *opts, const sf_allocator *a, sf_error *err)
    SF_MUST_USE;
/* Copies the row. group < groups; lengths below 4 GiB. After a failure only free is left to call. */
sf_status sf__sorter_add(sf_sorter *s, uint32_t group, sf_bytes key, sf_bytes value, sf_error *err) SF_MUST_USE;
/* A row was given that does not come here: the numbers that messages tell count it. */
void sf__sorter_leave_out(sf_sorter *s);
sf_status sf__sorter_seal(sf_sorter *s, sf_error *err) SF_MUST_USE;

/* One reader of a group at a time; another may follow it, from the first row. Sorting of what is in memory happens
 * here. */
sf_status sf__sorter_open(sf_sorter *s, uint32_t group, sf_sorter_reader **out, sf_error *err) SF_MUST_USE;
/* The next row; both spans hold until the next call. *end: there is none. */
sf_status sf__sorter_next(sf_sorter_reader *r, bool *end, sf_bytes *key, sf_bytes *value, sf_error *err) SF_MUST_USE;
void sf__sorter_close(sf_sorter_reader *r); /* takes NULL */

void sf__sorter_get_stats(sf_sorter *s, sf_sorter_stats *out); /* not while a reader is at work */
void sf__sorter_free(sf_sorter *s);                            /* all readers are closed; takes NULL */

#endif
