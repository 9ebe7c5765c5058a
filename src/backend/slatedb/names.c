#include "backend/slatedb/names.h"

#include <stdlib.h>
#include <string.h>

#define ID_DIGITS 20u

static const struct {
    const char *folder, *suffix;
} folders[] = {
    [SF_DB_MANIFEST] = {"manifest", ".manifest"},
    [SF_DB_WAL] = {"wal", ".sst"},
};

char *sf__db_folder_key(const char *db_path, sf_db_folder folder, const sf_allocator *a)
{
    const char *slash = db_path[0] ? "/" : "";

    if (folder == SF_DB_ROOT)
        return sf__asprintf(a, "%s%s", db_path, slash);
    return sf__asprintf(a, "%s%s%s/", db_path, slash, folders[folder].folder);
}

char *sf__db_object_key(const char *db_path, sf_db_folder folder, uint64_t id, const sf_allocator *a)
{
    return sf__asprintf(a, "%s%s%s/%020llu%s", db_path, db_path[0] ? "/" : "", folders[folder].folder,
                        (unsigned long long)id, folders[folder].suffix);
}

static bool id_parse(const char *name, const char *suffix, uint64_t *id)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < ID_DIGITS; i++) {
        if (name[i] < '0' || name[i] > '9' || __builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(name[i] - '0'), &v))
            return false;
    }
    *id = v;
    return strcmp(name + ID_DIGITS, suffix) == 0;
}

static int by_id(const void *pa, const void *pb)
{
    const sf_db_object *a = pa, *b = pb;

    return (a->id > b->id) - (a->id < b->id);
}

bool sf__db_objects(const sf_store_entry *entries, size_t count, const char *folder_key, sf_db_folder folder,
                    const sf_allocator *a, sf_db_object **out, size_t *out_count)
{
    size_t prefix = strlen(folder_key), n = 0;
    sf_db_object *objects = sf__calloc(a, count + 1, sizeof(*objects));

    if (!objects)
        return false;
    for (size_t i = 0; i < count; i++) {
        const char *key = entries[i].key;

        if (entries[i].is_prefix || strncmp(key, folder_key, prefix) != 0 ||
            !id_parse(key + prefix, folders[folder].suffix, &objects[n].id))
            continue;
        objects[n++].size = entries[i].size;
    }
    qsort(objects, n, sizeof(*objects), by_id);
    *out = objects;
    *out_count = n;
    return true;
}
