/* Look-ups of many keys in a pinned snapshot. Of the operation: `a` is the caller's sequence of keys, `extra` the
 * batch. What memory holds is answered at once; the engine gets the rest as one call. */
#ifndef SHARDYFUSION_PYTHON_BATCH_H
#define SHARDYFUSION_PYTHON_BATCH_H

#include "observer.h"
#include "operation.h"

/* What a batch passes when its keys are counted, and before it looks at any of them. */
struct batch_gate {
    /* OP_FINISHED, OP_FAILED, or OP_AWAITS_FIRST. `timeout_ms` is what is left of the batch's time. */
    enum op_outcome (*ask)(struct operation *op, Py_ssize_t keys, int64_t timeout_ms);
    /* Afterwards. Puts the pin if there is none yet. False with an exception. */
    bool (*passed)(struct operation *op, Py_ssize_t keys, sf_snapshot **snap);
    /* For the first of the keys that are bytes. False with an exception. */
    bool (*bytes_key)(struct operation *op, PyObject *key, const sf_snapshot *snap);
};

/* Takes over the pin, which may be NULL when the gate puts it. */
enum op_outcome batch_start(struct operation *op, sf_snapshot *snap, const struct batch_gate *gate, PyObject **result);
/* The same with stored keys of one shard, without a gate. */
enum op_outcome batch_start_stored(struct operation *op, sf_snapshot *snap, uint32_t db_id, PyObject **result);
/* After OP_GIVES_WAY and OP_AWAITS_FIRST, that is where op->extra is set. */
enum op_outcome batch_go_on(struct operation *op, PyObject **result);
PyObject *batch_take(struct operation *op, sf_call *call);
PyObject *batch_fail(struct operation *op, sf_call *call);
void batch_clear(struct operation *op);

/* Of a batch that has ended well, for those who are told. */
void batch_counts(const struct operation *op, struct look_up *u);
/* The answers, a dict, in the form that op->answers says. */
PyObject *batch_aligned(const struct operation *op, PyObject *answers);
/* The argument of that name, which may be NULL, as op->answers. False with an exception. */
bool batch_on_error(PyObject *o, uint32_t *flags);

#endif
