/* What a shard reader must do. A shard is opened once, immutable, counted; any thread may call try_get, acquire and
 * release; operations start on the loop thread and complete there, exactly once, never inside the starting call. */
#ifndef SF_BACKEND_BACKEND_H
#define SF_BACKEND_BACKEND_H

#include "backend/value_room.h"
#include "base/pin.h"
#include "runtime/runtime.h"
#include "shardyfusion/reader.h"

#define SF_NO_SQLITE_FOLDER \
    "SQLite shards cannot be downloaded without a folder for their copies: set sqlite_folder, or read them by ranges"
#define SF_NO_SQLITE                                                                                                           \
    "SQLite shards are not supported by a reader that was made for SlateDB (in Python: leave out the reader_factory, or pass " \
    "SqliteReaderFactory)"
#define SF_NO_SLATEDB                                                                                                          \
    "SlateDB shards are not supported by a reader that was made for SQLite (in Python: leave out the reader_factory, or pass " \
    "SlateDbReaderFactory)"

typedef struct sf_shard sf_shard;

/* How far a look-up of one key has come, in its shard's terms. Zeroed: it has not begun. */
typedef struct sf_shard_place {
    uint64_t words[11];
} sf_shard_place;

/* Keys that are looked up in memory side by side, of shards with the same vtable. */
#define SF_SHARD_TRIES SF_PINS_TOGETHER
typedef struct sf_shard_tries {
    size_t count;
    sf_shard *shards[SF_SHARD_TRIES];
    sf_bytes keys[SF_SHARD_TRIES];      /* borrowed */
    sf_value *values[SF_SHARD_TRIES];   /* to be filled */
    size_t left;                        /* keys whose status is not SF_OK */
    sf_status statuses[SF_SHARD_TRIES]; /* as try_get() has it, and places[] */
    sf_shard_place places[SF_SHARD_TRIES];
} sf_shard_tries;

/* One key that is looked up. */
typedef struct sf_shard_ask {
    sf_bytes key;         /* borrowed until done */
    sf_shard_place place; /* where try_get() stopped, or zeroed; then the shard's */
    sf_value value;       /* zeroed by the caller, filled by the shard */
    sf_status status;     /* filled by the shard; SF_WOULD_BLOCK while a look-up (lookup.h) has no answer */
    /* the caller's */
    uint32_t db_id;
    size_t index;
} sf_shard_ask;

/* Look-up of several keys as one operation. A key that fails does not fail the others: its status tells; `error` is the
 * first failure. */
typedef struct sf_shard_get_many {
    sf_shard_ask *asks; /* any order; duplicates are fine */
    size_t count;
    size_t all_count; /* keys of the batch that it is a part of, in all shards; 0: there are no others */
    uint64_t deadline_ns;
    void *call_ctx; /* the call's `ctx`, for foreign shards */
    void (*done)(struct sf_shard_get_many *op);
    void *ctx;
    const sf_error *error; /* NULL: no key failed; else kept (sf_error_keep) for the caller, who drops it */
    void *impl;            /* the shard's, with `task` */
    sf_task task;
} sf_shard_get_many;

/* Rows of one step of a scan; released with sf__row_batch_free(). `arena` holds keys and copied values, `blocks` keep the others alive. */
typedef struct sf_row_batch {
    sf_row *rows;
    size_t count, cap;
    void *arena;   /* first of a chain of chunks */
    uint8_t *room; /* what is left of that one */
    size_t room_bytes;
    sf_buf **blocks;
    size_t block_count, block_cap;
    const sf_allocator *alloc;
} sf_row_batch;

typedef struct sf_scan_range {
    sf_bytes start, end; /* [start, end); copied by the scan */
    bool has_end;        /* false: to the end of the key space */
    bool reverse;        /* from the highest key down */
    /* hints */
    bool has_prefix; /* the range is that of a prefix */
    sf_bytes prefix; /* copied, too */
    uint64_t limit;  /* rows that can be used, over all shards */
} sf_scan_range;

/* A copy of all of it. The bytes, freed with sf__free(); NULL without memory. */
uint8_t *sf__scan_range_copy(sf_scan_range *out, const sf_scan_range *range, const sf_allocator *a) SF_MUST_USE;

typedef enum sf_scan_at {
    SF_SCAN_BETWEEN_ROWS, /* not begun, or it has passed over many rows that do not show: move it on */
    SF_SCAN_NEEDS_FILL,   /* the next row is not in memory */
    SF_SCAN_AT_ROW,
    SF_SCAN_AT_END,
} sf_scan_at;

/* A scan of one shard: it stands somewhere among the shard's rows and is moved on by whoever holds it, one thread at a
 * time. Implementations embed it first. */
typedef struct sf_shard_scan {
    sf_shard *shard; /* acquired */
    sf_scan_at at;
    /* AT_ROW, until it moves: the next rows, in the order of the scan, one at least. Their keys are to be copied */
    const sf_row *rows;
    size_t count;
    sf_buf *owner; /* holds the values of all of them; NULL: they are to be copied, too */
} sf_shard_scan;

/* Where rows are gathered: stop after either; at least one row unless at the end. */
typedef struct sf_scan_limits {
    size_t max_rows, max_bytes;
} sf_scan_limits;

/* Reading what a scan needs. Embedded by its owner. */
typedef struct sf_scan_fill {
    uint64_t deadline_ns; /* for work that looks at it; the owner watches it, too */
    void *call_ctx;       /* the call's `ctx`, for foreign shards */
    void (*done)(struct sf_scan_fill *fill);
    void *ctx;
} sf_scan_fill;

/* Bringing all that look-ups may need of a shard to where it stays. Embedded by its owner. */
typedef struct sf_shard_resident {
    sf_residency where; /* not NONE */
    int64_t since_us;   /* all that is part of this began no earlier (sf__clock_files_us()) */
    uint64_t deadline_ns;
    atomic_uint_fast64_t *bytes; /* counts what has come */
    void (*done)(struct sf_shard_resident *op);
    void *ctx;
    const sf_error *error; /* NULL: it stays; else kept for the owner, who drops it */
    void *impl;            /* the shard's, with `task` */
    sf_task task;
} sf_shard_resident;

struct sf_shard_check;

/* A key of a block of so many bytes. False: no more of them. */
typedef bool (*sf_hot_key_fn)(void *ctx, sf_bytes key, uint64_t block_bytes);

typedef struct sf_shard_vtable {
    /* Memory only. SF_OK with *out filled (owner acquired), an error, or SF_WOULD_BLOCK, with how far it came in *place
     * unless that is NULL. */
    sf_status (*try_get)(sf_shard *s, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err);
    /* Optional: try_get() of one key or more at once, whose waits for memory overlap. The values have references, or lie in
     * `room`; without one (NULL) they may have no owner, and are views until the thread's next call. May leave pins on, for that
     * one: sf__pins_together_end() when there is none. */
    void (*try_get_together)(sf_shard_tries *t, sf_value_room *room);
    void (*get_many)(sf_shard *s, sf_shard_get_many *op);
    void (*get_many_cancel)(sf_shard *s, sf_shard_get_many *op);
    /* `buffer_bytes`: plain bytes that it may read ahead, about; one block or row it may hold always. */
    sf_status (*scan_open)(sf_shard *s, const sf_scan_range *range, uint64_t buffer_bytes, sf_shard_scan **out,
                           sf_error *err);
    /* Behind the rows that it stands at, memory only. After a failure it does not stand at a row; a failed read is reported once, and the
     * next call tries again. */
    sf_status (*scan_next)(sf_shard_scan *scan, sf_error *err);
    /* Loop thread; nobody moves the scan meanwhile. False: nothing is missing, move it on. True: done() follows, never inside
     * this call; the next move tells what failed. */
    bool (*scan_fill)(sf_shard_scan *scan, sf_scan_fill *fill);
    /* Loop thread, a fill under way. True: that is over, done() does not follow. False: it comes soon. */
    bool (*scan_fill_cancel)(sf_shard_scan *scan, sf_scan_fill *fill);
    /* Optional. Loop thread, a fill under way: SF_TIMEOUT, with what it waits for, for one who has waited since then. */
    void (*scan_fill_overdue)(const sf_shard_scan *scan, uint64_t since_ns, sf_error *err);
    void (*scan_free)(sf_shard_scan *scan); /* any thread, no fill under way */
    /* Optional. Looks for damage in what is stored (shard_check.h). Blocks; a thread that may wait. */
    sf_status (*check)(sf_shard *s, struct sf_shard_check *check, sf_error *err);
    /* Optional. What a look-up considers; memory only. */
    void (*explain)(sf_shard *s, sf_bytes key, sf_look_fn look, void *ctx);
    /* Optional. Any thread, memory only: keys of each block that the cache holds of it. */
    void (*hot_keys)(sf_shard *s, sf_hot_key_fn add, void *ctx);
    /* Optional, all or none: then it cannot stay anywhere. Any thread: SF_UNSUPPORTED, with why it cannot; stored bytes, and *room grows by
     * those of them that take room in the cache there. The operation, once it can; and its end as SF_CANCELLED. */
    sf_status (*can_stay)(const sf_shard *s, sf_residency where, sf_error *err);
    uint64_t (*resident_bytes)(sf_shard *s, sf_residency where, uint64_t *room);
    void (*resident)(sf_shard *s, sf_shard_resident *op);
    void (*resident_cancel)(sf_shard *s, sf_shard_resident *op);
    /* Loop thread, no operation of the caller's under way: what has come into memory stays there no more, and is charged to nobody. */
    void (*resident_let_go)(sf_shard *s);
    /* Optional. Any thread: the last reference is gone, free() follows. */
    void (*gone)(sf_shard *s);
    /* Optional: the shard that does the work, once there is one; as long as this one. Else NULL. */
    sf_shard *(*inner)(const sf_shard *s);
    /* Optional: see sf_snapshot_shard_is_sqlite(). */
    bool (*is_sqlite)(const sf_shard *s, const char **file);
    /* Optional: what a caller's opener has opened; NULL until then. */
    void *(*foreign)(const sf_shard *s);
    void (*free)(sf_shard *s); /* loop thread, last reference gone */
} sf_shard_vtable;

/* Implementations embed this first. */
struct sf_shard {
    const sf_shard_vtable *vtable;
    sf_runtime *rt;        /* acquired */
    sf_block_cache *cache; /* of blocks that it reads; acquired */
    atomic_uint refs;
    int32_t db_id;           /* for messages */
    char *url;               /* for messages and identity */
    uint64_t bytes_resident; /* that the block cache counts for it */
    sf_task free_task;
};

/* For implementations: one key has failed; the first failure is the operation's. Whoever has the operation. */
void sf__shard_key_failed(const sf_shard *s, sf_shard_get_many *op, sf_shard_ask *ask, sf_status rc, const sf_error *e);
/* All keys of one that has just come; done() is the caller's to call, or follows through the inbox. */
void sf__shard_get_failed(const sf_shard *s, sf_shard_get_many *op, const sf_error *e);
void sf__shard_get_fail_later(const sf_shard *s, sf_shard_get_many *op, const sf_error *e);

sf_shard *sf__shard_acquire(sf_shard *s);
void sf__shard_release(sf_shard *s); /* any thread; the last one posts the teardown to the loop thread; takes NULL */

sf_row_batch *sf__row_batch_new(const sf_allocator *a) SF_MUST_USE;
void sf__row_batch_free(sf_row_batch *b); /* takes NULL */
/* Keeps a reference on a block that holds values of its rows. Once for each block. False without memory. */
bool sf__row_batch_hold(sf_row_batch *b, sf_buf *owner) SF_MUST_USE;
/* Room for so many rows in all, and for n bytes. False and NULL without memory. */
bool sf__row_batch_reserve(sf_row_batch *b, size_t rows) SF_MUST_USE;
uint8_t *sf__row_batch_room(sf_row_batch *b, size_t n) SF_MUST_USE;

static inline bool sf__row_batch_copy(sf_row_batch *b, sf_bytes *bytes)
{
    uint8_t *to = b->room;

    if (bytes->n > b->room_bytes || !to) {
        to = sf__row_batch_room(b, bytes->n);
        if (!to)
            return false;
    } else {
        b->room += bytes->n;
        b->room_bytes -= bytes->n;
    }
    if (bytes->n == 8) /* what integers take */
        memcpy(to, bytes->p, 8);
    else if (bytes->n > 0)
        memcpy(to, bytes->p, bytes->n);
    bytes->p = to;
    return true;
}

/* Copies the key, and the value too unless the batch holds its block. False without memory. */
SF_MUST_USE static inline bool sf__row_batch_add(sf_row_batch *b, sf_bytes key, sf_bytes value, bool held)
{
    if ((b->count == b->cap && !sf__row_batch_reserve(b, b->count + 1)) || !sf__row_batch_copy(b, &key) ||
        (!held && !sf__row_batch_copy(b, &value)))
        return false;
    b->rows[b->count++] = (sf_row){key, value};
    return true;
}

/* When it is cheaper to read what lies between two places than to ask twice. */
typedef struct sf_read_cost {
    uint64_t gap_bytes; /* between them, at most */
    uint64_t max_bytes; /* of one request that several share */
} sf_read_cost;

/* Opening, shared by all backends. */
typedef struct sf_shard_open {
    sf_runtime *rt;
    sf_store *store;  /* borrowed until done; the shard acquires its own */
    const char *path; /* of the database below the store's root; borrowed until done */
    const char *url;  /* for messages */
    int32_t db_id;
    const char *checkpoint; /* UUID text, or NULL for the newest state */
    sf_buf *record; /* what the snapshot manifest says of it (docs/formats/snapshot.md 4.8), unchecked; borrowed until done, or NULL */
    sf_read_cost cost;
    sf_disk_cache *disk;   /* of what the shard reads; borrowed until done, or NULL */
    sf_block_cache *cache; /* of its blocks; borrowed until done; NULL: the runtime's */
    uint64_t deadline_ns;
    void *call_ctx; /* the call's `ctx`, for foreign shards */
    void (*done)(struct sf_shard_open *op);
    void *ctx;
    const sf_error *error; /* NULL: it is open; else kept (sf_error_keep) for the owner, who drops it */
    sf_shard *shard;       /* on success; the owner's reference */
    bool by_record;        /* on success: as `record` has it, nobody looked whether that is the newest state */
    bool is_sqlite;        /* SF_UNSUPPORTED from the SlateDB backend (SF_NO_SQLITE): a shard.db lies there instead */
    void *impl;            /* the backend's, with `begin` and `task` */
    void (*begin)(void *impl);
    sf_task task;
} sf_shard_open;

/* For implementations: it begins, with begin(impl) on the loop thread, not inside, so that nothing ends inside the call. Without an
 * `impl` there was no memory: then it ends so. Results are as none before, and what has failed until then is forgotten. */
void sf__shard_open_begin(sf_shard_open *op, void *impl, void (*begin)(void *impl));
/* For implementations: whether what went by the record has failed by it, and is to go the long way. A record is a hint: what is wrong with
 * the shard itself, the shard will tell. */
bool sf__shard_open_is_record_bad(const sf_shard_open *op);
/* For implementations: it has failed; the first failure counts. */
void sf__shard_open_failed(sf_shard_open *op, const sf_error *e);
void sf__shard_open_fail(sf_shard_open *op, sf_status code, const char *what); /* of short ones */
/* For implementations: the common part, with one reference. False without memory: then it needs no clean-up. */
bool sf__shard_init(sf_shard *s, const sf_shard_vtable *vtable, const sf_shard_open *op) SF_MUST_USE;
/* Frees `s`, whose own part is cleaned up already, and gives the runtime back. */
void sf__shard_destroy(sf_shard *s);

/* SlateDB: backend/slatedb/shard_open.c */
void sf__slatedb_shard_open(sf_shard_open *op);
void sf__slatedb_shard_open_cancel(sf_shard_open *op);

#endif
