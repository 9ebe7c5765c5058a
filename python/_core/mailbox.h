/* Delivery: how the end of an operation comes from the engine to Python, to an event loop or to a thread that waits. */
#ifndef SHARDYFUSION_PYTHON_MAILBOX_H
#define SHARDYFUSION_PYTHON_MAILBOX_H

#include "state.h"

#include <pthread.h>
#include <stdatomic.h>

struct failures; /* of answers: see question.c */

/* Something to be told to an operation before it ends. Embedded by its owner. */
struct notice {
    struct notice *next;
    void (*drop)(struct notice *n); /* nobody will be told it; any thread */
};

/* One completion on its way from the engine to Python. One reference is the engine's, one the operation's. */
struct pending {
    atomic_uint refs;
    struct mailbox *mailbox; /* acquired; NULL in wait() */
    struct pending *next;    /* the mailbox's */
    sf_call *call;           /* the operation's reference; set after the start */
    atomic_bool in_mailbox;
    pthread_mutex_t lock;   /* covers what follows */
    pthread_cond_t wake_up; /* wait() only */
    bool done;              /* wait() only */
    bool deaf;              /* the operation has lost interest */
    struct notice *notices, *last_notice;
    PyObject *future;          /* what a drained completion wakes; NULL in wait(), and once that interest is lost */
    struct failures *failures; /* NULL: none, and likewise */
};

/* Takes over the mailbox (NULL: for wait()), also when it fails: NULL with an exception. */
struct pending *pending_new(PyObject *future, struct mailbox *mailbox);
void pending_await(struct pending *p, PyObject *future); /* that one from now on */
void pending_release(struct pending *p);
void pending_on_done(void *ctx, sf_call *call); /* loop thread */
/* Until done or told something, with the GIL released; false with an exception when a signal handler raised. */
bool pending_wait(struct pending *p);
/* Any thread: for its operation. False when that has lost interest. */
bool pending_tell(struct pending *p, struct notice *n);
struct notice *pending_take(struct pending *p); /* the oldest; NULL: none */
/* Its operation has lost interest, and gives its reference back. What answers have failed with is the caller's. */
struct failures *pending_forget(struct pending *p);

/* The port of the running event loop, and the loop; new references. NULL with an exception. */
PyObject *port_of_running_loop(native_state *st, PyObject **loop);
/* The running event loop of asyncio. NULL with a RuntimeError that says what is needed. */
PyObject *running_loop(native_state *st);
struct mailbox *port_mailbox(PyObject *self); /* acquired */
/* Keeps a future, and so the task that waits for it, until it is let go. False with an exception. */
bool port_keep(PyObject *self, PyObject *future);
void port_let_go(PyObject *self, PyObject *future); /* an exception that is set stays set */
void mailbox_release(struct mailbox *m);

#endif
