/* A credential provider of the caller's as a source for the engine, which asks it on threads of its own. What the engine
 * keeps of it may go on threads that must not wait for the GIL, the loop's for one: such are buried later. */
#include "convert.h"
#include "module.h"

#include <pthread.h>
#include <stdatomic.h>

#include <shardyfusion/store.h>
#include <signal.h>

#define AT_ITS_END "the interpreter ends"

/* Counted: by the Python object, and by every copy of options that the engine holds. */
struct provider {
    atomic_uint refs;
    sigset_t blocked; /* where it was made */
    /* under `listing` */
    PyObject *ask;                /* NULL: let go */
    struct provider *next, *prev; /* of the living */
    struct provider *next_dead;
};

struct py_credential_source {
    PyObject_HEAD
    sf_credential_source source;
};

/* All, and those that nobody needs any more. Of the process, not of the module: who comes last may come after it. */
static native_mutex listing; /* covers what follows */
static struct provider *living;
static _Atomic(struct provider *) dead;

/* Off the list, where it is on it; what it asked is the caller's to release. */
static PyObject *take_off(struct provider *p)
{
    PyObject *ask = p->ask;

    if (!ask)
        return NULL;
    *(p->prev ? &p->prev->next : &living) = p->next;
    if (p->next)
        p->next->prev = p->prev;
    p->ask = NULL;
    return ask;
}

static void let_go(struct provider *p)
{
    PyObject *ask;

    native_lock(&listing);
    ask = take_off(p);
    native_unlock(&listing);
    Py_XDECREF(ask); /* may run anything */
}

/* With the GIL. */
static int bury_dead(void *unused)
{
    struct provider *p = atomic_exchange(&dead, NULL);

    (void)unused;
    while (p) {
        struct provider *next = p->next_dead;

        let_go(p);
        PyMem_RawFree(p);
        p = next;
    }
    return 0;
}

/* The collector does not see what the engine holds, so a provider would keep alive all that it knows, to beyond the end: its
 * module, and the readers in there. */
PyObject *native_let_go_of_providers(PyObject *module, PyObject *unused)
{
    PyObject *ask;
    bool more;

    (void)module;
    (void)unused;
    native_set_log_hook(NULL);
    do {
        native_lock(&listing);
        ask = living ? take_off(living) : NULL;
        native_unlock(&listing);
        more = ask != NULL;
        Py_XDECREF(ask);
    } while (more);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- for the engine, on any thread ------------------ */

static void provider_retain(void *ctx)
{
    atomic_fetch_add_explicit(&((struct provider *)ctx)->refs, 1, memory_order_relaxed);
}

static void provider_release(void *ctx)
{
    struct provider *p = ctx;

    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    p->next_dead = atomic_load(&dead);
    while (!atomic_compare_exchange_weak(&dead, &p->next_dead, p))
        ;
    if (!native_interpreter_ends())
        Py_AddPendingCall(bury_dead,
                          NULL); /* when the interpreter has too many of them, the next source buries these, too */
}

/* The callable's own answer, see CredentialSource in _native.pyi. False with an exception for anything else. */
static bool answer_from_python(PyObject *o, sf_credential_answer *answer)
{
    const char *id, *secret, *token, *text;
    long long expires_us;
    int transient;

    if (!PyTuple_Check(o)) {
        PyErr_SetString(PyExc_TypeError, "not a tuple");
        return false;
    }
    if (PyTuple_GET_SIZE(o) == 2) {
        if (!PyArg_ParseTuple(o, "ps", &transient, &text))
            return false;
        sf_credential_answer_fail(answer, transient ? SF_UNAVAILABLE : SF_DENIED, text);
        return true;
    }
    if (!PyArg_ParseTuple(o, "sszL", &id, &secret, &token, &expires_us))
        return false;
    sf_credential_answer_set(answer, id, secret, token, expires_us);
    return true;
}

static void provider_ask(struct provider *p, sf_credential_answer *answer)
{
    PyObject *ask, *o;

    native_lock(&listing);
    ask = Py_XNewRef(p->ask);
    native_unlock(&listing);
    if (!ask) {
        sf_credential_answer_fail(answer, SF_UNAVAILABLE, AT_ITS_END);
        return;
    }
    o = PyObject_CallNoArgs(ask);
    Py_DECREF(ask);
    if (!o || !answer_from_python(o, answer)) {
        bool no_memory = PyErr_ExceptionMatches(PyExc_MemoryError);

        PyErr_Clear(); /* its text may hold anything */
        sf_credential_answer_fail(answer, no_memory ? SF_NOMEM : SF_INVALID,
                                  no_memory ? "out of memory" : "its answer cannot be used");
    }
    Py_XDECREF(o);
}

/* This thread's, which Python has not seen before. NULL without memory: PyGILState_Ensure() would end the process then, and
 * PyThreadState_New() of 3.11 crash. */
static PyThreadState *thread_state_new(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyThreadState_New(PyInterpreterState_Main());
#else
    PyAPI_FUNC(void) _PyThreadState_SetCurrent(PyThreadState * state);
    PyThreadState *state = _PyThreadState_Prealloc(PyInterpreterState_Main());

    if (state)
        _PyThreadState_SetCurrent(state);
    return state;
#endif
}

static void provider_get(void *ctx, sf_credential_answer *answer)
{
    PyThreadState *state = native_interpreter_ends() ? NULL : thread_state_new();

    if (!state) {
        sf_credential_answer_fail(answer, native_interpreter_ends() ? SF_UNAVAILABLE : SF_NOMEM,
                                  native_interpreter_ends() ? AT_ITS_END : "out of memory");
        return;
    }
    /* the engine's threads block all; a helper process would inherit that, and could not be terminated */
    pthread_sigmask(SIG_SETMASK, &((struct provider *)ctx)->blocked, NULL);
    PyEval_RestoreThread(state);
    provider_ask(ctx, answer);
    PyThreadState_Clear(state);
    PyThreadState_DeleteCurrent();
}

/* ---------------------------------------------------------------- the object ------------------------------------- */

static PyObject *source_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ask", "expires_us", NULL};
    struct py_credential_source *self;
    struct provider *p;
    long long expires_us = 0;
    PyObject *ask;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|L:CredentialSource", names, &ask, &expires_us))
        return NULL;
    bury_dead(NULL);
    self = (struct py_credential_source *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    p = PyMem_RawCalloc(1, sizeof(*p));
    if (!p) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    atomic_init(&p->refs, 1);
    pthread_sigmask(SIG_SETMASK, NULL, &p->blocked);
    p->ask = Py_NewRef(ask);
    native_lock(&listing);
    p->next = living;
    if (living)
        living->prev = p;
    living = p;
    native_unlock(&listing);
    self->source = (sf_credential_source){
        .size = sizeof(self->source),
        .get = provider_get,
        .retain = provider_retain,
        .release = provider_release,
        .ctx = p,
        .expires_us = expires_us,
    };
    return (PyObject *)self;
}

static void source_dealloc(PyObject *self)
{
    struct py_credential_source *o = (struct py_credential_source *)self;
    PyTypeObject *type = Py_TYPE(self);

    if (o->source.ctx)
        provider_release(o->source.ctx);
    type->tp_free(self);
    Py_DECREF(type);
}

const sf_credential_source *credential_source_of(PyObject *o)
{
    if (Py_TYPE(o)->tp_dealloc == source_dealloc) /* the type has no others below it */
        return &((struct py_credential_source *)o)->source;
    PyErr_Format(PyExc_TypeError, "credential_source must be a CredentialSource, not %.200s", Py_TYPE(o)->tp_name);
    return NULL;
}

static PyMethodDef source_methods[] = {
    NOT_COPIED,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot source_slots[] = {
    {Py_tp_new, source_new},
    {Py_tp_dealloc, source_dealloc},
    {Py_tp_methods, source_methods},
    {0, NULL},
};

PyType_Spec credential_source_spec = {
    .name = "shardyfusion._native.CredentialSource",
    .basicsize = sizeof(struct py_credential_source),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = source_slots,
};
