/* Shared vocabulary of every public header: symbol visibility, byte spans, status codes, errors, memory, log, keys, values.
 * Everything here is plain data; any thread may use it. */
#ifndef SHARDYFUSION_BASE_H
#define SHARDYFUSION_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shardyfusion/version.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SF_API __attribute__((visibility("default")))
#define SF_MUST_USE __attribute__((warn_unused_result))
#define SF_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define SF_ANONYMOUS __extension__ /* C99 has no members without a name */
#else
#define SF_API
#define SF_MUST_USE
#define SF_PRINTF(fmt, args)
#define SF_ANONYMOUS
#endif

/* Of the loaded library: SF_VERSION_STRING and SF_VERSION of the headers that it was built with. */
SF_API const char *sf_version(void);
SF_API uint32_t sf_version_number(void);

/* Options, wherever they are taken, are a struct that begins with its own size. It is initialised by the macro of its name
 * (sf_reader_options: SF_READER_OPTIONS_INIT) or, where designated initialisers are not to be had, by the function of its name:
 * sf_reader_options_init(&options, sizeof(options)). Both fill in the defaults and `size`. NULL instead of a struct, where a
 * comment allows it, means the same defaults. Times of waiting are in milliseconds; 0 or less has passed already. */

/* Borrowed bytes. `p` may be NULL when `n` is 0. */
typedef struct sf_bytes {
    const uint8_t *p;
    size_t n;
} sf_bytes;

/* name, number, may a retry help, text. Numbers never change; new ones come at the end. */
#define SF_STATUS_LIST(X)                                                                                    \
    X(OK, 0, 0, "success")                                                                                   \
    X(WOULD_BLOCK, 1, 0, "the answer is not in memory: I/O is needed")                                       \
    X(INVALID, 2, 0, "invalid argument or configuration")                                                    \
    X(INVALID_KEY, 3, 0, "the key cannot be looked up in this snapshot")                                     \
    X(STATE, 4, 0, "the object is closed or not open")                                                       \
    X(NO_CURRENT, 5, 0, "the snapshot pointer does not exist")                                               \
    X(NO_SNAPSHOT, 6, 0, "no readable snapshot was found")                                                   \
    X(BAD_MANIFEST, 7, 0, "the snapshot pointer or manifest is malformed")                                   \
    X(NOT_FOUND, 8, 0, "a stored object is missing")                                                         \
    X(CORRUPT, 9, 0, "stored bytes are damaged")                                                             \
    X(UNSUPPORTED, 10, 0, "a format version or feature is not supported")                                    \
    X(MERGE_OPERATOR, 11, 0, "the value needs a merge operator")                                             \
    X(DENIED, 12, 0, "access denied by the store")                                                           \
    X(CONFLICT, 13, 0, "a conditional write lost")                                                           \
    X(IO, 14, 0, "the store answered with an error")                                                         \
    X(UNAVAILABLE, 15, 1, "the store is unavailable, after retries")                                         \
    X(TIMEOUT, 16, 1, "the deadline passed")                                                                 \
    X(CANCELLED, 17, 0, "cancelled")                                                                         \
    X(NOMEM, 18, 1, "out of memory")                                                                         \
    X(FORKED, 19, 0, "the handle belongs to the parent of this forked process")                              \
    X(BAD_ROW, 20, 0, "a row cannot be published")                                                           \
    X(REFUSED, 21, 0, "the checks before publishing did not pass")                                           \
    X(NO_ROUTE, 22, 0, "the routing value belongs to no shard of this snapshot")                             \
    X(EXHAUSTED, 23, 1, "the process or the machine has run out of descriptors or threads")

typedef enum sf_status {
#define SF_STATUS_ENUM(name, number, retryable, text) SF_##name = number,
    SF_STATUS_LIST(SF_STATUS_ENUM)
#undef SF_STATUS_ENUM
    SF_STATUS_COUNT /* of those that this header knows */
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
SF_API void sf_error_init(sf_error *err); /* the same, for languages without designated initialisers */

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

typedef enum sf_log_level { SF_LOG_DEBUG = 0, SF_LOG_INFO = 1, SF_LOG_WARN = 2, SF_LOG_ERROR = 3 } sf_log_level;

/* May run on the loop thread: count, queue, leave. Texts never hold credentials. */
typedef void (*sf_log_fn)(void *ctx, sf_log_level level, const char *component, const char *message);

/* ------------------------------------------------------------------ keys and values ------------------------------ */

typedef enum sf_key_type { SF_KEY_INT = 0, SF_KEY_STR = 1, SF_KEY_BYTES = 2, SF_KEY_UINT = 3 } sf_key_type;

/* Values of the columns that a CEL snapshot routes by. Columns that the expression does not have are ignored; one that it has may
 * be missing as long as the expression does not need it. Texts and bytes are cut at their first NUL unless `whole` is set: the
 * existing package does so, and rows lie where that has put them. */
typedef enum sf_routing_type {
    SF_ROUTING_NULL = 0,
    SF_ROUTING_BOOL = 1,
    SF_ROUTING_INT = 2,
    SF_ROUTING_UINT = 3,
    SF_ROUTING_DOUBLE = 4,
    SF_ROUTING_STR = 5, /* UTF-8 */
    SF_ROUTING_BYTES = 6
} sf_routing_type;

typedef struct sf_routing_value {
    const char *column;
    sf_routing_type type;
    bool whole;
    SF_ANONYMOUS union {
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
    SF_ANONYMOUS union {
        int64_t i;  /* SF_KEY_INT */
        uint64_t u; /* SF_KEY_UINT */
    };
    sf_bytes b; /* SF_KEY_STR (UTF-8, not checked), SF_KEY_BYTES; borrowed */
    const sf_routing_context *context; /* for snapshots that route by CEL: the key then only counts inside of its shard. NULL: the
                                        * key routes; such a snapshot takes that when its one column is `key` (SF_INVALID_KEY) */
} sf_key;

/* Inlined where the compiler does so; the library exports them, too. The bytes are borrowed. */
SF_API inline sf_key sf_key_int(int64_t i)
{
    sf_key key;

    key.type = SF_KEY_INT;
    key.i = i;
    key.b.p = NULL;
    key.b.n = 0;
    key.context = NULL;
    return key;
}

/* Up to 2^64 - 1; below 2^63 the same key as sf_key_int() makes. Keys from 2^63 on route by their 8 bytes, as the smaller
 * ones do. The Python package refuses to route them. */
SF_API inline sf_key sf_key_uint(uint64_t u)
{
    sf_key key;

    key.type = SF_KEY_UINT;
    key.u = u;
    key.b.p = NULL;
    key.b.n = 0;
    key.context = NULL;
    return key;
}

/* Bytes as they are. */
SF_API inline sf_key sf_key_bytes(const void *p, size_t n)
{
    sf_key key;

    key.type = SF_KEY_BYTES;
    key.u = 0;
    key.b.p = (const uint8_t *)p;
    key.b.n = n;
    key.context = NULL;
    return key;
}

/* Text in UTF-8, which is not checked; `n` counts bytes. */
SF_API inline sf_key sf_key_str(const char *p, size_t n)
{
    sf_key key = sf_key_bytes(p, n);

    key.type = SF_KEY_STR;
    return key;
}

/* How a snapshot stores its keys. */
typedef enum sf_key_encoding { SF_KEY_U64BE = 0, SF_KEY_U32BE = 1, SF_KEY_UTF8 = 2, SF_KEY_RAW = 3 } sf_key_encoding;
typedef enum sf_sharding_strategy { SF_SHARDING_HASH = 0, SF_SHARDING_CEL = 1 } sf_sharding_strategy;

/* An answer. A missing key is a result, not an error. `bytes` stays valid until sf_value_release(); until then what it lies in stays in memory:
 * its block, or, of a look-up of several keys, for values of up to 512 bytes, a buffer of up to 16 KiB that they share. */
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
