/* What a shard writer must do: take rows in key order and leave one finished shard on storage.
 *
 * All calls block and come from one thread at a time, which must be neither the loop thread nor one of libuv's pool:
 * the store's own file I/O runs there, so a writer that waited on the pool would wait for itself.
 *
 *     open --> add ... add --> finish --> free          free without a successful finish takes back what was stored
 *
 * What all backends do alike (checks, counting, first and last key, content hash, cancelling) is done here; a backend
 * sees rows that are in order, unique and within its limits. */
#ifndef SF_BACKEND_SHARD_WRITER_H
#define SF_BACKEND_SHARD_WRITER_H

#include "base/buf.h"
#include "base/checksum.h"
#include "runtime/runtime.h"
#include "store/upload.h"

typedef struct sf_shard_writer sf_shard_writer;

/* Where a shard goes. Nothing may be there yet: SF_CONFLICT otherwise. */
typedef struct sf_shard_target {
    sf_runtime *rt;           /* the writer acquires its own */
    sf_store *store;          /* likewise */
    const char *path;         /* of the shard below the store's root, without slashes around it; copied */
    const char *url;          /* of the shard, for messages; copied */
    int32_t db_id;            /* for messages; -1: it is no snapshot's */
    sf_upload_options upload; /* its `cancel` also stops add() and finish() */
} sf_shard_target;

/* Released with sf__shard_result_cleanup(). */
typedef struct sf_shard_result {
    uint64_t rows, key_bytes, value_bytes;
    uint64_t stored_bytes; /* of all objects */
    uint64_t object_count;
    uint64_t db_bytes;         /* what the snapshot manifest says: SQLite the size of shard.db, SlateDB 0 */
    sf_buf *min_key, *max_key; /* NULL without rows */
    sf_hash128 content_hash;   /* of the rows alone: the same whatever backend and options; sf_content_hash */
    sf_buf *opening; /* what spares readers to look at the shard's own manifest (backend.h); NULL: nothing does */
    char checkpoint_id[37]; /* SlateDB: UUID of the checkpoint in manifest 1; else derived from the content hash */
} sf_shard_result;

typedef struct sf_shard_writer_vtable {
    /* `key` is above the key before, min_key_bytes .. max_key_bytes long; `value` at most max_value_bytes. Borrowed. */
    sf_status (*add)(sf_shard_writer *w, sf_bytes key, sf_bytes value, sf_error *err);
    /* Makes the shard whole, then visible. Fills stored_bytes, object_count, db_bytes, checkpoint_id; the rest is there
     * already. */
    sf_status (*finish)(sf_shard_writer *w, sf_shard_result *result, sf_error *err);
    /* `finished`: finish() succeeded. Otherwise aborts uploads and deletes what was stored, as far as that works and it
     * cannot be another writer's. */
    void (*free)(sf_shard_writer *w, bool finished);
} sf_shard_writer_vtable;

/* XXH3-128 over `u32le key length | u32le value length | key | value` of every row in key order. One thread. */
typedef struct sf_content_hash {
    sf_hasher hasher;
} sf_content_hash;

bool sf__content_hash_init(sf_content_hash *h, const sf_allocator *a) SF_MUST_USE;
void sf__content_hash_add(sf_content_hash *h, sf_bytes key, sf_bytes value);
sf_hash128 sf__content_hash_value(const sf_content_hash *h); /* so far */
void sf__content_hash_cleanup(sf_content_hash *h);           /* takes a zeroed one */

/*   WRITING --> FINISHED        FAILED is for good: whatever call comes then gets the first error again
 *      |
 *      +------> FAILED          */
typedef enum sf_shard_writer_state { SF_SHARD_WRITING, SF_SHARD_FINISHED, SF_SHARD_FAILED } sf_shard_writer_state;

/* Implementations embed this first. */
struct sf_shard_writer {
    const sf_shard_writer_vtable *vtable;
    sf_runtime *rt;  /* acquired */
    sf_store *store; /* acquired */
    char *path, *url;
    int32_t db_id;
    size_t min_key_bytes; /* 1 unless the backend takes the empty key and says 0 after init */
    size_t max_key_bytes, max_value_bytes;
    sf_upload_options upload;
    sf_shard_writer_state state;
    sf_error error; /* FAILED: why */
    uint64_t rows, key_bytes, value_bytes;
    sf_buf *min_key, *last_key;
    sf_content_hash hash;
};

/* What messages call it: "shard 3", or "the database" when it has no number. */
typedef struct sf_shard_label {
    char text[24];
} sf_shard_label;
sf_shard_label sf__shard_label(int32_t db_id);

/* For implementations: the common part. On failure it needs no clean-up. */
sf_status sf__shard_writer_init(sf_shard_writer *w, const sf_shard_writer_vtable *vtable, const sf_shard_target *target,
                                size_t max_key_bytes, size_t max_value_bytes, sf_error *err) SF_MUST_USE;
void sf__shard_writer_fini(sf_shard_writer *w);
/* SF_CONFLICT when anything lies below the target's path. One listing of one page. */
sf_status sf__shard_target_check_free(const sf_shard_target *target, sf_error *err) SF_MUST_USE;

/* Errors name the shard and the row (its number, never its bytes). SF_INVALID: not in order, key empty or too long,
 * value too long. SF_CANCELLED. */
sf_status sf__shard_writer_add(sf_shard_writer *w, sf_bytes key, sf_bytes value, sf_error *err) SF_MUST_USE;
sf_status sf__shard_writer_finish(sf_shard_writer *w, sf_shard_result *result, sf_error *err) SF_MUST_USE;
void sf__shard_writer_free(sf_shard_writer *w); /* blocks while it takes back; takes NULL */

void sf__shard_result_cleanup(sf_shard_result *r); /* takes a zeroed one and leaves one */

#endif
