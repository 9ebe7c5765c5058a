/* Publishing snapshots, and looking after published ones.
 *
 * A writer takes rows in any order, sorts them in bounded memory (spilling to local disk), builds one finished database
 * a shard, uploads them, and at last moves the pointer. Until that last step readers see the snapshot before; after it
 * the new one; whatever happens in between leaves nothing but objects that no reader looks at and sf_cleanup() removes.
 *
 *     sf_writer_open --> sf_writer_add ... add --> sf_writer_finish --> sf_writer_free
 *
 * Everything here blocks. One thread at a time may use a writer, which must not be the runtime's loop thread; only
 * sf_writer_cancel() and sf_writer_get_progress() may be called from any thread at any time. */
#ifndef SHARDYFUSION_WRITER_H
#define SHARDYFUSION_WRITER_H

#include "shardyfusion/arrow.h"
#include "shardyfusion/reader.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ options -------------------------------------- */

typedef enum sf_backend { SF_BACKEND_SLATEDB = 0, SF_BACKEND_SQLITE = 1 } sf_backend;

typedef enum sf_compression {
    SF_COMPRESSION_NONE = 0,
    SF_COMPRESSION_SNAPPY = 1,
    SF_COMPRESSION_ZLIB = 2,
    SF_COMPRESSION_LZ4 = 3,
    SF_COMPRESSION_ZSTD = 4
} sf_compression;

typedef struct sf_slatedb_options {
    size_t size;              /* filled by the initialiser; fields are only ever appended */
    sf_compression compression;
    uint32_t block_bytes;     /* when a data block is full, before compression */
    uint32_t bits_per_key;    /* of the filter */
    uint32_t min_filter_keys; /* a table with fewer rows gets no filter */
    uint64_t sst_bytes;       /* when a table is full */
} sf_slatedb_options;
#define SF_SLATEDB_OPTIONS_INIT                                                                              \
    {                                                                                                        \
        .size = sizeof(sf_slatedb_options), .block_bytes = 4096, .bits_per_key = 10, .min_filter_keys = 1,   \
        .sst_bytes = UINT64_C(64) << 20                                                                      \
    }
SF_API void sf_slatedb_options_init(sf_slatedb_options *options, size_t size);

typedef struct sf_sqlite_options {
    size_t size;
    uint32_t page_bytes; /* 4096 to 65536; 0: chosen from the sizes of the values */
    bool sidecar;        /* also write shard.sidecar */
} sf_sqlite_options;
#define SF_SQLITE_OPTIONS_INIT {.size = sizeof(sf_sqlite_options), .page_bytes = 4096, .sidecar = true}
SF_API void sf_sqlite_options_init(sf_sqlite_options *options, size_t size);

/* What the result of a CEL expression says of a row's shard. */
typedef enum sf_routing_mode {
    SF_ROUTING_DIRECT = 0,      /* its number. SF_NO_ROUTE from sf_writer_build() unless every number from 0 on occurs */
    SF_ROUTING_CATEGORICAL = 1, /* its place among the values that are given here; SF_NO_ROUTE for any other */
    SF_ROUTING_INFERRED = 2     /* every result is a shard of its own: integers by size, texts by code point. All of one type */
} sf_routing_mode;

/* Sharding by a CEL expression (docs/cel.md) instead of the key's hash. What it is evaluated for is a row's sf_key.context; of
 * a row without one, the key, as column `key`. */
typedef struct sf_cel_sharding {
    size_t size;
    const char *expr;
    const sf_routing_column *columns;
    size_t column_count;
    sf_routing_mode mode;
    const sf_routing_value *values; /* CATEGORICAL: INT, UINT or STR, all integers or all texts, each once */
    size_t value_count;
} sf_cel_sharding;
#define SF_CEL_SHARDING_INIT {.size = sizeof(sf_cel_sharding)}
SF_API void sf_cel_sharding_init(sf_cel_sharding *options, size_t size);

typedef enum sf_duplicates {
    SF_DUPLICATES_LAST = 0, /* of rows with one key the one added last counts; the others are counted */
    SF_DUPLICATES_ERROR = 1 /* SF_BAD_ROW */
} sf_duplicates;

/* What the pointer must name for the new snapshot to take its place; SF_CONFLICT otherwise. */
typedef enum sf_expected_current {
    SF_EXPECT_ANY = 0,    /* whatever it is: the last writer wins */
    SF_EXPECT_ABSENT = 1, /* there is none yet */
    SF_EXPECT_REF = 2     /* it names `expected_ref` */
} sf_expected_current;

typedef enum sf_write_phase {
    SF_PHASE_ADDING = 0,
    SF_PHASE_BUILDING = 1,
    SF_PHASE_CHECKING = 2,
    SF_PHASE_PUBLISHING = 3,
    SF_PHASE_CLEANING = 4, /* the new snapshot is visible; what lost is being deleted */
    SF_PHASE_DONE = 5
} sf_write_phase;

typedef struct sf_write_progress {
    sf_write_phase phase;
    uint64_t rows_added, bytes_added; /* keys and values */
    uint64_t rows_built;              /* in shards, attempts that failed included */
    uint64_t bytes_stored;            /* by shards that are done */
    uint32_t shards_done, shards_total; /* of those with rows; total is 0 while adding */
    int64_t elapsed_ms;
} sf_write_progress;

/* On the thread that uses the writer, inside sf_writer_add*() and sf_writer_finish(), at most once an interval and at
 * every change of phase. False cancels. May call sf_writer_get_progress(), and nothing else of this writer. */
typedef bool (*sf_progress_fn)(void *ctx, const sf_write_progress *progress);

typedef struct sf_write_report sf_write_report;

/* The user's own check, on the thread that uses the writer, before anything becomes visible. Anything but SF_OK
 * refuses: the call ends with SF_REFUSED and the text that was left in `err`. */
typedef sf_status (*sf_check_fn)(void *ctx, const sf_write_report *report, sf_error *err);

/* A row that cannot be stored, on the thread that adds it: its number from 1, among all rows that were given, and why. `key` is NULL
 * where there is none to tell, and so is `value.p` (not of a value without bytes); all of it is borrowed. True leaves the row out and counts it (`bad_rows` of the report); with false the
 * call fails with `why`. May call nothing of this writer. */
typedef bool (*sf_bad_row_fn)(void *ctx, uint64_t number, const sf_key *key, sf_bytes value, const sf_error *why);

typedef struct sf_writer_options {
    size_t size;                   /* filled by the initialiser; fields are only ever appended */
    const sf_s3_options *s3;       /* pointer, manifest, run record; NULL: environment */
    const sf_s3_options *shard_s3; /* shards; NULL: as `s3` */
    const char *current_name;      /* object name of the pointer; NULL: "_CURRENT" */

    /* what the snapshot is */
    const char *run_id;            /* NULL: random. One path segment without control characters. One that was used before
                                    * goes on: attempts are numbered after those that are there */
    uint32_t num_dbs;              /* required, but for CEL: 0 is what the values or the rows make it; else direct mode has so many,
                                    * and some may stay empty */
    sf_key_encoding key_encoding;
    const char *key_col;           /* informative */
    const char *custom_json;       /* an object for the manifest; NULL: {}. Members that the writer sets are its own */
    const char *db_path_template;
    const char *shard_prefix;
    uint32_t attempt;              /* number of the first attempt at each shard, unless there are some already */
    bool has_stage_id, has_task_attempt_id; /* of the job that writes, for writer_info */
    int64_t stage_id, task_attempt_id;

    /* how shards are built */
    sf_backend backend;
    const sf_slatedb_options *slatedb; /* NULL: defaults */
    const sf_sqlite_options *sqlite;   /* NULL: defaults */
    sf_duplicates on_duplicate;
    uint64_t memory_bytes;         /* rows in memory before they spill */
    const char *spill_folder;      /* NULL: $TMPDIR, else /tmp */
    uint32_t threads;              /* that build shards, beside the caller's; 0: one per processor */
    uint32_t max_retries;          /* of a shard whose writing failed with a retryable error */
    int64_t retry_base_ms;         /* before the first retry; then `retry_multiplier` times as long, each time */

    /* run record */
    const char *run_registry_prefix; /* NULL: no record */
    const char *writer_type;
    int64_t lease_ms, heartbeat_ms;

    /* publishing */
    sf_expected_current expected_current;
    const char *expected_ref;
    bool keep_losers;              /* do not delete attempts that lost */
    int64_t request_timeout_ms;    /* of each store request with its retries */

    /* the gate: checked when all shards are stored, before the manifest is. A failure is SF_REFUSED */
    double min_rows_share, max_rows_share; /* of the rows of the snapshot that the pointer names; 0: no check */
    uint32_t max_empty_shards;     /* UINT32_MAX: no check */
    uint32_t sample_keys;          /* so many keys must read back as they were added */
    sf_check_fn check;
    void *check_ctx;

    sf_progress_fn progress;
    void *progress_ctx;
    int64_t progress_interval_ms;

    double retry_multiplier;       /* of the wait before a retry of a shard; at most an hour is waited */
    bool new_run_id; /* nobody used run_id before: what other writers did under it is not looked for */
    bool int64_keys; /* integer keys from 2^63 on are SF_BAD_ROW: the Python package cannot look them up */
    const sf_cel_sharding *cel; /* copied; NULL: by the hash of the key */
    bool one_key_type; /* a shard whose keys are texts and bytes is SF_BAD_ROW: in Python they do not compare */
    sf_bad_row_fn on_bad_row; /* asked about each row that is SF_BAD_ROW or SF_NO_ROUTE when it is added; NULL: the call fails. Not
                               * about duplicates, which are found when all rows are there */
    void *on_bad_row_ctx;
    bool resume;       /* with a run_id: shards that earlier tries of the run finished, with this option, are kept where their rows are
                        * the same; and what this one finishes stays when it fails, for the next */
    bool reuse_unchanged; /* a shard whose rows are those of the snapshot that the pointer names is not built again: the new
                           * manifest names the one that is there. The pointer must then still name that snapshot when
                           * ours is announced, whatever expected_current says: else SF_CONFLICT */
    const struct sf_manifest_store *manifests; /* shardyfusion/manifest_store.h: where manifest and pointer go, instead of below the
                           * prefix; copied. NULL: the prefix's */
} sf_writer_options;
#define SF_WRITER_OPTIONS_INIT                                                                               \
    {                                                                                                        \
        .size = sizeof(sf_writer_options), .current_name = "_CURRENT", .key_encoding = SF_KEY_U64BE,         \
        .key_col = "_key", .db_path_template = "db={db_id:05d}", .shard_prefix = "shards",                   \
        .memory_bytes = UINT64_C(128) << 20, .max_retries = 2, .retry_base_ms = 1000,                        \
        .run_registry_prefix = "runs", .writer_type = "c", .lease_ms = 600000, .heartbeat_ms = 60000,        \
        .request_timeout_ms = 120000, .max_empty_shards = UINT32_MAX, .progress_interval_ms = 1000,          \
        .retry_multiplier = 2                                                                                \
    }
SF_API void sf_writer_options_init(sf_writer_options *options, size_t size);

/* ------------------------------------------------------------------ results -------------------------------------- */

/* One shard as one attempt left it. Texts are borrowed. */
typedef struct sf_attempt {
    int64_t db_id;
    uint32_t attempt;
    bool has_stage_id, has_task_attempt_id;
    int64_t stage_id, task_attempt_id;
    const char *db_url; /* NULL: no rows, nothing stored */
    uint64_t row_count; /* stored: of rows with one key one */
    uint64_t db_bytes;
    const char *min_key_json, *max_key_json; /* NULL when a key has no JSON form */
    const char *checkpoint_id; /* 32 hex digits */
    const char *content_hash;  /* 32 hex digits, of the rows: the same whatever the options; NULL: not known */
    int64_t duration_ms;
    uint64_t duplicates; /* rows that were added and are not stored, since a later one had their key */
    uint32_t retries; /* attempts of the same writer that failed before */
    bool bytes_keys; /* the first key that was added was given as bytes */
    bool reused;     /* it was stored before, and is never this writer's to delete */
    const char *taken_from; /* then: the manifest of the snapshot that has it; NULL: an earlier try of the run finished it */
} sf_attempt;

/* Bucket 0 counts size 0, bucket i sizes of i bits: [2^(i-1), 2^i). */
#define SF_HISTOGRAM_BUCKETS 33

struct sf_write_report {
    const char *run_id;
    const char *manifest_ref;   /* NULL until the manifest is stored */
    const char *run_record_ref; /* NULL: none */
    uint32_t num_dbs;
    const sf_attempt *attempts; /* all that were built or handed in */
    size_t attempt_count;
    const sf_attempt *winners;  /* by ascending db_id; shards without rows are not among them */
    size_t winner_count;
    uint64_t rows, key_bytes, value_bytes; /* added to this writer */
    uint64_t duplicates;        /* of them overwritten */
    uint64_t spilled_bytes;
    uint64_t published_rows, published_bytes; /* of the winners: stored, without duplicates */
    uint64_t key_sizes[SF_HISTOGRAM_BUCKETS], value_sizes[SF_HISTOGRAM_BUCKETS];
    double largest_over_mean;   /* rows of the fullest shard, over rows / num_dbs; 0 without rows */
    uint32_t suggested_num_dbs; /* for shards of some 256 MiB */
    const char *warning;        /* NULL, or what is odd about this snapshot */
    bool published;             /* the pointer names it */
    const char *found_ref;      /* after SF_CONFLICT: what the pointer names instead; NULL: nothing, or unreadable */
    bool has_previous;          /* the gate compared with a snapshot before, of `previous_rows` */
    uint64_t previous_rows;
    uint32_t losers_deleted;
    int64_t adding_ms, building_ms, publishing_ms, total_ms;
    uint64_t published_duplicates; /* of the winners, whichever writer dropped them */
    const char *sharding_json; /* as the manifest has it; NULL while it still depends on rows to come */
    uint64_t bad_rows; /* left out, as `on_bad_row` wanted; not among `rows` */
    uint32_t reused_shards;    /* by this writer */
};

/* ------------------------------------------------------------------ writers -------------------------------------- */

typedef struct sf_writer sf_writer;

/* `prefix`: as for sf_reader_open(). Checks the options and stores the run record, or without one asks for the pointer: a
 * bucket that is not there, credentials that are refused, another region show before the first row (a failure that may
 * pass is logged, not returned). SF_CONFLICT: another writer's lease on this run id lasts; the message says how long (not so
 * when that was a process of this machine that has ended). On success *out must be released with sf_writer_free(); on
 * failure *out is untouched. SF_INVALID names the option. */
SF_API sf_status sf_writer_open(sf_writer **out, sf_runtime *rt, const char *prefix, const sf_writer_options *opts,
                                sf_error *err);

/* Copies the row. SF_BAD_ROW names the row by its number from 1, in the order of adding, and says what is wrong: key of
 * the wrong type or out of range, empty, or too long; value too long; duplicate (found when rows are sorted, so perhaps
 * by sf_writer_finish()). With CEL: SF_NO_ROUTE, which names the row, too, when the expression fails or gives what is no shard's;
 * SF_INVALID when it gives what never is one. After any failure only abort and free are left. */
SF_API sf_status sf_writer_add(sf_writer *w, const sf_key *key, sf_bytes value, sf_error *err);
SF_API sf_status sf_writer_add_many(sf_writer *w, const sf_key *keys, const sf_bytes *values, size_t count,
                                    sf_error *err);

/* All rows of a stream of record batches (a struct of columns), by column name; NULL: the first and the second column.
 * Keys: int8 to int64, uint8 to uint64, decimals without places behind the point, utf8, binary, with their large_, _view
 * and fixed_size_ forms. Values: binary and utf8 in all their forms. With CEL the columns of the expression are those of their
 * names: bool, float, double, and what keys may be; one that the stream does not have is missing, but for `key`, which is the
 * key then. All may be dictionary- or run-end-encoded. A null key or value is SF_BAD_ROW; a type that is none of these, and two columns of the name, are SF_INVALID; columns of nulls
 * or floating-point numbers are taken when there are no rows, as empty data frames have them. Releases the stream,
 * however it ends. */
SF_API sf_status sf_writer_add_arrow(sf_writer *w, struct ArrowArrayStream *stream, const char *key_column,
                                     const char *value_column, sf_error *err);

/* As sf_writer_add_arrow(), but the value is a JSON object of `column_count` columns (`columns` NULL: of all), named in any order: in ASCII,
 * without blanks, members by their names, floating-point numbers in the shortest form that reads back the same, NaN and Infinity
 * as these words. A column that the stream does not have is null, as a null is. Columns are of bools, int8 to int64, uint8 to uint64, float, double,
 * utf8 with its large_ and _view forms, and nulls; any may be dictionary- or run-end-encoded; another type is SF_INVALID, a text that is no
 * UTF-8 SF_BAD_ROW. What the Python package's ValueSpec.json_cols stores is the same, byte for byte. */
SF_API sf_status sf_writer_add_arrow_json(sf_writer *w, struct ArrowArrayStream *stream, const char *key_column,
                                          const char *const *columns, size_t column_count, sf_error *err);

/* Builds and uploads all shards, then publishes. On success the pointer names the new snapshot. On failure the snapshot
 * before is still there, the run record says what failed, and shards that were stored are deleted as far as that works (not with `resume`);
 * but when the manifest has been stored (sf_write_report.manifest_ref) everything stays: the pointer may have moved, or
 * may still be moved by sf_rollback().
 *   SF_BAD_ROW: duplicate key · SF_NO_ROUTE: shards without a row in direct mode · SF_REFUSED: the gate · SF_CONFLICT: another snapshot was published meanwhile
 *   · SF_CANCELLED · SF_INVALID, SF_IO (the spill folder), SF_NOMEM, or a store's error. */
SF_API sf_status sf_writer_finish(sf_writer *w, sf_error *err);

/* The two halves of sf_writer_finish(), for jobs that build shards in one process and publish in another. A writer that
 * only builds hands out its attempts in the report; one that only publishes takes them. Of several attempts at a shard
 * the lowest (attempt, task_attempt_id or none, db_url) wins. SF_INVALID: a db_id outside of the snapshot. */
SF_API sf_status sf_writer_build(sf_writer *w, sf_error *err);
SF_API sf_status sf_writer_add_attempt(sf_writer *w, const sf_attempt *attempt, sf_error *err); /* copied */
/* What readers are told of a shard so that it opens with fewer requests: of an attempt or a winner of the report, a line of text,
 * or NULL; the writer's. It travels with the attempt; without it (NULL) the shard opens the longer way. SF_INVALID: another text. */
SF_API const char *sf_writer_attempt_opening(const sf_writer *w, const sf_attempt *attempt);
SF_API sf_status sf_writer_add_attempt_with(sf_writer *w, const sf_attempt *attempt, const char *opening, sf_error *err);
SF_API sf_status sf_writer_publish(sf_writer *w, sf_error *err);

/* Gives up: the run record says `failed` with the two texts (either may be NULL); shards that were stored and not
 * published are deleted as far as that works. Nothing else may follow but free. Inside a callback of
 * the runtime it leaves all that to free. */
SF_API void sf_writer_abort(sf_writer *w, const char *error_type, const char *error_message);

/* Never fails; the report and its texts are the writer's. Complete after finish or publish, right so far before. */
SF_API const sf_write_report *sf_writer_report(sf_writer *w);

/* Any thread: what is under way ends as SF_CANCELLED. Once the pointer is being moved it is too late: the call then
 * succeeds. */
SF_API void sf_writer_cancel(sf_writer *w);
SF_API void sf_writer_get_progress(const sf_writer *w, sf_write_progress *out);

/* Aborts what is neither finished nor built nor aborted. Attempts that were built and not published stay. Takes NULL. Inside a
 * callback of the runtime it returns at once, and a thread of the runtime does the work. */
SF_API void sf_writer_free(sf_writer *w);

/* ------------------------------------------------------------------ one shard by itself -------------------------- */

/* One finished shard at a URL of the caller's choice, for programs that publish in their own way: rows in any order, of
 * rows with one key the last counts. Blocks; one thread at a time, as for sf_writer; only cancel may come from others.
 *
 *     open --> add ... add --> finish --> free        free without a successful finish takes back what was stored, but for
 *                                                     an object whose answer was lost: it may be another writer's */
typedef struct sf_shard_builder sf_shard_builder;

typedef struct sf_shard_builder_options {
    size_t size;
    const sf_s3_options *s3;           /* NULL: environment */
    sf_backend backend;
    const sf_slatedb_options *slatedb; /* NULL: defaults */
    const sf_sqlite_options *sqlite;   /* NULL: defaults */
    uint64_t memory_bytes;             /* rows in memory before they spill */
    const char *spill_folder;          /* NULL: $TMPDIR, else /tmp */
    int64_t request_timeout_ms;        /* of each store request with its retries */
} sf_shard_builder_options;
#define SF_SHARD_BUILDER_OPTIONS_INIT                                                                        \
    {.size = sizeof(sf_shard_builder_options), .memory_bytes = UINT64_C(64) << 20, .request_timeout_ms = 120000}
SF_API void sf_shard_builder_options_init(sf_shard_builder_options *options, size_t size);

typedef struct sf_shard_summary {
    uint64_t rows_added, rows; /* the second without those that were overwritten */
    uint64_t stored_bytes;     /* of all objects */
    uint64_t db_bytes;         /* what a snapshot's manifest should say */
    char checkpoint_id[33], content_hash[33]; /* 32 hex digits, as in sf_attempt */
} sf_shard_summary;

/* Nothing may lie below `url` yet: SF_CONFLICT from finish otherwise. Does no I/O. `opts` may be NULL. On success *out goes with
 * sf_shard_builder_free(). */
SF_API sf_status sf_shard_builder_open(sf_shard_builder **out, sf_runtime *rt, const char *url,
                                       const sf_shard_builder_options *opts, sf_error *err);
/* Stored bytes. Copies the row. SF_BAD_ROW: key empty or too long, value too long. */
SF_API sf_status sf_shard_builder_add(sf_shard_builder *b, sf_bytes key, sf_bytes value, sf_error *err);
SF_API sf_status sf_shard_builder_finish(sf_shard_builder *b, sf_shard_summary *out, sf_error *err);
SF_API void sf_shard_builder_cancel(sf_shard_builder *b); /* what is under way ends as SF_CANCELLED */
SF_API void sf_shard_builder_free(sf_shard_builder *b);   /* takes NULL */

/* ------------------------------------------------------------------ published snapshots -------------------------- */

typedef struct sf_history sf_history;

typedef struct sf_history_entry {
    const char *ref;
    const char *run_id;
    int64_t published_at_us;
    bool is_current; /* the pointer names it */
} sf_history_entry;

/* Options of the functions below. The structs below contain it, so no field can be appended to it: a new one goes to the end of
 * those. */
typedef struct sf_site_options {
    size_t size;
    const sf_s3_options *s3;
    const sf_s3_options *shard_s3; /* NULL: as `s3` */
    const char *current_name;      /* object name of the pointer; NULL: "_CURRENT" */
    int64_t request_timeout_ms;
} sf_site_options;
#define SF_SITE_OPTIONS_INIT                                                                                 \
    {.size = sizeof(sf_site_options), .current_name = "_CURRENT", .request_timeout_ms = 120000}
SF_API void sf_site_options_init(sf_site_options *options, size_t size);

/* The newest `limit` manifests, newest first. `opts` may be NULL. *out is released with sf_history_free(). */
SF_API sf_status sf_history_list(sf_history **out, sf_runtime *rt, const char *prefix, const sf_site_options *opts,
                                 size_t limit, sf_error *err);
SF_API const sf_history_entry *sf_history_entries(const sf_history *h, size_t *count);
SF_API void sf_history_free(sf_history *h); /* takes NULL */

typedef struct sf_rollback_options {
    size_t size;
    sf_site_options site;
    bool force; /* without looking whether the manifest and the shards are there */
    sf_expected_current expected_current;
    const char *expected_ref;
} sf_rollback_options;
#define SF_ROLLBACK_OPTIONS_INIT {.size = sizeof(sf_rollback_options), .site = SF_SITE_OPTIONS_INIT}
SF_API void sf_rollback_options_init(sf_rollback_options *options, size_t size);

/* Makes the pointer name `ref`, an older manifest or a newer one. Unless forced: SF_NOT_FOUND when the manifest or a
 * shard of it is gone, SF_BAD_MANIFEST when it is malformed; and SF_CONFLICT when the pointer moves meanwhile. */
SF_API sf_status sf_rollback(sf_runtime *rt, const char *prefix, const char *ref, const sf_rollback_options *opts,
                             sf_error *err);

typedef enum sf_leftover_kind {
    SF_LEFTOVER_ATTEMPT = 0,   /* an attempt at a shard that the snapshot of its run does not use */
    SF_LEFTOVER_MANIFEST = 1,  /* of a snapshot that is given up */
    SF_LEFTOVER_RUN = 2,       /* shards of a run that no manifest which stays names */
    SF_LEFTOVER_RUN_RECORD = 3, /* of such a run */
    SF_LEFTOVER_UPLOAD = 4     /* parts of objects of such an attempt or run, which a writer never completed */
} sf_leftover_kind;

typedef struct sf_leftover {
    sf_leftover_kind kind;
    const char *run_id;
    const char *url;
    uint64_t objects; /* or uploads */
    bool deleted; /* false in a dry run; and of uploads that the store keeps, see sf_cleanup_warning() */
} sf_leftover;

/* On the thread that cleans up: of each leftover before it is deleted, with as many objects as there are, and again when it
 * is, with those that are gone. In a dry run once. */
typedef void (*sf_cleanup_progress_fn)(void *ctx, const sf_leftover *leftover);

typedef struct sf_cleanup_options {
    size_t size;
    sf_site_options site;
    const char *shard_prefix, *run_registry_prefix;
    bool stale_attempts;     /* of the runs that stay */
    bool old_runs;           /* runs without a manifest, and manifests that `keep_last` and `older_than_ms` give up */
    uint32_t keep_last;      /* so many newest manifests stay, whatever their age; 0: not a criterion */
    int64_t older_than_ms;   /* younger ones stay, whatever their number; < 0: not a criterion. Neither: all stay */
    int64_t min_age_ms;      /* runs whose last sign of life is younger are left alone */
    bool ignore_leases;      /* delete what a living writer works on */
    bool unrecorded_runs;    /* also runs without a readable run record, whose age nobody knows */
    bool dry_run;
    sf_cleanup_progress_fn progress; /* may be NULL */
    void *progress_ctx;
    const struct sf_manifest_store *manifests; /* as of sf_writer_options: where the manifests of this prefix are, all of them. What
                              * it names stays; runs whose record names a manifest below the prefix are left alone. SF_INVALID, and
                              * nothing is deleted, when its pointer names a snapshot of another prefix, or nothing at all although
                              * records tell of snapshots */
} sf_cleanup_options;
#define SF_CLEANUP_OPTIONS_INIT                                                                              \
    {                                                                                                        \
        .size = sizeof(sf_cleanup_options), .site = SF_SITE_OPTIONS_INIT, .shard_prefix = "shards",          \
        .run_registry_prefix = "runs", .stale_attempts = true, .older_than_ms = -1,                          \
        .min_age_ms = INT64_C(3600000)                                                                       \
    }
SF_API void sf_cleanup_options_init(sf_cleanup_options *options, size_t size);

typedef struct sf_cleanup_report sf_cleanup_report;

/* Removes what writers left behind. Never what the pointer names, nor a folder that a kept manifest names, nor (unless
 * told) a run whose lease is alive; manifests before their data, data before the run record, so that it can be cut short
 * anywhere and run again. SF_CONFLICT when the pointer moves meanwhile. On failure, too, *out says what was deleted when
 * it is not NULL; it is released with sf_cleanup_report_free(). `opts` may be NULL. */
SF_API sf_status sf_cleanup(sf_cleanup_report **out, sf_runtime *rt, const char *prefix, const sf_cleanup_options *opts,
                            sf_error *err);
SF_API const sf_leftover *sf_cleanup_leftovers(const sf_cleanup_report *report, size_t *count);
/* NULL, or what may be left although the clean-up succeeded: unfinished uploads that the store does not list or abort, or
 * not with these credentials (s3:ListBucketMultipartUploads, s3:AbortMultipartUpload). The report's. */
SF_API const char *sf_cleanup_warning(const sf_cleanup_report *report);
SF_API void sf_cleanup_report_free(sf_cleanup_report *report); /* takes NULL */

#ifdef __cplusplus
}
#endif
#endif
