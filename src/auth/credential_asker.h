/* A caller's source of credentials, and asking it: each question on a thread of its own. Not on a worker: the pool has few,
 * the runtime waits for them at its end, and a source that uses the library would wait for the worker that it sits on.
 * Memory is the process's, because a question may outlive the runtime. */
#ifndef SF_AUTH_CREDENTIAL_ASKER_H
#define SF_AUTH_CREDENTIAL_ASKER_H

#include "auth/credentials.h"
#include "net/loop.h"
#include "shardyfusion/store.h"

/* The source as a caller gave it, retained; counted. Any thread. */
typedef struct sf_asker sf_asker;

/* SF_INVALID for a source without get(), or with only one of retain() and release(). */
sf_status sf__asker_new(sf_asker **out, const sf_credential_source *source, sf_error *err);
sf_asker *sf__asker_acquire(sf_asker *a);
void sf__asker_release(sf_asker *a); /* takes NULL */
/* Complete, whatever the caller's header knew; the asker's. */
const sf_credential_source *sf__asker_source(const sf_asker *a);

/* So many dropped questions may still be thought about, in the whole process: else a source that hangs would keep a thread
 * of every store that was opened and closed meanwhile. */
#define SF_ASKER_MAX_DROPPED 256u

/* Loop thread from here. `home` runs when there is an answer, unless it was dropped. SF_UNAVAILABLE while the question
 * before is still open, so that a source that hangs holds one thread, not one more every minute; and while too many of any
 * source are that were dropped. */
sf_status sf__asker_ask(sf_credential_answer **out, sf_asker *a, sf_loop *loop, sf_task *home, sf_error *err);
/* False when `home` is on its way already; then nothing has happened. */
bool sf__answer_drop(sf_credential_answer *answer) SF_MUST_USE;
/* In `home`, once: takes the answer over. `known` are those in use, or NULL: no text may hold them. */
sf_status sf__answer_take(sf_credentials **out, sf_credential_answer *answer, const sf_credentials *known,
                          const sf_allocator *a, sf_error *err);

/* In a forked child, which has none of the parent's threads. */
void sf__asker_after_fork(void);

#endif
