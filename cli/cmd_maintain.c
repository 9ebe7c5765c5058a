/* rollback, cleanup: what moves the pointer, and what deletes. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RUNS_LOOKED_AT 100 /* for --run-id */

/* ------------------------------------------------------------------ asking ---------------------------------------- */

static bool may_ask(const struct cli *c)
{
    return !args_has(&c->args, OPT_YES) && isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

/* Whatever is not a clear yes is no. */
static bool ask(const char *question)
{
    char answer[16];

    fprintf(stderr, "%s [y/N] ", question);
    fflush(stderr);
    if (!fgets(answer, sizeof(answer), stdin)) {
        clearerr(stdin); /* perhaps an interrupt, in a session that goes on */
        return false;
    }
    answer[strcspn(answer, "\r\n")] = '\0';
    return strcasecmp(answer, "y") == 0 || strcasecmp(answer, "yes") == 0;
}

/* ------------------------------------------------------------------ rollback -------------------------------------- */

struct target {
    char *ref, *current_ref; /* current_ref NULL: the pointer names none of the newest manifests */
    struct text said;        /* what changes, for people */
};

static void say_entry(struct text *t, const char *label, const sf_history_entry *e)
{
    text_printf(t, "  %s ", label);
    if (e) {
        text_puts(t, "run_id=");
        text_escaped(t, e->run_id, strlen(e->run_id));
        text_puts(t, "  ");
        text_time(t, e->published_at_us);
    } else {
        text_puts(t, "none of the newest manifests");
    }
    text_putc(t, '\n');
}

static const sf_history_entry *find_target(const struct cli *c, const sf_history_entry *entries, size_t count)
{
    const struct args *a = &c->args;

    for (size_t i = 0; i < count; i++)
        if (args_has(a, OPT_RUN_ID)   ? strcmp(entries[i].run_id, a->opt[OPT_RUN_ID].text) == 0
            : args_has(a, OPT_OFFSET) ? i == a->opt[OPT_OFFSET].number
                                      : strcmp(entries[i].ref, a->opt[OPT_REF].text) == 0)
            return &entries[i];
    return NULL;
}

/* False with the failure said. */
static bool choose(struct cli *c, struct target *t, const sf_history_entry *entries, size_t count)
{
    const struct args *a = &c->args;
    const sf_history_entry *to = find_target(c, entries, count), *now = NULL;

    for (size_t i = 0; i < count; i++)
        if (entries[i].is_current)
            now = &entries[i];
    if (!to && args_has(a, OPT_RUN_ID)) {
        cli_error("No manifest found with run_id=%s", a->opt[OPT_RUN_ID].text);
        return false;
    }
    if (!to && args_has(a, OPT_OFFSET)) {
        cli_error("Offset %" PRIu64 " out of range (only %zu manifests available)", a->opt[OPT_OFFSET].number, count);
        return false;
    }
    t->ref = cli_strdup(to ? to->ref : a->opt[OPT_REF].text); /* an older one than was looked at */
    t->current_ref = now ? cli_strdup(now->ref) : NULL;
    text_printf(&t->said, "%s of ", c->current_name);
    text_escaped(&t->said, c->prefix, strlen(c->prefix));
    text_putc(&t->said, '\n');
    say_entry(&t->said, "now: ", now);
    if (to)
        say_entry(&t->said, "then:", to);
    else
        text_printf(&t->said, "  then: %s\n", t->ref);
    return true;
}

static bool find(struct cli *c, struct target *t)
{
    uint64_t offset = c->args.opt[OPT_OFFSET].number;
    sf_error e = SF_ERROR_INIT;
    struct publications p;
    bool found = false;

    if (session_history(c, offset < RUNS_LOOKED_AT ? RUNS_LOOKED_AT : (size_t)offset + 1, &p, &e) != SF_OK)
        cli_fail_with(c, "rollback", NULL, &e);
    else
        found = choose(c, t, p.entries, p.count);
    session_history_free(&p);
    return found;
}

/* In PostgreSQL. What is there is opened, all shards of it, and nobody may publish meanwhile. */
static sf_status move_pointer(struct cli *c, const struct target *t, bool force, sf_error *err)
{
    sf_reader_options o = session_reader_options(c);
    sf_reader *r = NULL;
    sf_status rc = SF_OK;

    if (force)
        return sf_postgres_set_current(c->postgres, t->ref, SF_EXPECT_ANY, NULL, err);
    o.lazy_shards = false;
    o.manifest_ref = t->ref;
    rc = sf_reader_open(&r, c->rt, c->prefix, &o, err);
    sf_reader_free(r);
    if (rc != SF_OK)
        return rc;
    return sf_postgres_set_current(c->postgres, t->ref, t->current_ref ? SF_EXPECT_REF : SF_EXPECT_ANY, t->current_ref,
                                   err);
}

static int roll_back(struct cli *c, const struct target *t)
{
    sf_rollback_options o = SF_ROLLBACK_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    struct text said = {0};
    sf_status rc;

    o.site = session_site_options(c);
    o.force = args_has(&c->args, OPT_FORCE);
    rc = c->postgres ? move_pointer(c, t, o.force, &e) : sf_rollback(c->rt, c->prefix, t->ref, &o, &e);
    if (rc == SF_NOT_FOUND || rc == SF_BAD_MANIFEST)
        return cli_fail(c, "rollback", NULL, "%s (--force moves the pointer all the same)", e.message);
    if (rc == SF_UNSUPPORTED)
        return cli_fail(c, "rollback", NULL,
                        "%s (--force moves the pointer all the same, also over one that was moved meanwhile)", e.message);
    if (rc != SF_OK)
        return cli_fail_with(c, "rollback", NULL, &e);
    text_printf(&said, "Rolled back %s to: ", c->current_name);
    text_escaped(&said, t->ref, strlen(t->ref));
    text_putc(&said, '\n');
    out_write(&c->out, &said);
    text_free(&said);
    return 0;
}

int cmd_rollback(struct cli *c)
{
    struct target t = {0};
    int rc = 1;

    if (args_has(&c->args, OPT_REF) + args_has(&c->args, OPT_OFFSET) + args_has(&c->args, OPT_RUN_ID) != 1)
        return args_usage_error(c->args.command, "Exactly one of --ref, --run-id, or --offset is required");
    if (!session_locate(c))
        return 1;
    if (!find(c, &t)) {
        rc = 1;
    } else if (may_ask(c)) {
        fputs(text_str(&t.said), stderr);
        if (ask("Move the pointer?"))
            rc = roll_back(c, &t);
        else
            cli_error("the pointer was left as it is");
    } else {
        rc = roll_back(c, &t);
    }
    free(t.ref);
    free(t.current_ref);
    text_free(&t.said);
    return rc;
}

/* ------------------------------------------------------------------ cleanup --------------------------------------- */

struct progress {
    size_t prefixes;
    uint64_t objects;
};

static void show_progress(void *ctx, const sf_leftover *l)
{
    struct progress *p = ctx;

    if (l->deleted) {
        p->prefixes++;
        p->objects += l->objects;
    }
    progress_show("cleanup: %zu prefixes, %" PRIu64 " objects deleted", p->prefixes, p->objects);
}

static sf_cleanup_options cleanup_options(const struct cli *c)
{
    const struct args *a = &c->args;
    sf_cleanup_options o = SF_CLEANUP_OPTIONS_INIT;

    o.site = session_site_options(c);
    o.old_runs = args_has(a, OPT_OLD_RUNS) || args_has(a, OPT_OLDER_THAN) || args_has(a, OPT_KEEP_LAST);
    if (args_has(a, OPT_OLDER_THAN))
        o.older_than_ms = (int64_t)a->opt[OPT_OLDER_THAN].number * 1000;
    if (args_has(a, OPT_KEEP_LAST))
        o.keep_last = (uint32_t)a->opt[OPT_KEEP_LAST].number;
    o.dry_run = args_has(a, OPT_DRY_RUN);
    o.manifests = c->postgres ? &c->store : NULL;
    return o;
}

/* The shard whose attempts lie in the same folder as this one; -1: none of the snapshot that is served. */
static int64_t shard_of(const struct cli *c, const char *attempt_url)
{
    size_t n = strlen(attempt_url);
    sf_shard_info s;

    while (n > 0 && attempt_url[n - 1] == '/')
        n--;
    while (n > 0 && attempt_url[n - 1] != '/')
        n--;
    for (uint32_t i = 0; c->snap && sf_snapshot_get_shard(c->snap, i, &s); i++) {
        const char *below = s.db_url ? strstr(s.db_url, "/run_id=") : NULL;
        const char *here = strstr(attempt_url, "/run_id=");
        size_t length;

        if (!below || !here)
            continue;
        length = n - (size_t)(here - attempt_url);
        if (strncmp(below, here, length) == 0 && !strchr(below + length, '/'))
            return i;
    }
    return -1;
}

static void put_leftover(struct json *j, const struct cli *c, const sf_leftover *l)
{
    static const char *const kinds[] = {"attempt", "manifest", "run", "run_record", "upload"};
    int64_t shard = l->kind == SF_LEFTOVER_ATTEMPT ? shard_of(c, l->url) : -1;

    json_open(j, NULL, '{');
    if (l->kind == SF_LEFTOVER_ATTEMPT) {
        if (shard >= 0)
            json_uint(j, "db_id", (uint64_t)shard);
        else
            json_raw(j, "db_id", NULL);
    } else {
        if (l->kind != SF_LEFTOVER_RUN)
            json_text(j, "kind", kinds[l->kind]);
        json_text(j, "run_id", l->run_id);
    }
    json_text(j, "prefix_url", l->url);
    json_uint(j, "objects_deleted", l->objects);
    json_close(j, '}');
}

static bool is_other(const sf_leftover *l)
{
    return l->kind != SF_LEFTOVER_ATTEMPT && l->kind != SF_LEFTOVER_RUN;
}

static void put_json_report(struct text *t, const struct cli *c, const sf_leftover *l, size_t n, bool dry, bool old_runs)
{
    uint64_t objects = 0;
    struct json j;

    for (size_t i = 0; i < n; i++)
        objects += l[i].objects;
    json_begin(&j, t, c->out.format);
    json_open(&j, NULL, '{');
    json_text(&j, "op", "cleanup");
    json_bool(&j, "dry_run", dry);
    json_text(&j, "run_id", c->snap ? c->info.run_id : NULL);
    json_open(&j, "stale_attempts", '[');
    for (size_t i = 0; i < n; i++)
        if (l[i].kind == SF_LEFTOVER_ATTEMPT)
            put_leftover(&j, c, &l[i]);
    json_close(&j, ']');
    json_uint(&j, "total_objects_deleted", objects);
    json_uint(&j, "total_prefixes_removed", n);
    if (old_runs) {
        json_open(&j, "old_runs", '[');
        for (size_t i = 0; i < n; i++)
            if (l[i].kind == SF_LEFTOVER_RUN)
                put_leftover(&j, c, &l[i]);
        json_close(&j, ']');
    }
    json_open(&j, "others", '[');
    for (size_t i = 0; i < n; i++)
        if (is_other(&l[i]))
            put_leftover(&j, c, &l[i]);
    json_close(&j, ']');
    json_close(&j, '}');
    json_end(&j);
}

/* The heading names what the lines are of. */
static void put_text_report(struct text *t, const char *prefix, const sf_leftover *l, size_t n, bool dry)
{
    static const char *const kinds[] = {"stale attempt", "manifest", "old run", "run record", "unfinished uploads"};
    uint64_t objects = 0;

    text_printf(t, "%s below ", dry ? "Would be deleted" : "Deleted");
    text_escaped(t, prefix, strlen(prefix));
    text_puts(t, ":\n");
    for (size_t i = 0; i < n; i++) {
        objects += l[i].objects;
        text_printf(t, "  %-18s  run_id=", kinds[l[i].kind]);
        text_escaped(t, l[i].run_id, strlen(l[i].run_id));
        text_printf(t, "  objects=%" PRIu64 "  ", l[i].objects);
        text_escaped(t, l[i].url, strlen(l[i].url));
        text_putc(t, '\n');
    }
    if (n == 0)
        text_puts(t, "  nothing\n");
    text_printf(t, "  in all: prefixes=%zu  objects=%" PRIu64 "\n", n, objects);
}

static void put_rows(struct cli *c, const sf_leftover *l, size_t n)
{
    static const char *const kinds[] = {"attempt", "manifest", "run", "run_record", "upload"};
    static const struct column columns[] = {{"kind"}, {"run_id"}, {"prefix_url"}, {"objects"}, {"deleted"}};
    struct list list = {.out = &c->out, .op = "cleanup", .columns = columns, .n = 5};

    list_begin(&list);
    for (size_t i = 0; i < n; i++)
        list_row(&list, (struct cell[]){{.kind = CELL_TEXT, .text = kinds[l[i].kind]},
                                        {.kind = CELL_TEXT, .text = l[i].run_id},
                                        {.kind = CELL_TEXT, .text = l[i].url},
                                        {.kind = CELL_UINT, .number = l[i].objects},
                                        {.kind = CELL_BOOL, .number = l[i].deleted}});
    list_end(&list);
}

static void print_report(struct cli *c, const char *prefix, const sf_cleanup_report *report, const sf_cleanup_options *o)
{
    struct text t = {0};
    size_t n;
    const sf_leftover *l = sf_cleanup_leftovers(report, &n);

    if (c->out.format == FORMAT_CSV || c->out.format == FORMAT_TSV)
        put_rows(c, l, n);
    else if (out_is_json(&c->out))
        put_json_report(&t, c, l, n, o->dry_run, o->old_runs);
    else
        put_text_report(&t, prefix, l, n, o->dry_run);
    out_write(&c->out, &t);
    text_free(&t);
    if (sf_cleanup_warning(report))
        cli_warn(c, "%s", sf_cleanup_warning(report));
}

static int clean(struct cli *c, const char *prefix, const sf_cleanup_options *o)
{
    sf_cleanup_options options = *o;
    sf_cleanup_report *report = NULL;
    sf_error e = SF_ERROR_INIT;
    struct progress p = {0};
    sf_status rc;

    if (!o->dry_run && progress_is_wanted(&c->settings)) {
        options.progress = show_progress;
        options.progress_ctx = &p;
    }
    rc = sf_cleanup(&report, c->rt, prefix, &options, &e);
    progress_end();
    if (report) /* of a failure, too: what is gone is gone */
        print_report(c, prefix, report, o);
    sf_cleanup_report_free(report);
    return rc == SF_OK ? 0 : cli_fail_with(c, "cleanup", NULL, &e);
}

/* Shows what would go; what there is to say is on standard error, so that standard output has one result.
 * True: go on. */
static bool agree(struct cli *c, const char *prefix, const sf_cleanup_options *o)
{
    sf_cleanup_options dry = *o;
    sf_cleanup_report *report = NULL;
    sf_error e = SF_ERROR_INIT;
    struct text t = {0};
    const sf_leftover *l;
    size_t n;
    bool agreed = false;

    dry.dry_run = true;
    if (sf_cleanup(&report, c->rt, prefix, &dry, &e) != SF_OK) {
        cli_fail_with(c, "cleanup", NULL, &e);
    } else {
        l = sf_cleanup_leftovers(report, &n);
        put_text_report(&t, prefix, l, n, true);
        fputs(text_str(&t), stderr);
        agreed = n == 0 || ask("Delete that?");
        if (!agreed)
            cli_error("nothing was deleted");
    }
    text_free(&t);
    sf_cleanup_report_free(report);
    return agreed;
}

int cmd_cleanup(struct cli *c)
{
    sf_cleanup_options o;
    const char *prefix;

    if (args_has(&c->args, OPT_REF) || args_has(&c->args, OPT_OFFSET))
        return args_usage_error(c->args.command,
                                "cleanup keeps what the pointer names: it takes no --ref and no --offset");
    /* shards are named by the manifest; without one the rest can be cleaned up all the same */
    prefix = session_prefix(c, "cleanup");
    if (!prefix)
        return 1;
    session_peek(c);
    o = cleanup_options(c);
    if (!o.dry_run && may_ask(c) && !agree(c, prefix, &o))
        return 1;
    return clean(c, prefix, &o);
}
