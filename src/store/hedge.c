#include "store/hedge.h"

#include <stdatomic.h>

#include "base/error.h"

#define NS_PER_MS UINT64_C(1000000)

/* Longer ranges take their time by their length, and twice their bytes would be in the way of others. */
#define SMALL_BYTES (UINT64_C(128) << 10)
#define MOST_BYTES (UINT64_C(1) << 20)
enum hedge_class { HEDGE_SMALL, HEDGE_LARGE, HEDGE_CLASSES };

/* What is learned is trusted within these: below, the scheduler of this machine is what answers wait for; above, somebody does. */
#define FLOOR_NS (UINT64_C(5) * NS_PER_MS)
#define CEILING_NS (UINT64_C(2000) * NS_PER_MS)
/* Before so many answers have come nothing is known, and nobody is late; asked again after so long, which is S3's 90th percentile. */
#define KNOWN_ANSWERS 32u
#define FIRST_GUESS_NS (UINT64_C(50) * NS_PER_MS)
/* As many answers as these count half as much as those that come after them. */
#define HALVED_ANSWERS 1024u

/* Hedges that may be saved up: all that a fan-out of 256 wants, of a share of 10 % and a bad day. */
#define BURST 32.0

/* The store is slow as a whole when of the last 64 reads, in the order in which it showed, more were late than chance makes so. The late
 * ones of a fan-out show one after the other, at its end: those of 320 reads, a little more than are under way by default, are no sign. */
#define FAN_OUT 320
#define LATE_LEAST 8
#define LATE_MOST 48
/* While the store is slow, one answer of so many is learned: it is not to be taken for the usual one at once, but in the end. */
#define LEARNED_WHILE_SLOW 16u

/* Times from half a millisecond to a minute; eight boxes for each doubling, so that a quantile is right within 9 %, and less between them. */
#define BOXES_A_DOUBLING 8u
#define DOUBLINGS 17u
#define BOXES (BOXES_A_DOUBLING * DOUBLINGS)
#define LEAST_NS (UINT64_C(1) << 19)

struct answer_times {
    uint32_t count[BOXES], total;
};

struct sf_hedge {
    atomic_uint refs;
    const sf_allocator *alloc;
    double share;
    uint64_t fixed_ns;       /* 0: learned */
    sf_store_events *events; /* acquired, or NULL */
    /* loop thread */
    double tokens;
    struct answer_times times[HEDGE_CLASSES];
    uint64_t learned_ns[HEDGE_CLASSES]; /* 0: nothing is known */
    uint64_t late, trouble;             /* a bit for each of the last 64, the newest lowest */
    unsigned unlearned;                 /* answers, while the store is slow */
    /* written by the loop thread, read by any */
    atomic_uint_fast64_t sent, won, refused_budget, refused_sick, refused_room;
};

static void count(atomic_uint_fast64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void note(sf_hedge *h, atomic_uint_fast64_t *counter, sf_store_event_kind kind)
{
    count(counter);
    sf__store_events_note(h->events, kind, SF_STORE_GET, 1, 0);
}

/* ------------------------------------------------------------------ how long answers take ------------------------ */

static enum hedge_class class_of(uint64_t len)
{
    return len <= SMALL_BYTES ? HEDGE_SMALL : HEDGE_LARGE;
}

static unsigned box_of(uint64_t ns)
{
    unsigned doubling, part;

    if (ns < LEAST_NS)
        return 0;
    doubling = 63u - (unsigned)__builtin_clzll(ns) - 19u;
    part = (unsigned)(ns >> (doubling + 19u - 3u)) & (BOXES_A_DOUBLING - 1);
    return doubling < DOUBLINGS ? doubling * BOXES_A_DOUBLING + part : BOXES - 1;
}

/* Where a box begins; that of BOXES is the end of the last one. */
static double box_begin(unsigned box)
{
    double doubling = (double)(LEAST_NS << (box / BOXES_A_DOUBLING));

    return doubling * (1 + (double)(box % BOXES_A_DOUBLING) / BOXES_A_DOUBLING);
}

static uint64_t quantile(const struct answer_times *t, double share)
{
    double wanted = share * t->total, below = 0;

    for (unsigned i = 0; i < BOXES; i++) {
        double here = t->count[i];

        if (here > 0 && below + here >= wanted)
            return (uint64_t)(box_begin(i) + (box_begin(i + 1) - box_begin(i)) * (wanted - below) / here);
        below += here;
    }
    return (uint64_t)box_begin(BOXES);
}

static void learn(sf_hedge *h, enum hedge_class c, uint64_t took_ns)
{
    struct answer_times *t = &h->times[c];

    t->count[box_of(took_ns)]++;
    if (++t->total >= 2 * HALVED_ANSWERS) {
        t->total = 0;
        for (unsigned i = 0; i < BOXES; i++)
            t->total += t->count[i] /= 2;
    }
    if (t->total < KNOWN_ANSWERS)
        return;
    h->learned_ns[c] = quantile(t, 1 - h->share);
    if (h->learned_ns[c] < FLOOR_NS)
        h->learned_ns[c] = FLOOR_NS;
    if (h->learned_ns[c] > CEILING_NS)
        h->learned_ns[c] = CEILING_NS;
}

bool sf__hedge_covers(const sf_hedge *h, uint64_t len)
{
    return h && len <= MOST_BYTES;
}

uint64_t sf__hedge_after_ns(const sf_hedge *h, uint64_t len)
{
    uint64_t learned = h->learned_ns[class_of(len)];

    return h->fixed_ns ? h->fixed_ns : learned ? learned : FIRST_GUESS_NS;
}

/* ------------------------------------------------------------------ whether ------------------------------------- */

static bool is_slow(const sf_hedge *h)
{
    double usual = FAN_OUT * h->share;

    return __builtin_popcountll(h->late) > (usual < LATE_LEAST ? LATE_LEAST : usual < LATE_MOST ? usual : LATE_MOST);
}

void sf__hedge_note_request(sf_hedge *h)
{
    h->tokens = h->tokens + h->share < BURST ? h->tokens + h->share : BURST;
}

sf_hedge_verdict sf__hedge_ask(sf_hedge *h, uint64_t len, uint64_t waited_ns)
{
    bool known = h->fixed_ns || h->learned_ns[class_of(len)];

    if (!known || waited_ns < sf__hedge_after_ns(h, len))
        return SF_HEDGE_WAIT;
    h->late = h->late << 1 | 1;
    if (is_slow(h) || h->trouble != 0) { /* it may be the very first request that waits for its next attempt */
        note(h, &h->refused_sick, SF_STORE_HEDGE_SICK);
        return SF_HEDGE_REFUSED;
    }
    if (h->tokens < 1) {
        note(h, &h->refused_budget, SF_STORE_HEDGE_BUDGET);
        return SF_HEDGE_REFUSED;
    }
    return SF_HEDGE_SEND;
}

void sf__hedge_note_sent(sf_hedge *h)
{
    h->tokens -= 1;
    note(h, &h->sent, SF_STORE_HEDGE);
}

void sf__hedge_note_no_room(sf_hedge *h)
{
    note(h, &h->refused_room, SF_STORE_HEDGE_NO_ROOM);
}

void sf__hedge_note_answer(sf_hedge *h, uint64_t len, uint64_t took_ns, bool late, bool by_second)
{
    if (!late)
        h->late <<= 1;
    h->trouble <<= 1;
    if (by_second)
        note(h, &h->won, SF_STORE_HEDGE_WON);
    h->unlearned = is_slow(h) ? (h->unlearned + 1) % LEARNED_WHILE_SLOW : 0;
    /* What the second request brought is longer than what it was sent after, so the quantile that decides stays as it was. */
    if (h->unlearned == 0)
        learn(h, class_of(len), took_ns);
}

void sf__hedge_note_trouble(sf_hedge *h)
{
    if (h)
        h->trouble = h->trouble << 1 | 1;
}

/* Who is in a hurry is no sign of a store that is sick. */
void sf__hedge_note_deadline(sf_hedge *h, uint64_t waited_ns)
{
    if (waited_ns >= CEILING_NS)
        sf__hedge_note_trouble(h);
}

/* ------------------------------------------------------------------ its life ------------------------------------- */

sf_status sf__hedge_new(sf_hedge **out, double share, uint64_t after_ns, sf_store_events *events, const sf_allocator *a,
                        sf_error *err)
{
    sf_hedge *h = sf__calloc(a, 1, sizeof(*h));

    if (!h)
        return sf_fail(err, SF_NOMEM, "hedges");
    atomic_init(&h->refs, 1);
    h->alloc = a;
    h->share = share;
    h->fixed_ns = after_ns;
    h->events = events ? sf_store_events_acquire(events) : NULL;
    *out = h;
    return SF_OK;
}

sf_hedge *sf__hedge_acquire(sf_hedge *h)
{
    if (h)
        atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
    return h;
}

void sf__hedge_release(sf_hedge *h)
{
    if (!h || atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) != 1)
        return;
    sf_store_events_release(h->events);
    sf__free(h->alloc, h);
}

static uint64_t value(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void sf__hedge_get_stats(const sf_hedge *h, sf_hedge_stats *out)
{
    *out = (sf_hedge_stats){0};
    if (h)
        *out = (sf_hedge_stats){
            .sent = value(&h->sent),
            .won = value(&h->won),
            .refused_budget = value(&h->refused_budget),
            .refused_sick = value(&h->refused_sick),
            .refused_room = value(&h->refused_room),
        };
}
