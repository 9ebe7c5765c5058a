/* One question of the loop thread's to somebody else's code, which may answer on any thread, late, or never. It has two
 * references: of whoever asks, and of whoever is to answer. The asker may drop it; then the answer comes to nothing. Embedded
 * in memory of the process's own, because a question that was dropped may outlive the runtime and its allocator. */
#ifndef SF_NET_QUESTION_H
#define SF_NET_QUESTION_H

#include <sys/types.h>

#include "base/thread.h"
#include "net/loop.h"

typedef struct sf_question {
    /* set at init */
    void (*answered)(struct sf_question *q); /* loop thread, once, unless it was dropped */
    void (*free)(struct sf_question *q);     /* any thread: both references are gone */
    /* under lock, which is held while the answer is posted: whoever drops the question may end the loop */
    sf_mutex lock;
    sf_loop *loop; /* NULL: dropped */
    bool posted;
    pid_t pid; /* of the process that asks */
    unsigned refs;
    sf_task task;
} sf_question;

void sf__question_init(sf_question *q, sf_loop *loop, void (*answered)(sf_question *q), void (*free)(sf_question *q));
/* Instead of asking: there is only the asker's reference from now on. */
void sf__question_not_asked(sf_question *q);
/* Any thread, once, when the answer has been put where the asker finds it: gives the answerer's reference back. False: nobody
 * waits for it. In a forked child, where the asker is not and the lock may be held for ever, it does nothing. */
bool sf__question_answer(sf_question *q);
/* Loop thread. True: nobody waits from now on; the asker gives its reference back and looks at no answer. False: that is on
 * its way already; nothing has happened. */
bool sf__question_drop(sf_question *q) SF_MUST_USE;
/* The asker's reference, once `answered` has been called or it was dropped. */
void sf__question_release(sf_question *q);

#endif
