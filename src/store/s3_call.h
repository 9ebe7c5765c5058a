/* One operation on S3, and the store that it is one of: what s3.c, which signs, sends and repeats it, and s3_ability.c, which knows
 * other ways where a store cannot do what was asked, share. Loop thread. */
#ifndef SF_STORE_S3_CALL_H
#define SF_STORE_S3_CALL_H

#include <stdatomic.h>

#include "auth/credential_provider.h"
#include "net/retry.h"
#include "store/events.h"
#include "store/s3_options.h"
#include "store/s3_request.h"
#include "store/s3_response.h"

/* What a store may be unable to do. It is asked in another form from then on: for its life when it has said so by name, or
 * when it is the third time; a proxy's bad moment costs one request a time. */
enum s3_ability { PUTS_ON_CONDITION, COMPLETES_ON_CONDITION, LISTS_V2, DELETES_MANY, HEADS, S3_ABILITIES };

struct s3_store {
    sf_store base;
    sf_http *http;
    sf_log log;
    sf_s3_hooks hooks;
    sf_credential_provider *credentials;
    sf_s3_target target;
    char *bucket, *region, *ca_bundle, *sigv4;
    char *endpoint, *credentials_said, *looked_at; /* for s3_describe() */
    atomic_bool credentials_refused;
    sf_http_config config;
    sf_retry_policy policy;
    sf_store_events *events; /* acquired, or NULL */
    /* loop thread */
    sf_random random;
    struct {
        uint32_t refusals; /* in a row */
        bool told;
    } missing[S3_ABILITIES];
};

/*   SIGNING --> SENDING <--> WAITING       credentials are awaited; an attempt is under way; its back-off is
 *    |  ^ ^      |  |  |       |  |
 *    |  | +------+--|--|-------+  |         signed anew: after a back-off, and once when they were refused
 *    |  |           |  |          |
 *    |  |           |  +-> CANCELLING       the HTTP layer owes us its completion
 *    |  +- ASKING <-+  |       |            other operations find out, or do, what this one cannot
 *    +------ | --------|-------|--+-> POSTED     ended where done() must not be called
 *            +---------+-------+---------|---> DONE
 * Every arrow passes through sf__s3_call_enter(). */
enum s3_call_state { CALL_SIGNING, CALL_SENDING, CALL_WAITING, CALL_ASKING, CALL_CANCELLING, CALL_POSTED, CALL_DONE };

/* An operation that another one needs. */
struct s3_child {
    sf_store_op op;
    struct s3_call *parent;
    bool open;
};

struct s3_call {
    struct s3_store *s;
    sf_store_op *op;
    sf_error error; /* of the last attempt that ended; in the end the operation's */
    enum s3_call_state state;
    sf_credentials *credentials; /* what `request` was built for */
    sf_credential_wait wait;
    sf_s3_request request;
    sf_http_request http;
    sf_timer timer; /* SIGNING: the deadline; WAITING: the end of the back-off */
    uint64_t started_ns, sent_ns, resume_ns, deadline_ns;
    uint32_t attempts;
    int http_status;           /* of the last answer; 0: none came */
    uint64_t came_bytes;       /* of all bodies */
    bool list_v1;              /* `request` does */
    bool on_condition;         /* `request` has one */
    bool dropped;              /* its condition: the store does not know it */
    bool told_empty;           /* HEAD's answer: the object */
    bool cancelled;            /* ASKING */
    struct s3_child *children; /* ASKING */
    size_t child_count, children_open, next_key;
    bool renewed;   /* the credentials, because the store refused them */
    bool refused;   /* those that are held: with others, or not at all */
    bool uncertain; /* an attempt ended without saying whether the store did what was asked */
};

/* s3.c: the only one that changes the state. */
void sf__s3_call_enter(struct s3_call *c, enum s3_call_state next);
void sf__s3_call_cancelled(struct s3_call *c); /* that is its outcome */
void sf__s3_call_note_retry(struct s3_call *c, int64_t delay_ms);

/* s3_ability.c */
enum s3_ability sf__s3_ability_of(sf_store_verb verb); /* S3_ABILITIES: none is in question */
bool sf__s3_is_missing(const struct s3_store *s, enum s3_ability what);
/* After an answer that shows that the store knows what was asked: what it has refused before was somebody's bad moment. */
void sf__s3_note_present(struct s3_call *c);
/* Whether other operations have to come before this one, or in its place. */
bool sf__s3_needs_others(const struct s3_call *c);
/* After an answer that the store does not know what was asked in this form: the other form; CALL_DONE when that is none. */
enum s3_call_state sf__s3_other_way(struct s3_call *c, const sf_s3_answer *ans);
/* ASKING: they lead on through sf__s3_call_enter(), never inside this call but for CALL_POSTED. */
void sf__s3_ask_others(struct s3_call *c);

#endif
