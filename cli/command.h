/* The table of commands and options. Parsing, help, the man page, the completions and docs/cli.md are made of
 * it. One thread. */
#ifndef SHARDY_COMMAND_H
#define SHARDY_COMMAND_H

#include "text.h"

struct cli;

enum value_type {
    VALUE_FLAG, /* no argument */
    VALUE_TEXT,
    VALUE_FILE,     /* a path; completions know */
    VALUE_PAIR,     /* KEY=VALUE */
    VALUE_UINT,     /* `least` to `most` */
    VALUE_SECONDS,  /* any number from 0, or from `least` thousandths of one */
    VALUE_DURATION, /* 7d or 24h */
    VALUE_CHOICE    /* one of `choices`, in any case */
};

enum option_id {
    /* of every command */
    OPT_CURRENT_URL,
    OPT_CONFIG,
    OPT_CREDENTIALS,
    OPT_S3_OPTION,
    OPT_OUTPUT_FORMAT,
    OPT_VALUE_ENCODING,
    OPT_COLOR,
    OPT_REF,
    OPT_OFFSET,
    OPT_SQLITE_MODE,
    OPT_SQLITE_SHARD_BYTES,
    OPT_SQLITE_TOTAL_BYTES,
    OPT_TIMEOUT,
    OPT_RELOCATE,
    OPT_CONFINE,
    OPT_NO_CONFINE,
    OPT_NO_WARN,
    OPT_VERSION,
    OPT_GENERATE,
    OPT_HELP,
    /* of some */
    OPT_ROUTING_CONTEXT,
    OPT_STRICT,
    OPT_EXIT_CODE,
    OPT_RAW,
    OPT_STALENESS,
    OPT_REMOTE,
    OPT_LIMIT,
    OPT_LATEST,
    OPT_PREFIX,
    OPT_FROM,
    OPT_TO,
    OPT_REVERSE,
    OPT_SHARD,
    OPT_DEEP,
    OPT_KEYS,
    OPT_JOBS,
    OPT_INTERVAL,
    OPT_CHANGES,
    OPT_SCRIPT,
    OPT_OUTPUT,
    OPT_RUN_ID,
    OPT_FORCE,
    OPT_YES,
    OPT_DRY_RUN,
    OPT_OLD_RUNS,
    OPT_OLDER_THAN,
    OPT_KEEP_LAST,
    OPT_MAX_RETRIES,
    OPT_KEY,
    OPT_VALUE,
    OPT_VALUES,
    OPT_INPUT_FORMAT,
    OPT_NUM_DBS,
    OPT_KEY_ENCODING,
    OPT_BACKEND,
    OPT_COMPRESSION,
    OPT_BLOCK_BYTES,
    OPT_BITS_PER_KEY,
    OPT_ON_DUPLICATE,
    OPT_ON_BAD_ROW,
    OPT_REJECTS,
    OPT_MEMORY_BYTES,
    OPT_SPILL_FOLDER,
    OPT_MIN_ROWS_PERCENT,
    OPT_MAX_ROWS_PERCENT,
    OPT_SAMPLE_KEYS,
    OPT_EXPECT,
    OPT_KEY_FORMAT,
    OPT_CEL,
    OPT_CEL_COLUMN,
    OPT_CEL_MODE,
    OPT_CEL_VALUE,
    OPT_CUSTOM,
    OPT_PAGE_BYTES,
    OPT_NO_SIDECAR,
    OPT_MIN_FILTER_KEYS,
    OPT_SST_BYTES,
    OPT_INT64_KEYS,
    OPT_MAX_EMPTY_SHARDS,
    OPT_RETRY_SECONDS,
    OPT_RETRY_MULTIPLIER,
    OPT_KEEP_LOSERS,
    OPT_RESUME,
    OPT_REUSE_UNCHANGED,
    OPT_RUN_REGISTRY,
    OPT_NO_RUN_RECORD,
    OPT_LEASE_SECONDS,
    OPT_HEARTBEAT_SECONDS,
    OPT_SHARD_PREFIX,
    OPT_DB_PATH_TEMPLATE,
    OPT_WRITE,
    OPT_POLICY,
    OPT_HTML,
    OPT_S3_PREFIX,
    OPT_COUNT
};
/* Options that every command takes are those up to OPT_HELP. */
#define CLI_GLOBAL_COUNT (OPT_HELP + 1)

struct option_spec {
    const char *name;
    char letter; /* 0: none */
    enum value_type type;
    const char *metavar;
    uint64_t least, most; /* VALUE_UINT; `least` of VALUE_SECONDS is in ms */
    const char *choices;  /* VALUE_CHOICE: "a|b|c" */
    bool repeats;
    const char *help;
};
extern const struct option_spec cli_options[OPT_COUNT]; /* by id */

/* An option of a command; `help` NULL: as in the table above. */
struct option_use {
    enum option_id id;
    const char *help;
};

struct example {
    const char *command; /* "shardy get 42" */
    const char *output;  /* of it over tests/fixtures/snapshots/history-three-runs; NULL: none is shown */
};

#define COMMAND_EXAMPLES_MAX 4

struct command_spec {
    const char *name;
    const char *summary;              /* one line */
    const char *arguments;            /* of the usage line: "KEY", "KEYS...|-" or "" */
    size_t least, most;               /* words */
    int (*run)(struct cli *c);        /* the exit status */
    const struct option_use *options; /* ended by one with OPT_COUNT */
    const char *description;          /* paragraphs */
    const char *exits;                /* "0 the key was found or missing; 1 ..." */
    struct example examples[COMMAND_EXAMPLES_MAX];
};
extern const struct command_spec cli_commands[];
extern const size_t cli_command_count;

extern const struct command_spec cli_session_commands[]; /* of the interactive mode, beside the others */
extern const size_t cli_session_command_count;

const struct command_spec *cli_command_find(const char *name);         /* NULL: none */
const struct command_spec *cli_session_command_find(const char *name); /* of the interactive mode */

/* What concerns all commands; paragraphs end in a line end. */
struct section {
    const char *title, *text;
};
extern const struct section cli_sections[];
extern const size_t cli_section_count;

/* ------------------------------------------------------------------ parsed arguments ------------------------------ */

struct given {
    const char *text; /* NULL: not given; of a flag "" */
    uint64_t number;  /* VALUE_UINT; VALUE_CHOICE: index; VALUE_DURATION: seconds */
    double real;      /* VALUE_SECONDS */
};

struct pair {
    enum option_id id;
    const char *text;
};

/* Texts are borrowed from argv. */
struct args {
    const struct command_spec *command; /* NULL: none was named */
    struct given opt[OPT_COUNT];
    struct pair *pairs; /* of options that repeat, in order */
    size_t pair_count;
    struct sf_routing_context *context; /* of --routing-context, once a key was parsed; NULL: none */
    const char **words;                 /* behind the command's name */
    size_t word_count;
};

static inline bool args_has(const struct args *a, enum option_id id)
{
    return a->opt[id].text != NULL;
}

/* Options stand anywhere before "--". `command` not NULL: argv has what stands behind its name. 0, or 2 with
 * a message on standard error. --help is not missing anything. Release with args_free() in any case. */
int args_parse(struct args *a, const struct command_spec *command, int argc, char **argv);
void args_free(struct args *a);
/* "Usage: ..., Try ..., Error: TEXT" on standard error; 2. */
int args_usage_error(const struct command_spec *command, const char *fmt, ...) SF_PRINTF(2, 3);

/* A decimal number from `least` to `most` and nothing else. */
bool parse_uint(const char *text, uint64_t least, uint64_t most, uint64_t *out);
/* One of "a|b|c", in any case; its number. */
bool parse_choice(const char *choices, const char *text, uint64_t *index);
/* A number of seconds from 0; not infinite. */
bool parse_seconds(const char *text, double *out);

/* ------------------------------------------------------------------ help, man page, completions ------------------- */

void help_print(FILE *to, const struct command_spec *command); /* NULL: of the whole */
void help_print_summary(FILE *to, const struct command_spec *command);
void help_generate(FILE *to, size_t kind); /* as --generate's choices */

#endif
