/* What the files of the extension share: the module's state, operations, conversions. Everything that touches a Python
 * object holds the GIL; the engine's loop thread never enters Python. */
#ifndef SHARDYFUSION_PYTHON_STATE_H
#define SHARDYFUSION_PYTHON_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include <shardyfusion/reader.h>

struct operation;

enum payload_name {
    PAYLOAD_DURATION_MS,
    PAYLOAD_DURATION_S,
    PAYLOAD_FOUND,
    PAYLOAD_NUM_KEYS,
    PAYLOAD_DB_ID,
    PAYLOAD_CACHE,
    PAYLOAD_FOUND_COUNT,
    PAYLOAD_NAMES
};

typedef struct native_state {
    PyTypeObject *operation_type, *snapshot_type, *scan_type, *reader_type, *core_type, *port_type, *store_type,
        *writer_type, *shard_writer_type, *store_events_type, *credential_source_type,
        *token_bucket_type, *manifest_type, *look_ups_type, *question_type, *cel_rule_type, *cel_shards_type, *shard_opener_type, *row_diff_type;
    /* hooks of the package; NULL until set */
    PyObject *error_hook, *key_error_hook, *multi_error_hook;
    PyObject *get_running_loop; /* asyncio's */
    PyObject *time, *monotonic; /* the module, and a name in it */
    PyObject *name_emit; /* of collectors */
    PyObject *payload_names[PAYLOAD_NAMES], *text_hit, *text_miss;
    PyObject *ports;            /* WeakKeyDictionary: event loop -> weak reference to its Port */
    sf_runtime *rt;             /* the process's engine, NULL until it is needed */
    pid_t rt_pid;               /* of the process that made it */
    struct operation *free_ops; /* dead operations for reuse, linked through `owner` */
    unsigned free_op_count;
    Py_ssize_t turn_left;    /* work before somebody looks at the clock: see turn.c */
    PyObject *loop_has_run;  /* what event loops call */
} native_state;

extern struct PyModuleDef native_module;

/* Of a type made from this module, or of a class derived from one. Never NULL. */
native_state *native_state_of(PyTypeObject *type);
/* The engine, started at first use, afresh in a forked child. NULL with an exception. */
sf_runtime *native_runtime(native_state *st);

/* After which no other thread gets the GIL. */
bool native_interpreter_ends(void);

/* Of the runtime, any thread: warnings of stores reach the hook, in the main thread. */
void native_log(void *ctx, sf_log_level level, const char *component, const char *message);
void native_set_log_hook(PyObject *log); /* NULL: nobody is told */

/* Whether the engine's objects may be touched: not in a forked child of the process that made them. */
bool native_owns_engine(const native_state *st);

/* Makes the methods of those names (NULL ends them) known as coroutine functions. Negative with an exception. */
int mark_coroutine_methods(PyObject *module, PyTypeObject *type, const char *const *names);

/* What every object with a part of the engine says to copy and pickle; first in the tables of methods. */
#define NOT_COPIED \
    {"__reduce__", native_not_copied, METH_NOARGS, "__reduce__()\n--\n\nRaises: it belongs to the engine of its process."}
PyObject *native_not_copied(PyObject *self, PyObject *unused);

/* ---------------------------------------------------------------- operations ------------------------------------- */

enum op_outcome { OP_FAILED = -1, OP_PENDING, OP_FINISHED, OP_DELEGATED, OP_AWAITS_FIRST, OP_GIVES_WAY };

/* What look-ups answer. */
enum {
    ANSWERS_ALIGNED = 1, /* a list aligned with the keys, not a dict of the distinct ones */
    ANSWERS_ERRORS = 2,  /* failed keys map to their exceptions */
    ANSWERS_FOUND = 4    /* whether there is a value, not the value */
};

/* What differs between operations. */
struct op_kind {
    const char *name; /* for warnings and repr */
    /* With OP_FINISHED *result holds the answer; with OP_PENDING a call was begun through op_begin(); with OP_DELEGATED
     * op->waiter is a coroutine that goes on instead; with OP_AWAITS_FIRST it is one after which this is to be called again;
     * with OP_GIVES_WAY in the loop's next round. */
    enum op_outcome (*start)(struct operation *op, PyObject **result);
    /* The answer of a call that ended well. NULL without an exception: to be called again in the loop's next round. */
    PyObject *(*take)(struct operation *op, sf_call *call);
    /* What a failed call comes to, in the same way: an answer, or NULL with an exception. NULL: the error hook decides. */
    PyObject *(*fail)(struct operation *op, sf_call *call);
    /* The answer of the coroutine that was followed, made into ours; takes it over. NULL: as it is. */
    PyObject *(*followed)(struct operation *op, PyObject *answer);
    /* It has ended with this result, which it takes over, or with NULL and an exception: what comes of that. May run
     * Python. Not for one that was cancelled, or followed another coroutine. NULL: nothing. */
    PyObject *(*ended)(struct operation *op, PyObject *result);
    void (*clear)(struct operation *op); /* frees `extra`; may be NULL */
};

enum op_state { OP_NEW, OP_PAUSED, OP_RUNNING, OP_ANSWERING, OP_FOLLOWING, OP_AWAITING, OP_STEPPING, OP_OVER };

/* An operation as Python sees it: a coroutine object. */
#define OP_UNTIMED 1u
struct operation {
    PyObject_HEAD
    native_state *st;
    const struct op_kind *kind;
    PyObject *owner, *a, *b; /* inputs */
    int64_t timeout_ms;
    uint32_t n; /* a shard, a number of rows */
    uint32_t answers; /* of look-ups: ANSWERS_* */
    uint64_t started_ns;     /* the kind's own; 0: not measured; OP_UNTIMED: counted, but no clock was read */
    enum op_state state;
    bool asks_engine;        /* memory did not have all */
    bool blocking;           /* inside wait(): no event loop */
    PyObject *waiter;        /* RUNNING: the future's iterator; ANSWERING, FOLLOWING, AWAITING: the other coroutine */
    PyObject *port;          /* RUNNING: keeps the future */
    PyObject *future;        /* RUNNING */
    struct pending *pending; /* RUNNING, ANSWERING */
    PyObject *ask;           /* takes the engine's questions: see question.c; NULL: there are none */
    struct failures *failures; /* of answers; NULL: none */
    void *extra;             /* the kind's own */
};

/* `owner`, `a`, `b` may be NULL; new references are taken. */
PyObject *op_new(native_state *st, const struct op_kind *kind, PyObject *owner, PyObject *a, PyObject *b,
                 int64_t timeout_ms);
/* Runs it without an event loop: its method `wait`. */
PyObject *op_wait(PyObject *op, PyObject *unused);
/* Before a `_start` function of the library, whose last arguments are sf_call_done_fn pending_on_done and what this
 * returns; NULL with an exception. After it: op_begun() with what it returned. */
struct pending *op_begin(struct operation *op);
enum op_outcome op_begun(struct operation *op, sf_status rc, sf_call *call, const sf_error *err);
/* Instead of op_begun() when there is nothing to start after all. */
void op_not_begun(struct operation *op);
int op_free_list_traverse(native_state *st, visitproc visit, void *arg);
void op_free_list_clear(native_state *st);

/* ---------------------------------------------------------------- questions -------------------------------------- */

/* What the engine asks Python while it works on an operation, see question.c. */
struct question;

/* Of a kind of questions. All may run on any thread. */
struct question_kind {
    /* Gives the engine an answer, with the GIL. *taken: false when nobody waits for it. False with an exception for what is no
     * answer to that question. */
    bool (*answer)(void *request, const char *what, PyObject *value, bool *taken);
    bool (*fail)(void *request, sf_status code, const char *text); /* whether somebody waited for it */
    void (*release)(void *request);                                /* without an answer, it is one that failed */
    PyObject *(*about)(void *request, const char *what);           /* with the GIL; NULL: the text or the number */
};

/* Any thread, without the GIL: the operation to which `p` belongs, which the caller keeps until this returns, is to take it
 * to its `ask`. Takes over the request; `what` is static, the text (NULL: None, or the number) is copied. When nobody can be
 * asked, it is released. */
void question_put(struct pending *p, const struct question_kind *kind, void *request, const char *what, const char *text,
                  size_t number);
void question_append(struct question **first, struct question **last, struct question *q);
struct question *question_take_first(struct question **first, struct question **last);
void question_drop(struct question *q); /* with the GIL or without */
PyObject *question_to_python(native_state *st, struct question *q); /* takes over, also when it fails */
extern PyType_Spec question_spec, shard_opener_spec;

/* The failure that was told of a question about `text`, the very exception; of the one that was asked last. NULL: none such.
 * Borrowed. */
PyObject *op_failure_of(const struct operation *op, const char *text);
PyObject *op_last_failure(const struct operation *op, sf_status code);
void op_failures_free(struct operation *op);
int op_failures_traverse(const struct operation *op, visitproc visit, void *arg);
/* Raises that, or the error of the call. */
void op_raise(struct operation *op, sf_call *call);

/* Gives `op`, which may be NULL, its `ask`, which may be NULL or None. */
PyObject *op_asking(PyObject *op, PyObject *ask);

/* Of a ShardOpener, borrowed; NULL with a TypeError for anything else. */
const struct sf_shard_opener *shard_opener_of(PyObject *o);
PyObject *native_settle(PyObject *module, PyObject *unused);
PyObject *shard_number(const sf_snapshot *s, uint32_t db_id); /* None: not opened, or none of the caller's */

extern const struct sf_manifest_source manifest_questions; /* asks the operation whose pending is the call's ctx */

/* ---------------------------------------------------------------- turns ------------------------------------------ */

enum turn_state { TURN_FAILED = -1, TURN_GOES_ON, TURN_IS_OVER }; /* with an exception; -; give way now */

#define TURN_UNIT_BYTES 8192
#define SF_COLD __attribute__((noinline, cold))

/* Whether it is time to look, after work of about so many microseconds. */
static inline bool turn_spend(native_state *st, size_t units)
{
    return __builtin_expect((st->turn_left -= (Py_ssize_t)units) < 0, 0);
}
/* Of a value: what copying it takes. */
static inline size_t turn_units(size_t bytes)
{
    return 1 + bytes / TURN_UNIT_BYTES;
}
enum turn_state turn_look(native_state *st);    /* on a thread that may run an event loop */
enum turn_state turn_breathe(native_state *st); /* on one that is blocked by us: it has given way already */
uint64_t native_now_ns(void);
uint64_t time_end(int64_t timeout_ms); /* 0: without end */
int64_t time_left(uint64_t end_ns);    /* as a timeout */
PyObject *native_loop_has_run(PyObject *module, PyObject *unused);
PyObject *native_turn_is_over(PyObject *module, PyObject *unused);

/* ---------------------------------------------------------------- delivery --------------------------------------- */

/* One completion on its way from the engine to Python. One reference is the engine's, one the operation's. */
struct pending {
    atomic_uint refs;
    struct mailbox *mailbox; /* acquired; NULL in wait() */
    struct pending *next;    /* the mailbox's */
    struct operation *op;    /* borrowed, under the GIL; NULL once the operation has lost interest */
    sf_call *call;           /* the operation's reference; set after the start */
    atomic_bool in_mailbox;
    pthread_mutex_t lock;    /* covers what follows */
    pthread_cond_t wake;     /* wait() only */
    bool done;               /* wait() only */
    bool deaf;               /* the operation has lost interest */
    struct question *questions, *last_question;
};

/* Takes over the mailbox (NULL: for wait()), also when it fails: NULL with an exception. */
struct pending *pending_new(struct operation *op, struct mailbox *mailbox);
void pending_release(struct pending *p);
void pending_on_done(void *ctx, sf_call *call); /* loop thread */
/* Until done or asked, with the GIL released; false with an exception when a signal handler raised. */
bool pending_wait(struct pending *p);
/* Any thread: a question for its operation. False when that has lost interest. */
bool pending_ask(struct pending *p, struct question *q);
struct question *pending_take_question(struct pending *p); /* the oldest; NULL: none */
void pending_forget(struct pending *p); /* its operation has lost interest; gives its reference back */

/* The port of the running event loop, and the loop; new references. NULL with an exception. */
PyObject *port_of_running_loop(native_state *st, PyObject **loop);
/* The running event loop of asyncio. NULL with a RuntimeError that says what is needed. */
PyObject *running_loop(native_state *st);
PyObject *native_running_loop(PyObject *module, PyObject *unused);
struct mailbox *port_mailbox(PyObject *port); /* acquired */
/* Keeps a future, and so the task that waits for it, until it is let go. False with an exception. */
bool port_keep(PyObject *port, PyObject *future);
void port_let_go(PyObject *port, PyObject *future); /* an exception that is set stays set */
void mailbox_release(struct mailbox *m);
/* What a drained completion does to its operation. False when there was no memory for it. */
bool op_wake(struct operation *op);
extern PyType_Spec port_spec;

/* ---------------------------------------------------------------- conversions ------------------------------------ */

/* Keys as callers have them are made plain where they come in, which may run code of theirs. */
static inline bool key_is_plain(PyObject *o)
{
    return PyLong_Check(o) || PyBytes_Check(o) || PyUnicode_Check(o);
}
/* An int, bytes or a str: numbers with __index__ as their int, bytearrays, memoryviews and UUIDs as their bytes. What is none
 * of these as it is, for key_from_python() to refuse. NULL with an exception. */
PyObject *key_plain(PyObject *o);
/* The same of what may stand as a key in a dict: a UUID is found there by itself only. */
PyObject *key_for_dict(PyObject *o);
/* The keys of a batch, as given; the items of an array of integers as ints. NULL with an exception. */
PyObject *keys_to_tuple(PyObject *keys);
/* Of a plain key. False with the package's exception. Spans are borrowed from `o`. */
bool key_from_python(native_state *st, PyObject *o, sf_key *key);
/* A context of Python's, a mapping of column names, as the engine takes it. */
struct routing {
    sf_routing_context context;
    sf_routing_value few[8], *values;
    PyObject *kept; /* list: what values borrow from */
};
/* False with an exception. To be cleaned up in any case. */
bool routing_from_python(PyObject *mapping, struct routing *r);
void routing_cleanup(struct routing *r);
/* The same for values without columns, from a list. */
bool routing_values_from_python(PyObject *list, struct routing *r);
/* A key with its context, which may be NULL or None and lies in `r`. As above. */
bool routed_key_from_python(native_state *st, PyObject *o, PyObject *context, struct routing *r, sf_key *key);
/* Why `o` cannot be looked up in `s`. Sets the exception. */
void raise_key_error(native_state *st, const sf_snapshot *s, PyObject *o);
/* The engine's texts are C strings: false with a ValueError for an object that cannot be one. */
bool text_check(PyObject *o, const char *what);
bool timeout_from_python(PyObject *o, int64_t *ms); /* NULL and None: no timeout */
PyObject *native_timeout_seconds(PyObject *module, PyObject *o);
PyObject *value_to_python(const sf_value *v);       /* bytes, or None */
PyObject *op_value(const struct operation *op, const sf_value *v); /* or what op->answers says */
/* A LookupError, for a look-up that memory alone cannot answer. */
void raise_not_in_memory(void);
PyObject *text_to_python(const char *text); /* which may be cut inside of a character; NULL: None */
PyObject *text_or_none(const char *text);   /* the same; empty: None */
bool dict_put(PyObject *dict, const char *name, PyObject *value); /* takes over; false, of NULL too, with an exception */
/* A list of what `one` makes of each item of an array; it answers NULL with an exception. */
PyObject *list_to_python(const void *items, size_t count, size_t item_size, PyObject *(*one)(const void *item));
/* Borrowed; NULL when the name is missing, or with an exception. */
PyObject *dict_item(PyObject *dict, const char *name);
/* `dict` may be NULL or None: then *out is left alone and *given is false. Texts and source are borrowed from the dictionary. */
bool s3_from_python(PyObject *dict, sf_s3_options *out, bool *given);
bool store_events_from_python(PyObject *o, sf_store_events **out); /* borrowed; false with a TypeError */
/* What has been noted, as StoreEvents.take() has it. NULL: nothing, or with an exception. */
PyObject *store_events_noted(PyObject *o);
/* Of a CredentialSource, borrowed; NULL with a TypeError for anything else. */
const sf_credential_source *credential_source_of(PyObject *o);
const char *encoding_name(sf_key_encoding e);

PyObject *exception_of(native_state *st, const sf_error *e); /* new reference; NULL with another exception set */
void raise_error(native_state *st, const sf_error *e);
void raise_exception(PyObject *exception); /* takes over; NULL: one is set already */

PyObject *native_canonical_bytes(PyObject *module, PyObject *key);
PyObject *native_plain_key(PyObject *module, PyObject *key);
PyObject *native_s3_environment(PyObject *module, PyObject *unused);
PyObject *native_xxh3_64(PyObject *module, PyObject *data);
bool native_confine(PyObject *item, sf_confine *out); /* None and NULL: the default. False with an exception */
PyObject *native_location(PyObject *module, PyObject *url);
PyObject *native_join_location(PyObject *module, PyObject *args);
PyObject *native_decode_location(PyObject *module, PyObject *args);
PyObject *native_manifest_location(PyObject *module, PyObject *args);
PyObject *native_shard_location(PyObject *module, PyObject *args);
PyObject *native_safe_text(PyObject *module, PyObject *text);
PyObject *native_history(PyObject *module, PyObject *args);
PyObject *native_rollback(PyObject *module, PyObject *args);
PyObject *native_cleanup(PyObject *module, PyObject *args);
PyObject *native_verify(PyObject *module, PyObject *args);
PyObject *native_compare(PyObject *module, PyObject *args);
PyObject *native_row_diff(PyObject *module, PyObject *args);
PyObject *native_cel_rule(PyObject *module, PyObject *args);
PyObject *native_cel_shards(PyObject *module, PyObject *cel);
PyObject *native_hash_db_id(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *native_encode_key(PyObject *module, PyObject *const *args, Py_ssize_t n);

/* ---------------------------------------------------------------- types ------------------------------------------ */

struct py_snapshot {
    PyObject_HEAD
    native_state *st;
    sf_snapshot *s; /* NULL: given back */
};
PyObject *snapshot_to_python(native_state *st, sf_snapshot *s); /* takes over the reference */
PyObject *native_sqlite_sidecar(PyObject *module, PyObject *args);
PyObject *native_open_shard(PyObject *module, PyObject *args, PyObject *kwargs);
/* The value of op->a, a key as callers write it, in a snapshot that the operation holds: the start of it, and the answer. */
enum op_outcome look_up_pinned(struct operation *op, sf_snapshot *s, PyObject **result);

/* A batch of rows as (schema, array, how many), two capsules of Arrow's; None without rows. NULL with an exception. */
PyObject *rows_to_arrow(native_state *st, const sf_row *rows, size_t n, sf_key_encoding keys);
bool arrow_keys_from_python(const char *name, sf_key_encoding *out); /* false with a ValueError */
PyObject *native_arrow_stream(PyObject *module, PyObject *args);

struct py_scan {
    PyObject_HEAD
    native_state *st;
    sf_scan *scan; /* NULL: closed */
};

struct py_reader {
    PyObject_HEAD
    native_state *st;
    sf_reader *r;
    bool asks; /* its manifests come from Python */
};
PyObject *native_open_reader(PyObject *module, PyObject *args, PyObject *kwargs);

/* Whom a reader tells of its look-ups; all zero: nobody. */
enum observer_part {
    OBSERVER_METRICS,      /* the package's */
    OBSERVER_COLLECTOR,    /* the caller's */
    OBSERVER_STORE_EVENTS, /* ours */
    OBSERVER_GET,          /* the events */
    OBSERVER_MULTI_GET,
    OBSERVER_LOOK_UPS, /* a LookUpMetrics, which counts look-ups in the collector's place; else None */
    OBSERVER_SPARE,    /* a payload that nobody has kept; or NULL */
    OBSERVER_PARTS
};
#define GET_PAYLOAD 5u
struct observer {
    PyObject *parts[OBSERVER_PARTS];
    PyObject *spare_values[GET_PAYLOAD]; /* borrowed: what the spare payload holds */
    struct look_ups *look_ups; /* of OBSERVER_LOOK_UPS; NULL: the collector is told of each */
};
/* What one look-up was. */
struct look_up {
    uint64_t ns;    /* OP_UNTIMED: unknown */
    bool hit;       /* memory had all of it */
    uint32_t db_id; /* of a get; UINT32_MAX: none */
    Py_ssize_t keys, found; /* of a batch: as given; of the distinct ones those that there are */
};
/* Of a Metrics, or None. False with an exception, and nothing to clear. */
bool observer_init(native_state *st, struct observer *o, PyObject *metrics);
int observer_traverse(const struct observer *o, visitproc visit, void *arg);
void observer_clear(struct observer *o);
static inline bool observer_is_there(const struct observer *o)
{
    return o->parts[OBSERVER_METRICS] != NULL;
}
/* When a look-up begins: the time, or OP_UNTIMED. */
uint64_t observer_start(struct observer *o);
/* Both take over the result and return it, or NULL with an exception. */
PyObject *observer_tell_get(native_state *st, struct observer *o, const struct look_up *u, PyObject *result);
PyObject *observer_tell_multi_get(native_state *st, struct observer *o, const struct look_up *u, PyObject *result);
/* An exception is set, and outlives whatever is raised here, but for what ends programs. */
void observer_tell_failure(const struct observer *o, const char *operation, uint64_t ns);

/* Look-ups, counted without a call of Python's. With the GIL. */
struct look_ups *look_ups_from_python(native_state *st, PyObject *o); /* NULL with an exception: it is none */
uint64_t look_ups_start(struct look_ups *l);
void look_ups_count_get(struct look_ups *l, const struct look_up *u, bool found);
void look_ups_count_batch(struct look_ups *l, const struct look_up *u);
extern PyType_Spec look_ups_spec;

struct reader_core {
    PyObject_HEAD
    native_state *st;
    struct py_reader *reader;    /* NULL: it goes to this one snapshot, or, without one, through the subclass */
    struct py_snapshot *snapshot;
    struct observer observer; /* told of look-ups that did not go through the subclass */
    PyObject *limiter; /* asked before each look-up; NULL: nobody is */
    PyObject *bucket;  /* what it asks, when that is a TokenBucket of ours; else NULL */
    PyObject *key_guard; /* asked when bytes are the key and the snapshot's keys are integers; NULL: nobody is */
    bool blocking;     /* look-ups give their results, not coroutines */
    bool pins_last;    /* the snapshot is the one that is present when the limiter has answered */
};

/* Takes tokens of a TokenBucket, or tells in how many seconds they will be there (above 0). False with an exception. */
bool token_bucket_take(PyObject *bucket, double tokens, double *missing_s);

PyObject *snapshot_info_to_python(const sf_snapshot_info *i);
PyObject *shard_info_to_python(const sf_shard_info *i);
PyObject *native_choose_winners(PyObject *module, PyObject *args);
PyObject *native_own_custom(PyObject *module, PyObject *args);
PyObject *native_check_empty_shards(PyObject *module, PyObject *args);
PyObject *native_check_rows_share(PyObject *module, PyObject *args);
PyObject *native_format_manifest(PyObject *module, PyObject *args);
PyObject *native_postgres_statements(PyObject *module, PyObject *args);
PyObject *native_postgres_failure(PyObject *module, PyObject *args);
PyObject *native_postgres_manifest(PyObject *module, PyObject *row);
PyObject *native_manifest_folder(PyObject *module, PyObject *args);
PyObject *native_manifest_refs(PyObject *module, PyObject *args);
PyObject *native_run_id_of_ref(PyObject *module, PyObject *ref);
PyObject *native_parse_current(PyObject *module, PyObject *payload);
PyObject *native_format_current(PyObject *module, PyObject *args);

PyObject *native_let_go_of_providers(PyObject *module, PyObject *unused);
PyObject *native_split_url(PyObject *module, PyObject *url);
PyObject *native_format_run_record(PyObject *module, PyObject *fields);
PyObject *native_run_record_folder(PyObject *module, PyObject *args);
PyObject *native_check_run(PyObject *module, PyObject *args);
PyObject *native_next_attempts(PyObject *module, PyObject *args);
PyObject *native_parse_run_record(PyObject *module, PyObject *payload);

PyObject *native_shard_content(PyObject *module, PyObject *args, PyObject *kwargs);

extern PyType_Spec operation_spec, snapshot_spec, scan_spec, reader_spec, core_spec, store_spec, writer_spec,
    shard_writer_spec, store_events_spec, credential_source_spec, token_bucket_spec, manifest_spec, cel_rule_spec, cel_shards_spec, row_diff_spec;

#endif
