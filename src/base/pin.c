#include "base/pin.h"

#include <pthread.h>
#include <stdlib.h>

#define WITHDRAWN 32u /* buffers that one walk over the pins looks for */

_Thread_local sf_pins *sf__pins_mine;

/* All there are. They stay: values that a thread has left behind may still be pinned by them. */
static _Atomic(sf_pins *) all;
static atomic_uint how_many;
static pthread_key_t at_exit;
static bool has_key;

static void thread_ended(void *mine)
{
    sf_pins *p = mine;

    sf__pins_mine = NULL;
    atomic_store_explicit(&p->taken, false, memory_order_release);
}

static void key_make(void)
{
    has_key = pthread_key_create(&at_exit, thread_ended) == 0;
}

static sf_pins *pins_of_ended_thread(void)
{
    for (sf_pins *p = atomic_load(&all); p; p = p->next) {
        bool taken = false;

        if (atomic_compare_exchange_strong(&p->taken, &taken, true))
            return p;
    }
    return NULL;
}

static sf_pins *pins_new(void)
{
    sf_pins *p = aligned_alloc(_Alignof(sf_pins), sizeof(*p));

    if (!p)
        return NULL;
    for (unsigned i = 0; i < SF_PINS; i++)
        atomic_init(&p->pins[i], 0);
    atomic_init(&p->taken, true);
    p->number = atomic_fetch_add_explicit(&how_many, 1, memory_order_relaxed);
    p->next = atomic_load(&all);
    while (!atomic_compare_exchange_weak(&all, &p->next, p))
        ;
    return p;
}

sf_pins *sf__pins_make(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sf_pins *p;

    pthread_once(&once, key_make);
    p = has_key ? pins_of_ended_thread() : NULL;
    if (has_key && !p)
        p = pins_new();
    if (p && pthread_setspecific(at_exit, p) != 0) {
        thread_ended(p);
        p = NULL;
    }
    sf__pins_mine = p;
    return p;
}

static void pin_to_reference(sf_pin *pin, uintptr_t object, atomic_uint *refs)
{
    atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
    if (!atomic_compare_exchange_strong(pin, &object, object | SF_PIN_REFERENCE))
        atomic_fetch_sub_explicit(refs, 1, memory_order_relaxed); /* it has just come off; the caller's is left */
}

void sf__pins_to_references(void *const *objects, atomic_uint *const *refs, size_t count, unsigned from, unsigned to)
{
    for (sf_pins *p = count > 0 ? atomic_load(&all) : NULL; p; p = p->next)
        for (unsigned i = from; i < to; i++) {
            uintptr_t pinned = atomic_load(&p->pins[i]);

            for (size_t k = 0; pinned != 0 && k < count; k++)
                if (pinned == (uintptr_t)objects[k])
                    pin_to_reference(&p->pins[i], pinned, refs[k]);
        }
}

void sf__bufs_withdraw(sf_buf *const *bufs, size_t count)
{
    void *objects[WITHDRAWN];
    atomic_uint *refs[WITHDRAWN];

    while (count > 0) {
        size_t n = count < WITHDRAWN ? count : WITHDRAWN;

        for (size_t i = 0; i < n; i++) {
            objects[i] = bufs[i];
            refs[i] = sf__buf_refs(bufs[i]);
        }
        sf__pins_to_references(objects, refs, n, SF_PIN_PASSING, SF_PINS);
        for (size_t i = 0; i < n; i++)
            sf__buf_release(bufs[i]);
        bufs += n;
        count -= n;
    }
}

void sf__pins_together_end(void)
{
    sf_pins *mine = sf__pins_mine;

    for (unsigned i = 0; mine && i < SF_PINS_TOGETHER; i++)
        if (atomic_load_explicit(&mine->pins[SF_PIN_TOGETHER + i], memory_order_relaxed) != 0)
            sf__buf_release(sf__pin_move(&mine->pins[SF_PIN_TOGETHER + i], NULL));
}

static bool is_pin(const sf_buf *owner)
{
    return ((uintptr_t)owner & 1) != 0;
}

static sf_pin *pin_of(sf_buf *owner)
{
    return (sf_pin *)((uintptr_t)owner & ~(uintptr_t)1);
}

sf_buf *sf__owner_counted(sf_buf *owner)
{
    sf_buf *buf;

    if (!is_pin(owner))
        return owner;
    buf = sf__owner_buf(owner);
    sf__buf_acquire(buf);
    if (sf__pin_take_off(pin_of(owner)))
        sf__buf_release(buf);
    return buf;
}

void sf__owner_release(sf_buf *owner)
{
    uintptr_t was;

    if (!is_pin(owner)) {
        sf__buf_release(owner);
        return;
    }
    was = atomic_exchange_explicit(pin_of(owner), 0, memory_order_acq_rel);
    if (was & SF_PIN_REFERENCE)
        sf__buf_release((sf_buf *)(was & ~SF_PIN_REFERENCE));
}
