/* Names in a listing of a database's folder. Input: u8 folder | names, each ended by a line feed. What is taken for a
 * numbered object is written again as the same name. */
#include <stdlib.h>
#include <string.h>

#include "backend/slatedb/names.h"

#define NAMES_MAX 256

static const sf_allocator *a = &sf__allocator_default;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static bool has_key(const sf_store_entry *entries, size_t count, const char *key, uint64_t size)
{
    for (size_t i = 0; i < count; i++)
        if (!entries[i].is_prefix && entries[i].size == size && strcmp(entries[i].key, key) == 0)
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_cursor in = {data, size};
    sf_store_entry entries[NAMES_MAX];
    sf_db_object *objects;
    size_t count = 0, n;
    uint8_t head;
    sf_db_folder folder;
    char *folder_key;

    if (!sf_cursor_u8(&in, &head))
        return 0;
    folder = head & 1 ? SF_DB_WAL : SF_DB_MANIFEST;
    folder_key = sf__db_folder_key(head & 2 ? "" : "a/b", folder, a);
    must(folder_key != NULL);
    while (in.n > 0 && count < NAMES_MAX) {
        const uint8_t *end = memchr(in.p, '\n', in.n);
        sf_bytes name;

        must(sf_cursor_take(&in, end ? (size_t)(end - in.p) : in.n, &name));
        entries[count] =
            (sf_store_entry){.key = head & 4 ? sf__strndup(a, name.p, name.n)
                                             : sf__asprintf(a, "%s%.*s", folder_key, (int)name.n, (const char *)name.p),
                             .size = name.n,
                             .is_prefix = name.n % 7 == 3};
        must(entries[count++].key != NULL);
        if (end)
            must(sf_cursor_take(&in, 1, &name));
    }
    must(sf__db_objects(entries, count, folder_key, folder, a, &objects, &n) && n <= count);
    for (size_t i = 0; i < n; i++) {
        char *key = sf__db_object_key(head & 2 ? "" : "a/b", folder, objects[i].id, a);

        must(key != NULL && has_key(entries, count, key, objects[i].size));
        must(i == 0 || objects[i - 1].id <= objects[i].id);
        sf__free(a, key);
    }
    sf__free(a, objects);
    for (size_t i = 0; i < count; i++)
        sf__free(a, entries[i].key);
    sf__free(a, folder_key);
    return 0;
}
