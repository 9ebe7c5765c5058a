/* Opening a shard of either backend. Where the snapshot does not say which one lies there, SlateDB's opening goes first,
 * and when it meets a shard.db instead, SQLite's follows. Loop thread; completes like its parts. */
#ifndef SF_READER_SHARD_OPEN_H
#define SF_READER_SHARD_OPEN_H

#include "backend/backend.h"

typedef struct sf_any_shard_open {
    sf_shard_open op; /* filled by the owner; its done gets &op */
    /* private */
    void (*done)(sf_shard_open *op);
    const char *sqlite_folder;
    bool sqlite;
} sf_any_shard_open;

/* `sqlite_folder`: see sf_reader_options; borrowed until done. NULL: a shard.db is SF_UNSUPPORTED. `sqlite`: it is one
 * for sure; then there must be a folder. */
void sf__any_shard_open(sf_any_shard_open *o, const char *sqlite_folder, bool sqlite);
void sf__any_shard_open_cancel(sf_any_shard_open *o);

#endif
