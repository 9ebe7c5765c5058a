/* Publish a snapshot, then read it back.
 *     publish_snapshot PREFIX COUNT         COUNT generated rows: key i, value "value of i"
 *     publish_snapshot PREFIX -             lines "key value" from standard input; keys are texts
 * PREFIX is s3://bucket/path, file:///path or mem://name/path. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shardyfusion/writer.h>

#define SHARDS 4

static sf_status add_generated(sf_writer *w, int64_t count, sf_error *err)
{
    sf_status rc = SF_OK;

    for (int64_t i = 0; i < count && rc == SF_OK; i++) {
        sf_key key = sf_key_int(i);
        char value[64];
        int n = snprintf(value, sizeof(value), "value of %" PRId64, i);

        rc = sf_writer_add(w, &key, (sf_bytes){(const uint8_t *)value, (size_t)n}, err);
    }
    return rc;
}

static sf_status add_lines(sf_writer *w, FILE *in, char *last_key, size_t room, sf_error *err)
{
    char line[4096];
    sf_status rc = SF_OK;

    while (rc == SF_OK && fgets(line, sizeof(line), in)) {
        size_t key_len = strcspn(line, " \n"), value_at = key_len + (line[key_len] == ' ');
        sf_key key = sf_key_str(line, key_len);

        if (key_len == 0)
            continue;
        rc = sf_writer_add(w, &key, (sf_bytes){(const uint8_t *)line + value_at, strcspn(line + value_at, "\n")}, err);
        snprintf(last_key, room, "%.*s", (int)key_len, line);
    }
    return rc;
}

static void print_report(const sf_write_report *r)
{
    printf("run %s: %" PRIu64 " rows, %" PRIu64 " bytes in %zu of %u shards\n", r->run_id, r->published_rows,
           r->published_bytes, r->winner_count, r->num_dbs);
    printf("fullest shard: %.2f times the mean; %" PRIu64 " rows were overwritten\n", r->largest_over_mean,
           r->duplicates);
    if (r->warning)
        printf("warning: %s\n", r->warning);
}

static sf_status publish(sf_runtime *rt, const char *prefix, const char *source, char *last_key, size_t room,
                         sf_error *err)
{
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    bool from_lines = strcmp(source, "-") == 0;
    sf_writer *w;
    sf_status rc;

    o.num_dbs = SHARDS;
    o.key_encoding = from_lines ? SF_KEY_UTF8 : SF_KEY_U64BE;
    o.sample_keys = 20; /* must read back before anybody sees the snapshot */
    rc = sf_writer_open(&w, rt, prefix, &o, err);
    if (rc != SF_OK)
        return rc;
    rc = from_lines ? add_lines(w, stdin, last_key, room, err) : add_generated(w, strtoll(source, NULL, 10), err);
    if (rc == SF_OK)
        rc = sf_writer_finish(w, err);
    if (rc == SF_OK)
        print_report(sf_writer_report(w));
    else
        sf_writer_abort(w, sf_status_name(rc), err->message);
    sf_writer_free(w);
    return rc;
}

static sf_status read_back(sf_runtime *rt, const char *prefix, const sf_key *key, sf_error *err)
{
    sf_value value = {0};
    sf_reader *reader;
    sf_status rc = sf_reader_open(&reader, rt, prefix, NULL, err);

    if (rc != SF_OK)
        return rc;
    rc = sf_reader_get(reader, key, 5000, &value, err);
    if (rc == SF_OK && value.found)
        printf("the last key reads back: %.*s\n", (int)value.bytes.n, (const char *)value.bytes.p);
    else if (rc == SF_OK)
        puts("the last key is absent");
    if (rc == SF_OK && !value.found)
        rc = SF_NOT_FOUND;
    sf_value_release(&value);
    sf_reader_free(reader);
    return rc;
}

int main(int argc, char **argv)
{
    sf_error err = SF_ERROR_INIT;
    char last_key[4096] = "";
    sf_runtime *rt = NULL;
    sf_status rc;

    if (argc != 3) {
        fprintf(stderr, "usage: %s PREFIX COUNT|-\n", argv[0]);
        return 2;
    }
    rc = sf_runtime_new(&rt, NULL, &err);
    if (rc == SF_OK)
        rc = publish(rt, argv[1], argv[2], last_key, sizeof(last_key), &err);
    if (rc == SF_OK) {
        sf_key key = last_key[0] ? sf_key_str(last_key, strlen(last_key)) : sf_key_int(strtoll(argv[2], NULL, 10) - 1);

        rc = read_back(rt, argv[1], &key, &err);
    }
    if (rc != SF_OK)
        fprintf(stderr, "%s: %s\n", sf_status_name(rc), err.message);
    sf_runtime_release(rt);
    return rc == SF_OK ? 0 : 1;
}
