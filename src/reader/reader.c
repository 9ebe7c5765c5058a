/* Life cycle and health. */
#include "reader/reader.h"

#include "base/container.h"
#include "base/error.h"

#include <stdio.h>

sf_status sf__reader_new(sf_reader **out, sf_runtime *rt, sf_source *source, sf_snapshot *snap, bool fallback,
                         uint64_t since_ns, sf_error *err)
{
    sf_reader *r = sf__calloc(rt->alloc, 1, sizeof(*r));

    if (!r) {
        sf__snapshot_release(snap);
        return sf_fail(err, SF_NOMEM, "reader");
    }
    atomic_init(&r->refs, 1);
    r->alloc = rt->alloc;
    r->rt = sf__runtime_ref(rt);
    r->source = sf__source_acquire(source);
    r->opened_ns = since_ns;
    r->refreshed_ns = r->attempted_ns = sf__clock_mono_ns();
    sf__random_seed(&r->random);
    atomic_init(&r->wait_count, 0);
    atomic_init(&r->current, snap);
    r->fallback = fallback;
    sf_mutex_init(&r->swap);
    *out = r;
    return SF_OK;
}

sf_reader *sf__reader_acquire(sf_reader *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

sf_reader *sf__reader_hand_out(sf_reader *r)
{
    if (r)
        sf_runtime_acquire(r->rt);
    return r;
}

void sf__reader_release(sf_reader *r)
{
    sf_runtime *rt;

    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    rt = r->rt;
    sf__snapshot_release(atomic_load(&r->current));
    sf__ready_progress_release(r->ready, r->alloc);
    sf__source_release(r->source);
    sf_mutex_destroy(&r->swap);
    sf__free(r->alloc, r);
    sf__runtime_unref(rt);
}

sf_snapshot *sf__reader_borrow(sf_reader *r, sf_error *err)
{
    sf_snapshot *s;

    if (sf__runtime_check_process(r->rt, err) != SF_OK)
        return NULL;
    sf_mutex_lock(&r->swap);
    s = atomic_load_explicit(&r->current, memory_order_relaxed);
    if (s)
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    sf_mutex_unlock(&r->swap);
    if (!s)
        sf_fail(err, SF_STATE, "Reader is closed");
    return s;
}

/* The pin is on one that is just being replaced. */
static __attribute__((noinline)) sf_snapshot *pinned_late(sf_reader *r, sf_snapshot *s, sf_pin **pin, sf_error *err)
{
    sf__reader_unpin(s, *pin);
    *pin = NULL;
    return sf__reader_borrow(r, err);
}

sf_snapshot *sf__reader_pin(sf_reader *r, sf_pin **pin, sf_error *err)
{
    sf_pins *mine = sf__pins_of_thread();
    sf_snapshot *s = atomic_load_explicit(&r->current, memory_order_relaxed);

    *pin = NULL;
    if (!mine || !s || !sf__runtime_is_ours(r->rt) ||
        atomic_load_explicit(&mine->pins[SF_PIN_SNAPSHOT], memory_order_relaxed) != 0)
        return sf__reader_borrow(r, err); /* if the pin is taken: a call from within another one */
    *pin = &mine->pins[SF_PIN_SNAPSHOT];
    sf__pin_set(*pin, s);
    return atomic_load(&r->current) == s ? s : pinned_late(r, s, pin, err);
}

void sf__reader_unpin(sf_snapshot *s, sf_pin *pin)
{
    if (!pin || sf__pin_take_off(pin))
        sf__snapshot_release(s);
}

sf_snapshot *sf__reader_replace(sf_reader *r, sf_snapshot *next)
{
    return atomic_exchange(&r->current, next);
}

sf_snapshot *sf_reader_borrow(sf_reader *r, sf_error *err)
{
    return sf__snapshot_hand_out(sf__reader_borrow(r, err));
}

sf_status sf__reader_closed_status(sf_reader *r)
{
    return sf__runtime_check_process(r->rt, NULL) == SF_OK ? SF_STATE : SF_FORKED;
}

static void closed_run(sf_task *task)
{
    sf_reader *r = sf_container_of(task, sf_reader, closed_task);

    sf__reader_waits_look(r);
    sf__reader_release(r);
}

void sf_reader_close(sf_reader *r)
{
    sf_snapshot *old;
    bool first;

    if (sf__runtime_check_process(r->rt, NULL) != SF_OK) /* the fork may have come while somebody held the lock */
        return;
    sf_mutex_lock(&r->swap);
    old = sf__reader_replace(r, NULL);
    first = !r->closed;
    r->closed = true;
    sf_mutex_unlock(&r->swap);
    /* one that comes to the list later sees that the reader is closed; one that was there before is counted */
    if (first && atomic_load_explicit(&r->wait_count, memory_order_relaxed) > 0) {
        sf__reader_acquire(r);
        r->closed_task.run = closed_run;
        sf__loop_post(r->rt->loop, &r->closed_task);
    }
    sf__snapshot_withdraw(old);
}

bool sf_reader_is_closed(sf_reader *r)
{
    bool closed;

    if (sf__runtime_check_process(r->rt, NULL) != SF_OK)
        return true;
    sf_mutex_lock(&r->swap);
    closed = r->closed;
    sf_mutex_unlock(&r->swap);
    return closed;
}

void sf_reader_free(sf_reader *r)
{
    sf_runtime *rt;

    if (!r || sf__runtime_check_process(r->rt, NULL) != SF_OK)
        return;
    rt = r->rt;
    sf_reader_close(r);
    sf__reader_release(r);
    sf_runtime_release(rt);
}

void sf_reader_get_health(sf_reader *r, int64_t staleness_ms, sf_staleness_of of, sf_reader_health *out)
{
    int64_t ages_us[] = {0, 0, 0};
    uint64_t now = sf__clock_mono_ns();
    sf_snapshot *s;

    *out = (sf_reader_health){0};
    if ((unsigned)of > SF_STALENESS_OF_REFRESH) /* of a newer header, or none: it never fails */
        of = SF_STALENESS_OF_READER;
    if (sf__runtime_check_process(r->rt, NULL) != SF_OK) {
        out->closed = true;
        out->status = SF_UNHEALTHY;
        return;
    }
    sf_mutex_lock(&r->swap);
    out->closed = r->closed;
    s = atomic_load_explicit(&r->current, memory_order_relaxed);
    if (s) {
        out->num_dbs = s->num_dbs;
        out->borrowed = atomic_load_explicit(&s->refs, memory_order_relaxed) - 1;
        ages_us[SF_STALENESS_OF_SNAPSHOT] = sf__clock_unix_us() - s->manifest->created_at_us;
    }
    out->fallback = r->fallback;
    ages_us[SF_STALENESS_OF_READER] = (int64_t)((now - r->opened_ns) / 1000);
    ages_us[SF_STALENESS_OF_REFRESH] = (int64_t)((now - r->refreshed_ns) / 1000);
    out->refresh_failures = r->refresh_failures;
    snprintf(out->last_refresh_error, sizeof(out->last_refresh_error), "%s", r->last_refresh_error);
    sf_mutex_unlock(&r->swap);
    out->age_ms = ages_us[SF_STALENESS_OF_READER] / 1000;
    out->snapshot_age_ms = ages_us[SF_STALENESS_OF_SNAPSHOT] / 1000;
    out->since_refresh_ms = ages_us[SF_STALENESS_OF_REFRESH] / 1000;
    if (out->closed)
        out->status = SF_UNHEALTHY;
    else if (staleness_ms >= 0 && staleness_ms < INT64_MAX / 1000 && ages_us[of] > staleness_ms * 1000)
        out->status = SF_DEGRADED;
}

void sf_reader_disk_stats(const sf_reader *r, sf_disk_stats *out)
{
    sf_disk_cache_stats s = {0};

    if (r->source->disk)
        sf__disk_cache_get_stats(r->source->disk, &s);
    *out = (sf_disk_stats){.hits = s.hits,
                           .misses = s.misses,
                           .bytes_read = s.bytes_read,
                           .bytes_written = s.bytes_written,
                           .dropped = s.dropped};
}

void sf_reader_hedge_stats(const sf_reader *r, sf_hedge_stats *out)
{
    sf__hedge_get_stats(r->source->site.hedge, out);
}

void sf_reader_cache_stats(const sf_reader *r, sf_cache_stats *out)
{
    sf_block_cache_stats s = {0};

    if (sf__runtime_check_process(r->rt, NULL) == SF_OK) /* the fork may have come while somebody held a lock of the cache */
        sf__block_cache_get_stats(r->source->cache, &s);
    *out = (sf_cache_stats){.hits = s.hits,
                            .misses = s.misses,
                            .evictions = s.evictions,
                            .bytes = s.bytes,
                            .max_bytes = sf__block_cache_max_bytes(r->source->cache)};
}
