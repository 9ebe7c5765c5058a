/* A service over standard input: one integer key a line, one answer a line, as a socket server would give it. It follows the
 * pointer while it serves, asks with a deadline, and goes on when the store fails. Ends at the end of its input.
 *     service PREFIX < keys */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <shardyfusion/reader.h>

#define LOOKUP_MS 1000

/* Completions run on the library's loop thread: they note, start the next step, and leave. */
static void on_refreshed(void *ctx, sf_call *call);

static void on_due(void *ctx, sf_call *call)
{
    sf_reader *reader = ctx;
    sf_call *refresh;

    if (sf_call_error(call)->code == SF_OK && /* else: the reader was closed */
        sf_reader_refresh_start(&refresh, reader, 30000, on_refreshed, reader, NULL) == SF_OK)
        sf_call_release(refresh);
}

static void follow(sf_reader *reader)
{
    sf_call *due;

    if (sf_reader_due_start(&due, reader, on_due, reader, NULL) == SF_OK)
        sf_call_release(due);
}

static void on_refreshed(void *ctx, sf_call *call)
{
    const sf_error *e = sf_call_error(call);

    if (e->code != SF_OK && e->code != SF_STATE)
        fprintf(stderr, "refresh: %s\n", e->message); /* the snapshot before goes on serving */
    else if (sf_call_changed(call))
        fputs("refresh: a new snapshot\n", stderr);
    follow(ctx);
}

static void serve(sf_reader *reader, const char *line)
{
    sf_error err = SF_ERROR_INIT;
    sf_value value = {0};
    char *end;
    sf_key key;

    errno = 0;
    key = sf_key_int(strtoll(line, &end, 10));
    if (errno || end == line || (*end != '\n' && *end)) {
        puts("ERR not an integer");
        return;
    }
    if (sf_reader_get(reader, &key, LOOKUP_MS, &value, &err) != SF_OK)
        printf("ERR %s: %s\n", sf_status_name(err.code), err.message);
    else if (!value.found)
        puts("ABSENT");
    else
        printf("OK %zu bytes\n", value.bytes.n);
    sf_value_release(&value);
}

int main(int argc, char **argv)
{
    sf_error err = SF_ERROR_INIT;
    sf_runtime *rt = NULL;
    sf_reader *reader = NULL;
    sf_reader_options options = SF_READER_OPTIONS_INIT;
    sf_reader_health health;
    char line[64];

    if (argc != 2) {
        fprintf(stderr, "usage: service PREFIX\n");
        return 2;
    }
    options.refresh_interval_ms = 10000;
    if (sf_runtime_new(&rt, NULL, &err) != SF_OK || sf_reader_open(&reader, rt, argv[1], &options, &err) != SF_OK) {
        fprintf(stderr, "%s\n", err.message);
        sf_runtime_release(rt);
        return 1;
    }
    follow(reader);
    while (fgets(line, sizeof(line), stdin))
        serve(reader, line);
    sf_reader_get_health(reader, -1, SF_STALENESS_OF_READER, &health);
    fprintf(stderr, "served from %" PRIu32 " shards\n", health.num_dbs);
    sf_reader_close(reader); /* ends on_due() with SF_STATE */
    sf_runtime_cancel_all(rt);
    sf_reader_free(reader);
    sf_runtime_release(rt); /* after this no completion runs any more */
    return ferror(stdin) || fflush(stdout) != 0;
}
