/* One verified read: a fetch, then decoding with all its checks, on the loop thread or, for many bytes, on a worker. What
 * counts is what the bytes unpack to: beyond SF_READ_LOOP_PLAIN_BYTES it is set aside from the byte budget first.
 * When the decoder finds damage the bytes are read once more from storage, since a torn answer looks like damage; the
 * second verdict counts. Loop thread only. */
#ifndef SF_BACKEND_SLATEDB_READ_H
#define SF_BACKEND_SLATEDB_READ_H

#include "backend/slatedb/format/compress.h"
#include "runtime/runtime.h"

/* Stored bytes, and plain ones, above which decoding leaves the loop thread. */
#define SF_READ_WORKER_BYTES (64u << 10)
#define SF_READ_LOOP_PLAIN_BYTES (256u << 10)

typedef enum sf_read_state {
    SF_READ_IDLE,
    SF_READ_FETCHING,
    SF_READ_CLAIMING,
    SF_READ_DECODING,
    SF_READ_DONE
} sf_read_state;

/* Embedded by its owner; `done` exactly once, never inside start. */
typedef struct sf_read {
    sf_runtime *rt;
    sf_store *store;      /* borrowed until done */
    const char *key;      /* borrowed until done */
    uint64_t off, len;    /* len may be SF_STORE_ALL with off 0: at most max_bytes */
    uint64_t max_bytes;
    uint64_t deadline_ns;
    bool packed;          /* it may unpack to more than it is */
    /* Loop thread or worker, at most twice, and again for as long as it says SF_WOULD_BLOCK for want of `room`; each time
     * it starts over. `data` is shared with other readers. */
    sf_status (*decode)(struct sf_read *r, sf_buf *data, sf_error *err);
    void (*done)(struct sf_read *r);
    void *ctx;
    sf_plain_room *room; /* for `decode`: what it may unpack to; NULL without a bound */
    const sf_error *error; /* the result: never NULL, valid inside `done`; names the object and the offset */
    /* private */
    sf_read_state state;
    bool again;     /* this is the second reading */
    bool cancelled;
    sf_fetch fetch;
    sf_plain_room plain;
    uint64_t plain_bytes; /* of room in this try */
    struct read_heavy *heavy; /* what only reads of many bytes need */
} sf_read;

void sf__read_start(sf_read *r);
/* Harmless before the start and after the end; else `done` follows with SF_CANCELLED. */
void sf__read_cancel(sf_read *r);
/* While it is under way: SF_TIMEOUT for one who has waited since then and waits no longer. */
void sf__read_overdue(const sf_read *r, uint64_t since_ns, sf_error *err);
/* Whether a failed decode will be tried again with fresh bytes. For decoders. */
static inline bool sf__read_has_second(const sf_read *r)
{
    return !r->again;
}

#endif
