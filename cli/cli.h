/* One invocation: its arguments, its settings, and the snapshot that it looks at. One thread. */
#ifndef SHARDY_CLI_H
#define SHARDY_CLI_H

#include "command.h"
#include "out.h"
#include "settings.h"
#include "shardyfusion/postgres.h"
#include "shardyfusion/writer.h"

struct cli {
    const struct args *line; /* of the invocation: its options hold for all commands of a script or a session */
    struct args args;        /* of the command that runs */
    struct settings settings;
    struct out out;              /* results */
    struct out err;              /* failures of commands; a script's go to its output */
    sf_runtime *rt;              /* NULL until something needs it */
    char *prefix, *current_name; /* NULL until the pointer was looked for; of PostgreSQL, a name for messages */
    sf_postgres *postgres;       /* where pointer and manifests are; NULL: below the prefix */
    sf_manifest_source source;   /* of it */
    sf_manifest_store store;     /* of it, for what publishes or deletes */
    sf_reader *reader;           /* NULL until session_open(); opens shards as they are read */
    sf_snapshot *snap;           /* pinned */
    sf_snapshot_info info;       /* of `snap` */
    char *rejected_ref;          /* what the pointer names and could not be read: an older manifest is served; else
                                    NULL */
    char *pinned_ref;            /* --ref, --offset, `use`; NULL: what the pointer names */
};

/* The commands; each returns the exit status. */
int cmd_get(struct cli *c);
int cmd_multiget(struct cli *c);
int cmd_info(struct cli *c);
int cmd_shards(struct cli *c);
int cmd_health(struct cli *c);
int cmd_route(struct cli *c);
int cmd_history(struct cli *c);
int cmd_scan(struct cli *c);
int cmd_verify(struct cli *c);
int cmd_diff(struct cli *c);
int cmd_du(struct cli *c);
int cmd_stats(struct cli *c);
int cmd_watch(struct cli *c);
int cmd_exec(struct cli *c);
int cmd_refresh(struct cli *c); /* of a session: */
int cmd_use(struct cli *c);
int cmd_help(struct cli *c);
int cmd_quit(struct cli *c);
int cmd_rollback(struct cli *c);
int cmd_cleanup(struct cli *c);
int cmd_publish(struct cli *c);
int cmd_explain(struct cli *c);
int cmd_doctor(struct cli *c);

/* ------------------------------------------------------------------ session.c ------------------------------------- */

/* False with a message: there is a pointer to look at, and a runtime. */
bool session_start(struct cli *c);
/* False with a message: the pointer's place is in `prefix` and `current_name`; nothing of the snapshot is
 * read. */
bool session_locate(struct cli *c);
/* False with a message: pointer and manifest are read (once), and no shard. */
bool session_open(struct cli *c);
/* The same where that works, and silently nothing where it does not; `prefix` is known. */
void session_peek(struct cli *c);
/* Looks at `ref` (taken over) from now on, NULL: at what the pointer names. When that fails, `err` says why and all stays as it was. */
sf_status session_switch(struct cli *c, char *ref, sf_error *err);
/* Drops the snapshot, so that the next session_open() reads anew. */
void session_close(struct cli *c);
void session_end(struct cli *c); /* everything */
/* Fills them in; the texts are the session's. */
sf_reader_options session_reader_options(const struct cli *c);
sf_site_options session_site_options(const struct cli *c);
/* session_locate(), and below which prefix shards and run records lie, also where the manifests are in PostgreSQL. NULL with the failure
 * of `op` said. Borrowed. */
const char *session_prefix(struct cli *c, const char *op);

/* What was published; `entries` newest first. */
struct publications {
    const sf_history_entry *entries;
    size_t count;
    sf_history *history;    /* below a prefix */
    sf_history_entry *rows; /* of PostgreSQL */
};
/* The newest `limit`. `p` is released with session_history_free() in any case. */
sf_status session_history(struct cli *c, size_t limit, struct publications *p, sf_error *err);
void session_history_free(struct publications *p);
/* The ref of the manifest number `offset` of the history, to be freed; NULL with a message. */
char *session_ref_at(struct cli *c, uint64_t offset);

/* ------------------------------------------------------------------ policy.c --------------------------------------- */

/* The least that IAM has to allow: for reading, publishing or cleaning up (as --policy's choices). Looks at no storage. */
int policy_print(struct cli *c, const char *url, uint64_t purpose);

/* ------------------------------------------------------------------ interrupt.c ------------------------------------ */

/* Ctrl-C from now on: the line is given up at the prompt, else the command that runs ends. `rt` stays until
 * interrupts_end(). False: there is no thread for it, and all is as it was. */
bool interrupts_begin(sf_runtime *rt);
void interrupts_end(void);
char *interrupts_read_line(char *(*read_line)(const char *prompt), const char *prompt);
void interrupts_command_begins(void);
bool interrupts_command_ends(void); /* whether it was interrupted */
/* The command that runs was: it is to end, and need not say why. */
bool interrupted(void);

/* ------------------------------------------------------------------ shell.c ---------------------------------------- */

/* Reads commands from standard input until it ends; with line editing on a terminal. */
int shell_run(struct cli *c);

/* ------------------------------------------------------------------ of all commands -------------------------------- */

/* Runs one command within the session; argv[0] is its name. */
int cli_run_inner(struct cli *c, const struct command_spec *command, int argc, char **argv);
/* A key of the command line as the snapshot's encoding wants it, with --routing-context; false with the command's failure said. */
bool cli_parse_key(struct cli *c, const char *op, const char *text, sf_key *key);
/* A value of that type ("string", "bytes", "int", "uint", "double", "bool"); false when the text is none. Borrows from it. */
bool cli_parse_routing_value(const char *type, const char *text, sf_routing_value *v);
/* A stored key as people read it. */
struct cell cli_key_cell(const struct cli *c, sf_bytes key);
/* `op` failed: one result on c->err. Returns 1. `key` may be NULL. */
int cli_fail(struct cli *c, const char *op, const char *key, const char *fmt, ...) SF_PRINTF(4, 5);
/* The same, of a failure of the library's. */
int cli_fail_with(struct cli *c, const char *op, const char *key, const sf_error *e);
/* "Error: ..." on standard error, escaped; 1. */
int cli_error(const char *fmt, ...) SF_PRINTF(1, 2);
/* "Warning: ..." on standard error, unless there are to be none. */
void cli_warn(const struct cli *c, const char *fmt, ...) SF_PRINTF(2, 3);

#endif
