/* One connection to a shard.db, read only. One thread at a time; blocks: workers only. */
#ifndef SF_BACKEND_SQLITE_CONNECTION_H
#define SF_BACKEND_SQLITE_CONNECTION_H

#include "backend/backend.h"
#include "backend/sqlite/file_view.h"
#include "net/wait.h" /* sf_cancel_flag */

typedef struct sf_sqlite_connection sf_sqlite_connection;

/* What may end a statement, at any of its steps: a flag that is set (SF_CANCELLED), a deadline (SF_TIMEOUT). */
typedef struct sf_sqlite_watch {
    const sf_cancel_flag *cancel;
    uint64_t since_ns, deadline_ns; /* since_ns: when the operation began, for the message */
} sf_sqlite_watch;

/* Takes the file (borrowed until it is disconnected) as it is, for good: no locks, no journals, nothing that its schema wants to
 * run. SF_CORRUPT: not a shard, which is a table kv of stored columns with k unique, compared byte by byte, and no views, triggers
 * or virtual tables. */
sf_status sf__sqlite_connect(sf_sqlite_connection **out, const sf_file_view *file, const sf_sqlite_watch *watch,
                             const sf_allocator *a, sf_error *err) SF_MUST_USE;
void sf__sqlite_disconnect(sf_sqlite_connection *c); /* takes NULL */

/* *out is untouched when the key is not there. */
sf_status sf__sqlite_get(sf_sqlite_connection *c, sf_bytes key, const sf_sqlite_watch *watch, sf_value *out,
                         sf_error *err) SF_MUST_USE;

/* Where a scan stands: rows of [lo, hi), from either side. */
typedef struct sf_sqlite_range {
    sf_bytes lo, hi;
    bool has_hi;
    bool past_lo; /* `lo` itself was handed out already */
    bool reverse;
} sf_sqlite_range;

/* Adds rows until one of the limits or the deadline is reached; *end: there are no more. */
sf_status sf__sqlite_scan(sf_sqlite_connection *c, const sf_sqlite_range *range, const sf_scan_limits *limits,
                          const sf_sqlite_watch *watch, sf_row_batch *batch, bool *end, sf_error *err) SF_MUST_USE;

/* Whether the whole file is a sound database: pages, trees, the order of keys, the index. SF_CORRUPT: what is wrong first. */
sf_status sf__sqlite_check_file(sf_sqlite_connection *c, const sf_sqlite_watch *watch, sf_error *err) SF_MUST_USE;

/* A chain of them, for whoever keeps some. */
sf_sqlite_connection **sf__sqlite_connection_next(sf_sqlite_connection *c);

#endif
