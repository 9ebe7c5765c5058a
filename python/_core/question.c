/* The engine asks, Python answers. What a caller plugs in (a manifest store) is Python, and the loop thread never enters that:
 * it puts a question to the operation for which it works, wakes that through its mailbox, and goes on. The operation, which
 * runs in the caller's task or waits in the caller's thread, takes it to its `ask`, a callable of one argument, the Question:
 *
 *   loop thread    question_put() --> pending's list, mailbox
 *   asyncio        the task wakes: ask(question) returns a coroutine, which the operation steps as its own: in the caller's
 *                  task, context and cancellation; or None, when somebody else will answer
 *   blocking       wait() wakes: ask(question) on that thread, which answers before it returns None
 *   any thread     question.answer(value), or question.fail(exception, status)
 *
 * An exception does not pass through the engine, which gets a status and a text: the operation keeps it, and raises that very
 * object when its call has failed because of it. A question whose operation ends first is given back without an answer. */
#include "convert.h"
#include "module.h"
#include "question.h"

#include "base/container.h"

struct question {
    struct notice notice; /* to its operation */
    const struct question_kind *kind;
    void *request;
    const char *what;
    char *text; /* NULL: the number */
    size_t number;
    struct pending *pending; /* acquired */
};

/* What answers have failed with, newest first: a handful. */
struct failures {
    struct answer_failure {
        PyObject *exception;
        char *text; /* what the question was about, or NULL */
        sf_status code;
        struct answer_failure *next;
    } *first;
    bool last_counts; /* the first one is of the question that was asked last */
};

struct py_question {
    PyObject_HEAD
    struct question *q;
};

/* ---------------------------------------------------------------- without the GIL -------------------------------- */

/* Not PyMem_Raw*(): whoever traces Python's memory would have the loop thread wait for the GIL. */
void question_put(struct pending *p, const struct question_kind *kind, void *request, const char *what,
                  const char *text, size_t number)
{
    struct question *q = calloc(1, sizeof(*q));
    char *copy = q && text ? strdup(text) : NULL;

    if (!q || (text && !copy)) {
        free(q);
        kind->fail(request, SF_NOMEM, "a question");
        kind->release(request);
        return;
    }
    *q = (struct question){.notice = {.drop = question_drop},
                           .kind = kind,
                           .request = request,
                           .what = what,
                           .text = copy,
                           .number = number,
                           .pending = p};
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    if (!pending_tell(p, &q->notice))
        question_drop(&q->notice);
}

void question_drop(struct notice *n)
{
    struct question *q = sf_container_of(n, struct question, notice);

    q->kind->release(q->request);
    pending_release(q->pending);
    free(q->text);
    free(q);
}

/* ---------------------------------------------------------------- failures --------------------------------------- */

static void failure_free(struct answer_failure *f)
{
    if (!f)
        return;
    Py_XDECREF(f->exception);
    PyMem_RawFree(f->text);
    PyMem_RawFree(f);
}

void failures_free(struct failures *all)
{
    while (all && all->first) {
        struct answer_failure *f = all->first;

        all->first = f->next;
        failure_free(f);
    }
    PyMem_RawFree(all);
}

int failures_traverse(const struct failures *all, visitproc visit, void *arg)
{
    for (struct answer_failure *f = all ? all->first : NULL; f; f = f->next)
        Py_VISIT(f->exception);
    return 0;
}

static char *copy_text(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = PyMem_RawMalloc(n);

    return copy ? memcpy(copy, text, n) : NULL;
}

/* Of its operation, unless that has lost interest. Takes over `f`. */
static void failures_add(struct pending *p, struct failures *spare, struct answer_failure *f)
{
    pthread_mutex_lock(&p->lock);
    if (!p->deaf && !p->failures) {
        p->failures = spare;
        spare = NULL;
    }
    if (!p->deaf) {
        f->next = p->failures->first;
        p->failures->first = f;
        p->failures->last_counts = true;
        f = NULL;
    }
    pthread_mutex_unlock(&p->lock);
    failure_free(f);
    PyMem_RawFree(spare);
}

/* False with an exception. */
static bool note_failure(struct pending *p, const char *text, PyObject *exception, sf_status code)
{
    struct answer_failure *f = PyMem_RawCalloc(1, sizeof(*f));
    struct failures *spare = PyMem_RawCalloc(1, sizeof(*spare));

    if (f && text)
        f->text = copy_text(text);
    if (!f || !spare || (text && !f->text)) {
        failure_free(f);
        PyMem_RawFree(spare);
        PyErr_NoMemory();
        return false;
    }
    f->exception = Py_NewRef(exception);
    f->code = code;
    failures_add(p, spare, f);
    return true;
}

PyObject *failure_of(struct pending *p, const char *text)
{
    PyObject *exception = NULL;

    pthread_mutex_lock(&p->lock);
    for (struct answer_failure *f = p->failures ? p->failures->first : NULL; f && !exception; f = f->next)
        if (f->text && strcmp(f->text, text) == 0)
            exception = Py_NewRef(f->exception);
    pthread_mutex_unlock(&p->lock);
    return exception;
}

PyObject *last_failure(struct pending *p, sf_status code)
{
    PyObject *exception = NULL;

    pthread_mutex_lock(&p->lock);
    if (p->failures && p->failures->last_counts && p->failures->first->code == code)
        exception = Py_NewRef(p->failures->first->exception);
    pthread_mutex_unlock(&p->lock);
    return exception;
}

/* Another question is asked. */
static void last_is_past(struct pending *p)
{
    pthread_mutex_lock(&p->lock);
    if (p->failures)
        p->failures->last_counts = false;
    pthread_mutex_unlock(&p->lock);
}

/* ---------------------------------------------------------------- the object ------------------------------------- */

PyObject *question_to_python(native_state *st, struct notice *n)
{
    struct py_question *o = PyObject_New(struct py_question, st->question_type);

    if (!o) {
        question_drop(n);
        return NULL;
    }
    o->q = sf_container_of(n, struct question, notice);
    last_is_past(o->q->pending);
    return (PyObject *)o;
}

static PyObject *question_answer(PyObject *self, PyObject *value)
{
    struct question *q = ((struct py_question *)self)->q;
    bool taken;

    return q->kind->answer(q->request, q->what, value, &taken) ? PyBool_FromLong(taken) : NULL;
}

static PyObject *question_fail(PyObject *self, PyObject *args)
{
    struct question *q = ((struct py_question *)self)->q;
    PyObject *exception, *said;
    const char *name = "IO", *text;
    sf_status code;
    bool taken;

    if (!PyArg_ParseTuple(args, "O|s:fail", &exception, &name) || !status_of_name(name, &code))
        return NULL;
    if (!PyExceptionInstance_Check(exception)) {
        PyErr_SetString(PyExc_TypeError, "fail() needs an exception");
        return NULL;
    }
    if (!note_failure(q->pending, q->text, exception, code))
        return NULL;
    said = PyObject_Str(exception);
    text = said ? PyUnicode_AsUTF8(said) : NULL;
    if (!text)
        PyErr_Clear(); /* it has no text, then */
    taken = q->kind->fail(q->request, code, text ? text : Py_TYPE(exception)->tp_name);
    Py_XDECREF(said);
    return PyBool_FromLong(taken);
}

static PyObject *question_what(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((struct py_question *)self)->q->what);
}

static PyObject *question_about(PyObject *self, void *unused)
{
    const struct question *q = ((struct py_question *)self)->q;
    PyObject *about = NULL;

    (void)unused;
    if (q->kind->about) {
        Py_BEGIN_CRITICAL_SECTION(self);
        about = q->kind->about(q->request, q->what);
        Py_END_CRITICAL_SECTION();
        return about;
    }
    return q->text ? PyUnicode_FromString(q->text) : PyLong_FromSize_t(q->number);
}

static void question_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    question_drop(&((struct py_question *)self)->q->notice);
    type->tp_free(self);
    Py_DECREF(type);
}

NATIVE_ALONE(question_answer);
NATIVE_ALONE(question_fail);

static PyMethodDef question_methods[] = {
    NOT_COPIED,
    {"answer", ALONE(question_answer), METH_O, "answer($self, value, /)\n--\n\nWhether the engine still waited for it."},
    {"fail", ALONE(question_fail), METH_VARARGS,
     "fail($self, exception, status='IO', /)\n--\n\nThe same, with why there is no answer. The operation raises that very exception if it fails\n"
     "because of it."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef question_getset[] = {
    {"what", question_what, NULL, "What is asked.", NULL},
    {"about", question_about, NULL, "What about: a text, a number, or what the kind of question has.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot question_slots[] = {
    {Py_tp_dealloc, question_dealloc},
    {Py_tp_methods, question_methods},
    {Py_tp_getset, question_getset},
    {0, NULL},
};

PyType_Spec question_spec = {
    .name = "shardyfusion._native.Question",
    .basicsize = sizeof(struct py_question),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = question_slots,
};
