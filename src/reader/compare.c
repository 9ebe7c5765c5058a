/* What the manifests of two snapshots tell differently. */
#include "reader/compare.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "snapshot/key.h"

/* ------------------------------------------------------------------ the same shard? ---------------------------------- */

sf_status sf__shard_comparison_init(sf_shard_comparison *c, const sf_snapshot *from, const sf_snapshot *to, sf_error *err)
{
    sf_status rc;

    *c = (sf_shard_comparison){.from = from, .to = to};
    rc = sf__content_hashes_init(&c->from_hashes, from->manifest, from->alloc, err);
    if (rc == SF_OK)
        rc = sf__content_hashes_init(&c->to_hashes, to->manifest, to->alloc, err);
    if (rc != SF_OK)
        sf__shard_comparison_cleanup(c);
    return rc;
}

void sf__shard_comparison_cleanup(sf_shard_comparison *c)
{
    sf__content_hashes_cleanup(&c->from_hashes);
    sf__content_hashes_cleanup(&c->to_hashes);
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

bool sf__shard_comparison_same(const sf_shard_comparison *c, uint32_t db_id)
{
    sf_shard_info p, q;
    sf_bytes x, y;

    if (!sf_snapshot_get_shard(c->from, db_id, &p) || !sf_snapshot_get_shard(c->to, db_id, &q))
        return false;
    if (same_text(p.db_url, q.db_url) && (!p.db_url || (p.checkpoint_id && same_text(p.checkpoint_id, q.checkpoint_id))))
        return true;
    x = sf__content_hashes_of(&c->from_hashes, db_id);
    y = sf__content_hashes_of(&c->to_hashes, db_id);
    return x.n > 0 && sf_bytes_eq(x, y) && p.row_count == q.row_count;
}

/* ------------------------------------------------------------------ differences -------------------------------------- */

struct comparison {
    sf_difference_fn tell;
    void *ctx;
    bool ended; /* nobody listens any more */
};

static sf_fact text_fact(const char *text)
{
    return text ? (sf_fact){.kind = SF_FACT_TEXT, .text = text} : (sf_fact){.kind = SF_FACT_NONE};
}

static sf_fact uint_fact(uint64_t v)
{
    return (sf_fact){.kind = SF_FACT_UINT, .number = v};
}

static bool same_fact(const sf_fact *a, const sf_fact *b)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case SF_FACT_NONE:
        return true;
    case SF_FACT_TEXT:
    case SF_FACT_JSON:
        return strcmp(a->text, b->text) == 0;
    case SF_FACT_UINT:
        return a->number == b->number;
    case SF_FACT_TIME:
        return a->time_us == b->time_us;
    }
    return false;
}

static void compare_fact(struct comparison *c, const char *name, sf_fact from, sf_fact to)
{
    if (!c->ended && !same_fact(&from, &to))
        c->ended = !c->tell(c->ctx, &(sf_difference){name, from, to});
}

static void compare_shards(struct comparison *c, const sf_shard_comparison *shards)
{
    uint32_t a = shards->from->num_dbs, b = shards->to->num_dbs, most = a > b ? a : b;

    for (uint32_t i = 0; i < most && !c->ended; i++) {
        sf_shard_info p = {0}, q = {0};
        bool in_a = sf_snapshot_get_shard(shards->from, i, &p), in_b = sf_snapshot_get_shard(shards->to, i, &q);
        char name[64];

        if (in_a && in_b && sf__shard_comparison_same(shards, i))
            continue;
        snprintf(name, sizeof(name), "shards[%u].row_count", i);
        c->ended = !c->tell(c->ctx, &(sf_difference){name, in_a ? uint_fact(p.row_count) : text_fact(NULL),
                                                     in_b ? uint_fact(q.row_count) : text_fact(NULL)});
        snprintf(name, sizeof(name), "shards[%u].db_url", i);
        compare_fact(c, name, text_fact(p.db_url), text_fact(q.db_url));
    }
}

static void compare_manifests(struct comparison *c, const sf_snapshot_info *p, const sf_snapshot_info *q)
{
    compare_fact(c, "run_id", text_fact(p->run_id), text_fact(q->run_id));
    compare_fact(c, "manifest_ref", text_fact(p->manifest_ref), text_fact(q->manifest_ref));
    compare_fact(c, "created_at", (sf_fact){.kind = SF_FACT_TIME, .time_us = p->created_at_us},
                 (sf_fact){.kind = SF_FACT_TIME, .time_us = q->created_at_us});
    compare_fact(c, "num_dbs", uint_fact(p->num_dbs), uint_fact(q->num_dbs));
    compare_fact(c, "row_count", uint_fact(p->row_count), uint_fact(q->row_count));
    compare_fact(c, "key_encoding", text_fact(sf__key_encoding_name(p->key_encoding)),
                 text_fact(sf__key_encoding_name(q->key_encoding)));
    compare_fact(c, "sharding", (sf_fact){.kind = SF_FACT_JSON, .text = p->sharding_json},
                 (sf_fact){.kind = SF_FACT_JSON, .text = q->sharding_json});
    compare_fact(c, "key_col", text_fact(p->key_col), text_fact(q->key_col));
}

sf_status sf_snapshot_compare(const sf_snapshot *from, const sf_snapshot *to, sf_difference_fn tell, void *ctx,
                              sf_error *err)
{
    struct comparison c = {.tell = tell, .ctx = ctx};
    sf_shard_comparison shards;
    sf_error local = SF_ERROR_INIT;
    sf_snapshot_info p, q;
    sf_status rc;

    if (!from->manifest || !to->manifest)
        return sf_fail(err, SF_INVALID, "a shard that was opened on its own has no manifest to be compared");
    rc = sf__shard_comparison_init(&shards, from, to, err ? err : &local);
    if (rc != SF_OK)
        return rc;
    sf_snapshot_get_info(from, &p);
    sf_snapshot_get_info(to, &q);
    compare_manifests(&c, &p, &q);
    compare_shards(&c, &shards);
    sf__shard_comparison_cleanup(&shards);
    return SF_OK;
}
