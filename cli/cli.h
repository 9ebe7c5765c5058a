/* What the subcommands share. One thread. */
#ifndef SHARDY_CLI_H
#define SHARDY_CLI_H

#include <stdio.h>

#include "shardyfusion/reader.h"

enum cli_format { CLI_JSON, CLI_JSONL, CLI_TEXT };

struct cli {
    sf_runtime *rt;
    sf_reader *reader;
    sf_snapshot *snap; /* pinned for the command */
    sf_snapshot_info info;
    enum cli_format format;
    int argc;          /* of the subcommand; argv[0] is its name */
    char **argv;
    int64_t timeout_ms;
};

/* Exit statuses: 0 done, 1 failed, 2 usage. */
int cmd_get(struct cli *c);
int cmd_multiget(struct cli *c);
int cmd_info(struct cli *c);
int cmd_shards(struct cli *c);
int cmd_health(struct cli *c);
int cmd_route(struct cli *c);
int cmd_scan(struct cli *c);

/* A key of the command line as the snapshot's encoding wants it; false with a message on stderr. */
bool cli_parse_key(const struct cli *c, const char *text, sf_key *key);
/* `op` failed: one result object on stderr. Returns 1. */
int cli_fail(const struct cli *c, const char *op, const char *key, const sf_error *err);

/* Output: one object a result. Members are written in the order of the calls. */
struct json {
    FILE *to;
    enum cli_format format;
    int depth;
    bool first;
};
void json_begin(struct json *j, FILE *to, enum cli_format format);
void json_open(struct json *j, const char *name, char bracket); /* '{' or '['; name NULL inside an array */
void json_close(struct json *j, char bracket);
void json_text(struct json *j, const char *name, const char *text);       /* NULL is null */
void json_bytes64(struct json *j, const char *name, sf_bytes b);          /* base64 */
void json_print(FILE *to, const char *json_or_null); /* as a terminal may have it */
void json_raw(struct json *j, const char *name, const char *json_or_null); /* a JSON text; NULL is null */
void json_int(struct json *j, const char *name, int64_t v);
void json_uint(struct json *j, const char *name, uint64_t v);
void json_bool(struct json *j, const char *name, bool v);
void json_end(struct json *j);

#endif
