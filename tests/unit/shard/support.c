#include "support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/pin.h"

/* ------------------------------------------------------------------ store ---------------------------------------- */

/* Stands in the place of the operation's owner while the inner store works on it. */
struct wrapped {
    struct probe_store *probe;
    sf_store_op *op;
    void (*done)(sf_store_op *op);
    void *ctx;
    unsigned round;
};

static void damage(struct probe_store *p, sf_store_op *op)
{
    sf_buf *copy;

    if (p->damage_left == 0 || !p->damage || !strstr(op->key, p->damage) || op->error->code != SF_OK || !op->data ||
        p->damage_at < op->off || p->damage_at - op->off >= op->data->n)
        return;
    p->damage_left--;
    copy = sf__buf_copy(p->base.alloc, sf__buf_bytes(op->data));
    assert_non_null(copy);
    copy->data[p->damage_at - op->off] ^= 0x55;
    sf__buf_release(op->data);
    op->data = copy;
}

static void wrapped_done(sf_store_op *op)
{
    struct wrapped *w = op->ctx;
    struct probe_store *p = w->probe;

    if (w->round > p->done_round)
        p->done_round = w->round;
    op->done = w->done;
    op->ctx = w->ctx;
    op->store = &p->base;
    free(w);
    if (op->verb == SF_STORE_GET)
        damage(p, op);
    for (size_t i = 0; p->swell && op->error->code == SF_OK && i < op->entry_count; i++)
        if (strstr(op->entries[i].key, p->swell))
            op->entries[i].size = p->swell_to;
    op->done(op);
}

static sf_store_op *take_held(struct probe_store *p)
{
    sf_store_op *op = p->held;

    p->held = NULL;
    sf__timer_stop(p->base.loop, &p->held_timer);
    return op;
}

static void held_late(sf_timer *timer)
{
    sf_store_op *op = take_held((struct probe_store *)((char *)timer - offsetof(struct probe_store, held_timer)));

    sf_error e;

    sf_fail(&e, SF_TIMEOUT, "held back too long");
    sf__store_op_finish(op, &e);
}

static void probe_submit(sf_store *store, sf_store_op *op)
{
    struct probe_store *p = (struct probe_store *)store;
    struct wrapped *w = calloc(1, sizeof(*w));

    *w = (struct wrapped){.probe = p, .op = op, .done = op->done, .ctx = op->ctx, .round = p->done_round + 1};
    p->requests++;
    p->gets += op->verb == SF_STORE_GET;
    p->lists += op->verb == SF_STORE_LIST;
    if (w->round > p->rounds)
        p->rounds = w->round;
    if (op->verb == SF_STORE_GET) {
        snprintf(p->last_key, sizeof(p->last_key), "%s", op->key);
        p->last_off = op->off;
        p->last_len = op->len;
        p->bytes += op->len == SF_STORE_ALL ? 0 : op->len;
    }
    op->done = wrapped_done;
    op->ctx = w;
    if (op->verb == SF_STORE_GET && p->lose && p->lose_left > 0 && strstr(op->key, p->lose)) {
        p->lose_left--;
        sf__store_op_fail_later(op, SF_NOT_FOUND, "lost");
    } else if (p->fail_at == p->requests) {
        p->failed = true;
        sf__store_op_fail_later(op, SF_UNAVAILABLE, "the request fails");
    } else if (p->hold_at == p->requests) {
        p->held = op;
        p->held_timer.fire = held_late;
        sf__timer_start(store->loop, &p->held_timer, op->deadline_ns);
        p->on_hold(p->on_hold_ctx);
    } else {
        sf__store_submit(p->inner, op);
    }
}

static void probe_cancel(sf_store *store, sf_store_op *op)
{
    struct probe_store *p = (struct probe_store *)store;

    if (op->done != wrapped_done)
        return;
    if (p->held == op) {
        take_held(p);
        sf__store_op_fail_later(op, SF_CANCELLED, "cancelled");
    } else if (op->store == p->inner) {
        sf__store_cancel(p->inner, op);
    }
}

void probe_let_go(struct probe_store *p)
{
    if (p->held)
        sf__store_submit(p->inner, take_held(p));
}

static void probe_free(sf_store *store)
{
    struct probe_store *p = (struct probe_store *)store;

    sf__store_release(p->inner);
    sf__free(&sf__allocator_default, store->url);
    free(p);
}

struct probe_store *probe_new(sf_store *inner)
{
    static const sf_store_vtable vtable = {.submit = probe_submit, .cancel = probe_cancel, .free = probe_free};
    struct probe_store *p = calloc(1, sizeof(*p));

    p->base.vtable = &vtable;
    p->base.alloc = inner->alloc;
    p->base.loop = inner->loop;
    atomic_init(&p->base.refs, 1);
    p->base.url = sf__strdup(&sf__allocator_default, inner->url);
    p->inner = sf__store_acquire(inner);
    return p;
}

void probe_reset(struct probe_store *p)
{
    p->requests = p->gets = p->lists = p->rounds = p->done_round = 0;
    p->bytes = 0;
    p->hold_at = p->fail_at = 0;
    p->failed = false;
    p->damage = p->lose = p->swell = NULL;
    p->damage_left = p->lose_left = 0;
}

struct store_call {
    sf_store *store;
    sf_store_op op;
    sf_error error;
    struct gate gate;
};

static void store_call_done(sf_store_op *op)
{
    struct store_call *c = op->ctx;

    c->error = *op->error;
    gate_arrive(&c->gate);
}

static void store_call_start(void *arg)
{
    struct store_call *c = arg;

    sf__store_submit(c->store, &c->op);
}

static void store_call_run(struct store_call *c)
{
    c->op.deadline_ns = SF_NO_DEADLINE;
    c->op.done = store_call_done;
    c->op.ctx = c;
    on_loop(c->store->loop, store_call_start, c);
    gate_wait(&c->gate, 1);
    if (c->error.code != SF_OK)
        fail_msg("%s", c->error.message);
    sf__store_op_cleanup(&c->op, c->store->alloc);
}

void store_put(sf_store *store, const char *key, const void *p, size_t n)
{
    struct store_call c = {.store = store, .gate = GATE_INIT};

    c.op.verb = SF_STORE_PUT;
    c.op.key = key;
    c.op.body = sf_bytes_of(p, n);
    store_call_run(&c);
}

void store_delete(sf_store *store, const char *key)
{
    struct store_call c = {.store = store, .gate = GATE_INIT};

    c.op.verb = SF_STORE_DELETE;
    c.op.key = key;
    store_call_run(&c);
}

sf_store *memory_store(struct env *e, const char *name)
{
    sf_store *s = NULL;
    sf_error err = SF_ERROR_INIT;

    if (sf__store_memory_open(&s, name, e->rt->loop, e->rt->alloc, &err) != SF_OK)
        fail_msg("%s", err.message);
    return s;
}

/* ------------------------------------------------------------------ fixtures ------------------------------------- */

static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    char *text;

    if (!f)
        return NULL;
    assert_int_equal(fstat(fileno(f), &st), 0);
    text = malloc((size_t)st.st_size + 1);
    *n = fread(text, 1, (size_t)st.st_size, f);
    text[*n] = '\0';
    fclose(f);
    return text;
}

size_t unhex(const char *hex, uint8_t **out)
{
    size_t n = strlen(hex) / 2;

    *out = malloc(n + 1);
    for (size_t i = 0; i < n; i++) {
        unsigned v = 0;

        assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
        (*out)[i] = (uint8_t)v;
    }
    return n;
}

static void row_load(struct fixture *f, const char *line)
{
    cJSON *row = cJSON_Parse(line);
    const cJSON *v = cJSON_GetObjectItem(row, "v");
    struct expected *e;

    assert_non_null(row);
    if (f->count % 256 == 0)
        f->rows = realloc(f->rows, (f->count + 256) * sizeof(*f->rows));
    e = &f->rows[f->count++];
    *e = (struct expected){.length_only = !v};
    e->kn = unhex(cJSON_GetObjectItem(row, "k")->valuestring, &e->k);
    if (v)
        e->vn = unhex(v->valuestring, &e->v);
    else
        e->vn = (size_t)cJSON_GetObjectItem(row, "vn")->valuedouble;
    cJSON_Delete(row);
}

bool fixture_load(struct fixture *f, const char *name, const char *rows_file)
{
    const char *root = getenv("SF_FIXTURES");
    char path[1024], *text, *save = NULL;
    size_t n;

    *f = (struct fixture){0};
    snprintf(f->dir, sizeof(f->dir), "%s/slatedb/%s", root ? root : SF_FIXTURES_DIR, name);
    snprintf(path, sizeof(path), "%s/meta.json", f->dir);
    text = read_file(path, &n);
    if (!text)
        return false;
    f->meta = cJSON_Parse(text);
    free(text);
    snprintf(path, sizeof(path), "%s/%s", f->dir, rows_file);
    text = read_file(path, &n);
    if (!f->meta || !text)
        return false;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        row_load(f, line);
    free(text);
    return true;
}

void fixture_free(struct fixture *f)
{
    for (size_t i = 0; i < f->count; i++) {
        free(f->rows[i].k);
        free(f->rows[i].v);
    }
    free(f->rows);
    cJSON_Delete(f->meta);
}

static bool kind_is(const cJSON *kind, sf_status status)
{
    static const struct {
        const char *name;
        sf_status status;
    } map[] = {
        {"corruption", SF_CORRUPT},
        {"not found", SF_NOT_FOUND},
        {"unsupported", SF_UNSUPPORTED},
        {"merge operator", SF_MERGE_OPERATOR},
    };

    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
        if (cJSON_IsString(kind) && strcmp(map[i].name, kind->valuestring) == 0)
            return map[i].status == status;
    return false;
}

bool fixture_may_fail(const struct fixture *f, sf_status status)
{
    const cJSON *kind;

    if (kind_is(cJSON_GetObjectItem(f->meta, "expected_error"), status) ||
        kind_is(cJSON_GetObjectItem(f->meta, "tolerated_error"), status))
        return true;
    cJSON_ArrayForEach(kind, cJSON_GetObjectItem(f->meta, "accepted_errors"))
    {
        if (kind_is(kind, status))
            return true;
    }
    return false;
}

bool fixture_must_fail(const struct fixture *f)
{
    return cJSON_IsString(cJSON_GetObjectItem(f->meta, "expected_error")) &&
           !cJSON_HasObjectItem(f->meta, "tolerated_rows");
}

size_t fixture_find(const struct fixture *f, sf_bytes key)
{
    size_t lo = 0, hi = f->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (sf_bytes_cmp((sf_bytes){f->rows[mid].k, f->rows[mid].kn}, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < f->count && sf_bytes_eq((sf_bytes){f->rows[lo].k, f->rows[lo].kn}, key) ? lo : f->count;
}

bool expected_is(const struct expected *e, sf_bytes value)
{
    return value.n == e->vn && (e->length_only || value.n == 0 || memcmp(value.p, e->v, value.n) == 0);
}

static void put_folder(const char *root, const char *below, sf_store *store)
{
    char path[1024], key[512];
    struct dirent *d;
    DIR *dir;

    snprintf(path, sizeof(path), "%s/%s", root, below);
    dir = opendir(path);
    assert_non_null(dir);
    while ((d = readdir(dir))) {
        struct stat st;
        size_t n;
        char *bytes;

        if (d->d_name[0] == '.')
            continue;
        snprintf(key, sizeof(key), "%s%s%s", below, below[0] ? "/" : "", d->d_name);
        snprintf(path, sizeof(path), "%s/%s", root, key);
        assert_int_equal(stat(path, &st), 0);
        if (S_ISDIR(st.st_mode)) {
            put_folder(root, key, store);
        } else if (below[0]) {
            bytes = read_file(path, &n);
            assert_non_null(bytes);
            store_put(store, key, bytes, n);
            free(bytes);
        }
    }
    closedir(dir);
}

void fixture_into_store(const char *dir, sf_store *store)
{
    put_folder(dir, "", store);
}

/* ------------------------------------------------------------------ blocking calls ------------------------------- */

void env_init(struct env *e, uint64_t cache_bytes)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;

    heap_init(&e->heap);
    o.allocator = &e->heap.alloc;
    o.cache_bytes = cache_bytes;
    if (sf_runtime_new(&e->rt, &o, &err) != SF_OK)
        fail_msg("%s", err.message);
}

void env_cleanup(struct env *e)
{
    long left;

    heap_disarm(&e->heap);
    sf_runtime_release(e->rt);
    if ((left = heap_settle(&e->heap, 0)) != 0)
        fail_msg("%ld allocations are left", left);
}

sf_read_cost shard_cost = {0, UINT64_C(1) << 20};

static void open_done(sf_shard_open *op)
{
    struct opened *o = op->ctx;

    sf_error_tell(op->rt->alloc, &op->error, &o->error);
    gate_arrive(&o->gate);
}

static void open_start(void *arg)
{
    sf__slatedb_shard_open(&((struct opened *)arg)->op);
}

void open_begin(struct opened *o, struct env *e, sf_store *store, const char *path, const char *checkpoint,
                uint64_t deadline_ns)
{
    *o = (struct opened){.gate = GATE_INIT, .error = SF_ERROR_INIT};
    o->op = (sf_shard_open){
        .rt = e->rt,
        .store = store,
        .path = path,
        .url = "test://database",
        .db_id = 7,
        .cost = shard_cost,
        .checkpoint = checkpoint,
        .deadline_ns = deadline_ns,
        .done = open_done,
        .ctx = o,
    };
    on_loop(e->rt->loop, open_start, o);
}

sf_status open_wait(struct opened *o)
{
    gate_wait(&o->gate, 1);
    if (o->gate.count != 1)
        fail_msg("an opening completed %u times", o->gate.count);
    return o->error.code;
}

sf_status shard_open(struct env *e, sf_store *store, const char *path, const char *checkpoint, sf_shard **out,
                     sf_error *err)
{
    struct opened o;
    sf_status rc;

    open_begin(&o, e, store, path, checkpoint, SF_NO_DEADLINE);
    rc = open_wait(&o);
    if (rc == SF_OK)
        *out = o.op.shard;
    else
        *err = o.error;
    return rc;
}

static void get_done(sf_shard_get_many *op)
{
    struct got *g = op->ctx;

    for (size_t i = 0; i < op->count; i++) {
        g->values[i] = op->asks[i].value;
        g->status[i] = op->asks[i].status;
        op->asks[i] = (sf_shard_ask){.key = g->keys[i]}; /* it may be begun again */
    }
    sf_error_tell(g->shard->rt->alloc, &op->error, &g->error);
    gate_arrive(&g->gate);
}

static void get_start(void *arg)
{
    struct got *g = arg;

    g->shard->vtable->get_many(g->shard, &g->op);
}

void get_prepare(struct got *g, sf_shard *s, const sf_bytes *keys, size_t count, uint64_t deadline_ns)
{
    *g = (struct got){.shard = s, .gate = GATE_INIT, .error = SF_ERROR_INIT};
    g->keys = calloc(count + 1, sizeof(*g->keys));
    if (count > 0)
        memcpy(g->keys, keys, count * sizeof(*keys));
    g->values = calloc(count + 1, sizeof(*g->values));
    g->status = calloc(count + 1, sizeof(*g->status));
    g->op = (sf_shard_get_many){
        .asks = calloc(count + 1, sizeof(*g->op.asks)),
        .count = count,
        .deadline_ns = deadline_ns,
        .done = get_done,
        .ctx = g,
    };
    for (size_t i = 0; i < count; i++)
        g->op.asks[i].key = g->keys[i];
}

void get_begin(struct got *g, sf_shard *s, const sf_bytes *keys, size_t count, uint64_t deadline_ns)
{
    get_prepare(g, s, keys, count, deadline_ns);
    on_loop(s->rt->loop, get_start, g);
}

void get_wait(struct got *g)
{
    gate_wait(&g->gate, 1);
    if (g->gate.count != 1)
        fail_msg("a look-up completed %u times", g->gate.count);
}

void get_free(struct got *g)
{
    for (size_t i = 0; i < g->op.count; i++)
        sf__owner_release(g->values[i].owner);
    free(g->op.asks);
    free(g->keys);
    free(g->values);
    free(g->status);
}

sf_status get_one(sf_shard *s, sf_bytes key, sf_value *out, sf_error *err)
{
    struct got g;
    sf_status rc;

    get_begin(&g, s, &key, 1, SF_NO_DEADLINE);
    get_wait(&g);
    rc = g.status[0];
    assert_int_equal(rc, g.error.code);
    *out = g.values[0];
    g.values[0] = (sf_value){0};
    if (rc != SF_OK)
        *err = g.error;
    get_free(&g);
    return rc;
}

#define SCAN_BUFFER_BYTES (UINT64_C(16) << 20)

sf_status scan_begin(struct scan_run *r, sf_shard *s, const sf_scan_range *range, sf_error *err)
{
    sf_shard_scan *scan;
    sf_status rc;

    *r = (struct scan_run){.shard = s, .gate = GATE_INIT};
    rc = sf__scan_merge_init(&r->merge, s->rt, 1, range->reverse, UINT64_MAX, err);

    if (rc == SF_OK)
        rc = s->vtable->scan_open(s, range, SCAN_BUFFER_BYTES, &scan, err);
    if (rc == SF_OK)
        sf__scan_merge_add(&r->merge, scan);
    else
        sf__scan_merge_cleanup(&r->merge);
    return rc;
}

static void step_done(sf_scan_step *step)
{
    gate_arrive(&((struct scan_run *)step->ctx)->gate);
}

static void step_start(void *arg)
{
    struct scan_run *r = arg;

    sf__scan_merge_start(&r->merge, &r->step);
}

void scan_step_begin(struct scan_run *r, size_t max_rows, size_t max_bytes, uint64_t deadline_ns)
{
    r->steps++;
    r->step = (sf_scan_step){
        .limits = {.max_rows = max_rows, .max_bytes = max_bytes},
        .deadline_ns = deadline_ns,
        .done = step_done,
        .ctx = r,
    };
    on_loop(r->shard->rt->loop, step_start, r);
}

void scan_step_wait(struct scan_run *r)
{
    gate_wait(&r->gate, r->steps);
    if (r->gate.count != r->steps)
        fail_msg("a step completed %u times", r->gate.count - r->steps + 1);
}

void scan_end(struct scan_run *r)
{
    sf__scan_merge_cleanup(&r->merge);
}

/* ------------------------------------------------------------------ residency ------------------------------------ */

static void stays(sf_shard_resident *op)
{
    struct staying *s = op->ctx;

    sf_error_tell(s->shard->rt->alloc, &op->error, &s->error);
    gate_arrive(&s->gate);
}

static void stay_on_loop(void *arg)
{
    struct staying *s = arg;

    s->shard->vtable->resident(s->shard, &s->op);
    if (s->cancel)
        s->shard->vtable->resident_cancel(s->shard, &s->op);
}

static void staying_init(struct staying *s, sf_shard *shard, sf_residency where, bool cancel)
{
    *s = (struct staying){.shard = shard, .cancel = cancel, .error = SF_ERROR_INIT, .gate = GATE_INIT};
    s->op =
        (sf_shard_resident){.where = where, .deadline_ns = SF_NO_DEADLINE, .bytes = &s->bytes, .done = stays, .ctx = s};
}

sf_status stay(sf_shard *shard, struct staying *s, sf_residency where, bool cancel)
{
    staying_init(s, shard, where, cancel);
    on_loop(shard->rt->loop, stay_on_loop, s);
    gate_wait(&s->gate, 1);
    return s->error.code;
}

static void stay_both_on_loop(void *arg)
{
    struct staying *both = arg;

    stay_on_loop(&both[0]);
    stay_on_loop(&both[1]);
}

void stay_both(sf_shard *shard, struct staying both[2], sf_residency where)
{
    staying_init(&both[0], shard, where, false);
    staying_init(&both[1], shard, where, false);
    on_loop(shard->rt->loop, stay_both_on_loop, both);
    gate_wait(&both[0].gate, 1);
    gate_wait(&both[1].gate, 1);
}
