/* exec: the commands of a script in YAML, in one session. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#define SCRIPT_MAX_BYTES (64u << 20)

struct script {
    yaml_document_t doc;
    yaml_node_t *commands; /* a sequence */
    bool goes_on;          /* on_error: continue */
};

/* A command line in the making; texts are the document's, but for those in `owned`. */
struct line {
    char **argv;
    size_t argc;
    char **owned;
    size_t owned_count;
};

/* ------------------------------------------------------------------ YAML ------------------------------------------ */

static yaml_node_t *member(struct script *s, const yaml_node_t *map, const char *name)
{
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        yaml_node_t *key = yaml_document_get_node(&s->doc, p->key);

        if (key->type == YAML_SCALAR_NODE && strcmp((char *)key->data.scalar.value, name) == 0)
            return yaml_document_get_node(&s->doc, p->value);
    }
    return NULL;
}

static bool is_null(const yaml_node_t *n)
{
    const char *v = (const char *)n->data.scalar.value;

    return n->type == YAML_SCALAR_NODE && n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!*v || strcmp(v, "~") == 0 || strcasecmp(v, "null") == 0);
}

/* NULL: missing, or nothing that has one text. */
static const char *scalar(const yaml_node_t *n)
{
    return n && n->type == YAML_SCALAR_NODE && !is_null(n) && strlen((char *)n->data.scalar.value) == n->data.scalar.length
               ? (const char *)n->data.scalar.value
               : NULL;
}

/* As Python names the type of what is no mapping. */
static const char *python_type(const yaml_node_t *n)
{
    const char *v;
    char *end;

    if (!n || is_null(n))
        return "<class 'NoneType'>";
    if (n->type != YAML_SCALAR_NODE)
        return n->type == YAML_SEQUENCE_NODE ? "<class 'list'>" : "<class 'dict'>";
    v = (const char *)n->data.scalar.value;
    if (n->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return "<class 'str'>";
    if (strcasecmp(v, "true") == 0 || strcasecmp(v, "false") == 0)
        return "<class 'bool'>";
    strtoll(v, &end, 10);
    if (!*end)
        return "<class 'int'>";
    strtod(v, &end);
    return *end ? "<class 'str'>" : "<class 'float'>";
}

/* ------------------------------------------------------------------ loading --------------------------------------- */

static int wrong(const char *fmt, const char *what)
{
    return cli_error(fmt, what);
}

static int check(struct script *s)
{
    yaml_node_t *root = yaml_document_get_root_node(&s->doc), *on_error;
    const char *mode;

    if (!root || root->type != YAML_MAPPING_NODE)
        return wrong("Script file must be a YAML mapping, got: %s", python_type(root));
    s->commands = member(s, root, "commands");
    if (!s->commands || s->commands->type != YAML_SEQUENCE_NODE)
        return wrong("%s", "Script file must have a 'commands' key with a list of operations");
    on_error = member(s, root, "on_error");
    mode = scalar(on_error);
    if (on_error && (!mode || (strcmp(mode, "stop") != 0 && strcmp(mode, "continue") != 0)))
        return wrong("%s", "on_error of the script must be stop or continue");
    s->goes_on = mode && strcmp(mode, "continue") == 0;
    return 0;
}

/* 0, or 1 with a message. On 0 the document is to be deleted. */
static int load(struct script *s, const char *path)
{
    struct text t = {0};
    yaml_parser_t parser;
    char why[256];
    int rc = 0;

    if (!text_read_file(&t, path, SCRIPT_MAX_BYTES, why, sizeof(why))) {
        text_free(&t);
        return cli_error("Script file %s cannot be read: %s", path, why);
    }
    if (!yaml_parser_initialize(&parser)) {
        text_free(&t);
        return cli_error("out of memory");
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text_str(&t), t.n);
    if (!yaml_parser_load(&parser, &s->doc))
        rc = cli_error("Script file %s is no YAML: line %zu, column %zu: %s", path, parser.problem_mark.line + 1,
                       parser.problem_mark.column + 1, parser.problem ? parser.problem : "out of memory");
    yaml_parser_delete(&parser);
    text_free(&t);
    if (rc == 0 && check(s) != 0) {
        yaml_document_delete(&s->doc);
        rc = 1;
    }
    return rc;
}

/* ------------------------------------------------------------------ one command ----------------------------------- */

static void push(struct line *l, const char *word)
{
    l->argv = cli_realloc(l->argv, l->argc + 1, sizeof(*l->argv));
    l->argv[l->argc++] = (char *)word;
}

static void push_owned(struct line *l, char *word)
{
    l->owned = cli_realloc(l->owned, l->owned_count + 1, sizeof(*l->owned));
    l->owned[l->owned_count++] = word;
    push(l, word);
}

static void line_free(struct line *l)
{
    for (size_t i = 0; i < l->owned_count; i++)
        free(l->owned[i]);
    free(l->owned);
    free(l->argv);
}

static int push_context(struct cli *c, struct script *s, struct line *l, const char *op, const yaml_node_t *context)
{
    if (!context || is_null(context))
        return 0;
    if (context->type != YAML_MAPPING_NODE)
        return cli_fail(c, op, NULL, "'routing_context' must be a mapping");
    for (yaml_node_pair_t *p = context->data.mapping.pairs.start; p < context->data.mapping.pairs.top; p++) {
        const char *key = scalar(yaml_document_get_node(&s->doc, p->key));
        const char *value = scalar(yaml_document_get_node(&s->doc, p->value));

        if (!key || !*key || !value)
            return cli_fail(c, op, NULL, "'routing_context' must have names and values that are texts or numbers");
        push(l, "--routing-context");
        push_owned(l, cli_format("%s=%s", key, value));
    }
    return 0;
}

/* "--option TEXT" of a member that must be a number. */
static int push_number(struct cli *c, struct line *l, const char *op, const yaml_node_t *n, const char *name,
                       const char *option)
{
    const char *text = scalar(n);
    uint64_t whole;
    double real;

    if (!n || is_null(n))
        return 0;
    if (!text || !(strcmp(name, "limit") == 0 ? parse_uint(text, 1, UINT64_MAX, &whole) : parse_seconds(text, &real)))
        return cli_fail(c, op, NULL, "'%s' must be a %s", name,
                        strcmp(name, "limit") == 0 ? "whole number from 1" : "number of seconds");
    push(l, option);
    push(l, text);
    return 0;
}

static int push_keys(struct cli *c, struct script *s, struct line *l, const yaml_node_t *command, const char *op)
{
    yaml_node_t *keys;
    const char *key;

    if (strcmp(op, "multiget") != 0) {
        key = scalar(member(s, command, "key"));
        if (!key)
            return cli_fail(c, op, NULL, "'%s' command requires a 'key' field", op);
        push(l, "--");
        push(l, key);
        return 0;
    }
    keys = member(s, command, "keys");
    if (!keys || keys->type != YAML_SEQUENCE_NODE || keys->data.sequence.items.start == keys->data.sequence.items.top)
        return cli_fail(c, op, NULL, "'multiget' command requires a non-empty 'keys' list");
    push(l, "--");
    for (yaml_node_item_t *i = keys->data.sequence.items.start; i < keys->data.sequence.items.top; i++) {
        key = scalar(yaml_document_get_node(&s->doc, *i));
        if (!key)
            return cli_fail(c, op, NULL, "'keys' must be texts or numbers");
        push(l, key);
    }
    return 0;
}

static int build_line(struct cli *c, struct script *s, struct line *l, const yaml_node_t *command, const char *op)
{
    int rc = 0;

    push(l, op);
    if (strcmp(op, "health") == 0)
        rc = push_number(c, l, op, member(s, command, "staleness_threshold"), "staleness_threshold",
                         "--staleness-threshold");
    else if (strcmp(op, "history") == 0)
        rc = push_number(c, l, op, member(s, command, "limit"), "limit", "--limit");
    else if (strcmp(op, "get") == 0 || strcmp(op, "route") == 0 || strcmp(op, "multiget") == 0) {
        rc = push_context(c, s, l, op, member(s, command, "routing_context"));
        if (rc == 0)
            rc = push_keys(c, s, l, command, op);
    }
    return rc;
}

static int run_one(struct cli *c, struct script *s, const yaml_node_t *command, size_t number)
{
    static const char *const ops[] = {"get", "multiget", "refresh", "info", "shards", "route", "health", "history"};
    struct line l = {0};
    const char *op;
    int rc;

    if (command->type != YAML_MAPPING_NODE)
        return cli_fail(c, "unknown", NULL, "Command #%zu is not a mapping", number);
    op = scalar(member(s, command, "op"));
    for (size_t i = 0; op && i < sizeof(ops) / sizeof(ops[0]); i++) {
        if (strcmp(ops[i], op) != 0)
            continue;
        rc = build_line(c, s, &l, command, ops[i]);
        if (rc == 0)
            rc = cli_run_inner(c, cli_session_command_find(op), (int)l.argc, l.argv);
        line_free(&l);
        return rc;
    }
    return cli_fail(c, op ? op : "unknown", NULL,
                    "Unknown op: %s%s%s. Supported: get, multiget, refresh, info, shards, route, health, history",
                    op ? "'" : "", op ? op : "None", op ? "'" : "");
}

/* ------------------------------------------------------------------ the whole ------------------------------------- */

static int run_all(struct cli *c, struct script *s)
{
    yaml_node_item_t *first = s->commands->data.sequence.items.start;
    int failed = 0;

    for (yaml_node_item_t *i = first; i < s->commands->data.sequence.items.top && !out_failed(&c->out); i++) {
        if (run_one(c, s, yaml_document_get_node(&s->doc, *i), (size_t)(i - first) + 1) == 0)
            continue;
        failed = 1;
        if (!s->goes_on)
            break;
    }
    return failed;
}

static int run_script(struct cli *c, struct script *s)
{
    struct out before = c->out, errors = c->err;
    const char *path = c->args.opt[OPT_OUTPUT].text;
    FILE *file = NULL;
    int rc;

    if (path && !(file = fopen(path, "we")))
        return cli_error("%s cannot be written: %s", path, strerror(errno));
    if (file)
        out_init(&c->out, file, path, c->settings.colour);
    if (c->out.format == FORMAT_JSON)
        c->out.format = FORMAT_JSONL;
    c->err = c->out; /* results, failures included */
    rc = run_all(c, s);
    if (file) {
        if (!out_close(&c->out))
            rc = 1;
        fclose(file);
    }
    c->out = before;
    c->err = errors;
    return rc;
}

int cmd_exec(struct cli *c)
{
    struct script s = {.goes_on = false};
    int rc = 1;

    if (!args_has(&c->args, OPT_SCRIPT))
        return args_usage_error(c->args.command, "Missing option '--script'.");
    if (load(&s, c->args.opt[OPT_SCRIPT].text) != 0)
        return 1;
    if (session_open(c))
        rc = run_script(c, &s);
    yaml_document_delete(&s.doc);
    return rc;
}
