/* Look-ups of many keys in a pinned snapshot. Of the operation: `a` is the caller's sequence of keys, `n` the flags, `extra`
 * the batch. What memory holds is answered at once; the engine gets the rest as one call. */
#ifndef SHARDYFUSION_PYTHON_BATCH_H
#define SHARDYFUSION_PYTHON_BATCH_H

#include "state.h"

enum {
    BATCH_ALIGNED = 1,      /* a list aligned with the keys, not a dict of the distinct ones */
    BATCH_RETURN_ERRORS = 2 /* failed keys map to their exceptions */
};

/* Takes over the pin. */
enum op_outcome batch_start(struct operation *op, sf_snapshot *snap, PyObject **result);
/* The same with stored keys of one shard. */
enum op_outcome batch_start_stored(struct operation *op, sf_snapshot *snap, uint32_t db_id, PyObject **result);
/* After OP_GIVES_WAY, that is where op->extra is set. */
enum op_outcome batch_go_on(struct operation *op, PyObject **result);
PyObject *batch_take(struct operation *op, sf_call *call);
PyObject *batch_fail(struct operation *op, sf_call *call);
void batch_clear(struct operation *op);

/* Keys as given, of a batch that has ended well. */
Py_ssize_t batch_key_count(const struct operation *op);
/* The answers, a dict, as a list aligned with the keys, a tuple. */
PyObject *batch_aligned(PyObject *keys, PyObject *answers);
/* The argument of that name, which may be NULL, as flags. False with an exception. */
bool batch_on_error(PyObject *o, uint32_t *flags);

#endif
