/* Shared vocabulary of every public header: symbol visibility, byte spans, status codes, errors, memory, log, keys, values.
 * Everything here is plain data; any thread may use it. */
#ifndef SHARDYFUSION_BASE_H
#define SHARDYFUSION_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SF_API __attribute__((visibility("default")))
#define SF_MUST_USE __attribute__((warn_unused_result))
#define SF_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define SF_API
#define SF_MUST_USE
#define SF_PRINTF(fmt, args)
#endif

/* Borrowed bytes. `p` may be NULL when `n` is 0. */
typedef struct sf_bytes {
    const uint8_t *p;
    size_t n;
} sf_bytes;

/* name, may a retry help, text */
#define SF_STATUS_LIST(X)                                                                                    \
    X(OK, 0, "success")                                                                                      \
    X(WOULD_BLOCK, 0, "the answer is not in memory: I/O is needed")                                          \
    X(INVALID, 0, "invalid argument or configuration")                                                       \
    X(INVALID_KEY, 0, "the key cannot be looked up in this snapshot")                                        \
    X(STATE, 0, "the object is closed or not open")                                                          \
    X(NO_CURRENT, 0, "the snapshot pointer does not exist")                                                  \
    X(NO_SNAPSHOT, 0, "no readable snapshot was found")                                                      \
    X(BAD_MANIFEST, 0, "the snapshot pointer or manifest is malformed")                                      \
    X(NOT_FOUND, 0, "a stored object is missing")                                                            \
    X(CORRUPT, 0, "stored bytes are damaged")                                                                \
    X(UNSUPPORTED, 0, "a format version or feature is not supported")                                        \
    X(MERGE_OPERATOR, 0, "the value needs a merge operator")                                                 \
    X(DENIED, 0, "access denied by the store")                                                               \
    X(CONFLICT, 0, "a conditional write lost")                                                               \
    X(IO, 0, "the store answered with an error")                                                             \
    X(UNAVAILABLE, 1, "the store is unavailable, after retries")                                             \
    X(TIMEOUT, 1, "the deadline passed")                                                                     \
    X(CANCELLED, 0, "cancelled")                                                                             \
    X(NOMEM, 1, "out of memory")                                                                             \
    X(FORKED, 0, "the handle belongs to the parent of this forked process")                                  \
    X(BAD_ROW, 0, "a row cannot be published")                                                               \
    X(REFUSED, 0, "the checks before publishing did not pass")                                               \
    X(NO_ROUTE, 0, "the routing value belongs to no shard of this snapshot")                                 \
    X(EXHAUSTED, 1, "the process or the machine has run out of descriptors or threads")

typedef enum sf_status {
#define SF_STATUS_ENUM(name, retryable, text) SF_##name,
    SF_STATUS_LIST(SF_STATUS_ENUM)
#undef SF_STATUS_ENUM
    SF_STATUS_COUNT
} sf_status;

/* Static text, never NULL. `sf_status_name(SF_CORRUPT)` is "CORRUPT". */
SF_API const char *sf_status_name(sf_status status);
SF_API const char *sf_status_text(sf_status status);
SF_API bool sf_status_is_retryable(sf_status status);

/* What went wrong and where. The caller owns it (usually on the stack); functions that fail fill it when they are
 * given one and leave it alone when they succeed. Texts are always terminated, may be cut, and never hold a
 * credential, a signed URL or a stored value. */
typedef struct sf_error {
    sf_status code;
    int http_status;       /* 0 when no HTTP response was involved */
    int32_t db_id;         /* shard number, -1 when no shard was involved */
    uint32_t attempts;     /* store requests made, 0 when none */
    char operation[16];    /* store operation such as "get" or "list"; empty when none */
    char object[512];      /* URL of the object; empty when none */
    char message[768];     /* for people: object, offset, expected and found */
} sf_error;
#define SF_ERROR_INIT {.db_id = -1}

/* For text of snapshots that goes to a terminal or into a log: control characters, what turns text around or has no width,
 * and bytes that are no UTF-8 become \xNN, \uNNNN or \UNNNNNNNN. `message` and `object` of an sf_error are escaped already.
 * Writes at most `size` bytes with the end; returns how long all of it is. */
SF_API size_t sf_text_escape(char *out, size_t size, sf_bytes text);

/* ------------------------------------------------------------------ memory and log -------------------------------- */

/* Memory functions; both may be called from any thread. `realloc(ctx, NULL, n)` allocates; n is never 0. */
typedef struct sf_allocator {
    size_t size; /* sizeof(sf_allocator) */
    void *(*realloc)(void *ctx, void *p, size_t n);
    void (*free)(void *ctx, void *p);
    void *ctx;
} sf_allocator;

typedef enum sf_log_level { SF_LOG_DEBUG, SF_LOG_INFO, SF_LOG_WARN, SF_LOG_ERROR } sf_log_level;

/* May run on the loop thread: count, queue, leave. Texts never hold credentials. */
typedef void (*sf_log_fn)(void *ctx, sf_log_level level, const char *component, const char *message);

/* ------------------------------------------------------------------ keys and values ------------------------------ */

typedef enum sf_key_type { SF_KEY_INT, SF_KEY_STR, SF_KEY_BYTES, SF_KEY_UINT } sf_key_type;

/* Values of the columns that a CEL snapshot routes by. Columns that the expression does not have are ignored; one that it has may
 * be missing as long as the expression does not need it. Texts and bytes are cut at their first NUL unless `whole` is set: the
 * existing package does so, and rows lie where that has put them. */
typedef enum sf_routing_type {
    SF_ROUTING_NULL,
    SF_ROUTING_BOOL,
    SF_ROUTING_INT,
    SF_ROUTING_UINT,
    SF_ROUTING_DOUBLE,
    SF_ROUTING_STR, /* UTF-8 */
    SF_ROUTING_BYTES
} sf_routing_type;

typedef struct sf_routing_value {
    const char *column;
    sf_routing_type type;
    bool whole;
    union {
        bool boolean;
        int64_t i;
        uint64_t u;
        double d;
    };
    sf_bytes b; /* STR, BYTES; borrowed */
} sf_routing_value;

/* A column of an expression. `type`: "int", "uint", "double", "bool", "string" or "bytes". */
typedef struct sf_routing_column {
    const char *name, *type;
} sf_routing_column;

typedef struct sf_routing_context {
    const sf_routing_value *values; /* borrowed, with all they point to */
    size_t count;
} sf_routing_context;

/* A key as the caller has it. Type matters: an integer, a text and bytes route and encode differently. Snapshots whose
 * keys are integers (SF_KEY_U64BE, SF_KEY_U32BE) take integers only: text and bytes, the stored ones too, are
 * SF_INVALID_KEY, and the others refuse integers (SF_INVALID). */
typedef struct sf_key {
    sf_key_type type;
    union {
        int64_t i;  /* SF_KEY_INT */
        uint64_t u; /* SF_KEY_UINT */
    };
    sf_bytes b; /* SF_KEY_STR (UTF-8, not checked), SF_KEY_BYTES; borrowed */
    const sf_routing_context *context; /* for snapshots that route by CEL: the key then only counts inside of its shard. NULL: the
                                        * key routes; such a snapshot takes that when its one column is `key` (SF_INVALID_KEY) */
} sf_key;

static inline sf_key sf_key_int(int64_t i)
{
    return (sf_key){.type = SF_KEY_INT, .i = i};
}

/* Up to 2^64 - 1; below 2^63 the same key as sf_key_int() makes. Keys from 2^63 on route by their 8 bytes, as the smaller
 * ones do. The Python package refuses to route them. */
static inline sf_key sf_key_uint(uint64_t u)
{
    return (sf_key){.type = SF_KEY_UINT, .u = u};
}

static inline sf_key sf_key_bytes(const void *p, size_t n)
{
    return (sf_key){.type = SF_KEY_BYTES, .b = {(const uint8_t *)p, n}};
}

static inline sf_key sf_key_str(const char *p, size_t n)
{
    return (sf_key){.type = SF_KEY_STR, .b = {(const uint8_t *)p, n}};
}

/* How a snapshot stores its keys. */
typedef enum sf_key_encoding { SF_KEY_U64BE, SF_KEY_U32BE, SF_KEY_UTF8, SF_KEY_RAW } sf_key_encoding;
typedef enum sf_sharding_strategy { SF_SHARDING_HASH, SF_SHARDING_CEL } sf_sharding_strategy;

/* An answer. A missing key is a result, not an error. `bytes` stays valid until sf_value_release(). */
typedef struct sf_value {
    bool found;
    sf_bytes bytes;
    struct sf_buf *owner; /* opaque */
} sf_value;

SF_API void sf_value_release(sf_value *value); /* harmless on an empty one, and twice */

typedef struct sf_row {
    sf_bytes key; /* stored bytes */
    sf_bytes value;
} sf_row;

#ifdef __cplusplus
}
#endif
#endif
