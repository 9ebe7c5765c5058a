#include "cache/listing.h"

#include <assert.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"

/*   QUEUED --> SENT --> ENDED */
enum list_state { LIST_QUEUED, LIST_SENT, LIST_ENDED };

struct queued_listing {
    sf_turn turn; /* first */
    sf_fetcher *fetcher;
    enum list_state state;
    sf_store_listing *listing;
    void (*done)(sf_store_listing *l); /* the owner's, while we stand in its place */
    void *ctx;
    sf_timer deadline; /* while queued */
    uint64_t since_ns;
    sf_task task;
};

static void list_enter(struct queued_listing *job, enum list_state next);

/* How it ended is in the listing. */
static void list_on_done(sf_store_listing *l)
{
    struct queued_listing *job = l->ctx;
    sf_fetcher *f = job->fetcher;

    sf__fetcher_count(f, l->store, l->pages, 0);
    sf__turn_end(&f->budget, &job->turn);
    list_enter(job, LIST_ENDED);
}

/* It has left the line without its turn. */
static void list_give_up(struct queued_listing *job, sf_error *e)
{
    sf__store_error_name(e, "list", job->listing->store, job->listing->prefix);
    job->listing->error = e;
    list_enter(job, LIST_ENDED);
}

static void list_on_task(sf_task *task)
{
    sf_error e;

    sf_fail(&e, SF_CANCELLED, "cancelled");
    list_give_up(sf_container_of(task, struct queued_listing, task), &e);
}

static void list_leave(struct queued_listing *job)
{
    sf__timer_stop(job->fetcher->loop, &job->deadline);
    sf__turn_leave(&job->fetcher->budget, &job->turn);
    sf__budget_pump(&job->fetcher->budget);
}

static void list_on_deadline(sf_timer *timer)
{
    struct queued_listing *job = sf_container_of(timer, struct queued_listing, deadline);
    sf_error e;

    sf__turn_overdue(&job->fetcher->budget, job->since_ns, &e);
    list_leave(job);
    list_give_up(job, &e);
}

static void list_go(sf_turn *turn)
{
    list_enter(sf_container_of(turn, struct queued_listing, turn), LIST_SENT);
}

static void list_enter(struct queued_listing *job, enum list_state next)
{
    sf_fetcher *f = job->fetcher;
    sf_store_listing *l = job->listing;

    job->state = next;
    switch (next) {
    case LIST_QUEUED:
        job->deadline.fire = list_on_deadline;
        sf__timer_start(f->loop, &job->deadline, l->deadline_ns);
        sf__turn_wait(&f->budget, &job->turn, 0); /* ends in list_go(), or in list_on_deadline() */
        break;
    case LIST_SENT:
        sf__timer_stop(f->loop, &job->deadline);
        sf__store_list_all(l); /* ends in list_on_done() */
        break;
    case LIST_ENDED:
        l->done = job->done;
        l->ctx = job->ctx;
        sf__free(f->alloc, job);
        l->done(l); /* l is the owner's again: nothing after this line */
        break;
    }
}

void sf__fetcher_list(sf_fetcher *f, sf_store_listing *l)
{
    struct queued_listing *job = sf__calloc(f->alloc, 1, sizeof(*job));

    assert(sf__loop_is_current(f->loop));
    if (!job) { /* no memory to wait in line: the store is asked at once, and most likely answers the same */
        sf__store_list_all(l);
        return;
    }
    job->turn.go = list_go;
    job->fetcher = f;
    job->listing = l;
    job->since_ns = sf__clock_mono_ns();
    job->done = l->done;
    job->ctx = l->ctx;
    l->done = list_on_done;
    l->ctx = job;
    list_enter(job, LIST_QUEUED);
}

void sf__fetcher_list_cancel(sf_fetcher *f, sf_store_listing *l)
{
    struct queued_listing *job = l->ctx;

    assert(sf__loop_is_current(f->loop));
    if (l->done != list_on_done) /* completed, or it never got a job */
        return;
    if (job->state == LIST_QUEUED) {
        list_leave(job);
        job->state = LIST_ENDED; /* list_enter() follows through the inbox; until then a second cancel finds nothing */
        job->task.run = list_on_task;
        sf__loop_post(f->loop, &job->task);
    } else if (job->state == LIST_SENT) {
        sf__store_list_cancel(l);
    }
}
