/* What a caller's shard opener has opened, and the questions to it. All of it is memory of the process's own: a question that
 * nobody waits for any more may outlive the runtime. */
#ifndef SF_BACKEND_FOREIGN_OPENER_H
#define SF_BACKEND_FOREIGN_OPENER_H

#include "backend/backend.h"
#include "net/question.h"
#include "shardyfusion/shard_opener.h"

/* The opener as a caller gave it, retained; counted. Any thread. */
typedef struct sf_foreign_opener {
    sf_shard_opener vtable; /* complete, whatever the caller's header knew */
    atomic_uint refs;
} sf_foreign_opener;

/* SF_INVALID for one without open(), get_many() or close(), or with only one of retain() and release(). */
sf_status sf__foreign_opener_new(sf_foreign_opener **out, const sf_shard_opener *given, sf_error *err);
sf_foreign_opener *sf__foreign_opener_acquire(sf_foreign_opener *o);
void sf__foreign_opener_release(sf_foreign_opener *o); /* takes NULL */

/* One opened shard: closed when the last reference is gone, on whichever thread that is. Counted. */
typedef struct sf_foreign_handle {
    atomic_uint refs;
    sf_foreign_opener *opener; /* acquired */
    bool opened;
    void *shard;
} sf_foreign_handle;

/* One scan of it, likewise. */
typedef struct sf_foreign_cursor {
    atomic_uint refs;
    sf_foreign_handle *handle; /* acquired */
    void *scan;                /* the opener's, while a step is asked for */
    sf_shard_rows_wanted wanted;
    uint8_t bounds[]; /* of `wanted` */
} sf_foreign_cursor;

sf_foreign_handle *sf__foreign_handle_new(sf_foreign_opener *o) SF_MUST_USE; /* not opened yet. NULL without memory */
sf_foreign_handle *sf__foreign_handle_acquire(sf_foreign_handle *h);
void sf__foreign_handle_release(sf_foreign_handle *h); /* takes NULL */
sf_foreign_cursor *sf__foreign_cursor_new(sf_foreign_handle *h, const sf_scan_range *range) SF_MUST_USE;
sf_foreign_cursor *sf__foreign_cursor_acquire(sf_foreign_cursor *c);
void sf__foreign_cursor_release(sf_foreign_cursor *c); /* takes NULL */

/* One question: its inputs, its answer, and the deadline until which somebody waits for that. */
struct sf_shard_request {
    sf_question question;
    void *call_ctx;
    sf_foreign_handle *handle; /* acquired */
    sf_foreign_cursor *cursor; /* acquired; of a step */
    sf_shard_to_open to_open;  /* of an opening */
    char *texts;               /* its texts, in one piece */
    sf_buf *manifest;          /* acquired; of an opening, or NULL */
    sf_bytes *keys;            /* of a look-up, with the bytes behind them */
    size_t count;
    /* the answer; the opener's until the question is ended */
    sf_value *values;
    sf_status *statuses;
    sf_row_batch *rows;
    const sf_error *error; /* kept; NULL: none */
    bool broken;           /* the answer as a whole: `error` says how */
    /* loop thread */
    sf_loop *loop;
    sf_timer timer;
    uint64_t since_ns;
    void *owner;           /* who waits */
    const sf_shard *shard; /* borrowed by whoever waits; of an opening: NULL */
    void (*home)(struct sf_shard_request *q, bool late);
};

/* With nothing to ask for yet. `home`: its answer, or the deadline has passed (`late`: then there is none to look at); once, on
 * the loop thread, never inside of asking; then sf__shard_request_release(). NULL without memory. */
sf_shard_request *sf__shard_request_new(sf_foreign_handle *h, sf_loop *loop, void *call_ctx, void *owner,
                                        void (*home)(sf_shard_request *q, bool late)) SF_MUST_USE;
/* One that is not asked after all. */
void sf__shard_request_forget(sf_shard_request *q);
/* Before the opener's function is called: the clock runs. */
void sf__shard_request_start(sf_shard_request *q, uint64_t deadline_ns);
/* True: home() does not follow; the question is to be released. False: it is on its way. */
bool sf__shard_request_drop(sf_shard_request *q) SF_MUST_USE;
void sf__shard_request_release(sf_shard_request *q);

#endif
