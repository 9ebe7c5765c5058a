/* The methods of readers for many keys. */
#include "core.h"

#include "convert.h"
#include "turn.h"

static enum op_outcome delegate_multi_get(struct operation *op, PyObject **result)
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
    return core_delegate(op,
                         PyObject_CallMethod(op->owner, "_multi_get", "OONs", keys, op->b ? op->b : Py_None,
                                             core_timeout(op->timeout_ms),
                                             op->answers & ANSWERS_ERRORS ? "return" : "raise"),
                         result);
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
    enum op_outcome o = core->limiter ? core_limiter_take(core, keys) : OP_FINISHED;

    return o == OP_AWAITS_FIRST ? core_limiter_wait(op, keys, timeout_ms, "multi_get") : o;
}

static bool multi_get_passed(struct operation *op, Py_ssize_t keys, sf_snapshot **snap)
{
    struct reader_core *core = (struct reader_core *)op->owner;

    if (!*snap && !(*snap = core_borrow(core)))
        return false;
    (void)keys;
    core_measure(op, core);
    if (op->started_ns == OP_UNTIMED) /* a batch takes long enough for two looks at the clock */
        op->started_ns = native_now_ns();
    return true;
}

static bool multi_get_bytes_key(struct operation *op, PyObject *key, const sf_snapshot *snap)
{
    return core_guard_passes((struct reader_core *)op->owner, key, snap);
}

static const struct batch_gate multi_get_gate = {
    .ask = multi_get_ask, .passed = multi_get_passed, .bytes_key = multi_get_bytes_key};

static enum op_outcome multi_get_start(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    sf_snapshot *snap = NULL;

    if (op->extra)
        return batch_go_on(op, result);
    if (!core_is_attached(core))
        return delegate_multi_get(op, result);
    if (!core->pins_last && !(snap = core_borrow(core)))
        return OP_FAILED;
    return batch_start(op, snap, &multi_get_gate, result);
}

static PyObject *multi_get_ended(struct operation *op, PyObject *result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    struct look_up u;

    if (!observer_is_there(&core->observer))
        return result;
    u = core_what_was(op);
    if (!result) {
        observer_tell_failure(&core->observer, "multi_get", u.ns);
        return NULL;
    }
    batch_counts(op, &u);
    return observer_tell_multi_get(op->st, &core->observer, &u, result);
}

/* What batches of keys have in common; warnings and repr call them by their names. */
#define BATCH_KIND(method)                 \
    {.name = "AsyncShardedReader." method, \
     .start = multi_get_start,             \
     .take = batch_take,                   \
     .fail = batch_fail,                   \
     .followed = multi_get_followed,       \
     .ended = multi_get_ended,             \
     .clear = batch_clear}

static const struct op_kind multi_get_kind = BATCH_KIND("multi_get");
static const struct op_kind get_many_kind = BATCH_KIND("get_many");
static const struct op_kind contains_many_kind = BATCH_KIND("contains_many");

static PyObject *core_batch(PyObject *self, const struct op_kind *kind, const char *name, PyObject *const *args,
                            Py_ssize_t n, PyObject *kwnames, uint32_t flags)
{
    struct reader_core *core = (struct reader_core *)self;
    PyObject *keys, *op;
    struct core_keywords kw;
    int64_t ms;

    if (!core_keywords(name, args, n, kwnames, "keys", &keys, &kw) || !timeout_from_python(kw.timeout, &ms))
        return NULL;
    if (!batch_on_error(kw.on_error, &flags))
        return NULL;
    op = op_new(core->st, kind, self, keys, kw.routing_context, ms);
    if (op)
        ((struct operation *)op)->answers = flags | (core->blocking ? ANSWERS_ONE_ERROR : 0);
    return core_return(core, op);
}

PyObject *core_multi_get(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return core_batch(self, &multi_get_kind, "multi_get", args, n, kwnames, 0);
}

PyObject *core_get_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return core_batch(self, &get_many_kind, "get_many", args, n, kwnames, ANSWERS_ALIGNED);
}

PyObject *core_contains_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return core_batch(self, &contains_many_kind, "contains_many", args, n, kwnames, ANSWERS_ALIGNED | ANSWERS_FOUND);
}
