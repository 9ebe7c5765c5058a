/* explain: how a look-up of one key goes, and what each of its steps takes. */
#include "cli.h"

#include <inttypes.h>
#include <time.h>

struct explaining {
    struct cli *c;
    struct list list;
    sf_runtime_stats before;
    struct timespec since;
};

static void step_begin(struct explaining *x)
{
    sf_runtime_get_stats(x->c->rt, &x->before);
    clock_gettime(CLOCK_MONOTONIC, &x->since);
}

/* What was done since step_begin(), and what came of it. `what` may be NULL, and `off` SF_NO_OFFSET. */
static void step_end(struct explaining *x, const char *name, const char *object, uint64_t off, uint64_t length,
                     const char *what, bool timed)
{
    sf_runtime_stats now;
    struct timespec end;
    int64_t us;

    clock_gettime(CLOCK_MONOTONIC, &end);
    sf_runtime_get_stats(x->c->rt, &now);
    us = (int64_t)(end.tv_sec - x->since.tv_sec) * 1000000 + (end.tv_nsec - x->since.tv_nsec) / 1000;
    list_row(&x->list,
             (struct cell[]){
                 {.kind = CELL_TEXT, .text = name},
                 {.kind = what ? CELL_TEXT : CELL_ABSENT, .text = what},
                 {.kind = object ? CELL_TEXT : CELL_ABSENT, .text = object},
                 {.kind = off != SF_NO_OFFSET ? CELL_UINT : CELL_ABSENT, .number = off},
                 {.kind = off != SF_NO_OFFSET ? CELL_SIZE : CELL_ABSENT, .number = length},
                 {.kind = timed ? CELL_UINT : CELL_ABSENT, .number = now.requests - x->before.requests},
                 {.kind = timed ? CELL_SIZE : CELL_ABSENT, .number = now.bytes_fetched - x->before.bytes_fetched},
                 {.kind = timed ? CELL_UINT : CELL_ABSENT, .number = (uint64_t)us},
             });
}

static void on_look(void *ctx, const sf_look *look)
{
    static const char *const answers[] = {"not known", "found", "not there", "ruled out by the filter"};
    uint64_t off = look->length > 0 ? look->offset : SF_NO_OFFSET;

    step_end(ctx,
             look->length > 0   ? "block"
             : look->has_filter ? "filter"
                                : "memory",
             look->object, off, look->length, answers[look->answer], false);
}

static void explain_line(struct text *t, const struct out *o, const struct cell *cells)
{
    static const char *const names[] = {"", "  ", "  ", "  offset=", "  length=", "  requests=", "  bytes=", "  us="};

    for (size_t i = 0; i < 8; i++) {
        if (cells[i].kind == CELL_ABSENT)
            continue;
        text_puts(t, names[i]);
        cell_put(t, o, &cells[i]);
    }
    text_putc(t, '\n');
}

/* The shard is opened by a look-up of a key that no shard has, so that its own step shows. */
static sf_status look_up(struct explaining *x, uint32_t db_id, sf_bytes key, bool *found, sf_error *err)
{
    sf_call *call;
    sf_status rc = sf_snapshot_get_start(&call, x->c->snap, db_id, &key, 1, x->c->settings.timeout_ms, NULL, NULL, err);
    size_t n;

    if (rc != SF_OK)
        return rc;
    rc = sf_call_wait(call, err);
    *found = rc == SF_OK && sf_call_values(call, &n)[0].found;
    sf_call_release(call);
    return rc;
}

static int explain(struct explaining *x, const char *text, uint32_t db_id, sf_bytes key)
{
    static const char *const answers[] = {"the key is not there", "found"};
    struct cli *c = x->c;
    sf_error e = SF_ERROR_INIT;
    sf_shard_info shard;
    char where[32];
    bool found = false;

    snprintf(where, sizeof(where), "shard %u", db_id);
    step_end(x, "route", NULL, SF_NO_OFFSET, 0, where, true);
    sf_snapshot_get_shard(c->snap, db_id, &shard);
    step_begin(x);
    if (look_up(x, db_id, (sf_bytes){(const uint8_t *)"", 0}, &found, &e) != SF_OK)
        return cli_fail_with(c, "explain", text, &e);
    step_end(x, "open", shard.db_url, SF_NO_OFFSET, 0, shard.db_url ? NULL : "the shard is empty", true);
    step_begin(x);
    if (look_up(x, db_id, key, &found, &e) != SF_OK)
        return cli_fail_with(c, "explain", text, &e);
    step_end(x, "get", NULL, SF_NO_OFFSET, 0, answers[found], true);
    sf_snapshot_explain(c->snap, db_id, key, on_look, x);
    step_begin(x);
    if (look_up(x, db_id, key, &found, &e) != SF_OK)
        return cli_fail_with(c, "explain", text, &e);
    step_end(x, "again", NULL, SF_NO_OFFSET, 0, answers[found], true);
    return 0;
}

int cmd_explain(struct cli *c)
{
    static const struct column columns[] = {{"step", "STEP"},           {"result", "RESULT"},
                                            {"object", "OBJECT"},       {"offset", "OFFSET", true},
                                            {"length", "LENGTH", true}, {"requests", "REQUESTS", true},
                                            {"bytes", "BYTES", true},   {"us", "US", true}};
    struct explaining x = {
        .c = c,
        .list = {.out = &c->out, .op = "explain", .member = "steps", .columns = columns, .n = 8, .line = explain_line}};
    const char *text = c->args.words[0];
    sf_error e = SF_ERROR_INIT;
    uint8_t scratch[8];
    uint32_t db_id;
    sf_bytes stored;
    sf_key key;
    int rc;

    if (!session_locate(c))
        return 1;
    step_begin(&x);
    if (!session_open(c) || !cli_parse_key(c, "explain", text, &key))
        return 1;
    if (sf_snapshot_encode_key(c->snap, &key, scratch, &stored, &e) != SF_OK ||
        sf_snapshot_route(c->snap, &key, &db_id, &e) != SF_OK)
        return cli_fail_with(c, "explain", text, &e);
    list_begin(&x.list);
    step_end(&x, "manifest", c->info.manifest_ref, SF_NO_OFFSET, 0, NULL, true);
    step_begin(&x);
    rc = explain(&x, text, db_id, stored);
    list_end(&x.list);
    return rc;
}
