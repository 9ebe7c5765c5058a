#include "writer/winner.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

struct entry {
    const sf_attempt *attempt;
    size_t index;
};

static int compare_ints(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int by_shard_then_rank(const void *x, const void *y)
{
    const sf_attempt *a = ((const struct entry *)x)->attempt, *b = ((const struct entry *)y)->attempt;
    int c = compare_ints(a->db_id, b->db_id);

    if (c == 0)
        c = compare_ints(a->attempt, b->attempt);
    if (c == 0)
        c = compare_ints(a->has_task_attempt_id ? a->task_attempt_id : INT64_MAX,
                         b->has_task_attempt_id ? b->task_attempt_id : INT64_MAX);
    return c != 0 ? c : strcmp(a->db_url ? a->db_url : "", b->db_url ? b->db_url : "");
}

sf_status sf__winners_choose(size_t **out, size_t *count, const sf_attempt *attempts, size_t attempt_count,
                             uint32_t num_dbs, const sf_allocator *a, sf_error *err)
{
    struct entry *entries;
    size_t *winners, n = 0;

    *out = NULL;
    *count = 0;
    for (size_t i = 0; i < attempt_count; i++)
        if (attempts[i].db_id < 0 || attempts[i].db_id >= num_dbs)
            return sf_fail(err, SF_INVALID, "an attempt names shard %lld, the snapshot has shards 0 to %u",
                           (long long)attempts[i].db_id, num_dbs - 1);
    if (attempt_count == 0)
        return SF_OK;
    entries = sf__calloc(a, attempt_count, sizeof(*entries));
    winners = sf__calloc(a, attempt_count, sizeof(*winners));
    if (!entries || !winners) {
        sf__free(a, entries);
        sf__free(a, winners);
        return sf_fail(err, SF_NOMEM, "choosing among %zu attempts", attempt_count);
    }
    for (size_t i = 0; i < attempt_count; i++)
        entries[i] = (struct entry){&attempts[i], i};
    qsort(entries, attempt_count, sizeof(*entries), by_shard_then_rank);
    for (size_t i = 0; i < attempt_count; i++)
        if ((i == 0 || entries[i - 1].attempt->db_id != entries[i].attempt->db_id) && entries[i].attempt->db_url)
            winners[n++] = entries[i].index;
    sf__free(a, entries);
    *out = winners;
    *count = n;
    return SF_OK;
}
