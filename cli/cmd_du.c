/* du: what snapshots take. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* Objects of one run. */
struct usage {
    char *run_id; /* "" of what belongs to none */
    uint64_t objects, bytes, shard_bytes;
    bool has_manifest;
};

struct usages {
    struct usage *p;
    size_t n;
};

static struct usage *usage_of(struct usages *all, const char *run_id, size_t length)
{
    for (size_t i = all->n; i-- > 0;) /* objects of a run follow each other */
        if (strlen(all->p[i].run_id) == length && memcmp(all->p[i].run_id, run_id, length) == 0)
            return &all->p[i];
    all->p = cli_realloc(all->p, all->n + 1, sizeof(*all->p));
    all->p[all->n] = (struct usage){.run_id = cli_strndup(run_id, length)};
    return &all->p[all->n++];
}

/* "shards/run_id=X/...", "manifests/TIME_run_id=X/manifest", "runs/TIME_run_id=X_0123.../run.yaml" */
static void count_object(struct usages *all, const char *key, uint64_t size)
{
    const char *run = strstr(key, "run_id="), *end;
    bool is_shard = strncmp(key, "shards/", 7) == 0, is_record = strncmp(key, "runs/", 5) == 0;
    bool is_manifest = strncmp(key, "manifests/", 10) == 0;
    struct usage *u;

    if (run && (is_shard || is_record || is_manifest)) {
        run += 7;
        end = run + strcspn(run, "/");
        if (is_record && end - run > 33 && end[-33] == '_')
            end -= 33;
        u = usage_of(all, run, (size_t)(end - run));
    } else {
        u = usage_of(all, "", 0);
    }
    u->objects++;
    u->bytes += size;
    u->shard_bytes += is_shard ? size : 0;
    u->has_manifest |= is_manifest;
}

static int by_bytes(const void *a, const void *b)
{
    const struct usage *x = a, *y = b;

    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static void usage_line(struct text *t, const struct out *o, const struct cell *cells)
{
    static const char *const names[] = {"run_id=", "  objects=", "  bytes=", "  shard_bytes=", "  state="};

    for (size_t i = 0; i < 5; i++) {
        text_puts(t, names[i]);
        cell_put(t, o, &cells[i]);
    }
    text_putc(t, '\n');
}

/* Whether a shard of the snapshot that is served lies in the run's folder: a later run may have taken it over. */
static bool is_used(const struct cli *c, const char *run_id)
{
    size_t n = strlen(run_id);
    sf_shard_info s;

    for (uint32_t i = 0; c->snap && sf_snapshot_get_shard(c->snap, i, &s); i++) {
        const char *run = s.db_url ? strstr(s.db_url, "/run_id=") : NULL;

        if (run && strncmp(run + 8, run_id, n) == 0 && run[8 + n] == '/')
            return true;
    }
    return false;
}

static void print_usages(struct cli *c, struct usages *all)
{
    static const struct column columns[] = {{"run_id", "RUN_ID"},
                                            {"objects", "OBJECTS", true},
                                            {"bytes", "BYTES", true},
                                            {"shard_bytes", "IN_SHARDS", true},
                                            {"state", "STATE"}};
    struct list l = {
        .out = &c->out, .op = "du", .member = "runs", .columns = columns, .n = 5, .line = usage_line, .empty = "(no objects)"};

    if (all->n > 1)
        qsort(all->p, all->n, sizeof(*all->p), by_bytes);
    list_begin(&l);
    for (size_t i = 0; i < all->n; i++) {
        const struct usage *u = &all->p[i];
        const char *state = !*u->run_id                                         ? "other"
                            : c->snap && strcmp(u->run_id, c->info.run_id) == 0 ? "current"
                            : u->has_manifest                                   ? "published"
                            : is_used(c, u->run_id)                             ? "in use"
                                                                                : "no manifest";

        list_row(&l, (struct cell[]){{.kind = *u->run_id ? CELL_TEXT : CELL_NONE, .text = u->run_id},
                                     {.kind = CELL_UINT, .number = u->objects},
                                     {.kind = CELL_SIZE, .number = u->bytes},
                                     {.kind = CELL_SIZE, .number = u->shard_bytes},
                                     {.kind = CELL_TEXT, .text = state}});
    }
    list_end(&l);
}

/* Which of them have their manifest in PostgreSQL. False with the failure said. */
static bool note_published(struct cli *c, struct usages *all)
{
    struct publications p;
    sf_error e = SF_ERROR_INIT;
    bool good;

    if (!c->postgres)
        return true;
    good = session_history(c, SIZE_MAX, &p, &e) == SF_OK;
    if (!good)
        cli_fail_with(c, "du", NULL, &e);
    for (size_t i = 0; i < p.count && good; i++)
        for (size_t k = 0; k < all->n; k++)
            all->p[k].has_manifest |= strcmp(all->p[k].run_id, p.entries[i].run_id) == 0;
    session_history_free(&p);
    return good;
}

int cmd_du(struct cli *c)
{
    char root[1024], key[4096];
    struct usages all = {0};
    sf_error e = SF_ERROR_INIT;
    sf_bucket *bucket = NULL;
    sf_call *call = NULL;
    const sf_object_entry *entries;
    const char *prefix = session_prefix(c, "du");
    size_t count, skip;
    int rc = 1;

    if (!prefix)
        return 1;
    session_peek(c);
    if (sf_url_split(prefix, root, sizeof(root), key, sizeof(key) - 1, &e) != SF_OK)
        return cli_fail_with(c, "du", NULL, &e);
    skip = strlen(key);
    if (skip > 0) {
        key[skip++] = '/';
        key[skip] = '\0';
    }
    if (sf_bucket_open(&bucket, c->rt, prefix, &c->settings.s3, &e) != SF_OK ||
        sf_bucket_list(&call, bucket, key, NULL, c->settings.timeout_ms, &e) != SF_OK) {
        cli_fail_with(c, "du", NULL, &e);
    } else {
        entries = sf_call_entries(call, &count);
        for (size_t i = 0; i < count; i++)
            count_object(&all, entries[i].key + skip, entries[i].size);
        rc = note_published(c, &all) ? 0 : 1;
        if (rc == 0)
            print_usages(c, &all);
    }
    for (size_t i = 0; i < all.n; i++)
        free(all.p[i].run_id);
    free(all.p);
    sf_call_release(call);
    sf_bucket_close(bucket);
    return rc;
}
