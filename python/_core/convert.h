/* From Python's objects to the engine's values and back, errors included. */
#ifndef SHARDYFUSION_PYTHON_CONVERT_H
#define SHARDYFUSION_PYTHON_CONVERT_H

#include "state.h"

struct operation;

/* Keys as callers have them are made plain where they come in, which may run code of theirs. */
static inline bool key_is_plain(PyObject *o)
{
    return PyLong_Check(o) || PyBytes_Check(o) || PyUnicode_Check(o);
}
/* An int, bytes or a str: numbers with __index__ as their int, bytearrays, memoryviews and UUIDs as their bytes. What is none
 * of these as it is, for key_from_python() to refuse. NULL with an exception. */
PyObject *key_plain(PyObject *o);
/* The same of what may stand as a key in a dict: a UUID is found there by itself only. */
PyObject *key_for_dict(PyObject *o);
/* The keys of a batch, as given; the items of an array of integers as ints. NULL with an exception. */
PyObject *keys_to_tuple(PyObject *keys);
/* One of a single digit, below 2^30: without a call. */
static inline bool int_is_short(PyObject *o, long long *v)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact((PyLongObject *)o))
        return false;
    *v = PyUnstable_Long_CompactValue((PyLongObject *)o);
#else
    if (Py_SIZE(o) < -1 || Py_SIZE(o) > 1)
        return false;
    *v = Py_SIZE(o) * (long long)((PyLongObject *)o)->ob_digit[0];
#endif
    return true;
}
/* Of what is an int and nothing else, when that fits: most keys are that. False: it is something else. */
static inline bool key_from_int(PyObject *o, sf_key *key)
{
    int overflow = 0;
    long long v;

    if (!PyLong_CheckExact(o))
        return false;
    if (!int_is_short(o, &v))
        v = PyLong_AsLongLongAndOverflow(o, &overflow);
    *key = sf_key_int(v);
    return !overflow;
}
/* Of a plain key. False with the package's exception. Spans are borrowed from `o`. */
bool key_from_python(native_state *st, PyObject *o, sf_key *key);
/* A context of Python's, a mapping of column names, as the engine takes it. */
struct routing {
    sf_routing_context context;
    sf_routing_value few[8], *values;
    PyObject *kept; /* list: what values borrow from */
};
/* False with an exception. To be cleaned up in any case. */
bool routing_from_python(PyObject *mapping, struct routing *r);
void routing_cleanup(struct routing *r);
/* The same for values without columns, from a list. */
bool routing_values_from_python(PyObject *list, struct routing *r);
/* A key with its context, which may be NULL or None and lies in `r`. As above. */
bool routed_key_from_python(native_state *st, PyObject *o, PyObject *context, struct routing *r, sf_key *key);
/* Why `o` cannot be looked up in `s`. Sets the exception. */
void raise_key_error(native_state *st, const sf_snapshot *s, PyObject *o);
/* The engine's texts are C strings: false with a ValueError for an object that cannot be one. */
bool text_check(PyObject *o, const char *what);
bool timeout_from_python(PyObject *o, int64_t *ms);                /* NULL and None: no timeout */
PyObject *value_to_python(const sf_value *v);                      /* bytes, or None */
PyObject *op_value(const struct operation *op, const sf_value *v); /* or what op->answers says */
/* A LookupError, for a look-up that memory alone cannot answer. */
void raise_not_in_memory(void);
PyObject *text_to_python(const char *text); /* which may be cut inside of a character; NULL: None */
PyObject *text_or_none(const char *text);   /* the same; empty: None */
bool dict_put(PyObject *dict, const char *name, PyObject *value); /* takes over; false, of NULL too, with an exception */
/* A list of what `one` makes of each item of an array; it answers NULL with an exception. */
PyObject *list_to_python(const void *items, size_t count, size_t item_size, PyObject *(*one)(const void *item));
/* Borrowed; NULL when the name is missing, or with an exception. */
PyObject *dict_item(PyObject *dict, const char *name);
/* `dict` may be NULL or None: then *out is left alone and *given is false. Texts and source are borrowed from the dictionary. */
bool s3_from_python(PyObject *dict, sf_s3_options *out, bool *given);
bool store_events_from_python(PyObject *o, sf_store_events **out); /* borrowed; false with a TypeError */
/* What has been noted, as StoreEvents.take() has it. NULL: nothing, or with an exception. */
PyObject *store_events_noted(PyObject *o);
/* Of a CredentialSource, borrowed; NULL with a TypeError for anything else. */
const sf_credential_source *credential_source_of(PyObject *o);
const char *encoding_name(sf_key_encoding e);

bool status_of_name(const char *name, sf_status *out);       /* of a failure; false with an exception set */
PyObject *exception_of(native_state *st, const sf_error *e); /* new reference; NULL with another exception set */
void raise_error(native_state *st, const sf_error *e);
void raise_exception(PyObject *exception); /* takes over; NULL: one is set already */
PyObject *raised(void);                    /* the exception that is set, and no more: the caller's */

bool native_confine(PyObject *item, sf_confine *out); /* None and NULL: the default. False with an exception */

#endif
