/* Scheduled reads: every read of stored bytes goes through here. It bounds requests and bytes in flight (waiting is a
 * state, first come first served), lets equal ranges share one request (single flight), and enforces deadlines of the
 * single waiters. Loop thread only. */
#ifndef SF_CACHE_FETCH_H
#define SF_CACHE_FETCH_H

#include "store/store.h"

typedef struct sf_fetcher sf_fetcher;

/* One read, embedded by its owner. `done` exactly once, never inside start. */
typedef struct sf_fetch {
    sf_store *store;      /* borrowed until done */
    const char *key;      /* borrowed until done */
    bool suffix;          /* the last `len` bytes */
    uint64_t off, len;    /* len may be SF_STORE_ALL with off 0: the whole object, at most max_bytes */
    uint64_t max_bytes;   /* for whole objects: refuse above this */
    uint64_t deadline_ns;
    void (*done)(struct sf_fetch *f);
    void *ctx;
    /* results */
    const sf_error *error; /* never NULL; valid inside `done` */
    sf_buf *data;         /* shared with other waiters: read only; the owner releases it */
    uint64_t object_size;
    /* private */
    void *flight;
    struct sf_fetch *next, *prev;
    sf_timer timer;
    uint64_t since_ns;
    sf_status ended;      /* without a request: why, while `task` is on its way */
    sf_task task;
} sf_fetch;

/* Something that waits for its turn, or has it. */
typedef struct sf_fetch_slot {
    struct sf_fetch_slot *next, *prev;
    uint64_t bytes; /* reserved while it has its turn */
    uint32_t requests;
    void *request;  /* reads: what is handed to the store, while it has its turn */
    void (*go)(struct sf_fetch_slot *slot);
} sf_fetch_slot;

/* Bytes of the budget for something else than a request: what is to be unpacked. Embedded by its owner. */
typedef struct sf_fetch_claim {
    sf_fetch_slot slot; /* first; private, as all that follows but for `done`, `ctx` and `error` */
    struct sf_fetcher *fetcher;
    bool waiting, held;
    uint64_t since_ns;
    sf_timer timer;
    sf_task task;
    void (*done)(struct sf_fetch_claim *c); /* exactly once, never inside the call: SF_OK, SF_TIMEOUT or SF_CANCELLED */
    void *ctx;
    sf_error error;
} sf_fetch_claim;

typedef struct sf_fetch_stats {
    uint64_t requests;      /* handed to a store; every page of a listing counts */
    uint64_t bytes_fetched; /* in successful answers */
    uint64_t shared;        /* reads that joined one under way */
    uint64_t requests_in_flight, bytes_in_flight;
    uint64_t waiting;       /* requests that the bounds hold back */
    uint64_t bytes_held;    /* by operations under way, for themselves */
} sf_fetch_stats;

/* Told about every finished store operation: `store`, how many requests it took (0: cancelled before it began), and
 * the bytes it brought. Loop thread. */
typedef void (*sf_fetch_observer)(void *ctx, const sf_store *store, uint64_t requests, uint64_t bytes);

/* A read that is larger than max_bytes goes out when it is alone. */
sf_status sf__fetcher_new(sf_fetcher **out, sf_loop *loop, const sf_allocator *a, uint32_t max_requests,
                          uint64_t max_bytes, sf_error *err);
void sf__fetcher_free(sf_fetcher *f); /* nothing may be in flight */
void sf__fetch_start(sf_fetcher *f, sf_fetch *fetch);
/* The owner gets SF_CANCELLED through done; the request itself goes on while others wait for it. */
void sf__fetch_cancel(sf_fetcher *f, sf_fetch *fetch);
/* Between start and done: SF_TIMEOUT for one who has waited since then and waits no longer. */
void sf__fetch_overdue(const sf_fetch *f, uint64_t since_ns, sf_error *err);
void sf__fetcher_get_stats(sf_fetcher *f, sf_fetch_stats *out); /* any thread */
/* Before the first read. */
void sf__fetcher_observe(sf_fetcher *f, sf_fetch_observer observer, void *ctx);

/* What an operation under way takes for itself comes out of the same budget: the more of them are pending, the less is asked
 * for at once. Half of the budget stays for requests whatever happens, or those that are pending would stay so for long. Any
 * thread. */
void sf__fetcher_hold(sf_fetcher *f, size_t bytes);
void sf__fetcher_let_go(sf_fetcher *f, size_t bytes);

/* Goes ahead of all requests that wait: whoever claims holds bytes already, which others cannot have before it has ended.
 * More than the budget has when it is alone. After SF_OK sf__fetch_claim_end() is due. */
void sf__fetch_claim(sf_fetcher *f, sf_fetch_claim *c, uint64_t bytes, uint64_t deadline_ns);
void sf__fetch_claim_cancel(sf_fetch_claim *c); /* harmless when it does not wait */
void sf__fetch_claim_end(sf_fetch_claim *c);    /* harmless when it holds nothing */

/* A listing under the same bound on requests in flight, with the completion rules of sf__store_list_all(). `done` and
 * `ctx` of the listing are borrowed until done. Cancel with this call, not with sf__store_list_cancel(). */
void sf__fetcher_list(sf_fetcher *f, sf_store_listing *l);
void sf__fetcher_list_cancel(sf_fetcher *f, sf_store_listing *l);

#endif
