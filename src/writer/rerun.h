/* A run id that was used before, by a scheduler's second try say: whether another writer is still at it, and under which
 * numbers its attempts lie. Block; not on the loop thread. */
#ifndef SF_WRITER_RERUN_H
#define SF_WRITER_RERUN_H

#include "site/objects.h"

/* SF_CONFLICT, with the end of the lease, while a writer works on the run. Records that cannot be read are no obstacle:
 * what is stored is never replaced, whoever comes second. */
sf_status sf__rerun_check_lease(const sf_site *s, const char *registry, const char *run_id,
                                const sf_cancel_flag *cancel, sf_error *err) SF_MUST_USE;

#define SF_FINISHED_RECORD_NAME "finished.json"

/* The objects of earlier attempts, listed once. */
typedef struct sf_earlier_attempts {
    sf_store_listing listing; /* by key, below the prefix */
    size_t run_bytes;         /* of each key, which name the run */
    bool listed;
} sf_earlier_attempts;

sf_status sf__earlier_attempts_list(sf_earlier_attempts *out, const sf_site *s, const char *shard_prefix,
                                    const char *run_id, const sf_cancel_flag *cancel, sf_error *err) SF_MUST_USE;
/* The same; that they cannot be listed is logged: numbers are then found by trying. SF_NOMEM, SF_CANCELLED. */
sf_status sf__earlier_attempts_load(sf_earlier_attempts *out, const sf_site *s, const char *shard_prefix,
                                    const char *run_id, const sf_cancel_flag *cancel, sf_error *err) SF_MUST_USE;
void sf__earlier_attempts_free(sf_earlier_attempts *e); /* takes a zeroed one */
/* Where objects whose keys begin with `folder` stand in the listing, if there are any: the first that is not before them. */
size_t sf__earlier_attempts_first(const sf_earlier_attempts *e, const char *folder);
/* Bytes of what lies in a folder (with its slash), but for the record that says the attempt is finished. */
uint64_t sf__earlier_attempts_bytes(const sf_earlier_attempts *e, const char *folder);
/* The number behind the largest below `folder` ("shards/run_id=X/db=00000/attempt="), 0 when there is none. */
uint32_t sf__earlier_attempts_next(const sf_earlier_attempts *e, const char *folder);
/* The attempt to which an object belongs: its shard's path below the run, "db=00000", and the number. False for what belongs
 * to none. */
bool sf__earlier_attempts_at(const sf_earlier_attempts *e, size_t index, sf_bytes *path, uint32_t *number) SF_MUST_USE;

#endif
