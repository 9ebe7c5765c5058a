/* Manifests: what is taken keeps the promises that the reader relies on, and the strict reading is part of the legacy
 * one. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "snapshot/manifest_sharding.h"
#include "snapshot/router.h"
#include "snapshot/snapshot_manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const sf_allocator *const heap = &sf__allocator_default;

static void expect(bool ok)
{
    if (!ok)
        abort();
}

static void expect_json(const char *text, unsigned flags, sf_json_kind kind)
{
    sf_json_doc doc;

    expect(sf__json_parse(&doc, sf_bytes_str(text), flags, heap, NULL) == SF_OK && doc.root->kind == kind);
    sf__json_cleanup(&doc);
}

static void expect_key(const char *text)
{
    sf_json_doc doc;

    if (!text)
        return;
    expect(sf__json_parse(&doc, sf_bytes_str(text), 0, heap, NULL) == SF_OK);
    expect(doc.root->kind == SF_JSON_INT || doc.root->kind == SF_JSON_STRING);
    sf__json_cleanup(&doc);
}

static void expect_sharding(const sf_snapshot_manifest *m)
{
    sf_sharding s;
    sf_strbuf again;

    sf__strbuf_init(&again, heap);
    expect(sf__sharding_decode(&s, &again, sf_bytes_str(m->sharding_json), false, heap, NULL) == SF_OK);
    expect(s.strategy == m->strategy && strcmp(again.s, m->sharding_json) == 0);
    expect(!s.categorical || m->num_dbs == (s.value_count > 0 ? s.value_count : 1));
    sf__strbuf_cleanup(&again);
}

static void expect_manifest(const sf_snapshot_manifest *m)
{
    sf_key key = {.type = SF_KEY_INT, .i = 5};
    sf_router router;
    uint32_t db_id;
    sf_status rc;

    expect(m->run_id && m->s3_prefix && m->key_col && m->db_path_template && m->shard_prefix);
    expect(m->num_dbs > 0 && m->num_dbs <= SF_LIMIT_SHARDS && m->shard_count <= m->num_dbs);
    expect(m->format_version >= 2 && m->format_version <= 4);
    expect_sharding(m);
    expect_json(m->custom_json, SF_JSON_NAN | SF_JSON_LONE_SURROGATES, SF_JSON_OBJECT);
    for (size_t i = 0; i < m->shard_count; i++) {
        const sf_manifest_shard *s = &m->shards[i];

        expect(s->db_id < m->num_dbs && (i == 0 || m->shards[i - 1].db_id < s->db_id));
        expect(s->row_count <= INT64_MAX && s->db_bytes <= INT64_MAX);
        expect_key(s->min_key_json);
        expect_key(s->max_key_json);
        expect_json(s->writer_info_json, 0, SF_JSON_OBJECT);
    }
    rc = sf__router_init(&router, m, &sf__allocator_default, NULL);
    expect(rc == SF_OK || (rc == SF_INVALID && m->strategy == SF_SHARDING_CEL));
    if (rc == SF_OK) {
        rc = sf__router_route(&router, &key, &db_id, NULL);
        expect(rc == SF_OK ? db_id < m->num_dbs : m->strategy == SF_SHARDING_CEL);
        sf__router_cleanup(&router);
    }
    rc = sf__snapshot_manifest_check_readable(m, true, NULL);
    expect(rc == SF_OK || rc == SF_INVALID || rc == SF_UNSUPPORTED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_snapshot_manifest *strict = NULL, *legacy = NULL;
    sf_error err = SF_ERROR_INIT;
    sf_status rc = sf__snapshot_manifest_parse(&strict, sf_bytes_of(data, size), 0, heap, &err);

    expect(rc == SF_OK ? strict != NULL : rc == SF_BAD_MANIFEST && err.code == rc && err.message[0] != '\0' && !strict);
    rc = sf__snapshot_manifest_parse(&legacy, sf_bytes_of(data, size), SF_MANIFEST_LEGACY, heap, &err);
    expect(rc == SF_OK || (rc == SF_BAD_MANIFEST && !strict));
    if (legacy)
        expect_manifest(legacy);
    if (strict)
        expect(strict->format_version == 4 && strict->num_dbs == legacy->num_dbs &&
               strict->shard_count == legacy->shard_count && strcmp(strict->run_id, legacy->run_id) == 0);
    sf__snapshot_manifest_free(strict);
    sf__snapshot_manifest_free(legacy);
    return 0;
}
