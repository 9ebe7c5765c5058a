#include "net/pool.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/thread.h"

enum thread_state { THREAD_NONE, THREAD_LIVE, THREAD_ENDED };

struct pool_thread {
    sf_pool *pool;
    pthread_t id;
    enum thread_state state; /* under the pool's lock; ENDED: to be joined */
};

struct job_queue {
    sf_work *first, **last;
};

struct sf_pool {
    const sf_allocator *alloc;
    const char *name;
    sf_pool_run_fn run;
    void *ctx;
    sf_pool_size size;
    sf_mutex lock; /* covers what follows */
    sf_cond wake;
    struct job_queue prompt, bulk;
    size_t queued;         /* in both */
    unsigned bulk_running; /* at most all threads but one */
    bool bulk_before;      /* the last one taken was */
    unsigned live, idle;
    uint64_t taken, seen; /* jobs; as the last look found it */
    bool looking;         /* somebody will look */
    bool closing;
    struct pool_thread threads[SF_POOL_MAX_THREADS];
};

/* The queue whose turn it is, or NULL. What moves little does not wait while every thread moves much; what moves much is not
 * kept waiting for good by what moves little: one thread serves it, if need be in turn. */
static struct job_queue *next_queue(sf_pool *p)
{
    unsigned most = p->size.usual > 1 ? p->size.usual - 1 : 1;
    bool may = p->bulk.first && p->bulk_running < most;

    if (may && (!p->prompt.first || (p->bulk_running == 0 && !p->bulk_before)))
        return &p->bulk;
    return p->prompt.first ? &p->prompt : NULL;
}

/* Under the lock. NULL: it is time to end. */
static sf_work *take(sf_pool *p)
{
    struct job_queue *q;
    sf_work *job;

    while (!(q = next_queue(p))) {
        if (p->closing || p->live > p->size.usual)
            return NULL;
        p->idle++;
        sf_cond_wait_until(&p->wake, &p->lock, UINT64_MAX);
        p->idle--;
    }
    job = q->first;
    q->first = job->next;
    if (!q->first)
        q->last = &q->first;
    p->bulk_before = q == &p->bulk;
    p->bulk_running += p->bulk_before;
    p->queued--;
    p->taken++;
    return job;
}

static void *thread_main(void *arg)
{
    struct pool_thread *t = arg;
    sf_pool *p = t->pool;
    sf_work *job;

    sf__thread_name(p->name);
    sf_mutex_lock(&p->lock);
    while ((job = take(p))) {
        bool bulk = job->bulk;

        sf_mutex_unlock(&p->lock);
        p->run(p->ctx, job);
        sf_mutex_lock(&p->lock);
        p->bulk_running -= bulk;
    }
    p->live--;
    t->state = THREAD_ENDED;
    sf_mutex_unlock(&p->lock);
    return NULL;
}

/* Under the lock, which the new thread waits for. 0, or the error number. */
static int thread_add(sf_pool *p)
{
    struct pool_thread *t = p->threads;
    int rc;

    while (t->state == THREAD_LIVE)
        t++;
    if (t->state == THREAD_ENDED)
        pthread_join(t->id, NULL); /* it has let go of the lock, or nearly so */
    t->state = THREAD_NONE;
    t->pool = p;
    rc = sf__thread_start(&t->id, thread_main, t);
    if (rc == 0) {
        t->state = THREAD_LIVE;
        p->live++;
    }
    return rc;
}

sf_status sf__pool_new(sf_pool **out, const char *name, sf_pool_size size, sf_pool_run_fn run, void *ctx,
                       const sf_allocator *a, sf_error *err)
{
    sf_pool *p = sf__calloc(a, 1, sizeof(*p));
    int rc;

    if (!p)
        return sf_fail(err, SF_NOMEM, "threads");
    p->alloc = a;
    p->name = name;
    p->run = run;
    p->ctx = ctx;
    p->prompt.last = &p->prompt.first;
    p->bulk.last = &p->bulk.first;
    p->size = size;
    sf_mutex_init(&p->lock);
    sf_cond_init(&p->wake);
    sf_mutex_lock(&p->lock);
    rc = thread_add(p);
    sf_mutex_unlock(&p->lock);
    if (rc != 0) {
        sf__pool_free(p);
        return sf__fail_errno(err, rc, SF_EXHAUSTED, "starting a thread");
    }
    *out = p;
    return SF_OK;
}

void sf__pool_resize(sf_pool *p, sf_pool_size size)
{
    assert(size.usual > 0 && size.usual <= size.most && size.most <= SF_POOL_MAX_THREADS);
    sf_mutex_lock(&p->lock);
    p->size = size;
    sf_mutex_unlock(&p->lock);
}

/* Under the lock: whether somebody has to look again. */
static bool look_again(sf_pool *p)
{
    p->looking = p->queued > p->idle && p->live < p->size.most;
    p->seen = p->taken;
    return p->looking;
}

bool sf__pool_submit(sf_pool *p, sf_work *job)
{
    struct job_queue *q = job->bulk ? &p->bulk : &p->prompt;
    bool look = false;

    job->next = NULL;
    sf_mutex_lock(&p->lock);
    *q->last = job;
    q->last = &job->next;
    p->queued++;
    if (p->queued > p->idle && p->live < p->size.usual)
        thread_add(p); /* without it the others have more to do; the next job tries again */
    if (!p->looking)
        look = look_again(p);
    pthread_cond_signal(&p->wake);
    sf_mutex_unlock(&p->lock);
    return look;
}

bool sf__pool_look(sf_pool *p)
{
    bool look;

    sf_mutex_lock(&p->lock);
    if (p->queued > p->idle && p->live < p->size.most && p->taken == p->seen)
        thread_add(p);
    look = look_again(p);
    sf_mutex_unlock(&p->lock);
    return look;
}

void sf__pool_free(sf_pool *p)
{
    if (!p)
        return;
    sf_mutex_lock(&p->lock);
    assert(p->queued == 0);
    p->closing = true;
    pthread_cond_broadcast(&p->wake);
    sf_mutex_unlock(&p->lock);
    for (size_t i = 0; i < SF_POOL_MAX_THREADS; i++) {
        enum thread_state state;

        sf_mutex_lock(&p->lock);
        state = p->threads[i].state;
        sf_mutex_unlock(&p->lock);
        if (state != THREAD_NONE) /* nobody adds any more */
            pthread_join(p->threads[i].id, NULL);
    }
    sf_cond_destroy(&p->wake);
    sf_mutex_destroy(&p->lock);
    sf__free(p->alloc, p);
}
