/* What every file of the extension shares: the module's state, and the engine. Everything that touches a Python
 * object holds the GIL, or on a free-threaded interpreter is attached to it (alone.h says what that takes); the engine's loop thread
 * never enters Python. */
#ifndef SHARDYFUSION_PYTHON_STATE_H
#define SHARDYFUSION_PYTHON_STATE_H

#include "alone.h"

#include <stdbool.h>
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

#define FREE_OPS 64u

typedef struct native_state {
    PyTypeObject *operation_type, *snapshot_type, *scan_type, *reader_type, *core_type, *blocking_core_type, *port_type,
        *store_type, *writer_type, *shuffle_type, *shard_writer_type, *store_events_type, *credential_source_type,
        *token_bucket_type, *manifest_type, *look_ups_type, *question_type, *cel_rule_type, *cel_shards_type,
        *shard_opener_type, *row_diff_type, *lease_type;
    /* hooks of the package; NULL until set */
    PyObject *error_hook, *key_error_hook, *multi_error_hook;
    PyObject *get_running_loop; /* asyncio's */
    PyObject *time, *monotonic; /* the module, and a name in it */
    PyObject *name_emit;        /* of collectors */
    PyObject *payload_names[PAYLOAD_NAMES], *text_hit, *text_miss;
    PyObject *ports;              /* WeakKeyDictionary: event loop -> weak reference to its Port */
    native_mutex starting;        /* covers the start of the engine */
    sf_runtime *rt;               /* the process's engine, NULL until it is needed */
    unsigned rt_generation;       /* sf__fork_generation() of the process that made it */
    PyObject *free_ops[FREE_OPS]; /* operations that are over, for reuse: nobody else has a reference */
    unsigned free_op_count, free_op_most;
    PyObject *spare_stop;   /* a StopIteration for reuse: see stop.c. NULL: none yet */
    bool stop_is_full;      /* it still has the last value */
    Py_ssize_t turn_left;   /* work before somebody looks at the clock: see turn.h */
    PyObject *loop_has_run; /* what event loops call */
} native_state;

extern struct PyModuleDef native_module;

/* Of a type made from this module, or of a class derived from one. Never NULL. */
native_state *native_state_of(PyTypeObject *type);
/* The engine, started at first use, afresh in a forked child. NULL with an exception. */
sf_runtime *native_runtime(native_state *st);

/* After which no other thread gets the GIL. */
static inline bool native_interpreter_ends(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing() || !Py_IsInitialized();
#else
    return _Py_IsFinalizing() || !Py_IsInitialized();
#endif
}

/* Of the runtime, any thread: warnings of stores reach the hook, in the main thread. */
void native_log(void *ctx, sf_log_level level, const char *component, const char *message);
void native_set_log_hook(PyObject *log); /* NULL: nobody is told */

/* Whether the engine's objects may be touched: not in a forked child of the process that made them. */
bool native_owns_engine(const native_state *st);

/* Makes these methods of the type (METH_FASTCALL | METH_KEYWORDS; a NULL name ends them) known as coroutine functions. Negative with an
 * exception. */
typedef PyObject *(*coroutine_function)(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
struct coroutine_method_def {
    const char *name;
    coroutine_function function;
};
int mark_coroutine_methods(PyObject *module, PyTypeObject *type, const struct coroutine_method_def *methods);

/* What every object with a part of the engine says to copy and pickle; first in the tables of methods. */
#define NOT_COPIED                                 \
    {"__reduce__", native_not_copied, METH_NOARGS, \
     "__reduce__()\n--\n\nRaises: it belongs to the engine of its process."}
PyObject *native_not_copied(PyObject *self, PyObject *unused);

#endif
