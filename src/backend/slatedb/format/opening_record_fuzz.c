/* Input: a record. What decodes keeps the promises of a manifest that is read, and written again it is the same. */
#include <stdlib.h>

#include "backend/slatedb/format/opening_record.h"
#include "base/limits.h"

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* The sanitizer speaks when it lies elsewhere than in memory of the manifest's. */
static void read_all(sf_bytes s)
{
    volatile uint8_t sum = 0;

    for (size_t i = 0; i < s.n; i++)
        sum = (uint8_t)(sum + s.p[i]);
}

static void check_view(const sf_slatedb_manifest *m, uint32_t no)
{
    const sf_sst_view *v = &m->views[no];
    const sf_sst_info *info = &v->info;
    sf_id128 id;

    must(sf__ulid_parse(sf_bytes_str(v->ulid), &id) && !v->external_path && v->format_version == SF_SST_VERSION_MAX);
    read_all(info->first_key);
    read_all(info->last_key);
    must(info->has_first_key && info->has_last_key && sf_bytes_cmp(info->first_key, info->last_key) <= 0);
    must(no == 0 || sf_bytes_cmp(m->views[no - 1].info.last_key, info->first_key) <= 0);
    must(sf__sst_blocks_end(info) <= info->index_off && info->index_len <= SF_LIMIT_META_BYTES);
    must(sf__sst_meta_len(info) == info->filter_len + info->index_len);
    must(info->codec >= SF_CODEC_NONE && info->codec <= SF_CODEC_ZSTD && info->sst_type == SF_SST_COMPACTED);
}

static void check_again(const sf_slatedb_manifest *m, sf_bytes record)
{
    const sf_allocator *a = &sf__allocator_default;
    sf_built_sst *ssts = sf__calloc(a, (size_t)m->view_count + 1, sizeof(*ssts));
    sf_built_database db = {.ssts = ssts, .sst_count = m->view_count};
    uint64_t bytes, objects, again_bytes, again_objects;
    sf_slatedb_manifest again;
    sf_buf *b = NULL;

    must(ssts != NULL);
    for (uint32_t i = 0; i < m->view_count; i++) {
        ssts[i].info = m->views[i].info;
        must(sf__ulid_parse(sf_bytes_str(m->views[i].ulid), &ssts[i].ulid));
    }
    must(sf__opening_record_facts(record, &bytes, &objects) && objects == (uint64_t)m->view_count + 1);
    must(sf__opening_record_encode(&b, &db, bytes, a, NULL) == SF_OK);
    if (b) { /* it may exceed the limit of those that are written */
        must(b->n <= record.n);
        must(sf__opening_record_facts(sf__buf_bytes(b), &again_bytes, &again_objects) && again_bytes == bytes &&
             again_objects == objects);
        must(sf__opening_record_decode(&again, sf__buf_bytes(b), a, NULL) == SF_OK);
        must(again.view_count == m->view_count && again.tree_count == 1 && again.trees[0].run_count == 1);
        for (uint32_t i = 0; i < m->view_count; i++) {
            const sf_sst_view *x = &m->views[i], *y = &again.views[i];

            must(strcmp(x->ulid, y->ulid) == 0 && sf_bytes_eq(x->info.first_key, y->info.first_key) &&
                 sf_bytes_eq(x->info.last_key, y->info.last_key) && x->info.index_off == y->info.index_off &&
                 x->info.index_len == y->info.index_len && x->info.filter_off == y->info.filter_off &&
                 x->info.filter_len == y->info.filter_len && x->info.stats_len == y->info.stats_len &&
                 x->info.codec == y->info.codec && x->info.filter_format == y->info.filter_format);
        }
        sf__slatedb_manifest_cleanup(&again);
    } else {
        must(record.n > SF_LIMIT_OPENING_RECORD_BYTES);
    }
    sf__buf_release(b);
    sf__free(a, ssts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = sf__alloc(&sf__allocator_default, size + 1);
    sf_slatedb_manifest m;

    must(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    if (sf__opening_record_decode(&m, sf_bytes_of(copy, size), &sf__allocator_default, NULL) == SF_OK) {
        sf__free(&sf__allocator_default, copy); /* nothing of it is borrowed */
        copy = NULL;
        for (uint32_t i = 0; i < m.view_count; i++)
            check_view(&m, i);
        check_again(&m, sf_bytes_of(data, size));
        sf__slatedb_manifest_cleanup(&m);
    }
    sf__free(&sf__allocator_default, copy);
    return 0;
}
