/* Ready: what the reader serves has come to where its residency says, one shard after the other.
 *
 *   start --> the next shard --> ... --> done */
#include "base/container.h"
#include "base/error.h"
#include "reader/reader.h"
#include "runtime/call.h"

/* How far one is, of stored bytes: its own, since two may be under way. Counted: by its call, and by the reader while none began later. */
struct ready_progress {
    atomic_uint refs;
    atomic_uint_fast64_t bytes, total;
};

struct ready_call {
    sf_call call;
    struct ready_progress *progress;
    sf_reader *reader;     /* acquired */
    sf_snapshot *snapshot; /* acquired */
    uint32_t next;         /* shard */
    unsigned let_go;       /* the snapshot's, when it began */
    int64_t since_us;      /* when that was */
    sf_shard *running;     /* NULL: none */
    sf_shard_resident op;
};

static void ready_go(struct ready_call *q);

/* Half of a snapshot in memory would only take the room of others. */
static void let_go(const struct ready_call *q)
{
    sf_snapshot *s = q->snapshot;

    s->let_go++;
    for (uint32_t i = 0; i < q->next; i++)
        if (s->shards[i])
            s->shards[i]->vtable->resident_let_go(s->shards[i]);
}

static void ready_shard_done(sf_shard_resident *op)
{
    struct ready_call *q = op->ctx;
    sf_error e = SF_ERROR_INIT;

    q->running = NULL;
    sf_error_tell(q->call.alloc, &op->error, &e);
    if (e.code == SF_OK && q->snapshot->let_go != q->let_go)
        sf_fail(&e, SF_EXHAUSTED,
                "what is to stay in memory was let go meanwhile, since another call found that it does not fit");
    if (e.code == SF_EXHAUSTED && op->where == SF_RESIDENCY_MEMORY)
        let_go(q);
    sf__call_failed(&q->call, &e);
    ready_go(q);
}

static void ready_go(struct ready_call *q)
{
    const sf_snapshot *s = q->snapshot;

    while (q->next < s->num_dbs && !s->shards[q->next])
        q->next++; /* empty */
    if (q->call.error || q->next == s->num_dbs) {
        if (!q->call.error) /* what was there already is not counted on the way */
            atomic_store_explicit(&q->progress->bytes, atomic_load_explicit(&q->progress->total, memory_order_relaxed),
                                  memory_order_relaxed);
        sf__call_finish(&q->call); /* q may be gone: nothing after this line */
        return;
    }
    q->running = s->shards[q->next++];
    q->op = (sf_shard_resident){
        .where = q->reader->source->residency,
        .since_us = q->since_us,
        .deadline_ns = q->call.deadline_ns,
        .bytes = &q->progress->bytes,
        .done = ready_shard_done,
        .ctx = q,
    };
    q->running->vtable->resident(q->running, &q->op); /* ends in ready_shard_done() */
}

/* Whether there is room for all that is to stay, as far as that can be told beforehand. That it can at all was seen at its opening. */
static sf_status ready_check(struct ready_call *q, sf_error *err)
{
    const sf_snapshot *s = q->snapshot;
    const sf_source *source = q->reader->source;
    bool on_disk = source->residency == SF_RESIDENCY_DISK;
    uint64_t total = 0, taken = 0, most;

    for (uint32_t i = 0; i < s->num_dbs; i++)
        total += s->shards[i] ? s->shards[i]->vtable->resident_bytes(s->shards[i], source->residency, &taken) : 0;
    atomic_store_explicit(&q->progress->total, total, memory_order_relaxed);
    if (taken == 0)
        return SF_OK;
    most = on_disk ? sf__disk_cache_room(source->disk) : sf__block_cache_max_bytes(source->cache);
    if (taken > most)
        return sf_fail(
            err, SF_EXHAUSTED,
            "the snapshot has blocks of %llu bytes, and %s has room for %llu: raise %s, or choose another residency",
            (unsigned long long)taken, on_disk ? "the disk cache" : "memory", (unsigned long long)most,
            on_disk ? "disk_bytes" : "the bytes of its cache");
    return SF_OK;
}

static void ready_start(sf_call *c)
{
    struct ready_call *q = (struct ready_call *)c;
    sf_error e = SF_ERROR_INIT;

    q->let_go = q->snapshot->let_go;
    q->since_us = sf__clock_files_us();
    if (q->reader->source->residency == SF_RESIDENCY_NONE)
        q->next = q->snapshot->num_dbs;
    else
        ready_check(q, &e);
    sf__call_failed(c, &e);
    ready_go(q);
}

static void ready_cancel(sf_call *c)
{
    struct ready_call *q = (struct ready_call *)c;

    if (q->running)
        q->running->vtable->resident_cancel(q->running, &q->op); /* ends in ready_shard_done() */
}

static void ready_destroy(sf_call *c)
{
    struct ready_call *q = (struct ready_call *)c;

    sf__ready_progress_release(q->progress, c->alloc);
    sf__snapshot_release(q->snapshot);
    sf__reader_release(q->reader);
}

static const sf_call_type ready_type = {.start = ready_start, .cancel = ready_cancel, .destroy = ready_destroy};

sf_status sf_reader_ready_start(sf_call **out, sf_reader *r, int64_t timeout_ms, sf_call_done_fn done, void *ctx,
                                sf_error *err)
{
    struct ready_progress *progress, *before;
    struct ready_call *q;
    sf_snapshot *s = sf__reader_borrow(r, err); /* the state check */

    if (!s)
        return sf__reader_closed_status(r);
    progress = sf__calloc(r->alloc, 1, sizeof(*progress));
    q = progress ? (struct ready_call *)sf__call_new(&ready_type, sizeof(*q), r->rt, timeout_ms, done, ctx) : NULL;
    if (!q) {
        sf__free(r->alloc, progress);
        sf__snapshot_release(s);
        return sf_fail(err, SF_NOMEM, "ready");
    }
    atomic_init(&progress->refs, 2);
    q->progress = progress;
    sf_mutex_lock(&r->swap);
    before = r->ready;
    r->ready = progress;
    sf_mutex_unlock(&r->swap);
    sf__ready_progress_release(before, r->alloc);
    q->reader = sf__reader_acquire(r);
    q->snapshot = s;
    *out = &q->call;
    sf__call_start(&q->call);
    return SF_OK;
}

sf_status sf_reader_ready(sf_reader *r, int64_t timeout_ms, sf_error *err)
{
    sf_call *c;
    sf_status rc = sf__runtime_check_may_wait(r->rt, err);

    if (rc == SF_OK)
        rc = sf_reader_ready_start(&c, r, timeout_ms, NULL, NULL, err);
    if (rc != SF_OK)
        return rc;
    rc = sf_call_wait(c, err);
    sf_call_release(c);
    return rc;
}

void sf__ready_progress_release(struct ready_progress *p, const sf_allocator *a)
{
    if (p && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
        sf__free(a, p);
}

void sf_reader_ready_bytes(const sf_reader *given, uint64_t *done, uint64_t *total)
{
    sf_reader *r = (sf_reader *)given;
    bool ours = sf__runtime_check_process(r->rt, NULL) == SF_OK; /* the fork may have come while somebody held the lock */

    if (ours)
        sf_mutex_lock(&r->swap);
    *done = ours && r->ready ? atomic_load_explicit(&r->ready->bytes, memory_order_relaxed) : 0;
    *total = ours && r->ready ? atomic_load_explicit(&r->ready->total, memory_order_relaxed) : 0;
    if (ours)
        sf_mutex_unlock(&r->swap);
}
