#include "net/question.h"

#include <unistd.h>

#include "base/container.h"

static void run_answered(sf_task *task)
{
    sf_question *q = sf_container_of(task, sf_question, task);

    q->answered(q);
}

void sf__question_init(sf_question *q, sf_loop *loop, void (*answered)(sf_question *q), void (*free)(sf_question *q))
{
    *q = (sf_question){
        .answered = answered, .free = free, .loop = loop, .pid = getpid(), .refs = 2, .task.run = run_answered};
    sf_mutex_init(&q->lock);
}

/* Unlocks. */
static void leave(sf_question *q)
{
    bool last = --q->refs == 0;

    sf_mutex_unlock(&q->lock);
    if (!last)
        return;
    sf_mutex_destroy(&q->lock);
    q->free(q);
}

void sf__question_not_asked(sf_question *q)
{
    sf__question_release(q); /* the answerer's */
}

bool sf__question_answer(sf_question *q)
{
    bool awaited;

    if (getpid() != q->pid)
        return false;
    sf_mutex_lock(&q->lock);
    awaited = q->loop != NULL;
    q->posted = awaited;
    if (awaited)
        sf__loop_post(q->loop, &q->task);
    leave(q);
    return awaited;
}

bool sf__question_drop(sf_question *q)
{
    bool posted;

    sf_mutex_lock(&q->lock);
    posted = q->posted;
    if (!posted)
        q->loop = NULL;
    sf_mutex_unlock(&q->lock);
    return !posted;
}

void sf__question_release(sf_question *q)
{
    sf_mutex_lock(&q->lock);
    leave(q);
}
