/* The lease of a run: its record is put again in time while the run goes on, and once more, with the last word, at its end.
 * Where the record is kept is the keeper's. One thread runs sf__lease_run(); start, announce and finish come from another.
 * In a forked child, which has no such thread and whose parent goes on, nothing here does anything. */
#ifndef SF_WRITER_LEASE_H
#define SF_WRITER_LEASE_H

#include <sys/types.h>

#include "base/thread.h"
#include "net/wait.h"
#include "snapshot/run_record.h"

#define SF_LEASE_MAX_MS (INT64_C(36525) * 24 * 60 * 60 * 1000) /* its end must be a date */

typedef struct sf_lease_keeper {
    void *ctx;
    /* Puts the record where the last one was; one call at a time, under no lock, perhaps on the thread of sf__lease_run().
     * False: it is not there, which the keeper has told whoever should know. */
    bool (*put)(void *ctx, const sf_run_record *r, const sf_cancel_flag *cancel);
    int64_t (*now_us)(void *ctx); /* microseconds since 1970; may be called under the lock */
} sf_lease_keeper;

typedef struct sf_lease_options {
    const char *run_id, *writer_type, *s3_prefix, *shard_prefix, *db_path_template; /* must outlive the lease */
    const char *manifest_store;                                                     /* likewise, or NULL */
    int64_t lease_ms, heartbeat_ms;
    int64_t started_at_us;
    int64_t renewed_ms; /* of sf__lease_clock_ms(): from when the lease runs */
} sf_lease_options;

typedef struct sf_lease {
    sf_lease_keeper keeper;
    sf_lease_options options;
    pid_t owner;
    sf_cancel_flag stop; /* the put in flight */
    sf_mutex lock;
    sf_cond changed;
    bool stopping, putting, ended; /* under lock */
    int64_t renewed_ms;            /* under lock: when the record was last put */
    const char *manifest_ref;      /* under lock; borrowed */
} sf_lease;

/* Whether a store that failed so to take the first record has answered for good, and would answer the same to a shard: then no row
 * needs to come. Else the run goes on without a record. */
bool sf__lease_is_refused(sf_status rc);

/* Milliseconds that also pass while the machine sleeps, and that nobody sets. */
int64_t sf__lease_clock_ms(void);
/* Times beyond what a lease can be are brought within it. */
void sf__lease_init(sf_lease *l, const sf_lease_keeper *keeper, const sf_lease_options *options);
/* What is to be kept of the run now; the texts are the lease's. */
sf_run_record sf__lease_record(const sf_lease *l, sf_run_status status, const char *manifest_ref);
/* Renews until it is stopped. */
void sf__lease_run(sf_lease *l);
/* The record was not renewed in time (the machine slept, the store was away), by `now_ms` or before a later renewal: somebody
 * may have taken the run for dead and cleaned it up. */
bool sf__lease_has_lapsed(sf_lease *l, int64_t now_ms);
/* The snapshot is visible, or may be soon: the record names it from its next renewal on. NULL: it is not after all. */
void sf__lease_announce(sf_lease *l, const char *manifest_ref);
/* Renews now; waits for a renewal that is under way. False: the record could not be put, or the lease has stopped. */
bool sf__lease_renew(sf_lease *l);
/* No renewal begins from now on. One that is under way is cut off or not: it may still arrive behind what follows. */
void sf__lease_stop(sf_lease *l, bool cut_off);
/* After sf__lease_stop(): true once no renewal is under way, false when that is so at `due_ns`. */
bool sf__lease_wait_stopped(sf_lease *l, uint64_t due_ns);
/* The last word, after sf__lease_stop(); waits for the renewal under way. The texts may be NULL. A second one does nothing. */
void sf__lease_finish(sf_lease *l, sf_run_status status, const char *error_type, const char *error_message);
void sf__lease_cleanup(sf_lease *l); /* when sf__lease_run() has returned; without finish the record stays as it is */

#endif
