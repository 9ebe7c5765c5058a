/* What the two halves of opening a shard share: which state it has (shard_open.c), and the parts of that (shard_parts.c). Loop
 * thread. */
#ifndef SF_BACKEND_SLATEDB_OPENING_H
#define SF_BACKEND_SLATEDB_OPENING_H

#include "backend/slatedb/names.h"
#include "backend/slatedb/shard.h"

enum slatedb_open_state { OPEN_LISTING, OPEN_MANIFEST, OPEN_CHECKPOINT, OPEN_PARTS, OPEN_REPLAY, OPEN_DONE };

struct folder_listing {
    struct slatedb_opening *o;
    bool busy;
    char *key;
    sf_store_listing listing;
};

struct slatedb_opening {
    sf_shard_open *op;
    sf_runtime *rt;
    const sf_allocator *alloc;
    enum slatedb_open_state state;
    bool cancelled;
    bool recorded;  /* its state is that of the record */
    size_t pending; /* things begun and not yet home */
    sf_slatedb_shard *shard;
    /* LISTING */
    struct folder_listing manifests_list, wal_list, root_list;
    sf_db_object *manifests;
    size_t manifest_count;
    unsigned relists;
    /* MANIFEST, CHECKPOINT */
    size_t manifest_no; /* in `manifests` */
    sf_fetch fetch;
    char *key;
    /* PARTS */
    struct part_slot *slots; /* shard_parts.c's */
    size_t slot_count;
    uint32_t next_sst;
    sf_db_object *wal;
    size_t wal_count; /* objects to replay */
    size_t next_wal;
    bool wal_known;
    sf_wal_rows *wal_rows; /* wal_count */
    uint64_t wal_bytes;
    /* REPLAY */
    sf_work work;
    const sf_error *work_error; /* kept */
};

/* The only one that changes the state; it is the last thing that a callback does. */
void sf__opening_enter(struct slatedb_opening *o, enum slatedb_open_state next);
/* The first failure counts; what is under way is called back. */
void sf__opening_fail(struct slatedb_opening *o, const sf_error *e);
void sf__opening_fail_nomem(struct slatedb_opening *o, const char *what);
/* Something has come home. True when the operation is over for it: the last one home ends it. */
bool sf__opening_home(struct slatedb_opening *o);
void sf__opening_object_error(struct slatedb_opening *o, const char *key, sf_error *e);
/* False without memory. */
bool sf__opening_list(struct slatedb_opening *o, struct folder_listing *l, sf_db_folder folder, const char *start_after,
                      size_t max_pages, void (*done)(sf_store_listing *)) SF_MUST_USE;
/* `o->wal` is what the listing says. False without memory. */
bool sf__opening_wal_take(struct slatedb_opening *o, const sf_store_listing *l) SF_MUST_USE;

/* shard_parts.c: PARTS, and REPLAY. */
void sf__opening_parts_start(struct slatedb_opening *o);
void sf__opening_parts_cancel(struct slatedb_opening *o);
void sf__opening_parts_forget(struct slatedb_opening *o); /* when all that was begun is home; as if it had not begun */
void sf__opening_replay_start(struct slatedb_opening *o);

#endif
