/*                +--- home ---> HOME --- dropped ---> freed
 *   FLYING ------|
 *                +-- dropped --> DROPPED: the loop thread cancels the read, and frees it when it is home */
#include "backend/slatedb/window.h"

#include "base/container.h"

enum window_state { WINDOW_FLYING, WINDOW_HOME, WINDOW_DROPPED };

struct sf_window {
    sf_extent extent;
    const sf_slatedb_shard *shard; /* acquired */
    atomic_int state;
    sf_task start, drop;
    /* loop thread */
    sf_window_waiter *waiter;
    bool landed;  /* the read has ended */
    bool dropped; /* `drop` has run */
};

static sf_runtime *runtime_of(const sf_window *w)
{
    return w->shard->base.rt;
}

static void window_free(sf_window *w)
{
    const sf_allocator *a = runtime_of(w)->alloc;
    sf_shard *shard = (sf_shard *)&w->shard->base;

    sf__extent_cleanup(&w->extent, a);
    sf__free(a, w);
    sf__shard_release(shard);
}

static void window_landed(sf_extent *e)
{
    sf_window *w = sf_container_of(e, sf_window, extent);
    sf_window_waiter *waiter = w->waiter;

    w->landed = true;
    w->waiter = NULL;
    if (atomic_exchange_explicit(&w->state, WINDOW_HOME, memory_order_acq_rel) == WINDOW_DROPPED) {
        if (w->dropped)
            window_free(w);
        return; /* else `drop` is on its way here, and frees it */
    }
    if (waiter && --waiter->missing == 0) /* the window may be gone: nothing of it after this line */
        waiter->home(waiter);
}

static void window_start(sf_task *t)
{
    sf_window *w = sf_container_of(t, sf_window, start);

    sf__extent_start(&w->extent, runtime_of(w)->fetcher, w->shard->store, SF_NO_DEADLINE, window_landed, NULL);
}

static void window_dropped(sf_task *t)
{
    sf_window *w = sf_container_of(t, sf_window, drop);

    w->dropped = true;
    if (w->landed)
        window_free(w);
    else
        sf__fetch_cancel(&w->extent.fetch); /* window_landed() follows */
}

sf_window *sf__window_begin(const sf_slatedb_shard *shard, const sf_sst *sst, uint32_t first, uint32_t count)
{
    const sf_allocator *a = shard->base.rt->alloc;
    sf_window *w = sf__calloc(a, 1, sizeof(*w));

    if (!w)
        return NULL;
    if (!sf__extent_init(&w->extent, sst, first, count, a)) {
        sf__free(a, w);
        return NULL;
    }
    w->extent.in_place = true;
    w->shard = (const sf_slatedb_shard *)sf__shard_acquire((sf_shard *)&shard->base);
    atomic_init(&w->state, WINDOW_FLYING);
    w->start.run = window_start;
    sf__loop_post(runtime_of(w)->loop, &w->start);
    return w;
}

void sf__window_drop(sf_window *w)
{
    if (!w)
        return;
    if (atomic_exchange_explicit(&w->state, WINDOW_DROPPED, memory_order_acq_rel) == WINDOW_HOME) {
        window_free(w);
        return;
    }
    w->drop.run = window_dropped;
    sf__loop_post(runtime_of(w)->loop, &w->drop);
}

bool sf__window_is_home(const sf_window *w)
{
    return atomic_load_explicit(&w->state, memory_order_acquire) == WINDOW_HOME;
}

const sf_extent *sf__window_extent(const sf_window *w)
{
    return &w->extent;
}

bool sf__window_wait(sf_window *w, sf_window_waiter *waiter)
{
    if (w->landed)
        return false;
    w->waiter = waiter;
    waiter->missing++;
    return true;
}

void sf__window_forget(sf_window *w)
{
    w->waiter = NULL;
}
