#include "writer/lease.h"

#include <time.h>
#include <unistd.h>

#include "base/clock.h"

int64_t sf__lease_clock_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void sf__lease_init(sf_lease *l, const sf_lease_keeper *keeper, const sf_lease_options *options)
{
    *l = (sf_lease){.keeper = *keeper, .options = *options, .owner = getpid(), .renewed_ms = options->renewed_ms};
    if (l->options.lease_ms > SF_LEASE_MAX_MS)
        l->options.lease_ms = SF_LEASE_MAX_MS;
    if (l->options.lease_ms < 0) /* as one that has ended; far below it would overflow as microseconds */
        l->options.lease_ms = 0;
    if (l->options.heartbeat_ms < 1)
        l->options.heartbeat_ms = 1;
    atomic_init(&l->stop, false);
    sf_mutex_init(&l->lock);
    sf_cond_init(&l->changed);
}

/* A child's lock may be held for ever, by a thread that it has not. */
static bool is_ours(const sf_lease *l)
{
    return l->owner == getpid();
}

sf_run_record sf__lease_record(const sf_lease *l, sf_run_status status, const char *manifest_ref)
{
    const sf_lease_options *o = &l->options;
    int64_t now = l->keeper.now_us(l->keeper.ctx);

    return (sf_run_record){
        .format_version = 1,
        .run_id = o->run_id,
        .writer_type = o->writer_type,
        .status = status,
        .started_at_us = o->started_at_us,
        .updated_at_us = now,
        .lease_expires_at_us = status == SF_RUN_RUNNING ? now + o->lease_ms * 1000 : now,
        .s3_prefix = o->s3_prefix,
        .shard_prefix = o->shard_prefix,
        .db_path_template = o->db_path_template,
        .manifest_ref = manifest_ref,
        .manifest_store = o->manifest_store,
    };
}

static bool is_late(const sf_lease *l, int64_t at_ms)
{
    return at_ms - l->renewed_ms > l->options.lease_ms;
}

/* False when it is time to stop. Called and left with the lock held. */
static bool sleep_until_renewal(sf_lease *l)
{
    uint64_t due_ns = sf__deadline_in_ms(l->options.heartbeat_ms);

    while (!l->stopping && sf__clock_mono_ns() < due_ns)
        sf_cond_wait_until(&l->changed, &l->lock, due_ns);
    return !l->stopping;
}

/* When no other put is under way: the records arrive in their order. Called and left with the lock held. */
static bool renew(sf_lease *l)
{
    sf_run_record r;
    int64_t began_ms;
    bool put;

    while (l->putting)
        sf_cond_wait_until(&l->changed, &l->lock, SF_NO_DEADLINE);
    if (l->stopping)
        return false;
    r = sf__lease_record(l, SF_RUN_RUNNING, l->manifest_ref);
    began_ms = sf__lease_clock_ms();
    l->putting = true;
    sf_mutex_unlock(&l->lock);
    put = l->keeper.put(l->keeper.ctx, &r, &l->stop);
    sf_mutex_lock(&l->lock);
    l->putting = false;
    pthread_cond_broadcast(&l->changed);
    if (put && !is_late(l, began_ms)) /* what lapsed once stays so */
        l->renewed_ms = began_ms;
    return put;
}

void sf__lease_run(sf_lease *l)
{
    sf_mutex_lock(&l->lock);
    while (sleep_until_renewal(l))
        renew(l);
    sf_mutex_unlock(&l->lock);
}

bool sf__lease_renew(sf_lease *l)
{
    bool put;

    if (!is_ours(l))
        return false;
    sf_mutex_lock(&l->lock);
    put = renew(l);
    sf_mutex_unlock(&l->lock);
    return put;
}

bool sf__lease_is_refused(sf_status rc)
{
    return rc == SF_DENIED || rc == SF_NOT_FOUND || rc == SF_IO || rc == SF_INVALID;
}

bool sf__lease_has_lapsed(sf_lease *l, int64_t now_ms)
{
    bool lapsed;

    if (!is_ours(l))
        return true; /* whoever asks here does not know what the parent does */
    sf_mutex_lock(&l->lock);
    lapsed = !l->ended && is_late(l, now_ms);
    sf_mutex_unlock(&l->lock);
    return lapsed;
}

void sf__lease_announce(sf_lease *l, const char *manifest_ref)
{
    if (!is_ours(l))
        return;
    sf_mutex_lock(&l->lock);
    l->manifest_ref = manifest_ref;
    sf_mutex_unlock(&l->lock);
}

void sf__lease_stop(sf_lease *l, bool cut_off)
{
    if (!is_ours(l))
        return;
    if (cut_off)
        atomic_store_explicit(&l->stop, true, memory_order_relaxed);
    sf_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_broadcast(&l->changed);
    sf_mutex_unlock(&l->lock);
}

bool sf__lease_wait_stopped(sf_lease *l, uint64_t due_ns)
{
    bool stopped;

    if (!is_ours(l))
        return true;
    sf_mutex_lock(&l->lock);
    while (l->putting && sf__clock_mono_ns() < due_ns)
        sf_cond_wait_until(&l->changed, &l->lock, due_ns);
    stopped = !l->putting;
    sf_mutex_unlock(&l->lock);
    return stopped;
}

void sf__lease_finish(sf_lease *l, sf_run_status status, const char *error_type, const char *error_message)
{
    sf_run_record r;
    bool ended;

    if (!sf__lease_wait_stopped(l, SF_NO_DEADLINE) || !is_ours(l))
        return;
    sf_mutex_lock(&l->lock);
    ended = l->ended;
    l->ended = true;
    r = sf__lease_record(l, status, l->manifest_ref);
    sf_mutex_unlock(&l->lock);
    r.error_type = error_type;
    r.error_message = error_message;
    if (!ended)
        l->keeper.put(l->keeper.ctx, &r, NULL);
}

void sf__lease_cleanup(sf_lease *l)
{
    if (!is_ours(l)) /* a condition whose sleepers are not there cannot be destroyed */
        return;
    sf_cond_destroy(&l->changed);
    sf_mutex_destroy(&l->lock);
}
