/* From the engine's loop thread to asyncio. Each event loop has a mailbox: the loop thread appends what is done and, if
 * the mailbox was empty, writes an eventfd; the event loop drains all of it in one wakeup. */
#include "mailbox.h"
#include "module.h"

#include <structmember.h>

#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"

/* How often a blocked wait() looks for signals. */
#define SIGNAL_CHECK_MS 100

struct mailbox {
    atomic_uint refs; /* the Port's and one for each pending completion */
    int fd;
    pthread_mutex_t lock; /* covers what follows, for a few instructions */
    struct pending *head, *tail;
    bool closed; /* nobody will drain it any more */
};

/* The Python side of a mailbox. Its event loop owns it, as the reader of the eventfd, and nobody else keeps it: so a loop
 * that is closed or dropped takes with it what still waits there. Until then the port keeps the futures that the engine
 * will complete, as a loop keeps those of its sockets: a task that waits for one may have no other owner. */
struct port {
    PyObject_HEAD
    struct mailbox *mailbox;
    PyObject *waiting; /* set of futures */
    PyObject *weakrefs;
};

/* ---------------------------------------------------------------- mailboxes -------------------------------------- */

static struct mailbox *mailbox_new(void)
{
    struct mailbox *m = PyMem_RawCalloc(1, sizeof(*m));

    if (!m) {
        PyErr_NoMemory();
        return NULL;
    }
    m->fd = SF_FD(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (m->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        PyMem_RawFree(m);
        return NULL;
    }
    atomic_init(&m->refs, 1);
    pthread_mutex_init(&m->lock, NULL);
    return m;
}

void mailbox_release(struct mailbox *m)
{
    if (atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    close(m->fd);
    pthread_mutex_destroy(&m->lock);
    PyMem_RawFree(m);
}

/* Takes over the reference to `p`, which is in there once, however much there is to tell. */
static void mailbox_put(struct mailbox *m, struct pending *p)
{
    bool closed, was_empty;
    uint64_t one = 1;

    if (atomic_exchange(&p->in_mailbox, true)) {
        pending_release(p);
        return;
    }
    pthread_mutex_lock(&m->lock);
    closed = m->closed;
    was_empty = !m->head;
    if (!closed) {
        p->next = NULL;
        if (m->tail)
            m->tail->next = p;
        else
            m->head = p;
        m->tail = p;
        if (was_empty) {
            /* Under the lock: a drained mailbox may be closed at once. Fails only when the counter is full of wakeups
             * nobody has read yet. */
            ssize_t n = write(m->fd, &one, sizeof(one));

            (void)n;
        }
    }
    pthread_mutex_unlock(&m->lock);
    if (closed)
        pending_release(p);
}

static struct pending *mailbox_take_all(struct mailbox *m, bool close_it)
{
    struct pending *all;
    uint64_t count;
    ssize_t n = read(m->fd, &count, sizeof(count)); /* before looking, so that no wakeup is lost */

    (void)n;
    pthread_mutex_lock(&m->lock);
    all = m->head;
    m->head = m->tail = NULL;
    m->closed = m->closed || close_it;
    pthread_mutex_unlock(&m->lock);
    return all;
}

/* ---------------------------------------------------------------- pending completions ---------------------------- */

struct pending *pending_new(PyObject *future, struct mailbox *mailbox)
{
    struct pending *p = PyMem_RawCalloc(1, sizeof(*p));

    if (!p) {
        PyErr_NoMemory();
        if (mailbox)
            mailbox_release(mailbox);
        return NULL;
    }
    atomic_init(&p->refs, 2);
    p->future = Py_XNewRef(future);
    p->mailbox = mailbox;
    pthread_mutex_init(&p->lock, NULL);
    if (!mailbox) {
        pthread_condattr_t monotonic; /* a clock that is set must not lengthen a wait */

        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_cond_init(&p->wake_up, &monotonic);
        pthread_condattr_destroy(&monotonic);
    }
    return p;
}

void pending_await(struct pending *p, PyObject *future)
{
    PyObject *before;

    pthread_mutex_lock(&p->lock);
    before = p->future;
    p->future = Py_NewRef(future);
    pthread_mutex_unlock(&p->lock);
    Py_XDECREF(before);
}

void pending_release(struct pending *p)
{
    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    sf_call_release(p->call);
    if (p->mailbox)
        mailbox_release(p->mailbox);
    else
        pthread_cond_destroy(&p->wake_up);
    pthread_mutex_destroy(&p->lock);
    PyMem_RawFree(p);
}

void pending_on_done(void *ctx, sf_call *call)
{
    struct pending *p = ctx;

    (void)call;
    if (p->mailbox) {
        mailbox_put(p->mailbox, p);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->done = true;
    pthread_cond_signal(&p->wake_up);
    pthread_mutex_unlock(&p->lock);
    pending_release(p);
}

/* ---------------------------------------------------------------- notices ---------------------------------------- */

bool pending_tell(struct pending *p, struct notice *n)
{
    bool deaf;

    n->next = NULL;
    pthread_mutex_lock(&p->lock);
    deaf = p->deaf;
    if (!deaf) {
        if (p->last_notice)
            p->last_notice->next = n;
        else
            p->notices = n;
        p->last_notice = n;
        if (!p->mailbox)
            pthread_cond_signal(&p->wake_up);
    }
    pthread_mutex_unlock(&p->lock);
    if (!deaf && p->mailbox) {
        atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
        mailbox_put(p->mailbox, p);
    }
    return !deaf;
}

struct notice *pending_take(struct pending *p)
{
    struct notice *n;

    pthread_mutex_lock(&p->lock);
    n = p->notices;
    if (n)
        p->notices = n->next;
    if (!p->notices)
        p->last_notice = NULL;
    pthread_mutex_unlock(&p->lock);
    return n;
}

struct failures *pending_forget(struct pending *p)
{
    struct failures *failures;
    struct notice *n;
    PyObject *future;

    pthread_mutex_lock(&p->lock);
    p->deaf = true;
    future = p->future;
    failures = p->failures;
    p->future = NULL;
    p->failures = NULL;
    pthread_mutex_unlock(&p->lock);
    Py_XDECREF(future);
    while ((n = pending_take(p)))
        n->drop(n);
    sf_call_release(p->call); /* what was told may keep it: in the traceback of an exception, for one */
    p->call = NULL;
    pending_release(p);
    return failures;
}

/* ---------------------------------------------------------------- waiting ---------------------------------------- */

static bool wait_a_little(struct pending *p)
{
    struct timespec until;
    bool woken;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += SIGNAL_CHECK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&p->lock);
    while (!p->done && !p->notices && pthread_cond_timedwait(&p->wake_up, &p->lock, &until) == 0)
        continue;
    woken = p->done || p->notices;
    pthread_mutex_unlock(&p->lock);
    return woken;
}

bool pending_wait(struct pending *p)
{
    for (;;) {
        bool woken;

        Py_BEGIN_ALLOW_THREADS woken = wait_a_little(p);
        Py_END_ALLOW_THREADS if (woken) return true;
        if (PyErr_CheckSignals() < 0)
            return false;
    }
}

/* ---------------------------------------------------------------- ports ------------------------------------------ */

/* False when there was no memory for it. */
static bool wake(struct pending *p)
{
    PyObject *future, *done, *set = NULL;
    int finished;
    bool woken;

    pthread_mutex_lock(&p->lock);
    future = Py_XNewRef(p->future);
    pthread_mutex_unlock(&p->lock);
    if (!future)
        return true;
    done = PyObject_CallMethod(future, "done", NULL);
    finished = done ? PyObject_IsTrue(done) : -1;
    if (finished == 0) /* else it was cancelled, and the task is on its way to tell us */
        set = PyObject_CallMethod(future, "set_result", "O", Py_None);
    woken = finished > 0 || set || !PyErr_ExceptionMatches(PyExc_MemoryError);
    if (finished < 0 || (finished == 0 && !set))
        PyErr_WriteUnraisable(future);
    Py_XDECREF(done);
    Py_XDECREF(set);
    Py_DECREF(future);
    return woken;
}

static PyObject *port_drain(PyObject *self, PyObject *unused)
{
    struct port *port = (struct port *)self;

    (void)unused;
    for (struct pending *p = mailbox_take_all(port->mailbox, false), *next; p; p = next) {
        next = p->next;
        atomic_store(&p->in_mailbox, false); /* before looking at it: what comes from now on, wakes again */
        if (!wake(p))
            mailbox_put(port->mailbox, p); /* in the next turn again, or a task would wait for ever */
        else
            pending_release(p);
    }
    Py_RETURN_NONE;
}

static int port_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct port *)self)->waiting);
    return 0;
}

static int port_clear(PyObject *self)
{
    Py_CLEAR(((struct port *)self)->waiting);
    return 0;
}

static void port_dealloc(PyObject *self)
{
    struct port *port = (struct port *)self;
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (port->weakrefs)
        PyObject_ClearWeakRefs(self);
    port_clear(self);
    if (port->mailbox) {
        for (struct pending *p = mailbox_take_all(port->mailbox, true), *next; p; p = next) {
            next = p->next;
            pending_release(p);
        }
        mailbox_release(port->mailbox);
    }
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

bool port_keep(PyObject *self, PyObject *future)
{
    return PySet_Add(((struct port *)self)->waiting, future) == 0;
}

void port_let_go(PyObject *self, PyObject *future)
{
    struct port *port = (struct port *)self;
    PyObject *type, *value, *tb;

    PyErr_Fetch(&type, &value, &tb); /* this is part of ending an operation, for whatever reason */
    if (port->waiting && PySet_Discard(port->waiting, future) < 0)
        PyErr_WriteUnraisable(future);
    PyErr_Restore(type, value, tb);
}

struct mailbox *port_mailbox(PyObject *self)
{
    struct mailbox *m = ((struct port *)self)->mailbox;

    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

static PyMethodDef port_methods[] = {
    NOT_COPIED,
    {"drain", port_drain, METH_NOARGS, "Wakes what has been completed."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef port_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct port, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot port_slots[] = {
    {Py_tp_dealloc, port_dealloc}, {Py_tp_traverse, port_traverse}, {Py_tp_clear, port_clear},
    {Py_tp_members, port_members}, {Py_tp_methods, port_methods},   {0, NULL},
};

PyType_Spec port_spec = {
    .name = "shardyfusion._native.Port",
    .basicsize = sizeof(struct port),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = port_slots,
};

static struct port *port_alloc(native_state *st)
{
    struct port *port = PyObject_GC_New(struct port, st->port_type);

    if (!port)
        return NULL;
    port->weakrefs = NULL;
    port->mailbox = mailbox_new();
    port->waiting = port->mailbox ? PySet_New(NULL) : NULL;
    PyObject_GC_Track((PyObject *)port);
    if (!port->waiting) {
        Py_DECREF(port);
        return NULL;
    }
    return port;
}

static void port_detach(struct port *port, PyObject *loop)
{
    PyObject *type, *value, *tb, *removed;

    PyErr_Fetch(&type, &value, &tb);
    removed = PyObject_CallMethod(loop, "remove_reader", "i", port->mailbox->fd);
    if (!removed)
        PyErr_WriteUnraisable(loop);
    Py_XDECREF(removed);
    PyErr_Restore(type, value, tb);
}

static PyObject *port_new(native_state *st, PyObject *loop)
{
    struct port *port = port_alloc(st);
    PyObject *drain, *done = NULL, *ref = NULL;

    if (!port)
        return NULL;
    drain = PyObject_GetAttrString((PyObject *)port, "drain");
    if (drain)
        done = PyObject_CallMethod(loop, "add_reader", "iO", port->mailbox->fd, drain);
    Py_XDECREF(drain);
    if (done)
        ref = PyWeakref_NewRef((PyObject *)port, NULL);
    if (done && (!ref || PyObject_SetItem(st->ports, loop, ref) < 0)) {
        port_detach(port, loop);
        Py_CLEAR(done);
    }
    Py_XDECREF(ref);
    if (!done) {
        Py_DECREF(port);
        return NULL;
    }
    Py_DECREF(done);
    return (PyObject *)port;
}

PyObject *running_loop(native_state *st)
{
    PyObject *loop = PyObject_CallNoArgs(st->get_running_loop);

    if (!loop && PyErr_ExceptionMatches(PyExc_RuntimeError))
        PyErr_SetString(PyExc_RuntimeError,
                        "no running event loop of asyncio, which this package's coroutines need: under trio, or without a "
                        "loop, use the blocking readers and writers, in threads (trio.to_thread.run_sync)");
    return loop;
}

PyObject *native_running_loop(PyObject *module, PyObject *unused)
{
    (void)unused;
    return running_loop(PyModule_GetState(module));
}

PyObject *port_of_running_loop(native_state *st, PyObject **loop)
{
    PyObject *port = NULL, *ref;

    *loop = running_loop(st);
    if (!*loop)
        return NULL;
    ref = PyObject_GetItem(st->ports, *loop);
    if (ref) {
        port = PyObject_CallNoArgs(ref); /* what it refers to, or None */
        Py_DECREF(ref);
        if (port == Py_None)
            Py_CLEAR(port);
    } else if (PyErr_ExceptionMatches(PyExc_KeyError)) {
        PyErr_Clear();
    }
    if (!port && !PyErr_Occurred())
        port = port_new(st, *loop);
    if (!port)
        Py_CLEAR(*loop);
    return port;
}
