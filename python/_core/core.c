/* The hot methods of AsyncShardedReader. While an engine's reader is attached they go straight to it; otherwise the
 * subclass's coroutine functions do the work. */
#include "batch.h"
#include "convert.h"
#include "mailbox.h"
#include "module.h"
#include "objects.h"
#include "turn.h"

#include "reader/snapshot.h"

/* ---------------------------------------------------------------- the other way ---------------------------------- */

static enum op_outcome delegate(struct operation *op, PyObject *coroutine)
{
    op->waiter = coroutine;
    return coroutine ? OP_DELEGATED : OP_FAILED;
}

static PyObject *timeout_to_python(int64_t ms)
{
    if (ms == SF_TIMEOUT_NONE)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)ms / 1000);
}

static enum op_outcome delegate_get(struct operation *op)
{
    PyObject *context = op->b ? op->b : Py_None;

    return delegate(op, PyObject_CallMethod(op->owner, "_get", "OON", op->a, context, timeout_to_python(op->timeout_ms)));
}

/* ---------------------------------------------------------------- telling ---------------------------------------- */

static void measure(struct operation *op, struct reader_core *core)
{
    if (!observer_is_there(&core->observer))
        return;
    op->started_ns = observer_start(&core->observer);
    if (!core->observer.look_ups)
        (void)turn_spend(op->st, 4); /* what is told is Python's */
}

static struct look_up what_was(const struct operation *op)
{
    return (struct look_up){.ns = op->started_ns == OP_UNTIMED ? OP_UNTIMED : native_now_ns() - op->started_ns,
                            .hit = !op->asks_engine,
                            .db_id = op->n};
}

static PyObject *get_ended(struct operation *op, PyObject *result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    struct look_up u;

    if (op->started_ns == 0 || !observer_is_there(&core->observer))
        return result;
    u = what_was(op);
    if (result)
        return observer_tell_get(op->st, &core->observer, &u, result);
    observer_tell_failure(&core->observer, "get", u.ns);
    return NULL;
}

/* ---------------------------------------------------------------- the limiter ------------------------------------ */

/* OP_AWAITS_FIRST: it has to be waited for, or is the caller's own. */
static enum op_outcome limiter_take(struct reader_core *core, Py_ssize_t tokens)
{
    double missing_s;

    if (!core->bucket)
        return OP_AWAITS_FIRST;
    if (!token_bucket_take(core->bucket, (double)tokens, &missing_s))
        return OP_FAILED;
    return missing_s > 0 ? OP_AWAITS_FIRST : OP_FINISHED;
}

/* Its own methods do that, with events and all: on the caller's event loop, or on the thread that is blocked. */
static enum op_outcome limiter_wait(struct operation *op, Py_ssize_t tokens, int64_t timeout_ms, const char *what)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    PyObject *asked;

    (void)turn_spend(op->st, 4); /* of Python */
    asked = PyObject_CallMethod(core->limiter, op->blocking ? "wait" : "wait_async", "nNs", tokens,
                                timeout_to_python(timeout_ms), what);
    if (!asked)
        return OP_FAILED;
    if (!op->blocking) {
        op->waiter = asked;
        return OP_AWAITS_FIRST;
    }
    Py_DECREF(asked);
    return OP_FINISHED;
}

/* Whether look-ups go straight to the engine. */
static bool is_attached(const struct reader_core *core)
{
    return core->reader || core->snapshot;
}

/* NULL with an exception. */
static sf_snapshot *reader_borrow(struct reader_core *core)
{
    sf_snapshot *s;
    sf_error err;

    if (core->snapshot && core->snapshot->s)
        return sf_snapshot_acquire(core->snapshot->s);
    if (!core->reader) {
        PyErr_SetString(PyExc_RuntimeError, "the reader was detached while its limiter was asked");
        return NULL;
    }
    s = sf_reader_borrow(core->reader->r, &err);
    if (!s)
        raise_error(core->st, &err);
    return s;
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

/* Whether a key that is bytes may be looked up: where the snapshot refuses them as keys, the guard is asked, as long as it wants
 * to be. False with an exception. */
static bool guard_passes(struct reader_core *core, PyObject *key, const sf_snapshot *s)
{
    sf_key strict = sf_key_bytes(PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key));
    sf_snapshot_info info;
    PyObject *guard, *again;
    uint8_t scratch[8];
    sf_bytes stored;

    if (!core->key_guard || sf_snapshot_encode_key(s, &strict, scratch, &stored, NULL) != SF_INVALID_KEY)
        return true;
    sf_snapshot_get_info(s, &info);
    guard = Py_NewRef(core->key_guard);
    again = PyObject_CallFunction(guard, "Os", key, encoding_name(info.key_encoding));
    if (again == Py_False && core->key_guard == guard)
        Py_CLEAR(core->key_guard);
    Py_DECREF(guard);
    Py_XDECREF(again);
    return again != NULL;
}

/* After such a key was refused in the reader's present snapshot. */
static SF_COLD bool guard_passes_present(struct operation *op, struct reader_core *core)
{
    sf_snapshot *s = reader_borrow(core);
    bool passes = s && guard_passes(core, op->a, s);

    sf_snapshot_give_back(s);
    if (!passes || core->reader)
        return passes;
    PyErr_SetString(PyExc_RuntimeError, "the reader was detached while its key guard was asked");
    return false;
}

/* With values of the columns that the snapshot routes by, or in one snapshot. */
static SF_COLD enum op_outcome look_up_in_context(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    sf_snapshot *s = reader_borrow(core);
    bool passes = s && (!PyBytes_Check(op->a) || guard_passes(core, op->a, s));
    enum op_outcome o = passes ? look_up_pinned(op, s, result) : OP_FAILED;

    sf_snapshot_give_back(s);
    return o;
}

/* In the reader's present snapshot. */
static enum op_outcome look_up_present(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    struct pending *p;
    sf_reader *r;
    sf_error err; /* filled by failures only: clearing it would cost as much as the rest */
    sf_call *call;
    sf_value v;
    sf_key key;
    sf_status rc;
    bool guarded;

    measure(op, core);
    op->n = UINT32_MAX;
    if (op->b || core->snapshot)
        return look_up_in_context(op, result);
    r = core->reader->r;
    if (!key_from_python(op->st, op->a, &key))
        return OP_FAILED;
    guarded = core->key_guard && PyBytes_Check(op->a);
    if (guarded) /* as everybody's but this package's: refused where keys are integers */
        key = sf_key_bytes(PyBytes_AS_STRING(op->a), (size_t)PyBytes_GET_SIZE(op->a));
    rc = sf__reader_ask(r, &key, op->timeout_ms, &v, &call, &op->n, &err);
    if (rc == SF_INVALID_KEY && guarded) {
        if (!guard_passes_present(op, core) || !key_from_python(op->st, op->a, &key))
            return OP_FAILED;
        r = core->reader->r;
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
    if (!a->snap && !(a->snap = reader_borrow(core)))
        return OP_FAILED;
    measure(op, core);
    if (PyBytes_Check(op->a) && !guard_passes(core, op->a, a->snap))
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
    if (!core->pins_last && !(a->snap = reader_borrow(core)))
        return OP_FAILED;
    o = limiter_wait(op, 1, op->timeout_ms, "get");
    return o == OP_FINISHED ? get_admitted(op, result) : o;
}

static enum op_outcome get_start(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;

    if (op->extra)
        return get_admitted(op, result);
    if (!is_attached(core))
        return delegate_get(op);
    if (core->limiter) {
        enum op_outcome o = limiter_take(core, 1);

        if (o != OP_FINISHED)
            return o == OP_AWAITS_FIRST ? get_asks(op, result) : o;
    }
    return look_up_present(op, result);
}

static PyObject *get_take(struct operation *op, sf_call *call)
{
    return op_value(op, sf_call_values(call, NULL));
}

static const struct op_kind get_kind = {.name = "AsyncShardedReader.get",
                                        .start = get_start,
                                        .take = get_take,
                                        .ended = get_ended,
                                        .clear = get_clear};

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

/* Keyword arguments of the three methods; each may be NULL afterwards. */
struct keywords {
    PyObject *routing_context, *timeout, *on_error;
};

static bool keywords_parse(const char *method, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                           const char *first_name, PyObject **first, struct keywords *kw)
{
    Py_ssize_t count = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;

    *first = n > 0 ? args[0] : NULL;
    *kw = (struct keywords){0};
    if (n > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes 2 positional arguments but %zd were given", method, n + 1);
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i), *value = args[n + i];

        if (PyUnicode_CompareWithASCIIString(name, "routing_context") == 0) {
            kw->routing_context = value == Py_None ? NULL : value;
        } else if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
            kw->timeout = value;
        } else if (PyUnicode_CompareWithASCIIString(name, "on_error") == 0 && strcmp(method, "multi_get") == 0) {
            kw->on_error = value;
        } else if (PyUnicode_CompareWithASCIIString(name, first_name) == 0 && !*first) {
            *first = value;
        } else {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", method, name);
            return false;
        }
    }
    if (!*first)
        PyErr_Format(PyExc_TypeError, "%s() missing 1 required positional argument: '%s'", method, first_name);
    return *first != NULL;
}

/* What a method returns for its new operation, which it takes over. Blocking ones never show it: a signal handler that raises
 * would find it neither awaited nor over. */
static PyObject *core_return(const struct reader_core *core, PyObject *op)
{
    PyObject *result;

    if (!op || !core->blocking)
        return op;
    result = op_wait(op, NULL);
    Py_DECREF(op);
    return result;
}

/* Made plain before anything is read of the reader: that may run code of the caller's, which may close it. */
static PyObject *look_up(struct reader_core *core, const struct op_kind *kind, PyObject *given, PyObject *context, int64_t ms,
                         uint32_t answers)
{
    PyObject *key = key_plain(given);
    PyObject *op = key ? op_new(core->st, kind, (PyObject *)core, key, context, ms) : NULL;

    Py_XDECREF(key);
    if (op)
        ((struct operation *)op)->answers = answers;
    return core_return(core, op);
}

static PyObject *core_contains(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    struct reader_core *core = (struct reader_core *)self;
    PyObject *key;
    struct keywords kw;
    int64_t ms;

    if (!keywords_parse("contains", args, n, kwnames, "key", &key, &kw) || !timeout_from_python(kw.timeout, &ms))
        return NULL;
    return look_up(core, &contains_kind, key, kw.routing_context, ms, ANSWERS_FOUND);
}

static PyObject *core_get(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    struct reader_core *core = (struct reader_core *)self;
    PyObject *key;
    struct keywords kw;
    int64_t ms;

    if (n == 1 && !kwnames)
        return look_up(core, &get_kind, args[0], NULL, SF_TIMEOUT_NONE, 0);
    if (!keywords_parse("get", args, n, kwnames, "key", &key, &kw) || !timeout_from_python(kw.timeout, &ms))
        return NULL;
    return look_up(core, &get_kind, key, kw.routing_context, ms, 0);
}

/* ---------------------------------------------------------------- multi_get -------------------------------------- */

static enum op_outcome delegate_multi_get(struct operation *op)
{
    PyObject *given = keys_to_tuple(op->a), *keys = given ? PySequence_List(given) : NULL;

    Py_XDECREF(given);
    for (Py_ssize_t i = 0; keys && i < PyList_GET_SIZE(keys); i++) {
        PyObject *key = key_for_dict(PyList_GET_ITEM(keys, i));

        if (!key || PyList_SetItem(keys, i, key) < 0)
            Py_CLEAR(keys);
    }
    if (keys)
        Py_SETREF(keys, PyList_AsTuple(keys));
    if (!keys)
        return OP_FAILED;
    Py_SETREF(op->a, keys);
    return delegate(op, PyObject_CallMethod(op->owner, "_multi_get", "OONs", keys, op->b ? op->b : Py_None,
                                            timeout_to_python(op->timeout_ms),
                                            op->answers & ANSWERS_ERRORS ? "return" : "raise"));
}

static PyObject *multi_get_followed(struct operation *op, PyObject *answer)
{
    PyObject *result = batch_aligned(op, answer);

    Py_DECREF(answer);
    return result;
}

static enum op_outcome multi_get_ask(struct operation *op, Py_ssize_t keys, int64_t timeout_ms)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    enum op_outcome o = core->limiter ? limiter_take(core, keys) : OP_FINISHED;

    return o == OP_AWAITS_FIRST ? limiter_wait(op, keys, timeout_ms, "multi_get") : o;
}

static bool multi_get_passed(struct operation *op, Py_ssize_t keys, sf_snapshot **snap)
{
    struct reader_core *core = (struct reader_core *)op->owner;

    if (!*snap && !(*snap = reader_borrow(core)))
        return false;
    (void)keys;
    measure(op, core);
    return true;
}

static bool multi_get_bytes_key(struct operation *op, PyObject *key, const sf_snapshot *snap)
{
    return guard_passes((struct reader_core *)op->owner, key, snap);
}

static const struct batch_gate multi_get_gate = {
    .ask = multi_get_ask, .passed = multi_get_passed, .bytes_key = multi_get_bytes_key};

static enum op_outcome multi_get_start(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    sf_snapshot *snap = NULL;

    if (op->extra)
        return batch_go_on(op, result);
    if (!is_attached(core))
        return delegate_multi_get(op);
    if (!core->pins_last && !(snap = reader_borrow(core)))
        return OP_FAILED;
    return batch_start(op, snap, &multi_get_gate, result);
}

static PyObject *multi_get_ended(struct operation *op, PyObject *result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    struct look_up u;

    if (op->started_ns == 0 || !observer_is_there(&core->observer))
        return result;
    u = what_was(op);
    if (!result) {
        observer_tell_failure(&core->observer, "multi_get", u.ns);
        return NULL;
    }
    batch_counts(op, &u);
    return observer_tell_multi_get(op->st, &core->observer, &u, result);
}

/* What batches of keys have in common; warnings and repr call them by their names. */
#define BATCH_KIND(method)                                                                                    \
    {                                                                                                         \
        .name = "AsyncShardedReader." method, .start = multi_get_start, .take = batch_take,                   \
        .fail = batch_fail, .followed = multi_get_followed, .ended = multi_get_ended, .clear = batch_clear    \
    }

static const struct op_kind multi_get_kind = BATCH_KIND("multi_get");
static const struct op_kind get_many_kind = BATCH_KIND("get_many");
static const struct op_kind contains_many_kind = BATCH_KIND("contains_many");

static PyObject *core_batch(PyObject *self, const struct op_kind *kind, const char *name, PyObject *const *args,
                            Py_ssize_t n, PyObject *kwnames, uint32_t flags)
{
    struct reader_core *core = (struct reader_core *)self;
    PyObject *keys, *op;
    struct keywords kw;
    int64_t ms;

    if (!keywords_parse(name, args, n, kwnames, "keys", &keys, &kw) || !timeout_from_python(kw.timeout, &ms))
        return NULL;
    if (!batch_on_error(kw.on_error, &flags))
        return NULL;
    op = op_new(core->st, kind, self, keys, kw.routing_context, ms);
    if (op)
        ((struct operation *)op)->answers = flags;
    return core_return(core, op);
}

static PyObject *core_multi_get(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return core_batch(self, &multi_get_kind, "multi_get", args, n, kwnames, 0);
}

static PyObject *core_get_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return core_batch(self, &get_many_kind, "get_many", args, n, kwnames, ANSWERS_ALIGNED);
}

static PyObject *core_contains_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return core_batch(self, &contains_many_kind, "contains_many", args, n, kwnames, ANSWERS_ALIGNED | ANSWERS_FOUND);
}

/* ---------------------------------------------------------------- memory only ------------------------------------ */

/* Whether the limiter has a token at once. Negative with an exception. */
static int limiter_allows(struct reader_core *core)
{
    double missing_s;
    PyObject *taken;
    int allows;

    if (!core->limiter)
        return 1;
    if (core->bucket)
        return token_bucket_take(core->bucket, 1, &missing_s) ? missing_s <= 0 : -1;
    taken = PyObject_CallMethod(core->limiter, "try_take", "i", 1);
    allows = taken ? PyObject_IsTrue(taken) : -1;
    Py_XDECREF(taken);
    return allows;
}

/* The key's value, as far as memory and the limiter allow. NULL without an exception: it takes more than that. */
static PyObject *look_in_memory(struct reader_core *core, sf_snapshot *s, PyObject *o, PyObject *context, uint32_t *db_id)
{
    PyObject *value = NULL;
    struct routing r;
    sf_error err;
    sf_value v;
    sf_key key;
    sf_status rc;

    if (PyBytes_Check(o) && !guard_passes(core, o, s))
        return NULL;
    if (routed_key_from_python(core->st, o, context, &r, &key)) {
        rc = sf_snapshot_try_get_key(s, &key, &v, &err);
        if (rc == SF_OK) {
            value = limiter_allows(core) > 0 ? value_to_python(&v) : NULL;
            if (observer_is_there(&core->observer) && sf_snapshot_route(s, &key, db_id, NULL) != SF_OK)
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

    if (!is_attached(core)) {
        value = PyObject_CallMethod((PyObject *)core, "_try_get", "OO", key, context ? context : Py_None);
        if (value == Py_NotImplemented)
            Py_CLEAR(value);
        return value;
    }
    s = reader_borrow(core);
    value = s ? look_in_memory(core, s, key, context, &u.db_id) : NULL;
    sf_snapshot_give_back(s);
    if (!value || began == 0 || !observer_is_there(&core->observer))
        return value;
    u.ns = began == OP_UNTIMED ? OP_UNTIMED : native_now_ns() - began;
    return observer_tell_get(core->st, &core->observer, &u, value);
}

static PyObject *core_try_get(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "default", "routing_context", NULL};
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
    core->reader = is_reader ? (struct py_reader *)engine : NULL;
    core->snapshot = is_reader ? NULL : (struct py_snapshot *)engine;
    Py_XDECREF(reader);
    Py_XDECREF(snapshot);
}

static PyObject *core_attach(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "observer", "limiter", "pins_last", "blocking", "key_guard", NULL};
    struct reader_core *core = (struct reader_core *)self;
    PyObject *engine, *metrics = Py_None, *limiter = Py_None, *guard = Py_None, *bucket = NULL;
    struct observer told, before;
    int pins_last = 0, blocking = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOppO:_attach", names, &engine, &metrics, &limiter, &pins_last,
                                     &blocking, &guard))
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
    observer_clear(&before);
    Py_XSETREF(core->bucket, bucket);
    Py_XSETREF(core->limiter, limiter == Py_None ? NULL : Py_NewRef(limiter));
    core->pins_last = pins_last;
    core->blocking = blocking;
    Py_XSETREF(core->key_guard, guard == Py_None ? NULL : Py_NewRef(guard));
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
    if (core)
        core->st = native_state_of(type);
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

static PyMethodDef core_methods[] = {
    NOT_COPIED,
    {"get", (PyCFunction)(void (*)(void))core_get, METH_FASTCALL | METH_KEYWORDS,
     "get($self, key, *, routing_context=None, timeout=None)\n--\n\n"
     "The value of one key as bytes, or None when the snapshot does not hold it.\n\n"
     "A coroutine: nothing happens before it is awaited. What memory can answer is answered without a trip through the\n"
     "event loop; otherwise it takes one ranged read of the store. `timeout` (seconds or a timedelta) bounds the whole\n"
     "operation and raises OperationTimeoutError. Raises ValueError or ConfigValidationError for a key that this snapshot\n"
     "cannot hold, DbAdapterError for a damaged shard, S3TransientError when the store does not answer, ReaderStateError\n"
     "when the reader is not open."},
    {"multi_get", (PyCFunction)(void (*)(void))core_multi_get, METH_FASTCALL | METH_KEYWORDS,
     "multi_get($self, keys, *, routing_context=None, timeout=None, on_error='raise')\n--\n\n"
     "The values of many keys: a dict with one entry a distinct key, in the order of their first occurrence, None for\n"
     "those that are missing.\n\n"
     "One operation for all keys, whatever their shards. Failures of shards arrive together as an ExceptionGroup that is\n"
     "also a DbAdapterError; with on_error='return' the failed keys map to their exception instead."},
    {"get_many", (PyCFunction)(void (*)(void))core_get_many, METH_FASTCALL | METH_KEYWORDS,
     "get_many($self, keys, *, routing_context=None, timeout=None)\n--\n\n"
     "As multi_get, but a list aligned with `keys`."},
    {"contains", (PyCFunction)(void (*)(void))core_contains, METH_FASTCALL | METH_KEYWORDS,
     "contains($self, key, *, routing_context=None, timeout=None)\n--\n\n"
     "Whether the snapshot holds a key. As get, without the value; a key that its filter rules out takes no read."},
    {"contains_many", (PyCFunction)(void (*)(void))core_contains_many, METH_FASTCALL | METH_KEYWORDS,
     "contains_many($self, keys, *, routing_context=None, timeout=None)\n--\n\n"
     "The same for many keys, as one operation: a list aligned with `keys`."},
    {"try_get", (PyCFunction)(void (*)(void))core_try_get, METH_VARARGS | METH_KEYWORDS,
     "try_get($self, key, /, default=..., *, routing_context=None)\n--\n\n"
     "As get, out of memory only and at once: no coroutine, no waiting. When that takes a read of storage, or the limiter\n"
     "has no token, `default` if it is given, else LookupError. None: the snapshot does not hold the key."},
    {"_attach", (PyCFunction)(void (*)(void))core_attach, METH_VARARGS | METH_KEYWORDS,
     "_attach($self, reader, /, observer=None, limiter=None, pins_last=False, blocking=False, "
     "key_guard=None)\n--\n\n"
     "Go straight to the engine's reader, or to one snapshot, from now on. Before a look-up returns, the observer's collector is told: its\n"
     "emit(event, payload) is called. The observer itself is called with what stores have noted (tell_of(noted), before a\n"
     "look-up raises, too) and when the collector raises (collector_failed(event, error)). A limiter's bucket\n"
     "is asked first; when that is None or has no tokens, its wait_async(tokens, timeout, what) is awaited, or, by\n"
     "blocking look-ups, wait() called. With `blocking` the methods return results instead of coroutines.\n"
     "key_guard(key, encoding) is called for bytes where the snapshot's keys are integers, until it returns False."},
    {"_detach", core_detach, METH_NOARGS, "_detach($self)\n--\n\nThrough the subclass again."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_new, core_new},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_traverse, core_traverse},
    {Py_tp_clear, core_clear},
    {Py_tp_methods, core_methods},
    {0, NULL},
};

PyType_Spec core_spec = {
    .name = "shardyfusion._native.ReaderCore",
    .basicsize = sizeof(struct reader_core),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = core_slots,
};
