/* A SlateDB manifest, versions 1 and 2 decoded into one form (docs/formats/slatedb.md 4). Immutable; any thread.
 *
 *   u16be version | FlatBuffer of ManifestV1 or ManifestV2
 */
#ifndef SF_BACKEND_SLATEDB_FORMAT_SLATEDB_MANIFEST_H
#define SF_BACKEND_SLATEDB_FORMAT_SLATEDB_MANIFEST_H

#include "backend/slatedb/format/sst_info.h"
#include "backend/slatedb/format/ulid.h"

typedef enum sf_bound_kind { SF_BOUND_UNBOUNDED, SF_BOUND_INCLUDED, SF_BOUND_EXCLUDED } sf_bound_kind;

typedef struct sf_key_bound {
    sf_bound_kind kind;
    sf_bytes key; /* empty when unbounded */
} sf_key_bound;

typedef struct sf_key_range {
    sf_key_bound start, end; /* zeroed: everything */
} sf_key_range;

/* One SST as a tree sees it. */
typedef struct sf_sst_view {
    char ulid[SF_ULID_TEXT_LEN + 1]; /* of the SST: its object is compacted/<ulid>.sst */
    uint16_t format_version;         /* layout of its data blocks; checked */
    const char *external_path;       /* database that owns it, path from the store's root; NULL: this database */
    sf_sst_info info; /* first_key and last_key narrowed to `visible`, so that searches in a run see what is there */
    const sf_key_range *visible; /* rows outside are not there; NULL, as it is most often: all are */
} sf_sst_view;

typedef struct sf_slatedb_sorted_run {
    sf_sst_view *ssts; /* in order, not overlapping (checked); neighbours may share a boundary key */
    uint32_t id, sst_count;
} sf_slatedb_sorted_run;

/* One LSM tree for the keys that begin with `prefix`. */
typedef struct sf_slatedb_tree {
    sf_bytes prefix;
    sf_sst_view *l0;             /* newest first */
    sf_slatedb_sorted_run *runs; /* newest first */
    uint32_t l0_count, run_count;
} sf_slatedb_tree;

typedef struct sf_slatedb_checkpoint {
    char id[SF_UUID_TEXT_LEN + 1]; /* lower case */
    sf_id128 uuid;
    uint64_t manifest_id;
    uint32_t expire_s; /* Unix s, 0: never */
    uint32_t create_s;
    sf_bytes name; /* may be empty */
} sf_slatedb_checkpoint;

/* All but the trees. */
typedef struct sf_slatedb_head {
    uint16_t version;
    bool initialized;   /* the caller refuses a database that is not */
    bool has_wal_store; /* the WAL lies in a store of its own; version 2 cannot tell */
    bool segmented;
    uint32_t checkpoint_count;
    uint64_t writer_epoch;
    uint64_t replay_after_wal_id, wal_id_last_seen;
    uint64_t last_l0_seq;
    sf_slatedb_checkpoint *checkpoints;
} sf_slatedb_head;

typedef struct sf_slatedb_manifest {
    sf_buf *buf; /* acquired; all spans lie in it or in `memory`. NULL: in that alone */
    const sf_slatedb_head *head;
    sf_slatedb_tree *trees; /* by prefix, ascending, none a prefix of another; not segmented: one, empty prefix */
    sf_sst_view *views;     /* all of them, one array; the trees point into it */
    uint32_t tree_count;
    uint32_t view_count; /* of all trees */
    size_t bytes;        /* what all this takes, with the buffer */
    void *memory;
    const sf_allocator *alloc;
} sf_slatedb_manifest;

/* Acquires `buf` on success. On failure *out is zeroed. */
sf_status sf__slatedb_manifest_decode(sf_slatedb_manifest *out, sf_buf *buf, const sf_allocator *a, sf_error *err)
    SF_MUST_USE;
/* For decoders: zeroed room for so many things, which lasts as long as the manifest. NULL without memory. */
void *sf__slatedb_manifest_memory(sf_slatedb_manifest *m, size_t count, size_t size) SF_MUST_USE;
/* Takes a zeroed struct and leaves one. */
void sf__slatedb_manifest_cleanup(sf_slatedb_manifest *m);

/* NULL: no such checkpoint. `id` is UUID text of either case. */
const sf_slatedb_checkpoint *sf__slatedb_manifest_checkpoint(const sf_slatedb_manifest *m, const char *id);
/* The tree whose prefix the key begins with, or NULL. */
const sf_slatedb_tree *sf__slatedb_manifest_tree(const sf_slatedb_manifest *m, sf_bytes key);

static inline bool sf__key_range_contains(const sf_key_range *r, sf_bytes key)
{
    int c;

    if (r->start.kind != SF_BOUND_UNBOUNDED) {
        c = sf_bytes_cmp(key, r->start.key);
        if (c < 0 || (c == 0 && r->start.kind == SF_BOUND_EXCLUDED))
            return false;
    }
    if (r->end.kind != SF_BOUND_UNBOUNDED) {
        c = sf_bytes_cmp(key, r->end.key);
        if (c > 0 || (c == 0 && r->end.kind == SF_BOUND_EXCLUDED))
            return false;
    }
    return true;
}

/* Whether the SST may hold the key, from its key range and visible range: no I/O. */
bool sf__sst_view_may_hold(const sf_sst_view *v, sf_bytes key);

#endif
