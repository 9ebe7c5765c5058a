/* Shards of a caller's opener, in C: answers at once, later, from other threads, never; errors; deadlines and cancelling;
 * what is closed when. */
#include "../../support/heap.h"
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shardyfusion/shard_opener.h"

#define PATIENCE_MS 30000
#define ROWS 3000 /* of each shard */

/* ------------------------------------------------------------------ the opener ----------------------------------- */

enum when { AT_ONCE, ON_A_THREAD, WHEN_LET }; /* the last: by let_go(), or never */

struct plug {
    sf_shard_opener vtable;
    /* how it answers; set while nothing is asked */
    enum when when_open, when_get, when_scan;
    int failing_shard;      /* whose opening fails, or -1 */
    const char *useless;    /* part of the names of manifests that it can do nothing with, or NULL */
    atomic_int lost;        /* openings that are to end as if nobody was there to answer */
    bool keys_fail;         /* every look-up's first key */
    bool disorder, outside; /* of scans */
    bool gives_too_much;    /* answers for keys that nobody asked for */
    /* what became of it */
    atomic_int retained, opens, closes, gets, steps, scans, scans_closed;
    atomic_int shared_opens;
    pthread_mutex_t lock; /* covers what follows */
    struct asked *held;
    pthread_t threads[512];
    unsigned thread_count;
    struct gate arrived; /* what is held */
    void *call_ctx;      /* of the last question */
    char last_open[1024];
};

struct shard {
    struct plug *plug;
    uint32_t db_id;
};

struct cursor {
    unsigned next; /* number of the row */
};

struct asked {
    struct asked *next;
    struct plug *plug;
    void (*answer)(struct asked *a);
    sf_shard_request *rq;
    struct shard *shard;
    const sf_shard_to_open *open;
    const sf_bytes *keys;
    size_t count;
    void **scan;
    const sf_shard_rows_wanted *wanted;
};

static void *answer_on_thread(void *arg)
{
    struct asked *a = arg;

    a->answer(a);
    free(a);
    return NULL;
}

static void ask(struct plug *p, enum when when, struct asked a)
{
    struct asked *copy = malloc(sizeof(*copy));

    *copy = a;
    copy->plug = p;
    pthread_mutex_lock(&p->lock);
    p->call_ctx = sf_shard_request_call_ctx(a.rq);
    if (when == WHEN_LET) {
        copy->next = p->held;
        p->held = copy;
        gate_arrive(&p->arrived);
    } else if (when == ON_A_THREAD && p->thread_count < 512) {
        pthread_create(&p->threads[p->thread_count++], NULL, answer_on_thread, copy);
    } else {
        when = AT_ONCE;
    }
    pthread_mutex_unlock(&p->lock);
    if (when == AT_ONCE)
        answer_on_thread(copy);
}

/* Answers what was held, newest first, on this thread. */
static void let_go(struct plug *p)
{
    struct asked *a;

    pthread_mutex_lock(&p->lock);
    a = p->held;
    p->held = NULL;
    pthread_mutex_unlock(&p->lock);
    while (a) {
        struct asked *next = a->next;

        answer_on_thread(a);
        a = next;
    }
}

static void answer_open(struct asked *a)
{
    struct shard *s;

    pthread_mutex_lock(&a->plug->lock);
    snprintf(a->plug->last_open, sizeof(a->plug->last_open), "%s|%s|%s|%.15s", a->open->url, a->open->published_url,
             a->open->manifest_ref, (const char *)a->open->manifest.p);
    pthread_mutex_unlock(&a->plug->lock);
    if ((int)a->open->db_id == a->plug->failing_shard) {
        sf_shard_request_fail(a->rq, SF_DENIED, "not this one");
        return;
    }
    if (a->plug->useless && strstr(a->open->manifest_ref, a->plug->useless)) {
        sf_shard_request_fail(a->rq, SF_BAD_MANIFEST, "it means nothing to me");
        return;
    }
    if (atomic_load(&a->plug->lost) > 0) {
        atomic_fetch_sub(&a->plug->lost, 1);
        sf_shard_request_fail(a->rq, SF_CANCELLED, "nobody waits");
        return;
    }
    s = malloc(sizeof(*s));
    *s = (struct shard){a->plug, a->open->db_id};
    atomic_fetch_add(&a->plug->opens, 1);
    sf_shard_request_opened(a->rq, s);
}

static void plug_open(void *ctx, const sf_shard_to_open *what, sf_shard_request *rq)
{
    struct plug *p = ctx;

    atomic_fetch_add(&p->shared_opens, what->shared);
    ask(p, p->when_open, (struct asked){.answer = answer_open, .rq = rq, .open = what});
}

/* The value of a key is the shard's number and the key; a key that ends with 0xff is not there. */
static void answer_get(struct asked *a)
{
    for (size_t i = 0; i < a->count; i++) {
        char value[64];

        if (a->keys[i].n > 0 && a->keys[i].p[a->keys[i].n - 1] == 0xff)
            continue;
        value[0] = (char)a->shard->db_id;
        memcpy(value + 1, a->keys[i].p, a->keys[i].n);
        sf_shard_request_value(a->rq, i, sf_bytes_of(value, 1 + a->keys[i].n));
    }
    if (a->plug->keys_fail)
        sf_shard_request_key_failed(a->rq, 0, SF_UNAVAILABLE, "this key is on holiday");
    if (a->plug->gives_too_much)
        sf_shard_request_value(a->rq, a->count, sf_bytes_str("x"));
    sf_shard_request_done(a->rq);
}

static void plug_get_many(void *shard, const sf_bytes *keys, size_t count, sf_shard_request *rq)
{
    struct shard *s = shard;

    atomic_fetch_add(&s->plug->gets, 1);
    ask(s->plug, s->plug->when_get,
        (struct asked){.answer = answer_get, .rq = rq, .shard = s, .keys = keys, .count = count});
}

static void row_key(const struct shard *s, unsigned n, char out[static 16])
{
    snprintf(out, 16, "r%06u", n * 10 + s->db_id % 10);
}

static int compare(sf_bytes a, const char *b)
{
    int c = memcmp(a.p, b, a.n < strlen(b) ? a.n : strlen(b));

    return c != 0 ? c : (a.n > strlen(b)) - (a.n < strlen(b));
}

static void answer_scan(struct asked *a)
{
    const sf_shard_rows_wanted *w = a->wanted;
    struct cursor *c = *a->scan;
    char key[16];

    if (!c) {
        *a->scan = c = calloc(1, sizeof(*c));
        atomic_fetch_add(&a->plug->scans, 1);
    }
    if (a->plug->outside && c->next == 0)
        sf_shard_request_row(a->rq, sf_bytes_str("a"), sf_bytes_str(""));
    for (size_t given = 0; c->next < ROWS && given < w->max_rows;) {
        unsigned n = w->reverse ? ROWS - 1 - c->next : c->next;

        c->next++;
        row_key(a->shard, n, key);
        if ((w->start.n > 0 && compare(w->start, key) > 0) || (w->has_end && compare(w->end, key) <= 0))
            continue;
        given++;
        sf_shard_request_row(a->rq, sf_bytes_str(key), sf_bytes_str(key));
        if (a->plug->disorder && c->next % 100 == 99)
            sf_shard_request_row(a->rq, sf_bytes_str(key), sf_bytes_str(key));
    }
    sf_shard_request_done(a->rq);
}

static void plug_scan_next(void *shard, void **scan, const sf_shard_rows_wanted *wanted, sf_shard_request *rq)
{
    struct shard *s = shard;

    atomic_fetch_add(&s->plug->steps, 1);
    ask(s->plug, s->plug->when_scan,
        (struct asked){.answer = answer_scan, .rq = rq, .shard = s, .scan = scan, .wanted = wanted});
}

static void plug_scan_close(void *shard, void *scan)
{
    atomic_fetch_add(&((struct shard *)shard)->plug->scans_closed, 1);
    free(scan);
}

static void plug_close(void *shard)
{
    atomic_fetch_add(&((struct shard *)shard)->plug->closes, 1);
    free(shard);
}

static void plug_retain(void *ctx)
{
    atomic_fetch_add(&((struct plug *)ctx)->retained, 1);
}

static void plug_release(void *ctx)
{
    atomic_fetch_sub(&((struct plug *)ctx)->retained, 1);
}

/* ------------------------------------------------------------------ the world ------------------------------------ */

struct trial {
    struct world world;
    struct plug plug;
    sf_reader_options options;
};

static struct plug fresh_plug(void)
{
    return (struct plug){
        .vtable =
            {
                .size = sizeof(sf_shard_opener),
                .retain = plug_retain,
                .release = plug_release,
                .open = plug_open,
                .get_many = plug_get_many,
                .scan_next = plug_scan_next,
                .scan_close = plug_scan_close,
                .close = plug_close,
            },
        .failing_shard = -1,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .arrived = GATE_INIT,
    };
}

static void begin(struct trial *t)
{
    t->plug = fresh_plug();
    t->plug.vtable.ctx = &t->plug;
    world_open(&t->world, NULL);
    t->options = (sf_reader_options)SF_READER_OPTIONS_INIT;
    t->options.shard_opener = &t->plug.vtable;
}

/* All that was opened is closed, and nothing of the opener is held any more. */
static void end(struct trial *t)
{
    let_go(&t->plug);
    for (unsigned i = 0; i < t->plug.thread_count; i++)
        pthread_join(t->plug.threads[i], NULL);
    world_close(&t->world);
    assert_int_equal(atomic_load(&t->plug.opens), atomic_load(&t->plug.closes));
    assert_int_equal(atomic_load(&t->plug.scans), atomic_load(&t->plug.scans_closed));
    assert_int_equal(atomic_load(&t->plug.retained), 0);
}

static sf_reader *open_reader(struct trial *t)
{
    sf_reader *r = NULL;
    sf_error e = SF_ERROR_INIT;

    if (sf_reader_open(&r, t->world.rt, PREFIX, &t->options, &e) != SF_OK)
        fail_msg("open: %s", e.message);
    return r;
}

/* The loop thread may hold what it has completed a little longer than who waited for it. */
static void await_closed(struct trial *t, int count)
{
    for (unsigned i = 0; i < 30000 && atomic_load(&t->plug.closes) != count; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_int_equal(atomic_load(&t->plug.closes), count);
}

static const enum when whens[] = {AT_ONCE, ON_A_THREAD};

/* ------------------------------------------------------------------ reads ---------------------------------------- */

static void check_value(sf_reader *r, unsigned i, const sf_value *v)
{
    sf_snapshot *s = sf_reader_borrow(r, NULL);
    sf_key key = sf_key_int(i);
    uint8_t scratch[8];
    sf_bytes stored;
    uint32_t db_id;
    bool there = i % 256 != 255;

    assert_int_equal(sf_snapshot_route(s, &key, &db_id, NULL), SF_OK);
    assert_int_equal(sf_snapshot_encode_key(s, &key, scratch, &stored, NULL), SF_OK);
    assert_non_null(sf_snapshot_foreign_shard(s, db_id));
    assert_null(sf_snapshot_foreign_shard(s, 1000));
    assert_int_equal(v->found, there);
    if (there) {
        assert_int_equal(v->bytes.n, stored.n + 1);
        assert_int_equal(v->bytes.p[0], db_id);
        assert_memory_equal(v->bytes.p + 1, stored.p, stored.n);
    }
    sf_snapshot_give_back(s);
}

static void reads_go_to_the_opener(void **state)
{
    struct trial t;

    (void)state;
    for (size_t n = 0; n < 4; n++) {
        sf_key keys[KEYS];
        sf_value values[KEYS], v = {0};
        sf_reader *r;

        begin(&t);
        t.plug.when_open = t.plug.when_get = whens[n % 2];
        t.options.lazy_shards = n >= 2;
        t.options.open_concurrency = 1 + n % 2;
        r = open_reader(&t);
        assert_int_equal(atomic_load(&t.plug.opens) > 0, n < 2);
        for (unsigned i = 0; i < KEYS; i++)
            keys[i] = sf_key_int(i);
        assert_int_equal(sf_reader_multi_get(r, keys, KEYS, PATIENCE_MS, values, NULL), SF_OK);
        for (unsigned i = 0; i < KEYS; i++) {
            check_value(r, i, &values[i]);
            sf_value_release(&values[i]);
        }
        assert_int_equal(atomic_load(&t.plug.gets), atomic_load(&t.plug.opens)); /* one question for each shard */
        assert_int_equal(sf_reader_try_get(r, &keys[7], &v, NULL), SF_WOULD_BLOCK);
        assert_int_equal(sf_reader_get(r, &keys[7], PATIENCE_MS, &v, NULL), SF_OK);
        check_value(r, 7, &v);
        sf_value_release(&v);
        assert_int_equal(atomic_load(&t.plug.shared_opens) > 0, n >= 2);
        assert_non_null(strstr(t.plug.last_open, PREFIX "/shards/run_id=run-002/db="));
        assert_non_null(strstr(t.plug.last_open, "|s3://bucket/golden/history-three-runs/shards/"));
        assert_non_null(strstr(t.plug.last_open, "/manifest|SQLite format 3"));
        sf_reader_free(r);
        end(&t);
    }
}

static void values_outlive_the_runtime(void **state)
{
    struct trial t;
    sf_value v = {0};
    sf_key key = sf_key_int(3);
    sf_reader *r;

    (void)state;
    begin(&t);
    r = open_reader(&t);
    assert_int_equal(sf_reader_get(r, &key, PATIENCE_MS, &v, NULL), SF_OK);
    sf_reader_free(r);
    end(&t);
    assert_int_equal(v.bytes.n, 9);
    sf_value_release(&v);
}

static void key_fails_alone(void **state)
{
    struct trial t;
    sf_key keys[40];
    sf_call *call;
    const sf_status *statuses;
    const sf_error *errors;
    size_t count, failed = 0;
    sf_error e = SF_ERROR_INIT;
    sf_reader *r;

    (void)state;
    begin(&t);
    t.plug.keys_fail = true;
    r = open_reader(&t);
    for (unsigned i = 0; i < 40; i++)
        keys[i] = sf_key_int(i);
    assert_int_equal(sf_reader_multi_get_start(&call, r, keys, 40, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_call_wait(call, &e), SF_UNAVAILABLE);
    assert_non_null(strstr(e.message, "this key is on holiday"));
    assert_true(e.db_id >= 0);
    assert_non_null(strstr(e.object, "s3://bucket/golden/history-three-runs/shards/"));
    statuses = sf_call_statuses(call);
    for (unsigned i = 0; i < 40; i++)
        failed += statuses[i] == SF_UNAVAILABLE;
    errors = sf_call_shard_errors(call, &count);
    assert_non_null(errors);
    assert_int_equal(count, atomic_load(&t.plug.opens));
    assert_int_equal(failed, count);
    sf_call_release(call);
    sf_reader_free(r);
    end(&t);
}

static void answer_for_no_key_fails_the_look_up(void **state)
{
    struct trial t;
    sf_value v = {0};
    sf_key key = sf_key_int(3);
    sf_error e = SF_ERROR_INIT;
    sf_reader *r;

    (void)state;
    begin(&t);
    t.plug.gives_too_much = true;
    r = open_reader(&t);
    assert_int_equal(sf_reader_get(r, &key, PATIENCE_MS, &v, &e), SF_INVALID);
    assert_non_null(strstr(e.message, "a key that it was not asked for"));
    sf_reader_free(r);
    end(&t);
}

/* ------------------------------------------------------------------ openings ------------------------------------- */

static void opening_that_fails(void **state)
{
    struct trial t;

    (void)state;
    for (size_t n = 0; n < 2; n++) {
        sf_reader *r = NULL;
        sf_error e = SF_ERROR_INIT;
        sf_value v;
        unsigned failed = 0;

        begin(&t);
        t.plug.failing_shard = 1;
        t.options.lazy_shards = n == 1;
        if (n == 0) {
            assert_int_equal(sf_reader_open(&r, t.world.rt, PREFIX, &t.options, &e), SF_DENIED);
            assert_int_equal(e.db_id, 1);
            assert_non_null(strstr(e.message, "not this one"));
        } else {
            r = open_reader(&t);
            for (unsigned i = 0; i < 40; i++) {
                sf_key key = sf_key_int(i);
                sf_status rc = sf_reader_get(r, &key, PATIENCE_MS, &v, &e);

                if (rc == SF_OK) {
                    sf_value_release(&v);
                    continue;
                }
                assert_int_equal(rc, SF_DENIED);
                assert_int_equal(e.db_id, 1);
                assert_non_null(strstr(e.message, "Failed to open shard at '" PREFIX));
                failed++;
            }
            assert_true(failed > 0 && failed < 40);
        }
        sf_reader_free(r);
        end(&t);
    }
}

/* As if it did not parse: an opening falls back, a refresh stays. */
static void manifest_that_is_of_no_use(void **state)
{
    struct trial t;
    sf_error e = SF_ERROR_INIT;
    bool changed = true;
    sf_reader *r;

    (void)state;
    begin(&t);
    t.plug.useless = "run-002";
    t.plug.when_open = ON_A_THREAD;
    r = open_reader(&t);
    assert_string_equal(world_run_id(r), "run-001");
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
    assert_false(changed);
    sf_reader_free(r);
    t.options.max_fallbacks = 0;
    assert_int_equal(sf_reader_open(&r, t.world.rt, PREFIX, &t.options, &e), SF_BAD_MANIFEST);
    assert_non_null(strstr(e.message, "it means nothing to me"));
    end(&t);
}

static void opening_that_nobody_waits_for(void **state)
{
    struct trial t;

    (void)state;
    for (size_t n = 0; n < 3; n++) {
        sf_error e = SF_ERROR_INIT;
        sf_call *call;
        int ctx;

        begin(&t);
        t.plug.when_open = WHEN_LET;
        for (int64_t ms = n == 0 ? 16 : PATIENCE_MS;; ms *= 2) { /* so long that it comes as far as the shards */
            t.options.open_timeout_ms = ms;
            assert_int_equal(sf_reader_open_start(&call, t.world.rt, PREFIX, &t.options, NULL, &ctx, NULL), SF_OK);
            if (n > 0) {
                gate_wait(&t.plug.arrived, 1);
                sf_call_cancel(call);
            }
            assert_int_equal(sf_call_wait(call, &e), n == 0 ? SF_TIMEOUT : SF_CANCELLED);
            sf_call_release(call);
            if (gate_count(&t.plug.arrived) > 0)
                break;
        }
        assert_ptr_equal(t.plug.call_ctx, &ctx);
        if (n == 2) { /* late, to nobody */
            let_go(&t.plug);
            assert_true(atomic_load(&t.plug.opens) > 0);
            await_closed(&t, atomic_load(&t.plug.opens));
        } else { /* after the runtime's end */
            world_close(&t.world);
            assert_true(atomic_load(&t.plug.retained) > 0);
            let_go(&t.plug);
            world_open(&t.world, NULL);
        }
        end(&t);
    }
}

/* ------------------------------------------------------------------ waiting -------------------------------------- */

static void look_up_that_nobody_waits_for(void **state)
{
    struct trial t;

    (void)state;
    for (size_t n = 0; n < 2; n++) {
        sf_key key = sf_key_int(3);
        sf_error e = SF_ERROR_INIT;
        sf_value v;
        sf_call *call;
        sf_reader *r;

        begin(&t);
        r = open_reader(&t);
        t.plug.when_get = WHEN_LET;
        for (int64_t ms = n == 0 ? 1 : PATIENCE_MS; gate_count(&t.plug.arrived) == 0; ms *= 2) {
            assert_int_equal(sf_reader_get_start(&call, r, &key, ms, NULL, NULL, NULL), SF_OK);
            if (n == 1) {
                gate_wait(&t.plug.arrived, 1);
                sf_call_cancel(call);
            }
            assert_int_equal(sf_call_wait(call, &e), n == 0 ? SF_TIMEOUT : SF_CANCELLED);
            sf_call_release(call);
        }
        if (n == 0) /* so long that the opener was asked */
            assert_non_null(strstr(e.message, "an answer"));
        /* the shard stays open while its opener thinks about it */
        sf_reader_free(r);
        await_closed(&t, atomic_load(&t.plug.opens) - 1);
        let_go(&t.plug);
        await_closed(&t, atomic_load(&t.plug.opens));
        /* and the next reader is as good as new */
        t.plug.when_get = AT_ONCE;
        r = open_reader(&t);
        assert_int_equal(sf_reader_get(r, &key, PATIENCE_MS, &v, NULL), SF_OK);
        sf_value_release(&v);
        sf_reader_free(r);
        end(&t);
    }
}

/* An opening for several readers goes on when the first of them leaves. */
static void lazy_opening_is_shared(void **state)
{
    struct trial t;
    sf_key key = sf_key_int(3);
    sf_call *first, *second;
    sf_reader *r;

    (void)state;
    begin(&t);
    t.options.lazy_shards = true;
    t.plug.when_open = WHEN_LET;
    r = open_reader(&t);
    assert_int_equal(sf_reader_get_start(&first, r, &key, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    gate_wait(&t.plug.arrived, 1);
    assert_int_equal(sf_reader_get_start(&second, r, &key, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    sf_call_cancel(first);
    assert_int_equal(sf_call_wait(first, NULL), SF_CANCELLED);
    let_go(&t.plug);
    assert_int_equal(sf_call_wait(second, NULL), SF_OK);
    assert_int_equal(atomic_load(&t.plug.opens), 1);
    sf_call_release(first);
    sf_call_release(second);
    sf_reader_free(r);
    end(&t);
}

/* The one for whom it was asked has left, and the opener found nobody: it is asked again for the next. */
static void lazy_opening_is_asked_again(void **state)
{
    struct trial t;
    sf_key key = sf_key_int(3);
    sf_call *first, *second;
    int here, there;
    sf_reader *r;

    (void)state;
    begin(&t);
    t.options.lazy_shards = true;
    t.plug.when_open = WHEN_LET;
    atomic_store(&t.plug.lost, 1);
    r = open_reader(&t);
    assert_int_equal(sf_reader_get_start(&first, r, &key, PATIENCE_MS, NULL, &here, NULL), SF_OK);
    gate_wait(&t.plug.arrived, 1);
    assert_ptr_equal(t.plug.call_ctx, &here);
    assert_int_equal(sf_reader_get_start(&second, r, &key, PATIENCE_MS, NULL, &there, NULL), SF_OK);
    sf_call_cancel(first);
    assert_int_equal(sf_call_wait(first, NULL), SF_CANCELLED);
    let_go(&t.plug);
    gate_wait(&t.plug.arrived, 2);
    assert_ptr_equal(t.plug.call_ctx, &there);
    let_go(&t.plug);
    assert_int_equal(sf_call_wait(second, NULL), SF_OK);
    sf_call_release(first);
    sf_call_release(second);
    sf_reader_free(r);
    end(&t);
}

/* What was held for a read that has ended is let go before the call that settles ends. */
static void settling_waits_for_what_has_ended(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 50; n++) {
        struct trial t;
        sf_key key = sf_key_int(3);
        sf_call *settling;
        sf_value v;
        sf_reader *r;

        begin(&t);
        r = open_reader(&t);
        assert_int_equal(sf_reader_get(r, &key, PATIENCE_MS, &v, NULL), SF_OK);
        sf_value_release(&v);
        sf_reader_free(r);
        assert_int_equal(sf_runtime_settle_start(&settling, t.world.rt, NULL, NULL, NULL), SF_OK);
        assert_int_equal(sf_call_wait(settling, NULL), SF_OK);
        sf_call_release(settling);
        assert_int_equal(atomic_load(&t.plug.closes), atomic_load(&t.plug.opens));
        end(&t);
    }
}

/* ------------------------------------------------------------------ refresh -------------------------------------- */

/* What is closed when the reader has moved: the shards of the snapshot before, once nobody holds it. */
static void refresh_closes_what_it_leaves(void **state)
{
    struct trial t;
    sf_snapshot *held;
    bool changed;
    sf_reader *r;
    int before;

    (void)state;
    begin(&t);
    world_point_at_run(&t.world, 0);
    r = open_reader(&t);
    before = atomic_load(&t.plug.opens);
    held = sf_reader_borrow(r, NULL);
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
    assert_false(changed);
    assert_int_equal(atomic_load(&t.plug.opens), before);
    world_point_at_run(&t.world, 2);
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
    assert_true(changed);
    assert_true(atomic_load(&t.plug.opens) > before);
    assert_int_equal(atomic_load(&t.plug.closes), 0);
    sf_snapshot_give_back(held); /* they are closed inside of this call */
    assert_int_equal(atomic_load(&t.plug.closes), before);
    sf_reader_free(r);
    end(&t);
}

/* ------------------------------------------------------------------ scans ---------------------------------------- */

static sf_status scan_all(sf_reader *r, const sf_scan_options *o, unsigned *rows, sf_error *e)
{
    sf_snapshot *s = sf_reader_borrow(r, NULL);
    char last[16] = "";
    sf_scan *scan = NULL;
    sf_status rc = sf_scan_open(&scan, s, o, e);
    size_t count = 1;

    *rows = 0;
    while (rc == SF_OK && count > 0) {
        const sf_row *row;

        rc = sf_scan_next(scan, 500, PATIENCE_MS, &row, &count, e);
        for (size_t i = 0; rc == SF_OK && i < count; i++) {
            if (last[0] && (o->reverse ? compare(row[i].key, last) >= 0 : compare(row[i].key, last) <= 0))
                fail_msg("row %u is out of order", *rows);
            snprintf(last, sizeof(last), "%.*s", (int)row[i].key.n, (const char *)row[i].key.p);
            assert_int_equal(row[i].value.n, row[i].key.n);
            (*rows)++;
        }
    }
    sf_scan_close(scan);
    sf_snapshot_give_back(s);
    return rc;
}

static void scans_are_merged(void **state)
{
    static const struct {
        const char *name;
        enum when when;
        bool lazy;
        sf_scan_options o;
        unsigned rows; /* of each shard; 0: as the limit says */
    } cases[] = {
        {"all", AT_ONCE, false, SF_SCAN_OPTIONS_INIT, ROWS},
        {"all, by threads", ON_A_THREAD, false, SF_SCAN_OPTIONS_INIT, ROWS},
        {"all, lazy", AT_ONCE, true, SF_SCAN_OPTIONS_INIT, ROWS},
        {"downwards",
         AT_ONCE,
         false,
         {.size = sizeof(sf_scan_options), .db_id = SF_ALL_SHARDS, .limit = UINT64_MAX, .reverse = true},
         ROWS},
        {"range",
         ON_A_THREAD,
         true,
         {.size = sizeof(sf_scan_options),
          .db_id = SF_ALL_SHARDS,
          .limit = UINT64_MAX,
          .start = {(const uint8_t *)"r001000", 7},
          .end = {(const uint8_t *)"r002000", 7},
          .has_end = true},
         100},
        {"prefix",
         AT_ONCE,
         false,
         {.size = sizeof(sf_scan_options),
          .db_id = SF_ALL_SHARDS,
          .limit = UINT64_MAX,
          .has_prefix = true,
          .prefix = {(const uint8_t *)"r01", 3}},
         1000},
        {"limit", AT_ONCE, false, {.size = sizeof(sf_scan_options), .db_id = SF_ALL_SHARDS, .limit = 77}, 0},
    };

    (void)state;
    for (size_t n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
        struct trial t;
        sf_error e = SF_ERROR_INIT;
        unsigned rows, shards;
        sf_reader *r;

        begin(&t);
        t.plug.when_scan = cases[n].when;
        t.options.lazy_shards = cases[n].lazy;
        r = open_reader(&t);
        if (scan_all(r, &cases[n].o, &rows, &e) != SF_OK)
            fail_msg("%s: %s", cases[n].name, e.message);
        shards = (unsigned)atomic_load(&t.plug.opens);
        if (rows != (cases[n].rows ? cases[n].rows * shards : 77))
            fail_msg("%s: %u rows of %u shards", cases[n].name, rows, shards);
        if (cases[n].o.limit == 77) /* no more were asked for than can be used */
            assert_int_equal(atomic_load(&t.plug.steps), shards);
        sf_reader_free(r);
        end(&t);
    }
}

static void rows_that_are_wrong_name_their_shard(void **state)
{
    static const char *const texts[] = {"not in the order of their keys", "outside of the range"};

    (void)state;
    for (size_t n = 0; n < 2; n++) {
        struct trial t;
        sf_scan_options o = SF_SCAN_OPTIONS_INIT;
        sf_error e = SF_ERROR_INIT;
        unsigned rows;
        sf_reader *r;

        begin(&t);
        t.plug.disorder = n == 0;
        t.plug.outside = n == 1;
        o.start = sf_bytes_str("r");
        r = open_reader(&t);
        assert_int_equal(scan_all(r, &o, &rows, &e), SF_CORRUPT);
        assert_non_null(strstr(e.message, texts[n]));
        assert_non_null(strstr(e.message, "/shards/run_id=run-002/db="));
        assert_true(e.db_id >= 0);
        sf_reader_free(r);
        end(&t);
    }
}

static void shards_that_cannot_be_scanned(void **state)
{
    struct trial t;
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    sf_snapshot *s;
    sf_scan *scan;
    sf_reader *r;

    (void)state;
    begin(&t);
    t.plug.vtable.scan_next = NULL;
    r = open_reader(&t);
    s = sf_reader_borrow(r, NULL);
    assert_int_equal(sf_scan_open(&scan, s, &o, &e), SF_UNSUPPORTED);
    sf_snapshot_give_back(s);
    sf_reader_free(r);
    end(&t);
}

/* The rows of a step that nobody waited for are asked for again, from behind the last one that was delivered. */
static void scan_goes_on_after_a_step_that_was_dropped(void **state)
{
    (void)state;
    for (size_t n = 0; n < 4; n++) {
        struct trial t;
        sf_scan_options o = {.size = sizeof(o), .db_id = 0, .limit = UINT64_MAX, .reverse = n >= 2};
        const sf_row *row;
        size_t count = 1;
        unsigned rows = 0;
        sf_call *call;
        sf_snapshot *s;
        sf_scan *scan;
        sf_reader *r;
        bool at_end;

        begin(&t);
        r = open_reader(&t);
        s = sf_reader_borrow(r, NULL);
        assert_int_equal(sf_scan_open(&scan, s, &o, NULL), SF_OK);
        assert_int_equal(sf_scan_next(scan, 10, PATIENCE_MS, &row, &count, NULL), SF_OK);
        rows += (unsigned)count;
        while (sf_scan_try_next(scan, 5000, &row, &count, &at_end, NULL) == SF_OK)
            rows += (unsigned)count;
        t.plug.when_scan = WHEN_LET;
        for (int64_t ms = n % 2 == 0 ? 1 : PATIENCE_MS;; ms *= 2) { /* so long that the opener is asked */
            assert_int_equal(sf_scan_next_start(&call, scan, 10, ms, NULL, NULL, NULL), SF_OK);
            if (n % 2 == 1) {
                gate_wait(&t.plug.arrived, 1);
                sf_call_cancel(call);
            }
            assert_int_equal(sf_call_wait(call, NULL), n % 2 == 0 ? SF_TIMEOUT : SF_CANCELLED);
            sf_call_release(call);
            if (gate_count(&t.plug.arrived) > 0)
                break;
        }
        t.plug.when_scan = AT_ONCE;
        for (count = 1; count > 0; rows += (unsigned)count) /* the other one is still being asked */
            assert_int_equal(sf_scan_next(scan, 1000, PATIENCE_MS, &row, &count, NULL), SF_OK);
        assert_int_equal(rows, ROWS);
        assert_int_equal(atomic_load(&t.plug.scans), 2);
        sf_scan_close(scan);
        sf_snapshot_give_back(s);
        sf_reader_free(r);
        end(&t);
    }
}

/* A step that is held back, whose scan is closed and whose reader has moved on: it ends, or is cancelled. Then nothing keeps what its snapshot has opened, also
 * while the call is kept, whose rows stay. */
static void a_step_that_has_ended_keeps_no_shard(void **state)
{
    (void)state;
    for (size_t n = 0; n < 4; n++) {
        const bool lazy = n % 2, cancelled = n / 2;
        struct trial t;
        sf_scan_options o = {.size = sizeof(o), .db_id = 0, .limit = UINT64_MAX};
        const sf_row *rows;
        int opened;
        size_t count;
        sf_call *call;
        sf_snapshot *s;
        sf_scan *scan;
        sf_reader *r;
        bool changed, at_end;

        begin(&t);
        world_point_at_run(&t.world, 0);
        t.options.lazy_shards = lazy;
        t.plug.when_open = lazy ? WHEN_LET : AT_ONCE;
        t.plug.when_scan = lazy ? AT_ONCE : WHEN_LET;
        r = open_reader(&t);
        opened = lazy ? 1 : atomic_load(&t.plug.opens);
        s = sf_reader_borrow(r, NULL);
        assert_int_equal(sf_scan_open(&scan, s, &o, NULL), SF_OK);
        assert_int_equal(sf_scan_next_start(&call, scan, 10, SF_TIMEOUT_NONE, NULL, NULL, NULL), SF_OK);
        gate_wait(&t.plug.arrived, 1);
        sf_scan_close(scan);
        sf_snapshot_give_back(s);
        world_point_at_run(&t.world, 2);
        assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
        assert_true(changed);
        assert_int_equal(atomic_load(&t.plug.closes), 0);
        if (cancelled)
            sf_call_cancel(call);
        else
            let_go(&t.plug);
        assert_int_equal(sf_call_wait(call, NULL), cancelled ? SF_CANCELLED : SF_OK);
        if (cancelled && !lazy) /* the opener has the shard that it is still being asked */
            await_closed(&t, opened - 1);
        let_go(&t.plug);
        await_closed(&t, opened);
        rows = sf_call_rows(call, &count, &at_end);
        assert_int_equal(count, cancelled ? 0 : 10);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(rows[i].value.n, rows[i].key.n);
        sf_call_release(call);
        sf_reader_free(r);
        end(&t);
    }
}

/* ------------------------------------------------------------------ options, memory ------------------------------ */

static void openers_are_checked(void **state)
{
    static const size_t fields[] = {
        offsetof(sf_shard_opener, open),   offsetof(sf_shard_opener, get_many), offsetof(sf_shard_opener, close),
        offsetof(sf_shard_opener, retain), offsetof(sf_shard_opener, release),
    };
    struct trial t;
    sf_error e;
    sf_reader *r;

    (void)state;
    begin(&t);
    for (size_t i = 0; i < 5; i++) {
        sf_shard_opener o = t.plug.vtable;

        memset((char *)&o + fields[i], 0, sizeof(void (*)(void)));
        t.options.shard_opener = &o;
        e = (sf_error)SF_ERROR_INIT;
        assert_int_equal(sf_reader_open(&r, t.world.rt, PREFIX, &t.options, &e), SF_INVALID);
        assert_non_null(strstr(e.message, "opener of shards: "));
    }
    end(&t);
}

/* Whichever allocation of the library fails: no shard is lost, none is closed twice. */
static void without_memory(void **state)
{
    (void)state;
    for (long nth = 0;; nth += TEST_STEP) {
        struct test_heap heap;
        sf_runtime_options ro = SF_RUNTIME_OPTIONS_INIT;
        struct trial t;
        sf_scan_options so = SF_SCAN_OPTIONS_INIT;
        sf_key keys[3] = {sf_key_int(1), sf_key_int(2), sf_key_int(3)};
        sf_value values[3];
        sf_error e = SF_ERROR_INIT;
        sf_reader *r = NULL;
        unsigned rows;
        sf_status rc;
        bool fired;

        t.plug = fresh_plug();
        t.plug.vtable.ctx = &t.plug;
        heap_init(&heap);
        ro.allocator = &heap.alloc;
        world_open(&t.world, &ro);
        t.options = (sf_reader_options)SF_READER_OPTIONS_INIT;
        t.options.shard_opener = &t.plug.vtable;
        t.options.lazy_shards = nth % 2 == 0;
        so.limit = 20;
        heap_arm(&heap, nth / 2);
        rc = sf_reader_open(&r, t.world.rt, PREFIX, &t.options, &e);
        if (rc == SF_OK) {
            rc = sf_reader_multi_get(r, keys, 3, PATIENCE_MS, values, &e);
            for (int i = 0; i < 3; i++)
                sf_value_release(&values[i]);
        }
        if (rc == SF_OK)
            rc = scan_all(r, &so, &rows, &e);
        fired = heap_disarm(&heap);
        if (rc != SF_OK)
            assert_int_equal(rc, SF_NOMEM);
        sf_reader_free(r);
        end(&t);
        assert_int_equal(atomic_load(&heap.live), 0);
        if (!fired && nth % 2 == 1)
            break;
    }
}

/* ------------------------------------------------------------------ many at once --------------------------------- */

struct racer {
    pthread_t thread;
    sf_reader *r;
    unsigned seed;
};

static void *race(void *arg)
{
    struct racer *m = arg;

    for (unsigned i = 0; i < 60; i++) {
        sf_key key = sf_key_int((m->seed * 7 + i) % 200);
        sf_value v = {0};
        sf_call *call;

        if (i % 3 == 0) {
            if (sf_reader_get(m->r, &key, PATIENCE_MS, &v, NULL) != SF_OK)
                abort();
            sf_value_release(&v);
        } else if (sf_reader_get_start(&call, m->r, &key, i % 3 == 1 ? 1 : PATIENCE_MS, NULL, NULL, NULL) == SF_OK) {
            if (i % 3 == 2)
                sf_call_cancel(call);
            sf_call_wait(call, NULL);
            sf_call_release(call);
        }
    }
    return NULL;
}

static void threads_read_while_one_refreshes(void **state)
{
    struct trial t;
    struct racer racers[2];
    bool changed;
    sf_reader *r;

    (void)state;
    begin(&t);
    t.plug.when_get = ON_A_THREAD;
    t.options.lazy_shards = true;
    r = open_reader(&t);
    for (unsigned i = 0; i < 2; i++) {
        racers[i] = (struct racer){.r = r, .seed = i};
        pthread_create(&racers[i].thread, NULL, race, &racers[i]);
    }
    for (unsigned i = 0; i < 6; i++) {
        world_point_at_run(&t.world, i % 3);
        assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(racers[i].thread, NULL);
    sf_reader_free(r);
    end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_go_to_the_opener),
        cmocka_unit_test(values_outlive_the_runtime),
        cmocka_unit_test(key_fails_alone),
        cmocka_unit_test(answer_for_no_key_fails_the_look_up),
        cmocka_unit_test(opening_that_fails),
        cmocka_unit_test(manifest_that_is_of_no_use),
        cmocka_unit_test(opening_that_nobody_waits_for),
        cmocka_unit_test(look_up_that_nobody_waits_for),
        cmocka_unit_test(lazy_opening_is_shared),
        cmocka_unit_test(lazy_opening_is_asked_again),
        cmocka_unit_test(settling_waits_for_what_has_ended),
        cmocka_unit_test(refresh_closes_what_it_leaves),
        cmocka_unit_test(scans_are_merged),
        cmocka_unit_test(rows_that_are_wrong_name_their_shard),
        cmocka_unit_test(shards_that_cannot_be_scanned),
        cmocka_unit_test(scan_goes_on_after_a_step_that_was_dropped),
        cmocka_unit_test(a_step_that_has_ended_keeps_no_shard),
        cmocka_unit_test(openers_are_checked),
        cmocka_unit_test(without_memory),
        cmocka_unit_test(threads_read_while_one_refreshes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
