/* Giving way to the event loop: when a thread has worked for long enough that it is time to look at the clock. */
#ifndef SHARDYFUSION_PYTHON_TURN_H
#define SHARDYFUSION_PYTHON_TURN_H

#include "state.h"

enum turn_state { TURN_FAILED = -1, TURN_GOES_ON, TURN_IS_OVER }; /* with an exception; -; give way now */

#define TURN_UNIT_BYTES 8192
#define SF_COLD __attribute__((noinline, cold))

/* Work before somebody looks at the clock. Threads that run side by side have one each; else they share it, as they share the GIL. */
#ifdef Py_GIL_DISABLED
extern _Thread_local Py_ssize_t native_turn_left;
#define TURN_LEFT(st) (*((void)(st), &native_turn_left))
#else
#define TURN_LEFT(st) ((st)->turn_left)
#endif

/* Whether it is time to look, after work of about so many microseconds. */
static inline bool turn_spend(native_state *st, size_t units)
{
    return __builtin_expect((TURN_LEFT(st) -= (Py_ssize_t)units) < 0, 0);
}
/* Of a value: what copying it takes. */
static inline size_t turn_units(size_t bytes)
{
    return 1 + bytes / TURN_UNIT_BYTES;
}
enum turn_state turn_look(native_state *st);    /* on a thread that may run an event loop */
enum turn_state turn_breathe(native_state *st); /* on one that is blocked by us: it has given way already */
uint64_t native_now_ns(void);
uint64_t time_end(int64_t timeout_ms); /* 0: without end */
int64_t time_left(uint64_t end_ns);    /* as a timeout */

#endif
