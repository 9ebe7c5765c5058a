/* du, stats: what snapshots take, and how their rows are spread. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_AT_A_TIME 1000

/* ------------------------------------------------------------------ du -------------------------------------------- */

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
    struct list l = {.out = &c->out,
                     .op = "du",
                     .member = "runs",
                     .columns = columns,
                     .n = 5,
                     .line = usage_line,
                     .empty = "(no objects)"};

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

int cmd_du(struct cli *c)
{
    char root[1024], key[4096];
    struct usages all = {0};
    sf_error e = SF_ERROR_INIT;
    sf_bucket *bucket = NULL;
    sf_call *call = NULL;
    const sf_object_entry *entries;
    size_t count, skip;
    int rc = 1;

    if (!session_has_prefix(c, "du") || !session_locate(c))
        return 1;
    session_peek(c);
    if (sf_url_split(c->prefix, root, sizeof(root), key, sizeof(key) - 1, &e) != SF_OK)
        return cli_fail_with(c, "du", NULL, &e);
    if (*key)
        strcat(key, "/");
    skip = strlen(key);
    if (sf_bucket_open(&bucket, c->rt, c->prefix, &c->settings.s3, &e) != SF_OK ||
        sf_bucket_list(&call, bucket, key, NULL, c->settings.timeout_ms, &e) != SF_OK) {
        cli_fail_with(c, "du", NULL, &e);
    } else {
        entries = sf_call_entries(call, &count);
        for (size_t i = 0; i < count; i++)
            count_object(&all, entries[i].key + skip, entries[i].size);
        print_usages(c, &all);
        rc = 0;
    }
    for (size_t i = 0; i < all.n; i++)
        free(all.p[i].run_id);
    free(all.p);
    sf_call_release(call);
    sf_bucket_close(bucket);
    return rc;
}

/* ------------------------------------------------------------------ stats ----------------------------------------- */

struct stats {
    uint64_t rows, key_bytes, value_bytes;
    uint64_t least_rows, most_rows; /* of a shard */
    uint64_t keys[SF_HISTOGRAM_BUCKETS], values[SF_HISTOGRAM_BUCKETS];
};

static size_t bucket_of(size_t n)
{
    size_t bucket = 0;

    for (; n > 0; n >>= 1)
        bucket++;
    return bucket < SF_HISTOGRAM_BUCKETS ? bucket : SF_HISTOGRAM_BUCKETS - 1;
}

static bool read_rows(struct cli *c, struct stats *s, uint32_t db_id)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    sf_scan *scan = NULL;
    const sf_row *rows;
    uint64_t before = s->rows;
    size_t count = 1;
    sf_status rc;

    o.db_id = db_id;
    rc = sf_scan_open(&scan, c->snap, &o, &e);
    while (rc == SF_OK && count > 0 && !interrupted()) {
        rc = sf_scan_next(scan, ROWS_AT_A_TIME, c->settings.timeout_ms, &rows, &count, &e);
        for (size_t i = 0; rc == SF_OK && i < count; i++) {
            s->rows++;
            s->key_bytes += rows[i].key.n;
            s->value_bytes += rows[i].value.n;
            s->keys[bucket_of(rows[i].key.n)]++;
            s->values[bucket_of(rows[i].value.n)]++;
        }
    }
    sf_scan_close(scan);
    if (interrupted())
        return false;
    if (rc != SF_OK) {
        cli_fail_with(c, "stats", NULL, &e);
        return false;
    }
    s->least_rows = db_id == 0 || s->rows - before < s->least_rows ? s->rows - before : s->least_rows;
    s->most_rows = s->rows - before > s->most_rows ? s->rows - before : s->most_rows;
    return true;
}

/* Bucket i has sizes of i bits: [{"up_to": 2^i - 1, "rows": n}, ...] */
static void put_histogram(struct json *j, const char *name, const uint64_t counts[SF_HISTOGRAM_BUCKETS])
{
    json_open(j, name, '[');
    for (size_t i = 0; i < SF_HISTOGRAM_BUCKETS; i++) {
        if (counts[i] == 0)
            continue;
        json_open(j, NULL, '{');
        json_uint(j, "up_to", (UINT64_C(1) << i) - 1);
        json_uint(j, "rows", counts[i]);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void put_bars(struct text *t, const char *name, const uint64_t counts[SF_HISTOGRAM_BUCKETS],
                     uint64_t rows)
{
    text_printf(t, "%s:\n", name);
    for (size_t i = 0; i < SF_HISTOGRAM_BUCKETS; i++) {
        int bar = rows > 0 ? (int)(40 * (double)counts[i] / (double)rows + 0.5) : 0;

        if (counts[i] == 0)
            continue;
        text_printf(t, "  up to %10" PRIu64 " bytes  %10" PRIu64 " rows  ", (UINT64_C(1) << i) - 1,
                    counts[i]);
        for (int k = 0; k < bar; k++)
            text_putc(t, '#');
        text_putc(t, '\n');
    }
}

static void print_stats(struct cli *c, const struct stats *s)
{
    double mean = (double)s->rows / c->info.num_dbs, skew = mean > 0 ? (double)s->most_rows / mean : 0;
    struct text t = {0};
    struct json j;

    if (c->out.format == FORMAT_TEXT) {
        text_printf(&t,
                    "rows=%" PRIu64 "  shards=%u  rows_per_shard=%" PRIu64 "..%" PRIu64
                    "  largest_over_mean=%.2f\n",
                    s->rows, c->info.num_dbs, s->least_rows, s->most_rows, skew);
        text_puts(&t, "key_bytes=");
        text_size(&t, s->key_bytes);
        text_puts(&t, "  value_bytes=");
        text_size(&t, s->value_bytes);
        text_putc(&t, '\n');
        put_bars(&t, "keys", s->keys, s->rows);
        put_bars(&t, "values", s->values, s->rows);
    } else {
        json_begin(&j, &t, c->out.format == FORMAT_JSONL ? FORMAT_JSONL : FORMAT_JSON);
        json_open(&j, NULL, '{');
        json_text(&j, "op", "stats");
        json_uint(&j, "rows", s->rows);
        json_uint(&j, "num_dbs", c->info.num_dbs);
        json_uint(&j, "least_rows", s->least_rows);
        json_uint(&j, "most_rows", s->most_rows);
        json_real(&j, "largest_over_mean", skew);
        json_uint(&j, "key_bytes", s->key_bytes);
        json_uint(&j, "value_bytes", s->value_bytes);
        put_histogram(&j, "keys", s->keys);
        put_histogram(&j, "values", s->values);
        json_close(&j, '}');
        json_end(&j);
    }
    out_write(&c->out, &t);
    text_free(&t);
}

int cmd_stats(struct cli *c)
{
    struct stats s = {0};

    if (!session_open(c))
        return 1;
    for (uint32_t i = 0; i < c->info.num_dbs; i++)
        if (!read_rows(c, &s, i))
            return 1;
    print_stats(c, &s);
    return 0;
}
