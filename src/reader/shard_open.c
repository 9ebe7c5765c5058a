#include "reader/shard_open.h"

#include "backend/sqlite/shard.h"

static void slatedb_opened(sf_shard_open *op)
{
    sf_any_shard_open *o = (sf_any_shard_open *)((char *)op - offsetof(sf_any_shard_open, op));

    op->done = o->done;
    o->sqlite = op->error.code == SF_UNSUPPORTED && op->is_sqlite && o->sqlite_folder;
    if (o->sqlite)
        sf__sqlite_shard_open(op, o->sqlite_folder);
    else
        op->done(op);
}

void sf__any_shard_open(sf_any_shard_open *o, const char *sqlite_folder, bool sqlite)
{
    o->sqlite = sqlite;
    if (sqlite) {
        sf__sqlite_shard_open(&o->op, sqlite_folder);
        return;
    }
    o->done = o->op.done;
    o->op.done = slatedb_opened;
    o->sqlite_folder = sqlite_folder;
    sf__slatedb_shard_open(&o->op);
}

void sf__any_shard_open_cancel(sf_any_shard_open *o)
{
    if (o->sqlite)
        sf__sqlite_shard_open_cancel(&o->op);
    else
        sf__slatedb_shard_open_cancel(&o->op);
}
