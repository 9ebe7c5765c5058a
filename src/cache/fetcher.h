/* What reads (fetch.h) and listings (listing.h) of a runtime share: the budget, the table of reads under way, the counters. */
#ifndef SF_CACHE_FETCHER_H
#define SF_CACHE_FETCHER_H

#include "base/plain_room.h"
#include "cache/budget.h"
#include "cache/disk_cache.h"
#include "cache/read_memory.h"
#include "store/store.h"

typedef struct sf_fetch_stats {
    uint64_t requests;      /* handed to a store; every page of a listing counts */
    uint64_t bytes_fetched; /* in successful answers */
    uint64_t shared;        /* reads that joined one under way */
    uint64_t requests_in_flight, bytes_in_flight;
    uint64_t waiting;    /* requests that the bounds hold back */
    uint64_t bytes_held; /* by operations under way, for themselves */
    uint64_t disk_jobs;  /* of disk caches, under way */
} sf_fetch_stats;

/* Told about every finished store operation: `store`, how many requests it took (0: cancelled before it began), and
 * the bytes it brought. Loop thread. */
typedef void (*sf_fetch_observer)(void *ctx, const sf_store *store, uint64_t requests, uint64_t bytes);

/* What is handed to a store. It is large, and only those that have their turn need one: many more may wait. */
struct fetch_request {
    sf_store_op op;
    struct fetch_request *next; /* the next spare one */
};

/* A read under way, in the table; fetch.c's. */
struct fetch_entry {
    uint64_t hash;
    struct fetch_entry *chain;
};

typedef struct sf_fetcher {
    /* set at creation */
    sf_loop *loop;
    const sf_allocator *alloc;
    sf_fetch_observer observer;
    void *observer_ctx;
    sf_budget budget; /* has rules of its own */
    /* loop thread */
    struct fetch_request *spare; /* at least one while none is out, so that reads go on without memory */
    size_t spare_count;
    struct fetch_entry **buckets; /* reads under way, by hash */
    size_t bucket_count, entry_count;
    /* written by the loop thread, read by any */
    atomic_uint_fast64_t requests, bytes_fetched, shared;
    /* any thread */
    sf_disk_caches disk_caches;
    sf_unpackers unpackers;
    sf_read_memory read_memory;
} sf_fetcher;

/* A read that is larger than max_bytes goes out when it is alone. */
sf_status sf__fetcher_new(sf_fetcher **out, sf_loop *loop, const sf_allocator *a, uint32_t max_requests,
                          uint64_t max_bytes, sf_error *err);
void sf__fetcher_free(sf_fetcher *f); /* nothing may be in flight; takes NULL */
/* Before the first read. */
void sf__fetcher_observe(sf_fetcher *f, sf_fetch_observer observer, void *ctx);
void sf__fetcher_get_stats(const sf_fetcher *f, sf_fetch_stats *out); /* any thread */

/* For fetch.c and listing.c. */
static inline struct fetch_entry *sf__fetcher_bucket(const sf_fetcher *f, uint64_t hash)
{
    return f->buckets[hash & (f->bucket_count - 1)];
}
void sf__fetcher_add(sf_fetcher *f, struct fetch_entry *e);
void sf__fetcher_remove(sf_fetcher *f, struct fetch_entry *e);
struct fetch_request *sf__fetcher_take_request(sf_fetcher *f) SF_MUST_USE; /* NULL without memory */
void sf__fetcher_give_back_request(sf_fetcher *f, struct fetch_request *r);
void sf__fetcher_count(sf_fetcher *f, const sf_store *store, uint64_t requests, uint64_t bytes); /* what has ended */

#endif
