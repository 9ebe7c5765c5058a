#include "store/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "net/url.h"

/* Real ones have a few hundred lines. */
#define MAX_FILE_BYTES (1u << 20)

static const struct {
    size_t offset;
    bool secret;
} string_fields[] = {
    {offsetof(sf_s3_options, endpoint_url), false},     {offsetof(sf_s3_options, region), false},
    {offsetof(sf_s3_options, access_key_id), true},     {offsetof(sf_s3_options, secret_access_key), true},
    {offsetof(sf_s3_options, session_token), true},     {offsetof(sf_s3_options, profile), false},
    {offsetof(sf_s3_options, ca_bundle), false},
};
#define STRING_FIELDS (sizeof(string_fields) / sizeof(string_fields[0]))

static const char **string_field(sf_s3_options *o, size_t i)
{
    return (const char **)((char *)o + string_fields[i].offset);
}

/* ------------------------------------------------------------------ INI ------------------------------------------ */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static sf_bytes trim(sf_bytes b)
{
    while (b.n > 0 && is_blank(b.p[0]))
        b = sf_bytes_of(b.p + 1, b.n - 1);
    while (b.n > 0 && is_blank(b.p[b.n - 1]))
        b.n--;
    return b;
}

static sf_bytes take_line(sf_bytes *text)
{
    const uint8_t *end = memchr(text->p, '\n', text->n);
    size_t n = end ? (size_t)(end - text->p) : text->n;
    sf_bytes line = sf_bytes_of(text->p, n);

    *text = sf_bytes_of(text->p + n + (end != NULL), text->n - n - (end != NULL));
    return line;
}

/* A comment behind a value begins with " #" or " ;"; without the blank it belongs to the value. */
static sf_bytes cut_comment(sf_bytes b)
{
    for (size_t i = 1; i < b.n; i++)
        if ((b.p[i] == '#' || b.p[i] == ';') && is_blank(b.p[i - 1]))
            return trim(sf_bytes_of(b.p, i));
    return b;
}

void sf__ini_parse(sf_bytes text, void (*on_item)(void *ctx, const sf_ini_item *item), void *ctx)
{
    sf_bytes section = {0}, last = {0};

    while (text.n > 0) {
        sf_bytes line = take_line(&text), body = trim(line);
        bool indented = line.n > 0 && is_blank(line.p[0]);
        const uint8_t *sign;
        sf_ini_item item = {.section = section};
        size_t n;

        if (body.n == 0 || body.p[0] == '#' || body.p[0] == ';')
            continue;
        if (body.p[0] == '[' && !indented) {
            sign = memchr(body.p, ']', body.n);
            section = sign ? trim(sf_bytes_of(body.p + 1, (size_t)(sign - body.p) - 1)) : (sf_bytes){0};
            last = (sf_bytes){0};
            continue;
        }
        sign = memchr(body.p, '=', body.n);
        if (!sign)
            continue;
        n = (size_t)(sign - body.p);
        item.name = trim(sf_bytes_of(body.p, n));
        item.value = trim(cut_comment(sf_bytes_of(body.p + n + 1, body.n - n - 1)));
        if (indented)
            item.parent = last;
        else
            last = item.name;
        if (section.n > 0 && item.name.n > 0)
            on_item(ctx, &item);
    }
}

/* ------------------------------------------------------------------ profiles ------------------------------------- */

static bool equals(sf_bytes b, const char *s)
{
    return sf_bytes_eq(b, sf_bytes_str(s));
}

/* What a profile says; a file that is read earlier wins. */
struct profile {
    const char *name;
    const sf_allocator *alloc;
    char *access_key, *secret_key, *token;
    char *region, *endpoint, *s3_endpoint, *services, *addressing, *ca_bundle;
    bool found;
    const char *elsewhere; /* a way to credentials that we cannot go; static text */
    bool is_config;        /* the file being read: there sections are called "profile NAME" */
    bool nomem;
};

static void profile_wipe(struct profile *p, char **s)
{
    if (*s)
        explicit_bzero(*s, strlen(*s));
    sf__free(p->alloc, *s);
    *s = NULL;
}

static void profile_cleanup(struct profile *p)
{
    char **all[] = {&p->access_key, &p->secret_key, &p->token, &p->region, &p->endpoint, &p->s3_endpoint,
                    &p->services, &p->addressing, &p->ca_bundle};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        profile_wipe(p, all[i]);
}

static void profile_set(struct profile *p, char **to, sf_bytes value)
{
    if (*to || value.n == 0 || memchr(value.p, '\0', value.n))
        return;
    *to = sf__strndup(p->alloc, value.p, value.n);
    if (!*to)
        p->nomem = true;
}

/* Whether `section` is `word` NAME. */
static bool section_is(sf_bytes section, const char *word, const char *name)
{
    size_t n = strlen(word);

    if (!sf_bytes_starts_with(section, sf_bytes_str(word)) || section.n == n || !is_blank(section.p[n]))
        return false;
    return equals(trim(sf_bytes_of(section.p + n, section.n - n)), name);
}

static void profile_on_item(void *ctx, const sf_ini_item *it)
{
    static const char *const other_ways[] = {"role_arn",       "credential_process", "sso_session",
                                             "sso_start_url", "credential_source",  "web_identity_token_file"};
    struct profile *p = ctx;
    bool plain = equals(it->section, p->name);
    bool ours = p->is_config ? section_is(it->section, "profile", p->name) ||
                                   (plain && strcmp(p->name, "default") == 0) : plain;
    const struct {
        const char *parent, *name;
        char **to;
    } settings[] = {
        {"", "aws_access_key_id", &p->access_key}, {"", "aws_secret_access_key", &p->secret_key},
        {"", "aws_session_token", &p->token},      {"", "region", &p->region},
        {"", "endpoint_url", &p->endpoint},        {"", "services", &p->services},
        {"", "ca_bundle", &p->ca_bundle},          {"s3", "addressing_style", &p->addressing},
        {"s3", "endpoint_url", &p->s3_endpoint},
    };

    if (!ours)
        return;
    p->found = true;
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        if (equals(it->parent, settings[i].parent) && equals(it->name, settings[i].name))
            profile_set(p, settings[i].to, it->value);
    for (size_t i = 0; i < sizeof(other_ways) / sizeof(other_ways[0]); i++)
        if (it->parent.n == 0 && equals(it->name, other_ways[i]))
            p->elsewhere = other_ways[i];
}

/* [services NAME] holds the endpoint of each service below its name. */
static void services_on_item(void *ctx, const sf_ini_item *it)
{
    struct profile *p = ctx;

    if (section_is(it->section, "services", p->services) && equals(it->parent, "s3") && equals(it->name, "endpoint_url"))
        profile_set(p, &p->s3_endpoint, it->value);
}

/* ------------------------------------------------------------------ files ---------------------------------------- */

struct text_file {
    char *s;
    size_t n;
};

static void text_file_cleanup(struct text_file *f, const sf_allocator *a)
{
    if (f->s)
        explicit_bzero(f->s, f->n);
    sf__free(a, f->s);
    *f = (struct text_file){0};
}

static sf_status read_all(int fd, struct text_file *f, const sf_allocator *a, sf_error *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return sf_fail(err, SF_INVALID, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return SF_OK; /* /dev/null stands for "no file" */
    if (st.st_size > (off_t)MAX_FILE_BYTES)
        return sf_fail(err, SF_INVALID, "more than %u bytes", MAX_FILE_BYTES);
    f->s = sf__alloc(a, (size_t)st.st_size + 1);
    if (!f->s)
        return sf_fail(err, SF_NOMEM, "%lld bytes", (long long)st.st_size);
    while (f->n < (size_t)st.st_size) {
        ssize_t n = read(fd, f->s + f->n, (size_t)st.st_size - f->n);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sf_fail(err, SF_INVALID, "%s", strerror(errno));
        if (n == 0)
            break;
        f->n += (size_t)n;
    }
    return SF_OK;
}

/* A file that is not there is an empty one. One in a home that is closed to us is, too, unless somebody named it. */
static sf_status read_file(const char *path, bool named, struct text_file *f, const sf_allocator *a, sf_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    sf_status rc;

    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR || (errno == EACCES && !named))
            return SF_OK;
        return sf_fail(err, SF_INVALID, "%s: %s", path, strerror(errno));
    }
    rc = read_all(fd, f, a, err);
    close(fd);
    if (rc != SF_OK) {
        text_file_cleanup(f, a);
        sf_error_prefix(err, rc, "%s: ", path);
    }
    return rc;
}

/* ------------------------------------------------------------------ resolving ------------------------------------ */

struct resolver {
    sf_getenv_fn env;
    void *env_ctx;
    const sf_allocator *alloc;
    sf_s3_options *out;
    struct profile profile;
    const char *named; /* the profile that somebody asked for by name, or NULL */
};

static const char *from_process(void *ctx, const char *name)
{
    return getenv(name);
}

/* The first of the names that is set; NULL-terminated. */
static const char *from_env(const struct resolver *r, const char *const *names)
{
    for (; *names; names++) {
        const char *v = r->env(r->env_ctx, *names);

        if (v && *v)
            return v;
    }
    return NULL;
}
#define FROM_ENV(r, ...) from_env(r, (const char *const[]){__VA_ARGS__, NULL})

static sf_status set_string(struct resolver *r, const char **to, const char *value, sf_error *err)
{
    if (*to || !value || !*value)
        return SF_OK;
    *to = sf__strdup(r->alloc, value);
    return *to ? SF_OK : sf_fail(err, SF_NOMEM, "S3 options");
}

/* The caller's part. An older caller's struct is shorter; a newer one's must be empty where we do not know it. */
static sf_status take_arguments(struct resolver *r, const sf_s3_options *opts, sf_error *err)
{
    sf_s3_options in = SF_S3_OPTIONS_INIT;

    if (opts) {
        const uint8_t *tail = (const uint8_t *)opts + sizeof(in);

        if (opts->size < sizeof(in.size))
            return sf_fail(err, SF_INVALID, "S3 options: size is not set");
        for (size_t i = sizeof(in); i < opts->size; i++)
            if (*tail++ != 0)
                return sf_fail(err, SF_UNSUPPORTED, "S3 options: a newer field is set");
        memcpy(&in, opts, opts->size < sizeof(in) ? opts->size : sizeof(in));
    }
    *r->out = in;
    r->out->size = sizeof(in);
    for (size_t i = 0; i < STRING_FIELDS; i++)
        *string_field(r->out, i) = NULL;
    for (size_t i = 0; i < STRING_FIELDS; i++)
        if (set_string(r, string_field(r->out, i), *string_field(&in, i), err) != SF_OK)
            return SF_NOMEM;
    return SF_OK;
}

static sf_status open_shared(const struct resolver *r, const char *variable, const char *usual, struct text_file *f,
                             sf_error *err)
{
    const char *home = FROM_ENV(r, "HOME"), *named = FROM_ENV(r, variable);
    char *path;
    sf_status rc;

    if (named && !(named[0] == '~' && named[1] == '/'))
        return read_file(named, true, f, r->alloc, err);
    if (!home)
        return SF_OK;
    path = sf__asprintf(r->alloc, "%s/%s", home, named ? named + 2 : usual);
    if (!path)
        return sf_fail(err, SF_NOMEM, "path");
    rc = read_file(path, named != NULL, f, r->alloc, err);
    sf__free(r->alloc, path);
    return rc;
}

static sf_bytes text_of(const struct text_file *f)
{
    return sf_bytes_of(f->s, f->n);
}

static sf_status read_profile(struct resolver *r, sf_error *err)
{
    struct profile *p = &r->profile;
    struct text_file credentials = {0}, config = {0};
    sf_status rc;

    r->named = r->out->profile ? r->out->profile : FROM_ENV(r, "AWS_PROFILE", "AWS_DEFAULT_PROFILE");
    p->name = r->named ? r->named : "default";
    p->alloc = r->alloc;
    rc = open_shared(r, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", &credentials, err);
    if (rc == SF_OK)
        rc = open_shared(r, "AWS_CONFIG_FILE", ".aws/config", &config, err);
    if (rc == SF_OK) {
        sf__ini_parse(text_of(&credentials), profile_on_item, p);
        p->is_config = true;
        sf__ini_parse(text_of(&config), profile_on_item, p);
        if (p->services)
            sf__ini_parse(text_of(&config), services_on_item, p);
    }
    text_file_cleanup(&credentials, r->alloc);
    text_file_cleanup(&config, r->alloc);
    if (rc == SF_OK && p->nomem)
        rc = sf_fail(err, SF_NOMEM, "profile");
    if (rc == SF_OK && r->named && !p->found)
        rc = sf_fail(err, SF_INVALID, "profile \"%s\" is in neither the shared credentials nor the config file", p->name);
    return rc;
}

static sf_status take_pair(struct resolver *r, const char *id, const char *secret, const char *token, const char *whence,
                           sf_error *err)
{
    sf_s3_options *o = r->out;

    if (!id && !secret)
        return SF_OK;
    if (!id || !secret)
        return sf_fail(err, SF_INVALID, "S3 credentials %s: %s is missing", whence,
                       id ? "the secret access key" : "the access key id");
    if (set_string(r, &o->access_key_id, id, err) != SF_OK || set_string(r, &o->secret_access_key, secret, err) != SF_OK ||
        set_string(r, &o->session_token, token, err) != SF_OK)
        return SF_NOMEM;
    return SF_OK;
}

static sf_status take_environment_pair(struct resolver *r, sf_error *err)
{
    return take_pair(r, FROM_ENV(r, "S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
                     FROM_ENV(r, "S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
                     FROM_ENV(r, "S3_SESSION_TOKEN", "AWS_SESSION_TOKEN"), "in the environment", err);
}

static sf_status take_profile_pair(struct resolver *r, sf_error *err)
{
    const struct profile *p = &r->profile;

    if (!p->access_key && !p->secret_key && p->elsewhere)
        return sf_fail(err, SF_UNSUPPORTED, "profile \"%s\" gets its credentials through %s, which is not supported: "
                       "give keys", p->name, p->elsewhere);
    return take_pair(r, p->access_key, p->secret_key, p->token, "in the profile", err);
}

/* Bytes that would end a header, or that no key has. */
static sf_status check_secret(const char *s, const char *what, sf_error *err)
{
    for (; s && *s; s++)
        if ((unsigned char)*s <= ' ' || *s == 0x7f)
            return sf_fail(err, SF_INVALID, "S3 credentials: %s holds a blank or control character", what);
    return SF_OK;
}

static sf_status resolve_credentials(struct resolver *r, sf_error *err)
{
    sf_s3_options *o = r->out;
    bool profile_first = o->profile != NULL;
    sf_status rc = SF_OK;

    if (o->anonymous) {
        for (size_t i = 0; i < STRING_FIELDS; i++) {
            const char **s = string_field(o, i);

            if (string_fields[i].secret && *s) {
                explicit_bzero((char *)*s, strlen(*s));
                sf__free(r->alloc, (char *)*s);
                *s = NULL;
            }
        }
        return SF_OK;
    }
    if (o->access_key_id || o->secret_access_key)
        rc = take_pair(r, o->access_key_id, o->secret_access_key, NULL, "in the options", err);
    else if (o->session_token)
        rc = sf_fail(err, SF_INVALID, "S3 credentials in the options: a session token without its keys");
    else
        rc = profile_first ? take_profile_pair(r, err) : take_environment_pair(r, err);
    if (rc == SF_OK && !o->access_key_id)
        rc = profile_first ? take_environment_pair(r, err) : take_profile_pair(r, err);
    if (rc == SF_OK)
        rc = check_secret(o->access_key_id, "the access key id", err);
    if (rc == SF_OK)
        rc = check_secret(o->secret_access_key, "the secret access key", err);
    if (rc == SF_OK)
        rc = check_secret(o->session_token, "the session token", err);
    return rc;
}

static sf_status check_region(const char *s, sf_error *err)
{
    for (; *s; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || *s == '-' || *s == '_'))
            return sf_fail(err, SF_INVALID, "S3 region: only letters, digits, - and _ may be in a name");
    return SF_OK;
}

static sf_status check_endpoint(const char *s, sf_error *err)
{
    sf_url url;
    bool http;

    if (sf__url_split(&url, s, err) != SF_OK)
        return sf_error_prefix(err, SF_INVALID, "S3 endpoint: ");
    http = equals(url.scheme, "http") || equals(url.scheme, "https");
    if (!http || url.host.n == 0)
        return sf_fail(err, SF_INVALID, "S3 endpoint: not an http:// or https:// URL");
    if (url.userinfo.n > 0 || url.query.n > 0)
        return sf_fail(err, SF_INVALID, "S3 endpoint: neither credentials nor a query may be part of the URL");
    return SF_OK;
}

static sf_status resolve_place(struct resolver *r, sf_error *err)
{
    sf_s3_options *o = r->out;
    const struct profile *p = &r->profile;
    char *standard;
    sf_status rc;

    if (set_string(r, &o->region, FROM_ENV(r, "S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"), err) != SF_OK ||
        set_string(r, &o->region, p->region, err) != SF_OK || set_string(r, &o->region, "us-east-1", err) != SF_OK ||
        set_string(r, &o->endpoint_url, FROM_ENV(r, "SLATEDB_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
                   err) != SF_OK ||
        set_string(r, &o->endpoint_url, p->s3_endpoint, err) != SF_OK ||
        set_string(r, &o->endpoint_url, p->endpoint, err) != SF_OK ||
        set_string(r, &o->ca_bundle, FROM_ENV(r, "AWS_CA_BUNDLE"), err) != SF_OK ||
        set_string(r, &o->ca_bundle, p->ca_bundle, err) != SF_OK)
        return SF_NOMEM;
    rc = check_region(o->region, err);
    if (rc != SF_OK)
        return rc;
    if (!o->endpoint_url) {
        /* China is a partition with a domain of its own */
        standard = sf__asprintf(r->alloc, "https://s3.%s.amazonaws.com%s", o->region,
                                strncmp(o->region, "cn-", 3) == 0 ? ".cn" : "");
        if (!standard)
            return sf_fail(err, SF_NOMEM, "S3 endpoint");
        o->endpoint_url = standard;
    }
    return check_endpoint(o->endpoint_url, err);
}

static bool is_true(const char *s)
{
    return s && (strcasecmp(s, "true") == 0 || strcmp(s, "1") == 0 || strcasecmp(s, "yes") == 0 ||
                 strcasecmp(s, "on") == 0);
}

static void resolve_addressing(struct resolver *r)
{
    const char *wish = FROM_ENV(r, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"), *style = r->profile.addressing;

    if (r->out->addressing != SF_ADDRESSING_AUTO)
        return;
    if (wish)
        r->out->addressing = is_true(wish) ? SF_ADDRESSING_VIRTUAL : SF_ADDRESSING_PATH;
    else
        r->out->addressing = style && strcmp(style, "virtual") == 0 ? SF_ADDRESSING_VIRTUAL : SF_ADDRESSING_PATH;
}

static sf_status resolve_numbers(sf_s3_options *o, sf_error *err)
{
    const struct {
        int64_t *value, usual;
        const char *name;
    } numbers[] = {
        {&o->connect_timeout_ms, 5000, "connect_timeout_ms"}, {&o->read_timeout_ms, 30000, "read_timeout_ms"},
        {&o->retry_base_ms, 200, "retry_base_ms"},            {&o->retry_cap_ms, 4000, "retry_cap_ms"},
        {&o->retry_total_ms, 30000, "retry_total_ms"},
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (*numbers[i].value < 0)
            return sf_fail(err, SF_INVALID, "S3 options: %s is negative", numbers[i].name);
        if (*numbers[i].value == 0)
            *numbers[i].value = numbers[i].usual;
    }
    if (o->max_retries < -1)
        return sf_fail(err, SF_INVALID, "S3 options: max_retries is negative");
    if (o->max_retries == -1)
        o->max_retries = 5;
    if ((unsigned)o->addressing > SF_ADDRESSING_VIRTUAL)
        return sf_fail(err, SF_INVALID, "S3 options: unknown addressing");
    return SF_OK;
}

sf_status sf__s3_options_resolve(sf_s3_options **out, const sf_s3_options *opts, sf_getenv_fn env, void *env_ctx,
                                 const sf_allocator *a, sf_error *err)
{
    struct resolver r = {.env = env ? env : from_process, .env_ctx = env_ctx, .alloc = a};
    sf_status rc;

    r.profile.alloc = a;
    r.out = sf__calloc(a, 1, sizeof(*r.out));
    if (!r.out)
        return sf_fail(err, SF_NOMEM, "S3 options");
    rc = take_arguments(&r, opts, err);
    if (rc == SF_OK)
        rc = resolve_numbers(r.out, err);
    if (rc == SF_OK)
        rc = read_profile(&r, err);
    if (rc == SF_OK)
        rc = resolve_credentials(&r, err);
    if (rc == SF_OK)
        rc = resolve_place(&r, err);
    if (rc == SF_OK)
        resolve_addressing(&r);
    profile_cleanup(&r.profile);
    if (rc == SF_OK)
        *out = r.out;
    else
        sf__s3_options_free(r.out, a);
    return rc;
}

sf_s3_options *sf__s3_options_copy(const sf_s3_options *opts, const sf_allocator *a)
{
    sf_s3_options *o = sf__alloc(a, sizeof(*o));
    bool complete = true;

    if (!o)
        return NULL;
    *o = *opts;
    for (size_t i = 0; i < STRING_FIELDS; i++) {
        const char **s = string_field(o, i);

        if (!*s)
            continue;
        *s = sf__strdup(a, *s);
        complete = complete && *s;
    }
    if (complete)
        return o;
    sf__s3_options_free(o, a);
    return NULL;
}

void sf__s3_options_free(sf_s3_options *opts, const sf_allocator *a)
{
    if (!opts)
        return;
    for (size_t i = 0; i < STRING_FIELDS; i++) {
        char *s = (char *)*string_field(opts, i);

        if (s && string_fields[i].secret)
            explicit_bzero(s, strlen(s));
        sf__free(a, s);
    }
    sf__free(a, opts);
}
