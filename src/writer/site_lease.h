/* A lease whose record lies beside the snapshot, with the thread that renews it. That the record cannot be written is
 * logged and no failure of the writer, but for what sf__site_lease_start() says. One thread. */
#ifndef SF_WRITER_SITE_LEASE_H
#define SF_WRITER_SITE_LEASE_H

#include "site/objects.h"
#include "writer/lease.h"

typedef struct sf_site_lease {
    const sf_site *site;
    sf_lease lease;
    char *name; /* of the object below the prefix; NULL: there is none */
    char *url;
    bool has_thread;
    pthread_t thread;
} sf_site_lease;

/* Stores the record and starts the heartbeat; `run_registry_prefix` NULL: no record. Of `options` prefix and times are
 * the site's. What keeps the record from being stored, and would keep shards from it, too, is returned (refused credentials,
 * no such bucket, another region), before anybody has added a row; what may pass is logged. On failure nothing was started. */
sf_status sf__site_lease_start(sf_site_lease *l, const sf_site *site, const char *run_registry_prefix,
                               const sf_lease_options *options, sf_error *err) SF_MUST_USE;
/* There is a record, and sf__lease_has_lapsed(). */
bool sf__site_lease_has_lapsed(sf_site_lease *l);
/* The record is to name this manifest before it is visible; and if it cannot be put now, that is logged. */
void sf__site_lease_intend(sf_site_lease *l, const char *manifest_ref);
/* The last word; the texts may be NULL. A second time does nothing. */
void sf__site_lease_finish(sf_site_lease *l, sf_run_status status, const char *error_type, const char *error_message);
void sf__site_lease_cleanup(sf_site_lease *l); /* takes a zeroed one */

/* "<time>_run_id=<id>_<32 hex>", the name of a new record's folder; the digits tell of this process. Freed with sf__free(). */
sf_status sf__run_folder_format(char **out, int64_t started_at_us, const char *run_id, const sf_allocator *a,
                                sf_error *err) SF_MUST_USE;
/* "runs/<time>_run_id=<id>_<32 hex>/", below the prefix: the id, and (may be NULL) where the digits begin. False for what
 * is no record's folder. */
bool sf__run_folder_parse(const char *folder, sf_bytes *run_id, const char **owner) SF_MUST_USE;

#endif
