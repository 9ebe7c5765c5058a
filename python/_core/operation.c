/* The coroutine object of every operation.
 *
 *   NEW --> RUNNING ----> OVER         RUNNING: the engine works; a future of the event loop is being awaited
 *    |       ^  v
 *    |     ANSWERING       ^           ANSWERING: the engine has asked; a coroutine of the caller's is on its answer
 *    |  \-> FOLLOWING -----^           FOLLOWING: another coroutine does the work
 *    |\---> AWAITING --> as if NEW     AWAITING: another coroutine comes first (a limiter)
 *    \------ finished at once, thrown into, closed ----^
 * NEW and RUNNING may be PAUSED for a round of the event loop: see turn.c.
 * While foreign code runs on our behalf the state is STEPPING: nothing that it calls back may step or end us. */
#include "convert.h"
#include "module.h"
#include "operation.h"
#include "stop.h"
#include "turn.h"

/* One that has served already, or NULL. The collector has it all the time, so somebody may have found it there: it is theirs then. */
static inline struct operation *op_again(native_state *st)
{
    while (st->free_op_count > 0) {
        PyObject *op = st->free_ops[--st->free_op_count];

        if (Py_REFCNT(op) == 1)
            return (struct operation *)op; /* it has kept the reference to its type, and nothing else */
        Py_DECREF(op);
    }
    return NULL;
}

static struct operation *op_made(native_state *st)
{
    struct operation *op = PyObject_GC_New(struct operation, st->operation_type);

    if (!op)
        return NULL;
    op->st = st;
    op->waiter = op->port = op->future = op->ask = NULL;
    op->pending = NULL;
    op->extra = NULL;
    op->finalized = false;
    op->owner = op->a = op->b = NULL;
    op->state = OP_OVER;
    PyObject_GC_Track((PyObject *)op);
    return op;
}

PyObject *op_new(native_state *st, const struct op_kind *kind, PyObject *owner, PyObject *a, PyObject *b,
                 int64_t timeout_ms)
{
    struct operation *op = op_again(st);

    if (!op && !(op = op_made(st)))
        return NULL;
    op->kind = kind;
    op->owner = Py_XNewRef(owner);
    op->a = Py_XNewRef(a);
    op->b = Py_XNewRef(b);
    op->timeout_ms = timeout_ms;
    op->n = 0;
    op->answers = 0;
    op->started_ns = 0;
    op->asks_engine = false;
    op->state = OP_NEW;
    op->blocking = false;
    return (PyObject *)op;
}

PyObject *op_asking(PyObject *op, PyObject *ask)
{
    if (op && ask && ask != Py_None)
        ((struct operation *)op)->ask = Py_NewRef(ask);
    return op;
}

/* ---------------------------------------------------------------- ending ----------------------------------------- */

static void op_drop_future(struct operation *op)
{
    if (op->port)
        port_let_go(op->port, op->future);
    Py_CLEAR(op->port);
    Py_CLEAR(op->future);
}

/* What an operation has that was more than a look into memory. */
static SF_COLD void op_drop_rest(struct operation *op)
{
    if (op->extra && op->kind->clear)
        op->kind->clear(op);
    op->extra = NULL;
    Py_CLEAR(op->waiter);
    op_drop_future(op);
    Py_CLEAR(op->ask);
}

static void op_drop_inputs(struct operation *op)
{
    if (op->extra || op->waiter || op->port || op->future || op->ask)
        op_drop_rest(op);
    Py_CLEAR(op->owner);
    Py_CLEAR(op->a);
    Py_CLEAR(op->b);
}

static void op_forget(struct operation *op)
{
    struct pending *p = op->pending;

    op->pending = NULL;
    if (p)
        failures_free(pending_forget(p));
}

static void op_end(struct operation *op)
{
    op->state = OP_OVER;
    op_forget(op);
    op_drop_inputs(op);
}

/* Nobody wants the answer any more. */
static void op_abandon(struct operation *op)
{
    if (op->pending && op->pending->call)
        sf_call_cancel(op->pending->call);
    op_end(op);
}

void op_raise(struct operation *op, sf_call *call)
{
    const sf_error *e = sf_call_error(call);
    PyObject *own = last_failure(op->pending, e->code);

    if (own)
        raise_exception(own);
    else
        raise_error(op->st, e);
}

/* NULL without an exception: there is more to take. */
static PyObject *op_take(struct operation *op)
{
    sf_call *call = op->pending->call;
    const sf_error *e = sf_call_error(call);
    PyObject *result = NULL;

    if (!sf_call_is_done(call)) /* the future is visible to everybody, so anybody may have completed it */
        PyErr_SetString(PyExc_RuntimeError, "somebody else completed the future of an operation");
    else if (e->code == SF_OK)
        result = op->kind->take(op, call);
    else if (op->kind->fail)
        result = op->kind->fail(op, call);
    else
        op_raise(op, call);
    return result;
}

static PyObject *op_ended(struct operation *op, PyObject *result)
{
    return op->started_ns != 0 ? op->kind->ended(op, result) : result;
}

/* ---------------------------------------------------------------- starting --------------------------------------- */

static PyObject *future_iterator(PyObject *future)
{
    PyAsyncMethods *async = Py_TYPE(future)->tp_as_async;

    return async && async->am_await ? async->am_await(future) : PyObject_CallMethod(future, "__await__", NULL);
}

/* The future of the running event loop that the completion will wake. */
static bool op_await(struct operation *op)
{
    PyObject *loop, *port = port_of_running_loop(op->st, &loop);

    if (!port)
        return false;
    op->future = PyObject_CallMethod(loop, "create_future", NULL);
    Py_DECREF(loop);
    if (op->future)
        op->waiter = future_iterator(op->future);
    if (!op->waiter || !port_keep(port, op->future)) {
        Py_DECREF(port);
        return false;
    }
    op->port = port;
    return true;
}

struct pending *op_begin(struct operation *op)
{
    op->asks_engine = true;
    if (op->started_ns == OP_UNTIMED) /* what memory took is next to nothing now */
        op->started_ns = native_now_ns();
    if (op->blocking)
        op->pending = pending_new(NULL, NULL);
    else if (op_await(op))
        op->pending = pending_new(op->future, port_mailbox(op->port));
    return op->pending;
}

enum op_outcome op_begun(struct operation *op, sf_status rc, sf_call *call, const sf_error *err)
{
    if (rc == SF_OK) {
        op->pending->call = call;
        return OP_PENDING;
    }
    op_not_begun(op);
    raise_error(op->st, err);
    return OP_FAILED;
}

void op_not_begun(struct operation *op)
{
    pending_release(op->pending); /* the engine's reference */
    op_forget(op);
}

/* ---------------------------------------------------------------- the coroutine ---------------------------------- */

static PySendResult op_first_step(struct operation *op, PyObject **result)
{
    enum op_outcome outcome;

    op->state = OP_STEPPING;
    *result = NULL;
    outcome = op->kind->start(op, result);
    switch (outcome) {
    case OP_GIVES_WAY:
        op->state = OP_PAUSED;
        break;
    case OP_PENDING:
        op->state = OP_RUNNING;
        break;
    case OP_DELEGATED:
        op->state = OP_FOLLOWING;
        break;
    case OP_AWAITS_FIRST:
        op->state = OP_AWAITING;
        break;
    case OP_FINISHED:
        if (PyBytes_CheckExact(*result) && PyBytes_GET_SIZE(*result) >= TURN_UNIT_BYTES)
            (void)turn_spend(op->st, turn_units((size_t)PyBytes_GET_SIZE(*result)));
        *result = op_ended(op, *result);
        op->state = OP_OVER;
        op_drop_inputs(op);
        return *result ? PYGEN_RETURN : PYGEN_ERROR;
    case OP_FAILED:
        *result = op_ended(op, NULL);
        op_end(op);
        return PYGEN_ERROR;
    }
    return PYGEN_NEXT;
}

/* As CPython's own coroutines say it. */
static SF_COLD bool op_refuse_step(const struct operation *op)
{
    if (op->state == OP_OVER)
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    else
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    return false;
}

/* False with an exception. */
static inline bool op_may_step(const struct operation *op)
{
    return op->state < OP_STEPPING || op_refuse_step(op);
}

/* What is awaited goes on. */
static PySendResult op_resume(struct operation *op, PyObject *arg, PyObject **result)
{
    enum op_state state = op->state;
    PyObject *waiter = Py_NewRef(op->waiter);
    PySendResult r;

    op->state = OP_STEPPING;
    r = PyIter_Send(waiter, arg, result);
    op->state = state;
    Py_DECREF(waiter);
    return r;
}

/* What comes first has ended. */
static void op_awaited(struct operation *op)
{
    PyObject *waiter = op->waiter;

    op->waiter = NULL;
    op->state = OP_STEPPING; /* the end of a coroutine is Python */
    Py_DECREF(waiter);
    op->state = OP_PAUSED;
}

/* Takes the next question to whoever answers. NULL: there is none, or an exception is set; else a coroutine, or None. */
static PyObject *op_next_answer(struct operation *op)
{
    struct notice *next = pending_take(op->pending);
    PyObject *question, *answer;

    if (!next)
        return NULL;
    question = question_to_python(op->st, next);
    answer = question ? PyObject_CallOneArg(op->ask, question) : NULL;
    Py_XDECREF(question);
    return answer;
}

/* The engine has woken the operation, or an answer has been given: what is next, the end of the call, a question, or its
 * future again. False with an exception. */
static SF_COLD bool op_go_on(struct operation *op)
{
    PyObject *answer = NULL, *waiter = op->waiter;

    op->state = OP_STEPPING;
    op->waiter = NULL;
    Py_DECREF(waiter);
    op_drop_future(op);
    while (!sf_call_is_done(op->pending->call) && (answer = op_next_answer(op)) == Py_None)
        Py_CLEAR(answer); /* the call may be done next: then nothing is left to look at */
    if (sf_call_is_done(op->pending->call) && !PyErr_Occurred()) {
        Py_XDECREF(answer);
        op->state = OP_PAUSED;
        return true;
    }
    if (!answer && (PyErr_Occurred() || !op_await(op)))
        return false;
    op->state = answer ? OP_ANSWERING : OP_RUNNING;
    if (answer)
        op->waiter = answer;
    else
        pending_await(op->pending, op->future);
    return true;
}

/* The engine's call has ended. */
static SF_COLD PySendResult op_finish(struct operation *op, PyObject **result)
{
    op->state = OP_STEPPING;
    *result = op_take(op);
    if (!*result && !PyErr_Occurred()) {
        op->state = OP_PAUSED;
        *result = Py_NewRef(Py_None);
        return PYGEN_NEXT;
    }
    *result = op_ended(op, *result);
    op_abandon(op); /* harmless when it is done */
    return *result ? PYGEN_RETURN : PYGEN_ERROR;
}

/* Before the first step: whether the event loop comes first (PYGEN_NEXT), or there is no first step. */
static SF_COLD PySendResult op_turn(struct operation *op, PyObject **result)
{
    enum turn_state s;

    op->state = OP_STEPPING; /* loops are Python */
    s = turn_look(op->st);
    op->state = OP_NEW;
    *result = NULL;
    if (s == TURN_GOES_ON)
        return PYGEN_RETURN;
    if (s == TURN_FAILED) {
        op_end(op);
        return PYGEN_ERROR;
    }
    op->state = OP_PAUSED;
    *result = Py_NewRef(Py_None);
    return PYGEN_NEXT;
}

static PySendResult op_advance(PyObject *self, PyObject *arg, PyObject **result)
{
    struct operation *op = (struct operation *)self;
    PySendResult r;

    if (!op_may_step(op)) {
        *result = NULL;
        return PYGEN_ERROR;
    }
    if (op->state == OP_NEW) {
        if (arg && arg != Py_None) {
            PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
            *result = NULL;
            return PYGEN_ERROR;
        }
        if (turn_spend(op->st, 1)) {
            r = op_turn(op, result);
            if (r != PYGEN_RETURN)
                return r;
        }
    }
    for (;;) {
        if (op->state <= OP_PAUSED) {
            if (op->pending)
                return op_finish(op, result);
            r = op_first_step(op, result);
            if (r != PYGEN_NEXT)
                return r;
            if (op->state == OP_PAUSED) {
                *result = Py_NewRef(Py_None);
                return r;
            }
            arg = Py_None;
        }
        r = op_resume(op, arg, result);
        if (r == PYGEN_NEXT)
            return r;
        if (r == PYGEN_ERROR || op->state == OP_FOLLOWING)
            break;
        Py_CLEAR(*result);
        if (op->state == OP_AWAITING) {
            op_awaited(op);
        } else if (!op->ask) {
            return op_finish(op, result);
        } else if (!op_go_on(op)) {
            op_abandon(op);
            return PYGEN_ERROR;
        }
        arg = Py_None;
    }
    if (op->pending) {
        op_abandon(op);
    } else {
        if (r == PYGEN_RETURN && op->kind->followed)
            *result = op->kind->followed(op, *result);
        op_end(op);
    }
    return *result ? PYGEN_RETURN : PYGEN_ERROR;
}

/* As CPython's own coroutines: from Python 3.12 on an `await` takes a StopIteration of foreign code for our result. */
static PySendResult op_send(PyObject *self, PyObject *arg, PyObject **result)
{
    PySendResult r = op_advance(self, arg, result);

    if (r == PYGEN_ERROR && PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyObject *cause = raised(),
                 *error = PyObject_CallFunction(PyExc_RuntimeError, "s", "coroutine raised StopIteration");

        if (error && cause)
            PyException_SetCause(error, Py_NewRef(cause));
        Py_XDECREF(cause);
        raise_exception(error);
    }
    return r;
}

static PyObject *op_step(PyObject *self, PyObject *arg)
{
    PyObject *result;

    switch (op_send(self, arg, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        stop_raise(result);
        return NULL;
    case PYGEN_ERROR:
        break;
    }
    return NULL;
}

static PyObject *op_next(PyObject *self)
{
    PyObject *result;

    switch (op_send(self, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        stop_raise_next(((struct operation *)self)->st, result);
        return NULL;
    case PYGEN_ERROR:
        break;
    }
    return NULL;
}

static void restore(PyObject *type, PyObject *value, PyObject *tb)
{
    if (PyExceptionInstance_Check(type)) {
        value = type;
        type = (PyObject *)Py_TYPE(value);
    }
    if (value == Py_None)
        value = NULL;
    if (tb == Py_None)
        tb = NULL;
    if (!PyExceptionClass_Check(type)) {
        PyErr_Format(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException, not %.200s",
                     Py_TYPE(type)->tp_name);
        return;
    }
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), Py_XNewRef(tb));
}

/* The coroutine that was followed took the exception that was thrown into it for a reason to return. */
static void op_followed_stop(struct operation *op)
{
    PyObject *type, *stop, *tb, *answer;

    PyErr_Fetch(&type, &stop, &tb);
    PyErr_NormalizeException(&type, &stop, &tb);
    answer = stop ? PyObject_GetAttrString(stop, "value") : NULL;
    Py_XDECREF(type);
    Py_XDECREF(stop);
    Py_XDECREF(tb);
    if (answer)
        answer = op->kind->followed(op, answer);
    if (answer)
        stop_raise(answer);
}

/* Whether another coroutine is what is cancelled or closed. */
static bool op_leans(const struct operation *op)
{
    return op->state == OP_FOLLOWING || op->state == OP_AWAITING || op->state == OP_ANSWERING;
}

/* A cancellation arrives here. The engine is told, and the exception goes on: never traded for a late answer. */
static PyObject *op_throw(PyObject *self, PyObject *args)
{
    struct operation *op = (struct operation *)self;
    PyObject *type, *value = NULL, *tb = NULL, *method, *result;
    enum op_state state = op->state;

    if (!PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &tb) || !op_may_step(op))
        return NULL;
    if (!op_leans(op)) {
        op_abandon(op);
        restore(type, value, tb);
        return NULL;
    }
    op->state = OP_STEPPING;
    method = PyObject_GetAttrString(op->waiter, "throw"); /* keeps the coroutine */
    result = method ? PyObject_Call(method, args, NULL) : NULL;
    Py_XDECREF(method);
    op->state = state;
    if (result)
        return result;
    if (state != OP_FOLLOWING && PyErr_ExceptionMatches(PyExc_StopIteration)) { /* it took that for a reason to return */
        PyErr_Clear();
        if (state == OP_AWAITING)
            op_awaited(op);
        else if (!op_go_on(op)) {
            op_abandon(op);
            return NULL;
        }
        return op_step(self, Py_None);
    }
    if (op->kind->followed && PyErr_ExceptionMatches(PyExc_StopIteration))
        op_followed_stop(op);
    op_abandon(op);
    return NULL;
}

static PyObject *op_close(PyObject *self, PyObject *unused)
{
    struct operation *op = (struct operation *)self;
    PyObject *waiter, *closed;

    (void)unused;
    if (op->state == OP_OVER)
        Py_RETURN_NONE;
    if (!op_may_step(op))
        return NULL;
    if (op_leans(op)) {
        waiter = Py_NewRef(op->waiter);
        op->state = OP_STEPPING;
        closed = PyObject_CallMethod(waiter, "close", NULL);
        Py_DECREF(waiter);
        op_abandon(op);
        return closed;
    }
    op_abandon(op);
    Py_RETURN_NONE;
}

/* Until the call has ended, with answers to its questions on this thread. False with an exception. */
static bool op_wait_for_call(struct operation *op)
{
    while (pending_wait(op->pending)) {
        PyObject *answer = NULL;

        while (!sf_call_is_done(op->pending->call) && (answer = op_next_answer(op)) == Py_None)
            Py_CLEAR(answer); /* the call may be done next: then nothing is left to look at */
        if (answer) {
            PyErr_Format(PyExc_TypeError, "a question was answered with %.200s, which would have to be awaited",
                         Py_TYPE(answer)->tp_name);
            Py_DECREF(answer);
        }
        if (PyErr_Occurred())
            return false;
        if (sf_call_is_done(op->pending->call))
            return true;
    }
    return false;
}

PyObject *op_wait(PyObject *self, PyObject *unused)
{
    struct operation *op = (struct operation *)self;
    PyObject *result = NULL;
    bool waited;

    (void)unused;
    if (op->state != OP_NEW) {
        PyErr_SetString(PyExc_RuntimeError, "cannot wait for an operation that was awaited or has ended");
        return NULL;
    }
    op->state = OP_STEPPING;
    op->blocking = true;
    switch (op->kind->start(op, &result)) {
    case OP_FINISHED:
        result = op_ended(op, result);
        op->state = OP_OVER;
        op_drop_inputs(op);
        return result;
    case OP_PENDING:
        waited = op_wait_for_call(op);
        if (waited)
            result = op_ended(op, op_take(op));
        op_abandon(op); /* harmless when it is done */
        return result;
    case OP_DELEGATED:
    case OP_AWAITS_FIRST:
    case OP_GIVES_WAY: /* never: only where there is an event loop */
        PyErr_SetString(PyExc_RuntimeError, "this operation needs an event loop");
        break;
    case OP_FAILED:
        result = op_ended(op, NULL);
        break;
    }
    op_end(op);
    return result;
}

static PyObject *op_cancel(PyObject *self, PyObject *unused)
{
    struct operation *op = (struct operation *)self;

    (void)unused;
    if (op->pending)
        sf_call_cancel(op->pending->call);
    Py_RETURN_NONE;
}

static PyObject *op_self(PyObject *self)
{
    return Py_NewRef(self);
}

/* ---------------------------------------------------------------- the object ------------------------------------- */

static void op_finalize(PyObject *self)
{
    struct operation *op = (struct operation *)self;
    PyObject *type, *value, *tb;
    bool is_interrupt;

    op->finalized = true;
    PyErr_Fetch(&type, &value, &tb);
    /* Ctrl-C between making it and waiting for it is nobody's mistake */
    is_interrupt = type && PyErr_GivenExceptionMatches(type, PyExc_KeyboardInterrupt);
    if (op->state == OP_NEW && !is_interrupt &&
        PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited", op->kind->name) < 0)
        PyErr_WriteUnraisable(self);
    op_abandon(op);
    PyErr_Restore(type, value, tb);
}

static int op_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct operation *op = (struct operation *)self;

    /* Not the type: it keeps the module, whose state op_dealloc() needs, so neither may go with a cycle we are part of. */
    Py_VISIT(op->owner);
    Py_VISIT(op->a);
    Py_VISIT(op->b);
    Py_VISIT(op->waiter);
    Py_VISIT(op->port);
    Py_VISIT(op->future);
    Py_VISIT(op->ask);
    if (op->pending) {
        Py_VISIT(op->pending->future);
        return failures_traverse(op->pending->failures, visit, arg);
    }
    return 0;
}

static int op_clear(PyObject *self)
{
    op_end((struct operation *)self);
    return 0;
}

static void op_dealloc(PyObject *self)
{
    struct operation *op = (struct operation *)self;
    PyTypeObject *type = Py_TYPE(self);
    native_state *st = op->st;

    if (op->state != OP_OVER && PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    if (st->free_op_count < st->free_op_most && !op->finalized) { /* it is over, so it has nothing left */
        Py_SET_REFCNT(self, 1);
        st->free_ops[st->free_op_count++] = self;
        stop_end(st); /* may run Python, so not between */
        return;
    }
    PyObject_GC_UnTrack(self);
    PyObject_GC_Del(self);
    stop_end(st);
    Py_DECREF(type);
}

void op_free_list_open(native_state *st)
{
#if !defined(Py_GIL_DISABLED) && !defined(Py_REF_DEBUG) /* threads would need a lock; a debug build counts references */
    st->free_op_most = FREE_OPS;
#else
    (void)st;
#endif
}

/* Their types too, for them: see op_traverse(). */
int op_free_list_traverse(native_state *st, visitproc visit, void *arg)
{
    for (unsigned i = 0; i < st->free_op_count; i++) {
        Py_VISIT(st->free_ops[i]);
        Py_VISIT(Py_TYPE(st->free_ops[i]));
    }
    return 0;
}

void op_free_list_clear(native_state *st)
{
    st->free_op_most = 0;
    while (st->free_op_count > 0)
        Py_DECREF(st->free_ops[--st->free_op_count]);
}

static PyObject *op_repr(PyObject *self)
{
    static const char *const states[] = {"created", "running", "running", "running",
                                         "running", "running", "running", "closed"};
    struct operation *op = (struct operation *)self;

    return PyUnicode_FromFormat("<coroutine object %s, %s>", op->kind->name, states[op->state]);
}

static PyObject *op_name(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((struct operation *)self)->kind->name);
}

static PyObject *op_running(PyObject *self, void *unused)
{
    struct operation *op = (struct operation *)self;

    (void)unused;
    return PyBool_FromLong(op->state == OP_STEPPING);
}

NATIVE_ALONE(op_step);
NATIVE_ALONE(op_throw);
NATIVE_ALONE(op_close);
NATIVE_ALONE(op_cancel);
NATIVE_ALONE(op_wait);

#ifdef Py_GIL_DISABLED
static PyObject *op_next_alone(PyObject *self)
{
    PyObject *result;

    Py_BEGIN_CRITICAL_SECTION(self);
    result = op_next(self);
    Py_END_CRITICAL_SECTION();
    return result;
}

static PySendResult op_send_alone(PyObject *self, PyObject *arg, PyObject **result)
{
    PySendResult r;

    Py_BEGIN_CRITICAL_SECTION(self);
    r = op_send(self, arg, result);
    Py_END_CRITICAL_SECTION();
    return r;
}
#endif

static PyMethodDef op_methods[] = {
    NOT_COPIED,
    {"send", ALONE(op_step), METH_O, "send($self, value, /)\n--\n\nResumes the operation."},
    {"throw", ALONE(op_throw), METH_VARARGS, "throw(type[, value[, traceback]])\n\nCancels the operation and raises."},
    {"close", ALONE(op_close), METH_NOARGS, "close($self)\n--\n\nCancels the operation."},
    {"cancel", ALONE(op_cancel), METH_NOARGS,
     "cancel($self)\n--\n\nEnds the engine's work on it, from inside of an answer that it waits for."},
    {"wait", ALONE(op_wait), METH_NOARGS,
     "wait($self)\n--\n\nRuns the operation without an event loop and returns its result."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef op_getset[] = {
    {"__name__", op_name, NULL, NULL, NULL},
    {"__qualname__", op_name, NULL, NULL, NULL},
    {"cr_running", op_running, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot op_slots[] = {
    {Py_tp_dealloc, op_dealloc},
    {Py_tp_finalize, op_finalize},
    {Py_tp_traverse, op_traverse},
    {Py_tp_clear, op_clear},
    {Py_tp_repr, op_repr},
    {Py_tp_methods, op_methods},
    {Py_tp_getset, op_getset},
    {Py_tp_iternext, ALONE(op_next)},
    {Py_am_await, op_self},
    {Py_am_send, ALONE(op_send)},
    {Py_tp_doc, "An operation of the engine, as a coroutine object."},
    {0, NULL},
};

PyType_Spec operation_spec = {
    .name = "shardyfusion._native.Operation",
    .basicsize = sizeof(struct operation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = op_slots,
};
