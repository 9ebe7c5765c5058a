/* The hot methods of readers for one key, and the two types. While an engine's reader is attached they go straight to it; otherwise the
 * subclass's functions do the work. */
#include "core.h"

#include "convert.h"
#include "mailbox.h"
#include "module.h"
#include "turn.h"

#include "reader/snapshot.h"

static enum op_outcome delegate_get(struct operation *op, PyObject **result)
{
    PyObject *context = op->b ? op->b : Py_None;

    return core_delegate(op, PyObject_CallMethod(op->owner, "_get", "OON", op->a, context, core_timeout(op->timeout_ms)),
                         result);
}

static PyObject *get_ended(struct operation *op, PyObject *result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    struct look_up u;

    if (!observer_is_there(&core->observer))
        return result;
    u = core_what_was(op);
    if (result)
        return observer_tell_get(op->st, &core->observer, &u, result);
    observer_tell_failure(&core->observer, "get", u.ns);
    return NULL;
}

/* ---------------------------------------------------------------- get -------------------------------------------- */

/* Of a key that has no stored form the package has texts of its own; that a key cannot be routed the engine tells. */
static void raise_lookup_error(native_state *st, const sf_snapshot *s, PyObject *o, const sf_key *key, sf_status rc,
                               const sf_error *err)
{
    uint8_t scratch[8];
    sf_bytes stored;

    if (s && (rc == SF_INVALID || rc == SF_INVALID_KEY) && sf_snapshot_encode_key(s, key, scratch, &stored, NULL) != SF_OK)
        raise_key_error(st, s, o);
    else
        raise_error(st, err);
}

/* After such a key was refused in the reader's present snapshot. */
static SF_COLD bool guard_passes_present(struct operation *op, struct reader_core *core)
{
    sf_snapshot *s = core_borrow(core);
    bool passes = s && core_guard_passes(core, op->a, s);

    sf_snapshot_give_back(s);
    if (!passes || NATIVE_LOAD(core->reader))
        return passes;
    core_raise_detached(core);
    return false;
}

/* With values of the columns that the snapshot routes by, or in one snapshot. */
static SF_COLD enum op_outcome look_up_in_context(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    sf_snapshot *s = core_borrow(core);
    bool passes = s && (!PyBytes_Check(op->a) || core_guard_passes(core, op->a, s));
    enum op_outcome o = passes ? look_up_pinned(op, s, result) : OP_FAILED;

    sf_snapshot_give_back(s);
    return o;
}

/* In the reader's present snapshot. */
static enum op_outcome look_up_present(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    struct py_reader *reader = NATIVE_LOAD(core->reader);
    struct pending *p;
    sf_reader *r;
    sf_error err; /* filled by failures only: clearing it would cost as much as the rest */
    sf_call *call;
    sf_value v;
    sf_key key;
    sf_status rc;
    bool guarded;

    core_measure(op, core);
    op->n = UINT32_MAX;
    if (op->b || !reader)
        return look_up_in_context(op, result);
    r = reader->r;
    if (!key_from_int(op->a, &key) && !key_from_python(op->st, op->a, &key))
        return OP_FAILED;
    guarded = NATIVE_LOAD(core->key_guard) && PyBytes_Check(op->a);
    if (guarded) /* as everybody's but this package's: refused where keys are integers */
        key = sf_key_bytes(PyBytes_AS_STRING(op->a), (size_t)PyBytes_GET_SIZE(op->a));
    rc = sf__reader_ask(r, &key, op->timeout_ms, &v, &call, &op->n, &err);
    if (rc == SF_INVALID_KEY && guarded) {
        if (!guard_passes_present(op, core) || !key_from_python(op->st, op->a, &key))
            return OP_FAILED;
        reader = NATIVE_LOAD(core->reader);
        if (!reader)
            return look_up_in_context(op, result);
        r = reader->r;
        rc = sf__reader_ask(r, &key, op->timeout_ms, &v, &call, &op->n, &err);
    }
    if (rc == SF_OK) {
        *result = op_value(op, &v);
        sf_value_release(&v);
        return *result ? OP_FINISHED : OP_FAILED;
    }
    if (rc != SF_WOULD_BLOCK) {
        sf_snapshot *s = sf_reader_borrow(r, NULL);

        raise_lookup_error(op->st, s, op->a, &key, rc, &err);
        sf_snapshot_give_back(s);
        return OP_FAILED;
    }
    p = op_begin(op); /* runs Python, which may close the reader: the call keeps what it needs */
    if (!p) {
        sf_call_release(call);
        return OP_FAILED;
    }
    sf_call_begin(call, pending_on_done, p);
    return op_begun(op, SF_OK, call, NULL);
}

/* The pin and the deadline of a look-up that waits for its limiter. */
struct admission {
    sf_snapshot *snap; /* NULL: not yet, see pins_last */
    uint64_t end_ns;
};

static void get_clear(struct operation *op)
{
    struct admission *a = op->extra;

    sf_snapshot_give_back(a->snap);
    PyMem_Free(a);
}

static SF_COLD enum op_outcome get_admitted(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    struct admission *a = op->extra;

    op->timeout_ms = time_left(a->end_ns);
    if (!a->snap && !(a->snap = core_borrow(core)))
        return OP_FAILED;
    core_measure(op, core);
    if (PyBytes_Check(op->a) && !core_guard_passes(core, op->a, a->snap))
        return OP_FAILED;
    return look_up_pinned(op, a->snap, result);
}

/* The limiter has no token at once, or is the caller's. */
static SF_COLD enum op_outcome get_asks(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    struct admission *a = op->extra = PyMem_Calloc(1, sizeof(*a));
    enum op_outcome o;

    if (!a) {
        PyErr_NoMemory();
        return OP_FAILED;
    }
    a->end_ns = time_end(op->timeout_ms);
    if (!core->pins_last && !(a->snap = core_borrow(core)))
        return OP_FAILED;
    o = core_limiter_wait(op, 1, op->timeout_ms, "get");
    return o == OP_FINISHED ? get_admitted(op, result) : o;
}

static enum op_outcome get_start(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;

    if (op->extra)
        return get_admitted(op, result);
    if (!core_is_attached(core))
        return delegate_get(op, result);
    if (NATIVE_LOAD(core->limiter)) {
        enum op_outcome o = core_limiter_take(core, 1);

        if (o != OP_FINISHED)
            return o == OP_AWAITS_FIRST ? get_asks(op, result) : o;
    }
    return look_up_present(op, result);
}

static PyObject *get_take(struct operation *op, sf_call *call)
{
    return op_value(op, sf_call_values(call, NULL));
}

static const struct op_kind get_kind = {
    .name = "AsyncShardedReader.get", .start = get_start, .take = get_take, .ended = get_ended, .clear = get_clear};

/* What the subclass has found. */
static PyObject *contains_followed(struct operation *op, PyObject *answer)
{
    bool found = answer != Py_None;

    (void)op;
    Py_DECREF(answer);
    return PyBool_FromLong(found);
}

static const struct op_kind contains_kind = {.name = "AsyncShardedReader.contains",
                                             .start = get_start,
                                             .take = get_take,
                                             .followed = contains_followed,
                                             .ended = get_ended,
                                             .clear = get_clear};

/* Made plain before anything is read of the reader: that may run code of the caller's, which may close it. */
static inline PyObject *look_up(struct reader_core *core, const struct op_kind *kind, PyObject *given,
                                PyObject *context, int64_t ms, uint32_t answers)
{
    PyObject *made = NULL, *op;

    if (!key_is_plain(given) && !(made = key_plain(given)))
        return NULL;
    op = op_new(core->st, kind, (PyObject *)core, made ? made : given, context, ms);
    Py_XDECREF(made);
    if (op)
        ((struct operation *)op)->answers = answers;
    return core_return(core, op);
}

/* Of a blocking reader. When memory has it, and nobody else is to be asked or told, that needs no operation. True: *value is the answer, or NULL with an
 * exception. */
static __attribute__((noinline)) bool get_at_once(const struct reader_core *core, PyObject *given, PyObject **value)
{
    struct py_reader *reader = NATIVE_LOAD(core->reader);
    sf_value v;
    sf_key key;

    *value = NULL;
    if (!reader || NATIVE_LOAD(core->limiter) || observer_is_there(&core->observer) ||
        !(PyLong_CheckExact(given) || PyUnicode_CheckExact(given)))
        return false;
    if (!key_from_int(given, &key) && !key_from_python(core->st, given, &key))
        return true;
    if (sf_reader_try_get(reader->r, &key, &v, NULL) != SF_OK)
        return false;
    *value = value_to_python(&v);
    sf_value_release(&v);
    return true;
}

static PyObject *core_contains(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    struct reader_core *core = (struct reader_core *)self;
    PyObject *key;
    struct core_keywords kw;
    int64_t ms;

    if (!core_keywords("contains", args, n, kwnames, "key", &key, &kw) || !timeout_from_python(kw.timeout, &ms))
        return NULL;
    return look_up(core, &contains_kind, key, kw.routing_context, ms, ANSWERS_FOUND);
}

static PyObject *core_get(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    struct reader_core *core = (struct reader_core *)self;
    PyObject *key, *value;
    struct core_keywords kw;
    int64_t ms;

    if (n == 1 && !kwnames && core->blocking && get_at_once(core, args[0], &value))
        return value;
    if (n == 1 && !kwnames)
        return look_up(core, &get_kind, args[0], NULL, SF_TIMEOUT_NONE, 0);
    if (!core_keywords("get", args, n, kwnames, "key", &key, &kw) || !timeout_from_python(kw.timeout, &ms))
        return NULL;
    return look_up(core, &get_kind, key, kw.routing_context, ms, 0);
}

/* ---------------------------------------------------------------- memory only ------------------------------------ */

/* The key's value, as far as memory and the limiter allow. NULL without an exception: it takes more than that. */
static PyObject *look_in_memory(struct reader_core *core, sf_snapshot *s, PyObject *o, PyObject *context, uint32_t *db_id)
{
    PyObject *value = NULL;
    struct routing r;
    sf_error err;
    sf_value v;
    sf_key key;
    sf_status rc;

    if (PyBytes_Check(o) && !core_guard_passes(core, o, s))
        return NULL;
    if (routed_key_from_python(core->st, o, context, &r, &key)) {
        rc = sf_snapshot_try_get_key(s, &key, &v, &err);
        if (rc == SF_OK) {
            value = core_limiter_allows(core) > 0 ? value_to_python(&v) : NULL;
            if (observer_wants_shard(&core->observer) && sf_snapshot_route(s, &key, db_id, NULL) != SF_OK)
                *db_id = UINT32_MAX;
            sf_value_release(&v);
        } else if (rc != SF_WOULD_BLOCK) {
            raise_lookup_error(core->st, s, o, &key, rc, &err);
        }
    }
    routing_cleanup(&r);
    return value;
}

/* The same in the reader's present snapshot, or by the subclass. */
static PyObject *try_get(struct reader_core *core, PyObject *key, PyObject *context)
{
    uint64_t began = observer_is_there(&core->observer) ? observer_start(&core->observer) : 0;
    struct look_up u = {.hit = true, .db_id = UINT32_MAX};
    PyObject *value;
    sf_snapshot *s;

    if (!core_is_attached(core)) {
        value = PyObject_CallMethod((PyObject *)core, "_try_get", "OO", key, context ? context : Py_None);
        if (value == Py_NotImplemented)
            Py_CLEAR(value);
        return value;
    }
    s = core_borrow(core);
    value = s ? look_in_memory(core, s, key, context, &u.db_id) : NULL;
    sf_snapshot_give_back(s);
    if (!value || began == 0 || !observer_is_there(&core->observer))
        return value;
    u.ns = began == OP_UNTIMED ? OP_UNTIMED : native_now_ns() - began;
    return observer_tell_get(core->st, &core->observer, &u, value);
}

static PyObject *core_try_get(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "default", "routing_context", NULL};
    struct reader_core *core = (struct reader_core *)self;
    PyObject *given, *key, *otherwise = NULL, *context = NULL, *value;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O$O:try_get", names, &given, &otherwise, &context) ||
        !(key = key_plain(given)))
        return NULL;
    value = try_get(core, key, context);
    Py_DECREF(key);
    if (value || PyErr_Occurred())
        return value;
    if (otherwise)
        return Py_NewRef(otherwise);
    raise_not_in_memory();
    return NULL;
}

/* ---------------------------------------------------------------- life ------------------------------------------- */

/* The bucket that a limiter asks, NULL if it is none of ours. False with an exception. */
static bool bucket_of(native_state *st, PyObject *limiter, PyObject **bucket)
{
    if (limiter == Py_None)
        return true;
    *bucket = PyObject_GetAttrString(limiter, "bucket");
    if (*bucket == Py_None)
        Py_CLEAR(*bucket);
    else if (*bucket && !PyObject_TypeCheck(*bucket, st->token_bucket_type))
        PyErr_SetString(PyExc_TypeError, "a limiter's bucket must be a TokenBucket or None");
    return !PyErr_Occurred();
}

/* A Reader, a Snapshot, or NULL. */
static void core_go_to(struct reader_core *core, PyObject *engine)
{
    struct py_reader *reader = core->reader;
    struct py_snapshot *snapshot = core->snapshot;
    bool is_reader = engine && PyObject_TypeCheck(engine, core->st->reader_type);

    Py_XINCREF(engine);
    NATIVE_STORE(core->reader, is_reader ? (struct py_reader *)engine : NULL);
    NATIVE_STORE(core->snapshot, is_reader ? NULL : (struct py_snapshot *)engine);
    core_release(core, reader);
    core_release(core, snapshot);
}

/* Takes over `object`. */
static void core_set(struct reader_core *core, PyObject **of, PyObject *object)
{
    PyObject *before = *of;

    NATIVE_STORE(*of, object);
    core_release(core, before);
}

/* Before other threads have the core, or while none of them looks anything up: what is attached is not changed as a whole. */
static PyObject *core_attach(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "observer", "limiter", "pins_last", "key_guard", NULL};
    struct reader_core *core = (struct reader_core *)self;
    PyObject *engine, *metrics = Py_None, *limiter = Py_None, *guard = Py_None, *bucket = NULL;
    struct observer told, before;
    int pins_last = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOpO:_attach", names, &engine, &metrics, &limiter, &pins_last,
                                     &guard))
        return NULL;
    if (!PyObject_TypeCheck(engine, core->st->reader_type) && !PyObject_TypeCheck(engine, core->st->snapshot_type)) {
        PyErr_SetString(PyExc_TypeError, "_attach takes a Reader or a Snapshot");
        return NULL;
    }
    if (!observer_init(core->st, &told, metrics))
        return NULL;
    if (!bucket_of(core->st, limiter, &bucket)) {
        observer_clear(&told);
        Py_XDECREF(bucket);
        return NULL;
    }
    before = core->observer;
    core->observer = told;
    for (size_t i = 0; i < OBSERVER_PARTS; i++)
        core_release(core, before.parts[i]);
    core_set(core, &core->bucket, bucket);
    core_set(core, &core->limiter, limiter == Py_None ? NULL : Py_NewRef(limiter));
    core->pins_last = pins_last;
    core_set(core, &core->key_guard, guard == Py_None ? NULL : Py_NewRef(guard));
    core_go_to(core, engine);
    Py_RETURN_NONE;
}

static PyObject *core_detach(PyObject *self, PyObject *unused)
{
    (void)unused;
    core_go_to((struct reader_core *)self, NULL);
    Py_RETURN_NONE;
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct reader_core *core = (struct reader_core *)type->tp_alloc(type, 0);

    (void)args; /* the subclass's __init__ looks at them */
    (void)kwargs;
    if (core) {
        core->st = native_state_of(type);
        core->blocking = PyType_IsSubtype(type, core->st->blocking_core_type);
    }
    return (PyObject *)core;
}

static int core_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct reader_core *)self)->reader);
    Py_VISIT(((struct reader_core *)self)->snapshot);
    Py_VISIT(((struct reader_core *)self)->limiter);
    Py_VISIT(((struct reader_core *)self)->bucket);
    Py_VISIT(((struct reader_core *)self)->key_guard);
    Py_VISIT(((struct reader_core *)self)->kept);
    return observer_traverse(&((struct reader_core *)self)->observer, visit, arg);
}

static int core_clear(PyObject *self)
{
    struct reader_core *core = (struct reader_core *)self;

    core_go_to(core, NULL);
    observer_clear(&core->observer);
    Py_CLEAR(core->limiter);
    Py_CLEAR(core->bucket);
    Py_CLEAR(core->key_guard);
    Py_CLEAR(core->kept);
    return 0;
}

static void core_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    core_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

const struct coroutine_method_def core_coroutines[] = {
    {"get", core_get},           {"multi_get", core_multi_get},         {"get_many", core_get_many},
    {"contains", core_contains}, {"contains_many", core_contains_many}, {NULL, NULL},
};

NATIVE_ALONE_KEYWORDS(core_attach);
NATIVE_ALONE(core_detach);

#define LOOK_UP(name, function, doc) {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL | METH_KEYWORDS, doc}
#define KEY_SIGNATURE "($self, key, *, routing_context=None, timeout=None)\n--\n\n"
#define KEYS_SIGNATURE "($self, keys, *, routing_context=None, timeout=None)\n--\n\n"
#define MULTI_GET_SIGNATURE "($self, keys, *, routing_context=None, timeout=None, on_error='raise')\n--\n\n"
/* What does not depend on who waits. */
#define COMMON_METHODS                                                                                                               \
    NOT_COPIED,                                                                                                                      \
        {"try_get", (PyCFunction)(void (*)(void))core_try_get, METH_VARARGS | METH_KEYWORDS,                                         \
         "try_get($self, key, default=..., *, routing_context=None)\n--\n\n"                                                         \
         "As get, out of memory only and at once, without waiting. When that takes a read of storage (shards of a factory's own\n"   \
         "always do), or the limiter has no token, `default` if it is given, else LookupError. None: the snapshot does not hold\n"   \
         "the key."},                                                                                                                \
        {"_attach", (PyCFunction)(void (*)(void))ALONE(core_attach), METH_VARARGS | METH_KEYWORDS,                                   \
         "_attach($self, reader, /, observer=None, limiter=None, pins_last=False, key_guard=None)\n--\n\n"                           \
         "Go straight to the engine's reader, or to one snapshot, from now on. Before a look-up returns, the observer's collector\n" \
         "is told: its emit(event, payload) is called. The observer itself is called with what stores have noted\n"                  \
         "(tell_of(noted), before a look-up raises, too) and when the collector raises (collector_failed(event, error)). A\n"        \
         "limiter's bucket is asked first; when that is None or has no tokens, its wait_async(tokens, timeout, what) is awaited,\n"  \
         "or, by blocking look-ups, wait() called. key_guard(key, encoding) is called for bytes where the snapshot's keys are\n"     \
         "integers, until it returns False."},                                                                                       \
        {"_detach", ALONE(core_detach), METH_NOARGS, "_detach($self)\n--\n\nThrough the subclass again."},                           \
        {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "The kinds of keys, for type checkers."},                        \
    {                                                                                                                                \
        NULL, NULL, 0, NULL                                                                                                          \
    }

static PyMethodDef core_methods[] = {
    LOOK_UP(
        "get", core_get,
        "get" KEY_SIGNATURE "The value of one key as bytes, or None when the snapshot does not hold it.\n\n"
        "A coroutine: nothing happens before it is awaited. What memory can answer is answered without a trip through the\n"
        "event loop; otherwise it takes one ranged read of the store. `timeout` (seconds or a timedelta) bounds the whole\n"
        "operation and raises OperationTimeoutError. Raises ValueError or ConfigValidationError for a key that this snapshot\n"
        "cannot hold, DbAdapterError for a damaged shard, S3TransientError when the store does not answer, ReaderStateError\n"
        "when the reader is not open."),
    LOOK_UP("multi_get", core_multi_get,
            "multi_get" MULTI_GET_SIGNATURE
            "The values of many keys: a dict with one entry a distinct key, in the order of their first occurrence, None for\n"
            "those that are missing.\n\n"
            "One operation for all keys, whatever their shards. Failures of shards arrive together as an ExceptionGroup that is\n"
            "also a DbAdapterError; with on_error='return' the failed keys map to their exception instead."),
    LOOK_UP("get_many", core_get_many, "get_many" KEYS_SIGNATURE "As multi_get, but a list aligned with `keys`."),
    LOOK_UP("contains", core_contains,
            "contains" KEY_SIGNATURE
            "Whether the snapshot holds a key. As get, without the value; a key that its filter rules out takes no read."),
    LOOK_UP("contains_many", core_contains_many,
            "contains_many" KEYS_SIGNATURE "The same for many keys, as one operation: a list aligned with `keys`."),
    COMMON_METHODS,
};

static PyMethodDef blocking_core_methods[] = {
    LOOK_UP(
        "get", core_get,
        "get" KEY_SIGNATURE
        "The value of one key as bytes, or None when the snapshot does not hold it. What memory does not have takes one ranged\n"
        "read of the store. `timeout` (seconds or a timedelta) bounds waiting for the limiter and reads of the built-in shard\n"
        "readers, and raises OperationTimeoutError. Raises ValueError or ConfigValidationError for a key that this snapshot\n"
        "cannot hold, DbAdapterError for a damaged shard, S3TransientError when the store does not answer, ReaderStateError\n"
        "when the reader is closed."),
    LOOK_UP("multi_get", core_multi_get,
            "multi_get" MULTI_GET_SIGNATURE
            "The values of many keys: a dict with one entry a distinct key, in the order of their first occurrence, None for\n"
            "those that are missing. When shards fail, the exception of the first; with on_error='return' the failed keys map to\n"
            "their exception instead."),
    LOOK_UP("get_many", core_get_many, "get_many" KEYS_SIGNATURE "As multi_get, but a list aligned with `keys`."),
    LOOK_UP("contains", core_contains,
            "contains" KEY_SIGNATURE
            "Whether the snapshot holds a key. As get, without the value; a key that its filter rules out takes no read."),
    LOOK_UP("contains_many", core_contains_many,
            "contains_many" KEYS_SIGNATURE "The same for many keys: a list aligned with `keys`."),
    COMMON_METHODS,
};

#define CORE_SLOTS(methods)                                                                        \
    {                                                                                              \
        {Py_tp_new, core_new},     {Py_tp_dealloc, core_dealloc}, {Py_tp_traverse, core_traverse}, \
        {Py_tp_clear, core_clear}, {Py_tp_methods, methods},      {0, NULL},                       \
    }

static PyType_Slot core_slots[] = CORE_SLOTS(core_methods);
static PyType_Slot blocking_core_slots[] = CORE_SLOTS(blocking_core_methods);

PyType_Spec core_spec = {
    .name = "shardyfusion._native.ReaderCore",
    .basicsize = sizeof(struct reader_core),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = core_slots,
};
PyType_Spec blocking_core_spec = {
    .name = "shardyfusion._native.BlockingReaderCore",
    .basicsize = sizeof(struct reader_core),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = blocking_core_slots,
};
