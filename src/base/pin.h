/* Pins: how a thread keeps a counted object that others share alive for a while, without a write to anything that they share. A pin is
 * a word of the thread's own that says which object (a hazard pointer: Michael, 2004). It is set on what was found at a place, and
 * counts if the place still has it then. Whoever takes an object away from its place turns the pins that are on it into references
 * (sf__pins_to_references), before dropping its own: each is released by whoever then takes the pin off. So nobody waits for
 * anybody, nothing gathers in a list, and an object goes with its last user.
 *
 *   0 --> object --> 0                          taken off: nothing to release
 *            \----> object|REFERENCE --> 0      taken off: a reference to release        */
#ifndef SF_BASE_PIN_H
#define SF_BASE_PIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

typedef atomic_uintptr_t sf_pin;

#define SF_PIN_REFERENCE ((uintptr_t)1) /* objects are aligned */
#define SF_PINS 48u

/* Which pin is for what: */
#define SF_PIN_SNAPSHOT 0u
#define SF_PIN_PASSING 1u  /* between finding something and counting it */
#define SF_PIN_TOGETHER 2u /* this one and the next ones: what keys of a batch look at, side by side */
#define SF_PINS_TOGETHER 16u
#define SF_PIN_VALUES (SF_PIN_TOGETHER + SF_PINS_TOGETHER) /* this one and those behind it: values that callers have */

/* A thread's pins, of which it alone sets any. Memory of the process: the next thread gets them when this one has ended. */
typedef struct sf_pins {
    _Alignas(64) sf_pin pins[SF_PINS];
    _Alignas(64) unsigned number; /* which thread: small numbers, and no two live threads have the same */
    atomic_bool taken;
    struct sf_pins *next;
} sf_pins;

extern _Thread_local sf_pins *sf__pins_mine;

sf_pins *sf__pins_make(void);

/* The calling thread's, or NULL without memory: then it counts references. */
static inline sf_pins *sf__pins_of_thread(void)
{
    sf_pins *p = sf__pins_mine;

    return p ? p : sf__pins_make();
}

/* One for a value, or NULL: the thread has as many as it can have. */
static inline sf_pin *sf__pins_for_value(sf_pins *p)
{
    for (unsigned i = SF_PIN_VALUES; i < SF_PINS; i++)
        if (atomic_load_explicit(&p->pins[i], memory_order_relaxed) == 0)
            return &p->pins[i];
    return NULL;
}

/* The caller then looks whether the place still has the object, by a sequentially consistent load; if it has not, the pin comes off. */
static inline void sf__pin_set(sf_pin *pin, const void *object)
{
    atomic_exchange(pin, (uintptr_t)object);
}

/* The same for one that may be on another buffer, which it leaves: the caller then releases what it gets, which may be NULL. */
static inline sf_buf *sf__pin_move(sf_pin *pin, const sf_buf *buf)
{
    uintptr_t was = atomic_exchange(pin, (uintptr_t)buf);

    return was & SF_PIN_REFERENCE ? (sf_buf *)(was & ~SF_PIN_REFERENCE) : NULL;
}

/* Any thread. True: there is a reference on the object to release, which is the caller's now. */
static inline bool sf__pin_take_off(sf_pin *pin)
{
    return (atomic_exchange_explicit(pin, 0, memory_order_acq_rel) & SF_PIN_REFERENCE) != 0;
}

/* `refs[i]` counts the references on `objects[i]`. The caller has one on each, and nobody finds them any more: they were taken from
 * their places by a sequentially consistent exchange. Of each thread only the pins `from` <= i < `to`, which are for objects of this kind:
 * a pin that does not count, and is about to come off, may be on what lay at the same address before. */
void sf__pins_to_references(void *const *objects, atomic_uint *const *refs, size_t count, unsigned from, unsigned to);

/* Buffers that were taken from where pins could find them: the pins become references, and the caller's are dropped. */
void sf__bufs_withdraw(sf_buf *const *bufs, size_t count);

/* What keeps a value alive: a reference on its buffer, or a pin, which is told by its lowest bit. */
static inline sf_buf *sf__owner_of_pin(sf_pin *pin)
{
    return (sf_buf *)((uintptr_t)pin | 1);
}

/* The buffer that it keeps alive. The thread that has it. */
static inline sf_buf *sf__owner_buf(sf_buf *owner)
{
    if (((uintptr_t)owner & 1) == 0)
        return owner;
    return (sf_buf *)(atomic_load_explicit((sf_pin *)((uintptr_t)owner & ~(uintptr_t)1), memory_order_relaxed) &
                      ~SF_PIN_REFERENCE);
}

/* Takes off those of the calling thread that keys of a batch had. */
void sf__pins_together_end(void);

void sf__owner_release(sf_buf *owner); /* any thread; takes NULL */
/* A reference in any case: the thread has its pin back. Takes NULL. */
sf_buf *sf__owner_counted(sf_buf *owner);

#endif
