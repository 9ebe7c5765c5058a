/* Methods that return a coroutine, and say so to those who ask before they call: inspect.iscoroutinefunction(), asyncio's,
 * mocks, frameworks. A plain method of C cannot be marked, so these stand in for it in the type's dictionary. Python 3.11 knows
 * no mark, only the flags of code: there an `async def` with the same signature is shown, which is never called.
 *
 * CPython looks methods up by a shortcut only where the type of what stands in the dictionary cannot change, so ours cannot. */
#include "state.h"

#include <stddef.h>
#include <structmember.h>

struct coroutine_method {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyTypeObject *owner; /* borrowed: its dictionary has this */
    coroutine_function function;
    PyObject *method; /* the method descriptor, for whoever asks about it, or calls it with something else */
    PyObject *shown;  /* the `async def`; NULL until somebody looks */
};

/* Readers are classes in Python, a few steps from the type that has the method, whose layout all of them have: to walk there is shorter than
 * to search all bases. */
static bool is_of(PyObject *o, PyTypeObject *owner)
{
    PyTypeObject *type = Py_TYPE(o);

    while (type && type != owner)
        type = type->tp_base;
    return type != NULL;
}

static PyObject *call(PyObject *self, PyObject *const *args, size_t n, PyObject *kwnames)
{
    struct coroutine_method *m = (struct coroutine_method *)self;
    Py_ssize_t count = PyVectorcall_NARGS(n);

    if (count > 0 && is_of(args[0], m->owner))
        return m->function(args[0], args + 1, count - 1, kwnames);
    return PyObject_Vectorcall(m->method, args, n, kwnames); /* says what is wrong */
}

static PyObject *descr_get(PyObject *self, PyObject *instance, PyObject *type)
{
    (void)type;
    return !instance || instance == Py_None ? Py_NewRef(self) : PyMethod_New(self, instance);
}

/* ---------------------------------------------------------------- attributes ------------------------------------- */

static PyObject *of_method(PyObject *self, void *name)
{
    return PyObject_GetAttrString(((struct coroutine_method *)self)->method, name);
}

static PyObject *attribute_of_module(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name), *value = NULL;

    if (module)
        value = PyObject_GetAttrString(module, name);
    Py_XDECREF(module);
    return value;
}

/* `($self, key, *, timeout=None)` is what the method's documentation says. */
static PyObject *make_shown(PyObject *method)
{
    PyObject *name = PyObject_GetAttrString(method, "__name__");
    PyObject *signature = PyObject_GetAttrString(method, "__text_signature__");
    PyObject *source = NULL, *names = PyDict_New(), *made = NULL, *shown = NULL;

    if (name && signature && names)
        source = PyUnicode_FromFormat("async def %U%U: pass", name, signature);
    if (source)
        Py_SETREF(source, PyObject_CallMethod(source, "replace", "ss", "$", ""));
    if (source && PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) == 0)
        made = PyRun_String(PyUnicode_AsUTF8(source), Py_file_input, names, names);
    if (made)
        shown = Py_XNewRef(PyDict_GetItemWithError(names, name));
    Py_XDECREF(name);
    Py_XDECREF(signature);
    Py_XDECREF(source);
    Py_XDECREF(names);
    Py_XDECREF(made);
    return shown;
}

static PyObject *of_shown(PyObject *self, void *name)
{
    struct coroutine_method *m = (struct coroutine_method *)self;

    Py_BEGIN_CRITICAL_SECTION(self);
    if (!m->shown) {
        PyObject *shown = make_shown(m->method);

        if (shown && !m->shown)
            m->shown = shown;
        else
            Py_XDECREF(shown);
    }
    Py_END_CRITICAL_SECTION();
    return m->shown ? PyObject_GetAttrString(m->shown, name) : NULL;
}

/* The marks are objects of the modules that look for them; a version of Python without one looks for the other. */
static PyObject *mark_of_asyncio(PyObject *self, void *name)
{
    (void)self;
    return attribute_of_module("asyncio.coroutines", name);
}

static PyObject *mark_of_inspect(PyObject *self, void *name)
{
    PyObject *value = attribute_of_module("inspect", "_is_coroutine_mark");

    (void)self;
    if (!value && PyErr_ExceptionMatches(PyExc_AttributeError)) { /* its name in Python 3.12 */
        PyErr_Clear();
        value = attribute_of_module("inspect", name);
    }
    return value;
}

static PyGetSetDef attributes[] = {
    {"__doc__", of_method, NULL, NULL, "__doc__"},
    {"__name__", of_method, NULL, NULL, "__name__"},
    {"__qualname__", of_method, NULL, NULL, "__qualname__"},
    {"__objclass__", of_method, NULL, NULL, "__objclass__"},
    {"__text_signature__", of_method, NULL, NULL, "__text_signature__"},
    {"__code__", of_shown, NULL, NULL, "__code__"},
    {"__defaults__", of_shown, NULL, NULL, "__defaults__"},
    {"__kwdefaults__", of_shown, NULL, NULL, "__kwdefaults__"},
    {"__annotations__", of_shown, NULL, NULL, "__annotations__"},
    {"_is_coroutine", mark_of_asyncio, NULL, NULL, "_is_coroutine"},
    {"_is_coroutine_marker", mark_of_inspect, NULL, NULL, "_is_coroutine_marker"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct coroutine_method, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---------------------------------------------------------------- life ------------------------------------------- */

static PyObject *repr(PyObject *self)
{
    return PyUnicode_FromFormat("<coroutine method %R>", ((struct coroutine_method *)self)->method);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct coroutine_method *)self)->method);
    Py_VISIT(((struct coroutine_method *)self)->shown);
    return 0;
}

static int clear(PyObject *self)
{
    Py_CLEAR(((struct coroutine_method *)self)->method);
    Py_CLEAR(((struct coroutine_method *)self)->shown);
    return 0;
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, descr_get},
    {Py_tp_getset, attributes},
    {Py_tp_members, members},
    {Py_tp_repr, repr},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "shardyfusion._native.CoroutineMethod",
    .basicsize = sizeof(struct coroutine_method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

static int mark(PyTypeObject *marked, PyTypeObject *owner, const struct coroutine_method_def *def)
{
    struct coroutine_method *m = (struct coroutine_method *)marked->tp_alloc(marked, 0);
    int rc = -1;

    if (!m)
        return -1;
    m->vectorcall = call;
    m->owner = owner;
    m->function = def->function;
    m->method = PyObject_GetAttrString((PyObject *)owner, def->name);
    if (m->method)
        rc = PyObject_SetAttrString((PyObject *)owner, def->name, (PyObject *)m);
    Py_DECREF(m);
    return rc;
}

int mark_coroutine_methods(PyObject *module, PyTypeObject *type, const struct coroutine_method_def *methods)
{
    PyTypeObject *marked = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    int rc = marked ? 0 : -1;

    for (; rc == 0 && methods->name; methods++)
        rc = mark(marked, type, methods);
    Py_XDECREF(marked); /* the methods keep it */
    return rc;
}
