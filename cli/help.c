/* Help, the man page, docs/cli.md and completions: three ways to write one document, and three shells. */
#include "command.h"

#include <string.h>

#include "out.h"

#define NARROW 60 /* columns: what options mean stands below them */

enum form { FORM_HELP, FORM_MAN, FORM_MARKDOWN };

struct doc {
    FILE *to;
    enum form form;
    size_t width; /* FORM_HELP */
};

/* ------------------------------------------------------------------ pieces ---------------------------------------- */

/* Words of `text` in lines of at most `width`, the first of which has `used` columns already. */
static void put_wrapped(FILE *to, const char *text, size_t indent, size_t used, size_t width)
{
    bool first = true;

    for (const char *p = text + strspn(text, " "); *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");

        if (!first && used + 1 + n > width) {
            fprintf(to, "\n%*s", (int)indent, "");
            used = indent;
            first = true;
        }
        fprintf(to, "%s%.*s", first ? "" : " ", (int)n, p);
        used += n + !first;
        first = false;
        p += n;
    }
    fputc('\n', to);
}

/* In roff, - would be a hyphen, and a line may begin with neither . nor '. In Markdown, _ and * would be
 * emphasis. */
static void put_escaped(const struct doc *d, const char *text)
{
    if (d->form == FORM_MAN && (*text == '.' || *text == '\''))
        fputs("\\&", d->to);
    for (; *text; text++) {
        if (d->form == FORM_MAN && *text == '-')
            fputs("\\-", d->to);
        else if (d->form == FORM_MAN && *text == '\\')
            fputs("\\e", d->to);
        else if (d->form == FORM_MARKDOWN && strchr("_*<|", *text))
            fprintf(d->to, "\\%c", *text);
        else
            fputc(*text, d->to);
    }
}

static void heading(const struct doc *d, int level, const char *text)
{
    static const char capitals[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

    switch (d->form) {
    case FORM_HELP:
        fprintf(d->to, "\n%c", text[0]);
        for (const char *p = text + 1; *p; p++)
            fputc(strchr(capitals, *p) ? *p + 32 : *p, d->to);
        fputs(":\n", d->to);
        return;
    case FORM_MAN:
        fprintf(d->to, ".%s \"", level > 1 ? "SS" : "SH");
        put_escaped(d, text);
        fputs("\"\n", d->to);
        return;
    case FORM_MARKDOWN:
        fprintf(d->to, "\n%.*s %c", level + 1, "####", text[0]);
        for (const char *p = text + 1; *p; p++)
            fputc(level == 1 && strchr(capitals, *p) ? *p + 32 : *p, d->to);
        fputc('\n', d->to);
        return;
    }
}

static void paragraph(const struct doc *d, const char *text)
{
    char line[2048];

    for (const char *p = text; *p;) {
        size_t n = strcspn(p, "\n");

        snprintf(line, sizeof(line), "%.*s", (int)n, p);
        if (d->form == FORM_HELP) {
            fputs("  ", d->to);
            put_wrapped(d->to, line, 2, 2, d->width);
        } else {
            fputs(d->form == FORM_MAN ? ".PP\n" : "", d->to);
            put_escaped(d, line);
            fputc('\n', d->to);
        }
        p += n + (p[n] == '\n');
    }
}

static void option(const struct doc *d, const struct option_spec *o, const char *help)
{
    char term[96];
    size_t column = d->width < NARROW ? 8 : 30;

    snprintf(term, sizeof(term), "%s%c%s--%s%s%s", o->letter ? "-" : "", o->letter ? o->letter : ' ',
             o->letter ? ", " : "", o->name, o->metavar ? " " : "", o->metavar ? o->metavar : "");
    switch (d->form) {
    case FORM_HELP:
        fprintf(d->to, "  %s%s", o->letter ? "" : "   ", term);
        if (strlen(term) + 6 > column) /* as all of them in a narrow window */
            fprintf(d->to, "\n%*s", (int)column, "");
        else
            fprintf(d->to, "%*s", (int)(column - strlen(term) - 2 - (o->letter ? 0 : 3)), "");
        put_wrapped(d->to, help, column, column, d->width);
        return;
    case FORM_MAN:
        fputs(".TP\n.B ", d->to);
        put_escaped(d, term + (o->letter ? 0 : 1));
        fputc('\n', d->to);
        put_escaped(d, help);
        fputc('\n', d->to);
        return;
    case FORM_MARKDOWN:
        fprintf(d->to, "| `%s` | ", term + (o->letter ? 0 : 1));
        put_escaped(d, help);
        fputs(" |\n", d->to);
        return;
    }
}

static void options(const struct doc *d, const struct command_spec *c)
{
    if (d->form == FORM_MARKDOWN)
        fputs("\n| option | |\n| --- | --- |\n", d->to);
    for (const struct option_use *u = c ? c->options : NULL; u && u->id != OPT_COUNT; u++)
        option(d, &cli_options[u->id], u->help ? u->help : cli_options[u->id].help);
    for (size_t i = 0; i < CLI_GLOBAL_COUNT && !c; i++)
        option(d, &cli_options[i], cli_options[i].help);
}

static void usage(const struct doc *d, const struct command_spec *c)
{
    const char *gap = c && *c->arguments ? " " : "";
    char line[256];

    if (c)
        snprintf(line, sizeof(line), "shardy %s [OPTIONS]%s%s", c->name, gap, c->arguments);
    else
        snprintf(line, sizeof(line), "shardy [OPTIONS] COMMAND [ARGS]...");
    switch (d->form) {
    case FORM_HELP:
        fprintf(d->to, "Usage: %s\n", line);
        return;
    case FORM_MAN:
        fputs(".B ", d->to);
        put_escaped(d, line);
        fputc('\n', d->to);
        return;
    case FORM_MARKDOWN:
        fprintf(d->to, "\n    %s\n\n", line);
        return;
    }
}

static void examples(const struct doc *d, const struct command_spec *c)
{
    if (d->form == FORM_HELP && c->examples[0].command)
        heading(d, 2, "Examples");
    if (d->form != FORM_HELP)
        fputs(d->form == FORM_MAN ? ".PP\n.nf\n" : "\n```console\n", d->to);
    for (size_t i = 0; i < COMMAND_EXAMPLES_MAX && c->examples[i].command; i++) {
        const struct example *e = &c->examples[i];

        fputs(d->form == FORM_HELP ? "  " : "$ ", d->to);
        if (d->form == FORM_MAN)
            put_escaped(d, e->command);
        else
            fputs(e->command, d->to);
        fputc('\n', d->to);
        for (const char *p = d->form != FORM_HELP && e->output ? e->output : ""; *p;) {
            char line[1024];
            size_t n = strcspn(p, "\n");

            snprintf(line, sizeof(line), "%.*s", (int)n, p);
            if (d->form == FORM_MAN)
                put_escaped(d, line);
            else
                fputs(line, d->to);
            fputc('\n', d->to);
            p += n + (p[n] == '\n');
        }
    }
    if (d->form != FORM_HELP)
        fputs(d->form == FORM_MAN ? ".fi\n" : "```\n", d->to);
}

static size_t width_of(FILE *to)
{
    size_t width = out_terminal_width(to);

    return width == 0 ? 80 : width < 30 ? 30 : width < 110 ? width : 110;
}

void help_print_summary(FILE *to, const struct command_spec *c)
{
    fprintf(to, "  %-10s ", c->name);
    put_wrapped(to, c->summary, 13, 13, width_of(to));
}

/* ------------------------------------------------------------------ documents ------------------------------------- */

static void describe(const struct doc *d, const struct command_spec *c)
{
    char line[2048];

    if (d->form == FORM_HELP) {
        usage(d, c);
        snprintf(line, sizeof(line), "%s.", c->summary);
        fputc('\n', d->to);
        paragraph(d, line);
        fputc('\n', d->to);
        paragraph(d, c->description);
    } else {
        heading(d, 2, c->name);
        usage(d, c);
        snprintf(line, sizeof(line), "%s. %s", c->summary, c->description);
        paragraph(d, line);
    }
    if (c->options[0].id != OPT_COUNT) {
        if (d->form == FORM_HELP)
            heading(d, 2, "Options");
        options(d, c);
    }
    if (d->form == FORM_HELP) {
        heading(d, 2, "Exit status");
        paragraph(d, c->exits);
    }
    examples(d, c);
    if (d->form != FORM_HELP) {
        fputs(d->form == FORM_MARKDOWN ? "\n" : "", d->to);
        snprintf(line, sizeof(line), "Exit status: %s", c->exits);
        paragraph(d, line);
    } else {
        fputc('\n', d->to);
        put_wrapped(d->to, "Options of every command: see 'shardy --help'.", 0, 0, d->width);
    }
}

static void command_table(const struct doc *d)
{
    if (d->form == FORM_HELP)
        heading(d, 1, "Commands");
    else
        fputs("\n| command | | exit status |\n| --- | --- | --- |\n", d->to);
    for (size_t i = 0; i < cli_command_count; i++) {
        const struct command_spec *c = &cli_commands[i];

        if (d->form == FORM_HELP) {
            help_print_summary(d->to, c);
            continue;
        }
        fprintf(d->to, "| [`%s`](#%s) | ", c->name, c->name);
        put_escaped(d, c->summary);
        fputs(" | ", d->to);
        put_escaped(d, c->exits);
        fputs(" |\n", d->to);
    }
}

static void sections(const struct doc *d)
{
    for (size_t i = 0; i < cli_section_count; i++) {
        heading(d, 1, cli_sections[i].title);
        fputs(d->form == FORM_MARKDOWN ? "\n" : "", d->to);
        for (const char *p = cli_sections[i].text; *p;) {
            char line[2048];
            size_t n = strcspn(p, "\n");

            snprintf(line, sizeof(line), "%.*s", (int)n, p);
            paragraph(d, line);
            p += n + (p[n] == '\n');
            if (*p && d->form != FORM_MAN)
                fputc('\n', d->to);
        }
    }
}

static const char about[] = "Looks into published shardyfusion snapshots, and looks after them: look-ups, "
                            "scans, what was published when, going "
                            "back, clean-up.";

void help_print(FILE *to, const struct command_spec *c)
{
    struct doc d = {to, FORM_HELP, width_of(to)};

    if (c) {
        describe(&d, c);
        return;
    }
    usage(&d, NULL);
    fputc('\n', to);
    paragraph(&d, about);
    command_table(&d);
    heading(&d, 1, "Options");
    options(&d, NULL);
    fputc('\n', to);
    put_wrapped(
        to,
        "'shardy COMMAND --help' tells more of a command, 'shardy --generate man' all: files, environment, interactive mode, output, too.",
        0, 0, d.width);
}

static void print_man(FILE *to)
{
    struct doc d = {to, FORM_MAN, 0};

    fputs(".TH SHARDY 1 \"\" \"shardyfusion " SF_VERSION_STRING
          "\" \"User Commands\"\n.SH NAME\nshardy \\- look into published snapshots, and look "
          "after them\n.SH SYNOPSIS\n",
          to);
    usage(&d, NULL);
    heading(&d, 1, "DESCRIPTION");
    paragraph(&d, about);
    heading(&d, 1, "OPTIONS");
    options(&d, NULL);
    heading(&d, 1, "COMMANDS");
    for (size_t i = 0; i < cli_command_count; i++)
        describe(&d, &cli_commands[i]);
    sections(&d);
}

static void print_markdown(FILE *to)
{
    struct doc d = {to, FORM_MARKDOWN, 0};

    fputs("# The `shardy` command\n\n<!-- made by `shardy --generate markdown`, as the man page is: change "
          "cli/table.c instead -->\n\n",
          to);
    paragraph(&d, about);
    command_table(&d);
    heading(&d, 1, "OPTIONS");
    fputs("\nOf every command.\n", to);
    options(&d, NULL);
    heading(&d, 1, "COMMANDS");
    for (size_t i = 0; i < cli_command_count; i++)
        describe(&d, &cli_commands[i]);
    sections(&d);
}

/* ------------------------------------------------------------------ completions ----------------------------------- */

static void put_commands(FILE *to, const char *separator)
{
    for (size_t i = 0; i < cli_command_count; i++)
        fprintf(to, "%s%s", i > 0 ? separator : "", cli_commands[i].name);
}

static void put_words(FILE *to, const char *choices)
{
    for (; *choices; choices++)
        fputc(*choices == '|' ? ' ' : *choices, to);
}

static void print_bash(FILE *to)
{
    fputs("# completions of shardy for bash\n_shardy() {\n    local cur=${COMP_WORDS[COMP_CWORD]} "
          "prev=${COMP_WORDS[COMP_CWORD-1]} command= "
          "i\n    COMPREPLY=()\n    for ((i = 1; i < COMP_CWORD; i++)); do\n        case ${COMP_WORDS[i]} "
          "in\n        ",
          to);
    put_commands(to, "|");
    fputs(") command=${COMP_WORDS[i]}; break ;;\n        esac\n    done\n    case $prev in\n", to);
    for (size_t i = 0; i < OPT_COUNT; i++) {
        const struct option_spec *o = &cli_options[i];

        if (o->type == VALUE_FLAG)
            continue;
        fprintf(to, "    --%s", o->name);
        if (o->letter)
            fprintf(to, "|-%c", o->letter);
        fputs(") ", to);
        if (o->type == VALUE_CHOICE) {
            fputs("COMPREPLY=($(compgen -W '", to);
            put_words(to, o->choices);
            fputs("' -- \"$cur\")); ", to);
        } else if (o->type == VALUE_FILE) {
            fputs("COMPREPLY=($(compgen -f -- \"$cur\")); ", to);
        }
        fputs("return ;;\n", to);
    }
    fputs("    esac\n    if [[ $cur == -* ]]; then\n        local options='", to);
    for (size_t i = 0; i < CLI_GLOBAL_COUNT; i++)
        fprintf(to, "%s--%s", i > 0 ? " " : "", cli_options[i].name);
    fputs("'\n        case $command in\n", to);
    for (size_t i = 0; i < cli_command_count; i++) {
        fprintf(to, "        %s) options+='", cli_commands[i].name);
        for (const struct option_use *u = cli_commands[i].options; u->id != OPT_COUNT; u++)
            fprintf(to, " --%s", cli_options[u->id].name);
        fputs("' ;;\n", to);
    }
    fputs("        esac\n        COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n    elif [[ -z $command "
          "]]; then\n        "
          "COMPREPLY=($(compgen -W '",
          to);
    put_commands(to, " ");
    fputs("' -- \"$cur\"))\n    fi\n}\ncomplete -F _shardy shardy\n", to);
}

/* Inside of single quotes. */
static void put_quoted(FILE *to, const char *text, const char *special)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", to);
        else
            fprintf(to, "%s%c", strchr(special, *text) ? "\\" : "", *text);
    }
}

static void put_zsh_option(FILE *to, const struct option_spec *o, const char *help)
{
    fputs(" \\\n        ", to);
    if (o->letter)
        fprintf(to, "{-%c,--%s%s}", o->letter, o->name, o->type == VALUE_FLAG ? "" : "=");
    fputc('\'', to);
    if (o->repeats)
        fputc('*', to);
    if (!o->letter)
        fprintf(to, "--%s%s", o->name, o->type == VALUE_FLAG ? "" : "=");
    fputc('[', to);
    put_quoted(to, help, "[]\\:");
    fputc(']', to);
    if (o->type != VALUE_FLAG) {
        fprintf(to, ":%s:", o->metavar);
        if (o->type == VALUE_CHOICE) {
            fputc('(', to);
            put_words(to, o->choices);
            fputc(')', to);
        } else if (o->type == VALUE_FILE) {
            fputs("_files", to);
        }
    }
    fputc('\'', to);
}

static void print_zsh(FILE *to)
{
    fputs("#compdef shardy\n_shardy() {\n    local context state line\n    local -A opt_args\n    _arguments "
          "-C",
          to);
    for (size_t i = 0; i < CLI_GLOBAL_COUNT; i++)
        put_zsh_option(to, &cli_options[i], cli_options[i].help);
    fputs(" \\\n        '1: :->command' '*:: :->rest'\n    case $state in\n    command)\n        local -a "
          "commands=(\n",
          to);
    for (size_t i = 0; i < cli_command_count; i++) {
        fprintf(to, "            '%s:", cli_commands[i].name);
        put_quoted(to, cli_commands[i].summary, "");
        fputs("'\n", to);
    }
    fputs("        )\n        _describe command commands\n        ;;\n    rest)\n        case $line[1] in\n", to);
    for (size_t i = 0; i < cli_command_count; i++) {
        fprintf(to, "        %s) _arguments", cli_commands[i].name);
        for (const struct option_use *u = cli_commands[i].options; u->id != OPT_COUNT; u++)
            put_zsh_option(to, &cli_options[u->id], u->help ? u->help : cli_options[u->id].help);
        for (size_t j = 0; j < CLI_GLOBAL_COUNT; j++)
            put_zsh_option(to, &cli_options[j], cli_options[j].help);
        fputs(" ;;\n", to);
    }
    fputs("        esac\n        ;;\n    esac\n}\n_shardy \"$@\"\n", to);
}

static void put_fish_text(FILE *to, const char *text)
{
    fputs(" -d '", to);
    for (; *text; text++)
        fprintf(to, "%s%c", *text == '\'' || *text == '\\' ? "\\" : "", *text);
    fputs("'\n", to);
}

static void put_fish_option(FILE *to, const char *condition, const struct option_spec *o, const char *help)
{
    fprintf(to, "complete -c shardy%s%s -l %s", *condition ? " -n " : "", condition, o->name);
    if (o->letter)
        fprintf(to, " -s %c", o->letter);
    if (o->type != VALUE_FLAG)
        fputs(o->type == VALUE_FILE ? " -rF" : " -x", to);
    if (o->type == VALUE_CHOICE) {
        fputs(" -a '", to);
        put_words(to, o->choices);
        fputc('\'', to);
    }
    put_fish_text(to, help);
}

static void print_fish(FILE *to)
{
    fputs("# completions of shardy for fish\ncomplete -c shardy -f\n", to);
    for (size_t i = 0; i < CLI_GLOBAL_COUNT; i++)
        put_fish_option(to, "", &cli_options[i], cli_options[i].help);
    for (size_t i = 0; i < cli_command_count; i++) {
        const struct command_spec *c = &cli_commands[i];
        char condition[96];

        fprintf(to, "complete -c shardy -n __fish_use_subcommand -a %s", c->name);
        put_fish_text(to, c->summary);
        snprintf(condition, sizeof(condition), "'__fish_seen_subcommand_from %s'", c->name);
        for (const struct option_use *u = c->options; u->id != OPT_COUNT; u++)
            put_fish_option(to, condition, &cli_options[u->id], u->help ? u->help : cli_options[u->id].help);
    }
}

void help_generate(FILE *to, size_t kind)
{
    static void (*const print[])(FILE *) = {print_man, print_markdown, print_bash, print_zsh, print_fish};

    print[kind](to);
}
