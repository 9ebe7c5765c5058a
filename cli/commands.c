#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"

static const char *const encodings[] = {"u64be", "u32be", "utf8", "raw"};

static int usage(const struct cli *c, const char *text)
{
    fprintf(stderr, "Usage: shardy [OPTIONS] %s\nTry 'shardy --help' for help.\n\nError: wrong arguments for '%s'\n",
            text, c->argv[0]);
    return 2;
}

bool cli_parse_key(const struct cli *c, const char *text, sf_key *key)
{
    char *end;
    long long v;
    unsigned long long u;

    switch (c->info.key_encoding) {
    case SF_KEY_U64BE:
    case SF_KEY_U32BE:
        errno = 0;
        v = strtoll(text, &end, 10);
        *key = sf_key_int(v);
        if (errno == ERANGE && v > 0) {
            errno = 0;
            u = strtoull(text, &end, 10);
            *key = sf_key_uint(u);
        }
        if (errno || end == text || *end) {
            fprintf(stderr, "Error: Key '%s' is not a valid integer (required by %s encoding)\n", text,
                    encodings[c->info.key_encoding]);
            return false;
        }
        return true;
    case SF_KEY_RAW:
        *key = sf_key_bytes(text, strlen(text));
        return true;
    case SF_KEY_UTF8:
        break;
    }
    *key = sf_key_str(text, strlen(text));
    return true;
}

int cli_fail(const struct cli *c, const char *op, const char *key, const sf_error *err)
{
    struct json j;

    if (c->format == CLI_TEXT) {
        fprintf(stderr, "error: %s\n", err->message);
        return 1;
    }
    json_begin(&j, stderr, c->format);
    json_open(&j, NULL, '{');
    json_text(&j, "op", op);
    json_text(&j, "error", err->message);
    if (key)
        json_text(&j, "key", key);
    json_close(&j, '}');
    json_end(&j);
    return 1;
}

int cmd_get(struct cli *c)
{
    sf_error err = SF_ERROR_INIT;
    sf_value v = {0};
    bool strict = c->argc == 3 && strcmp(c->argv[2], "--strict") == 0;
    struct json j;
    sf_key key;
    bool found;

    if (c->argc != 2 && !strict)
        return usage(c, "get KEY [--strict]");
    if (!cli_parse_key(c, c->argv[1], &key))
        return 1;
    if (sf_reader_get(c->reader, &key, c->timeout_ms, &v, &err) != SF_OK)
        return cli_fail(c, "get", c->argv[1], &err);
    found = v.found;
    if (c->format == CLI_TEXT) {
        printf("%s=", c->argv[1]);
        if (found)
            fwrite(v.bytes.p, 1, v.bytes.n, stdout);
        puts(found ? "" : "null");
    } else {
        json_begin(&j, stdout, c->format);
        json_open(&j, NULL, '{');
        json_text(&j, "op", "get");
        json_text(&j, "key", c->argv[1]);
        json_bool(&j, "found", found);
        if (found)
            json_bytes64(&j, "value", v.bytes);
        else
            json_text(&j, "value", "null");
        json_close(&j, '}');
        json_end(&j);
    }
    sf_value_release(&v);
    return strict && !found ? 1 : 0;
}

int cmd_multiget(struct cli *c)
{
    size_t n = (size_t)c->argc - 1;
    sf_key *keys = calloc(n + 1, sizeof(*keys));
    sf_value *values = calloc(n + 1, sizeof(*values));
    sf_error err = SF_ERROR_INIT;
    struct json j;
    int rc = 1;

    if (n == 0) {
        rc = usage(c, "multiget KEY...");
        goto out;
    }
    if (!keys || !values) {
        fputs("Error: out of memory\n", stderr);
        goto out;
    }
    for (size_t i = 0; i < n; i++)
        if (!cli_parse_key(c, c->argv[i + 1], &keys[i]))
            goto out;
    if (sf_reader_multi_get(c->reader, keys, n, c->timeout_ms, values, &err) != SF_OK) {
        rc = cli_fail(c, "multiget", NULL, &err);
        goto out;
    }
    json_begin(&j, stdout, c->format == CLI_TEXT ? CLI_JSONL : c->format);
    json_open(&j, NULL, '{');
    json_text(&j, "op", "multiget");
    json_open(&j, "results", '[');
    for (size_t i = 0; i < n; i++) {
        json_open(&j, NULL, '{');
        json_text(&j, "key", c->argv[i + 1]);
        json_bool(&j, "found", values[i].found);
        if (values[i].found)
            json_bytes64(&j, "value", values[i].bytes);
        json_close(&j, '}');
        sf_value_release(&values[i]);
    }
    json_close(&j, ']');
    json_close(&j, '}');
    json_end(&j);
    rc = 0;
out:
    free(keys);
    free(values);
    return rc;
}

static void iso_time(int64_t us, char out[40])
{
    time_t s = (time_t)(us / 1000000);
    struct tm t;
    char day[24];

    gmtime_r(&s, &t);
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &t);
    snprintf(out, 40, "%s.%06" PRId64 "+00:00", day, us % 1000000);
}

int cmd_info(struct cli *c)
{
    struct json j;
    char created[40];

    iso_time(c->info.created_at_us, created);
    json_begin(&j, stdout, c->format == CLI_TEXT ? CLI_JSON : c->format);
    json_open(&j, NULL, '{');
    json_text(&j, "op", "info");
    json_text(&j, "run_id", c->info.run_id);
    json_uint(&j, "num_dbs", c->info.num_dbs);
    json_text(&j, "sharding", c->info.strategy == SF_SHARDING_HASH ? "hash" : "cel");
    json_text(&j, "created_at", created);
    json_text(&j, "manifest_ref", c->info.manifest_ref);
    json_uint(&j, "row_count", c->info.row_count);
    json_text(&j, "key_encoding", encodings[c->info.key_encoding]);
    json_text(&j, "hash_algorithm", "xxh3_64");
    json_close(&j, '}');
    json_end(&j);
    return 0;
}

int cmd_shards(struct cli *c)
{
    struct json j;
    sf_shard_info s;

    json_begin(&j, stdout, c->format);
    if (c->format != CLI_TEXT) {
        json_open(&j, NULL, '{');
        json_text(&j, "op", "shards");
        json_open(&j, "shards", '[');
    }
    for (uint32_t i = 0; sf_snapshot_get_shard(c->snap, i, &s); i++) {
        if (c->format == CLI_TEXT) {
            printf("db_id=%u  rows=%" PRIu64 "  min=", i, s.row_count);
            json_print(stdout, s.min_key_json);
            fputs("  max=", stdout);
            json_print(stdout, s.max_key_json);
            putchar('\n');
            continue;
        }
        json_open(&j, NULL, '{');
        json_uint(&j, "db_id", i);
        json_uint(&j, "row_count", s.row_count);
        json_raw(&j, "min_key", s.min_key_json);
        json_raw(&j, "max_key", s.max_key_json);
        json_text(&j, "db_url", s.db_url);
        json_close(&j, '}');
    }
    if (c->format != CLI_TEXT) {
        json_close(&j, ']');
        json_close(&j, '}');
        json_end(&j);
    }
    return 0;
}

int cmd_health(struct cli *c)
{
    static const char *const names[] = {"healthy", "degraded", "unhealthy"};
    sf_reader_health h;
    struct json j;

    sf_reader_get_health(c->reader, -1, &h);
    json_begin(&j, stdout, c->format == CLI_TEXT ? CLI_JSONL : c->format);
    json_open(&j, NULL, '{');
    json_text(&j, "op", "health");
    json_text(&j, "status", names[h.status]);
    json_text(&j, "manifest_ref", c->info.manifest_ref);
    json_int(&j, "snapshot_age_seconds", h.snapshot_age_ms / 1000);
    json_uint(&j, "num_shards", h.num_dbs);
    json_bool(&j, "fallback", h.fallback);
    json_bool(&j, "is_closed", h.closed);
    json_close(&j, '}');
    json_end(&j);
    return (int)h.status;
}

int cmd_route(struct cli *c)
{
    sf_error err = SF_ERROR_INIT;
    struct json j;
    uint32_t db_id;
    sf_key key;

    if (c->argc != 2)
        return usage(c, "route KEY");
    if (!cli_parse_key(c, c->argv[1], &key))
        return 1;
    if (sf_snapshot_route(c->snap, &key, &db_id, &err) != SF_OK)
        return cli_fail(c, "route", c->argv[1], &err);
    if (c->format == CLI_TEXT) {
        printf("%s -> shard %u\n", c->argv[1], db_id);
        return 0;
    }
    json_begin(&j, stdout, c->format);
    json_open(&j, NULL, '{');
    json_text(&j, "op", "route");
    json_text(&j, "key", c->argv[1]);
    json_uint(&j, "db_id", db_id);
    json_close(&j, '}');
    json_end(&j);
    return 0;
}

/* scan [--prefix P] [--limit N]: rows in key order, keys and values in base64, one object a line. */
int cmd_scan(struct cli *c)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    sf_scan *scan = NULL;
    const sf_row *rows;
    size_t count;

    for (int i = 1; i < c->argc; i += 2) {
        if (i + 1 < c->argc && strcmp(c->argv[i], "--prefix") == 0) {
            o.has_prefix = true;
            o.prefix = (sf_bytes){(const uint8_t *)c->argv[i + 1], strlen(c->argv[i + 1])};
        } else if (i + 1 < c->argc && strcmp(c->argv[i], "--limit") == 0) {
            o.limit = strtoull(c->argv[i + 1], NULL, 10);
        } else {
            return usage(c, "scan [--prefix TEXT] [--limit N]");
        }
    }
    if (sf_scan_open(&scan, c->snap, &o, &err) != SF_OK)
        return cli_fail(c, "scan", NULL, &err);
    for (;;) {
        if (sf_scan_next(scan, 1000, c->timeout_ms, &rows, &count, &err) != SF_OK) {
            sf_scan_close(scan);
            return cli_fail(c, "scan", NULL, &err);
        }
        if (count == 0)
            break;
        for (size_t i = 0; i < count; i++) {
            struct json j;

            json_begin(&j, stdout, CLI_JSONL);
            json_open(&j, NULL, '{');
            json_bytes64(&j, "key", rows[i].key);
            json_bytes64(&j, "value", rows[i].value);
            json_close(&j, '}');
            json_end(&j);
        }
    }
    sf_scan_close(scan);
    return 0;
}
