/* Looking for damage in what one shard has on storage. It blocks, on a thread that may wait: neither the loop thread nor one
 * of its pool. What it finds it tells one by one; what keeps it from looking is its failure. */
#ifndef SF_BACKEND_SHARD_CHECK_H
#define SF_BACKEND_SHARD_CHECK_H

#include "net/wait.h"
#include "shardyfusion/reader.h" /* SF_NO_OFFSET */
#include "store/store.h"

typedef struct sf_shard_check {
    bool deep;          /* read every byte, else only what describes the rest */
    int64_t timeout_ms; /* of each request */
    const sf_cancel_flag *cancel;
    uint64_t db_bytes; /* what the snapshot's manifest says; 0: nothing */
    /* Something is wrong with an object, `off` bytes behind its start or SF_NO_OFFSET. */
    void (*found)(struct sf_shard_check *c, const sf_error *e, uint64_t off);
    /* Each row that shows, in the order of keys; of a deep check that has `shows_rows`. */
    void (*row)(struct sf_shard_check *c, sf_bytes key, sf_bytes value);
    void (*read)(struct sf_shard_check *c, uint64_t bytes); /* were looked at */
    /* results */
    uint64_t objects;
    bool shows_rows; /* told at the end: all rows were shown; else whoever needs them scans the shard */
} sf_shard_check;

/* Whether a failure tells of what is stored; others are of the way to it. */
static inline bool sf__is_damage(sf_status rc)
{
    return rc == SF_CORRUPT || rc == SF_NOT_FOUND || rc == SF_UNSUPPORTED || rc == SF_BAD_MANIFEST || rc == SF_STATE ||
           rc == SF_INVALID;
}

/* An object that cannot be read or understood: SF_OK when that is damage, which has been told then; else the failure, named. */
sf_status sf__shard_check_judge(sf_shard_check *c, const sf_store *store, const char *key, uint64_t off, sf_status rc,
                                sf_error *err) SF_MUST_USE;

#endif
