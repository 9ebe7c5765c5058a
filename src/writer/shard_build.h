/* From sorted rows to stored shards: one job a shard with rows, on threads of our own (the pool of libuv does the store's
 * file I/O, a job that waited there would wait for itself). A job that fails in a way that may pass is run again under
 * the next attempt number, from the same sorted rows. */
#ifndef SF_WRITER_SHARD_BUILD_H
#define SF_WRITER_SHARD_BUILD_H

#include "backend/shard_writer.h"
#include "base/thread.h"
#include "shardyfusion/writer.h"
#include "site/objects.h"
#include "writer/built_shard.h"
#include "writer/partition.h"
#include "writer/reuse.h"
#include "writer/sorter.h"

typedef struct sf_shard_build {
    /* set by the caller; all must outlive the run */
    const sf_site *site;
    sf_sorter *sorter;                /* sealed; one group a shard */
    const uint32_t *groups;           /* by shard; NULL: they are numbered alike */
    const sf_writer_options *options; /* with both backends' options filled in */
    const char *run_id;
    const sf_shard_rows *shards; /* num_dbs */
    sf_earlier_attempts earlier; /* at the run, by others; freed with the results */
    sf_reuse reuse;              /* zeroed: nothing is; likewise */
    sf_cancel_flag *stop;        /* set by the run, too, when a job fails for good */
    /* called about every interval on the thread that runs it; may set *stop */
    void (*tick)(void *ctx);
    void *tick_ctx;

    /* how far it is; any thread may read */
    atomic_uint_fast64_t rows_built, bytes_stored;
    atomic_uint shards_done;

    /* results: `built_count` shards by ascending db_id, after a failure those that are stored */
    sf_built_shard *built;
    size_t built_count;

    /* private */
    uint32_t *order; /* the shards with rows, fullest first */
    size_t order_count;
    sf_mutex lock;
    sf_cond wake;
    size_t next;    /* under lock */
    size_t running; /* under lock: threads */
    sf_error error; /* under lock: the first failure */
} sf_shard_build;

/* Blocks until all threads are home. */
sf_status sf__shard_build_run(sf_shard_build *b, sf_error *err) SF_MUST_USE;
void sf__shard_build_cleanup(sf_shard_build *b); /* forgets the results; takes a zeroed one */

/* The wait before retry number `retry`, from 0. */
int64_t sf__shard_backoff_ms(const sf_writer_options *options, uint32_t retry);
/* What the backend of `options` can store. */
sf_row_limits sf__shard_row_limits(const sf_writer_options *options);
/* The backend's writer. `o` has both backends' options filled in. */
sf_status sf__shard_backend_open(sf_shard_writer **out, const sf_shard_target *target, const sf_writer_options *o,
                                 sf_error *err) SF_MUST_USE;
/* 32 hex digits. */
void sf__shard_hash_format(char out[33], sf_hash128 h);
/* "0f8fad5b-d9cb-469f-a165-70867728950e" as the manifests have it, without dashes. */
void sf__shard_checkpoint_format(char out[33], const char *uuid);

#endif
