/* Those who wait for one opening of a shard: who is told, when the first to be told sends others away and begins anew. */
#include "world.h"

#include <stdlib.h>

#include "base/clock.h"
#include "reader/lazy_shard.h"
#include "reader/source.h"

enum { FIRST, SENT_AWAY, LATER, COUNT };

struct party {
    struct world w;
    sf_source *source;
    sf_shard *shard;
    sf_shard_get_many ops[COUNT];
    sf_shard_ask asks[COUNT];
    sf_error errors[COUNT];
    sf_task over; /* the first opening has been told */
    unsigned done[COUNT];
    bool first_is_over, told_at_once;
    struct gate gate;
};

static void ask(struct party *p, int who)
{
    p->asks[who] = (sf_shard_ask){.key = sf_bytes_str("k")};
    p->errors[who] = (sf_error)SF_ERROR_INIT;
    p->ops[who].asks = &p->asks[who];
    p->ops[who].count = 1;
    p->ops[who].deadline_ns = sf__deadline_in_ms(20000);
    p->ops[who].error = &p->errors[who];
    p->ops[who].ctx = p;
    p->shard->vtable->get_many(p->shard, &p->ops[who]);
}

static void other_done(sf_shard_get_many *op)
{
    struct party *p = op->ctx;
    int who = (int)(op - p->ops);

    p->done[who]++;
    p->told_at_once |= who == LATER && !p->first_is_over;
    gate_arrive(&p->gate);
}

static void on_over(sf_task *task)
{
    ((struct party *)((char *)task - offsetof(struct party, over)))->first_is_over = true;
}

/* It is told first: the one behind it goes, which was the last of this opening, and another one comes for the next. */
static void first_done(sf_shard_get_many *op)
{
    struct party *p = op->ctx;

    p->done[FIRST]++;
    p->shard->vtable->get_many_cancel(p->shard, &p->ops[SENT_AWAY]);
    p->over.run = on_over;
    sf__loop_post(p->w.rt->loop, &p->over); /* before the next opening asks for anything */
    ask(p, LATER);
    gate_arrive(&p->gate);
}

static void begin(void *arg)
{
    struct party *p = arg;

    p->ops[FIRST].done = first_done;
    p->ops[SENT_AWAY].done = p->ops[LATER].done = other_done;
    ask(p, FIRST);
    ask(p, SENT_AWAY);
}

static void test_who_is_told(void **state)
{
    static const struct gate gate = GATE_INIT;
    const sf_shard_site site = {.location = PREFIX "/nowhere", .name = "nowhere", .db_id = 3, .manifest_ref = "none"};
    struct party *p = calloc(1, sizeof(*p));
    sf_error err = SF_ERROR_INIT;

    (void)state;
    assert_non_null(p);
    p->gate = gate;
    world_open(&p->w, NULL);
    assert_int_equal(sf__source_new(&p->source, p->w.rt, PREFIX, NULL, &err), SF_OK);
    assert_int_equal(sf__lazy_shard_new(&p->shard, p->source, &site, &err), SF_OK);
    on_loop(p->w.rt->loop, begin, p);
    gate_wait(&p->gate, COUNT);
    gate_leave(&p->gate);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(p->done[i], 1);
        assert_int_equal(p->asks[i].status, i == SENT_AWAY ? SF_CANCELLED : SF_NOT_FOUND);
    }
    assert_false(p->told_at_once); /* of a failure that was another opening's */
    sf__shard_release(p->shard);
    sf__source_release(p->source);
    world_close(&p->w);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_who_is_told)};

    return cmocka_run_group_tests_name("lazy shard", tests, NULL, NULL);
}
