/* Object stores behind one vtable: file, memory, S3. All operations are asynchronous and described by one struct,
 * so that a wrapper (fault injection, counting) is one function. Submitted and completed on the loop thread. */
#ifndef SF_STORE_STORE_H
#define SF_STORE_STORE_H

#include "base/buf.h"
#include "net/loop.h"
#include "shardyfusion/store.h"

typedef enum sf_store_verb {
    SF_STORE_HEAD,
    SF_STORE_GET,        /* [off, off + len); whole object when len is SF_STORE_ALL and off is 0 */
    SF_STORE_GET_SUFFIX, /* the last len bytes, or the whole object when it is shorter */
    SF_STORE_PUT,
    SF_STORE_LIST,        /* one page; sf__store_list_all() collects all pages */
    SF_STORE_DELETE,      /* a missing object is success */
    SF_STORE_DELETE_MANY, /* keys[]; at most 1000 */
    SF_STORE_MULTIPART_CREATE,
    SF_STORE_MULTIPART_PART,
    SF_STORE_MULTIPART_COMPLETE,
    SF_STORE_MULTIPART_ABORT,
    SF_STORE_MULTIPART_LIST, /* one page of the uploads that nobody has completed or aborted */
    SF_STORE_TIME /* learns the store's time in the folder `key`, for sf__store_now_us(); one that is not there is success */
} sf_store_verb;
#define SF_STORE_VERBS (SF_STORE_TIME + 1) /* how many; the last one */

#define SF_STORE_ALL UINT64_MAX

typedef struct sf_store_entry {
    char *key; /* relative to the store's root, without leading slash; a common prefix ends in '/' */
    uint64_t size;
    uint64_t etag_hash; /* sf__store_etag_hash() of its ETag; 0: the store's listing does not tell it */
    bool is_prefix;
} sf_store_entry;

typedef struct sf_store_upload {
    char *key; /* the object to be; of files another name in the same folder, which aborts it as well */
    char *id;
    int64_t begun_us; /* Unix; files: last written to. 0: not told */
} sf_store_upload;

typedef struct sf_store sf_store;

/* One operation. The owner embeds it, fills the first part and submits it; `done` is called exactly once, on the loop
 * thread, never inside the submitting call. Inputs are borrowed until done. The owner calls
 * sf__store_op_cleanup() when finished with the results. */
typedef struct sf_store_op {
    sf_store_verb verb;
    const char *key;    /* object, or prefix to list (uploads, too), relative to the store's root */
    uint64_t off, len;  /* MULTIPART_PART: `off` is where the part lies in the object */
    uint64_t max_bytes; /* GET*: refuse (SF_CORRUPT, `longer`) a body above this; 0 means `len` is the bound */
    /* GET of all, optional. Loop thread, from stores that learn of the length before the bytes: the object has so many, more than
     * max_bytes. True: it may come, and max_bytes is that now. */
    bool (*grow)(struct sf_store_op *op, uint64_t bytes);
    const char *if_match; /* PUT: replace only this ETag; GET: fail with SF_CONFLICT when it changed */
    const char *if_none_match; /* GET of all: an object that still has this ETag need not come, see `not_modified`. A wish: file stores,
                                whose ETags are made of times, and servers that know no conditions send it */
    bool create_only; /* PUT, MULTIPART_COMPLETE: SF_CONFLICT when the object exists. An S3 that knows no conditions is
                         asked for the object before it is put; completing goes without, its callers have looked */
    bool once;        /* GET*: one attempt, with the credentials that there are: somebody else asks for the same */
    bool strict;      /* PUT with create_only: where the store has no conditions, SF_UNSUPPORTED instead of a look that
                         two writers at the same instant both pass */
    const char *content_type; /* PUT, MULTIPART_CREATE */
    sf_bytes body;            /* PUT, MULTIPART_PART */
    uint8_t md5[16];          /* of the body, with has_md5: see sf__store_op_digest() */
    bool has_md5;
    const char *const *keys; /* DELETE_MANY; also MULTIPART_COMPLETE: ETags of parts 1.. */
    size_t key_count;
    bool tidy;                /* DELETE*, MULTIPART_ABORT: of files, the folders of a run that this empties go, too */
    const char *upload_id;    /* MULTIPART_* but CREATE; MULTIPART_LIST: `upload_id_out` of the page before, or NULL */
    uint32_t part_number;     /* from 1 */
    const char *delimiter;    /* LIST: "/" or NULL */
    const char *start_after;  /* LIST: first page begins behind this key */
    const char *until;        /* LIST: what this key and those behind it name may be left out; or NULL */
    const char *continuation; /* LIST, MULTIPART_LIST: `next` of the page before, or NULL */
    /* GET, optional. On the worker that has just read `data`, while that is at hand, and before `done`; of stores that read on workers. */
    void (*arrived)(struct sf_store_op *op);
    const sf_allocator *memory; /* GET of a range: of `data`, where the store allocates that at once; NULL: the store's */
    uint64_t deadline_ns;
    void (*done)(struct sf_store_op *op);
    void *ctx;
    /* how it ended: never NULL, valid inside `done` only; names method, object, HTTP status, S3 code, request id */
    const sf_error *error;
    /* results; valid when that is SF_OK */
    sf_buf *data;      /* GET*: never NULL on success (an empty object gives an empty buffer). Detach by setting NULL */
    bool not_modified; /* GET with if_none_match: it has that ETag; `data` is empty */
    uint64_t object_size; /* HEAD, GET*: size of the whole object; of a range, and when not modified, SF_STORE_ALL if not told */
    char etag[128];      /* HEAD, GET*, PUT, MULTIPART_PART: with quotes as the store gave it; "" when it gave none */
    char *upload_id_out; /* MULTIPART_CREATE; MULTIPART_LIST: goes with `next` */
    sf_store_entry *entries; /* LIST: ascending by key */
    size_t entry_count;
    bool unsorted;            /* LIST: the store has not sorted them, so pages may come in any order */
    sf_store_upload *uploads; /* MULTIPART_LIST: in no order */
    size_t upload_count;
    char *next;      /* LIST, MULTIPART_LIST: continuation of the next page, NULL on the last */
    void *impl;      /* the store's, with `task` */
    sf_store *store; /* set by sf__store_submit() */
    bool refused; /* never reached the store: the check of the inputs failed, or the store is not asked such a thing */
    uint64_t longer;  /* GET of all, with SF_CORRUPT: the object has so many bytes, which is more than max_bytes;
                         SF_STORE_ALL: more, it was not told how many; 0: corrupt for another reason. GET_SUFFIX, with
                         SF_IO: the store ignores ranges, and all of the object is too long */
    bool may_be_ours; /* PUT, MULTIPART_COMPLETE: an attempt of this very operation, whose answer was lost, may be the
                         reason for SF_CONFLICT, or for the upload that is SF_NOT_FOUND */
    const sf_error *posted; /* of sf__store_op_finish_later(), until `task` runs; NULL: it ends well */
    sf_task task;
} sf_store_op;

/* How far an operation has come. */
typedef struct sf_store_progress {
    uint32_t attempts;     /* begun */
    const char *waits_for; /* "an answer", or NULL */
    const sf_error *last;  /* why the last attempt that ended failed, or NULL */
} sf_store_progress;

typedef struct sf_store_vtable {
    void (*submit)(sf_store *store, sf_store_op *op);
    /* Ends as an ordinary SF_CANCELLED completion. Only called between submit and done. */
    void (*cancel)(sf_store *store, sf_store_op *op);
    void (*free)(sf_store *store);
    /* Optional. Only called between submit and done. */
    void (*progress)(const sf_store *store, const sf_store_op *op, sf_store_progress *out);
    /* Optional. How it is reached; any thread. */
    void (*describe)(const sf_store *store, sf_bucket_info *out);
} sf_store_vtable;

/* Implementations embed this first. */
struct sf_store {
    const sf_store_vtable *vtable;
    const sf_allocator *alloc;
    sf_loop *loop;
    bool sends_digests; /* set at creation, as the next two */
    bool is_near;       /* an answer takes no longer than its bytes do: there is no use in asking for much at once */
    bool is_asked_time; /* SF_STORE_TIME reaches it; others tell the time with every answer, or have no clock but this one */
    atomic_uint refs;
    uint64_t serial; /* no other store of this process has or had it, not even one that lay at the same address */
    char *url; /* of the root, without trailing slash: "s3://bucket", "file://", "mem://name". An object's URL is url/key */
    _Atomic int64_t ahead_us; /* how far the store's clock was ahead of ours when it last told the time; 0: it does not */
    atomic_bool has_told_time;
    atomic_bool ignores_ranges; /* it has answered one with the whole object */
    struct sf_hedge *hedge; /* acquired, set before the first operation, released by `free`; NULL: reads are not hedged (hedge.h) */
    sf_task free_task;
};

/* The time of day as the store has it; any thread. */
int64_t sf__store_now_us(const sf_store *store);
/* For implementations: it was `then_us` (Unix) there, at some time in the last `within_us`. What clocks differ by that is less
 * than two seconds is not worth a correction, and what the answer was on its way is no difference. */
void sf__store_note_time(sf_store *store, int64_t then_us, int64_t within_us);

/* For implementations: the common part. `url` is copied; false without memory. */
bool sf__store_init(sf_store *store, const sf_store_vtable *vtable, const char *url, sf_loop *loop,
                    const sf_allocator *a) SF_MUST_USE;
void sf__store_fini(sf_store *store);

sf_store *sf__store_acquire(sf_store *store);
void sf__store_release(sf_store *store); /* any thread; takes NULL; the last one frees on the loop thread */
/* Checks the operation (key, ranges, verb's inputs), then hands it on; a failed check completes through the inbox. */
void sf__store_submit(sf_store *store, sf_store_op *op);
void sf__store_cancel(sf_store *store, sf_store_op *op);
/* Between submit and done: the attempts that it has begun, as far as its store tells. */
uint32_t sf__store_op_attempts(const sf_store_op *op);
/* Between submit and done: SF_TIMEOUT for one who has waited for it since then and waits no longer; `more_attempts` were made for the same
 * beside it. */
void sf__store_op_overdue(const sf_store_op *op, uint32_t more_attempts, uint64_t since_ns, sf_error *err);
/* Whoever fails for an operation that the store never saw, or does not end: names operation and object in text and fields. */
void sf__store_error_name(sf_error *err, const char *operation, const sf_store *store, const char *key);
void sf__store_op_cleanup(sf_store_op *op, const sf_allocator *a);
/* For callers that are on no loop thread, before they submit: the digest that goes with a body, so that the loop need not
 * read megabytes for it. A store that sends none: nothing. */
void sf__store_op_digest(const sf_store *store, sf_store_op *op);
/* Whether two ETags name the same bytes: a proxy that compresses makes one weak, some stores leave out the quotes. Where one
 * is not told there is nothing to tell them apart. */
bool sf__store_etag_same(const char *a, const char *b);
/* Of those that are the same it is the same; 0: of none. */
uint64_t sf__store_etag_hash(const char *etag);
/* For implementations, which end an operation with one of these two: with `e`, or well when that is NULL or SF_OK. They name
 * operation and object in it. The first calls done at once and must not be used inside submit; the second goes through the
 * inbox (op->task), copies `e`, and may be called again before it has come through: then the later end counts. */
void sf__store_op_finish(sf_store_op *op, sf_error *e);
void sf__store_op_finish_later(sf_store_op *op, const sf_error *e);
void sf__store_op_fail_later(sf_store_op *op, sf_status code, const char *what); /* of short ones */
/* For implementations: the error of an object of `size` bytes that is longer than asked. */
sf_status sf__store_op_longer(sf_store_op *op, uint64_t size, sf_error *err);
void sf__store_uploads_free(sf_store_upload *uploads, size_t count, const sf_allocator *a);
const char *sf__store_verb_name(sf_store_verb verb); /* "get", "list", ... */
/* "url/key" for messages. */
void sf__store_object_url(const sf_store *store, const char *key, char *out, size_t n);

/* All pages of a listing as one operation; same completion rules. */
typedef struct sf_store_listing {
    sf_store *store;
    const char *prefix, *delimiter, *start_after;
    const char *until; /* no page is asked for behind one that reaches this key, of which there may be more then; or NULL */
    uint64_t deadline_ns;
    size_t max_pages; /* 0 = all (bounded by SF_LIMIT_LIST_PAGES) */
    void (*done)(struct sf_store_listing *l);
    void *ctx;
    const sf_error *error; /* never NULL, valid inside `done` only */
    sf_store_entry *entries;
    size_t entry_count, entry_cap;
    bool truncated; /* max_pages or `until` was reached, and there is more */
    bool unsorted;  /* the store does not sort: pages are in no order, and `until` ends nothing */
    const char *behind,
        *key; /* `key` came in a page behind that of `behind`, which it does not follow; or NULL. Keys of entries */
    const sf_allocator *alloc; /* private from here; of the entries, which may outlive the store */
    sf_store_op op;
    size_t pages;   /* asked for */
    uint64_t bytes; /* of the entries */
} sf_store_listing;
void sf__store_list_all(sf_store_listing *l);
void sf__store_list_cancel(sf_store_listing *l);
void sf__store_listing_cleanup(sf_store_listing *l);

/* ------------------------------------------------------------------ implementations ------------------------------ */

/* Local files; root is "/" so keys are absolute paths without their leading slash. A directory tree is a bucket:
 * prefixes are folders. PUT goes through a temporary file, fsync and rename (create_only: link). Worker pool. */
sf_status sf__store_file_new(sf_store **out, sf_loop *loop, const sf_allocator *a, sf_error *err);

/* A named in-process store, shared by everybody who asks for the same name while it lives (tests, mem:// URLs). */
sf_status sf__store_memory_open(sf_store **out, const char *name, sf_loop *loop, const sf_allocator *a, sf_error *err);

/* The S3 store: s3.h. */

#endif
