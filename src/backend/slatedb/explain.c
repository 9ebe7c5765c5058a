/* What a look-up of one key considers, as far as memory tells: the walk of view.c, with what it passes over. */
#include "backend/slatedb/shard.h"
#include "base/container.h"
#include "base/error.h"

struct explanation {
    const sf_slatedb_shard *db;
    sf_bytes key;
    sf_look_fn look;
    void *ctx;
    bool found; /* older objects are not looked at */
};

/* A block that is in memory tells whether it has the key. */
static sf_look_answer answer_of(const struct explanation *x, const sf_sst *sst, uint32_t block)
{
    sf_buf *plain = sf__sst_block_cached(sst, block, x->db->base.cache);
    sf_block_row row;
    bool found = false;
    sf_status rc;

    if (!plain)
        return SF_LOOK_UNKNOWN;
    rc = sf__sst_block_get(sst, plain, x->key, x->db->view.max_seq, &found, &row, NULL);
    sf__buf_release(plain);
    return rc != SF_OK ? SF_LOOK_UNKNOWN : found ? SF_LOOK_FOUND : SF_LOOK_NOT_THERE;
}

static void explain_sst(struct explanation *x, const sf_sst_view *sv)
{
    const sf_sst *sst = sf__read_view_sst(&x->db->view, sv);
    char url[sizeof(((sf_error *)NULL)->object)];
    sf_look look = {.object = url};
    sf_index_range r;

    if (x->found || !sf__sst_view_may_hold(sv, x->key))
        return;
    sf__store_object_url(x->db->store, sst->key, url, sizeof(url));
    look.has_filter = sst->filter.count > 0;
    if (look.has_filter && !sf__filter_may_contain(&sst->filter, x->key)) {
        look.answer = SF_LOOK_RULED_OUT;
        x->look(x->ctx, &look);
        return;
    }
    r = sf__index_candidates(&sst->index, x->key);
    for (uint32_t i = r.first; !x->found && i <= r.last; i++) {
        look.offset = sf__index_block_off(&sst->index, i);
        look.length = sf__index_block_len(&sst->index, i);
        look.answer = answer_of(x, sst, i);
        x->look(x->ctx, &look);
        x->found = look.answer == SF_LOOK_FOUND;
    }
}

void sf__slatedb_explain(sf_shard *base, sf_bytes key, sf_look_fn look, void *ctx)
{
    const sf_slatedb_shard *db = sf_container_of(base, sf_slatedb_shard, base);
    struct explanation x = {.db = db, .key = key, .look = look, .ctx = ctx};
    const sf_slatedb_tree *t = key.n > 0 ? sf__slatedb_manifest_tree(&db->view.manifest, key) : NULL;

    if (sf__memtable_get(db->view.memtable, key)) {
        look(ctx, &(sf_look){.object = "the WAL, which is in memory", .answer = SF_LOOK_FOUND});
        return;
    }
    for (uint32_t i = 0; t && i < t->l0_count; i++)
        explain_sst(&x, &t->l0[i]);
    for (uint32_t r = 0; t && r < t->run_count; r++)
        for (uint32_t i = sf__run_first_from(t->runs[r].ssts, t->runs[r].sst_count, key);
             i < t->runs[r].sst_count && sf_bytes_cmp(t->runs[r].ssts[i].info.first_key, key) <= 0; i++)
            explain_sst(&x, &t->runs[r].ssts[i]);
}
