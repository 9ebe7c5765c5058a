/* stats: how rows and their sizes are spread. */
#include "stats.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_AT_A_TIME 1000

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
    struct shard_stats *shard = &s->shards[db_id];
    size_t count = 1;
    sf_status rc;

    o.db_id = db_id;
    rc = sf_scan_open(&scan, c->snap, &o, &e);
    while (rc == SF_OK && count > 0 && !interrupted()) {
        if (progress_is_wanted(&c->settings))
            progress_show("stats: shard %" PRIu32 " of %" PRIu32 ", %" PRIu64 " rows", db_id + 1, c->info.num_dbs,
                          s->rows + shard->rows);
        rc = sf_scan_next(scan, ROWS_AT_A_TIME, c->settings.timeout_ms, &rows, &count, &e);
        for (size_t i = 0; rc == SF_OK && i < count; i++) {
            shard->rows++;
            shard->key_bytes += rows[i].key.n;
            shard->value_bytes += rows[i].value.n;
            s->keys[bucket_of(rows[i].key.n)]++;
            s->values[bucket_of(rows[i].value.n)]++;
        }
    }
    sf_scan_close(scan);
    if (interrupted())
        return false;
    if (rc != SF_OK) {
        progress_end();
        cli_fail_with(c, "stats", NULL, &e);
        return false;
    }
    s->rows += shard->rows;
    s->key_bytes += shard->key_bytes;
    s->value_bytes += shard->value_bytes;
    s->least_rows = db_id == 0 || shard->rows < s->least_rows ? shard->rows : s->least_rows;
    s->most_rows = shard->rows > s->most_rows ? shard->rows : s->most_rows;
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

static void put_bars(struct text *t, const char *name, const uint64_t counts[SF_HISTOGRAM_BUCKETS], uint64_t rows)
{
    text_printf(t, "%s:\n", name);
    for (size_t i = 0; i < SF_HISTOGRAM_BUCKETS; i++) {
        int bar = rows > 0 ? (int)(40 * (double)counts[i] / (double)rows + 0.5) : 0;

        if (counts[i] == 0)
            continue;
        text_printf(t, "  up to %10" PRIu64 " bytes  %10" PRIu64 " rows  ", (UINT64_C(1) << i) - 1, counts[i]);
        for (int k = 0; k < bar; k++)
            text_putc(t, '#');
        text_putc(t, '\n');
    }
}

static void print_stats(struct cli *c, const struct stats *s)
{
    double skew = stats_skew(s);
    struct text t = {0};
    struct json j;

    if (c->out.format == FORMAT_TEXT) {
        text_printf(&t, "rows=%" PRIu64 "  shards=%u  rows_per_shard=%" PRIu64 "..%" PRIu64 "  largest_over_mean=%.2f\n",
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

/* False with a message. */
static bool write_page(const struct cli *c, const struct stats *s, const char *path)
{
    struct out page = {0};
    struct text t = {0};
    FILE *file = fopen(path, "we");
    bool ok;

    if (!file) {
        cli_error("%s cannot be written: %s", path, strerror(errno));
        return false;
    }
    stats_page(&t, c, s);
    out_init(&page, file, path, 0);
    out_write(&page, &t);
    text_free(&t);
    ok = out_close(&page);
    fclose(file);
    return ok;
}

int cmd_stats(struct cli *c)
{
    const char *page = c->args.opt[OPT_HTML].text;
    struct stats s = {0};
    bool ok = true;

    if (!session_open(c))
        return 1;
    s.shard_count = c->info.num_dbs;
    s.shards = cli_alloc(s.shard_count, sizeof(*s.shards));
    for (uint32_t i = 0; ok && i < s.shard_count; i++)
        ok = read_rows(c, &s, i);
    progress_end();
    ok = ok && (!page || write_page(c, &s, page));
    if (ok)
        print_stats(c, &s);
    free(s.shards);
    return ok ? 0 : 1;
}
