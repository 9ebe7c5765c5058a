/* Scheduled, verified reads: all stored bytes that a reader needs come this way. A read stays within the budget (waiting is a
 * state), shares its request with whoever wants the same range at the same time (single flight), and ends at its own deadline.
 * Where bytes are decoded, that belongs to it: on the loop thread or, when it is much, on a worker; what they unpack to beyond
 * some hundred kilobytes is set aside from the budget first; and when the decoder finds damage the bytes are read once more,
 * since a torn answer looks like damage: then the second verdict counts. What lies in the disk cache is taken from there, and put there
 * when it was read and decoded well. Loop thread only. */
#ifndef SF_CACHE_FETCH_H
#define SF_CACHE_FETCH_H

#include "base/plain_room.h"
#include "cache/disk_cache.h"
#include "cache/fetcher.h"

typedef enum sf_fetch_state {
    SF_FETCH_IDLE,
    SF_FETCH_READING,
    SF_FETCH_CLAIMING,
    SF_FETCH_DECODING,
    SF_FETCH_DONE
} sf_fetch_state;

struct sf_fetch;

/* How the data falls into parts. */
typedef struct sf_fetch_parts {
    uint32_t (*count)(const struct sf_fetch *f);
    uint64_t (*off)(const struct sf_fetch *f, uint32_t i);
    bool (*is_wanted)(const struct sf_fetch *f, uint32_t i); /* else it was not decoded, and lies between others only */
} sf_fetch_parts;

/* One read, embedded by its owner. `done` exactly once, never inside start. */
typedef struct sf_fetch {
    sf_store *store;      /* borrowed until done */
    const char *key;      /* borrowed until done */
    uint64_t off, len;    /* len may be SF_STORE_ALL with off 0: the whole object, at most max_bytes */
    uint64_t max_bytes;   /* for whole objects: refuse above this */
    const char *if_match; /* SF_CONFLICT when the object has another ETag; borrowed until done. NULL: whatever it has */
    const char *if_none_match; /* whole objects: see sf_store_op; borrowed until done, or NULL */
    uint64_t deadline_ns;      /* for the bytes to come; decoding is not interrupted */
    /* Optional. Loop thread or worker, at most twice, and again for as long as it says SF_WOULD_BLOCK for want of `room` (NULL:
     * without a bound); each time it starts over. Nobody else has `data` when its count is 1; it is gone before `done`. */
    sf_status (*decode)(struct sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err);
    void (*done)(struct sf_fetch *f);
    void *ctx;
    /* Ranges that are decoded only. Borrowed until done; NULL: nowhere on disk. */
    const sf_disk_place *disk;
    const sf_fetch_parts *parts; /* each is kept and found by itself; NULL: it is one */
    /* results */
    const sf_error *error; /* never NULL; valid inside `done`; names the object */
    sf_buf *data;          /* unless it was decoded: shared with others, so read only; the owner releases it */
    uint64_t object_size;
    /* set by the owner */
    bool disk_only_read; /* it is not put there */
    bool suffix;         /* the last `len` bytes */
    bool brief;          /* its bytes are gone soon, so that the next such read may have their memory */
    bool packed;         /* it may unpack to more than it is */
    /* for decoders */
    bool again;        /* this is the second reading: there is no other */
    bool shared;       /* others had the same bytes from the same request, and may have decoded them before */
    bool not_modified; /* it has the ETag of if_none_match, and did not come */
    const char *etag;  /* "": it was not told; valid inside `done` */
    /* private */
    bool cancelled; /* while it is decoded */
    bool decoded;   /* READING is over, and so is that, by the worker that has read it */
    bool from_disk, disk_old, disk_tried;
    sf_fetch_state state;
    sf_status ended; /* READING without a request: why, while `task` is on its way */
    sf_fetcher *fetcher;
    struct flight *flight;
    union {
        struct {
            struct sf_fetch *next, *prev; /* while it waits for `flight` */
        };
        sf_task task; /* else */
    };
    sf_timer timer;
    uint64_t since_ns;
    uint64_t plain_bytes;          /* of room in this try */
    struct fetch_heavy *heavy;     /* what only decoding much needs */
    struct fetch_on_disk *on_disk; /* while it is READING from there */
} sf_fetch;

void sf__fetch_start(sf_fetcher *f, sf_fetch *fetch);
/* Harmless before the start and after the end; else the owner gets SF_CANCELLED through done. The request itself goes on while
 * others wait for it. */
void sf__fetch_cancel(sf_fetch *fetch);
static inline bool sf__fetch_is_under_way(const sf_fetch *f)
{
    return f->state != SF_FETCH_IDLE && f->state != SF_FETCH_DONE;
}
/* While it is under way: SF_TIMEOUT for one who has waited since then and waits no longer. */
void sf__fetch_overdue(const sf_fetch *f, uint64_t since_ns, sf_error *err);

#endif
