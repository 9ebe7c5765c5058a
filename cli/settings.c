/* Options win over the environment, that over the files (docs/compatibility/contract.md 17.2). */
#include "settings.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dotenv.h"
#include "toml.h"

#define SETTINGS_MAX_BYTES (1u << 20)

static void say(const char *kind, const char *fmt, va_list args)
{
    struct text safe = {0};
    char one[2048];

    vsnprintf(one, sizeof(one), fmt, args);
    text_escaped(&safe, one, strlen(one));
    fprintf(stderr, "%s: %s\n", kind, text_str(&safe));
    text_free(&safe);
}

static bool complain(const char *fmt, ...) SF_PRINTF(1, 2);
static bool complain(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    say("Error", fmt, args);
    va_end(args);
    return false;
}

static void warn(const struct settings *s, const char *fmt, ...) SF_PRINTF(2, 3);
static void warn(const struct settings *s, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    if (!s->quiet)
        say("Warning", fmt, args);
    va_end(args);
}

static const char *given_or_env(const struct args *a, enum option_id id, const char *name)
{
    const char *v = a->opt[id].text ? a->opt[id].text : getenv(name);

    return v && *v ? v : NULL;
}

static void keep_text(struct settings *s, const char **where, const char *text)
{
    for (size_t i = 0; i < s->owned_count; i++)
        if (s->owned[i] == *where) {
            free(s->owned[i]);
            s->owned[i] = s->owned[--s->owned_count];
            break;
        }
    *where = NULL;
    if (*text)
        *where = s->owned[s->owned_count++] = cli_strdup(text);
}

/* ------------------------------------------------------------------ files ----------------------------------------- */

/* The file's path, to be freed; NULL: there is none. Named ones need not exist yet. */
static char *find_file(const char *named, const char *name)
{
    const char *home = getenv("HOME"), *config = getenv("XDG_CONFIG_HOME");
    char *path;

    if (named)
        return cli_strdup(named);
    path = cli_format("./%s", name);
    if (access(path, F_OK) == 0)
        return path;
    free(path);
    if (config && *config)
        path = cli_format("%s/shardy/%s", config, name);
    else if (home && *home)
        path = cli_format("%s/.config/shardy/%s", home, name);
    else
        return NULL;
    if (access(path, F_OK) == 0)
        return path;
    free(path);
    return NULL;
}

static bool load_file(struct toml_document **out, const char *what, const char *path)
{
    struct text t = {0};
    char why[512];

    if (!text_read_file(&t, path, SETTINGS_MAX_BYTES, why, sizeof(why))) {
        text_free(&t);
        return complain("%s file %s cannot be read: %s", what, path, why);
    }
    *out = toml_parse(text_str(&t), t.n, why, sizeof(why));
    text_free(&t);
    return *out || complain("%s file %s is no TOML: %s", what, path, why);
}

/* A place in a file, for messages. */
struct at {
    const struct toml_document *toml;
    const char *path, *table;
};

/* NULL: not there, or empty. */
static bool text_at(const struct at *at, const char *key, const char **out)
{
    struct toml_value v = toml_get(at->toml, at->table, key);

    *out = NULL;
    if (v.kind == TOML_NONE)
        return true;
    if (v.kind != TOML_TEXT)
        return complain("%s: [%s] %s must be a text", at->path, at->table, key);
    *out = *v.text ? v.text : NULL;
    return true;
}

/* *index stays when there is nothing. */
static bool choice_at(const struct at *at, const char *key, const char *choices, uint64_t *index, bool *has)
{
    const char *text;

    if (!text_at(at, key, &text))
        return false;
    if (text && !parse_choice(choices, text, index))
        return complain("%s: [%s] %s is '%s', which is not one of %s", at->path, at->table, key, text, choices);
    if (text && has)
        *has = true;
    return true;
}

static bool bool_at(const struct at *at, const char *key, bool *out)
{
    struct toml_value v = toml_get(at->toml, at->table, key);

    if (v.kind != TOML_NONE && v.kind != TOML_BOOL)
        return complain("%s: [%s] %s must be true or false", at->path, at->table, key);
    if (v.kind == TOML_BOOL)
        *out = v.boolean;
    return true;
}

static bool number_at(const struct at *at, const char *key, bool whole, double least, double *out)
{
    struct toml_value v = toml_get(at->toml, at->table, key);

    if (v.kind == TOML_NONE)
        return true;
    if ((v.kind != TOML_INTEGER && (whole || v.kind != TOML_REAL)) || !(v.real >= least) || v.real > 1e18)
        return complain("%s: [%s] %s must be a %snumber from %.0f", at->path, at->table, key, whole ? "whole " : "",
                        least);
    *out = v.real;
    return true;
}

/* The name that is next to what somebody wrote: that itself, if it is one; NULL when none is near. */
static const char *nearest(const char *written, const char *const *names)
{
    size_t least = 5; /* endpoint is four letters from endpoint_url */
    const char *best = NULL;

    for (; *names; names++) {
        size_t d = text_distance(written, *names);

        if (d < least && d < strlen(*names)) {
            least = d;
            best = *names;
        }
    }
    return best;
}

/* Unknown keys are ignored (17.2), but not in silence: most are misspelled. */
struct unknown {
    const struct settings *s;
    const char *path, *table;
    const char *const *names;
};

static void warn_of_key(void *of, const char *key)
{
    const struct unknown *u = of;
    const char *best = nearest(key, u->names);

    if (best && strcmp(best, key) == 0)
        return;
    if (best)
        warn(u->s, "%s: [%s] has no key '%s', which is ignored; did you mean '%s'?", u->path, u->table, key, best);
    else
        warn(u->s, "%s: [%s] has no key '%s', which is ignored", u->path, u->table, key);
}

static void warn_of_keys(const struct settings *s, const struct at *at, const char *const *names)
{
    toml_each_key(at->toml, at->table, warn_of_key, &(struct unknown){s, at->path, at->table, names});
}

/* ------------------------------------------------------------------ reader.toml ----------------------------------- */

static const char *const reader_keys[] = {"current_url",
                                          "s3_prefix",
                                          "local_root",
                                          "slate_env_file",
                                          "credentials_profile",
                                          "reader_backend",
                                          "sqlite_mode",
                                          "thread_safety",
                                          "max_workers",
                                          "pool_checkout_timeout",
                                          "sqlite_auto_per_shard_threshold_bytes",
                                          "sqlite_auto_total_budget_bytes",
                                          NULL};
static const char *const store_keys[] = {"backend", "dsn", "table_name", "pointer_table_name", "ensure_table", NULL};
static const char *const output_keys[] = {"format", "value_encoding", "null_repr", NULL};
static const struct {
    const char *name;
    const char *const *keys;
} tables[] = {{"reader", reader_keys}, {"manifest_store", store_keys}, {"output", output_keys}};

static void warn_of_table(void *of, const char *name)
{
    const struct unknown *u = of;

    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        if (strcmp(name, tables[i].name) == 0)
            return;
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        const char *best = nearest(name, tables[i].keys);

        if (best && strcmp(best, name) == 0) {
            warn(u->s, "%s: '%s' is ignored: it belongs below [%s]", u->path, name, tables[i].name);
            return;
        }
    }
    warn(u->s, "%s: '%s' is ignored: there are [reader], [manifest_store] and [output]", u->path, name);
}

static char *copy_or_null(const char *text)
{
    return text ? cli_strdup(text) : NULL;
}

static bool take_reader(struct settings *s, const struct at *at, const char **profile)
{
    const char *text, *prefix;
    uint64_t mode = s->sqlite_mode, ignored = 0;
    double shard_bytes = (double)s->sqlite_shard_bytes, total_bytes = (double)s->sqlite_total_bytes;
    double number = 0;

    if (!text_at(at, "current_url", &text) || !text_at(at, "s3_prefix", &prefix))
        return false;
    if (!s->current_url && text)
        s->current_url = cli_strdup(text);
    else if (!s->current_url && prefix)
        s->current_url = cli_format("%s/_CURRENT", prefix);
    s->s3_prefix = copy_or_null(prefix);
    if (!text_at(at, "local_root", &text))
        return false;
    if (text) {
        free(s->local_root);
        s->local_root = cli_strdup(text);
    }
    if (!text_at(at, "slate_env_file", &text))
        return false;
    if (text)
        s->env_file = cli_strdup(text);
    if (!text_at(at, "credentials_profile", profile) ||
        !choice_at(at, "reader_backend", "slatedb|sqlite", &ignored, NULL) ||
        !choice_at(at, "sqlite_mode", "download|range|auto", &mode, NULL) || !text_at(at, "thread_safety", &text) ||
        !number_at(at, "max_workers", true, 1, &number) || !number_at(at, "pool_checkout_timeout", false, 0, &number) ||
        !number_at(at, "sqlite_auto_per_shard_threshold_bytes", true, 0, &shard_bytes) ||
        !number_at(at, "sqlite_auto_total_budget_bytes", true, 0, &total_bytes))
        return false;
    s->sqlite_mode = (enum sqlite_mode)mode;
    s->sqlite_shard_bytes = shard_bytes < 9e18 ? (uint64_t)shard_bytes : UINT64_MAX;
    s->sqlite_total_bytes = total_bytes < 9e18 ? (uint64_t)total_bytes : UINT64_MAX;
    return true;
}

/* Where a pointer is named by an option or a variable, that counts. */
static bool take_manifest_store(struct settings *s, const struct at *at, bool named)
{
    const char *dsn, *table, *pointer, *env = getenv("SHARDY_MANIFEST_DSN");
    uint64_t backend = 0;
    bool ensure = true;

    if (!choice_at(at, "backend", "s3|postgres", &backend, NULL) || !text_at(at, "dsn", &dsn) ||
        !text_at(at, "table_name", &table) || !text_at(at, "pointer_table_name", &pointer))
        return false;
    if (!bool_at(at, "ensure_table", &ensure))
        return false;
    s->keep_tables = !ensure;
    s->table_name = copy_or_null(table);
    s->pointer_table_name = copy_or_null(pointer);
    if (backend == 0 || named)
        return true;
    s->dsn = copy_or_null(env && *env ? env : dsn);
    return s->dsn || complain("%s: [manifest_store] backend is 'postgres', and neither dsn nor SHARDY_MANIFEST_DSN says "
                              "where that is",
                              at->path);
}

static bool take_output(struct settings *s, const struct at *at)
{
    uint64_t format = s->format, encoding = s->encoding;
    struct toml_value v = toml_get(at->toml, at->table, "null_repr");

    if (!choice_at(at, "format", cli_options[OPT_OUTPUT_FORMAT].choices, &format, &s->has_format) ||
        !choice_at(at, "value_encoding", cli_options[OPT_VALUE_ENCODING].choices, &encoding, &s->has_encoding))
        return false;
    s->format = (enum out_format)format;
    s->encoding = (enum out_encoding)encoding;
    if (v.kind == TOML_TEXT) { /* an empty one is one */
        free(s->null_repr);
        s->null_repr = cli_strdup(v.text);
    } else if (v.kind != TOML_NONE) {
        return complain("%s: [output] null_repr must be a text", at->path);
    }
    return true;
}

static bool take_config(struct settings *s, const struct toml_document *toml, const char *path, const char **profile)
{
    bool named = s->current_url;

    toml_each_key(toml, NULL, warn_of_table, &(struct unknown){.s = s, .path = path});
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        warn_of_keys(s, &(struct at){toml, path, tables[i].name}, tables[i].keys);
    return take_reader(s, &(struct at){toml, path, "reader"}, profile) &&
           take_manifest_store(s, &(struct at){toml, path, "manifest_store"}, named) &&
           take_output(s, &(struct at){toml, path, "output"});
}

/* ------------------------------------------------------------------ how to reach S3 ------------------------------- */

static bool parse_bool(const char *text, bool *out)
{
    static const char *const yes[] = {"true", "1", "yes"}, *const no[] = {"false", "0", "no"};

    for (size_t i = 0; i < 3; i++)
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *out = strcasecmp(text, yes[i]) == 0;
            return true;
        }
    return false;
}

/* One setting of a transport, by the name that it has in files and in --s3-option. `real` is NaN unless it is
 * a number. */
struct s3_setting {
    const char *where, *key, *text;
    struct toml_value v;
};

static bool number_of(const struct s3_setting *x, uint64_t least, uint64_t most, uint64_t *out)
{
    bool good = x->text ? parse_uint(x->text, least, most, out)
                        : (x->v.kind == TOML_INTEGER || x->v.kind == TOML_REAL) && x->v.real >= (double)least &&
                              x->v.real <= (double)most;

    if (good && !x->text)
        *out = (uint64_t)x->v.real;
    return good || complain("%s: %s must be a whole number from %llu to %llu", x->where, x->key,
                            (unsigned long long)least, (unsigned long long)most);
}

static bool take_verify(struct settings *s, const struct s3_setting *x)
{
    bool verify = true;

    if (x->v.kind == TOML_BOOL)
        verify = x->v.boolean;
    else if (x->text && strchr(x->text, '/'))
        keep_text(s, &s->s3.ca_bundle, x->text);
    else if (!x->text || !parse_bool(x->text, &verify))
        return complain("%s: verify_ssl must be true, false, or the path of a PEM file", x->where);
    s->s3.insecure = !verify;
    return true;
}

static bool take_addressing(struct settings *s, const struct s3_setting *x)
{
    static const sf_addressing styles[] = {SF_ADDRESSING_PATH, SF_ADDRESSING_VIRTUAL, SF_ADDRESSING_AUTO};
    uint64_t i;

    if (!x->text || !parse_choice("path|virtual|auto", x->text, &i))
        return complain("%s: addressing_style must be path, virtual or auto", x->where);
    s->s3.addressing = styles[i];
    return true;
}

/* Of profiles; those from the fourth on are --s3-option's, too. */
static const char *const profile_keys[] = {"access_key_id",    "secret_access_key",
                                           "session_token",    "endpoint_url",
                                           "region",           "region_name",
                                           "addressing_style", "signature_version",
                                           "verify_ssl",       "connect_timeout",
                                           "read_timeout",     "max_attempts",
                                           "request_payer",    NULL};
static const char *const *const s3_keys = profile_keys + 3;

static bool take_s3(struct settings *s, const struct s3_setting *x)
{
    uint64_t n = 0;
    bool flag = true;

    if (strcmp(x->key, "verify_ssl") == 0)
        return take_verify(s, x);
    if (strcmp(x->key, "addressing_style") == 0)
        return take_addressing(s, x);
    if (strcmp(x->key, "connect_timeout") == 0 || strcmp(x->key, "read_timeout") == 0) {
        if (!number_of(x, 1, 86400, &n))
            return false;
        *(x->key[0] == 'c' ? &s->s3.connect_timeout_ms : &s->s3.read_timeout_ms) = (int64_t)n * 1000;
        return true;
    }
    if (strcmp(x->key, "max_attempts") == 0) {
        if (!number_of(x, 1, 1000, &n))
            return false;
        s->s3.max_retries = (int32_t)n - 1;
        return true;
    }
    if (strcmp(x->key, "request_payer") == 0) {
        if (x->v.kind == TOML_BOOL)
            flag = x->v.boolean;
        else if (!x->text || (strcmp(x->text, "requester") != 0 && !parse_bool(x->text, &flag)))
            return complain("%s: request_payer must be true, false or requester", x->where);
        s->s3.requester_pays = flag;
        return true;
    }
    if (!x->text)
        return complain("%s: %s must be a text", x->where, x->key);
    if (strcmp(x->key, "endpoint_url") == 0)
        keep_text(s, &s->s3.endpoint_url, x->text);
    else if (strncmp(x->key, "region", 6) == 0)
        keep_text(s, &s->s3.region, x->text);
    else if (strcmp(x->key, "signature_version") == 0 && strcmp(x->text, "s3v4") != 0 && strcmp(x->text, "s3") != 0)
        return complain("%s: signature_version must be s3v4 or s3", x->where);
    return true;
}

/* Others can read what is in it. */
static void warn_of_permissions(const struct settings *s, const char *path)
{
    struct stat st;

    if (!s->quiet && stat(path, &st) == 0 && (st.st_mode & 077))
        fprintf(stderr, "Warning: credentials file %s has permissions %04o \xe2\x80\x94 consider restricting to 0600.\n",
                path, (unsigned)(st.st_mode & 07777));
}

static bool take_profile(struct settings *s, const struct toml_document *toml, const char *path, const char *profile)
{
    struct at at = {toml, path, profile};
    const char *key, *secret, *token;
    char *where;
    bool good = true;

    if (!toml_has_table(toml, profile))
        return complain("Credentials profile '%s' not found in %s", profile, path);
    if (!text_at(&at, "access_key_id", &key) || !text_at(&at, "secret_access_key", &secret) ||
        !text_at(&at, "session_token", &token))
        return false;
    if ((key != NULL) != (secret != NULL))
        return complain("%s: [%s] has one of access_key_id and secret_access_key: both are needed", path, profile);
    keep_text(s, &s->s3.access_key_id, key ? key : "");
    keep_text(s, &s->s3.secret_access_key, secret ? secret : "");
    keep_text(s, &s->s3.session_token, token ? token : "");
    s->s3.connect_timeout_ms = 10000;
    s->s3.read_timeout_ms = 30000;
    s->s3.max_retries = 2;
    warn_of_keys(s, &at, profile_keys);
    where = cli_format("%s: [%s]", path, profile);
    for (size_t i = 0; s3_keys[i] && good; i++) {
        struct s3_setting x = {where, s3_keys[i], NULL, toml_get(toml, profile, s3_keys[i])};

        x.text = x.v.kind == TOML_TEXT ? x.v.text : NULL;
        good = x.v.kind == TOML_NONE || (x.text && !*x.text) || take_s3(s, &x);
    }
    free(where);
    return good;
}

static bool take_s3_option(struct settings *s, const char *pair)
{
    const char *equals = strchr(pair, '=');
    char *key = cli_strndup(pair, (size_t)(equals - pair));
    const char *best = nearest(key, s3_keys);
    bool good;

    if (best && strcmp(best, key) == 0)
        good = take_s3(s, &(struct s3_setting){"--s3-option", key, equals + 1, {TOML_NONE}});
    else if (best)
        good = complain("--s3-option: there is no setting '%s'; did you mean %s?", key, best);
    else
        good = complain("--s3-option: there is no setting '%s': 'shardy --help' has them", key);
    free(key);
    return good;
}

/* ------------------------------------------------------------------ the file for shards --------------------------- */

/* Of a name that is set twice the later value counts. */
static const char *find_variable(void *ctx, const char *name)
{
    const struct settings *s = ctx;

    for (size_t i = s->variable_count; i > 0; i--)
        if (strcmp(s->variables[i - 1].name, name) == 0)
            return s->variables[i - 1].value;
    return NULL;
}

static void add_variable(struct settings *s, const char *name, const char *value)
{
    s->variables = cli_realloc(s->variables, s->variable_count + 1, sizeof(*s->variables));
    s->variables[s->variable_count++] = (struct env_variable){cli_strdup(name), cli_strdup(value)};
}

/* What shards are reached with beside everything else. One that cannot be read is as if it were not there. */
static bool load_env_file(struct settings *s)
{
    struct text t = {0}, name = {0}, value = {0};
    char why[256];
    const char *p;
    bool good = true;

    s->shard_s3 = s->s3;
    if (!s->env_file)
        return true;
    if (!text_read_file(&t, s->env_file, SETTINGS_MAX_BYTES, why, sizeof(why))) {
        if (!s->quiet)
            fprintf(stderr, "Warning: slate_env_file %s cannot be read: %s\n", s->env_file, why);
    } else if (strlen(text_str(&t)) != t.n || !text_is_utf8((sf_bytes){(const uint8_t *)t.p, t.n})) {
        good = complain("slate_env_file %s is no UTF-8", s->env_file);
    } else {
        p = text_str(&t);
        while (dotenv_next(&p, &name, &value))
            add_variable(s, text_str(&name), text_str(&value));
        sf_s3_options_take_variables(&s->shard_s3, find_variable, s);
    }
    text_free(&t);
    text_free(&name);
    text_free(&value);
    return good;
}

/* ------------------------------------------------------------------ all of them ----------------------------------- */

static bool load_files(struct settings *s, const struct args *a)
{
    char *config = find_file(given_or_env(a, OPT_CONFIG, "SHARDY_CONFIG"), "reader.toml");
    char *credentials = find_file(given_or_env(a, OPT_CREDENTIALS, "SHARDY_CREDENTIALS"), "credentials.toml");
    struct toml_document *reader = NULL, *secrets = NULL;
    const char *profile = NULL;
    bool good = !config || (load_file(&reader, "Configuration", config) && take_config(s, reader, config, &profile));

    if (good && credentials) {
        warn_of_permissions(s, credentials);
        good = load_file(&secrets, "Credentials", credentials) &&
               take_profile(s, secrets, credentials, profile ? profile : "default");
    }
    if (credentials)
        s->profile = cli_strdup(profile ? profile : "default"); /* it lies in the document */
    toml_free(reader);
    toml_free(secrets);
    s->config_path = config;
    s->credentials_path = credentials;
    return good;
}

static void take_options(struct settings *s, const struct args *a)
{
    if (args_has(a, OPT_OUTPUT_FORMAT)) {
        s->format = (enum out_format)a->opt[OPT_OUTPUT_FORMAT].number;
        s->has_format = true;
    }
    if (args_has(a, OPT_VALUE_ENCODING)) {
        s->encoding = (enum out_encoding)a->opt[OPT_VALUE_ENCODING].number;
        s->has_encoding = true;
    }
    if (args_has(a, OPT_SQLITE_MODE))
        s->sqlite_mode = (enum sqlite_mode)a->opt[OPT_SQLITE_MODE].number;
    if (args_has(a, OPT_SQLITE_SHARD_BYTES))
        s->sqlite_shard_bytes = a->opt[OPT_SQLITE_SHARD_BYTES].number;
    if (args_has(a, OPT_SQLITE_TOTAL_BYTES))
        s->sqlite_total_bytes = a->opt[OPT_SQLITE_TOTAL_BYTES].number;
    if (args_has(a, OPT_TIMEOUT))
        s->timeout_ms = a->opt[OPT_TIMEOUT].real < 1e12 ? (int64_t)(a->opt[OPT_TIMEOUT].real * 1000) : SF_TIMEOUT_NONE;
    if (args_has(a, OPT_MAX_RETRIES))
        s->s3.max_retries = (int32_t)a->opt[OPT_MAX_RETRIES].number;
}

static bool is_postgres(const char *url)
{
    return strncmp(url, "postgresql://", 13) == 0 || strncmp(url, "postgres://", 11) == 0;
}

bool settings_load(struct settings *s, const struct args *a)
{
    const char *url = given_or_env(a, OPT_CURRENT_URL, "SHARDY_CURRENT"), *temp = getenv("TMPDIR");
    sf_reader_options defaults = SF_READER_OPTIONS_INIT;
    bool good;

    *s = (struct settings){
        .current_url = url ? cli_strdup(url) : NULL,
        .local_root = cli_format("%s/shardyfusion", temp && *temp ? temp : "/tmp"),
        .null_repr = cli_strdup("null"),
        .format = FORMAT_JSONL,
        .sqlite_mode = SQLITE_AUTO,
        .sqlite_shard_bytes = defaults.sqlite_shard_bytes,
        .sqlite_total_bytes = defaults.sqlite_total_bytes,
        .timeout_ms = 60000,
        .colour = a->opt[OPT_COLOR].number,
        .quiet = args_has(a, OPT_NO_WARN),
        .s3 = SF_S3_OPTIONS_INIT,
    };
    good = load_files(s, a);
    for (size_t i = 0; i < a->pair_count && good; i++)
        if (a->pairs[i].id == OPT_S3_OPTION)
            good = take_s3_option(s, a->pairs[i].text);
    take_options(s, a);
    if (!s->dsn && s->current_url && is_postgres(s->current_url)) {
        s->dsn = s->current_url;
        s->current_url = NULL;
    }
    return good && load_env_file(s);
}

void settings_free(struct settings *s)
{
    for (size_t i = 0; i < s->owned_count; i++)
        free(s->owned[i]);
    for (size_t i = 0; i < s->variable_count; i++) {
        free(s->variables[i].name);
        free(s->variables[i].value);
    }
    free(s->variables);
    free(s->current_url);
    free(s->dsn);
    free(s->table_name);
    free(s->pointer_table_name);
    free(s->s3_prefix);
    free(s->local_root);
    free(s->env_file);
    free(s->config_path);
    free(s->credentials_path);
    free(s->profile);
    free(s->null_repr);
    *s = (struct settings){0};
}
