/* What the engine asks Python while it works on an operation, see question.c; and what answers have failed with. Knows an operation as
 * its pending only. */
#ifndef SHARDYFUSION_PYTHON_QUESTION_H
#define SHARDYFUSION_PYTHON_QUESTION_H

#include "mailbox.h"

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
void question_put(struct pending *p, const struct question_kind *kind, void *request, const char *what,
                  const char *text, size_t number);
void question_drop(struct notice *n); /* with the GIL or without */
/* What question_put() has told, as a Question; takes over, also when it fails. */
PyObject *question_to_python(native_state *st, struct notice *n);

/* The failure that was told of a question about `text`, the very exception; of the one that was asked last. NULL: none such. */
PyObject *failure_of(struct pending *p, const char *text);
PyObject *last_failure(struct pending *p, sf_status code);
void failures_free(struct failures *all); /* may run anything */
int failures_traverse(const struct failures *all, visitproc visit, void *arg);

#endif
