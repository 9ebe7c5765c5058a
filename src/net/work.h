/* Pieces of work, embedded in whatever needs them: for the loop thread (loop.h posts them) and for workers (pool.h). */
#ifndef SF_NET_WORK_H
#define SF_NET_WORK_H

#include <stdbool.h>

struct sf_loop;

/* One piece of work for the loop thread, embedded in whatever needs it. Not touched again by the loop once `run` has
 * been called, so `run` may free its owner. */
typedef struct sf_task {
    void (*run)(struct sf_task *task);
    struct sf_task *next; /* the inbox's */
} sf_task;

/* What a job does with its thread, and so which others it may hold up: those of its own kind. */
typedef enum sf_work_kind {
    SF_WORK_CPU,    /* computes: unpacks, parses */
    SF_WORK_FILE,   /* files of ours and of the user: short, unless the disk is not well */
    SF_WORK_SQLITE, /* statements of SQLite: as long as what the database holds makes them */
    SF_WORK_WAIT,   /* for somebody else, who may never come: child processes, locks of others */
    SF_WORK_KINDS
} sf_work_kind;

/* A job for a worker, embedded. `run` is called on a thread of its kind's pool; then `done` on the loop thread. */
typedef struct sf_work {
    void (*run)(struct sf_work *work);
    void (*done)(struct sf_work *work);
    bool bulk; /* it moves much, and may wait for jobs that move little (pool.h) */
    /* the loop's and the pool's */
    struct sf_loop *loop;
    struct sf_work *next;
    sf_task task;
} sf_work;

#endif
