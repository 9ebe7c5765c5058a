#include "cache/fetcher.h"

#include <assert.h>

#include "base/error.h"

#define FIRST_BUCKETS 64u

sf_status sf__fetcher_new(sf_fetcher **out, sf_loop *loop, const sf_allocator *a, uint32_t max_requests,
                          uint64_t max_bytes, sf_error *err)
{
    sf_fetcher *f;

    if (max_requests == 0 || max_bytes == 0)
        return sf_fail(err, SF_INVALID, "the bounds on requests and bytes in flight must not be 0");
    f = sf__calloc(a, 1, sizeof(*f));
    if (!f)
        return sf_fail(err, SF_NOMEM, "fetcher");
    f->buckets = sf__calloc(a, FIRST_BUCKETS, sizeof(struct fetch_entry *));
    f->spare = sf__calloc(a, 1, sizeof(*f->spare));
    if (!f->buckets || !f->spare) {
        sf__free(a, f->spare);
        sf__free(a, f->buckets);
        sf__free(a, f);
        return sf_fail(err, SF_NOMEM, "fetcher");
    }
    f->bucket_count = FIRST_BUCKETS;
    f->spare_count = 1;
    f->loop = loop;
    f->alloc = a;
    sf__disk_caches_init(&f->disk_caches);
    sf__budget_init(&f->budget, loop, max_requests, max_bytes);
    sf__read_memory_init(&f->read_memory, &f->budget, a);
    *out = f;
    return SF_OK;
}

void sf__fetcher_free(sf_fetcher *f)
{
    if (!f)
        return;
    assert(!f->budget.first && atomic_load(&f->budget.requests_in_flight) == 0);
    for (struct fetch_request *r = f->spare, *next; r; r = next) {
        next = r->next;
        sf__free(f->alloc, r);
    }
    sf__read_memory_cleanup(&f->read_memory);
    sf__unpackers_cleanup(&f->unpackers);
    sf__disk_caches_cleanup(&f->disk_caches);
    sf__free(f->alloc, f->buckets);
    sf__free(f->alloc, f);
}

void sf__fetcher_observe(sf_fetcher *f, sf_fetch_observer observer, void *ctx)
{
    f->observer = observer;
    f->observer_ctx = ctx;
}

static uint64_t value(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void sf__fetcher_get_stats(const sf_fetcher *f, sf_fetch_stats *out)
{
    *out = (sf_fetch_stats){
        .requests = value(&f->requests),
        .bytes_fetched = value(&f->bytes_fetched),
        .shared = value(&f->shared),
        .requests_in_flight = value(&f->budget.requests_in_flight),
        .bytes_in_flight = value(&f->budget.bytes_in_flight),
        .waiting = value(&f->budget.waiting),
        .bytes_held = value(&f->budget.bytes_held),
        .disk_jobs = atomic_load_explicit(&f->disk_caches.jobs, memory_order_acquire),
    };
}

/* Without memory the chains grow longer instead. */
static void table_grow(sf_fetcher *f)
{
    size_t count = f->bucket_count * 2;
    struct fetch_entry **buckets = sf__calloc(f->alloc, count, sizeof(struct fetch_entry *));

    if (!buckets)
        return;
    for (size_t i = 0; i < f->bucket_count; i++) {
        for (struct fetch_entry *e = f->buckets[i], *next; e; e = next) {
            struct fetch_entry **link = &buckets[e->hash & (count - 1)];

            next = e->chain;
            e->chain = *link;
            *link = e;
        }
    }
    sf__free(f->alloc, f->buckets);
    f->buckets = buckets;
    f->bucket_count = count;
}

void sf__fetcher_add(sf_fetcher *f, struct fetch_entry *e)
{
    struct fetch_entry **link;

    if (++f->entry_count > f->bucket_count)
        table_grow(f);
    link = &f->buckets[e->hash & (f->bucket_count - 1)];
    e->chain = *link;
    *link = e;
}

void sf__fetcher_remove(sf_fetcher *f, struct fetch_entry *e)
{
    struct fetch_entry **link = &f->buckets[e->hash & (f->bucket_count - 1)];

    while (*link != e)
        link = &(*link)->chain;
    *link = e->chain;
    f->entry_count--;
}

struct fetch_request *sf__fetcher_take_request(sf_fetcher *f)
{
    struct fetch_request *r = f->spare;

    if (!r)
        return sf__alloc(f->alloc, sizeof(*r));
    f->spare = r->next;
    f->spare_count--;
    return r;
}

/* Kept for the next ones are as many as are out, and one. */
void sf__fetcher_give_back_request(sf_fetcher *f, struct fetch_request *r)
{
    sf__store_op_cleanup(&r->op, f->alloc);
    r->next = f->spare;
    f->spare = r;
    f->spare_count++;
    while (f->spare_count > value(&f->budget.requests_in_flight) + 1) {
        r = sf__fetcher_take_request(f);
        sf__free(f->alloc, r);
    }
}

void sf__fetcher_count(sf_fetcher *f, const sf_store *store, uint64_t requests, uint64_t bytes)
{
    atomic_fetch_add_explicit(&f->requests, requests, memory_order_relaxed);
    atomic_fetch_add_explicit(&f->bytes_fetched, bytes, memory_order_relaxed);
    if (f->observer)
        f->observer(f->observer_ctx, store, requests, bytes);
}
