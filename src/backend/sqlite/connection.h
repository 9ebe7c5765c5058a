/* One connection to a shard.db on local disk, read only. One thread at a time; blocks: workers only. */
#ifndef SF_BACKEND_SQLITE_CONNECTION_H
#define SF_BACKEND_SQLITE_CONNECTION_H

#include "backend/backend.h"
#include "net/wait.h" /* sf_cancel_flag */

typedef struct sf_sqlite_connection sf_sqlite_connection;

/* Takes the file as it is, for good: no locks, no journals, nothing that its schema wants to run. SF_CORRUPT: not a
 * shard. */
sf_status sf__sqlite_connect(sf_sqlite_connection **out, const char *file, const sf_allocator *a,
                             sf_error *err) SF_MUST_USE;
void sf__sqlite_disconnect(sf_sqlite_connection *c); /* takes NULL */

/* *out is untouched when the key is not there. */
sf_status sf__sqlite_get(sf_sqlite_connection *c, sf_bytes key, sf_value *out, sf_error *err) SF_MUST_USE;

/* Where a scan stands: rows of [lo, hi), from either side. */
typedef struct sf_sqlite_range {
    sf_bytes lo, hi;
    bool has_hi;
    bool past_lo; /* `lo` itself was handed out already */
    bool reverse;
} sf_sqlite_range;

/* Adds rows until one of the limits is reached, *end: there are no more. `cancel` is looked at now and then. */
sf_status sf__sqlite_scan(sf_sqlite_connection *c, const sf_sqlite_range *range, const sf_scan_limits *limits,
                          const sf_cancel_flag *cancel, sf_row_batch *batch, bool *end, sf_error *err) SF_MUST_USE;

/* A chain of them, for whoever keeps some. */
sf_sqlite_connection **sf__sqlite_connection_next(sf_sqlite_connection *c);

#endif
