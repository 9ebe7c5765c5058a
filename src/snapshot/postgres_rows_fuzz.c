/* Rows of PostgreSQL: what becomes a manifest is one for the parser, or one that it refuses in words; nothing
 * else. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/postgres_rows.h"
#include "snapshot/snapshot_manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const sf_allocator *a = &sf__allocator_default;
    sf_error err = {.code = SF_OK};
    sf_snapshot_manifest *m;
    sf_buf *file;
    sf_status rc = sf__postgres_manifest_encode(&file, sf_bytes_of(data, size), a, &err);

    if (rc != SF_OK) {
        expect(rc == SF_BAD_MANIFEST && err.code == rc && err.message[0] != '\0');
        return 0;
    }
    rc = sf__snapshot_manifest_parse(&m, sf__buf_bytes(file), 0, a, &err);
    if (rc == SF_OK) {
        expect(m->num_dbs > 0 && m->shard_count <= m->num_dbs && m->format_version == 4);
        sf__snapshot_manifest_free(m);
    } else {
        expect(rc == SF_BAD_MANIFEST && err.message[0] != '\0');
    }
    sf__buf_release(file);
    return 0;
}
