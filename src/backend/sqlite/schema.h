/* What only SQLite itself can say about a shard.db: what its schema means, and whether all of it is sound. One thread at a time;
 * blocks as long as the file's reads do: workers only. */
#ifndef SF_BACKEND_SQLITE_SCHEMA_H
#define SF_BACKEND_SQLITE_SCHEMA_H

#include "backend/sqlite/file_view.h"
#include "backend/sqlite/tree.h"
#include "net/wait.h" /* sf_cancel_flag */

/* What may end a statement, at any of its steps: a flag that is set (SF_CANCELLED), a deadline (SF_TIMEOUT). */
typedef struct sf_sqlite_watch {
    const sf_cancel_flag *cancel;
    uint64_t since_ns, deadline_ns; /* since_ns: when the operation began, for the message */
} sf_sqlite_watch;

/* Takes the file as it is, for good: no locks, no journals, nothing that its schema wants to run. SF_CORRUPT: not a shard, which is
 * a table kv of stored columns with k unique, compared byte by byte, and no views, triggers or virtual tables. What the file's read
 * fails with comes back as it is. */
sf_status sf__sqlite_schema(sf_tree *out, uint32_t *page_bytes, const sf_file_view *file, const sf_sqlite_watch *watch,
                            sf_error *err) SF_MUST_USE;

/* Whether the whole file is a sound database: pages, trees, the order of keys, the index. SF_CORRUPT: what is wrong first. */
sf_status sf__sqlite_check_file(const sf_file_view *file, const sf_sqlite_watch *watch, sf_error *err) SF_MUST_USE;

#endif
