/* Reading published snapshots.
 *
 * A reader follows one snapshot prefix: it serves the snapshot that the pointer named when it was opened, until
 * sf_reader_refresh() switches it to a newer one. Every operation comes as a blocking call and as a `_start` form
 * that returns a sf_call (runtime.h) at once; what memory can answer at once has a `try_` form. Any thread may call any function
 * on any object here, except where it says otherwise. */
#ifndef SHARDYFUSION_READER_H
#define SHARDYFUSION_READER_H

#include "shardyfusion/arrow.h"
#include "shardyfusion/runtime.h"
#include "shardyfusion/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ calls ---------------------------------------- */

typedef struct sf_reader sf_reader;
typedef struct sf_snapshot sf_snapshot;
typedef struct sf_scan sf_scan;

/* Results, after done; of another kind of call: nothing. The error of a multi-key look-up is its first failure. */
SF_API sf_value *sf_call_values(sf_call *call, size_t *count);         /* get, multi_get, ask: aligned with the keys; the call's */
SF_API const sf_status *sf_call_statuses(const sf_call *call);         /* per key, same count */
SF_API const sf_error *sf_call_shard_errors(const sf_call *call, size_t *count); /* one per failed shard; before them, one per shard with keys that have no stored form */
SF_API sf_reader *sf_call_take_reader(sf_call *call);                  /* open; the caller's from now on */
SF_API sf_snapshot *sf_call_take_snapshot(sf_call *call);              /* shard open; the caller's from now on */
SF_API bool sf_call_changed(const sf_call *call);                      /* refresh */

/* A manifest that an opening or a refresh tried and could not use. */
typedef struct sf_rejected_manifest {
    const char *manifest_ref; /* as the pointer names it, or the listing */
    sf_error error;           /* SF_BAD_MANIFEST: malformed; else its object could not be read, which ended the call */
} sf_rejected_manifest;
/* open, refresh; of a call that failed, too. In the order in which they were tried: first the one that the pointer names,
 * then (open only, at most max_fallbacks) older ones, newest first. NULL and 0: none. */
SF_API const sf_rejected_manifest *sf_call_rejected_manifests(const sf_call *call, size_t *count);

SF_API const sf_row *sf_call_rows(const sf_call *call, size_t *count, bool *end); /* scan step; valid while the call is held */

/* ------------------------------------------------------------------ sources of manifests ------------------------- */

/* Where a reader finds its manifests, when that is not a prefix of a store: the caller's own. The reader asks it while it
 * opens and refreshes, one question at a time for each of these, and decides all else itself: which manifest is next, what is
 * malformed, which shards stay open.
 *
 * The functions run on the loop thread: they take note of the question, see that it gets answered, and return; they must not
 * wait. The answer may come inside of them or at any later time, from any thread, by one of the functions below. A question
 * that is not answered ends with the deadline of its opening or refresh (SF_TIMEOUT), or when that is cancelled; answers
 * that come later are refused, which harms nobody, and even after the end of the runtime.
 *
 * Each call hands the source a reference to the question, which it gives back by sf_manifest_request_release(), once, on
 * any thread, whatever became of it. */
typedef struct sf_manifest_request sf_manifest_request;

typedef struct sf_manifest_source {
    size_t size; /* sizeof(sf_manifest_source) */
    /* Which manifest is the current one? Answered by sf_manifest_request_current(). */
    void (*load_current)(void *ctx, sf_manifest_request *rq);
    /* What does this manifest say? `ref` is borrowed. Answered by sf_manifest_request_manifest(). */
    void (*load_manifest)(void *ctx, const char *ref, sf_manifest_request *rq);
    /* Which are there, newest first? More than `limit` are ignored. Answered by sf_manifest_request_refs(). */
    void (*list_manifests)(void *ctx, size_t limit, sf_manifest_request *rq);
    /* Nobody waits for the answer any more: its deadline has passed, or it was cancelled. Loop thread. NULL: it need not know. */
    void (*abandoned)(void *ctx, sf_manifest_request *rq);
    /* Options are copied by whoever takes them, the source with them: `retain` is called for every copy, `release` when it
     * goes, on any thread, the loop's included, so neither may wait. ctx stays retained while questions are open. Both
     * NULL: ctx lives as long as the process. */
    void (*retain)(void *ctx);
    void (*release)(void *ctx);
    void *ctx;
} sf_manifest_source;

/* The answers. Texts and bytes are copied. False: it comes to nothing, because there was an answer before, nobody waits any
 * more, or it answers another question (which then is still open). Any thread. */
SF_API bool sf_manifest_request_current(sf_manifest_request *rq, const char *ref); /* NULL: nothing was published */
/* A manifest in the published format (docs/formats/snapshot.md): what is wrong with it, the reader finds out. */
SF_API bool sf_manifest_request_manifest(sf_manifest_request *rq, sf_bytes bytes);
SF_API bool sf_manifest_request_refs(sf_manifest_request *rq, const char *const *refs, size_t count);
/* There is none, to any question, because of this. SF_BAD_MANIFEST for a manifest: it is malformed, so that an opening tries
 * older ones. Any other code ends the opening or refresh with it; SF_OK counts as SF_IO. The text is for people. */
SF_API bool sf_manifest_request_fail(sf_manifest_request *rq, sf_status code, const char *text);

/* The `ctx` of the sf_reader_open_start() or sf_reader_refresh_start() that asks; NULL for the blocking forms. */
SF_API void *sf_manifest_request_call_ctx(const sf_manifest_request *rq);
/* A question that is given back without an answer has failed (SF_INVALID). Takes NULL. Any thread. */
SF_API void sf_manifest_request_release(sf_manifest_request *rq);

/* ------------------------------------------------------------------ readers -------------------------------------- */

/* How SQLite shards are read. */
typedef enum sf_sqlite_mode {
    SF_SQLITE_AUTO = 0,     /* by ranges, if one of the snapshot's shards is large, or all together are, or there is no folder for copies;
                         * else as copies */
    SF_SQLITE_DOWNLOAD = 1, /* as whole copies in a folder on local disk */
    SF_SQLITE_RANGE = 2,    /* page by page, as look-ups need them, kept in the reader's cache. The sidecar, where a shard has one, has
                         * the pages above the leaves: then a look-up takes one request at most */
    SF_SQLITE_REFUSE = 3    /* not at all: SF_UNSUPPORTED */
} sf_sqlite_mode;

/* What is nearer than storage once a reader is ready (sf_reader_ready()). A snapshot with a shard that cannot be there is not opened, nor
 * moved to by a refresh: SF_UNSUPPORTED. Shards that a shard opener opens can be nowhere. */
typedef enum sf_residency {
    SF_RESIDENCY_NONE = 0,   /* what look-ups have brought into the caches */
    SF_RESIDENCY_INDEX = 1,  /* besides, indexes and filters of all shards; of SQLite ones the pages above the leaves */
    SF_RESIDENCY_MEMORY = 2, /* all, in memory: SF_EXHAUSTED where it takes more than the reader's cache may have, against which it counts */
    SF_RESIDENCY_DISK = 3    /* all. SlateDB shards, which must lie on S3: in the disk cache, of which they may take three quarters: SF_EXHAUSTED where
                              * that is too small. SQLite ones: as copies in sqlite_folder, whatever their size, but not with SF_SQLITE_RANGE */
} sf_residency;

typedef struct sf_reader_options {
    size_t size;             /* filled by the initialiser; fields are only ever appended */
    const sf_s3_options *s3; /* pointer and manifests; NULL: environment */
    const sf_s3_options *shard_s3; /* shards; NULL: as `s3` */
    const char *current_name; /* object name of the pointer; NULL: "_CURRENT" */
    uint32_t max_fallbacks;  /* older manifests to try when the newest is malformed, at open only */
    bool relocate;           /* resolve locations below the published prefix below the given one; always done when
                              * the schemes differ (a copy on local disk) */
    bool legacy_manifests;   /* also accept manifest versions 2 and 3 */
    int64_t open_timeout_ms; /* for sf_reader_open() and, by default, refresh */
    const char *sqlite_folder; /* on local disk: where copies of SQLite shards lie; made when it is
                                * missing, may be shared with other processes; SF_DENIED where others may write to it or
                                * replace a folder above it. Of each shard the copy that was opened
                                * last stays, others go when nobody reads them. NULL: SF_SQLITE_DOWNLOAD is SF_UNSUPPORTED */
    sf_confine confine;
    uint32_t open_concurrency; /* shards that are opened at a time; 0: 256 */
    bool lazy_shards;          /* a shard is opened when it is first read, within open_timeout_ms; one that cannot be opened
                                * fails the reads of its keys only, and is tried again by the next one. What only shards
                                * need is looked at then, too: a snapshot whose routing is not supported, or SQLite shards that are to
                                * be copied without sqlite_folder, open, and tell what their manifest holds */
    const struct sf_shard_opener *shard_opener; /* shardyfusion/shard_opener.h: opens and reads the shards, of whatever
                                * backend; copied. NULL: the library does */
    const char *manifest_ref;  /* serve this manifest, as sf_history_list() or the pointer names it, for good: the pointer is not
                                * read, there is no fallback, and a refresh changes nothing. "run_id=ID": the newest manifest of that run
                                * (SF_NOT_FOUND: it is none of the 1000 newest). NULL: what the pointer names */
    const sf_manifest_source *manifests; /* copied; instead of a pointer and manifests below the prefix, which is a name for
                                * messages then: `s3`, `current_name` and `relocate` say nothing, and shards are read where
                                * the manifest says, unless SF_CONFINE_YES is set. NULL: the prefix's */
    int64_t refresh_interval_ms; /* see sf_reader_due_start(); 0: no refresh is ever due */
    double refresh_jitter;     /* 0 to 1: by up to this share an interval is longer or shorter, so that a fleet is not in step */
    sf_sqlite_mode sqlite_mode;
    uint64_t sqlite_shard_bytes; /* SF_SQLITE_AUTO: by ranges when a shard has so many */
    uint64_t sqlite_total_bytes; /* or all of them together */
    bool sqlite_uncached;        /* pages that were read by ranges are not kept: each look-up reads what it needs */
    bool sqlite_only;            /* SlateDB shards are SF_UNSUPPORTED */
    const char *disk_folder;     /* with disk_bytes: where blocks, indexes and filters of SlateDB shards on S3 are kept for the next
                                * look-up, reader and process; may be shared, even at the same time, with whoever may read all that was
                                * put there. Made when it is missing; SF_DENIED as of sqlite_folder */
    uint64_t disk_bytes;         /* what all files in it take at most: from 1 MiB to 1 TiB, or 0: nothing is kept on disk */
    uint64_t read_gap_bytes;     /* look-ups of many keys in SlateDB shards: blocks with at most so many bytes between them are asked for
                                * with one request. The default is what S3 sends in about 1 % of the time that a request takes; 0: neighbours only.
                                * A batch that has more requests than may be under way at once (inflight_requests) takes gaps of up to
                                * eight times as much, where fewer of them then wait for others, within inflight_bytes */
    uint64_t read_max_bytes;     /* and such a request is for at most so many */
    sf_residency residency;      /* not with lazy_shards, which leaves indexes for later: SF_INVALID */
    uint64_t cache_bytes;        /* a cache in memory of this reader's own, for blocks of its shards with their indexes and filters; 0: it
                                  * keeps none. SF_CACHE_SHARED: that of the runtime, which all readers without one share */
    uint64_t warm_bytes;         /* SlateDB shards: before a refresh moves the reader it looks up in each shard that was opened anew the first
                                  * and the last key of each block that the cache has of the one before, which brings blocks of at most about
                                  * so many bytes, within the deadline of the refresh. Not when the number of shards has changed. 0: none */
    double hedge_share;          /* hedged reads of shards on S3: a range of at most 1 MiB whose answer is late is asked for once more, and the
                                  * first answer counts; at most so many (0.05: one of twenty; up to 0.5) of the requests for such ranges, and
                                  * none while the store is sick. 0: none. See sf_reader_hedge_stats() */
    uint32_t hedge_after_ms;     /* late is what takes longer than that; 0: than all answers of late but for that share */
} sf_reader_options;
#define SF_CACHE_SHARED UINT64_MAX
#define SF_READER_OPTIONS_INIT                                                                               \
    {.size = sizeof(sf_reader_options), .current_name = "_CURRENT", .max_fallbacks = 3, .open_timeout_ms = 60000, \
     .sqlite_shard_bytes = UINT64_C(16) << 20, .sqlite_total_bytes = UINT64_C(2) << 30, .refresh_jitter = 0.1, \
     .read_gap_bytes = UINT64_C(32) << 10, .read_max_bytes = UINT64_C(1) << 20, .cache_bytes = SF_CACHE_SHARED}
SF_API void sf_reader_options_init(sf_reader_options *options, size_t size);

/* `prefix`: s3://bucket/path, file:///path, a bare path, or mem://name/path. `opts` may be NULL. On success *out must be
 * released with sf_reader_free(); on failure *out is untouched. Fails with SF_NO_CURRENT (no pointer), SF_BAD_MANIFEST,
 * SF_NO_SNAPSHOT (fallback exhausted), SF_NOT_FOUND, SF_UNSUPPORTED, or a store's error; the message names the object. */
SF_API sf_status sf_reader_open(sf_reader **out, sf_runtime *rt, const char *prefix, const sf_reader_options *opts,
                                sf_error *err);
SF_API sf_status sf_reader_open_start(sf_call **out, sf_runtime *rt, const char *prefix, const sf_reader_options *opts,
                                      sf_call_done_fn done, void *ctx, sf_error *err);

/* Memory only, never waits: SF_OK with *out filled, SF_WOULD_BLOCK when I/O is needed, or an error. Whoever wants to know
 * only whether a key is there looks at `found`: nothing is copied, and a key that its filter rules out takes no read. */
SF_API sf_status sf_reader_try_get(sf_reader *r, const sf_key *key, sf_value *out, sf_error *err);
/* timeout_ms: the whole operation, or SF_TIMEOUT_NONE. */
SF_API sf_status sf_reader_get(sf_reader *r, const sf_key *key, int64_t timeout_ms, sf_value *out, sf_error *err);
SF_API sf_status sf_reader_get_start(sf_call **out, sf_reader *r, const sf_key *key, int64_t timeout_ms,
                                     sf_call_done_fn done, void *ctx, sf_error *err);
/* As sf_reader_try_get(), and with SF_WOULD_BLOCK *call is an operation that goes on from where memory ended: the key is
 * routed, encoded and asked for once. Nothing happens before sf_call_begin(), but its timeout runs. Else *call is NULL. */
SF_API sf_status sf_reader_ask(sf_reader *r, const sf_key *key, int64_t timeout_ms, sf_value *out, sf_call **call,
                               sf_error *err);
/* One operation for all keys. `values` has `count` slots, aligned with `keys`; on failure they are all empty. Keys that
 * cannot be routed fail the call before any read. */
SF_API sf_status sf_reader_multi_get(sf_reader *r, const sf_key *keys, size_t count, int64_t timeout_ms,
                                     sf_value *values, sf_error *err);
SF_API sf_status sf_reader_multi_get_start(sf_call **out, sf_reader *r, const sf_key *keys, size_t count,
                                           int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err);

/* *changed tells whether the reader moved to another snapshot. A failure, or a new manifest that is malformed (SF_OK,
 * not changed), leaves the reader as it was. Concurrent refreshes run one after the other. */
SF_API sf_status sf_reader_refresh(sf_reader *r, int64_t timeout_ms, bool *changed, sf_error *err);
SF_API sf_status sf_reader_refresh_start(sf_call **out, sf_reader *r, int64_t timeout_ms, sf_call_done_fn done,
                                         void *ctx, sf_error *err);

/* Completes when a refresh is due: refresh_interval_ms after the last one, or the opening, has ended, whoever asked for it.
 * While refreshes fail the interval doubles, up to 16 times, and to 5 minutes where it is below. Whoever then refreshes, and
 * waits anew after that, follows the pointer; both may be done in completion callbacks. A pointer that has not changed costs
 * one conditional request. SF_STATE when the reader is closed. */
SF_API sf_status sf_reader_due_start(sf_call **out, sf_reader *r, sf_call_done_fn done, void *ctx, sf_error *err);
/* Completes when the reader serves another manifest than this one, whoever refreshed it; at once if it does so already.
 * SF_STATE when it is closed. */
SF_API sf_status sf_reader_moved_start(sf_call **out, sf_reader *r, const char *manifest_ref, sf_call_done_fn done,
                                       void *ctx, sf_error *err);

/* Brings the snapshot that is served to where the reader's residency says. From then on, and until a refresh moves the reader, no
 * look-up in it asks storage: after that it is to be called again. Of SF_RESIDENCY_DISK this holds as long as what others put into
 * the same folder leaves room. With SF_RESIDENCY_MEMORY a forked child finds blocks of SlateDB shards on S3 where its parent has them in
 * memory, if that was ready, used the default allocator, and still had its reader: nothing is fetched or copied then; and with disk_bytes,
 * of which up to half is for that, and the default allocator all processes with the folder map the same files. SQLite shards: with SF_RESIDENCY_DISK they are ready as soon as the reader is open, since each copy was
 * found right then. */
SF_API sf_status sf_reader_ready(sf_reader *r, int64_t timeout_ms, sf_error *err);
SF_API sf_status sf_reader_ready_start(sf_call **out, sf_reader *r, int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err);
/* How far the last one is, in stored bytes. Any thread. */
SF_API void sf_reader_ready_bytes(const sf_reader *r, uint64_t *done, uint64_t *total);

typedef enum sf_health_status { SF_HEALTHY = 0, SF_DEGRADED = 1, SF_UNHEALTHY = 2 } sf_health_status;

/* What a threshold of staleness is compared with. */
typedef enum sf_staleness_of {
    SF_STALENESS_OF_READER = 0,   /* age_ms */
    SF_STALENESS_OF_SNAPSHOT = 1, /* snapshot_age_ms */
    SF_STALENESS_OF_REFRESH = 2   /* since_refresh_ms */
} sf_staleness_of;

typedef struct sf_reader_health {
    sf_health_status status;
    bool closed;
    bool fallback;            /* serving an older manifest than the pointer named */
    uint32_t num_dbs;
    int64_t age_ms;           /* since the reader began to open */
    int64_t since_refresh_ms; /* since the last refresh that ended well, or the opening */
    int64_t snapshot_age_ms;  /* since created_at */
    uint32_t borrowed;        /* leases and operations on any snapshot of this reader */
    char last_refresh_error[256]; /* empty: none since the last success */
    uint32_t refresh_failures;    /* since the last success; cancelled ones do not count */
} sf_reader_health;

/* What the cache in memory did that a reader uses: its own since it was opened, or the runtime's, for all who share that. */
typedef struct sf_cache_stats {
    uint64_t hits, misses, evictions; /* blocks */
    uint64_t bytes, max_bytes;        /* taken, with indexes and filters; and allowed */
} sf_cache_stats;
/* Never fails. Any thread. */
SF_API void sf_reader_cache_stats(const sf_reader *r, sf_cache_stats *out);

/* What the disk cache of a reader did, since that was opened; zeros without one. Readers of a runtime with the same folder and the same
 * disk_bytes have one cache, and one set of counters. */
typedef struct sf_disk_stats {
    uint64_t hits, misses;  /* blocks, and indexes with their filters, that were looked for there */
    uint64_t bytes_read, bytes_written;
    uint64_t dropped;       /* not written: the disk was full, or too slow */
} sf_disk_stats;
/* Never fails. Any thread. */
SF_API void sf_reader_disk_stats(const sf_reader *r, sf_disk_stats *out);

/* What became of late answers, with hedge_share: each is counted once, under what was decided of a second request. */
typedef struct sf_hedge_stats {
    uint64_t sent;
    uint64_t won;            /* of these: they were answered first */
    uint64_t refused_budget; /* the share was used up */
    uint64_t refused_sick;   /* of the last 64 requests one was refused or broke off, or far more than the share were late */
    uint64_t refused_room;   /* no memory, or as much under way as the runtime allows */
} sf_hedge_stats;
/* Since the reader was opened; zeros without hedge_share. Never fails. Any thread. */
SF_API void sf_reader_hedge_stats(const sf_reader *r, sf_hedge_stats *out);

/* No I/O, never fails. staleness_ms < 0: no threshold; older than it is SF_DEGRADED. `of` that is none is SF_STALENESS_OF_READER. */
SF_API void sf_reader_get_health(sf_reader *r, int64_t staleness_ms, sf_staleness_of of, sf_reader_health *out);

/* New operations fail with SF_STATE from now on; those in flight, and borrowed snapshots, finish. Idempotent. */
SF_API void sf_reader_close(sf_reader *r);
SF_API bool sf_reader_is_closed(sf_reader *r);
/* Closes and drops the caller's reference. Takes NULL. */
SF_API void sf_reader_free(sf_reader *r);

/* ------------------------------------------------------------------ snapshots ------------------------------------ */

/* The present snapshot, pinned: it stays readable across refresh and close until given back. NULL and `err` when the
 * reader is closed. */
SF_API sf_snapshot *sf_reader_borrow(sf_reader *r, sf_error *err);
SF_API sf_snapshot *sf_snapshot_acquire(sf_snapshot *s);
SF_API void sf_snapshot_give_back(sf_snapshot *s); /* takes NULL */

/* Texts are borrowed from the snapshot. */
typedef struct sf_snapshot_info {
    const char *run_id, *manifest_ref;
    const char *s3_prefix, *key_col, *db_path_template, *shard_prefix; /* as published */
    const char *sharding_json, *custom_json;
    int64_t created_at_us; /* microseconds since 1970, UTC */
    uint32_t num_dbs;
    uint32_t shard_count;  /* rows of the manifest */
    int32_t format_version;
    uint64_t row_count;
    sf_key_encoding key_encoding;
    sf_sharding_strategy strategy;
} sf_snapshot_info;

typedef struct sf_shard_info {
    uint32_t db_id;
    const char *db_url; /* as published; NULL: empty shard */
    uint32_t attempt;
    uint64_t row_count, db_bytes;
    const char *min_key_json, *max_key_json, *checkpoint_id; /* may be NULL */
    const char *writer_info_json; /* object: who wrote it; what our writers tell of it for its opening goes once it is open */
} sf_shard_info;

/* Never fails. *out borrows from the snapshot. */
SF_API void sf_snapshot_get_info(const sf_snapshot *s, sf_snapshot_info *out);
/* False when db_id is out of range. A shard without a manifest row is an empty one. */
SF_API bool sf_snapshot_get_shard(const sf_snapshot *s, uint32_t db_id, sf_shard_info *out);
/* SF_NO_ROUTE: the snapshot routes by values of its own, and this is none of them; look-ups of such a key find nothing. */
SF_API sf_status sf_snapshot_route(const sf_snapshot *s, const sf_key *key, uint32_t *db_id, sf_error *err);
/* The stored bytes of a key; `scratch` (8 bytes) holds them for integers, else *out lies in the key itself. */
SF_API sf_status sf_snapshot_encode_key(const sf_snapshot *s, const sf_key *key, uint8_t scratch[8], sf_bytes *out,
                                        sf_error *err);
/* The key that stored bytes stand for; it borrows them. Encoding it gives the same bytes again, so bytes of an SF_KEY_UTF8 snapshot
 * that are not UTF-8 come back as SF_KEY_BYTES. SF_INVALID_KEY: no key of this snapshot is stored so. Takes no time worth mentioning. */
SF_API sf_status sf_snapshot_decode_key(const sf_snapshot *s, sf_bytes stored, sf_key *out, sf_error *err);

/* As sf_reader_multi_get_start(), on this snapshot. */
SF_API sf_status sf_snapshot_multi_get_start(sf_call **out, sf_snapshot *s, const sf_key *keys, size_t count,
                                             int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err);

/* As sf_reader_try_get(), on this snapshot. */
SF_API sf_status sf_snapshot_try_get_key(sf_snapshot *s, const sf_key *key, sf_value *out, sf_error *err);

/* One shard, by stored key bytes: no routing, no encoding. */
SF_API sf_status sf_snapshot_try_get(sf_snapshot *s, uint32_t db_id, sf_bytes key, sf_value *out, sf_error *err);
SF_API sf_status sf_snapshot_get_start(sf_call **out, sf_snapshot *s, uint32_t db_id, const sf_bytes *keys,
                                       size_t count, int64_t timeout_ms, sf_call_done_fn done, void *ctx,
                                       sf_error *err);

/* What memory has, then the rest: asks for one key after the other. SF_OK: *out has the answer. SF_WOULD_BLOCK: the key was
 * added to *call, which is made for the first one (set it to NULL before) and keeps the snapshot; begun with sf_call_begin(),
 * it answers the keys that were added, in that order. Keys that cannot be encoded are added, too, and fail there, as keys of
 * a damaged shard do. Other errors, as of a key that cannot be routed, add nothing. One thread at a time. */
SF_API sf_status sf_snapshot_ask(sf_snapshot *s, const sf_key *key, int64_t timeout_ms, sf_value *out, sf_call **call,
                                 sf_error *err);
/* The same for several keys, whose waits for memory overlap: `values` and `statuses` (SF_OK or SF_WOULD_BLOCK) get one a key.
 * SF_OK: memory had all of them, and *call has no key; SF_WOULD_BLOCK: it has those that wait, and what it had before. After
 * other errors there are no values, and a *call that was there before may have got some of the keys: release it. */
SF_API sf_status sf_snapshot_ask_many(sf_snapshot *s, const sf_key *keys, size_t count, int64_t timeout_ms, sf_value *values,
                                      sf_status *statuses, sf_call **call, sf_error *err);
SF_API sf_status sf_snapshot_ask_shard(sf_snapshot *s, uint32_t db_id, sf_bytes key, int64_t timeout_ms, sf_value *out,
                                       sf_call **call, sf_error *err);

/* What the reader's sf_shard_opener has opened as this shard, valid while the snapshot is held. NULL: nothing yet (a lazy
 * shard), an empty shard, or one that the library reads. */
SF_API void *sf_snapshot_foreign_shard(const sf_snapshot *s, uint32_t db_id);

/* Whether the library reads an SQLite shard there, and *file, the copy on local disk that it is read from, valid while the snapshot is
 * held; NULL: it is read by ranges. False: another kind, an empty one, or one that is not open yet (a lazy shard). `file` may be NULL. */
SF_API bool sf_snapshot_shard_is_sqlite(const sf_snapshot *s, uint32_t db_id, const char **file);

/* One shard on its own, of either backend, as a snapshot of one shard (db_id 0) without manifest: only the functions above
 * that take a db_id, and scans, may be used. Of the options only those count that say how shards are read (`shard_s3`, or `s3`; sqlite_*);
 * NULL: the defaults. `checkpoint`: UUID text, NULL for the newest state. On success *out is given back by sf_snapshot_give_back(). */
SF_API sf_status sf_snapshot_open_shard(sf_snapshot **out, sf_runtime *rt, const char *url, const sf_reader_options *opts,
                               const char *checkpoint, int64_t timeout_ms, sf_error *err);
SF_API sf_status sf_snapshot_open_shard_start(sf_call **out, sf_runtime *rt, const char *url, const sf_reader_options *opts,
                                     const char *checkpoint, int64_t timeout_ms, sf_call_done_fn done, void *ctx,
                                     sf_error *err);

/* ------------------------------------------------------------------ scans ---------------------------------------- */

#define SF_ALL_SHARDS UINT32_MAX

typedef struct sf_scan_options {
    size_t size;
    uint32_t db_id;  /* one shard, or SF_ALL_SHARDS merged in key order */
    sf_bytes start;  /* stored bytes, included; copied */
    sf_bytes end;    /* excluded */
    bool has_end;    /* false: to the end */
    bool has_prefix; /* then start and end must be unset */
    sf_bytes prefix;
    bool reverse;    /* highest key first */
    uint64_t limit;  /* rows in all */
    uint64_t prefetch_bytes; /* so much of each shard, unpacked, is read ahead of the rows that were asked for, and held, at most:
                              * a scan begins with 64 KiB and doubles it as it goes on. All shards together have 48 MiB, or this
                              * if it is more. 0: one block at a time. Of local files it is 768 KiB
                              * at most, since more gains nothing. An SST or a sorted run of SlateDB's has 64 MiB at most, a
                              * shard of SQLite's 4 MiB. Rows that a step has given keep more: below. */
} sf_scan_options;
#define SF_SCAN_OPTIONS_INIT                                                                                            \
    {.size = sizeof(sf_scan_options), .db_id = SF_ALL_SHARDS, .limit = UINT64_MAX, .prefetch_bytes = UINT64_C(8) << 20}
SF_API void sf_scan_options_init(sf_scan_options *options, size_t size);

/* Pins the snapshot until sf_scan_close(). Does no I/O. One thread at a time. SF_INVALID: a shard that is not there, or a prefix and a range. */
SF_API sf_status sf_scan_open(sf_scan **out, sf_snapshot *s, const sf_scan_options *opts, sf_error *err);
/* Memory only, never waits: SF_OK with rows (none: the end; *end may tell so earlier), SF_WOULD_BLOCK when the next row must
 * be read first, which is under way then, or an error. Rows are valid until the next step that is not a call, or close. Their values
 * stay where they were read, and keep that in memory beside what is read ahead: the block, or, in SlateDB shards without compression, all
 * that came with it: of each SST or sorted run half of what the shard may have read ahead, 1 MiB at most, or one larger block. */
SF_API sf_status sf_scan_try_next(sf_scan *scan, size_t max_rows, const sf_row **rows, size_t *count, bool *end,
                                  sf_error *err);
/* Up to max_rows rows (at least one unless at the end). At most one step is in flight. */
SF_API sf_status sf_scan_next_start(sf_call **out, sf_scan *scan, size_t max_rows, int64_t timeout_ms,
                                    sf_call_done_fn done, void *ctx, sf_error *err);
/* Blocking form: tries, then waits. Rows are valid until the next step that is not a call, or close. *count 0 means the end. */
SF_API sf_status sf_scan_next(sf_scan *scan, size_t max_rows, int64_t timeout_ms, const sf_row **rows, size_t *count,
                              sf_error *err);
/* Rows as Arrow data, columns "key" and "value" without nulls: copies, which whoever takes them releases, on any thread and
 * whatever has become of the runtime. Keys are integers for SF_KEY_U64BE and SF_KEY_U32BE, text for SF_KEY_UTF8, and for
 * SF_KEY_RAW, of any snapshot, the stored bytes. SF_CORRUPT: a key is not of that encoding. SF_INVALID: more bytes than a
 * batch can have (2 GiB). */
SF_API sf_status sf_rows_export_arrow(struct ArrowArray *out, const sf_row *rows, size_t count, sf_key_encoding keys,
                                      sf_error *err);
SF_API sf_status sf_rows_arrow_schema(struct ArrowSchema *out, sf_key_encoding keys, sf_error *err);

/* Takes NULL. A step in flight goes on until it is done or cancelled, and keeps what it needs; its call then keeps its rows. */
SF_API void sf_scan_close(sf_scan *scan);

/* ------------------------------------------------------------------ explaining ----------------------------------- */

typedef enum sf_look_answer {
    SF_LOOK_UNKNOWN = 0,   /* its block is not in memory */
    SF_LOOK_FOUND = 1,     /* the key is there: nothing behind it is looked at */
    SF_LOOK_NOT_THERE = 2,
    SF_LOOK_RULED_OUT = 3  /* by the filter: no block is read */
} sf_look_answer;

/* One thing that a look-up considers. */
typedef struct sf_look {
    const char *object;      /* its URL; borrowed */
    bool has_filter;
    sf_look_answer answer;
    uint64_t offset, length; /* bytes of the block in it; length 0: none */
} sf_look;
typedef void (*sf_look_fn)(void *ctx, const sf_look *look);

/* Which objects of an open shard a look-up of these stored bytes considers, in its order, as far as memory tells: of SQLite the
 * page where its way ends. Reads nothing and never waits: after a look-up of the same key its blocks are in memory. Of shards that are
 * not open, or are a caller's, it tells nothing. */
SF_API void sf_snapshot_explain(const sf_snapshot *s, uint32_t db_id, sf_bytes key, sf_look_fn look, void *ctx);

/* ------------------------------------------------------------------ verifying ------------------------------------ */

#define SF_NO_OFFSET UINT64_MAX

/* Something that is stored and is not as it should be. */
typedef struct sf_damage {
    sf_error error;  /* db_id, object and what is wrong; SF_NOT_FOUND, SF_CORRUPT, ... */
    uint64_t offset; /* in the object, or SF_NO_OFFSET */
} sf_damage;

typedef struct sf_verify_options {
    size_t size;
    bool deep;          /* read every byte; else only what describes the rest */
    int64_t timeout_ms; /* of each request with its retries */
    /* Both run on the thread that verifies, and may be NULL. The damage is borrowed. */
    void (*found)(void *ctx, const sf_damage *damage);
    /* After some megabytes: what was read since it was called before. False ends the call with SF_CANCELLED. */
    bool (*progress)(void *ctx, uint64_t bytes, uint64_t rows);
    void *ctx;
} sf_verify_options;
#define SF_VERIFY_OPTIONS_INIT {.size = sizeof(sf_verify_options), .timeout_ms = 60000}
SF_API void sf_verify_options_init(sf_verify_options *options, size_t size);

typedef struct sf_verify_result {
    uint64_t objects, bytes; /* looked at, as they are stored */
    uint64_t rows;           /* deep: that show */
    bool hashed;             /* deep: they have the content hash that the snapshot's manifest tells */
    uint64_t damages;
} sf_verify_result;

/* Looks for damage in one shard. It blocks; for several shards at a time take as many threads. It reads objects past every cache, but for
 * what is kept of a shard that is open.
 *
 * Not deep: the shard opens, and of its objects there are those parts that describe the rest: of SlateDB filters, indexes, statistics and
 * footers, which agree with its manifest; of SQLite the size and the sidecar. Deep: every checksum; of SQLite its own check of the
 * database; keys ascend, lie where indexes say, and are in the filters; of a snapshot they belong to this shard, and there are as
 * many as its manifest says: no more, and no fewer where it tells a content hash as well, which is compared; the lowest and the highest
 * key are those that it tells. (The existing package counts rows that were overwritten.)
 *
 * SF_OK: it was looked at, and result->damages says whether there was any. Else it could not be: a store's error, SF_CANCELLED,
 * SF_NOMEM, SF_INVALID (no such shard); what was found before has been told. `opts` may be NULL; *result is filled in any case. */
SF_API sf_status sf_snapshot_verify_shard(sf_snapshot *s, uint32_t db_id, const sf_verify_options *opts, sf_verify_result *result,
                                          sf_error *err);

/* What one shard came to. */
typedef struct sf_shard_verdict {
    uint32_t db_id;
    sf_verify_result result;
    uint64_t manifest_rows; /* deep, and good: what the manifest says when that is more; else 0 */
    const sf_damage *first; /* that was found, or why it could not be looked at; NULL: it is good */
} sf_shard_verdict;

typedef struct sf_verify_progress {
    uint32_t shards_done, shards_total;
    uint64_t bytes, rows; /* so far */
} sf_verify_progress;

typedef struct sf_verification_options {
    size_t size;
    bool deep;          /* as in sf_verify_options */
    int64_t timeout_ms; /* of each request with its retries */
    uint32_t threads;   /* each has a shard at a time; 0: one per processor */
    /* On the thread that called, once an interval and at the end. False ends the call with SF_CANCELLED. May be NULL. */
    bool (*progress)(void *ctx, const sf_verify_progress *progress);
    void *ctx;
    int64_t progress_interval_ms;
} sf_verification_options;
#define SF_VERIFICATION_OPTIONS_INIT                                                                         \
    {.size = sizeof(sf_verification_options), .timeout_ms = 60000, .progress_interval_ms = 100}
SF_API void sf_verification_options_init(sf_verification_options *options, size_t size);

typedef struct sf_verification sf_verification;

/* Looks for damage in all shards of a snapshot, as sf_snapshot_verify_shard() does in one. It blocks. SF_OK: every shard has its
 * verdict, and *out is released with sf_verification_free(); one that could not be looked at has the failure as its damage. Else
 * SF_CANCELLED or SF_NOMEM, and *out is untouched. `opts` may be NULL. */
SF_API sf_status sf_snapshot_verify(sf_verification **out, sf_snapshot *s, const sf_verification_options *opts, sf_error *err);
SF_API const sf_shard_verdict *sf_verification_verdicts(const sf_verification *v, size_t *count); /* by db_id */
SF_API void sf_verification_free(sf_verification *v); /* takes NULL */

/* ------------------------------------------------------------------ comparing ------------------------------------ */

typedef enum sf_fact_kind {
    SF_FACT_NONE = 0, /* there is none */
    SF_FACT_TEXT = 1,
    SF_FACT_JSON = 2, /* a text */
    SF_FACT_UINT = 3,
    SF_FACT_TIME = 4  /* microseconds since 1970, UTC */
} sf_fact_kind;

typedef struct sf_fact {
    sf_fact_kind kind;
    SF_ANONYMOUS union {
        const char *text;
        uint64_t number;
        int64_t time_us;
    };
} sf_fact;

/* One thing that the manifests of two snapshots tell differently. */
typedef struct sf_difference {
    const char *name; /* as in the manifest: "num_dbs", "shards[3].row_count" */
    sf_fact from, to;
} sf_difference;
/* False ends the telling. Everything is borrowed. */
typedef bool (*sf_difference_fn)(void *ctx, const sf_difference *difference);

/* Shards of the same rows are not told. Reads nothing, and waits for nothing. */
SF_API sf_status sf_snapshot_compare(const sf_snapshot *from, const sf_snapshot *to, sf_difference_fn tell, void *ctx,
                                     sf_error *err);

typedef enum sf_change { SF_ROW_ADDED = 0, SF_ROW_REMOVED = 1, SF_ROW_CHANGED = 2 } sf_change;

typedef struct sf_row_change {
    sf_change change;
    sf_bytes key;      /* as it is stored */
    sf_bytes from, to; /* values; empty of the side that has no such row */
} sf_row_change;

typedef struct sf_row_diff_progress {
    uint32_t shards_done, shards_total; /* those that were skipped among them; 0 of 1 where all are compared in one order */
    uint32_t shards_skipped; /* of the same rows: not read */
    uint64_t rows;           /* looked at, of both sides */
} sf_row_diff_progress;

/* The rows in which two snapshots differ, in memory that does not grow with their number. One thread at a time. */
typedef struct sf_row_diff sf_row_diff;

/* Where both put a key into the same shard they are compared shard by shard, else all rows in the order of their keys. A key
 * that several shards have (CEL by more than the key) is then as many rows. Pins both snapshots until sf_row_diff_close(). SF_INVALID: their keys
 * are stored in different ways. */
SF_API sf_status sf_row_diff_open(sf_row_diff **out, sf_snapshot *from, sf_snapshot *to, sf_error *err);
/* The next changes, at most max_changes; perhaps none, when many rows in a row are the same: *end says when there are no more. Blocks.
 * timeout_ms: of each step of reading. What it gives is valid until the next call. */
SF_API sf_status sf_row_diff_next(sf_row_diff *d, size_t max_changes, int64_t timeout_ms, const sf_row_change **changes,
                                  size_t *count, bool *end, sf_error *err);
SF_API void sf_row_diff_get_progress(const sf_row_diff *d, sf_row_diff_progress *out);
SF_API void sf_row_diff_close(sf_row_diff *d); /* takes NULL */

#ifdef __cplusplus
}
#endif
#endif
