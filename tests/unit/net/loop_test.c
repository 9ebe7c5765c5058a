#include "on_loop.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "net/retry.h"

enum { THREADS = 4, POSTS = 2000, TIMERS = 500 };

static sf_loop *new_loop(void)
{
    sf_loop *loop = NULL;

    assert_int_equal(sf__loop_new(&loop, &sf__allocator_default, NULL), SF_OK);
    return loop;
}

/* ---------------------------------------------------------------- inbox ----------------------------------------- */

struct poster {
    sf_loop *loop;
    struct post {
        sf_task task;
        struct poster *by;
        int number;
    } posts[POSTS];
    int next;         /* loop thread: the number expected now */
    int out_of_order; /* loop thread */
    int elsewhere;
};

static void post_on_task(sf_task *task)
{
    struct post *p = (struct post *)((char *)task - offsetof(struct post, task));

    p->by->out_of_order += p->number != p->by->next++;
    p->by->elsewhere += !sf__loop_is_current(p->by->loop);
}

static void *poster_main(void *arg)
{
    struct poster *p = arg;

    for (int i = 0; i < POSTS; i++) {
        p->posts[i] = (struct post){.task.run = post_on_task, .by = p, .number = i};
        sf__loop_post(p->loop, &p->posts[i].task);
    }
    return NULL;
}

static void test_posts_of_many_threads(void **state)
{
    static struct poster posters[THREADS];
    pthread_t threads[THREADS];
    sf_loop *loop = new_loop();

    assert_false(sf__loop_is_current(loop));
    memset(posters, 0, sizeof(posters));
    for (int i = 0; i < THREADS; i++) {
        posters[i].loop = loop;
        assert_int_equal(pthread_create(&threads[i], NULL, poster_main, &posters[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    sf__loop_free(loop); /* runs what is still in the inbox */
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(posters[i].next, POSTS);
        assert_int_equal(posters[i].out_of_order, 0);
        assert_int_equal(posters[i].elsewhere, 0);
    }
}

struct chain {
    sf_task task;
    sf_loop *loop;
    int left;
    bool inside, nested;
};

static void chain_on_task(sf_task *task)
{
    struct chain *c = (struct chain *)task;

    c->nested |= c->inside;
    c->inside = true;
    if (--c->left > 0)
        sf__loop_post(c->loop, task);
    c->inside = false;
}

static void test_free_runs_what_tasks_post(void **state)
{
    struct chain c = {.task.run = chain_on_task, .loop = new_loop(), .left = 100};

    sf__loop_post(c.loop, &c.task);
    sf__loop_free(c.loop);
    assert_int_equal(c.left, 0);
    assert_false(c.nested);
}

/* ---------------------------------------------------------------- workers --------------------------------------- */

struct job {
    sf_work work;
    sf_task task;
    sf_loop *loop;
    sf_work_kind kind;
    int rounds; /* loop thread and worker in turns */
    atomic_int on_loop_thread, done_elsewhere;
};

static void job_run(sf_work *work)
{
    struct job *j = (struct job *)work;

    j->on_loop_thread += sf__loop_is_current(j->loop);
    j->rounds--;
}

static void job_done(sf_work *work)
{
    struct job *j = (struct job *)work;

    j->done_elsewhere += !sf__loop_is_current(j->loop);
    if (j->rounds > 0)
        sf__work_submit(j->loop, j->kind, &j->work);
}

static void job_on_task(sf_task *task)
{
    struct job *j = (struct job *)((char *)task - offsetof(struct job, task));

    sf__work_submit(j->loop, j->kind, &j->work);
}

static void test_free_waits_for_workers(void **state)
{
    struct job jobs[8];
    sf_loop *loop = new_loop();

    memset(jobs, 0, sizeof(jobs));
    for (int i = 0; i < 8; i++) {
        jobs[i] = (struct job){.work = {.run = job_run, .done = job_done},
                               .task.run = job_on_task,
                               .loop = loop,
                               .kind = (sf_work_kind)(i % SF_WORK_KINDS),
                               .rounds = 20};
        sf__loop_post(loop, &jobs[i].task);
    }
    sf__loop_free(loop);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(jobs[i].rounds, 0);
        assert_int_equal(jobs[i].on_loop_thread, 0);
        assert_int_equal(jobs[i].done_elsewhere, 0);
    }
}

/* Waits on a worker until it is let go. */
struct blocked {
    sf_work work;
    sf_task task;
    sf_loop *loop;
    sf_work_kind kind;
    struct gate *arrived, *let_go;
    unsigned wait_for;
    atomic_int own;
    int done;
};

static void blocked_run(sf_work *work)
{
    struct blocked *b = (struct blocked *)work;

    b->own += sf__loop_is_own_thread(b->loop) && !sf__loop_is_current(b->loop);
    gate_arrive(b->arrived);
    if (b->let_go)
        gate_wait(b->let_go, b->wait_for);
}

static void blocked_done(sf_work *work)
{
    ((struct blocked *)work)->done++;
}

static void blocked_on_task(sf_task *task)
{
    struct blocked *b = (struct blocked *)((char *)task - offsetof(struct blocked, task));

    sf__work_submit(b->loop, b->kind, &b->work);
}

/* However many wait for somebody else, of whatever kind, a job of another kind is done. */
static void test_kinds_hold_up_none_but_their_own(void **state)
{
    for (int kind = 0; kind < SF_WORK_KINDS; kind++) {
        struct blocked many[SF_POOL_MAX_THREADS + 10], others[SF_WORK_KINDS];
        struct gate arrived = GATE_INIT, served = GATE_INIT, let_go = GATE_INIT;
        sf_loop *loop = new_loop();

        for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++) {
            many[i] = (struct blocked){.work = {.run = blocked_run, .done = blocked_done},
                                       .task.run = blocked_on_task,
                                       .loop = loop,
                                       .kind = (sf_work_kind)kind,
                                       .arrived = &arrived,
                                       .let_go = &let_go,
                                       .wait_for = 1};
            sf__loop_post(loop, &many[i].task);
        }
        gate_wait(&arrived, 1);
        for (int i = 0; i < SF_WORK_KINDS; i++) {
            others[i] = (struct blocked){.work = {.run = blocked_run, .done = blocked_done},
                                         .task.run = blocked_on_task,
                                         .loop = loop,
                                         .kind = (sf_work_kind)i,
                                         .arrived = &served};
            if (i != kind)
                sf__loop_post(loop, &others[i].task);
        }
        gate_wait(&served, SF_WORK_KINDS - 1);
        gate_arrive(&let_go);
        sf__loop_free(loop);
        for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++) {
            assert_int_equal(many[i].done, 1);
            assert_int_equal(many[i].own, 1);
        }
        for (int i = 0; i < SF_WORK_KINDS; i++)
            assert_int_equal(others[i].done, i != kind);
    }
}

static void nothing(void *arg)
{
    (void)arg;
}

struct tally {
    const struct blocked *jobs;
    int count, done;
};

static void tally_done(void *arg)
{
    struct tally *t = arg;

    for (int i = 0; i < t->count; i++)
        t->done += t->jobs[i].done;
}

/* More jobs that wait for one another than a pool usually has threads: it gets more, and loses them again. */
static void test_stalled_pool_grows(void **state)
{
    enum { MANY = 20 };
    struct blocked many[MANY];
    sf_loop *loop = new_loop();

    for (int round = 0; round < 3; round++) { /* threads that have ended are replaced */
        struct gate arrived = GATE_INIT;

        for (int i = 0; i < MANY; i++) {
            many[i] = (struct blocked){.work = {.run = blocked_run, .done = blocked_done},
                                       .task.run = blocked_on_task,
                                       .loop = loop,
                                       .kind = SF_WORK_WAIT,
                                       .arrived = &arrived,
                                       .let_go = &arrived,
                                       .wait_for = MANY};
            sf__loop_post(loop, &many[i].task);
        }
        gate_wait(&arrived, MANY);
        for (int done = 0; done < MANY;) { /* many[] is the loop's until then */
            struct tally t = {.jobs = many, .count = MANY};

            on_loop(loop, tally_done, &t);
            done = t.done;
        }
    }
    sf__loop_free(loop);
}

/* However much is to be moved: what moves little finds a thread. */
static void test_bulk_leaves_a_thread(void **state)
{
    enum { MANY = 10, FREE_FOR_BULK = 3 }; /* of four */
    struct gate arrived = GATE_INIT, let_go = GATE_INIT, served = GATE_INIT;
    struct blocked many[MANY], little = {.work = {.run = blocked_run, .done = blocked_done},
                                         .task.run = blocked_on_task,
                                         .kind = SF_WORK_FILE,
                                         .arrived = &served};
    sf_loop *loop = new_loop();

    for (int i = 0; i < MANY; i++) {
        many[i] = (struct blocked){.work = {.run = blocked_run, .done = blocked_done, .bulk = true},
                                   .task.run = blocked_on_task,
                                   .loop = loop,
                                   .kind = SF_WORK_FILE,
                                   .arrived = &arrived,
                                   .let_go = &let_go,
                                   .wait_for = 1};
        sf__loop_post(loop, &many[i].task);
    }
    gate_wait(&arrived, FREE_FOR_BULK);
    little.loop = loop;
    sf__loop_post(loop, &little.task);
    gate_wait(&served, 1);
    assert_int_equal(arrived.count, FREE_FOR_BULK);
    gate_arrive(&let_go);
    sf__loop_free(loop);
    assert_int_equal(little.done, 1);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(many[i].done, 1);
}

struct turn {
    sf_work work;
    sf_task task;
    sf_loop *loop;
    char *order;
    atomic_uint *count;
};

static void turn_run(sf_work *work)
{
    struct turn *t = (struct turn *)work;

    t->order[atomic_fetch_add(t->count, 1)] = work->bulk ? 'B' : 'p';
}

static void turn_done(sf_work *work)
{
    (void)work;
}

static void turn_on_task(sf_task *task)
{
    struct turn *t = (struct turn *)((char *)task - offsetof(struct turn, task));

    sf__work_submit(t->loop, SF_WORK_FILE, &t->work);
}

/* Neither keeps the other from the only thread for good. */
static void test_one_thread_serves_bulk_in_turn(void **state)
{
    static const char posted[] = "BBBppp", taken[] = "BpBpBp";
    struct gate arrived = GATE_INIT, let_go = GATE_INIT;
    struct blocked first = {.work = {.run = blocked_run, .done = blocked_done},
                            .task.run = blocked_on_task,
                            .kind = SF_WORK_FILE,
                            .arrived = &arrived,
                            .let_go = &let_go,
                            .wait_for = 1};
    struct turn turns[sizeof(posted) - 1];
    char order[sizeof(posted)] = "";
    atomic_uint count = 0;
    sf_loop *loop = new_loop();

    sf__loop_size_pool(loop, SF_WORK_FILE, (sf_pool_size){1, 1});
    first.loop = loop;
    sf__loop_post(loop, &first.task);
    gate_wait(&arrived, 1);
    for (size_t i = 0; i < sizeof(posted) - 1; i++) {
        turns[i] = (struct turn){.work = {.run = turn_run, .done = turn_done, .bulk = posted[i] == 'B'},
                                 .task.run = turn_on_task,
                                 .loop = loop,
                                 .order = order,
                                 .count = &count};
        sf__loop_post(loop, &turns[i].task);
    }
    on_loop(loop, nothing, NULL); /* all are in their queues */
    gate_arrive(&let_go);
    sf__loop_free(loop);
    assert_string_equal(order, taken);
}

/* ---------------------------------------------------------------- timers ---------------------------------------- */

struct alarm {
    sf_timer timer;
    struct alarms *all;
    bool stopped, fired;
};

struct alarms {
    sf_loop *loop;
    struct alarm list[TIMERS];
    struct gate gate;
    uint64_t seed, last_due;
    int fired, wrong_order, early, unexpected, expected;
};

static void alarm_fire(sf_timer *timer)
{
    struct alarm *a = (struct alarm *)timer;
    struct alarms *all = a->all;

    all->wrong_order += timer->due_ns < all->last_due;
    all->early += sf__clock_mono_ns() < timer->due_ns;
    all->unexpected += a->stopped || a->fired;
    all->last_due = timer->due_ns;
    a->fired = true;
    if (++all->fired == all->expected)
        gate_arrive(&all->gate);
}

static void alarms_start(void *arg)
{
    struct alarms *all = arg;
    sf_random random = {.state = all->seed};
    uint64_t now = sf__clock_mono_ns();

    for (int i = 0; i < TIMERS; i++) {
        all->list[i].all = all;
        all->list[i].timer.fire = alarm_fire;
        sf__timer_start(all->loop, &all->list[i].timer, now + sf__random_next(&random) % 20000000);
    }
    for (int i = 0; i < TIMERS; i++) {
        uint64_t what = sf__random_next(&random) % 4;

        if (what == 0) { /* stopped, twice */
            sf__timer_stop(all->loop, &all->list[i].timer);
            sf__timer_stop(all->loop, &all->list[i].timer);
            all->list[i].stopped = true;
        } else if (what == 1) { /* stopped by a deadline that never comes */
            sf__timer_start(all->loop, &all->list[i].timer, SF_NO_DEADLINE);
            all->list[i].stopped = true;
        } else if (what == 2) { /* moved */
            sf__timer_start(all->loop, &all->list[i].timer, now + sf__random_next(&random) % 20000000);
        }
        all->expected += !all->list[i].stopped;
    }
}

static void test_timers_fire_in_order(void **state)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct alarms *all = calloc(1, sizeof(*all));

        *all = (struct alarms){.loop = new_loop(), .gate = GATE_INIT, .seed = seed};
        on_loop(all->loop, alarms_start, all);
        gate_wait(&all->gate, 1);
        sf__loop_free(all->loop);
        assert_int_equal(all->fired, all->expected);
        assert_int_equal(all->wrong_order, 0);
        assert_int_equal(all->early, 0);
        assert_int_equal(all->unexpected, 0);
        free(all);
    }
}

struct equals {
    sf_timer timers[10];
    sf_loop *loop;
    struct gate gate;
    sf_timer *order[10];
    int fired;
};
static struct equals *equals_now; /* set before the loop starts its timers */

static void equal_fire(sf_timer *timer)
{
    equals_now->order[equals_now->fired++] = timer;
    if (equals_now->fired == 10)
        gate_arrive(&equals_now->gate);
}

static void equals_start(void *arg)
{
    struct equals *e = arg;

    for (int i = 0; i < 10; i++) {
        e->timers[i].fire = equal_fire;
        sf__timer_start(e->loop, &e->timers[i], 1); /* long past */
    }
    if (e->fired != 0) /* never inside the call */
        e->fired = 1000;
}

static void test_equal_timers_fire_in_starting_order(void **state)
{
    struct equals e = {.loop = new_loop(), .gate = GATE_INIT};

    equals_now = &e;
    on_loop(e.loop, equals_start, &e);
    gate_wait(&e.gate, 1);
    sf__loop_free(e.loop);
    for (int i = 0; i < 10; i++)
        assert_ptr_equal(e.order[i], &e.timers[i]);
}

struct spinner {
    sf_timer timer;
    sf_task task;
    sf_loop *loop;
    struct gate gate;
    bool stop;
};

static void spinner_fire(sf_timer *timer)
{
    struct spinner *s = (struct spinner *)timer;

    if (s->stop)
        gate_arrive(&s->gate);
    else
        sf__timer_start(s->loop, timer, 0);
}

static void spinner_start(void *arg)
{
    spinner_fire(&((struct spinner *)arg)->timer);
}

static void spinner_stop(void *arg)
{
    ((struct spinner *)arg)->stop = true;
}

static void test_timer_that_rearms_itself_starves_nobody(void **state)
{
    struct spinner s = {.timer.fire = spinner_fire, .loop = new_loop(), .gate = GATE_INIT};

    on_loop(s.loop, spinner_start, &s);
    on_loop(s.loop, spinner_stop, &s); /* gets through although a timer is always due */
    gate_wait(&s.gate, 1);
    sf__loop_free(s.loop);
}

/* ---------------------------------------------------------------- life ------------------------------------------ */

struct self_free {
    sf_task task;
    sf_loop *loop;
    struct gate gate;
};

static void self_free_gone(void *ctx)
{
    gate_arrive(&((struct self_free *)ctx)->gate);
}

static void self_free_on_task(sf_task *task)
{
    struct self_free *s = (struct self_free *)task;

    sf__loop_free_later(s->loop, self_free_gone, s);
}

static void test_freed_from_its_own_thread(void **state)
{
    struct self_free s = {.task.run = self_free_on_task, .loop = new_loop(), .gate = GATE_INIT};

    sf__loop_post(s.loop, &s.task);
    gate_wait(&s.gate, 1);
    pthread_mutex_lock(&s.gate.lock);
    pthread_mutex_unlock(&s.gate.lock);
}

static void *no_memory(void *ctx, void *p, size_t n)
{
    return NULL;
}

static void no_free(void *ctx, void *p) {}

static void test_new_without_memory(void **state)
{
    const sf_allocator none = {.size = sizeof(none), .realloc = no_memory, .free = no_free};
    sf_error err = SF_ERROR_INIT;
    sf_loop *loop = NULL;

    assert_int_equal(sf__loop_new(&loop, &none, &err), SF_NOMEM);
    assert_null(loop);
    sf__loop_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_posts_of_many_threads),
        cmocka_unit_test(test_free_runs_what_tasks_post),
        cmocka_unit_test(test_free_waits_for_workers),
        cmocka_unit_test(test_kinds_hold_up_none_but_their_own),
        cmocka_unit_test(test_stalled_pool_grows),
        cmocka_unit_test(test_bulk_leaves_a_thread),
        cmocka_unit_test(test_one_thread_serves_bulk_in_turn),
        cmocka_unit_test(test_timers_fire_in_order),
        cmocka_unit_test(test_equal_timers_fire_in_starting_order),
        cmocka_unit_test(test_timer_that_rearms_itself_starves_nobody),
        cmocka_unit_test(test_freed_from_its_own_thread),
        cmocka_unit_test(test_new_without_memory),
    };

    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
