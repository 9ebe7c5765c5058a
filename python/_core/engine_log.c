/* What the engine's stores and its copies on disk warn of, on its way to Python's logging. They do so on the engine's threads, which never enter Python:
 * the texts wait in a stack until the main thread comes by. */
#include "convert.h"

#include <stdatomic.h>

#include <string.h>

/* More than these are counted only: nobody reads more warnings than that between two operations. */
#define KEPT_WARNINGS 64u

struct warning {
    struct warning *next;
    char message[1024];
};

/* Of the process: the engine may outlive the module that began it. */
static _Atomic(struct warning *) newest;
static atomic_uint kept, lost;
static native_mutex hooking; /* covers what follows */
static PyObject *hook;

static void tell(const char *message)
{
    PyObject *asked, *told;

    native_lock(&hooking);
    asked = Py_XNewRef(hook);
    native_unlock(&hooking);
    if (!asked)
        return;
    told = PyObject_CallFunction(asked, "N", text_to_python(message));
    if (!told)
        PyErr_WriteUnraisable(asked); /* nobody's operation fails for it */
    Py_XDECREF(told);
    Py_DECREF(asked);
}

/* With the GIL, in the main thread. */
static int tell_all(void *unused)
{
    struct warning *w = atomic_exchange(&newest, NULL), *oldest = NULL;
    unsigned more = atomic_exchange(&lost, 0);
    char text[64];

    (void)unused;
    while (w) {
        struct warning *next = w->next;

        w->next = oldest;
        oldest = w;
        w = next;
    }
    while (oldest) {
        w = oldest;
        oldest = w->next;
        atomic_fetch_sub(&kept, 1);
        tell(w->message);
        PyMem_RawFree(w);
    }
    if (more > 0) {
        snprintf(text, sizeof(text), "%u more warnings were not kept", more);
        tell(text);
    }
    return 0;
}

static bool is_told(const char *component)
{
    return strcmp(component, "s3") == 0 || strcmp(component, "copies") == 0;
}

/* Any thread. What readers and writers meet is told by the package itself, with the fields of the contract. */
void native_log(void *ctx, sf_log_level level, const char *component, const char *message)
{
    struct warning *w;

    (void)ctx;
    if (level < SF_LOG_WARN || !is_told(component) || native_interpreter_ends())
        return;
    w = atomic_fetch_add(&kept, 1) < KEPT_WARNINGS ? PyMem_RawMalloc(sizeof(*w)) : NULL;
    if (!w) {
        atomic_fetch_sub(&kept, 1);
        atomic_fetch_add(&lost, 1);
    } else {
        snprintf(w->message, sizeof(w->message), "%s", message);
        w->next = atomic_load(&newest);
        while (!atomic_compare_exchange_weak(&newest, &w->next, w))
            ;
    }
    Py_AddPendingCall(tell_all, NULL); /* when there are too many of them, the next warning takes these along */
}

void native_set_log_hook(PyObject *log)
{
    PyObject *before;

    native_lock(&hooking);
    before = hook;
    hook = Py_XNewRef(log);
    native_unlock(&hooking);
    Py_XDECREF(before);
}
