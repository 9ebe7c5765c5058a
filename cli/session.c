#include "cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "json_read.h"

/* ------------------------------------------------------------------ saying ---------------------------------------- */

static void say(const char *kind, const char *fmt, va_list args)
{
    char one[2048];
    struct text safe = {0};

    vsnprintf(one, sizeof(one), fmt, args);
    text_escaped(&safe, one, strlen(one));
    fprintf(stderr, "%s: %s\n", kind, text_str(&safe));
    text_free(&safe);
}

int cli_error(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    say("Error", fmt, args);
    va_end(args);
    return 1;
}

void cli_warn(const struct cli *c, const char *fmt, ...)
{
    va_list args;

    if (c->settings.quiet)
        return;
    va_start(args, fmt);
    say("Warning", fmt, args);
    va_end(args);
}

int cli_fail(struct cli *c, const char *op, const char *key, const char *fmt, ...)
{
    char one[2048];
    struct text t = {0};
    struct json j;
    va_list args;

    if (interrupted())
        return 1;
    va_start(args, fmt);
    vsnprintf(one, sizeof(one), fmt, args);
    va_end(args);
    if (out_is_json(&c->err)) {
        json_begin(&j, &t, c->err.format);
        json_open(&j, NULL, '{');
        json_text(&j, "op", op);
        json_text(&j, "error", one);
        if (key)
            json_text(&j, "key", key);
        json_close(&j, '}');
        json_end(&j);
    } else {
        out_colour(&c->err, &t, COLOUR_RED);
        text_puts(&t, "error:");
        out_plain(&c->err, &t);
        text_putc(&t, ' ');
        text_escaped(&t, one, strlen(one));
        text_putc(&t, '\n');
    }
    out_write(&c->err, &t);
    text_free(&t);
    return 1;
}

int cli_fail_with(struct cli *c, const char *op, const char *key, const sf_error *e)
{
    return cli_fail(c, op, key, "%s", e->message);
}

/* ------------------------------------------------------------------ where the pointer is -------------------------- */

static bool has_object(struct cli *c, const char *url)
{
    char root[1024], key[4096];
    sf_error e = SF_ERROR_INIT;
    sf_object object = {0};
    sf_bucket *bucket;
    bool has;

    if (sf_url_split(url, root, sizeof(root), key, sizeof(key), &e) != SF_OK || !*key ||
        sf_bucket_open(&bucket, c->rt, url, &c->settings.s3, &e) != SF_OK)
        return false;
    has = sf_bucket_head(bucket, key, c->settings.timeout_ms, &object, &e) == SF_OK;
    sf_object_release(&object);
    sf_bucket_close(bucket);
    return has;
}

bool session_start(struct cli *c)
{
    sf_error e = SF_ERROR_INIT;

    if (!c->settings.current_url && !c->settings.dsn) {
        fputs("Error: CURRENT URL is required. Provide it via --current-url, set SHARDY_CURRENT env var, or "
              "set current_url in "
              "reader.toml.\n",
              stderr);
        return false;
    }
    if (!c->rt && sf_runtime_new(&c->rt, NULL, &e) != SF_OK) {
        cli_error("Failed to start the engine: %s", e.message);
        return false;
    }
    return true;
}

/* Nothing is asked of the server yet. */
static bool locate_postgres(struct cli *c)
{
    sf_postgres_options o = SF_POSTGRES_OPTIONS_INIT;
    const struct settings *s = &c->settings;
    sf_error e = SF_ERROR_INIT;

    if (s->table_name)
        o.table_name = s->table_name;
    if (s->pointer_table_name)
        o.pointer_table_name = s->pointer_table_name;
    o.timeout_ms = s->timeout_ms;
    if (sf_postgres_open(&c->postgres, s->dsn, &o, &e) != SF_OK) {
        cli_error("Failed to initialise reader: %s", e.message);
        return false;
    }
    c->source = sf_postgres_manifest_source(c->postgres);
    c->store = sf_postgres_manifest_store(c->postgres);
    c->prefix = cli_strdup(sf_postgres_name(c->postgres));
    c->current_name = cli_strdup("_CURRENT");
    return true;
}

bool session_locate(struct cli *c)
{
    char *url, *slash;
    size_t n;

    if (c->prefix)
        return true;
    if (!session_start(c))
        return false;
    if (c->settings.dsn)
        return locate_postgres(c);
    url = cli_strdup(c->settings.current_url);
    n = strlen(url);
    slash = strrchr(url, '/');
    /* a pointer of another name, or the prefix itself: only the store knows */
    if (slash && slash > url && slash[-1] != '/' && slash[1] && (strcmp(slash, "/_CURRENT") == 0 || has_object(c, url))) {
        c->current_name = cli_strdup(slash + 1);
        *slash = '\0';
    } else {
        c->current_name = cli_strdup("_CURRENT");
        while (n > 1 && url[n - 1] == '/' && url[n - 2] != '/' && url[n - 2] != ':')
            url[--n] = '\0';
    }
    c->prefix = url;
    return true;
}

const char *session_prefix(struct cli *c, const char *op)
{
    const char *told = c->args.opt[OPT_S3_PREFIX].text;

    if (!session_locate(c))
        return NULL;
    if (!c->postgres && told)
        cli_fail(c, op, NULL,
                 "--s3-prefix belongs to manifests in PostgreSQL: otherwise the prefix is that of the pointer");
    else if (!c->postgres)
        return c->prefix;
    else if (told || c->settings.s3_prefix)
        return told ? told : c->settings.s3_prefix;
    else
        cli_fail(c, op, NULL,
                 "%s works on what lies below a prefix, and only the manifests are in PostgreSQL: name the prefix by --s3-prefix, or "
                 "s3_prefix of reader.toml",
                 op);
    return NULL;
}

sf_site_options session_site_options(const struct cli *c)
{
    sf_site_options o = SF_SITE_OPTIONS_INIT;

    o.s3 = &c->settings.s3;
    o.shard_s3 = &c->settings.shard_s3;
    o.current_name = c->current_name;
    o.request_timeout_ms = c->settings.timeout_ms;
    return o;
}

sf_reader_options session_reader_options(const struct cli *c)
{
    static const sf_sqlite_mode modes[] = {
        [SQLITE_DOWNLOAD] = SF_SQLITE_DOWNLOAD, [SQLITE_RANGE] = SF_SQLITE_RANGE, [SQLITE_AUTO] = SF_SQLITE_AUTO};
    sf_reader_options o = SF_READER_OPTIONS_INIT;

    o.s3 = &c->settings.s3;
    o.shard_s3 = &c->settings.shard_s3;
    o.current_name = c->current_name;
    o.open_timeout_ms = c->settings.timeout_ms;
    o.sqlite_folder = c->settings.local_root;
    o.sqlite_mode = modes[c->settings.sqlite_mode];
    o.sqlite_shard_bytes = c->settings.sqlite_shard_bytes;
    o.sqlite_total_bytes = c->settings.sqlite_total_bytes;
    o.lazy_shards = true;
    o.manifest_ref = c->pinned_ref;
    o.manifests = c->postgres ? &c->source : NULL;
    o.relocate = args_has(c->line, OPT_RELOCATE);
    if (args_has(c->line, OPT_CONFINE))
        o.confine = SF_CONFINE_YES;
    else if (args_has(c->line, OPT_NO_CONFINE))
        o.confine = SF_CONFINE_NO;
    return o;
}

sf_status session_history(struct cli *c, size_t limit, struct publications *p, sf_error *err)
{
    sf_site_options o;
    sf_status rc;

    *p = (struct publications){0};
    if (c->postgres) {
        rc = sf_postgres_list(c->postgres, limit, &p->rows, &p->count, err);
        p->entries = p->rows;
        return rc;
    }
    o = session_site_options(c);
    rc = sf_history_list(&p->history, c->rt, c->prefix, &o, limit, err);
    if (rc == SF_OK)
        p->entries = sf_history_entries(p->history, &p->count);
    return rc;
}

void session_history_free(struct publications *p)
{
    sf_history_free(p->history);
    sf_postgres_entries_free(p->rows, p->count);
}

char *session_ref_at(struct cli *c, uint64_t offset)
{
    sf_error e = SF_ERROR_INIT;
    struct publications p;
    char *ref = NULL;

    if (session_history(c, (size_t)offset + 1, &p, &e) != SF_OK)
        cli_error("Failed to list the manifests: %s", e.message);
    else if (offset < p.count)
        ref = cli_strdup(p.entries[offset].ref);
    else
        cli_error("Offset %llu out of range (only %zu manifests available)", (unsigned long long)offset, p.count);
    session_history_free(&p);
    return ref;
}

/* ------------------------------------------------------------------ the snapshot ---------------------------------- */

static bool pin(struct cli *c)
{
    if (c->pinned_ref)
        return true;
    if (args_has(c->line, OPT_REF))
        c->pinned_ref = cli_strdup(c->line->opt[OPT_REF].text);
    else if (args_has(c->line, OPT_OFFSET))
        c->pinned_ref = session_ref_at(c, c->line->opt[OPT_OFFSET].number);
    else
        return true;
    return c->pinned_ref != NULL;
}

static void note_fallback(struct cli *c, const sf_call *call)
{
    size_t count;
    const sf_rejected_manifest *rejected = sf_call_rejected_manifests(call, &count);

    free(c->rejected_ref);
    c->rejected_ref = NULL;
    if (count == 0)
        return;
    c->rejected_ref = cli_strdup(rejected[0].manifest_ref);
    cli_warn(c, "the manifest that the pointer names is malformed, and an older one is served: %s",
             rejected[0].error.message);
}

/* `prefix` is known. */
static sf_status open_reader(struct cli *c, sf_call **call, sf_error *err)
{
    sf_reader_options o = session_reader_options(c);
    sf_status rc = sf_reader_open_start(call, c->rt, c->prefix, &o, NULL, NULL, err);

    if (rc == SF_OK)
        rc = sf_call_wait(*call, err);
    if (rc != SF_OK)
        return rc;
    c->reader = sf_call_take_reader(*call);
    c->snap = sf_reader_borrow(c->reader, err);
    if (c->snap)
        sf_snapshot_get_info(c->snap, &c->info);
    return c->snap ? SF_OK : SF_STATE;
}

bool session_open(struct cli *c)
{
    sf_error e = SF_ERROR_INIT;
    sf_call *call = NULL;

    if (c->snap)
        return true;
    if (!session_locate(c) || !pin(c))
        return false;
    if (open_reader(c, &call, &e) == SF_OK)
        note_fallback(c, call);
    else
        cli_error("Failed to initialise reader: %s", e.message);
    sf_call_release(call);
    return c->snap != NULL;
}

void session_peek(struct cli *c)
{
    sf_error e = SF_ERROR_INIT;
    sf_call *call = NULL;

    if (!c->snap && open_reader(c, &call, &e) != SF_OK)
        c->info = (sf_snapshot_info){0};
    sf_call_release(call);
}

sf_status session_switch(struct cli *c, char *ref, sf_error *err)
{
    struct cli before = *c;
    sf_call *call = NULL;
    sf_status rc;

    c->pinned_ref = ref;
    c->reader = NULL;
    c->snap = NULL;
    rc = open_reader(c, &call, err);
    if (rc == SF_OK) {
        note_fallback(c, call);
        sf_snapshot_give_back(before.snap);
        sf_reader_free(before.reader);
        free(before.pinned_ref);
    } else {
        free(ref);
        sf_reader_free(c->reader);
        c->pinned_ref = before.pinned_ref;
        c->reader = before.reader;
        c->snap = before.snap;
        c->info = before.info;
    }
    sf_call_release(call);
    return rc;
}

void session_close(struct cli *c)
{
    sf_snapshot_give_back(c->snap);
    sf_reader_free(c->reader);
    c->snap = NULL;
    c->reader = NULL;
}

void session_end(struct cli *c)
{
    session_close(c);
    sf_postgres_release(c->postgres);
    sf_runtime_release(c->rt);
    c->postgres = NULL;
    c->rt = NULL;
    free(c->prefix);
    free(c->current_name);
    free(c->rejected_ref);
    free(c->pinned_ref);
    c->prefix = c->current_name = c->rejected_ref = c->pinned_ref = NULL;
}

/* ------------------------------------------------------------------ keys ------------------------------------------ */

static const char *const encodings[] = {"u64be", "u32be", "utf8", "raw"};

static bool parse_integer(const char *text, sf_key *key)
{
    uint64_t v;

    if (*text == '-') {
        if (!parse_uint(text + 1, 0, (uint64_t)INT64_MAX + 1, &v))
            return false;
        *key = sf_key_int((int64_t)(0 - v));
        return true;
    }
    if (!parse_uint(text, 0, UINT64_MAX, &v))
        return false;
    *key = sf_key_uint(v);
    return true;
}

static bool parse_plain_key(struct cli *c, const char *op, const char *text, sf_key *key)
{
    switch (c->info.key_encoding) {
    case SF_KEY_U64BE:
    case SF_KEY_U32BE:
        if (parse_integer(text, key))
            return true;
        cli_fail(c, op, text, "Key '%s' is not a valid integer (required by %s encoding)", text,
                 encodings[c->info.key_encoding]);
        return false;
    case SF_KEY_RAW:
        *key = sf_key_bytes(text, strlen(text));
        return true;
    case SF_KEY_UTF8:
        break;
    }
    *key = sf_key_str(text, strlen(text));
    return true;
}

/* ------------------------------------------------------------------ routing by other columns ---------------------- */

static sf_bytes columns_of(const sf_snapshot_info *info)
{
    const char *sharding = info->sharding_json ? info->sharding_json : "";

    return json_member((sf_bytes){(const uint8_t *)sharding, strlen(sharding)}, "cel_columns");
}

static bool parse_double(const char *text, double *out)
{
    char *end;

    *out = strtod(text, &end);
    return end != text && !*end && !strchr(" \t", *text);
}

bool cli_parse_routing_value(const char *type, const char *text, sf_routing_value *v)
{
    uint64_t choice = 0;
    sf_key key;

    if (!parse_choice("string|bytes|int|uint|double|bool", type, &choice))
        choice = 0; /* no type at all where a hash routes, which refuses every context in its own words */
    switch (choice) {
    case 1:
        v->type = SF_ROUTING_BYTES;
        break;
    case 2:
        v->type = SF_ROUTING_INT;
        if (!parse_integer(text, &key) || (key.type == SF_KEY_UINT && key.u > INT64_MAX))
            return false;
        v->i = key.i;
        return true;
    case 3:
        v->type = SF_ROUTING_UINT;
        return parse_uint(text, 0, UINT64_MAX, &v->u);
    case 4:
        v->type = SF_ROUTING_DOUBLE;
        return parse_double(text, &v->d);
    case 5:
        v->type = SF_ROUTING_BOOL;
        if (!parse_choice("false|true", text, &choice))
            return false;
        v->boolean = choice == 1;
        return true;
    default:
        v->type = SF_ROUTING_STR;
        break;
    }
    v->b = (sf_bytes){(const uint8_t *)text, strlen(text)};
    return true;
}

/* By the type that the column has in the manifest, a JSON string. */
static bool parse_context_value(sf_bytes type, const char *text, sf_routing_value *v)
{
    struct text name = {0};
    bool good;

    json_unquote(&name, type, false);
    good = cli_parse_routing_value(text_str(&name), text, v);
    text_free(&name);
    return good;
}

/* Fills c->context from the pairs of the command line, once a command. */
static bool read_context(struct cli *c, const char *op, const char *key)
{
    struct args *a = &c->args;
    sf_bytes columns = columns_of(&c->info), type;
    sf_routing_value *values;

    if (!args_has(a, OPT_ROUTING_CONTEXT) || a->context)
        return true;
    a->context = cli_alloc(1, sizeof(*a->context));
    a->context->values = values = cli_alloc(a->pair_count, sizeof(*values));
    for (size_t i = 0; i < a->pair_count; i++) {
        const char *equals = strchr(a->pairs[i].text, '=');
        char *name;
        bool good;

        if (a->pairs[i].id != OPT_ROUTING_CONTEXT)
            continue;
        name = cli_strndup(a->pairs[i].text, (size_t)(equals - a->pairs[i].text));
        type = json_member(columns, name);
        good = c->info.strategy == SF_SHARDING_HASH || type.n > 0; /* the former is refused by the router, in its words */
        if (!good)
            cli_fail(c, op, key, "the snapshot does not route by a column '%s', but by %.*s", name, (int)columns.n,
                     (const char *)columns.p);
        else if (!(good = parse_context_value(type, equals + 1, &values[a->context->count])))
            cli_fail(c, op, key, "--routing-context %s: '%s' is no value of type %.*s", name, equals + 1, (int)type.n,
                     (const char *)type.p);
        values[a->context->count++].column = name;
        if (!good)
            return false;
    }
    return true;
}

bool cli_parse_key(struct cli *c, const char *op, const char *text, sf_key *key)
{
    if (!parse_plain_key(c, op, text, key) || !read_context(c, op, text))
        return false;
    key->context = c->args.context;
    return true;
}

struct cell cli_key_cell(const struct cli *c, sf_bytes key)
{
    size_t length = c->info.key_encoding == SF_KEY_U64BE ? 8 : c->info.key_encoding == SF_KEY_U32BE ? 4 : 0;
    struct cell cell = {.kind = CELL_UINT};

    if (length > 0 && key.n == length) {
        for (size_t i = 0; i < length; i++)
            cell.number = cell.number << 8 | key.p[i];
        return cell;
    }
    cell.kind = c->info.key_encoding == SF_KEY_UTF8 ? CELL_STRING : CELL_VALUE;
    cell.bytes = key;
    return cell;
}
