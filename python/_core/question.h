/* What the engine asks Python while it works on an operation. */
#ifndef SHARDYFUSION_PYTHON_QUESTION_H
#define SHARDYFUSION_PYTHON_QUESTION_H

#include "mailbox.h"

/* What the engine asks Python while it works on an operation, see question.c. */
struct question;

/* Of a kind of questions. All may run on any thread. */
struct question_kind {
    /* Gives the engine an answer, with the GIL. *taken: false when nobody waits for it. False with an exception for what is no
     * answer to that question. */
    bool (*answer)(void *request, const char *what, PyObject *value, bool *taken);
    bool (*fail)(void *request, sf_status code, const char *text); /* whether somebody waited for it */
    void (*release)(void *request);                                /* without an answer, it is one that failed */
    PyObject *(*about)(void *request, const char *what);           /* with the GIL; NULL: the text or the number */
};

/* Any thread, without the GIL: the operation to which `p` belongs, which the caller keeps until this returns, is to take it
 * to its `ask`. Takes over the request; `what` is static, the text (NULL: None, or the number) is copied. When nobody can be
 * asked, it is released. */
void question_put(struct pending *p, const struct question_kind *kind, void *request, const char *what, const char *text,
                  size_t number);
void question_append(struct question **first, struct question **last, struct question *q);
struct question *question_take_first(struct question **first, struct question **last);
void question_drop(struct question *q); /* with the GIL or without */
PyObject *question_to_python(native_state *st, struct question *q); /* takes over, also when it fails */

/* The failure that was told of a question about `text`, the very exception; of the one that was asked last. NULL: none such.
 * Borrowed. */
PyObject *op_failure_of(const struct operation *op, const char *text);
PyObject *op_last_failure(const struct operation *op, sf_status code);
void op_failures_free(struct operation *op);
int op_failures_traverse(const struct operation *op, visitproc visit, void *arg);
/* Raises that, or the error of the call. */
void op_raise(struct operation *op, sf_call *call);

/* Gives `op`, which may be NULL, its `ask`, which may be NULL or None. */
PyObject *op_asking(PyObject *op, PyObject *ask);

/* Of a ShardOpener, borrowed; NULL with a TypeError for anything else. */
const struct sf_shard_opener *shard_opener_of(PyObject *o);
PyObject *shard_number(const sf_snapshot *s, uint32_t db_id); /* None: not opened, or none of the caller's */

extern const struct sf_manifest_source manifest_questions; /* asks the operation whose pending is the call's ctx */

#endif
