/* What an opened shard shows: the sources of rows, newest first (replayed WAL, L0, sorted runs), of one tree or of one
 * tree a segment; and the walk of a point look-up over them. Immutable once opened; any thread. */
#ifndef SF_BACKEND_SLATEDB_VIEW_H
#define SF_BACKEND_SLATEDB_VIEW_H

#include "backend/slatedb/sst.h"
#include "backend/slatedb/wal.h"

typedef struct sf_read_view {
    sf_slatedb_manifest manifest;
    sf_sst *ssts; /* each SST once, however many views show it */
    uint32_t sst_count;
    sf_sst **sst_of_view; /* by index in manifest.views; NULL, as it is most often: they are in the order of those */
    const sf_sst_view *only; /* all SSTs, where they are one run, or one of L0, of one tree, and show all of their rows, and none were replayed; */
    uint32_t only_count;    /* else 0 */
    const sf_sst *only_sst; /* where that is one; else NULL */
    sf_memtable *memtable;  /* NULL: no rows were replayed */
    uint64_t max_seq;       /* rows above it are not there */
} sf_read_view;

/* Makes `ssts` and `sst_of_view` from the manifest; no SST is read. On failure the view can be cleaned up. */
sf_status sf__read_view_ssts(sf_read_view *v, const sf_store *store, const char *db_path, sf_disk_cache *disk,
                             const sf_allocator *a, sf_error *err) SF_MUST_USE;
/* Takes a zeroed struct and leaves one. */
void sf__read_view_cleanup(sf_read_view *v, const sf_allocator *a);
size_t sf__read_view_resident_bytes(const sf_read_view *v);

static inline const sf_sst *sf__read_view_sst(const sf_read_view *v, const sf_sst_view *sv)
{
    size_t i = (size_t)(sv - v->manifest.views);

    return v->sst_of_view ? v->sst_of_view[i] : &v->ssts[i];
}

/* The first SST of a run that may hold keys >= `key`; sst_count when there is none. */
uint32_t sf__run_first_from(const sf_sst_view *ssts, uint32_t count, sf_bytes key);

/* Where a point look-up stands among the SSTs. */
typedef struct sf_probe {
    sf_bytes key; /* borrowed */
    uint64_t hash;
    bool hashed;
    bool unfiltered;                  /* the filter of `sst` has not been asked yet */
    const sf_slatedb_tree *tree;      /* NULL: no tree has such keys */
    uint32_t next_source;             /* L0 first, then the runs */
    const sf_slatedb_sorted_run *run; /* being walked, or NULL */
    uint32_t next_in_run;
    const sf_sst *sst;         /* to look at now */
    uint32_t block, block_end; /* its blocks that may hold the key and have not been looked at */
} sf_probe;

/* The only SST that may have the key, of several, where one search tells; else NULL. */
const sf_sst *sf__read_view_only_of_run(const sf_read_view *v, sf_bytes key);

/* The only SST that may have the key, where one search tells: nearly always in a shard that was built at once. NULL: a probe tells. Its
 * index has the block. */
static inline const sf_sst *sf__read_view_only_sst(const sf_read_view *v, sf_bytes key)
{
    return v->only_sst ? v->only_sst : sf__read_view_only_of_run(v, key);
}

void sf__probe_init(sf_probe *p, const sf_read_view *v, sf_bytes key);
/* On to the next SST that may hold the key, by ranges and filter: no I/O. False: there is none. Where a tree has only one
 * source its filter can wait until a block has to be read: a block in memory knows better, and costs no more to ask. */
bool sf__probe_next_sst(sf_probe *p, const sf_read_view *v);
/* Before reading a block of p->sst: whether its filter, if it has not been asked, says that the key is not there. Then
 * the SST is done with. */
bool sf__probe_ruled_out(sf_probe *p);

#endif
