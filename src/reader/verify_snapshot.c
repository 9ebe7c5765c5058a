/* Verifying all shards: threads of this call's own each take the next one; the caller's waits for them, and
 * tells how far they are. */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/options.h"
#include "base/thread.h"
#include "reader/snapshot.h"

struct sf_verification {
    const sf_allocator *alloc;
    uint32_t count;
    sf_shard_verdict verdicts[];
};

struct verify_team {
    sf_snapshot *snap;
    sf_verification_options opts;
    sf_verification *out;
    uint32_t threads;
    sf_mutex lock; /* covers what follows */
    sf_cond news;  /* a shard is done, or a thread has ended */
    uint32_t next, running;
    sf_verify_progress progress;
    bool cancelled, no_memory;
};

/* Whoever verifies one shard, and where that is told. */
struct verify_member {
    struct verify_team *team;
    sf_shard_verdict *verdict;
};

/* ------------------------------------------------------------------ one shard ---------------------------------------- */

static void on_damage(void *ctx, const sf_damage *d)
{
    struct verify_member *m = ctx;
    sf_damage *kept;

    if (m->verdict->first)
        return;
    kept = d->error.code == SF_NOMEM ? NULL : sf__alloc(m->team->out->alloc, sizeof(*kept));
    if (kept) {
        *kept = *d;
        m->verdict->first = kept;
        return;
    }
    sf_mutex_lock(&m->team->lock);
    m->team->no_memory = true;
    sf_mutex_unlock(&m->team->lock);
}

static bool on_progress(void *ctx, uint64_t bytes, uint64_t rows)
{
    struct verify_team *t = ((struct verify_member *)ctx)->team;
    bool goes_on;

    sf_mutex_lock(&t->lock);
    t->progress.bytes += bytes;
    t->progress.rows += rows;
    goes_on = !t->cancelled && !t->no_memory;
    sf_mutex_unlock(&t->lock);
    return goes_on;
}

static void verify_one(struct verify_team *t, uint32_t db_id)
{
    struct verify_member m = {t, &t->out->verdicts[db_id]};
    sf_verify_options o = SF_VERIFY_OPTIONS_INIT;
    sf_damage failed = {.error = SF_ERROR_INIT, .offset = SF_NO_OFFSET};
    sf_shard_info info;

    o.deep = t->opts.deep;
    o.timeout_ms = t->opts.timeout_ms;
    o.found = on_damage;
    o.progress = on_progress;
    o.ctx = &m;
    m.verdict->db_id = db_id;
    if (sf_snapshot_verify_shard(t->snap, db_id, &o, &m.verdict->result, &failed.error) != SF_OK)
        on_damage(&m, &failed); /* it is not known to be good */
    sf_snapshot_get_shard(t->snap, db_id, &info);
    if (o.deep && !m.verdict->first && m.verdict->result.rows < info.row_count)
        m.verdict->manifest_rows = info.row_count;
}

/* ------------------------------------------------------------------ all of them -------------------------------------- */

/* False: there is none left to be looked at. */
static bool take_shard(struct verify_team *t, uint32_t *db_id)
{
    bool is_there;

    sf_mutex_lock(&t->lock);
    is_there = !t->cancelled && !t->no_memory && t->next < t->out->count;
    *db_id = t->next;
    t->next += is_there;
    sf_mutex_unlock(&t->lock);
    return is_there;
}

static void *work(void *ctx)
{
    struct verify_team *t = ctx;
    uint32_t db_id;

    sf__thread_name("sf-verify");
    while (take_shard(t, &db_id)) {
        verify_one(t, db_id);
        sf_mutex_lock(&t->lock);
        t->progress.shards_done++;
        sf_mutex_unlock(&t->lock);
    }
    sf_mutex_lock(&t->lock);
    t->running--;
    pthread_cond_signal(&t->news);
    sf_mutex_unlock(&t->lock);
    return NULL;
}

/* Under the lock, which it gives up while the caller is told. */
static void tell(struct verify_team *t)
{
    sf_verify_progress now = t->progress;
    bool goes_on;

    sf_mutex_unlock(&t->lock);
    goes_on = !t->opts.progress || t->opts.progress(t->opts.ctx, &now);
    sf_mutex_lock(&t->lock);
    t->cancelled |= !goes_on;
}

/* The last thing that is told is how it ended. */
static void wait_for_all(struct verify_team *t)
{
    bool over = false;

    sf_mutex_lock(&t->lock);
    while (!over) {
        uint64_t due_ns = sf__deadline_in_ms(t->opts.progress_interval_ms);

        while (t->running > 0 && sf__clock_mono_ns() < due_ns)
            sf_cond_wait_until(&t->news, &t->lock, due_ns);
        over = t->running == 0;
        tell(t);
    }
    sf_mutex_unlock(&t->lock);
}

static sf_status run(struct verify_team *t, sf_error *err)
{
    pthread_t *threads = sf__calloc(t->out->alloc, t->threads, sizeof(*threads));
    uint32_t started = 0;

    if (!threads)
        return sf_fail(err, SF_NOMEM, "threads that verify");
    t->running = t->threads;
    while (started < t->threads && sf__thread_start(&threads[started], work, t) == 0)
        started++;
    sf_mutex_lock(&t->lock);
    t->running -= t->threads - started;
    sf_mutex_unlock(&t->lock);
    wait_for_all(t);
    for (uint32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    sf__free(t->out->alloc, threads);
    if (t->no_memory)
        return sf_fail(err, SF_NOMEM, "what was found");
    if (t->cancelled)
        return sf_fail(err, SF_CANCELLED, "the verification was cancelled");
    if (started == 0 && t->out->count > 0)
        return sf_fail(err, SF_EXHAUSTED, "there is no thread to be had for verifying");
    return SF_OK;
}

static uint32_t threads_for(const struct verify_team *t)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t wanted = t->opts.threads > 0 ? t->opts.threads : processors > 0 ? (uint32_t)processors : 1;

    return wanted < t->snap->num_dbs ? wanted : t->snap->num_dbs;
}

sf_status sf_snapshot_verify(sf_verification **out, sf_snapshot *s, const sf_verification_options *opts, sf_error *err)
{
    struct verify_team t = {.snap = s, .opts = SF_VERIFICATION_OPTIONS_INIT};
    sf_status rc = sf__runtime_check_may_wait(s->rt, err);

    if (rc == SF_OK)
        rc = sf__options_take(&t.opts, sizeof(t.opts), opts, "verification options", err);
    if (rc == SF_OK && t.opts.progress_interval_ms < 1)
        rc = sf_fail(err, SF_INVALID, "progress_interval_ms must be at least 1");
    if (rc != SF_OK)
        return rc;
    t.out = sf__calloc(s->alloc, 1, sizeof(*t.out) + s->num_dbs * sizeof(t.out->verdicts[0]));
    if (!t.out)
        return sf_fail(err, SF_NOMEM, "verdicts on %u shards", s->num_dbs);
    t.out->alloc = s->alloc;
    t.out->count = t.progress.shards_total = s->num_dbs;
    t.threads = threads_for(&t);
    sf_mutex_init(&t.lock);
    sf_cond_init(&t.news);
    rc = run(&t, err);
    sf_cond_destroy(&t.news);
    sf_mutex_destroy(&t.lock);
    if (rc == SF_OK)
        *out = t.out;
    else
        sf_verification_free(t.out);
    return rc;
}

const sf_shard_verdict *sf_verification_verdicts(const sf_verification *v, size_t *count)
{
    *count = v->count;
    return v->verdicts;
}

void sf_verification_free(sf_verification *v)
{
    const sf_allocator *a = v ? v->alloc : NULL;

    for (uint32_t i = 0; v && i < v->count; i++)
        sf__free(a, (void *)v->verdicts[i].first);
    if (v)
        sf__free(a, v);
}
