/* Run records: a parsed one, written and parsed again, is the same; and written again it has the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/run_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok)
{
    if (!ok)
        abort();
}

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_record(const sf_run_record *a, const sf_run_record *b)
{
    return same(a->run_id, b->run_id) && same(a->writer_type, b->writer_type) && same(a->s3_prefix, b->s3_prefix) &&
           same(a->shard_prefix, b->shard_prefix) && same(a->db_path_template, b->db_path_template) &&
           same(a->manifest_ref, b->manifest_ref) && same(a->manifest_store, b->manifest_store) &&
           same(a->error_type, b->error_type) && same(a->error_message, b->error_message) && a->status == b->status &&
           a->started_at_us == b->started_at_us && a->updated_at_us == b->updated_at_us &&
           a->lease_expires_at_us == b->lease_expires_at_us && a->format_version == b->format_version;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const sf_allocator *a = &sf__allocator_default;
    sf_error err = {.code = SF_OK};
    sf_run_record r, back;
    sf_arena arena;
    char *text, *again;
    size_t n, m;
    sf_status rc;

    sf__arena_init(&arena, a);
    rc = sf__run_record_parse(&r, &arena, sf_bytes_of(data, size), &err);
    if (rc != SF_OK) {
        expect(rc == SF_CORRUPT && err.code == rc && err.message[0] != '\0');
        sf__arena_cleanup(&arena);
        return 0;
    }
    expect(sf__run_record_format(&text, &n, &r, a, NULL) == SF_OK);
    rc = sf__run_record_parse(&back, &arena, sf_bytes_of(text, n), &err);
    if (rc == SF_OK) { /* escapes may make it too long to be read */
        expect(same_record(&r, &back));
        expect(sf__run_record_format(&again, &m, &back, a, NULL) == SF_OK);
        expect(n == m && memcmp(text, again, n) == 0);
        sf__free(a, again);
    } else {
        expect(n > size);
    }
    sf__free(a, text);
    sf__arena_cleanup(&arena);
    return 0;
}
