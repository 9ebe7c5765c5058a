/* SQLite over a file that is open already (SQLite's word for this seam is VFS). SQLite opens, locks and looks for nothing by
 * name: no journal, no WAL, no temporary files. What it reads it gets by sf_file_view, wherever that has its bytes; it writes nothing.
 * Blocks: never on the loop thread. */
#ifndef SF_BACKEND_SQLITE_VFS_H
#define SF_BACKEND_SQLITE_VFS_H

#include "backend/sqlite/file_view.h"

struct sqlite3;

/* One per connection; borrowed until that is closed. */
typedef struct sf_vfs_file {
    const sf_file_view *view; /* the file as it is, for good; any number of connections share one */
    sf_error error;           /* why the last read that failed did, which SQLite's code does not say */
} sf_vfs_file;

/* A connection of one thread. Returns SQLite's code; *db is closed in any case. */
int sf__vfs_open(struct sqlite3 **db, sf_vfs_file *file);

#endif
