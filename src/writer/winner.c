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

/* ------------------------------------------------------------------ folders -------------------------------------- */

/* A slash comes before all other characters: what lies in a folder follows it at once. Of `b` the first n bytes count. */
static int compare_paths(const char *a, const char *b, size_t n)
{
    size_t i = 0;
    unsigned char x, y;

    while (i < n && a[i] && a[i] == b[i])
        i++;
    x = (unsigned char)a[i];
    y = i < n ? (unsigned char)b[i] : 0;
    if (x == y)
        return 0;
    if (x == 0 || y == 0)
        return x == 0 ? -1 : 1;
    if (x == '/' || y == '/')
        return x == '/' ? -1 : 1;
    return x < y ? -1 : 1;
}

static int by_path(const void *a, const void *b)
{
    const char *y = *(const char *const *)b;

    return compare_paths(*(const char *const *)a, y, strlen(y));
}

void sf__folder_set_sort(sf_folder_set *s)
{
    if (s->count > 1)
        qsort((void *)s->folders, s->count, sizeof(*s->folders), by_path);
}

/* The first that does not come before the first n bytes of `folder`; count: none. */
static size_t position(sf_folder_set *s, const char *folder, size_t n)
{
    size_t low = 0, high = s->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        s->comparisons++;
        if (compare_paths(s->folders[middle], folder, n) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool sf__folder_set_touches(sf_folder_set *s, const char *folder)
{
    size_t n = strlen(folder), at = position(s, folder, n);
    const char *found = at < s->count ? s->folders[at] : "";

    if (strncmp(found, folder, n) == 0 && (found[n] == '\0' || found[n] == '/'))
        return true;
    for (size_t i = 1; i < n; i++) {
        if (folder[i] != '/')
            continue;
        at = position(s, folder, i);
        if (at < s->count && strncmp(s->folders[at], folder, i) == 0 && s->folders[at][i] == '\0')
            return true;
    }
    return false;
}
