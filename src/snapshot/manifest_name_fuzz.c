/* Names below manifests/, and the listing made of them. Input: names, each ended by a line feed. A name that is taken is
 * one that a writer makes, but for its digits; a listing is sorted, newest first, and its references lead back. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/manifest_name.h"

#define NAMES_MAX 128
#define PREFIX "s3://bucket/some/prefix"

static const sf_allocator *a = &sf__allocator_default;

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* Written again and parsed again it means the same; only a run id that may not be written can be parsed all the same. */
static void check_name(sf_bytes name)
{
    sf_manifest_name parsed, back;
    sf_error err = {.code = SF_OK};
    char *run_id, *again;

    if (!sf__manifest_name_parse(name, &parsed))
        return;
    must(parsed.run_id.n > 0 && !memchr(parsed.run_id.p, '/', parsed.run_id.n));
    run_id = sf__strndup(a, parsed.run_id.p, parsed.run_id.n);
    must(run_id != NULL);
    if (strlen(run_id) == parsed.run_id.n &&
        sf__manifest_name_format(&again, parsed.published_at_us, run_id, a, &err) == SF_OK) {
        must(sf__manifest_name_parse(sf_bytes_str(again), &back));
        must(back.published_at_us == parsed.published_at_us && sf_bytes_eq(back.run_id, parsed.run_id));
        sf__free(a, again);
    } else {
        must(strlen(run_id) < parsed.run_id.n || err.code == SF_INVALID);
    }
    sf__free(a, run_id);
}

static void check_refs(const sf_store_entry *entries, size_t count, size_t limit)
{
    sf_manifest_ref *refs;
    size_t n;

    must(sf__manifest_refs_from_listing(&refs, &n, PREFIX, SF_MANIFEST_NAME, entries, count, limit, a, NULL) == SF_OK);
    must(n <= count && n <= limit);
    for (size_t i = 0; i < n; i++) {
        must(i == 0 || refs[i - 1].published_at_us >= refs[i].published_at_us);
        must(strncmp(refs[i].ref, PREFIX "/manifests/", strlen(PREFIX "/manifests/")) == 0);
        must(strlen(refs[i].ref) > 9 && strcmp(refs[i].ref + strlen(refs[i].ref) - 9, "/manifest") == 0);
        must(refs[i].run_id[0] != '\0');
    }
    sf__manifest_refs_free(refs, n, a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_cursor in = {data, size};
    sf_store_entry entries[NAMES_MAX];
    size_t count = 0;

    while (in.n > 0 && count < NAMES_MAX) {
        const uint8_t *end = memchr(in.p, '\n', in.n);
        sf_bytes name, run_id;

        must(sf_cursor_take(&in, end ? (size_t)(end - in.p) : in.n, &name));
        check_name(name);
        if (sf__run_id_from_ref(name, &run_id))
            must(run_id.n > 0 && run_id.n <= name.n && !memchr(run_id.p, '/', run_id.n));
        entries[count].key = sf__asprintf(a, "some/prefix/manifests/%.*s/", (int)name.n, (const char *)name.p);
        entries[count].size = 0;
        entries[count].is_prefix = name.n % 5 != 0;
        must(entries[count++].key != NULL);
        if (end)
            must(sf_cursor_take(&in, 1, &name));
    }
    check_refs(entries, count, SIZE_MAX);
    check_refs(entries, count, size % 4);
    for (size_t i = 0; i < count; i++)
        sf__free(a, entries[i].key);
    return 0;
}
