/* Rows of PostgreSQL: what becomes a manifest is one for the parser, or one that it refuses in words; nothing
 * else. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/postgres_rows.h"
#include "snapshot/postgres_rows_write.h"
#include "snapshot/snapshot_manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok)
{
    if (!ok)
        abort();
}

/* A manifest that can be read can be published again, unless it is more than the tables hold. */
static void expect_rows(const sf_snapshot_manifest *m, sf_bytes manifest)
{
    sf_error err = {.code = SF_OK};
    sf_postgres_rows rows;
    sf_status rc = sf__postgres_rows_init(&rows, manifest, &sf__allocator_default, &err);

    if (rc != SF_OK) {
        expect(rc == SF_INVALID && err.message[0] != '\0');
        return;
    }
    expect(strcmp(rows.build[0], m->run_id) == 0 && strcmp(rows.build[8], m->sharding_json) == 0);
    expect(strstr(rows.build[9], SF_POSTGRES_SHARD_ROWS) && rows.shards[0] == '[');
    sf__postgres_rows_cleanup(&rows);
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
        expect_rows(m, sf__buf_bytes(file));
        sf__snapshot_manifest_free(m);
    } else {
        expect(rc == SF_BAD_MANIFEST && err.message[0] != '\0');
    }
    sf__buf_release(file);
    return 0;
}
