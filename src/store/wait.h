/* Store operations for threads that may wait (net/wait.h). Never from the loop thread nor from libuv's pool, where the
 * file store works. */
#ifndef SF_STORE_WAIT_H
#define SF_STORE_WAIT_H

#include "net/wait.h"
#include "store/store.h"

/* An operation that a thread waits for. Between start and end it is the loop's. */
typedef struct sf_waited_op {
    sf_store_op op; /* the caller fills the inputs and the store; `done` and `ctx` are ours */
    sf_waited waited;
    const sf_error *error; /* kept, until the end is told; NULL: none */
} sf_waited_op;

void sf__store_wait_start(sf_waiter *w, sf_store *store, sf_waited_op *op);
/* Until it is home; when its deadline passes (SF_TIMEOUT) or the waiter's flag is set (SF_CANCELLED) it is cancelled
 * first. Tells how it ended, once; the results are in op (sf__store_op_cleanup()). */
sf_status sf__store_wait_end(sf_waited_op *op, sf_error *err) SF_MUST_USE;

/* Both in one. `cancel` may be NULL. */
sf_status sf__store_wait(sf_store *store, sf_store_op *op, const sf_cancel_flag *cancel, sf_error *err) SF_MUST_USE;
/* A listing; the caller fills l's inputs with its store, and cleans it up. */
sf_status sf__store_list_wait(sf_store_listing *l, const sf_cancel_flag *cancel, sf_error *err) SF_MUST_USE;

#endif
