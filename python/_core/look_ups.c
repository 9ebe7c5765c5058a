/* Look-ups, counted in C: some nanoseconds each, and no call of Python's. With the GIL nothing is locked or atomic. Without, threads
 * count side by side, each under a lock that it mostly has to itself, and the sum is made when somebody asks. */
#include "module.h"
#include "observer.h"
#include "operation.h"
#include "turn.h"

#include <stdatomic.h>

/* Boundaries at 2^k and 1.5 * 2^k ns, from 64 ns to 137 s; one more for what takes longer. */
#define FIRST_LOG2 6u
#define LAST_LOG2 37u
#define BUCKETS (2u * (LAST_LOG2 - FIRST_LOG2) + 2u)
/* Of what memory answers one in so many is timed, at random: to read the clock twice costs a third of such a look-up. */
#define TIMED_ONE_IN 32u

struct histogram {
    uint64_t count, buckets[BUCKETS];
    double sum_ns;
};

enum look_up_kind { GET_HIT, GET_MISS, MULTI_GET, LOOK_UP_KINDS };

struct counts {
    struct histogram times[LOOK_UP_KINDS];
    uint64_t found[LOOK_UP_KINDS];
    uint64_t multi_get_keys, multi_get_hits;
    uint64_t untimed; /* hits since the last one that was timed */
    uint32_t until_timed, random;
    native_mutex lock;
};

#ifdef Py_GIL_DISABLED
#define COUNTERS 16u
#else
#define COUNTERS 1u
#endif

struct look_ups {
    PyObject_HEAD
    struct counts counts[COUNTERS];
};

/* ---------------------------------------------------------------- counting --------------------------------------- */

static unsigned bucket_of(uint64_t ns)
{
    unsigned log2 = ns > 1 ? 63u - (unsigned)__builtin_clzll(ns - 1) : 0; /* a boundary belongs to what is below it */

    if (log2 < FIRST_LOG2)
        return 0;
    if (log2 >= LAST_LOG2)
        return BUCKETS - 1;
    return 1 + 2 * (log2 - FIRST_LOG2) + (unsigned)((ns - 1) >> (log2 - 1) & 1);
}

/* In ns; what is above the last one has none. */
static double boundary_of(unsigned bucket)
{
    double power = (double)(UINT64_C(1) << (FIRST_LOG2 + bucket / 2));

    return bucket % 2 == 0 ? power : 1.5 * power;
}

static void add(struct histogram *h, uint64_t ns, uint64_t times)
{
    h->count += times;
    h->buckets[bucket_of(ns)] += times;
    h->sum_ns += (double)ns * (double)times;
}

/* Xorshift: from 1 to twice the average. */
static void draw(struct counts *c)
{
    c->random ^= c->random << 13;
    c->random ^= c->random >> 17;
    c->random ^= c->random << 5;
    c->until_timed = 1 + c->random % (2 * TIMED_ONE_IN - 1);
}

/* Those that the thread counts in, locked. */
static struct counts *counts_begin(struct look_ups *l)
{
#ifdef Py_GIL_DISABLED
    static _Thread_local unsigned mine; /* from 1; 0: none yet */
    static atomic_uint threads;
    struct counts *c;

    if (mine == 0)
        mine = 1 + atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) % COUNTERS;
    c = &l->counts[mine - 1];
#else
    struct counts *c = l->counts;
#endif

    native_lock(&c->lock);
    return c;
}

static void counts_end(struct counts *c)
{
    native_unlock(&c->lock);
    (void)c;
}

uint64_t look_ups_start(struct look_ups *l)
{
    struct counts *c = counts_begin(l);
    bool is_timed = --c->until_timed == 0;

    if (is_timed)
        draw(c);
    counts_end(c);
    return is_timed ? native_now_ns() : OP_UNTIMED;
}

void look_ups_count_get(struct look_ups *l, const struct look_up *u, bool found)
{
    enum look_up_kind kind = u->hit ? GET_HIT : GET_MISS;
    struct counts *c = counts_begin(l);

    c->found[kind] += found;
    if (u->ns == OP_UNTIMED) {
        c->untimed++;
    } else if (u->hit) { /* it stands for those before it */
        add(&c->times[GET_HIT], u->ns, 1 + c->untimed);
        c->untimed = 0;
    } else {
        add(&c->times[GET_MISS], u->ns, 1);
    }
    counts_end(c);
}

void look_ups_count_batch(struct look_ups *l, const struct look_up *u)
{
    struct counts *c = counts_begin(l);

    c->multi_get_keys += (uint64_t)u->keys;
    c->multi_get_hits += u->hit;
    c->found[MULTI_GET] += (uint64_t)u->found;
    add(&c->times[MULTI_GET], u->ns, 1);
    counts_end(c);
}

static void sum_histogram(struct histogram *sum, const struct histogram *h)
{
    sum->count += h->count;
    sum->sum_ns += h->sum_ns;
    for (unsigned i = 0; i < BUCKETS; i++)
        sum->buckets[i] += h->buckets[i];
}

/* Of all threads. */
static struct counts counts_of(struct look_ups *l)
{
    struct counts sum = {.untimed = 0};

    for (unsigned i = 0; i < COUNTERS; i++) {
        struct counts *c = &l->counts[i];

        native_lock(&c->lock);
        for (unsigned kind = 0; kind < LOOK_UP_KINDS; kind++) {
            sum_histogram(&sum.times[kind], &c->times[kind]);
            sum.found[kind] += c->found[kind];
        }
        sum.multi_get_keys += c->multi_get_keys;
        sum.multi_get_hits += c->multi_get_hits;
        sum.untimed += c->untimed;
        native_unlock(&c->lock);
    }
    return sum;
}

/* ---------------------------------------------------------------- to Python -------------------------------------- */

/* (count, seconds, [(upper boundary in seconds, how many up to it)]). */
static PyObject *histogram_to_python(const struct histogram *h)
{
    uint64_t below = 0;
    PyObject *list = PyList_New(0);

    for (unsigned i = 0; list && i < BUCKETS - 1; i++) {
        PyObject *one = Py_BuildValue("(dK)", boundary_of(i) / 1e9, (unsigned long long)(below += h->buckets[i]));

        if (!one || PyList_Append(list, one) < 0)
            Py_CLEAR(list);
        Py_XDECREF(one);
    }
    return list ? Py_BuildValue("(KdN)", (unsigned long long)h->count, h->sum_ns / 1e9, list) : NULL;
}

/* Hits that were not timed since the last one that was count as that one did. */
static struct histogram hits_of(const struct counts *l)
{
    struct histogram h = l->times[GET_HIT];
    unsigned most = 0;

    if (l->untimed == 0)
        return h;
    for (unsigned i = 1; i < BUCKETS; i++)
        if (h.buckets[i] > h.buckets[most])
            most = i;
    h.sum_ns += h.count > 0 ? h.sum_ns / (double)h.count * (double)l->untimed : 0;
    h.count += l->untimed;
    h.buckets[most] += l->untimed;
    return h;
}

static PyObject *look_ups_snapshot(PyObject *self, PyObject *unused)
{
    const struct counts sum = counts_of((struct look_ups *)self), *l = &sum;
    struct histogram hits = hits_of(l);
    PyObject *times[LOOK_UP_KINDS] = {histogram_to_python(&hits), histogram_to_python(&l->times[GET_MISS]),
                                      histogram_to_python(&l->times[MULTI_GET])};

    (void)unused;
    if (times[GET_HIT] && times[GET_MISS] && times[MULTI_GET])
        return Py_BuildValue(
            "{s:N,s:N,s:N,s:K,s:K,s:K,s:K,s:K}", "get_hits", times[GET_HIT], "get_misses", times[GET_MISS],
            "multi_gets", times[MULTI_GET], "get_hits_found", (unsigned long long)l->found[GET_HIT], "get_misses_found",
            (unsigned long long)l->found[GET_MISS], "multi_get_keys", (unsigned long long)l->multi_get_keys,
            "multi_get_found", (unsigned long long)l->found[MULTI_GET], "multi_get_hits",
            (unsigned long long)l->multi_get_hits);
    for (size_t i = 0; i < LOOK_UP_KINDS; i++)
        Py_XDECREF(times[i]);
    return NULL;
}

/* Of look-ups that Python makes, over shards of the caller's. */
static PyObject *look_ups_add_get(PyObject *self, PyObject *args)
{
    struct look_up u = {.hit = false};
    double seconds;
    int found, hit;

    if (!PyArg_ParseTuple(args, "dpp:add_get", &seconds, &found, &hit))
        return NULL;
    u.ns = seconds > 0 && seconds < 1e9 ? (uint64_t)(seconds * 1e9) + OP_UNTIMED + 1 : OP_UNTIMED + 1;
    u.hit = hit;
    look_ups_count_get((struct look_ups *)self, &u, found);
    Py_RETURN_NONE;
}

static PyObject *look_ups_add_multi_get(PyObject *self, PyObject *args)
{
    struct look_up u = {.hit = false};
    double seconds;
    int hit;

    if (!PyArg_ParseTuple(args, "dnnp:add_multi_get", &seconds, &u.keys, &u.found, &hit))
        return NULL;
    u.ns = seconds > 0 && seconds < 1e9 ? (uint64_t)(seconds * 1e9) : 0;
    u.hit = hit;
    look_ups_count_batch((struct look_ups *)self, &u);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- life ------------------------------------------- */

struct look_ups *look_ups_from_python(native_state *st, PyObject *o)
{
    if (Py_IS_TYPE(o, st->look_ups_type))
        return (struct look_ups *)o;
    PyErr_SetString(PyExc_TypeError, "look_ups must be a LookUpMetrics or None");
    return NULL;
}

static PyObject *look_ups_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    struct look_ups *l;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":LookUpMetrics", names))
        return NULL;
    l = (struct look_ups *)type->tp_alloc(type, 0);
    for (unsigned i = 0; l && i < COUNTERS; i++) {
        l->counts[i].random = 0x9e3779b9u;
        l->counts[i].until_timed = 1;
    }
    return (PyObject *)l;
}

static void look_ups_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef look_ups_methods[] = {
    NOT_COPIED,
    {"add_get", look_ups_add_get, METH_VARARGS,
     "add_get($self, seconds, found, hit, /)\n--\n\nCounts one that Python has made."},
    {"add_multi_get", look_ups_add_multi_get, METH_VARARGS,
     "add_multi_get($self, seconds, keys, found, hit, /)\n--\n\nThe same of a batch."},
    {"snapshot", look_ups_snapshot, METH_NOARGS, "snapshot($self)\n--\n\nWhat was counted so far."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot look_ups_slots[] = {
    {Py_tp_new, look_ups_new},
    {Py_tp_dealloc, look_ups_dealloc},
    {Py_tp_methods, look_ups_methods},
    {0, NULL},
};

PyType_Spec look_ups_spec = {
    .name = "shardyfusion._native.LookUpMetrics",
    .basicsize = sizeof(struct look_ups),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = look_ups_slots,
};
