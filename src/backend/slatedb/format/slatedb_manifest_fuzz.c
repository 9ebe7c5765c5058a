/* Input: a manifest. What decodes keeps every promise of slatedb_manifest.h. */
#include <stdlib.h>

#include "backend/slatedb/format/slatedb_manifest.h"
#include "base/limits.h"

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void must_lie_in(const sf_buf *b, sf_bytes s)
{
    must(s.n == 0 || (s.p >= b->data && s.n <= (size_t)(b->data + b->n - s.p)));
}

static void check_bound(const sf_buf *b, const sf_key_bound *k)
{
    must(k->kind == SF_BOUND_UNBOUNDED || k->kind == SF_BOUND_INCLUDED || k->kind == SF_BOUND_EXCLUDED);
    must(k->kind != SF_BOUND_UNBOUNDED || k->key.n == 0);
    must_lie_in(b, k->key);
}

static void check_path(const sf_buf *b, const char *path)
{
    sf_bytes s = sf_bytes_str(path); /* terminated, or the sanitizer speaks */

    must_lie_in(b, s);
    must(path[0] != '/' && strcmp(path, "..") != 0 && strncmp(path, "../", 3) != 0 && !strstr(path, "/../") &&
         !strstr(path, "//"));
}

static void check_view(const sf_buf *b, const sf_sst_view *v)
{
    const sf_sst_info *info = &v->info;
    sf_id128 id;
    char text[SF_ULID_TEXT_LEN + 1];

    must(sf__ulid_parse(sf_bytes_str(v->ulid), &id));
    sf__ulid_format(id, text);
    must(strcmp(text, v->ulid) == 0);
    must(v->format_version >= SF_SST_VERSION_MIN && v->format_version <= SF_SST_VERSION_MAX);
    must(sf__sst_blocks_end(info) <= info->index_off && info->index_len <= SF_LIMIT_META_BYTES);
    must(sf__sst_meta_len(info) == info->filter_len + info->index_len);
    must_lie_in(b, info->first_key);
    must_lie_in(b, info->last_key);
    if (v->visible) {
        check_bound(b, &v->visible->start);
        check_bound(b, &v->visible->end);
    }
    if (v->external_path)
        check_path(b, v->external_path);
    if (!info->has_first_key) {
        must(!sf__sst_view_may_hold(v, info->last_key));
        return;
    }
    must(!info->has_last_key || sf_bytes_cmp(info->first_key, info->last_key) <= 0);
    must(sf__sst_view_may_hold(v, info->first_key) ==
         (!v->visible || sf__key_range_contains(v->visible, info->first_key)));
    must(!info->has_last_key || sf__sst_view_may_hold(v, info->last_key) ==
                                    (!v->visible || sf__key_range_contains(v->visible, info->last_key)));
}

static void check_tree(const sf_slatedb_manifest *m, const sf_slatedb_tree *t, uint32_t *views)
{
    must_lie_in(m->buf, t->prefix);
    must(sf__slatedb_manifest_tree(m, t->prefix) == t);
    must(t->l0 == m->views + *views);
    *views += t->l0_count;
    for (uint32_t i = 0; i < t->run_count; i++) {
        const sf_slatedb_sorted_run *run = &t->runs[i];

        must(run->ssts == m->views + *views);
        *views += run->sst_count;
        for (uint32_t k = 1; k < run->sst_count; k++) {
            const sf_sst_info *before = &run->ssts[k - 1].info, *info = &run->ssts[k].info;

            must(before->has_first_key && info->has_first_key);
            must(sf_bytes_cmp(before->first_key, info->first_key) <= 0);
            must(!before->has_last_key || sf_bytes_cmp(before->last_key, info->first_key) <= 0);
        }
    }
}

static int view_order(const void *a, const void *b)
{
    const sf_slatedb_tree *x = *(const sf_slatedb_tree *const *)a, *y = *(const sf_slatedb_tree *const *)b;

    return (x->l0 > y->l0) - (x->l0 < y->l0);
}

/* The views lie in the order of the file, the trees in that of their prefixes. */
static void check_trees(const sf_slatedb_manifest *m)
{
    const sf_slatedb_tree **in_file = malloc((m->tree_count + 1) * sizeof(*in_file));
    uint32_t views = 0;
    bool distinct = true;

    must(in_file != NULL);
    for (uint32_t i = 0; i < m->tree_count; i++) {
        in_file[i] = &m->trees[i];
        must(i == 0 || (sf_bytes_cmp(m->trees[i - 1].prefix, m->trees[i].prefix) < 0 &&
                        !sf_bytes_starts_with(m->trees[i].prefix, m->trees[i - 1].prefix)));
    }
    qsort(in_file, m->tree_count, sizeof(*in_file), view_order);
    for (uint32_t i = 1; i < m->tree_count; i++) /* trees without views share a place: any order of them is right */
        distinct = distinct && in_file[i - 1]->l0 != in_file[i]->l0;
    for (uint32_t i = 0; distinct && i < m->tree_count; i++)
        check_tree(m, in_file[i], &views);
    must(!distinct || views == m->view_count);
    free(in_file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_buf *buf = sf__buf_copy(&sf__allocator_default, (sf_bytes){data, size});
    sf_slatedb_manifest m;
    sf_status rc;

    must(buf != NULL);
    rc = sf__slatedb_manifest_decode(&m, buf, &sf__allocator_default, NULL);
    must((rc == SF_OK) == (m.buf != NULL));
    if (rc == SF_OK) {
        must(m.tree_count >= 1 && (m.head->segmented || (m.tree_count == 1 && m.trees[0].prefix.n == 0)));
        must(m.bytes >= size);
        for (uint32_t i = 0; i < m.view_count; i++)
            check_view(buf, &m.views[i]);
        check_trees(&m);
        for (uint32_t i = 0; i < m.head->checkpoint_count; i++) {
            const sf_slatedb_checkpoint *c = sf__slatedb_manifest_checkpoint(&m, m.head->checkpoints[i].id);

            must(c && sf__id128_eq(c->uuid, m.head->checkpoints[i].uuid));
            must_lie_in(buf, m.head->checkpoints[i].name);
        }
    }
    sf__slatedb_manifest_cleanup(&m);
    sf__buf_release(buf);
    return 0;
}
