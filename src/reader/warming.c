/*   GATHERING (a worker) --> READING --> done
 *
 * Of each shard that was opened anew the one before it tells keys of each block that the cache has of it. Looking these up in the new
 * one brings the blocks that hold them, as far as the keys are still there: a block a key at most. */
#include "reader/warming.h"

#include "base/arena.h"
#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"

struct warmed_shard {
    sf_warming *w;
    uint32_t db_id;
    uint64_t left;   /* bytes that it may still have */
    uint64_t brings; /* of the key that is being looked at */
    sf_arena keys;
    sf_shard_ask *asks;
    size_t count, room;
    bool reading;
    sf_shard_get_many op;
};

static const sf_allocator *alloc_of(const sf_warming *w)
{
    return w->next->alloc;
}

static void warming_end(sf_warming *w)
{
    for (size_t i = 0; i < w->shard_count; i++) {
        sf__arena_cleanup(&w->shards[i].keys);
        sf__free(alloc_of(w), w->shards[i].asks);
    }
    sf__free(alloc_of(w), w->shards);
    w->shards = NULL;
    w->done(w); /* w may be gone: nothing after this line */
}

/* ------------------------------------------------------------------ GATHERING ------------------------------------ */

static void add_length(void *ctx, const sf_look *look)
{
    struct warmed_shard *s = ctx;

    s->brings += look->length;
}

/* Blocks may be larger in the shard that comes. Without memory there is enough of it. */
static bool add_key(void *ctx, sf_bytes key, uint64_t block_bytes)
{
    struct warmed_shard *s = ctx;
    sf_shard *shard = s->w->next->shards[s->db_id];
    char *copy;

    if (block_bytes > s->left)
        return false;
    s->brings = 0;
    if (shard->vtable->explain)
        shard->vtable->explain(shard, key, add_length, s);
    if (s->brings > s->left)
        return true;
    if (s->brings < block_bytes)
        s->brings = block_bytes;
    if (!SF_RESERVE(alloc_of(s->w), &s->asks, &s->room, s->count + 1))
        return false;
    copy = sf__arena_strndup(&s->keys, key.p, key.n);
    if (!copy)
        return false;
    s->asks[s->count++] = (sf_shard_ask){.key = sf_bytes_of(copy, key.n), .db_id = s->db_id};
    s->left -= s->brings;
    return true;
}

static bool is_new(const sf_warming *w, uint32_t i)
{
    const sf_shard *before = w->previous->shards[i];

    return before && w->next->shards[i] && before != w->next->shards[i] && before->vtable->hot_keys;
}

/* In a snapshot of another number of shards keys lie elsewhere. */
static void gather(sf_work *work)
{
    sf_warming *w = sf_container_of(work, sf_warming, work);
    uint32_t n = w->previous->num_dbs == w->next->num_dbs ? w->next->num_dbs : 0;
    uint64_t left = w->max_bytes;
    size_t count = 0;

    for (uint32_t i = 0; i < n; i++)
        count += is_new(w, i);
    w->shards = count > 0 ? sf__calloc(alloc_of(w), count, sizeof(*w->shards)) : NULL;
    for (uint32_t i = 0; w->shards && i < n; i++) {
        struct warmed_shard *s = &w->shards[w->shard_count];
        uint64_t share = is_new(w, i) ? left / (count - w->shard_count) : 0;

        if (!is_new(w, i))
            continue;
        *s = (struct warmed_shard){.w = w, .db_id = i, .left = share};
        sf__arena_init(&s->keys, alloc_of(w));
        w->shard_count++;
        w->previous->shards[i]->vtable->hot_keys(w->previous->shards[i], add_key, s);
        left -= share - s->left; /* what it does not need the others may have */
    }
}

/* ------------------------------------------------------------------ READING -------------------------------------- */

static void shard_home(sf_warming *w)
{
    if (--w->pending == 0)
        warming_end(w);
}

static void shard_read(sf_shard_get_many *op)
{
    struct warmed_shard *s = op->ctx;

    s->reading = false;
    sf_error_drop(alloc_of(s->w), op->error);
    for (size_t i = 0; i < s->count; i++)
        sf_value_release(&s->asks[i].value);
    shard_home(s->w);
}

static void gathered(sf_work *work)
{
    sf_warming *w = sf_container_of(work, sf_warming, work);

    w->pending = 1;
    for (size_t i = 0; i < w->shard_count && !w->cancelled; i++) {
        struct warmed_shard *s = &w->shards[i];
        sf_shard *shard = w->next->shards[s->db_id];

        if (s->count == 0)
            continue;
        s->op = (sf_shard_get_many){.asks = s->asks,
                                    .count = s->count,
                                    .deadline_ns = w->deadline_ns,
                                    .call_ctx = w->call_ctx,
                                    .done = shard_read,
                                    .ctx = s};
        s->reading = true;
        w->pending++;
        shard->vtable->get_many(shard, &s->op);
    }
    shard_home(w);
}

void sf__warming_start(sf_warming *w)
{
    w->work = (sf_work){.run = gather, .done = gathered};
    sf__work_submit(w->next->rt->loop, SF_WORK_CPU, &w->work);
}

void sf__warming_cancel(sf_warming *w)
{
    w->cancelled = true;
    for (size_t i = 0; w->pending > 0 && i < w->shard_count; i++)
        if (w->shards[i].reading)
            w->next->shards[w->shards[i].db_id]->vtable->get_many_cancel(w->next->shards[w->shards[i].db_id],
                                                                         &w->shards[i].op);
}
