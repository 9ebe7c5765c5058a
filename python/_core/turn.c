/* How long look-ups that memory answers may keep a thread from the rest of its work.
 *
 * Such a look-up ends in its first step, so a task of nothing else would never come back to its event loop: no timeout, no
 * cancellation, no Ctrl-C, no other task. So each spends some of a few milliseconds, the loop's turn. When they are spent the
 * next one gives way first, as asyncio.sleep(0) does. To see whether the loop has run meanwhile a mark is put into it: while
 * it runs on its own nothing ever gives way. Tasks that compete share one turn, else timers would wait for as many turns as
 * there are tasks. A blocking batch lets other threads and signal handlers in instead. */
#include "module.h"
#include "turn.h"

#include <time.h>

#define TURN_NS 3000000u
#define TURN_UNITS 128 /* between two looks at the clock; a unit is about a microsecond */
#define TURN_UNITS_MIN 8
#define MARK_NS 1000000000u /* a mark that is older has gone with its loop */

static _Thread_local struct {
    const PyObject *loop; /* that has the mark; only ever compared */
    bool marked;
    unsigned given; /* how often this turn has given way */
    uint64_t marked_ns, since_ns, share_ns;
    uint64_t breath_ns; /* of blocking work */
} turn;

#ifdef Py_GIL_DISABLED
_Thread_local Py_ssize_t native_turn_left;
#endif

uint64_t native_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t time_end(int64_t timeout_ms)
{
    return timeout_ms == SF_TIMEOUT_NONE ? 0 : native_now_ns() + (uint64_t)timeout_ms * 1000000u;
}

int64_t time_left(uint64_t end_ns)
{
    uint64_t now;

    if (end_ns == 0)
        return SF_TIMEOUT_NONE;
    now = native_now_ns();
    return now < end_ns ? (int64_t)((end_ns - now + 999999) / 1000000) : 0;
}

/* The mark: what an event loop calls in its next round. */
PyObject *native_loop_has_run(PyObject *module, PyObject *unused)
{
    unsigned tasks = turn.given > 0 ? turn.given : 1;

    (void)module;
    (void)unused;
    turn.marked = false;
    turn.given = 0;
    turn.share_ns = TURN_NS / tasks;
    Py_RETURN_NONE;
}

static enum turn_state put_mark(native_state *st, PyObject *loop, uint64_t now)
{
    PyObject *handle = PyObject_CallMethod(loop, "call_soon", "O", st->loop_has_run);

    if (!handle)
        return TURN_FAILED;
    Py_DECREF(handle);
    if (turn.loop != loop || turn.share_ns == 0)
        turn.share_ns = TURN_NS;
    turn.loop = loop;
    turn.marked = true;
    turn.given = 0;
    turn.marked_ns = turn.since_ns = now;
    return TURN_GOES_ON;
}

static enum turn_state turn_in(native_state *st, PyObject *loop, uint64_t now)
{
    uint64_t share = turn.share_ns;
    unsigned expected;

    if (!turn.marked || turn.loop != loop || now - turn.marked_ns > MARK_NS)
        return put_mark(st, loop, now);
    expected = (unsigned)(TURN_NS / turn.share_ns);
    if (turn.given >= expected) /* more tasks than in the last round: less and less for each */
        share /= turn.given - expected + 2;
    if (now - turn.since_ns < share)
        return TURN_GOES_ON;
    turn.since_ns = now;
    turn.given++;
    return TURN_IS_OVER;
}

/* What cannot be told to the loop is no reason to fail a look-up; what ends programs is. */
static enum turn_state without_error(enum turn_state s)
{
    if (s != TURN_FAILED || !PyErr_ExceptionMatches(PyExc_Exception))
        return s;
    PyErr_Clear();
    return TURN_GOES_ON;
}

enum turn_state turn_look(native_state *st)
{
    unsigned tasks = turn.share_ns > 0 ? (unsigned)(TURN_NS / turn.share_ns) : 1;
    PyObject *loop;
    enum turn_state s;

    TURN_LEFT(st) = tasks < TURN_UNITS / TURN_UNITS_MIN ? TURN_UNITS / (int)tasks : TURN_UNITS_MIN;
    loop = PyObject_CallNoArgs(st->get_running_loop);
    if (!loop) /* driven by hand, or by another library */
        return without_error(TURN_FAILED);
    s = turn_in(st, loop, native_now_ns());
    Py_DECREF(loop);
    return without_error(s);
}

/* A thread that waits for the GIL asks for it after the switch interval, 5 ms; whoever releases it then waits until somebody else
 * has had it. One that releases it earlier takes it again at once, and the other's 5 ms begin anew: it would never get it. */
#define BREATH_NS UINT64_C(6000000)

enum turn_state turn_breathe(native_state *st)
{
    uint64_t now = native_now_ns();

    TURN_LEFT(st) = TURN_UNITS;
    if (now - turn.breath_ns < BREATH_NS)
        return TURN_GOES_ON;
    Py_BEGIN_ALLOW_THREADS Py_END_ALLOW_THREADS turn.breath_ns = native_now_ns();
    return PyErr_CheckSignals() < 0 ? TURN_FAILED : TURN_IS_OVER;
}

PyObject *native_turn_is_over(PyObject *module, PyObject *unused)
{
    native_state *st = PyModule_GetState(module);
    enum turn_state s = turn_spend(st, 1) ? turn_look(st) : TURN_GOES_ON;

    (void)unused;
    return s == TURN_FAILED ? NULL : PyBool_FromLong(s == TURN_IS_OVER);
}
