#include "writer/own_custom.h"

static void write_hashes(sf_strbuf *out, const sf_own_custom *c)
{
    bool first = true;

    sf__strbuf_puts(out, ", \"content_hash\": {\"algorithm\": \"xxh3_128\", \"shards\": {");
    for (size_t i = 0; i < c->count; i++) {
        if (!c->shards[i].content_hash)
            continue;
        sf__strbuf_printf(out, "%s\"%lld\": \"%s\"", first ? "" : ", ", (long long)c->shards[i].db_id,
                          c->shards[i].content_hash);
        first = false;
    }
    sf__strbuf_puts(out, "}}");
}

void sf__own_custom_write(sf_strbuf *out, const sf_own_custom *c)
{
    bool is_sqlite = c->backend == SF_BACKEND_SQLITE;

    sf__strbuf_printf(out, "\"kv_backend\": \"%s\"", is_sqlite ? "sqlite" : "slatedb");
    if (is_sqlite && c->sqlite->sidecar) {
        sf__strbuf_puts(out, ", \"sqlite_sidecar\": {\"codec\": \"zstd\", \"filename\": \"shard.sidecar\", "
                             "\"format_version\": 8, \"page_size\": ");
        if (c->sqlite->page_bytes > 0)
            sf__strbuf_printf(out, "%u}", c->sqlite->page_bytes);
        else
            sf__strbuf_puts(out, "\"auto\"}");
    }
    if (c->shards)
        write_hashes(out, c);
}
