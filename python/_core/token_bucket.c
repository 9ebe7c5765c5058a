/* The arithmetic of TokenBucket. Waiting, events and names are the package's. */
#include "module.h"
#include "objects.h"
#include "turn.h"

#include "base/token_bucket.h"

struct py_token_bucket {
    PyObject_HEAD
    native_state *st;
    sf_token_bucket b; /* of rate 0 before __init__() */
};

/* What time.monotonic() tells, whatever stands there: programs put their own function in its place to say how time passes.
 * The built-in one need not be called for it. */
static bool python_now(native_state *st, double *now)
{
    PyObject *clock = st->time ? dict_item_ref(PyModule_GetDict(st->time), st->monotonic) : NULL;
    PyObject *told;

    if (clock && PyCFunction_CheckExact(clock)) {
        Py_DECREF(clock);
        *now = (double)native_now_ns() / 1e9;
        return true;
    }
    if (!clock) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_RuntimeError, "the module time has no monotonic()");
        return false;
    }
    told = PyObject_CallNoArgs(clock);
    Py_DECREF(clock);
    *now = told ? PyFloat_AsDouble(told) : -1;
    Py_XDECREF(told);
    return !PyErr_Occurred();
}

static bool bucket_ready(const struct py_token_bucket *o)
{
    if (o->b.rate > 0)
        return true;
    PyErr_Format(PyExc_RuntimeError, "%.200s.__init__() did not call TokenBucket.__init__()", Py_TYPE(o)->tp_name);
    return false;
}

bool token_bucket_take(PyObject *self, double tokens, double *missing_s)
{
    struct py_token_bucket *o = (struct py_token_bucket *)self;
    double now;

    if (!bucket_ready(o) || !python_now(o->st, &now))
        return false;
    *missing_s = sf__token_bucket_take(&o->b, tokens, now);
    return true;
}

static bool tokens_from_python(PyObject *o, double *tokens)
{
    *tokens = PyFloat_AsDouble(o);
    return *tokens != -1.0 || !PyErr_Occurred();
}

static PyObject *bucket_take(PyObject *self, PyObject *o)
{
    double tokens, missing_s;

    if (!tokens_from_python(o, &tokens) || !token_bucket_take(self, tokens, &missing_s))
        return NULL;
    return PyFloat_FromDouble(missing_s);
}

static PyObject *bucket_reserve(PyObject *self, PyObject *o)
{
    struct py_token_bucket *bucket = (struct py_token_bucket *)self;
    double tokens, now;

    if (!tokens_from_python(o, &tokens) || !bucket_ready(bucket) || !python_now(bucket->st, &now))
        return NULL;
    return PyFloat_FromDouble(sf__token_bucket_reserve(&bucket->b, tokens, now));
}

static PyObject *bucket_give_back(PyObject *self, PyObject *o)
{
    struct py_token_bucket *bucket = (struct py_token_bucket *)self;
    double tokens;

    if (!tokens_from_python(o, &tokens) || !bucket_ready(bucket))
        return NULL;
    sf__token_bucket_give_back(&bucket->b, tokens);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- the rate --------------------------------------- */

static bool positive_from_python(PyObject *o, const char *name, double *out)
{
    PyObject *zero = PyLong_FromLong(0);
    int positive = zero ? PyObject_RichCompareBool(o, zero, Py_GT) : -1; /* not so for what is not a number */

    Py_XDECREF(zero);
    if (positive < 0)
        return false;
    *out = positive ? PyFloat_AsDouble(o) : 0;
    if (*out > 0)
        return true;
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "%s must be > 0, got %S", name, o);
    return false;
}

static PyObject *bucket_rate(PyObject *self, void *unused)
{
    struct py_token_bucket *o = (struct py_token_bucket *)self;

    (void)unused;
    return bucket_ready(o) ? PyFloat_FromDouble(sf__token_bucket_level(&o->b).rate) : NULL;
}

static int bucket_set_rate(PyObject *self, PyObject *value, void *unused)
{
    struct py_token_bucket *o = (struct py_token_bucket *)self;
    double rate, now;

    (void)unused;
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "the rate of a bucket cannot be deleted");
        return -1;
    }
    if (!positive_from_python(value, "rate", &rate) || !bucket_ready(o) || !python_now(o->st, &now))
        return -1;
    sf__token_bucket_set_rate(&o->b, rate, now);
    return 0;
}

static PyObject *bucket_burst(PyObject *self, void *unused)
{
    struct py_token_bucket *o = (struct py_token_bucket *)self;
    sf_token_bucket_level l;

    (void)unused;
    if (!bucket_ready(o))
        return NULL;
    l = sf__token_bucket_level(&o->b);
    return PyFloat_FromDouble(l.burst > 0 ? l.burst : l.rate);
}

/* ---------------------------------------------------------------- copies ----------------------------------------- */

static PyObject *bucket_level(PyObject *self, PyObject *unused)
{
    struct py_token_bucket *o = (struct py_token_bucket *)self;
    sf_token_bucket_level l;

    (void)unused;
    if (!bucket_ready(o))
        return NULL;
    l = sf__token_bucket_level(&o->b);
    return Py_BuildValue("(dddd)", l.rate, l.tokens, l.at, l.burst);
}

static PyObject *bucket_set_level(PyObject *self, PyObject *level)
{
    sf_token_bucket_level l = {.burst = 0};

    if (!PyTuple_Check(level)) {
        PyErr_SetString(PyExc_TypeError, "a level is a tuple");
        return NULL;
    }
    if (!PyArg_ParseTuple(level, "ddd|d", &l.rate, &l.tokens, &l.at, &l.burst))
        return NULL;
    if (!(l.rate > 0) || !(l.burst >= 0)) {
        PyErr_SetString(PyExc_ValueError, "rate must be > 0, and burst not below 0");
        return NULL;
    }
    sf__token_bucket_set_level(&((struct py_token_bucket *)self)->b, l);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- life ------------------------------------------- */

static PyObject *bucket_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct py_token_bucket *o = (struct py_token_bucket *)type->tp_alloc(type, 0);

    (void)args; /* the subclass's __init__ looks at them */
    (void)kwargs;
    if (o) {
        o->st = native_state_of(type);
        sf__token_bucket_init(&o->b, 0, 0, 0);
    }
    return (PyObject *)o;
}

static int bucket_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"rate", "burst", NULL};
    struct py_token_bucket *o = (struct py_token_bucket *)self;
    PyObject *given, *given_burst = Py_None;
    double rate, burst = 0, now;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:TokenBucket", names, &given, &given_burst) ||
        !positive_from_python(given, "rate", &rate) ||
        (given_burst != Py_None && !positive_from_python(given_burst, "burst", &burst)) || !python_now(o->st, &now))
        return -1;
    sf__token_bucket_set_level(
        &o->b, (sf_token_bucket_level){.rate = rate, .tokens = burst > 0 ? burst : rate, .at = now, .burst = burst});
    return 0;
}

static void bucket_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    sf__token_bucket_cleanup(&((struct py_token_bucket *)self)->b);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef bucket_methods[] = {
    {"_take", bucket_take, METH_O,
     "_take($self, tokens, /)\n--\n\nSeconds until the tokens will be there; 0 when they were taken."},
    {"_reserve", bucket_reserve, METH_O,
     "_reserve($self, tokens, /)\n--\n\nTakes the tokens ahead of time; seconds to wait for them."},
    {"_give_back", bucket_give_back, METH_O, "_give_back($self, tokens, /)\n--\n\nOf a wait that was given up."},
    {"_level", bucket_level, METH_NOARGS,
     "_level($self, /)\n--\n\n(rate, tokens, time of the clock, burst or 0), for copies."},
    {"_set_level", bucket_set_level, METH_O,
     "_set_level($self, level, /)\n--\n\nMakes a copy of the bucket with that level."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef bucket_getset[] = {
    {"rate", bucket_rate, bucket_set_rate, "Tokens per second. May be set at any time.", NULL},
    {"burst", bucket_burst, NULL, "The most that the bucket holds: as given, else as many as the rate.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot bucket_slots[] = {
    {Py_tp_new, bucket_new},         {Py_tp_init, bucket_init},     {Py_tp_dealloc, bucket_dealloc},
    {Py_tp_methods, bucket_methods}, {Py_tp_getset, bucket_getset}, {0, NULL},
};

PyType_Spec token_bucket_spec = {
    .name = "shardyfusion._native.TokenBucket",
    .basicsize = sizeof(struct py_token_bucket),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = bucket_slots,
};
