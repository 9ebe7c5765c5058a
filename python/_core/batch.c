/* Look-ups of many keys in a pinned snapshot, by the keys that callers write. Large ones take many turns (see turn.c): every
 * loop over keys keeps its place in the batch, and goes on from there.
 *
 * A few keys at a time are read, asked for in memory, and put into the answers with their values: one look into the dict a key. What memory does
 * not have is put there with None, and asked for in one call when all keys were looked at. So a key that cannot be looked up fails the
 * batch before anything is read from storage. */
#include "batch.h"
#include "convert.h"
#include "observer.h"
#include "operation.h"
#include "turn.h"

#include "base/error.h"
#include "reader/snapshot.h"

#define SMALL_BATCH_LOOKS 10 /* a thousand keys or so */
#define LARGE_LIST 50000     /* copied in some tenths of a millisecond */

enum batch_phase {
    BATCH_COLLECTS,
    BATCH_ASKS_GATE,
    BATCH_PASSES_GATE,
    BATCH_ASKS_MEMORY,
    BATCH_ASKS_ENGINE,
    BATCH_ANSWERS
};

struct key_batch {
    sf_snapshot *snap;             /* NULL: the gate puts it */
    const struct batch_gate *gate; /* NULL: none */
    enum batch_phase phase;
    Py_ssize_t at;      /* how far the phase has come */
    bool has_bytes;     /* among the keys, as far as they were read */
    int64_t db_id;      /* the keys are stored ones of this shard; or -1 */
    uint64_t end_ns;    /* deadline; 0: none */
    int64_t left_ms;    /* until then, from the beginning of this turn */
    unsigned looks;     /* at the clock, so far */
    PyObject *source;   /* iterator, while it gives keys */
    PyObject *keys;     /* tuple, as given until they are read, then as in `answers`; a list while they are collected */
    PyObject *answers;  /* dict: distinct keys in their first order */
    uint64_t *seen;     /* bits by Python's hashes of the keys so far */
    unsigned seen_log2; /* how many bits */
    PyObject **missing; /* borrowed from `keys`: what memory did not have, in the order of `call`; NULL as long as it had all */
    sf_key *asked; /* of `missing`, which it follows */
    Py_ssize_t missing_count;
    Py_ssize_t failed_at; /* in `keys`: where the last of `missing` that failed stands; they follow each other as there */
    PyObject *kept;       /* list: bytes of keys that are none, which `asked` borrows */
    struct routing *routing; /* what all keys are routed by; NULL: themselves */
    sf_call *call;           /* has what is missing, until it begins */
    PyObject *list;          /* the aligned answers */
};

void batch_clear(struct operation *op)
{
    struct key_batch *b = op->extra;

    if (!b)
        return;
    sf_call_release(b->call);
    sf_snapshot_give_back(b->snap);
    Py_XDECREF(b->source);
    Py_XDECREF(b->keys);
    Py_XDECREF(b->answers);
    Py_XDECREF(b->list);
    Py_XDECREF(b->kept);
    PyMem_Free(b->seen);
    PyMem_Free(b->missing);
    PyMem_Free(b->asked);
    if (b->routing)
        routing_cleanup(b->routing);
    PyMem_Free(b->routing);
    PyMem_Free(b);
}

/* ---------------------------------------------------------------- turns ------------------------------------------ */

/* For the engine, which gets what is missing. */
static void batch_look_at_clock(struct key_batch *b)
{
    b->left_ms = time_left(b->end_ns);
}

/* What memory answers at once is in time, however short that is, as a single look-up is. */
static bool batch_in_time(const struct operation *op, const struct key_batch *b)
{
    sf_error err = SF_ERROR_INIT;

    if (b->end_ns == 0 || b->looks < SMALL_BATCH_LOOKS || native_now_ns() < b->end_ns)
        return true;
    sf_fail(&err, SF_TIMEOUT, "a look-up of %zd keys took longer than its timeout of %g s", PyObject_Size(b->keys),
            (double)op->timeout_ms / 1000);
    raise_error(op->st, &err);
    return false;
}

static SF_COLD enum op_outcome batch_look(struct operation *op)
{
    struct key_batch *b = op->extra;
    enum turn_state s;

    b->looks++;
    batch_look_at_clock(b);
    s = op->blocking ? turn_breathe(op->st) : turn_look(op->st);
    if (s == TURN_FAILED || (s == TURN_IS_OVER && !batch_in_time(op, b)))
        return OP_FAILED;
    return s == TURN_IS_OVER && !op->blocking ? OP_GIVES_WAY : OP_FINISHED;
}

/* After work of so many units. OP_FINISHED: on with it. */
static inline enum op_outcome batch_spend(struct operation *op, size_t units)
{
    return turn_spend(op->st, units) ? batch_look(op) : OP_FINISHED;
}

/* ---------------------------------------------------------------- keys ------------------------------------------- */

/* What others may change, or what ends when they do, is taken at once; only iterators are taken bit by bit. */
static bool batch_open(struct key_batch *b, PyObject *keys)
{
    if (!PyIter_Check(keys)) {
        b->keys = keys_to_tuple(keys);
        return b->keys != NULL;
    }
    b->source = Py_NewRef(keys);
    b->keys = PyList_New(0);
    return b->keys != NULL;
}

static enum op_outcome batch_collect(struct operation *op, struct key_batch *b)
{
    enum op_outcome o = OP_FINISHED;

    while (b->source && o == OP_FINISHED) {
        PyObject *key = PyIter_Next(b->source);

        if (!key)
            break;
        if (PyList_Append(b->keys, key) < 0)
            o = OP_FAILED;
        else
            o = batch_spend(op, 1);
        Py_DECREF(key);
    }
    if (o != OP_FINISHED || PyErr_Occurred())
        return o == OP_GIVES_WAY ? o : OP_FAILED;
    if (b->source) {
        Py_CLEAR(b->source);
        Py_SETREF(b->keys, PyList_AsTuple(b->keys));
    }
    return b->keys ? OP_FINISHED : OP_FAILED;
}

#define SEEN_LOG2_MIN 8
#define SEEN_LOG2_MAX 24 /* 2 MiB, for a million keys */

/* With places for all keys, so that none is put there twice; but of texts alone a dict makes a smaller one. */
static PyObject *answers_new(PyObject *keys)
{
    Py_ssize_t n = PyTuple_GET_SIZE(keys);

    return n > 0 && PyUnicode_CheckExact(PyTuple_GET_ITEM(keys, 0)) ? PyDict_New() : _PyDict_NewPresized(n);
}

/* 16 bits a key. */
static bool batch_alloc(struct key_batch *b)
{
    size_t n = (size_t)PyTuple_GET_SIZE(b->keys);

    b->seen_log2 = SEEN_LOG2_MIN;
    while (b->seen_log2 < SEEN_LOG2_MAX && (UINT64_C(1) << b->seen_log2) < 16 * (uint64_t)n)
        b->seen_log2++;
    b->seen = PyMem_Calloc(1, ((size_t)1 << b->seen_log2) / 8);
    if (!b->seen) {
        PyErr_NoMemory();
        return false;
    }
    b->answers = answers_new(b->keys);
    return b->answers != NULL;
}

/* Room for what memory does not have. */
static bool batch_alloc_missing(struct key_batch *b)
{
    size_t n = (size_t)PyTuple_GET_SIZE(b->keys);

    if (!b->missing)
        b->missing = PyMem_New(PyObject *, n);
    if (!b->asked)
        b->asked = PyMem_New(sf_key, n);
    if (b->missing && b->asked)
        return true;
    PyErr_NoMemory();
    return false;
}

/* The context of all keys: what it says when the first key is routed. */
static bool batch_route_by(struct key_batch *b, PyObject *context)
{
    b->routing = PyMem_Calloc(1, sizeof(*b->routing));
    if (!b->routing) {
        PyErr_NoMemory();
        return false;
    }
    return routing_from_python(context, b->routing);
}

/* Not the caller's tuple. */
static bool own_keys(struct operation *op, struct key_batch *b)
{
    Py_ssize_t n = PyTuple_GET_SIZE(b->keys);
    PyObject *own;

    if (b->keys != op->a)
        return true;
    own = PyTuple_New(n);
    for (Py_ssize_t i = 0; own && i < n; i++)
        PyTuple_SET_ITEM(own, i, Py_NewRef(PyTuple_GET_ITEM(b->keys, i)));
    if (own)
        Py_SETREF(b->keys, own);
    return own != NULL;
}

/* The key at that place as it stands in the answers from now on; borrowed. NULL with an exception. */
static PyObject *batch_key_at(struct operation *op, struct key_batch *b, Py_ssize_t i)
{
    PyObject *given = PyTuple_GET_ITEM(b->keys, i), *key;

    if (key_is_plain(given))
        return given;
    key = key_for_dict(given);
    if (key && key != given && !own_keys(op, b))
        Py_CLEAR(key);
    if (!key)
        return NULL;
    given = PyTuple_GET_ITEM(b->keys, i);
    PyTuple_SET_ITEM(b->keys, i, key);
    Py_DECREF(given);
    return key;
}

/* The same key, plain and borrowed. NULL with an exception. */
static PyObject *batch_plain(struct key_batch *b, PyObject *o)
{
    PyObject *plain;

    if (key_is_plain(o))
        return o;
    plain = key_plain(o);
    if (!plain || (!b->kept && !(b->kept = PyList_New(0))) || PyList_Append(b->kept, plain) < 0) {
        Py_XDECREF(plain);
        return NULL;
    }
    Py_DECREF(plain);
    return plain;
}

/* What `given`, as it stands in the answers, is to the engine. */
static bool batch_key_of(struct operation *op, struct key_batch *b, PyObject *given, sf_key *key)
{
    PyObject *o = batch_plain(b, given);

    if (!o)
        return false;
    if (b->db_id < 0 && b->gate && !b->has_bytes && PyBytes_Check(o)) {
        b->has_bytes = true;
        if (!b->gate->bytes_key(op, o, b->snap))
            return false;
    }
    if (b->db_id < 0) {
        if (!key_from_python(op->st, o, key))
            return false;
        key->context = b->routing ? &b->routing->context : NULL;
        return true;
    }
    if (!PyBytes_Check(o)) {
        PyErr_Format(PyExc_TypeError, "a stored key must be bytes, not %.200s", Py_TYPE(o)->tp_name);
        return false;
    }
    *key = sf_key_bytes(PyBytes_AS_STRING(o), (size_t)PyBytes_GET_SIZE(o));
    return true;
}

/* Which of the keys it was, as a note: the error's own text is the contract's. What goes wrong here is not told. */
static PyObject *with_key(PyObject *error, const struct key_batch *b, Py_ssize_t i)
{
    Py_ssize_t n = PyTuple_GET_SIZE(b->keys);
    PyObject *note, *done;

    note = error && n > 1
               ? PyUnicode_FromFormat("at key %zd of %zd of the batch: %.200R", i + 1, n, PyTuple_GET_ITEM(b->keys, i))
               : NULL;
    done = note ? PyObject_CallMethod(error, "add_note", "O", note) : NULL;
    Py_XDECREF(note);
    Py_XDECREF(done);
    if (error)
        PyErr_Clear();
    return error;
}

#define HASH_OF_ITSELF ((INT64_C(1) << 61) - 1) /* an int from 0 to below this */

/* The next key, as it stands in the answers, borrowed, as the engine wants it, and its hash. NULL with an exception. */
static inline PyObject *batch_next_key(struct operation *op, struct key_batch *b, sf_key *key, Py_hash_t *hash)
{
    PyObject *o = PyTuple_GET_ITEM(b->keys, b->at);

    if (b->db_id < 0 && key_from_int(o, key)) {
        key->context = b->routing ? &b->routing->context : NULL;
        *hash = key->i >= 0 && key->i < HASH_OF_ITSELF ? (Py_hash_t)key->i : PyObject_Hash(o);
        return o;
    }
    o = batch_key_at(op, b, b->at);
    if (!o) {
        raise_exception(with_key(raised(), b, b->at));
        return NULL;
    }
    *hash = PyObject_Hash(o);
    if (*hash == -1) /* as every dict says it */
        return NULL;
    if (batch_key_of(op, b, o, key))
        return o;
    raise_exception(with_key(raised(), b, b->at));
    return NULL;
}

/* Whether a key of that hash may have come before: if one did, it is so. */
static inline bool batch_may_repeat(struct key_batch *b, Py_hash_t hash)
{
    uint64_t bit = (uint64_t)hash * UINT64_C(0x9E3779B97F4A7C15) >> (64 - b->seen_log2);
    uint64_t *word = &b->seen[bit / 64];
    bool seen = *word >> bit % 64 & 1;

    *word |= UINT64_C(1) << bit % 64;
    return seen;
}

/* ---------------------------------------------------------------- answers ---------------------------------------- */

/* Keys that compare as they like may be there already: then the first answer stays. */
static inline bool batch_put(struct key_batch *b, PyObject *key, PyObject *answer)
{
    return PyDict_SetDefault(b->answers, key, answer) != NULL;
}

static bool batch_take_value(const struct operation *op, PyObject *key, const sf_value *v)
{
    struct key_batch *b = op->extra;
    PyObject *answer = v->found ? op_value(op, v) : NULL;
    int failed = 0;

    if (answer)
        failed = PyDict_SetItem(b->answers, key, answer);
    else if (v->found)
        failed = -1;
    Py_XDECREF(answer);
    return !failed;
}

/* Keys that memory is asked for at once: as many as the engine looks up together. */
#define TOGETHER SF_SHARD_TRIES

/* Some keys in a row that may be asked for. */
struct batch_part {
    size_t n;
    PyObject *keys[TOGETHER]; /* borrowed */
    sf_key asked[TOGETHER];
    sf_value values[TOGETHER];
    sf_status statuses[TOGETHER];
    PyObject *answers[TOGETHER]; /* of those that memory had */
};

/* From b->at on. False with an exception. */
static bool batch_read_part(struct operation *op, struct key_batch *b, struct batch_part *p)
{
    Py_ssize_t n = PyTuple_GET_SIZE(b->keys);

    for (p->n = 0; b->at < n && p->n < TOGETHER; b->at++) {
        Py_hash_t hash;
        PyObject *o = batch_next_key(op, b, &p->asked[p->n], &hash);
        int known = 0;

        if (!o)
            return false;
        if (batch_may_repeat(b, hash)) {
            known = PyDict_Contains(b->answers, o);
            if (known < 0)
                return false;
            if (!known && p->n > 0) /* perhaps it repeats one of this part: the next part knows */
                break;
        }
        if (!known)
            p->keys[p->n++] = o;
    }
    return true;
}

/* Where a status says SF_WOULD_BLOCK the key is part of b->call from now on; its error, if it has one, comes with those of its shard. */
static sf_status batch_ask(struct key_batch *b, struct batch_part *p, sf_error *err)
{
    if (b->db_id < 0)
        return sf__snapshot_ask_views(b->snap, p->asked, p->n, b->left_ms, p->values, p->statuses, &b->call, err);
    for (size_t i = 0; i < p->n; i++) {
        p->statuses[i] =
            sf_snapshot_ask_shard(b->snap, (uint32_t)b->db_id, p->asked[i].b, b->left_ms, &p->values[i], &b->call, err);
        if (p->statuses[i] != SF_OK && p->statuses[i] != SF_WOULD_BLOCK) {
            sf_status rc = p->statuses[i];

            while (i > 0)
                sf_value_release(&p->values[--i]);
            return rc;
        }
    }
    return SF_OK;
}

static bool batch_put_missing(struct key_batch *b, PyObject *key, const sf_key *asked)
{
    if (!batch_alloc_missing(b) || !batch_put(b, key, Py_None))
        return false;
    b->missing[b->missing_count] = key;
    b->asked[b->missing_count++] = *asked;
    return true;
}

/* Makes answers of what memory had, and adds what that took. No key is compared meanwhile, which may be code of the caller's: that might
 * look up others, and end the views. False with an exception. */
static bool batch_copy_part(const struct operation *op, struct batch_part *p, size_t *units)
{
    bool copied = true;

    for (size_t i = 0; i < p->n; i++) {
        sf_value *v = &p->values[i];

        p->answers[i] = NULL;
        if (p->statuses[i] != SF_OK)
            continue;
        if (copied)
            p->answers[i] = v->found ? op_value(op, v) : Py_NewRef(Py_None);
        copied = p->answers[i] != NULL;
        *units += v->bytes.n / TURN_UNIT_BYTES;
        if (v->owner)
            sf_value_release(v);
    }
    return copied;
}

/* Takes these answers over. `taken`: they could be made. False with an exception. */
static bool batch_put_part(struct key_batch *b, const struct batch_part *p, bool taken)
{
    for (size_t i = 0; i < p->n; i++) {
        if (taken)
            taken = p->answers[i] ? batch_put(b, p->keys[i], p->answers[i])
                                  : batch_put_missing(b, p->keys[i], &p->asked[i]);
        Py_XDECREF(p->answers[i]);
    }
    return taken;
}

/* Some keys at a time, from b->at on. */
static enum op_outcome batch_ask_parts(struct operation *op, struct key_batch *b)
{
    Py_ssize_t n = PyTuple_GET_SIZE(b->keys);
    enum op_outcome o = OP_FINISHED;
    struct batch_part p;
    sf_error err; /* filled by failures only */

    while (b->at < n && o == OP_FINISHED) {
        Py_ssize_t begin = b->at;
        size_t units = 0;
        sf_status rc;

        if (!batch_read_part(op, b, &p))
            return OP_FAILED;
        units = (size_t)(b->at - begin);
        rc = p.n > 0 ? batch_ask(b, &p, &err) : SF_OK;
        if (rc != SF_OK && rc != SF_WOULD_BLOCK) {
            raise_error(op->st, &err);
            return OP_FAILED;
        }
        if (!batch_put_part(b, &p, batch_copy_part(op, &p, &units)))
            return OP_FAILED;
        o = batch_spend(op, units);
    }
    return o;
}

/* Reads the keys, and answers what memory can. */
static enum op_outcome batch_ask_memory(struct operation *op, struct key_batch *b)
{
    enum op_outcome o;

    if (!b->answers && (!batch_alloc(b) || (op->b && PyTuple_GET_SIZE(b->keys) > 0 && !batch_route_by(b, op->b))))
        return OP_FAILED;
    o = batch_ask_parts(op, b);
    sf__pins_together_end();
    return o;
}

static enum op_outcome batch_ask_engine(struct operation *op, struct key_batch *b)
{
    struct pending *p = op_begin(op);
    sf_call *call = b->call;

    if (!p)
        return OP_FAILED;
    b->call = NULL;
    b->end_ns = 0; /* the engine's from now on */
    sf_call_begin(call, pending_on_done, p);
    return op_begun(op, SF_OK, call, NULL);
}

/* `answers` is a dict, `list` as long as `keys`, a tuple. */
static bool align(const struct operation *op, PyObject *list, PyObject *keys, PyObject *answers, Py_ssize_t i)
{
    PyObject *key = PyTuple_GET_ITEM(keys, i), *value = PyDict_GetItemWithError(answers, key);

    if (!value && !PyErr_Occurred())
        PyErr_SetObject(PyExc_KeyError, key);
    if (value && op->answers & ANSWERS_FOUND)
        value = value == Py_None ? Py_False : Py_True;
    if (value)
        PyList_SET_ITEM(list, i, Py_NewRef(value));
    return value != NULL;
}

/* The answers in the form that was asked for. */
static enum op_outcome batch_answer(struct operation *op, struct key_batch *b, PyObject **result)
{
    Py_ssize_t n = PyTuple_GET_SIZE(b->keys);
    enum op_outcome o = OP_FINISHED;

    if (!(op->answers & ANSWERS_ALIGNED)) {
        *result = Py_NewRef(b->answers);
        return OP_FINISHED;
    }
    if (!b->list) {
        b->list = PyList_New(n);
        if (!b->list)
            return OP_FAILED;
        PyObject_GC_UnTrack(b->list); /* nobody finds it before it is full */
    }
    while (b->at < n && o == OP_FINISHED) {
        if (!align(op, b->list, b->keys, b->answers, b->at++))
            return OP_FAILED;
        o = batch_spend(op, 1);
    }
    if (o == OP_FINISHED) {
        PyObject_GC_Track(b->list);
        *result = Py_NewRef(b->list);
    }
    return o;
}

static void batch_enter(struct key_batch *b, enum batch_phase next)
{
    b->phase = next;
    b->at = 0;
}

static enum op_outcome run(struct operation *op, struct key_batch *b, PyObject **result)
{
    enum op_outcome o;

    for (;;) {
        switch (b->phase) {
        case BATCH_COLLECTS:
            o = batch_collect(op, b);
            if (o != OP_FINISHED)
                return o;
            batch_enter(b, b->gate ? BATCH_ASKS_GATE : BATCH_ASKS_MEMORY);
            break;
        case BATCH_ASKS_GATE:
            batch_enter(b, BATCH_PASSES_GATE); /* so it is asked once, whatever it does */
            o = b->gate->ask(op, PyTuple_GET_SIZE(b->keys), b->left_ms);
            if (o != OP_FINISHED)
                return o;
            break;
        case BATCH_PASSES_GATE:
            batch_look_at_clock(b);
            if (!b->gate->passed(op, PyTuple_GET_SIZE(b->keys), &b->snap))
                return OP_FAILED;
            batch_enter(b, BATCH_ASKS_MEMORY);
            break;
        case BATCH_ASKS_MEMORY:
            o = batch_ask_memory(op, b);
            if (o != OP_FINISHED)
                return o;
            batch_enter(b, b->missing_count > 0 ? BATCH_ASKS_ENGINE : BATCH_ANSWERS);
            break;
        case BATCH_ASKS_ENGINE:
            return batch_ask_engine(op, b);
        case BATCH_ANSWERS:
            return batch_answer(op, b, result);
        }
    }
}

enum op_outcome batch_go_on(struct operation *op, PyObject **result)
{
    batch_look_at_clock(op->extra);
    return batch_in_time(op, op->extra) ? run(op, op->extra, result) : OP_FAILED;
}

/* Lists and arrays. Negative with an exception. */
static int is_large(PyObject *keys)
{
    Py_ssize_t n = PyList_Check(keys) ? PyList_GET_SIZE(keys) : PyObject_CheckBuffer(keys) ? PyObject_Size(keys) : 0;

    if (n < 0 && !PyErr_ExceptionMatches(PyExc_Exception)) /* Ctrl-C */
        return -1;
    if (n < 0)
        PyErr_Clear(); /* an array without dimensions: opening it says what it is */
    return n > LARGE_LIST;
}

static enum op_outcome start(struct operation *op, sf_snapshot *snap, const struct batch_gate *gate, int64_t db_id,
                             PyObject **result)
{
    struct key_batch *b = op->extra = PyMem_Calloc(1, sizeof(*b));
    int large;

    if (!b) {
        sf_snapshot_give_back(snap);
        PyErr_NoMemory();
        return OP_FAILED;
    }
    b->snap = snap;
    b->gate = gate;
    b->db_id = db_id;
    b->end_ns = time_end(op->timeout_ms);
    batch_look_at_clock(b);
    /* the turn begins before a large list is copied, so that the copying is part of it */
    large = is_large(op->a);
    if (large < 0 || (large && batch_look(op) == OP_FAILED))
        return OP_FAILED;
    return batch_open(b, op->a) ? run(op, b, result) : OP_FAILED;
}

enum op_outcome batch_start(struct operation *op, sf_snapshot *snap, const struct batch_gate *gate, PyObject **result)
{
    return start(op, snap, gate, -1, result);
}

enum op_outcome batch_start_stored(struct operation *op, sf_snapshot *snap, uint32_t db_id, PyObject **result)
{
    return start(op, snap, NULL, db_id, result);
}

/* What the engine answered has been taken; NULL without an exception when the loop's turn is over. */
static PyObject *taken(struct operation *op, struct key_batch *b)
{
    PyObject *result = NULL;

    if (b->phase != BATCH_ANSWERS)
        batch_enter(b, BATCH_ANSWERS);
    batch_answer(op, b, &result);
    return result;
}

PyObject *batch_take(struct operation *op, sf_call *call)
{
    struct key_batch *b = op->extra;
    enum op_outcome o = OP_FINISHED;
    size_t n;
    const sf_value *values = sf_call_values(call, &n);

    while (b->phase == BATCH_ASKS_ENGINE && (size_t)b->at < n && o == OP_FINISHED) {
        const sf_value *v = &values[b->at];

        if (!batch_take_value(op, b->missing[b->at++], v))
            return NULL;
        o = batch_spend(op, turn_units(v->found ? v->bytes.n : 0));
    }
    return o == OP_FINISHED ? taken(op, b) : NULL;
}

/* As batch_answer(), for answers that came another way. */
PyObject *batch_aligned(const struct operation *op, PyObject *answers)
{
    PyObject *keys = op->a, *list;
    Py_ssize_t n;

    if (!(op->answers & ANSWERS_ALIGNED))
        return Py_NewRef(answers);
    n = PyTuple_GET_SIZE(keys);
    list = PyList_New(n);
    for (Py_ssize_t i = 0; list && i < n; i++)
        if (!align(op, list, keys, answers, i))
            Py_CLEAR(list);
    return list;
}

/* ---------------------------------------------------------------- failed batches --------------------------------- */

static bool is_key_status(sf_status s)
{
    return s == SF_INVALID || s == SF_INVALID_KEY;
}

/* Of the missing key `i`, which stands at `*place` or behind it: there it is looked for, and found. */
static PyObject *key_exception(native_state *st, struct key_batch *b, size_t i, Py_ssize_t *place)
{
    while (PyTuple_GET_ITEM(b->keys, *place) != b->missing[i])
        ++*place;
    raise_key_error(st, b->snap, b->missing[i]);
    return with_key(raised(), b, *place);
}

/* A shard whose failure was a key that has no stored form: the first such key says it better than the engine can. */
static PyObject *shard_exception(native_state *st, struct key_batch *b, sf_call *call, const sf_error *e)
{
    const sf_status *statuses = sf_call_statuses(call);
    size_t n = (size_t)b->missing_count;
    Py_ssize_t place = 0;

    for (size_t i = 0; is_key_status(e->code) && i < n; i++) {
        uint32_t db_id;

        if (is_key_status(statuses[i]) && sf_snapshot_route(b->snap, &b->asked[i], &db_id, NULL) == SF_OK &&
            (int32_t)db_id == e->db_id)
            return key_exception(st, b, i, &place);
    }
    return exception_of(st, e);
}

/* Its shard's failure is told already: one of keys without a stored form comes before one of reading the others. */
static bool is_told(const sf_error *errors, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (errors[k].db_id == errors[i].db_id)
            return true;
    return false;
}

static PyObject *raise_all(struct operation *op, sf_call *call, const sf_error *errors, size_t count)
{
    PyObject *list = PyList_New(0), *one;

    for (size_t i = 0; list && i < count; i++) {
        if (is_told(errors, i))
            continue;
        one = shard_exception(op->st, op->extra, call, &errors[i]);
        if (!one || PyList_Append(list, one) < 0)
            Py_CLEAR(list);
        Py_XDECREF(one);
    }
    if (list && op->st->multi_error_hook && !(op->answers & ANSWERS_ONE_ERROR)) {
        raise_exception(PyObject_CallOneArg(op->st->multi_error_hook, list));
    } else if (list) {
        raise_exception(Py_NewRef(PyList_GET_ITEM(list, 0)));
    }
    Py_XDECREF(list);
    return NULL;
}

/* The exception of one key: its own, else that of its shard, which may have one of another key's besides. */
static PyObject *one_exception(struct operation *op, sf_call *call, size_t i)
{
    struct key_batch *b = op->extra;
    size_t count;
    const sf_error *errors = sf_call_shard_errors(call, &count);
    uint32_t db_id;

    if (is_key_status(sf_call_statuses(call)[i]))
        return key_exception(op->st, b, i, &b->failed_at);
    if (sf_snapshot_route(b->snap, &b->asked[i], &db_id, NULL) == SF_OK)
        for (size_t k = 0; k < count; k++)
            if (errors[k].db_id == (int32_t)db_id && !is_key_status(errors[k].code))
                return exception_of(op->st, &errors[k]);
    return exception_of(op->st, sf_call_error(call));
}

PyObject *batch_fail(struct operation *op, sf_call *call)
{
    struct key_batch *b = op->extra;
    size_t count, n;
    const sf_error *errors = sf_call_shard_errors(call, &count);
    const sf_status *statuses = sf_call_statuses(call);
    const sf_value *values = sf_call_values(call, &n);
    enum op_outcome o = OP_FINISHED;

    if (count == 0) {
        raise_error(op->st, sf_call_error(call));
        return NULL;
    }
    if (!(op->answers & ANSWERS_ERRORS))
        return raise_all(op, call, errors, count);
    while (b->phase == BATCH_ASKS_ENGINE && (size_t)b->at < n && o == OP_FINISHED) {
        size_t i = (size_t)b->at++;

        if (statuses[i] == SF_OK) {
            if (!batch_take_value(op, b->missing[i], &values[i]))
                return NULL;
            o = batch_spend(op, turn_units(values[i].found ? values[i].bytes.n : 0));
        } else {
            PyObject *e = one_exception(op, call, i);
            int failed = e ? PyDict_SetItem(b->answers, b->missing[i], e) : -1;

            Py_XDECREF(e);
            if (failed)
                return NULL;
            o = batch_spend(op, 8); /* exceptions are made by Python */
        }
    }
    return o == OP_FINISHED ? taken(op, b) : NULL;
}

void batch_counts(const struct operation *op, struct look_up *u)
{
    const struct key_batch *b = op->extra;
    PyObject *key, *answer;
    Py_ssize_t at = 0;

    u->keys = PyTuple_GET_SIZE(b->keys);
    u->found = 0;
    while (PyDict_Next(b->answers, &at, &key, &answer))
        u->found += op->answers & ANSWERS_FOUND ? answer == Py_True : PyBytes_CheckExact(answer);
}

bool batch_on_error(PyObject *o, uint32_t *flags)
{
    if (!o || (PyUnicode_Check(o) && PyUnicode_CompareWithASCIIString(o, "raise") == 0))
        return true;
    if (PyUnicode_Check(o) && PyUnicode_CompareWithASCIIString(o, "return") == 0) {
        *flags |= ANSWERS_ERRORS;
        return true;
    }
    PyErr_Format(PyExc_ValueError, "on_error must be 'raise' or 'return', not %R", o);
    return false;
}
