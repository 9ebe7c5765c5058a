/* Telling a metrics collector of look-ups. */
#ifndef SHARDYFUSION_PYTHON_OBSERVER_H
#define SHARDYFUSION_PYTHON_OBSERVER_H

#include "state.h"

/* Whom a reader tells of its look-ups; all zero: nobody. */
enum observer_part {
    OBSERVER_METRICS,      /* the package's */
    OBSERVER_COLLECTOR,    /* the caller's */
    OBSERVER_STORE_EVENTS, /* ours */
    OBSERVER_GET,          /* the events */
    OBSERVER_MULTI_GET,
    OBSERVER_LOOK_UPS, /* a LookUpMetrics, which counts look-ups in the collector's place; else None */
    OBSERVER_SPARE,    /* a payload that nobody has kept; or NULL */
    OBSERVER_PARTS
};
#define GET_PAYLOAD 5u
struct observer {
    PyObject *parts[OBSERVER_PARTS];
    PyObject *spare_values[GET_PAYLOAD]; /* borrowed: what the spare payload holds */
    const sf_store_events *events;       /* of OBSERVER_STORE_EVENTS */
    struct look_ups *look_ups;           /* of OBSERVER_LOOK_UPS; NULL: the collector is told of each */
};
/* What one look-up was. */
struct look_up {
    uint64_t ns;            /* OP_UNTIMED: unknown */
    bool hit;               /* memory had all of it */
    uint32_t db_id;         /* of a get; UINT32_MAX: none */
    Py_ssize_t keys, found; /* of a batch: as given; of the distinct ones those that there are */
};
/* Of a Metrics, or None. False with an exception, and nothing to clear. */
bool observer_init(native_state *st, struct observer *o, PyObject *metrics);
int observer_traverse(const struct observer *o, visitproc visit, void *arg);
void observer_clear(struct observer *o);
static inline bool observer_is_there(const struct observer *o)
{
    return o->parts[OBSERVER_METRICS] != NULL;
}
/* Whether it tells which shard a get went to: what counts does not. */
static inline bool observer_wants_shard(const struct observer *o)
{
    return observer_is_there(o) && !o->look_ups;
}
/* When a look-up begins: the time, or OP_UNTIMED. */
uint64_t observer_start(struct observer *o);
/* Both take over the result and return it, or NULL with an exception. */
PyObject *observer_tell_get(native_state *st, struct observer *o, const struct look_up *u, PyObject *result);
PyObject *observer_tell_multi_get(native_state *st, struct observer *o, const struct look_up *u, PyObject *result);
/* An exception is set, and outlives whatever is raised here, but for what ends programs. */
void observer_tell_failure(const struct observer *o, const char *operation, uint64_t ns);

/* Look-ups, counted without a call of Python's. With the GIL. */
struct look_ups *look_ups_from_python(native_state *st, PyObject *o); /* NULL with an exception: it is none */
uint64_t look_ups_start(struct look_ups *l);
void look_ups_count_get(struct look_ups *l, const struct look_up *u, bool found);
void look_ups_count_batch(struct look_ups *l, const struct look_up *u);

#endif
