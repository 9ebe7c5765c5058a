/* Command lines, by the table in table.c. */
#include "command.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* An option as it was met, before the command was known. */
struct token {
    const struct option_spec *option;
    const char *given; /* as it stands in the line */
    const char *value; /* of a flag "" */
};

struct tokens {
    struct token *p;
    size_t n;
};

int args_usage_error(const struct command_spec *command, const char *fmt, ...)
{
    struct text said = {0}, safe = {0};
    va_list args;
    char one[2048];

    va_start(args, fmt);
    vsnprintf(one, sizeof(one), fmt, args);
    va_end(args);
    text_puts(&said, one);
    text_escaped(&safe, text_str(&said), said.n);
    if (command)
        fprintf(stderr, "Usage: shardy %s [OPTIONS]%s%s\nTry 'shardy %s --help' for help.\n\nError: %s\n",
                command->name, *command->arguments ? " " : "", command->arguments, command->name, text_str(&safe));
    else
        fprintf(stderr, "Usage: shardy [OPTIONS] COMMAND [ARGS]...\nTry 'shardy --help' for help.\n\nError: %s\n",
                text_str(&safe));
    text_free(&said);
    text_free(&safe);
    return 2;
}

static enum option_id id_of(const struct option_spec *o)
{
    return (enum option_id)(o - cli_options);
}

/* ------------------------------------------------------------------ values ---------------------------------------- */

bool parse_uint(const char *text, uint64_t least, uint64_t most, uint64_t *out)
{
    char *end;
    unsigned long long v;

    if (*text < '0' || *text > '9') /* strtoull() takes blanks and signs */
        return false;
    errno = 0;
    v = strtoull(text, &end, 10);
    if (errno || *end || v < least || v > most)
        return false;
    *out = v;
    return true;
}

bool parse_seconds(const char *text, double *out)
{
    char *end;
    double v;

    if (text[strspn(text, "0123456789.eE+-")]) /* no "inf", "nan", "0x10", blanks */
        return false;
    v = strtod(text, &end);
    if (end == text || *end || !isfinite(v) || v < 0)
        return false;
    *out = v;
    return true;
}

bool parse_choice(const char *choices, const char *text, uint64_t *index)
{
    size_t length = strlen(text);

    *index = 0;
    for (const char *p = choices;; p++, (*index)++) {
        size_t n = strcspn(p, "|");

        if (n == length && strncasecmp(p, text, n) == 0)
            return true;
        p += n;
        if (!*p)
            return false;
    }
}

static int parse_duration(const struct command_spec *c, const struct option_spec *o, const char *text, uint64_t *seconds)
{
    size_t n = strlen(text);
    char unit = n > 0 ? text[n - 1] : '\0';
    char digits[24] = "";
    uint64_t v;

    if (n > 0 && n < sizeof(digits))
        memcpy(digits, text, n - 1);
    if (unit >= '0' && unit <= '9')
        return args_usage_error(c, "Invalid value for '--%s': '%s' has no unit (use 'd' or 'h', such as 7d or 24h).",
                                o->name, text);
    if (n > 0 && unit != 'd' && unit != 'h')
        return args_usage_error(c, "Unknown duration unit '%c' in '%s' (use 'd' or 'h')", unit, text);
    if (!parse_uint(digits, 0, 1000000, &v))
        return args_usage_error(c, "Invalid value for '--%s': '%s' is not a number of days or hours, such as 7d or 24h.",
                                o->name, text);
    *seconds = v * (unit == 'd' ? 86400 : 3600);
    return 0;
}

static int parse_value(struct args *a, const struct option_spec *o, const char *text)
{
    struct given *g = &a->opt[id_of(o)];
    const char *equals;

    g->text = text;
    switch (o->type) {
    case VALUE_FLAG:
    case VALUE_TEXT:
    case VALUE_FILE:
        return 0;
    case VALUE_PAIR:
        equals = strchr(text, '=');
        if (!equals || equals == text)
            return args_usage_error(a->command, "Invalid value for '--%s': '%s' is not %s.", o->name, text, o->metavar);
        return 0;
    case VALUE_UINT:
        if (parse_uint(text, o->least, o->most, &g->number))
            return 0;
        if (id_of(o) == OPT_OFFSET && *text == '-')
            return args_usage_error(a->command, "--offset must be >= 0");
        if (id_of(o) == OPT_KEEP_LAST && strcmp(text, "0") == 0)
            return args_usage_error(a->command, "--keep-last must be >= 1");
        return args_usage_error(a->command, "Invalid value for '--%s': '%s' is not a whole number from %llu to %llu.",
                                o->name, text, (unsigned long long)o->least, (unsigned long long)o->most);
    case VALUE_SECONDS:
        if (parse_seconds(text, &g->real) && g->real * 1000 >= (double)o->least)
            return 0;
        if (o->least > 0)
            return args_usage_error(a->command, "Invalid value for '--%s': '%s' is not a number of seconds from %g.",
                                    o->name, text, (double)o->least / 1000);
        return args_usage_error(a->command, "Invalid value for '--%s': '%s' is not a number of seconds.", o->name, text);
    case VALUE_DURATION:
        return parse_duration(a->command, o, text, &g->number);
    case VALUE_CHOICE:
        if (parse_choice(o->choices, text, &g->number))
            return 0;
        return args_usage_error(a->command, "Invalid value for '--%s': '%s' is not one of %s.", o->name, text,
                                o->choices);
    }
    return 0;
}

/* ------------------------------------------------------------------ options --------------------------------------- */

static const struct option_spec *find_option(const char *name, size_t n, char letter)
{
    for (size_t i = 0; i < OPT_COUNT; i++)
        if (letter ? cli_options[i].letter == letter
                   : strncmp(cli_options[i].name, name, n) == 0 && cli_options[i].name[n] == '\0')
            return &cli_options[i];
    return NULL;
}

static bool takes(const struct command_spec *c, enum option_id id)
{
    if (id < CLI_GLOBAL_COUNT)
        return true;
    for (const struct option_use *u = c ? c->options : NULL; u && u->id != OPT_COUNT; u++)
        if (u->id == id)
            return true;
    return false;
}

/* `n` bytes of `given`. */
static int no_such_option(const struct command_spec *c, const char *given, size_t n)
{
    char name[64];
    const char *best = NULL;
    size_t least = 4;

    snprintf(name, sizeof(name), "%.*s", (int)n, given);
    for (size_t i = 0; i < OPT_COUNT && strncmp(name, "--", 2) == 0; i++) {
        size_t d = takes(c, (enum option_id)i) ? text_distance(name + 2, cli_options[i].name) : least;

        if (d < least) {
            least = d;
            best = cli_options[i].name;
        }
    }
    if (best)
        return args_usage_error(c, "No such option: %s Did you mean --%s?", name, best);
    if (given[1] >= '0' && given[1] <= '9')
        return args_usage_error(c, "No such option: %s (a key that begins with - stands behind --)", name);
    return args_usage_error(c, "No such option: %s", name);
}

static int no_such_command(const char *given)
{
    const char *best = NULL;
    size_t least = 3;

    for (size_t i = 0; i < cli_command_count; i++) {
        size_t d = text_distance(given, cli_commands[i].name);

        if (d < least) {
            least = d;
            best = cli_commands[i].name;
        }
    }
    return best ? args_usage_error(NULL, "No such command '%s'. Did you mean '%s'?", given, best)
                : args_usage_error(NULL, "No such command '%s'.", given);
}

static void keep(struct tokens *t, const struct option_spec *o, const char *given, const char *value)
{
    t->p = cli_realloc(t->p, t->n + 1, sizeof(*t->p));
    t->p[t->n++] = (struct token){o, given, value};
}

/* "--name", "--name=value", "--name value"; *i moves to the last word that belongs to it. */
static int long_option(struct tokens *t, const struct command_spec *c, int argc, char **argv, int *i)
{
    const char *given = argv[*i];
    const char *name = argv[*i] + 2;
    size_t n = strcspn(name, "=");
    const struct option_spec *o = find_option(name, n, 0);

    if (!o)
        return no_such_option(c, argv[*i], n + 2);
    if (o->type == VALUE_FLAG && name[n])
        return args_usage_error(c, "Option '--%s' does not take a value.", o->name);
    if (o->type == VALUE_FLAG)
        keep(t, o, given, "");
    else if (name[n])
        keep(t, o, given, name + n + 1);
    else if (*i + 1 < argc)
        keep(t, o, given, argv[++*i]);
    else
        return args_usage_error(c, "Option '--%s' requires an argument.", o->name);
    return 0;
}

/* "-h", "-nq", "-ojson", "-o json" */
static int short_options(struct tokens *t, const struct command_spec *c, int argc, char **argv, int *i)
{
    const char *given = argv[*i];

    for (const char *p = given + 1; *p; p++) {
        const struct option_spec *o = find_option(NULL, 0, *p);

        if (!o)
            return no_such_option(c, given, strlen(given));
        if (o->type == VALUE_FLAG) {
            keep(t, o, given, "");
            continue;
        }
        if (p[1])
            keep(t, o, given, p + 1);
        else if (*i + 1 < argc)
            keep(t, o, given, argv[++*i]);
        else
            return args_usage_error(c, "Option '-%c' requires an argument.", *p);
        break;
    }
    return 0;
}

/* Cuts the line into options and words; the first word names the command unless it is known. */
static int split(struct args *a, struct tokens *t, int argc, char **argv)
{
    bool only_words = false;
    int rc;

    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];

        if (!only_words && strcmp(word, "--") == 0) {
            only_words = true;
        } else if (!only_words && word[0] == '-' && word[1]) {
            rc = word[1] == '-' ? long_option(t, a->command, argc, argv, &i)
                                : short_options(t, a->command, argc, argv, &i);
            if (rc != 0)
                return rc;
        } else if (!a->command) {
            a->command = cli_command_find(word);
            if (!a->command)
                return no_such_command(word);
        } else {
            a->words[a->word_count++] = word;
        }
    }
    return 0;
}

static int take_options(struct args *a, const struct tokens *t)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct option_spec *o = t->p[i].option;
        int rc;

        if (!takes(a->command, id_of(o)))
            return no_such_option(a->command, t->p[i].given, strcspn(t->p[i].given, "="));
        rc = parse_value(a, o, t->p[i].value);
        if (rc != 0)
            return rc;
        if (o->repeats) {
            a->pairs = cli_realloc(a->pairs, a->pair_count + 1, sizeof(*a->pairs));
            a->pairs[a->pair_count++] = (struct pair){id_of(o), t->p[i].value};
        }
    }
    return 0;
}

static int check_words(const struct args *a)
{
    const struct command_spec *c = a->command;

    if (!c)
        return 0;
    if (a->word_count < c->least)
        return args_usage_error(c, "Missing argument '%s'.", c->arguments);
    if (a->word_count > c->most)
        return args_usage_error(c, "Got unexpected extra argument (%s)", a->words[c->most]);
    return 0;
}

int args_parse(struct args *a, const struct command_spec *command, int argc, char **argv)
{
    struct tokens t = {0};
    int rc;

    *a = (struct args){.command = command, .words = cli_alloc((size_t)argc + 1, sizeof(*a->words))};
    rc = split(a, &t, argc, argv);
    if (rc == 0)
        rc = take_options(a, &t);
    if (rc == 0 && !args_has(a, OPT_HELP))
        rc = check_words(a);
    if (rc == 0 && args_has(a, OPT_REF) && args_has(a, OPT_OFFSET) && !takes(a->command, OPT_RUN_ID))
        rc = args_usage_error(a->command, "--ref and --offset are mutually exclusive");
    if (rc == 0 && args_has(a, OPT_CONFINE) && args_has(a, OPT_NO_CONFINE))
        rc = args_usage_error(a->command, "--confine and --no-confine are mutually exclusive");
    free(t.p);
    return rc;
}

void args_free(struct args *a)
{
    for (size_t i = 0; a->context && i < a->context->count; i++)
        free((void *)a->context->values[i].column);
    if (a->context)
        free((void *)a->context->values);
    free(a->context);
    free(a->pairs);
    free((void *)a->words);
    *a = (struct args){0};
}
