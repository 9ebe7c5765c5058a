/* Scheduled reads: every read of stored bytes goes through here. It stays within the budget (waiting is a state), lets equal
 * ranges share one request (single flight), and enforces deadlines of the single waiters. Loop thread only. */
#ifndef SF_CACHE_FETCH_H
#define SF_CACHE_FETCH_H

#include "cache/fetcher.h"

/* One read, embedded by its owner. `done` exactly once, never inside start. */
typedef struct sf_fetch {
    sf_store *store;      /* borrowed until done */
    const char *key;      /* borrowed until done */
    bool suffix;          /* the last `len` bytes */
    uint64_t off, len;    /* len may be SF_STORE_ALL with off 0: the whole object, at most max_bytes */
    uint64_t max_bytes;   /* for whole objects: refuse above this */
    const char *if_match; /* SF_CONFLICT when the object has another ETag; borrowed until done. NULL: whatever it has */
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

void sf__fetch_start(sf_fetcher *f, sf_fetch *fetch);
/* The owner gets SF_CANCELLED through done; the request itself goes on while others wait for it. */
void sf__fetch_cancel(sf_fetcher *f, sf_fetch *fetch);
/* Between start and done: SF_TIMEOUT for one who has waited since then and waits no longer. */
void sf__fetch_overdue(const sf_fetch *f, uint64_t since_ns, sf_error *err);

#endif
