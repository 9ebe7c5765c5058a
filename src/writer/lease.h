/* A writer's run record on storage, and the thread that keeps its lease alive. That the record cannot be written is
 * logged and no failure of the writer, but for what sf__lease_start() says. Start, announce and finish come from one thread. */
#ifndef SF_WRITER_LEASE_H
#define SF_WRITER_LEASE_H

#include "base/thread.h"
#include "shardyfusion/writer.h"
#include "site/objects.h"
#include "snapshot/run_record.h"

typedef struct sf_lease_options {
    const char *run_registry_prefix; /* NULL: no record */
    const char *run_id, *writer_type, *shard_prefix, *db_path_template; /* must outlive the lease */
    int64_t lease_ms, heartbeat_ms;
} sf_lease_options;

typedef struct sf_lease {
    const sf_site *site;
    sf_lease_options options;
    char *name;             /* of the object below the prefix; NULL: there is none */
    char *url;
    int64_t started_at_us;
    bool has_thread;
    pthread_t thread;
    sf_cancel_flag stop;    /* the request in flight */
    sf_mutex lock;
    sf_cond wake;
    bool stopping;          /* under lock */
    int64_t renewed_ms;     /* under lock: when the record was last written, of the clock that runs in sleep, too */
    const char *manifest_ref; /* under lock; borrowed */
} sf_lease;

/* Stores the record and starts the heartbeat. What keeps it from being stored, and would keep shards from it, too, is
 * returned (refused credentials, no such bucket, another region), before anybody has added a row; what may pass is logged.
 * On failure nothing was started. */
sf_status sf__lease_start(sf_lease *l, const sf_site *site, const sf_lease_options *options, sf_error *err) SF_MUST_USE;
/* There was a record, and it was not renewed in time (the machine slept, the store was away): somebody may have taken the
 * run for dead and cleaned it up. */
bool sf__lease_has_lapsed(sf_lease *l);
/* The snapshot is visible: heartbeats name it from now on. */
void sf__lease_announce(sf_lease *l, const char *manifest_ref);
/* The last word; the texts may be NULL. Stops the thread. A second time does nothing. */
void sf__lease_finish(sf_lease *l, sf_run_status status, const char *error_type, const char *error_message);
/* "<time>_run_id=<id>_<32 hex>", the name of a new record's folder; the digits tell of this process. Freed with sf__free(). */
sf_status sf__lease_folder_format(char **out, int64_t started_at_us, const char *run_id, const sf_allocator *a,
                                  sf_error *err);
/* "runs/<time>_run_id=<id>_<32 hex>/", below the prefix: the id, and (may be NULL) where the digits begin. False for what
 * is no record's folder. */
bool sf__lease_folder_parse(const char *folder, sf_bytes *run_id, const char **owner) SF_MUST_USE;
void sf__lease_cleanup(sf_lease *l); /* without finish the record stays as it is; takes a zeroed one */

#endif
