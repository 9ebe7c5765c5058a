/* The objects that hold a part of the engine, for the files that look into each other's. */
#ifndef SHARDYFUSION_PYTHON_OBJECTS_H
#define SHARDYFUSION_PYTHON_OBJECTS_H

#include "observer.h"
#include "operation.h"

struct py_snapshot {
    PyObject_HEAD
    native_state *st;
    sf_snapshot *s; /* NULL: given back */
};
PyObject *snapshot_to_python(native_state *st, sf_snapshot *s); /* takes over the reference */
/* A reference of the caller's, who runs Python code, which may give the snapshot back, or has other threads beside him that may; NULL:
 * it was given back. */
static inline sf_snapshot *snapshot_acquired(struct py_snapshot *o)
{
    sf_snapshot *s;

    Py_BEGIN_CRITICAL_SECTION(o);
    s = o->s ? sf_snapshot_acquire(o->s) : NULL;
    Py_END_CRITICAL_SECTION();
    return s;
}
sf_snapshot *snapshot_held(PyObject *snapshot); /* the same, with a ValueError */
/* The value of op->a, a key as callers write it, in a snapshot that the operation holds: the start of it, and the answer. */
enum op_outcome look_up_pinned(struct operation *op, sf_snapshot *s, PyObject **result);

/* A batch of rows as (schema, array, how many), two capsules of Arrow's. Takes the array over. NULL with an exception. */
PyObject *arrow_to_python(native_state *st, struct ArrowArray *array, sf_key_encoding keys);
bool arrow_keys_from_python(const char *name, sf_key_encoding *out); /* false with a ValueError */

PyObject *scan_open(native_state *st, sf_snapshot *s, const sf_scan_options *o); /* a Scan; NULL with an exception */

struct py_reader {
    PyObject_HEAD
    native_state *st;
    sf_reader *r;
    bool asks; /* its manifests come from Python */
};

/* Takes tokens of a TokenBucket, or tells in how many seconds they will be there (above 0). False with an exception. */
bool token_bucket_take(PyObject *bucket, double tokens, double *missing_s);

/* Of a ShardOpener, borrowed; NULL with a TypeError for anything else. */
const struct sf_shard_opener *shard_opener_of(PyObject *o);
PyObject *shard_number(const sf_snapshot *s, uint32_t db_id); /* None: not opened, or none of the caller's */

extern const struct sf_manifest_source manifest_questions; /* asks the operation whose pending is the call's ctx */

PyObject *snapshot_info_to_python(const sf_snapshot_info *i);
PyObject *shard_info_to_python(const sf_shard_info *i);

#endif
