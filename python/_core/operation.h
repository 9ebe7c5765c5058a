/* Operations: what Python awaits or waits for. */
#ifndef SHARDYFUSION_PYTHON_OPERATION_H
#define SHARDYFUSION_PYTHON_OPERATION_H

#include "question.h"

enum op_outcome { OP_FAILED = -1, OP_PENDING, OP_FINISHED, OP_DELEGATED, OP_AWAITS_FIRST, OP_GIVES_WAY };

/* What look-ups answer. */
enum {
    ANSWERS_ALIGNED = 1,  /* a list aligned with the keys, not a dict of the distinct ones */
    ANSWERS_ERRORS = 2,   /* failed keys map to their exceptions */
    ANSWERS_FOUND = 4,    /* whether there is a value, not the value */
    ANSWERS_ONE_ERROR = 8 /* of shards that fail together the first one's, not a group */
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
     * Python. Only for one that is measured, and was not cancelled and did not follow another coroutine. */
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
    uint32_t n;          /* a shard, a number of rows */
    uint32_t answers;    /* of look-ups: ANSWERS_* */
    uint64_t started_ns; /* of a kind with `ended`; 0: not measured; OP_UNTIMED: counted, but no clock was read */
    enum op_state state;
    bool asks_engine;        /* memory did not have all */
    bool blocking;           /* inside wait(): no event loop */
    bool finalized;          /* which it can be once only, so it does not serve again */
    PyObject *waiter;        /* RUNNING: the future's iterator; ANSWERING, FOLLOWING, AWAITING: the other coroutine */
    PyObject *port;          /* RUNNING: keeps the future */
    PyObject *future;        /* RUNNING */
    struct pending *pending; /* RUNNING, ANSWERING */
    PyObject *ask;           /* takes the engine's questions: see question.c; NULL: there are none */
    void *extra;             /* the kind's own */
};

/* `owner`, `a`, `b` may be NULL; new references are taken. */
PyObject *op_new(native_state *st, const struct op_kind *kind, PyObject *owner, PyObject *a, PyObject *b,
                 int64_t timeout_ms);
/* Runs it without an event loop: its method `wait`. */
PyObject *op_wait(PyObject *self, PyObject *unused);
/* Before a `_start` function of the library, whose last arguments are sf_call_done_fn pending_on_done and what this
 * returns; NULL with an exception. After it: op_begun() with what it returned. */
struct pending *op_begin(struct operation *op);
enum op_outcome op_begun(struct operation *op, sf_status rc, sf_call *call, const sf_error *err);
/* Instead of op_begun() when there is nothing to start after all. */
void op_not_begun(struct operation *op);
/* Gives `op`, which may be NULL, its `ask`, which may be NULL or None. */
PyObject *op_asking(PyObject *op, PyObject *ask);
/* Raises what the last question's answer failed with, if the call failed because of it, or the error of the call. */
void op_raise(struct operation *op, sf_call *call);
void op_free_list_open(native_state *st); /* nothing serves again before */
int op_free_list_traverse(native_state *st, visitproc visit, void *arg);
void op_free_list_clear(native_state *st);

#endif
