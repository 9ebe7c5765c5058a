#include "cache/budget.h"

#include <assert.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"

static void add(atomic_uint_fast64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void subtract(atomic_uint_fast64_t *counter, uint64_t n)
{
    atomic_fetch_sub_explicit(counter, n, memory_order_relaxed);
}

static uint64_t value(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void sf__budget_init(sf_budget *b, sf_loop *loop, uint32_t max_requests, uint64_t max_bytes)
{
    *b = (sf_budget){.loop = loop, .max_requests = max_requests, .max_bytes = max_bytes};
}

/* ---------------------------------------------------------------- turns ----------------------------------------- */

/* Whatever wants nothing, or is alone, has room: so nothing waits for ever. */
static bool has_room(const sf_budget *b, uint64_t bytes)
{
    uint64_t in_flight = value(&b->bytes_in_flight), held = value(&b->bytes_held), half = b->max_bytes / 2;
    uint64_t most = b->max_bytes - (held < half ? held : half);

    return bytes == 0 || in_flight == 0 || (in_flight <= most && bytes <= most - in_flight);
}

static bool is_ready(const sf_budget *b, sf_turn *t)
{
    if (t->requests > 0 && value(&b->requests_in_flight) >= b->max_requests)
        return false;
    return has_room(b, t->bytes) && (!t->ready || t->ready(t));
}

void sf__turn_leave(sf_budget *b, sf_turn *t)
{
    *(t->prev ? &t->prev->next : &b->first) = t->next;
    *(t->next ? &t->next->prev : &b->last) = t->prev;
    subtract(&b->waiting, 1);
}

static void give_turn(sf_budget *b, const sf_turn *t)
{
    add(&b->requests_in_flight, t->requests);
    add(&b->bytes_in_flight, t->bytes);
}

/* To those who have waited longest, strictly in order: a large read must not be overtaken for ever. */
void sf__budget_pump(sf_budget *b)
{
    while (b->first && is_ready(b, b->first)) {
        sf_turn *t = b->first;

        sf__turn_leave(b, t);
        give_turn(b, t);
        t->go(t);
    }
}

void sf__turn_wait(sf_budget *b, sf_turn *t, uint64_t bytes)
{
    t->bytes = bytes < b->max_bytes ? bytes : b->max_bytes;
    t->requests = 1;
    t->next = NULL;
    t->prev = b->last;
    *(b->last ? &b->last->next : &b->first) = t;
    b->last = t;
    add(&b->waiting, 1);
    sf__budget_pump(b);
}

bool sf__turn_try(sf_budget *b, sf_turn *t, uint64_t bytes)
{
    t->bytes = bytes;
    t->requests = 1;
    if (b->first || bytes > b->max_bytes || !is_ready(b, t))
        return false;
    give_turn(b, t);
    return true;
}

void sf__turn_end(sf_budget *b, sf_turn *t)
{
    subtract(&b->requests_in_flight, t->requests);
    subtract(&b->bytes_in_flight, t->bytes);
    sf__budget_pump(b);
}

bool sf__turn_grow(sf_budget *b, sf_turn *t, uint64_t bytes)
{
    if (bytes > b->max_bytes || b->first || (bytes > t->bytes && !has_room(b, bytes - t->bytes)))
        return false;
    if (bytes > t->bytes) {
        add(&b->bytes_in_flight, bytes - t->bytes);
        t->bytes = bytes;
    }
    return true;
}

void sf__turn_overdue(const sf_budget *b, uint64_t since_ns, sf_error *err)
{
    char what[128];

    snprintf(what, sizeof(what), "its turn behind %llu requests and %llu bytes under way",
             (unsigned long long)value(&b->requests_in_flight), (unsigned long long)value(&b->bytes_in_flight));
    sf_error_overdue(err, &(sf_overdue){.since_ns = since_ns, .waits_for = what});
}

void sf__budget_hold(sf_budget *b, size_t bytes)
{
    add(&b->bytes_held, bytes);
}

void sf__budget_let_go(sf_budget *b, size_t bytes)
{
    subtract(&b->bytes_held, bytes);
}

/* ---------------------------------------------------------------- claims ---------------------------------------- */

static void claim_on_task(sf_task *task)
{
    sf_claim *c = sf_container_of(task, sf_claim, task);
    sf_error e; /* filled by failures only */

    if (c->ended == SF_TIMEOUT)
        sf__turn_overdue(c->budget, c->since_ns, &e);
    else if (c->ended == SF_CANCELLED)
        sf_fail(&e, SF_CANCELLED, "cancelled");
    c->error = c->ended == SF_OK ? &sf__no_error : &e;
    c->done(c); /* it may be gone: nothing of it after this line */
}

static void claim_over(sf_claim *c, sf_status ended)
{
    c->waiting = false;
    c->ended = ended;
    sf__timer_stop(c->budget->loop, &c->timer);
    c->task.run = claim_on_task;
    sf__loop_post(c->budget->loop, &c->task);
}

static void claim_go(sf_turn *turn)
{
    sf_claim *c = sf_container_of(turn, sf_claim, turn);

    c->held = true;
    claim_over(c, SF_OK);
}

static void claim_give_up(sf_claim *c, sf_status why)
{
    sf__turn_leave(c->budget, &c->turn);
    claim_over(c, why);
    sf__budget_pump(c->budget); /* it stood in the way of the others */
}

static void claim_on_deadline(sf_timer *timer)
{
    claim_give_up(sf_container_of(timer, sf_claim, timer), SF_TIMEOUT);
}

void sf__claim_start(sf_budget *b, sf_claim *c, uint64_t bytes, uint64_t deadline_ns)
{
    assert(sf__loop_is_current(b->loop));
    c->turn = (sf_turn){.bytes = bytes < b->max_bytes ? bytes : b->max_bytes, .go = claim_go, .next = b->first};
    c->budget = b;
    c->waiting = true;
    c->held = false;
    c->since_ns = sf__clock_mono_ns();
    c->timer = (sf_timer){.fire = claim_on_deadline};
    sf__timer_start(b->loop, &c->timer, deadline_ns);
    *(b->first ? &b->first->prev : &b->last) = &c->turn;
    b->first = &c->turn;
    add(&b->waiting, 1);
    sf__budget_pump(b);
}

void sf__claim_cancel(sf_claim *c)
{
    if (c->waiting)
        claim_give_up(c, SF_CANCELLED);
}

void sf__claim_end(sf_claim *c)
{
    if (!c->held)
        return;
    c->held = false;
    sf__turn_end(c->budget, &c->turn);
}
