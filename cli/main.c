/* shardy: look into a published snapshot. Over the public headers only. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli.h"

static const struct {
    const char *name;
    int (*run)(struct cli *c);
    const char *help;
} commands[] = {
    {"get", cmd_get, "KEY [--strict]           one key"},
    {"multiget", cmd_multiget, "KEY...              several keys"},
    {"info", cmd_info, "                        the snapshot"},
    {"shards", cmd_shards, "                      its shards"},
    {"health", cmd_health, "                      0 healthy, 1 degraded, 2 unhealthy"},
    {"route", cmd_route, "KEY                    the shard of a key"},
    {"scan", cmd_scan, "[--prefix P] [--limit N]  rows in key order"},
};

static void help(FILE *to)
{
    fputs("Usage: shardy [OPTIONS] COMMAND [ARGS]...\n\n"
          "  --current-url URL       the pointer, such as s3://bucket/prefix/_CURRENT (or SHARDY_CURRENT)\n"
          "  --output-format FORMAT  json, jsonl (default) or text\n"
          "  --timeout SECONDS       for each operation (default 60)\n"
          "  --relocate              resolve locations below the given prefix (a mirror)\n"
          "  --confine               refuse what lies outside of the prefix; --no-confine: read it all the same\n"
          "  --version, -h, --help\n\nCommands:\n",
          to);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        fprintf(to, "  %s %s\n", commands[i].name, commands[i].help);
}

static int usage_error(const char *text, const char *what)
{
    fprintf(stderr, "Usage: shardy [OPTIONS] COMMAND [ARGS]...\nTry 'shardy --help' for help.\n\nError: %s%s\n", text,
            what);
    return 2;
}

/* Splits "prefix/_CURRENT" in place. */
static bool split_pointer(char *url, const char **name)
{
    char *slash = strrchr(url, '/');

    if (!slash || slash == url || slash[-1] == '/' || !slash[1])
        return false;
    *slash = '\0';
    *name = slash + 1;
    return true;
}

static int run(struct cli *c, char *url, sf_reader_options *opts, int (*command)(struct cli *))
{
    sf_error err = SF_ERROR_INIT;
    int rc = 1;

    if (sf_runtime_new(&c->rt, NULL, &err) == SF_OK &&
        sf_reader_open(&c->reader, c->rt, url, opts, &err) == SF_OK)
        c->snap = sf_reader_borrow(c->reader, &err);
    if (c->snap) {
        sf_snapshot_get_info(c->snap, &c->info);
        rc = command(c);
    } else {
        fprintf(stderr, "Error: Failed to initialise reader: %s\n", err.message);
    }
    sf_snapshot_give_back(c->snap);
    sf_reader_free(c->reader);
    sf_runtime_release(c->rt);
    return rc;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"current-url", required_argument, NULL, 'u'}, {"output-format", required_argument, NULL, 'o'},
        {"timeout", required_argument, NULL, 't'},     {"relocate", no_argument, NULL, 'r'},
        {"confine", no_argument, NULL, 'c'},           {"no-confine", no_argument, NULL, 'n'},
        {"version", no_argument, NULL, 'v'},           {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    sf_reader_options opts = SF_READER_OPTIONS_INIT;
    struct cli c = {.format = CLI_JSONL, .timeout_ms = 60000};
    const char *given = getenv("SHARDY_CURRENT");
    char *url;
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
        switch (opt) {
        case 'u':
            given = optarg;
            break;
        case 'o':
            if (strcasecmp(optarg, "json") == 0)
                c.format = CLI_JSON;
            else if (strcasecmp(optarg, "jsonl") == 0)
                c.format = CLI_JSONL;
            else if (strcasecmp(optarg, "text") == 0)
                c.format = CLI_TEXT;
            else
                return usage_error("unknown output format: ", optarg);
            break;
        case 't':
            c.timeout_ms = (int64_t)(strtod(optarg, NULL) * 1000);
            opts.open_timeout_ms = c.timeout_ms;
            break;
        case 'r':
            opts.relocate = true;
            break;
        case 'c':
            opts.confine = SF_CONFINE_YES;
            break;
        case 'n':
            opts.confine = SF_CONFINE_NO;
            break;
        case 'v':
            puts("shardy, version " SF_VERSION);
            return 0;
        case 'h':
            help(stdout);
            return 0;
        default:
            return 2;
        }
    }
    if (optind >= argc)
        return usage_error("Missing command.", "");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(commands[i].name, argv[optind]) != 0)
            continue;
        if (!given || !*given) {
            fputs("Error: CURRENT URL is required. Provide it via --current-url, set SHARDY_CURRENT env var, or set "
                  "current_url in reader.toml.\n",
                  stderr);
            return 1;
        }
        url = strdup(given);
        if (!url || !split_pointer(url, &opts.current_name)) {
            fprintf(stderr, "Error: Failed to initialise reader: not a pointer URL: %s\n", given);
            free(url);
            return 1;
        }
        c.argc = argc - optind;
        c.argv = argv + optind;
        rc = run(&c, url, &opts, commands[i].run);
        free(url);
        if ((fflush(stdout) != 0 || ferror(stdout)) && rc == 0) { /* a full disk, a closed stream */
            fputs("Error: Standard output could not be written\n", stderr);
            rc = 1;
        }
        return rc;
    }
    return usage_error("No such command: ", argv[optind]);
}
