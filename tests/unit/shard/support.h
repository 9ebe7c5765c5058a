/* What the tests of shards share: a store that counts, holds back and damages answers, the fixtures, and blocking forms
 * of the shard's operations. */
#ifndef TESTS_UNIT_SHARD_SUPPORT_H
#define TESTS_UNIT_SHARD_SUPPORT_H

#include "../../support/heap.h"
#include "../net/on_loop.h"

#include <cjson/cJSON.h>

#include "backend/backend.h"
#include "backend/scan_merge.h"
#include "base/error.h"

/* ------------------------------------------------------------------ store ---------------------------------------- */

/* Wraps another store. Everything is written on the loop thread. */
struct probe_store {
    sf_store base; /* first */
    sf_store *inner;
    unsigned requests, gets, lists;
    uint64_t bytes; /* asked for by ranged GETs */
    char last_key[256];
    uint64_t last_off, last_len;
    unsigned rounds; /* longest chain of requests that began after the answer to the one before */
    unsigned done_round;
    /* faults */
    unsigned hold_at; /* the nth request (from 1) gets no answer until it is cancelled or let go; 0: none */
    void (*on_hold)(void *ctx);
    sf_store_op *held; /* its deadline still counts */
    sf_timer held_timer;
    void *on_hold_ctx;
    unsigned fail_at;     /* the nth request (from 1) is answered with SF_UNAVAILABLE; 0: none */
    bool failed;          /* it was */
    const char *damage;   /* GETs of keys that contain this: a byte of the answer is flipped */
    uint64_t damage_at;   /* in the object */
    unsigned damage_left; /* answers to damage */
    const char *swell;    /* entries of listings that contain this: their size is said to be ... */
    uint64_t swell_to;
    const char *lose; /* GETs of keys that contain this: not found */
    unsigned lose_left;
};

struct probe_store *probe_new(sf_store *inner);
void probe_reset(struct probe_store *p);  /* counters and faults */
void probe_let_go(struct probe_store *p); /* the held request, if there is one */

/* ------------------------------------------------------------------ fixtures ------------------------------------- */

struct expected {
    uint8_t *k, *v;
    size_t kn, vn;
    bool length_only;
};

struct fixture {
    char dir[512]; /* of the case */
    cJSON *meta;
    struct expected *rows;
    size_t count;
};

bool fixture_load(struct fixture *f, const char *name, const char *rows_file);
void fixture_free(struct fixture *f);
/* Whether a read of this case may fail like this, and whether some read has to fail. */
bool fixture_may_fail(const struct fixture *f, sf_status status);
bool fixture_must_fail(const struct fixture *f);
/* The index of the row with this key, or the count. */
size_t fixture_find(const struct fixture *f, sf_bytes key);
bool expected_is(const struct expected *e, sf_bytes value);
size_t unhex(const char *hex, uint8_t **out);
/* All files below the case's folder, by their path in it. */
void fixture_into_store(const char *dir, sf_store *store);

/* ------------------------------------------------------------------ blocking calls ------------------------------- */

struct env {
    struct test_heap heap;
    sf_runtime *rt;
};

void env_init(struct env *e, uint64_t cache_bytes);
void env_cleanup(struct env *e); /* fails the test when memory is left */

struct opened {
    sf_shard_open op;
    sf_error error;
    struct gate gate;
};

extern sf_read_cost shard_cost; /* of the shards that are opened from now on: neighbours only */
void open_begin(struct opened *o, struct env *e, sf_store *store, const char *path, const char *checkpoint,
                uint64_t deadline_ns);
sf_status open_wait(struct opened *o); /* o->op.shard, or o->error */
sf_status shard_open(struct env *e, sf_store *store, const char *path, const char *checkpoint, sf_shard **out,
                     sf_error *err);

struct got {
    sf_shard_get_many op;
    sf_error error;
    sf_shard *shard;
    sf_bytes *keys;
    sf_value *values;
    sf_status *status;
    struct gate gate;
};

/* Not begun yet. */
void get_prepare(struct got *g, sf_shard *s, const sf_bytes *keys, size_t count, uint64_t deadline_ns);
void get_begin(struct got *g, sf_shard *s, const sf_bytes *keys, size_t count, uint64_t deadline_ns);
void get_wait(struct got *g);
void get_free(struct got *g);

struct scan_run {
    sf_shard *shard;
    sf_scan_merge merge; /* of this shard alone */
    sf_scan_step step;
    struct gate gate;
    unsigned steps;
};

sf_status scan_begin(struct scan_run *r, sf_shard *s, const sf_scan_range *range, sf_error *err);
/* The step's result is in r->step. */
void scan_step_begin(struct scan_run *r, size_t max_rows, size_t max_bytes, uint64_t deadline_ns);
void scan_step_wait(struct scan_run *r);
void scan_end(struct scan_run *r);

/* Looks one key up and waits. *out is acquired when found. */
sf_status get_one(sf_shard *s, sf_bytes key, sf_value *out, sf_error *err);
/* Looks the key up where no I/O is allowed. */
static inline sf_status try_one(sf_shard *s, sf_bytes key, sf_value *out, sf_error *err)
{
    return s->vtable->try_get(s, key, out, NULL, err);
}

sf_store *memory_store(struct env *e, const char *name);
void store_put(sf_store *store, const char *key, const void *p, size_t n);
void store_delete(sf_store *store, const char *key);

/* Bringing a shard to where it stays, and waiting for it. */
struct staying {
    sf_shard *shard;
    sf_shard_resident op;
    atomic_uint_fast64_t bytes;
    bool cancel;
    sf_error error;
    struct gate gate;
};
sf_status stay(sf_shard *s, struct staying *how, sf_residency where, bool cancel);
void stay_both(sf_shard *s, struct staying both[2], sf_residency where); /* at the same time */

#endif
