/* What the GIL does on the ordinary interpreter, and on a free-threaded one nobody does unless it is said: an object is looked at and
 * changed by one thread at a time. On the ordinary interpreter nothing of this is left in the machine code. */
#ifndef SHARDYFUSION_PYTHON_ALONE_H
#define SHARDYFUSION_PYTHON_ALONE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifndef Py_BEGIN_CRITICAL_SECTION /* before Python 3.13 */
#define Py_BEGIN_CRITICAL_SECTION(o) {
#define Py_END_CRITICAL_SECTION() }
#endif

/* NATIVE_ALONE(method) behind a function of the methods' table (self, and one argument; _KEYWORDS: and keywords), ALONE(method) in the
 * table: it runs alone on its object. As with the GIL that ends where it waits or lets go of the GIL, and goes on behind that. */
#ifdef Py_GIL_DISABLED
#define NATIVE_ALONE(method)                                        \
    static PyObject *method##_alone(PyObject *self, PyObject *args) \
    {                                                               \
        PyObject *result;                                           \
                                                                    \
        Py_BEGIN_CRITICAL_SECTION(self);                            \
        result = method(self, args);                                \
        Py_END_CRITICAL_SECTION();                                  \
        return result;                                              \
    }                                                               \
    struct native_nothing
#define NATIVE_ALONE_KEYWORDS(method)                                                 \
    static PyObject *method##_alone(PyObject *self, PyObject *args, PyObject *kwargs) \
    {                                                                                 \
        PyObject *result;                                                             \
                                                                                      \
        Py_BEGIN_CRITICAL_SECTION(self);                                              \
        result = method(self, args, kwargs);                                          \
        Py_END_CRITICAL_SECTION();                                                    \
        return result;                                                                \
    }                                                                                 \
    struct native_nothing
#define ALONE(method) method##_alone
#else
#define NATIVE_ALONE(method) struct native_nothing
#define NATIVE_ALONE_KEYWORDS(method) struct native_nothing
#define ALONE(method) method
#endif

/* A pointer that one thread sets while others look: what it leads to stays as long as any of them may be at it. */
#ifdef Py_GIL_DISABLED
#define NATIVE_LOAD(from) __atomic_load_n(&(from), __ATOMIC_ACQUIRE)
#define NATIVE_STORE(to, value) __atomic_store_n(&(to), value, __ATOMIC_RELEASE)
#else
#define NATIVE_LOAD(from) (from)
#define NATIVE_STORE(to, value) ((to) = (value))
#endif

/* A lock in the GIL's place: for what belongs to no object. No Python runs under it. */
#ifdef Py_GIL_DISABLED
typedef PyMutex native_mutex;
#define native_lock(m) PyMutex_Lock(m)
#define native_unlock(m) PyMutex_Unlock(m)
#else
typedef struct native_mutex {
    char nothing;
} native_mutex;
#define native_lock(m) ((void)(m))
#define native_unlock(m) ((void)(m))
#endif

/* A new reference, which no other thread that changes the dict can take away. NULL: missing, or with an exception. */
static inline PyObject *dict_item_ref(PyObject *dict, PyObject *key)
{
    PyObject *item;

#if PY_VERSION_HEX >= 0x030D0000
    (void)PyDict_GetItemRef(dict, key, &item);
#else
    item = Py_XNewRef(PyDict_GetItemWithError(dict, key));
#endif
    return item;
}

#endif
