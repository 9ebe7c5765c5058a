/* What the public sf_writer holds. One thread, but for the fields that say otherwise. */
#ifndef SF_WRITER_WRITER_H
#define SF_WRITER_WRITER_H

#include "base/arena.h"
#include "shardyfusion/writer.h"
#include "site/objects.h"
#include "writer/manifest_store.h"
#include "writer/partition.h"
#include "writer/shard_build.h"
#include "writer/site_lease.h"

/*   ADDING --> BUILT --> PUBLISHED        a failure goes to FAILED, from where only the end is left; writer_enter()
 *      |         |                        is the only write */
typedef enum sf_writer_state {
    SF_WRITER_ADDING,
    SF_WRITER_BUILT,
    SF_WRITER_PUBLISHED,
    SF_WRITER_FAILED
} sf_writer_state;

struct sf_writer {
    sf_site site;              /* beside which it holds a handle of the runtime */
    sf_arena arena;            /* every text below */
    sf_writer_options options; /* complete; texts and nested options are copies */
    sf_slatedb_options slatedb;
    sf_sqlite_options sqlite;
    sf_manifest_store manifests; /* the site's, if the options name one */
    const char *run_id;
    sf_writer_state state;
    bool ended; /* the run record has its last word */
    uint64_t started_ns, built_from_ns, last_progress_ns;

    sf_partition partition;
    sf_cel_shards cel; /* partition.cel, if there is one */
    uint32_t *groups;  /* of the sorter, by shard, when all rows are there; NULL: numbered alike */
    sf_row_counts counts;
    sf_sample sample;
    sf_sorter *sorter;
    sf_site_lease lease;
    sf_shard_build build;

    sf_attempt *attempts;
    size_t attempt_count, attempt_cap;
    const char **openings; /* of the attempts, as manifests have them; or NULL */
    size_t opening_cap;
    size_t own_begin, own_count; /* of the attempts: built here */
    sf_attempt *winners;
    const char **winner_openings;
    size_t winner_count;
    bool manifest_stored; /* or perhaps: the data must stay */
    sf_write_report report;

    /* any thread */
    sf_cancel_flag stop;      /* whatever waits for this writer gives up */
    sf_cancel_flag cancelled; /* by the user */
    atomic_int phase;
    atomic_uint_fast64_t rows_added, bytes_added;
    atomic_uint shards_total;

    sf_task leave_task; /* freed inside a callback */
    sf_work leave;
};

/* sf_writer_open() on a site that is open already, which the writer takes over on success. For tests. */
sf_status sf__writer_open_on(sf_writer **out, sf_site *site, const sf_writer_options *opts, sf_error *err) SF_MUST_USE;

/* writer_options.c: copies them, texts and nested options included, fills in what is missing, and checks all. On failure the writer
 * may hold a part of them. */
sf_status sf__writer_set_options(sf_writer *w, const sf_writer_options *given, sf_error *err) SF_MUST_USE;
/* Makes *text, unless it is NULL, a copy of the writer's. */
sf_status sf__writer_keep(sf_writer *w, const char **text, sf_error *err) SF_MUST_USE;

/* The phase changes, or an interval may have passed: tells the user, who may cancel. */
void sf__writer_progress(sf_writer *w, bool force);
void sf__writer_enter_phase(sf_writer *w, sf_write_phase phase);
/* SF_CANCELLED once somebody cancelled. */
sf_status sf__writer_check_cancelled(const sf_writer *w, sf_error *err);

/* publish.c: winners, gate, manifest, pointer, losers. */
sf_status sf__writer_publish(sf_writer *w, sf_error *err) SF_MUST_USE;
/* After the lease had run out: a run that was taken for dead may have lost its shards to a clean-up, and must not be announced
 * then (SF_NOT_FOUND). */
sf_status sf__writer_find_shards(sf_writer *w, const sf_attempt *shards, size_t count, sf_error *err) SF_MUST_USE;
/* Deletes what this writer stored, as far as that works. */
void sf__writer_delete_own(sf_writer *w);
/* gate.c: SF_REFUSED, or an error that kept it from finding out. */
sf_status sf__writer_check_gate(sf_writer *w, sf_error *err) SF_MUST_USE;
/* The number of the row that is added next, from 1. */
uint64_t sf__writer_row_number(const sf_writer *w);
/* The next row, which whoever adds rows could not make, is left out, and counted. SF_STATE where no rows are taken. */
sf_status sf__writer_leave_out(sf_writer *w, sf_error *err) SF_MUST_USE;
/* Rows that were shuffled (shuffle.h), as sf_writer_add_many(). Keys that are hashed to another shard than the block's are
 * SF_NO_ROUTE; damaged blocks SF_CORRUPT. The number of shards must be known. */
sf_status sf__writer_add_shuffled(sf_writer *w, const sf_bytes *blocks, size_t count, sf_error *err) SF_MUST_USE;

#endif
