/* The interactive mode: one session, many commands. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <editline/readline.h>

#define HISTORY_LINES 1000

static bool ended;

/* ------------------------------------------------------------------ commands -------------------------------------- */

/* What holds for the whole session cannot be told with a command of it. */
static int check_inner(const struct args *a)
{
    static const enum option_id taken[] = {OPT_OUTPUT_FORMAT, OPT_VALUE_ENCODING, OPT_REF, OPT_OFFSET, OPT_HELP};
    bool takes_ref = a->command->run == cmd_use || a->command->run == cmd_rollback || a->command->run == cmd_cleanup;

    for (size_t i = 0; i < CLI_GLOBAL_COUNT; i++) {
        bool known = false;

        for (size_t j = 0; j < sizeof(taken) / sizeof(taken[0]); j++)
            known |= taken[j] == i;
        if (args_has(a, (enum option_id)i) && (!known || ((i == OPT_REF || i == OPT_OFFSET) && !takes_ref)))
            return args_usage_error(a->command, "--%s holds for the whole session: give it when it begins%s",
                                    cli_options[i].name, i == OPT_REF || i == OPT_OFFSET ? ", or with 'use'" : "");
    }
    return 0;
}

int cli_run_inner(struct cli *c, const struct command_spec *command, int argc, char **argv)
{
    struct args outer = c->args;
    struct out out = c->out, err = c->err;
    int rc;

    c->out.width = out_terminal_width(c->out.to); /* windows change */
    c->err.width = out_terminal_width(c->err.to);
    rc = args_parse(&c->args, command, argc - 1, argv + 1);

    if (rc == 0)
        rc = check_inner(&c->args);
    if (rc == 0 && args_has(&c->args, OPT_OUTPUT_FORMAT))
        c->out.format = c->err.format = (enum out_format)c->args.opt[OPT_OUTPUT_FORMAT].number;
    if (rc == 0 && args_has(&c->args, OPT_VALUE_ENCODING)) {
        c->out.has_encoding = true;
        c->out.encoding = (enum out_encoding)c->args.opt[OPT_VALUE_ENCODING].number;
    }
    if (rc == 0 && args_has(&c->args, OPT_HELP))
        help_print(c->out.to, command);
    else if (rc == 0)
        rc = command->run(c);
    args_free(&c->args);
    c->args = outer;
    c->out = out;
    c->err = err;
    return rc;
}

static void refresh_line(struct text *t, const struct out *o, const struct cell *cells)
{
    (void)o;
    text_printf(t, "changed=%s\n", cells[0].number ? "True" : "False");
}

int cmd_refresh(struct cli *c)
{
    static const struct column columns[] = {{"changed"}};
    char *before = cli_strdup(c->info.manifest_ref);
    sf_error e = SF_ERROR_INIT;
    struct cell changed = {.kind = CELL_BOOL};
    int rc = 0;

    if (session_switch(c, NULL, &e) == SF_OK) {
        changed.number = strcmp(before, c->info.manifest_ref) != 0;
        out_record(&c->out, "refresh", columns, 1, &changed, refresh_line);
    } else {
        rc = cli_fail_with(c, "refresh", NULL, &e);
    }
    free(before);
    return rc;
}

int cmd_use(struct cli *c)
{
    const struct args *a = &c->args;
    sf_error e = SF_ERROR_INIT;
    struct text t = {0};
    char *ref = NULL;

    if (args_has(a, OPT_REF) + args_has(a, OPT_OFFSET) + args_has(a, OPT_LATEST) != 1)
        return args_usage_error(a->command, "Exactly one of --offset, --ref, or --latest is required");
    if (args_has(a, OPT_REF))
        ref = cli_strdup(a->opt[OPT_REF].text);
    else if (args_has(a, OPT_OFFSET) && !(ref = session_ref_at(c, a->opt[OPT_OFFSET].number)))
        return 1;
    if (session_switch(c, ref, &e) != SF_OK)
        return cli_fail_with(c, "use", NULL, &e);
    text_printf(&t, "Switched to %smanifest run_id=", args_has(a, OPT_LATEST) ? "latest " : "");
    text_escaped(&t, c->info.run_id, strlen(c->info.run_id));
    if (!args_has(a, OPT_LATEST)) {
        text_puts(&t, " (");
        text_time(&t, c->info.created_at_us);
        text_putc(&t, ')');
    }
    text_putc(&t, '\n');
    out_write(&c->out, &t);
    text_free(&t);
    return 0;
}

/* The commands of a session by their number; NULL behind the last one. */
static const struct command_spec *nth_command(size_t i)
{
    return i < cli_command_count                               ? &cli_commands[i]
           : i < cli_command_count + cli_session_command_count ? &cli_session_commands[i - cli_command_count]
                                                               : NULL;
}

int cmd_help(struct cli *c)
{
    const struct command_spec *s = c->args.word_count > 0 ? cli_session_command_find(c->args.words[0]) : NULL;

    if (c->args.word_count > 0 && !s)
        return args_usage_error(c->args.command, "No such command '%s'.", c->args.words[0]);
    if (s) {
        help_print(c->out.to, s);
        return 0;
    }
    for (size_t i = 0; nth_command(i); i++)
        if (cli_session_command_find(nth_command(i)->name))
            help_print_summary(c->out.to, nth_command(i));
    return 0;
}

int cmd_quit(struct cli *c)
{
    (void)c;
    ended = true;
    return 0;
}

/* ------------------------------------------------------------------ lines ----------------------------------------- */

/* The words of a line, as a shell cuts them: quotes of both kinds, backslashes. NULL: a quote is open. Freed
 * with the words. */
static char **split_line(const char *line, size_t *count)
{
    char **words = cli_alloc(strlen(line) / 2 + 3, sizeof(*words));
    struct text word = {0};
    bool in_word = false;
    char quote = '\0';

    *count = 0;
    for (const char *p = line;; p++) {
        if (!*p || (!quote && strchr(" \t\r\n", *p))) {
            if (in_word) {
                words[(*count)++] = cli_strdup(text_str(&word));
                word.n = 0;
                if (word.p)
                    word.p[0] = '\0';
            }
            in_word = false;
            if (!*p)
                break;
        } else if (quote && *p == quote) {
            quote = '\0';
        } else if (!quote && (*p == '\'' || *p == '"')) {
            quote = *p;
            in_word = true;
        } else {
            if (*p == '\\' && p[1] && quote != '\'')
                p++;
            text_putc(&word, *p);
            in_word = true;
        }
    }
    text_free(&word);
    if (!quote)
        return words;
    for (size_t i = 0; i < *count; i++)
        free(words[i]);
    free(words);
    return NULL;
}

/* "health 60" and "history 5" are short for their options. */
static void expand(char ***words, size_t *count)
{
    const char *option = strcmp((*words)[0], "health") == 0    ? "--staleness-threshold"
                         : strcmp((*words)[0], "history") == 0 ? "--limit"
                                                               : NULL;

    if (!option || *count != 2 || (*words)[1][0] == '-')
        return;
    *words = cli_realloc(*words, 3, sizeof(**words));
    (*words)[2] = (*words)[1];
    (*words)[1] = cli_strdup(option);
    *count = 3;
}

static void run_line(struct cli *c, const char *line)
{
    size_t count;
    char **words = split_line(line, &count);
    const struct command_spec *s;
    struct text t = {0};

    if (words && count == 0) {
        free(words);
        return;
    }
    s = words ? cli_session_command_find(words[0]) : NULL;
    if (s) {
        expand(&words, &count);
        cli_run_inner(c, s, (int)count, words);
    } else {
        text_puts(&t, "*** Unknown syntax: ");
        text_escaped(&t, line, strlen(line));
        text_putc(&t, '\n');
        out_write(&c->out, &t);
        text_free(&t);
    }
    for (size_t i = 0; words && i < count; i++)
        free(words[i]);
    free(words);
}

/* ------------------------------------------------------------------ terminal -------------------------------------- */

/* Names of commands at the line's begin, of the command's options behind -. */
static char *next_completion(const char *text, int state)
{
    static size_t at;
    static const struct command_spec *command;
    char *first = cli_strndup(rl_line_buffer, strcspn(rl_line_buffer, " "));
    char *found = NULL;

    if (state == 0) {
        at = 0;
        command = text[0] == '-' ? cli_session_command_find(first) : NULL;
    }
    free(first);
    while (text[0] != '-' && nth_command(at) && !found) {
        const struct command_spec *s = nth_command(at++);

        if (cli_session_command_find(s->name) && strncmp(s->name, text, strlen(text)) == 0)
            found = cli_strdup(s->name);
    }
    while (command && command->options[at].id != OPT_COUNT && !found) {
        const char *name = cli_options[command->options[at++].id].name;

        if (strncmp(text, "--", 2) == 0 ? strncmp(name, text + 2, strlen(text + 2)) == 0 : strcmp(text, "-") == 0)
            found = cli_format("--%s", name);
    }
    return found;
}

static char **complete(const char *text, int start, int end)
{
    (void)end;
    rl_attempted_completion_over = 1; /* never names of files */
    return start == 0 || text[0] == '-' ? rl_completion_matches(text, next_completion) : NULL;
}

/* Where lines are kept, to be freed; NULL: nowhere. */
static char *history_path(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *folder, *path;

    if (state && *state)
        folder = cli_format("%s/shardy", state);
    else if (home && *home)
        folder = cli_format("%s/.local/state/shardy", home);
    else
        return NULL;
    for (char *p = folder + 1; *p; p++) /* the last part is made below */
        if (*p == '/') {
            *p = '\0';
            (void)mkdir(folder, 0700);
            *p = '/';
        }
    path = mkdir(folder, 0700) == 0 || access(folder, W_OK) == 0 ? cli_format("%s/history", folder) : NULL;
    free(folder);
    return path;
}

static char *prompt(bool takes_interrupts)
{
    return takes_interrupts ? interrupts_read_line(readline, "shardy> ") : readline("shardy> ");
}

static void edit_lines(struct cli *c)
{
    bool takes_interrupts = interrupts_begin(c->rt);
    char *path = history_path(), *line;
    mode_t mask;

    rl_readline_name = "shardy";
    rl_attempted_completion_function = complete;
    rl_completer_word_break_characters = " \t";
    using_history();
    stifle_history(HISTORY_LINES);
    if (path)
        read_history(path);
    while (!ended && !out_failed(&c->out) && (line = prompt(takes_interrupts))) {
        if (*line)
            add_history(line);
        if (takes_interrupts)
            interrupts_command_begins();
        run_line(c, line);
        fflush(c->out.to);
        if (takes_interrupts && interrupts_command_ends())
            fputs("\nInterrupted.\n", stderr);
        free(line);
    }
    if (takes_interrupts)
        interrupts_end();
    if (!ended)
        fputc('\n', c->out.to); /* end of file */
    mask = umask(077);          /* keys may be nobody's business */
    if (path)
        write_history(path);
    umask(mask);
    free(path);
}

static void read_lines(struct cli *c)
{
    char *line = NULL;
    size_t cap = 0;

    while (!ended && !out_failed(&c->out) && getline(&line, &cap, stdin) >= 0) {
        line[strcspn(line, "\n")] = '\0';
        run_line(c, line);
    }
    free(line);
}

int shell_run(struct cli *c)
{
    struct text t = {0};

    if (!c->settings.has_format)
        c->out.format = c->err.format = FORMAT_JSON;
    if (!session_open(c))
        return 1;
    text_puts(&t, "Loaded manifest run_id=");
    text_escaped(&t, c->info.run_id, strlen(c->info.run_id));
    text_printf(&t, "  (%u shards, ShardingStrategy.%s sharding)\n", c->info.num_dbs,
                c->info.strategy == SF_SHARDING_HASH ? "HASH" : "CEL");
    out_write(&c->out, &t);
    fflush(c->out.to);
    text_free(&t);
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
        edit_lines(c);
    else
        read_lines(c);
    return 0;
}
