/* Object storage: how to reach it, and its objects as such. What is read through a reader needs only the options. Any thread may call any
 * function here. */
#ifndef SHARDYFUSION_STORE_H
#define SHARDYFUSION_STORE_H

#include "shardyfusion/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ events --------------------------------------- */

/* What S3 stores had to repeat or give up, kept until somebody asks. Whoever wants to know makes one, hands it to readers,
 * buckets or writers in their sf_s3_options, and takes the events out when it suits: after each operation, or now and
 * then. So nothing of the caller's runs on the loop thread, and every caller hears of its own requests, although all of
 * them share a runtime. Any thread may call any function on it.
 *
 * It has a fixed size. The first 256 events that nobody has taken yet are kept one by one; of those beyond, the ones of
 * one kind and operation become one event with a count. None is lost. */
typedef struct sf_store_events sf_store_events;

typedef enum sf_store_event_kind {
    SF_STORE_RETRY = 0,          /* an attempt failed, and there will be another one */
    SF_STORE_RETRY_EXHAUSTED = 1, /* the last attempt failed as one does that is worth repeating: the operation fails */
    /* Of readers with a hedge_share (reader.h): the answer to a read is late, and a second request for the same */
    SF_STORE_HEDGE = 2,        /* goes out */
    SF_STORE_HEDGE_BUDGET = 3, /* does not: the share is used up */
    SF_STORE_HEDGE_SICK = 4,   /* does not: the store refuses, or is slow as a whole */
    SF_STORE_HEDGE_NO_ROOM = 5, /* does not: no memory, or too much under way */
    SF_STORE_HEDGE_WON = 6     /* was the first to be answered */
} sf_store_event_kind;

typedef struct sf_store_event {
    sf_store_event_kind kind;
    const char *operation; /* "get", "list", "put", ...; static */
    uint32_t attempts;     /* made so far, from 1 */
    int64_t delay_ms;      /* RETRY: until the next attempt */
    uint64_t count;        /* 1; more: so many of them, of which the numbers are the last one's */
} sf_store_event;

/* An operation on S3 that has ended, well or not, with all that it took; not one that was cancelled. */
typedef struct sf_store_request {
    const char *operation; /* "get", "list", "put", ...; static */
    int http_status;       /* of the last answer; 0: there was none */
    uint32_t attempts;     /* from 1 */
    uint64_t bytes;        /* of bodies: those that were sent, else those that came */
    int64_t duration_us;   /* from the first thing that was done for it to its end */
    uint64_t count;        /* 1; more: so many of them, whose bytes are summed up and whose duration is -1 */
} sf_store_request;

/* `allocator` may be NULL: the C library's; else it must outlive the events and every store that has them. On success *out
 * must be released with sf_store_events_release(); SF_NOMEM otherwise. */
SF_API sf_status sf_store_events_new(sf_store_events **out, const sf_allocator *allocator, sf_error *err);
SF_API sf_store_events *sf_store_events_acquire(sf_store_events *events);
/* Takes NULL. Stores hold references of their own, so this may come at any time. */
SF_API void sf_store_events_release(sf_store_events *events);
/* Moves up to `count` events, oldest first, to `out`; how many. Without any it costs one load. In a forked child nothing
 * is noted or found any more: a child makes its own. */
SF_API size_t sf_store_events_take(sf_store_events *events, sf_store_event *out, size_t count);
/* From now on operations that end are noted, too: 256 one by one, those beyond counted by operation and class of their status. Without this
 * they cost nothing. Before the events are given to a store. SF_NOMEM, and none are noted. */
SF_API sf_status sf_store_events_want_requests(sf_store_events *events, sf_error *err);
/* As sf_store_events_take(). */
SF_API size_t sf_store_events_take_requests(sf_store_events *events, sf_store_request *out, size_t count);

typedef enum sf_addressing { SF_ADDRESSING_AUTO = 0, SF_ADDRESSING_PATH = 1, SF_ADDRESSING_VIRTUAL = 2 } sf_addressing;

/* ------------------------------------------------------------------ locations -------------------------------------- */

/* Whether what a pointer or manifest names is opened when it lies outside of the prefix that the reader was given. */
typedef enum sf_confine {
    SF_CONFINE_DEFAULT = 0, /* as SF_CONFINE_YES for file:// and for snapshots that are not where they were published */
    SF_CONFINE_YES = 1,     /* SF_DENIED, which names the location */
    SF_CONFINE_NO = 2       /* wherever it is, with the reader's rights; local files only from a local snapshot */
} sf_confine;

/* ------------------------------------------------------------------ credentials ---------------------------------- */

/* A source of credentials that the caller provides. `get` is asked when the first are needed (unless the options have keys
 * beside it), again ahead of the end that it tells, and after the store has refused a request for any reason that lies
 * in who asks (then the request is repeated once); never more often than every 5 s by refusals, and after a failure only
 * when 1 s, then ever more, 60 s at most, have passed. One answer serves all requests of a store that wait for it.
 *
 * Each call of `get` has a thread of its own, which has signals blocked, so it may wait, and may use the library; only what
 * needs the very credentials that it is to bring would wait for itself until a deadline. A store asks one question at a
 * time; two stores with the same ctx may ask at once. A request waits no longer than its own deadline allows, and may be
 * cancelled meanwhile. An answer that takes more than 60 s is dropped, and those who wait for it end with SF_TIMEOUT; its
 * store does not ask again before `get` has returned. Nor does the end of the store or of the runtime wait for it: it may
 * return after sf_runtime_release(). While 256 dropped ones have not returned, in the whole process, no store asks. */
typedef struct sf_credential_answer sf_credential_answer;

typedef struct sf_credential_source {
    size_t size;                /* sizeof(sf_credential_source) */
    /* Answers by one of the functions below, at any time before it returns; the last answer counts. */
    void (*get)(void *ctx, sf_credential_answer *answer);
    /* Options are copied by whoever takes them, the source with them: `retain` is called for every copy, `release` when it
     * goes, on any thread, the loop's included, so neither may wait. ctx stays retained while `get` runs. Both NULL: ctx
     * lives as long as the process. */
    void (*retain)(void *ctx);
    void (*release)(void *ctx);
    void *ctx;
    int64_t expires_us;         /* the end of the keys in the options, microseconds since 1970; 0: not known */
} sf_credential_source;

/* Texts are copied; the token may be NULL. expires_us: microseconds since 1970, 0: not known. What no header can carry, an
 * empty key, one of more than 64 KiB, and keys that have ended already are the failure of the requests that wait. Only inside of `get`. */
SF_API void sf_credential_answer_set(sf_credential_answer *answer, const char *access_key_id,
                                     const char *secret_access_key, const char *session_token, int64_t expires_us);
/* There are none: requests that wait end with this code (SF_OK counts as SF_DENIED) and text. A text that holds the
 * credentials in use is withheld; it must hold no other secret. Only inside of `get`. */
SF_API void sf_credential_answer_fail(sf_credential_answer *answer, sf_status code, const char *text);

/* ------------------------------------------------------------------ options -------------------------------------- */

/* Plain data; copied by whoever takes it. NULL or 0 means "not given": the environment, then the shared config and credentials files, then the default.
 *   endpoint:    SLATEDB_S3_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, profile (the AWS ones and the profile not when
 *                AWS_IGNORE_CONFIGURED_ENDPOINT_URLS or the profile says so); else the public one of the region's partition, such
 *                as https://s3.REGION.amazonaws.com, with AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT (or the profile's)
 *   region:      S3_REGION, AWS_REGION, AWS_DEFAULT_REGION, profile, us-east-1; "fips-REGION" means REGION by its FIPS endpoints
 *   credentials: the source given here, else keys given here; S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY, S3_SESSION_TOKEN, else the AWS_* names; then
 *                AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN; the profile (AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE,
 *                AWS_CONFIG_FILE): assumed role, web identity, SSO, keys, credential_process; the container's endpoint
 *                (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI); the machine's metadata service (unless
 *                AWS_EC2_METADATA_DISABLED is true); nobody there: anonymous requests. A profile given here comes
 *                first. What ends is got anew before it does, and once when the store calls it expired.
 *   proxy:       http_proxy or https_proxy, then all_proxy, in small letters before capitals (HTTP_PROXY not in a CGI program);
 *                past it, what no_proxy names: hosts, domains, addresses, networks, each with a port or without */
typedef struct sf_s3_options {
    size_t size;
    const char *endpoint_url;
    const char *region;
    sf_addressing addressing; /* AUTO: path style unless AWS_VIRTUAL_HOSTED_STYLE_REQUEST is true */
    const char *access_key_id, *secret_access_key, *session_token;
    const char *profile;
    const char *ca_bundle;    /* path of a PEM file; NULL: AWS_CA_BUNDLE, SSL_CERT_FILE, else the system's */
    bool insecure;            /* do not verify TLS certificates */
    bool anonymous;           /* do not sign, whatever the environment holds */
    int64_t connect_timeout_ms; /* 0: 5000 */
    int64_t read_timeout_ms;  /* without any progress of one attempt; 0: 30000 */
    int32_t max_retries;      /* after the first attempt; -1: 5 */
    int64_t retry_base_ms;    /* first back-off bound; 0: 200; doubles, full jitter */
    int64_t retry_cap_ms;     /* 0: 4000 */
    int64_t retry_total_ms;   /* all attempts of one operation; 0: 30000 */
    sf_store_events *events;  /* hears of retries of requests made with these options; NULL: nobody does */
    const sf_credential_source *credential_source; /* copied; keys given beside it are those that it has told already */
    bool requester_pays;      /* say with every request that who asks pays, as such buckets demand; or AWS_REQUEST_PAYER */
} sf_s3_options;
#define SF_S3_OPTIONS_INIT {.size = sizeof(sf_s3_options), .max_retries = -1}
SF_API void sf_s3_options_init(sf_s3_options *options, size_t size);
/* Takes what the variables of a dotenv file say over what the options say: AWS_ACCESS_KEY_ID, _SECRET_ACCESS_KEY,
 * _SESSION_TOKEN, _ENDPOINT_URL, _REGION, _REQUEST_PAYER and _VIRTUAL_HOSTED_STYLE_REQUEST. `get` answers NULL for one that is
 * not there; an empty one says nothing. A token and a source belong to their keys: where AWS_ACCESS_KEY_ID is there, those of
 * before are gone. Texts are borrowed from `get`. */
SF_API void sf_s3_options_take_variables(sf_s3_options *options, const char *(*get)(void *ctx, const char *name), void *ctx);

/* ------------------------------------------------------------------ URLs ----------------------------------------- */

/* Cuts a URL into the root of its bucket and the key below it, without leading or trailing slash:
 *   s3://bucket/some/prefix      -> "s3://bucket", "some/prefix"; Ceph's s3://tenant:bucket/prefix likewise
 *   file:///tmp/a%20b, file:/tmp/a%20b, file://localhost/tmp/a%20b, /tmp/a b, ./a b
 *                                -> "file://", the absolute path without its first slash: "tmp/a b"
 *   mem://name/prefix            -> "mem://name", "prefix"
 * Schemes count in any case. The paths of file URLs are percent-decoded, bare paths and the others are not. Wherever this
 * library takes a URL, it takes all of these. Both buffers are terminated. SF_INVALID for another scheme, a missing bucket,
 * a host in a file URL, control characters, a blank before or behind it, or a buffer that is too small. Any thread; no
 * I/O, but for the current folder of a relative path. */
SF_API sf_status sf_url_split(const char *url, char *root, size_t root_size, char *key, size_t key_size, sf_error *err);

/* ------------------------------------------------------------------ objects -------------------------------------- */

/* The objects of one S3 bucket, of the local files, or of one named space in memory. Any thread may call any function on
 * it, any number at a time. Keys are relative to its root and never begin with a slash. Reads go straight to the store,
 * past every cache, so they see what was written before they began.
 *
 * Every operation comes as a `_start` form (see sf_call) and as a blocking one; what it is given is copied before it
 * returns. timeout_ms bounds the whole operation with its retries. Errors name the object: SF_NOT_FOUND, SF_CONFLICT (a
 * condition did not hold), SF_DENIED, SF_CORRUPT (an answer longer than it may be), SF_IO, SF_UNAVAILABLE (after
 * retries), SF_TIMEOUT, SF_CANCELLED, SF_INVALID, SF_NOMEM, SF_FORKED. A put that was retried after an answer was lost
 * may have happened twice; with a condition it may then end with SF_CONFLICT although it was this one that won. */
typedef struct sf_bucket sf_bucket;

/* The bucket that `url` lies in; whatever follows the bucket's name is ignored. `s3` may be NULL: the environment. Does
 * no I/O. On success *out must be closed with sf_bucket_close(); on failure *out is untouched. */
SF_API sf_status sf_bucket_open(sf_bucket **out, sf_runtime *rt, const char *url, const sf_s3_options *s3, sf_error *err);
/* Operations in flight go on, and keep what they need. A mem:// space lives as long as a runtime that has opened it. Takes
 * NULL. */
SF_API void sf_bucket_close(sf_bucket *bucket);

/* How a bucket is reached, as it was settled when it was opened, and what answers have shown since. Nothing secret. Texts are
 * the bucket's. */
typedef struct sf_bucket_info {
    const char *endpoint_url; /* NULL: it is not on S3, and what follows is of no meaning but for `ignores_ranges` */
    const char *region;
    bool virtual_hosted;      /* its name is part of the host's; else of the path */
    bool encrypted;           /* https */
    bool insecure;            /* whose certificates are not verified */
    bool proxied;             /* requests go through a proxy that the environment names */
    const char *ca_bundle;    /* NULL: the system's */
    const char *credentials;  /* what they are and where they were found; NULL: requests go unsigned, */
    const char *looked_at;    /* because there are none in these places; NULL: because that was asked for */
    bool credentials_refused; /* the last answer that told so said that they are not known, or over */
    bool has_told_time;
    int64_t clock_ahead_us;   /* the store's clock, as it was told last; 0 when it is less than two seconds */
    bool ignores_ranges;      /* it has answered one with the whole object */
} sf_bucket_info;

/* No I/O, never fails. */
SF_API void sf_bucket_get_info(const sf_bucket *bucket, sf_bucket_info *out);

/* One object, or what is known of it. `data` stays valid until sf_object_release(). */
typedef struct sf_object {
    sf_bytes data;         /* get: all of it */
    uint64_t size;         /* get, head: its bytes */
    char etag[128];        /* get, head, put; as the store gave it, with its quotes */
    struct sf_buf *owner;  /* opaque */
} sf_object;

SF_API void sf_object_release(sf_object *object); /* harmless on an empty one, and twice */

/* One line of a listing. A common prefix ends in a slash. */
typedef struct sf_object_entry {
    const char *key;
    uint64_t size;
    bool is_prefix;
} sf_object_entry;

typedef struct sf_put_options {
    size_t size;              /* filled by the initialiser; fields are only ever appended */
    const char *content_type; /* NULL: none */
    const char *if_match;     /* replace only the object with this ETag, else SF_CONFLICT */
    bool create_only;         /* SF_CONFLICT when the object exists; not together with if_match */
} sf_put_options;
#define SF_PUT_OPTIONS_INIT {.size = sizeof(sf_put_options)}
SF_API void sf_put_options_init(sf_put_options *options, size_t size);

/* Results, after done; of another kind of call: NULL. */
SF_API sf_object *sf_call_object(sf_call *call); /* get, head, put; to keep `data`, copy the struct and set `owner` NULL */
SF_API const sf_object_entry *sf_call_entries(const sf_call *call, size_t *count); /* list; ascending; the call's */

/* The whole object; SF_CORRUPT without reading on when it has more than max_bytes (at least 1). */
SF_API sf_status sf_bucket_get_start(sf_call **out, sf_bucket *bucket, const char *key, uint64_t max_bytes,
                                     int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err);
/* `len` (at least 1) bytes from `off`; SF_CORRUPT when the object does not have them all. */
SF_API sf_status sf_bucket_get_range_start(sf_call **out, sf_bucket *bucket, const char *key, uint64_t off, uint64_t len,
                                           int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err);
SF_API sf_status sf_bucket_head_start(sf_call **out, sf_bucket *bucket, const char *key, int64_t timeout_ms,
                                      sf_call_done_fn done, void *ctx, sf_error *err);
/* `opts` may be NULL. */
SF_API sf_status sf_bucket_put_start(sf_call **out, sf_bucket *bucket, const char *key, sf_bytes body,
                                     const sf_put_options *opts, int64_t timeout_ms, sf_call_done_fn done, void *ctx,
                                     sf_error *err);
/* Every key that begins with `prefix`; with the delimiter "/", keys that have one behind the prefix are given as their
 * common prefixes. NULL: no delimiter. All pages. */
SF_API sf_status sf_bucket_list_start(sf_call **out, sf_bucket *bucket, const char *prefix, const char *delimiter,
                                      int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err);
/* A missing object is success. */
SF_API sf_status sf_bucket_delete_start(sf_call **out, sf_bucket *bucket, const char *key, int64_t timeout_ms,
                                        sf_call_done_fn done, void *ctx, sf_error *err);
/* 1 to 1000 keys. After a failure some may be gone. */
SF_API sf_status sf_bucket_delete_many_start(sf_call **out, sf_bucket *bucket, const char *const *keys, size_t count,
                                             int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err);

/* Blocking forms; not on the loop thread. On failure *out is untouched. *out is released with sf_object_release(); it may
 * be NULL for put. `off` and `len` are bytes. */
SF_API sf_status sf_bucket_get(sf_bucket *bucket, const char *key, uint64_t max_bytes, int64_t timeout_ms, sf_object *out,
                               sf_error *err);
SF_API sf_status sf_bucket_get_range(sf_bucket *bucket, const char *key, uint64_t off, uint64_t len, int64_t timeout_ms,
                                     sf_object *out, sf_error *err);
SF_API sf_status sf_bucket_head(sf_bucket *bucket, const char *key, int64_t timeout_ms, sf_object *out, sf_error *err);
SF_API sf_status sf_bucket_put(sf_bucket *bucket, const char *key, sf_bytes body, const sf_put_options *opts,
                               int64_t timeout_ms, sf_object *out, sf_error *err);
/* On success *out holds the entries (sf_call_entries) and is released with sf_call_release(). */
SF_API sf_status sf_bucket_list(sf_call **out, sf_bucket *bucket, const char *prefix, const char *delimiter,
                                int64_t timeout_ms, sf_error *err);
SF_API sf_status sf_bucket_delete(sf_bucket *bucket, const char *key, int64_t timeout_ms, sf_error *err);
SF_API sf_status sf_bucket_delete_many(sf_bucket *bucket, const char *const *keys, size_t count, int64_t timeout_ms,
                                       sf_error *err);

#ifdef __cplusplus
}
#endif
#endif
