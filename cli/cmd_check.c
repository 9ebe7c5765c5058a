/* verify: whether a snapshot is whole. */
#include "cli.h"

#include <inttypes.h>

static bool on_progress(void *ctx, const sf_verify_progress *p)
{
    const bool *shows = ctx;
    struct text size = {0};

    if (!*shows)
        return !interrupted();
    text_size(&size, p->bytes);
    progress_show("verify: %u of %u shards, %" PRIu64 " rows, %s", p->shards_done, p->shards_total, p->rows,
                  text_str(&size));
    text_free(&size);
    return !interrupted();
}

static void verify_line(struct text *t, const struct out *o, const struct cell *cells)
{
    static const char *const names[] = {"db_id=",           "  status=",  "  objects=", "  bytes=",  "  rows=",
                                        "  manifest_rows=", "  damages=", "  object=",  "  offset=", "  error="};

    for (size_t i = 0; i < 10; i++) {
        if (cells[i].kind == CELL_ABSENT)
            continue;
        text_puts(t, names[i]);
        if (i == 1)
            out_colour(o, t, cells[i].text[0] == 'g' ? COLOUR_GREEN : COLOUR_RED);
        cell_put(t, o, &cells[i]);
        if (i == 1)
            out_plain(o, t);
    }
    text_putc(t, '\n');
}

static int print_verdicts(struct cli *c, const sf_verification *verification, bool deep)
{
    static const struct column columns[] = {{"db_id", "DB_ID", true},     {"status", "STATUS"},
                                            {"objects", "OBJECTS", true}, {"bytes", "BYTES", true},
                                            {"rows", "ROWS", true},       {"manifest_rows", "IN_MANIFEST", true},
                                            {"damages", "DAMAGES", true}, {"object", "OBJECT"},
                                            {"offset", "OFFSET", true},   {"error", "ERROR"}};
    struct list l = {.out = &c->out, .op = "verify", .member = "shards", .columns = columns, .n = 10, .line = verify_line};
    size_t count, bad = 0;
    const sf_shard_verdict *verdicts = sf_verification_verdicts(verification, &count);

    list_begin(&l);
    for (size_t i = 0; i < count; i++) {
        const sf_shard_verdict *v = &verdicts[i];
        const sf_damage *first = v->first;

        bad += first != NULL;
        list_row(
            &l, (struct cell[]){{.kind = CELL_UINT, .number = v->db_id},
                                {.kind = CELL_TEXT, .text = first ? "bad" : "good"},
                                {.kind = CELL_UINT, .number = v->result.objects},
                                {.kind = CELL_SIZE, .number = v->result.bytes},
                                {.kind = deep ? CELL_UINT : CELL_ABSENT, .number = v->result.rows},
                                {.kind = v->manifest_rows > 0 ? CELL_UINT : CELL_ABSENT, .number = v->manifest_rows},
                                {.kind = first ? CELL_UINT : CELL_ABSENT, .number = v->result.damages},
                                {.kind = first && first->error.object[0] ? CELL_TEXT : CELL_ABSENT,
                                 .text = first ? first->error.object : NULL},
                                {.kind = first && first->offset != SF_NO_OFFSET ? CELL_UINT : CELL_ABSENT,
                                 .number = first ? first->offset : 0},
                                {.kind = first ? CELL_TEXT : CELL_ABSENT, .text = first ? first->error.message : NULL}});
    }
    list_end(&l);
    return bad == 0 ? 0 : cli_fail(c, "verify", NULL, "%zu of %zu shards are bad", bad, count);
}

int cmd_verify(struct cli *c)
{
    bool shows = progress_is_wanted(&c->settings);
    sf_verification_options o = SF_VERIFICATION_OPTIONS_INIT;
    sf_verification *verification;
    sf_error e = SF_ERROR_INIT;
    sf_status rc;
    int exits;

    o.deep = args_has(&c->args, OPT_DEEP);
    o.timeout_ms = c->settings.timeout_ms;
    o.threads = (uint32_t)c->args.opt[OPT_JOBS].number; /* 0 when it is not given */
    o.progress = on_progress;
    o.ctx = &shows;
    if (!session_open(c))
        return 1;
    rc = sf_snapshot_verify(&verification, c->snap, &o, &e);
    progress_end();
    if (rc != SF_OK)
        return cli_fail_with(c, "verify", NULL, &e);
    exits = print_verdicts(c, verification, o.deep);
    sf_verification_free(verification);
    if (c->rejected_ref && exits == 0)
        exits = cli_fail(c, "verify", NULL, "the manifest that the pointer names is malformed: %s", c->rejected_ref);
    return exits;
}
