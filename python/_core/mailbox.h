/* Delivery: how the end of an operation comes from the engine to Python, to an event loop or to a thread that waits. */
#ifndef SHARDYFUSION_PYTHON_MAILBOX_H
#define SHARDYFUSION_PYTHON_MAILBOX_H

#include "state.h"

#include <pthread.h>
#include <stdatomic.h>

struct question;

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
struct mailbox *port_mailbox(PyObject *port); /* acquired */
/* Keeps a future, and so the task that waits for it, until it is let go. False with an exception. */
bool port_keep(PyObject *port, PyObject *future);
void port_let_go(PyObject *port, PyObject *future); /* an exception that is set stays set */
void mailbox_release(struct mailbox *m);
/* What a drained completion does to its operation. False when there was no memory for it. */
bool op_wake(struct operation *op);

#endif
