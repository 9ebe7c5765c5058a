/* Which attempt at a shard counts (docs/formats/snapshot.md 9). Pure; any thread. */
#ifndef SF_WRITER_WINNER_H
#define SF_WRITER_WINNER_H

#include "base/alloc.h"
#include "shardyfusion/writer.h"

/* Of each shard the attempt with the smallest (attempt, task_attempt_id or none, db_url or empty); when that one stored
 * nothing, the shard is empty and has no winner. *out holds indexes into `attempts`, by ascending db_id; freed with
 * sf__free() (NULL when *count is 0). SF_INVALID for a db_id outside of the snapshot. */
sf_status sf__winners_choose(size_t **out, size_t *count, const sf_attempt *attempts, size_t attempt_count,
                             uint32_t num_dbs, const sf_allocator *a, sf_error *err);

/* Folders by path, so that one can be compared with all of them in a few steps. */
typedef struct sf_folder_set {
    const char **folders; /* borrowed; without slash at their ends */
    size_t count;
    uint64_t comparisons; /* of look-ups, for tests */
} sf_folder_set;

void sf__folder_set_sort(sf_folder_set *s);
/* Whether the folder is one of them, lies in one, or has one in it. By segment. */
bool sf__folder_set_touches(sf_folder_set *s, const char *folder);

#endif
