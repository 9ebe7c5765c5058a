#include "store/s3_options.h"

#include "auth/credentials.h"
#include "base/error.h"
#include "base/options.h"
#include "net/ca_bundle.h"
#include "net/url.h"

static const struct {
    size_t offset;
    bool secret;
} string_fields[] = {
    {offsetof(sf_s3_options, endpoint_url), false}, {offsetof(sf_s3_options, region), false},
    {offsetof(sf_s3_options, access_key_id), true}, {offsetof(sf_s3_options, secret_access_key), true},
    {offsetof(sf_s3_options, session_token), true}, {offsetof(sf_s3_options, profile), false},
    {offsetof(sf_s3_options, ca_bundle), false},
};
#define STRING_FIELDS (sizeof(string_fields) / sizeof(string_fields[0]))

static const char **string_field(sf_s3_options *o, size_t i)
{
    return (const char **)((char *)o + string_fields[i].offset);
}

/* ------------------------------------------------------------------ resolving ------------------------------------ */

struct resolver {
    const sf_environment *env;
    const sf_allocator *alloc;
    sf_s3_options *out;
    const sf_profile *profile;
    sf_endpoint_choice endpoints;
};

static sf_status set_string(struct resolver *r, const char **to, const char *value, sf_error *err)
{
    if (*to || !value || !*value)
        return SF_OK;
    *to = sf__strdup(r->alloc, value);
    return *to ? SF_OK : sf_fail(err, SF_NOMEM, "S3 options");
}

/* The caller's part. */
static sf_status take_arguments(struct resolver *r, const sf_s3_options *opts, sf_error *err)
{
    sf_s3_options in = SF_S3_OPTIONS_INIT;
    sf_status rc = sf__options_take(&in, sizeof(in), opts, "S3 options", err);

    if (rc != SF_OK)
        return rc;
    *r->out = in;
    if (in.events)
        sf_store_events_acquire(in.events);
    for (size_t i = 0; i < STRING_FIELDS; i++)
        *string_field(r->out, i) = NULL;
    for (size_t i = 0; i < STRING_FIELDS; i++)
        if (set_string(r, string_field(r->out, i), *string_field(&in, i), err) != SF_OK)
            return SF_NOMEM;
    return SF_OK;
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
    http = sf__url_scheme_is(url.scheme, "http") || sf__url_scheme_is(url.scheme, "https");
    if (!http || url.host.n == 0)
        return sf_fail(err, SF_INVALID, "S3 endpoint: not an http:// or https:// URL");
    if (url.userinfo.n > 0 || url.query.n > 0)
        return sf_fail(err, SF_INVALID, "S3 endpoint: neither credentials nor a query may be part of the URL");
    return SF_OK;
}

static bool is_on(const struct resolver *r, const char *variable, const char *in_profile)
{
    const char *said = SF_ENV(r->env, variable);

    return sf__is_true(said ? said : in_profile);
}

static void resolve_choice(struct resolver *r)
{
    const sf_profile *p = r->profile;

    r->endpoints.ignore_configured = is_on(r, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", p->ignore_endpoints);
    r->endpoints.fips = is_on(r, "AWS_USE_FIPS_ENDPOINT", p->use_fips);
    r->endpoints.dualstack = is_on(r, "AWS_USE_DUALSTACK_ENDPOINT", p->use_dualstack);
    if (sf__region_resolve((char *)r->out->region))
        r->endpoints.fips = true;
}

static sf_status resolve_endpoint(struct resolver *r, sf_error *err)
{
    sf_s3_options *o = r->out;
    const sf_profile *p = r->profile;
    sf_endpoint_choice choice = r->endpoints;
    char *standard;
    sf_status rc;

    if (set_string(r, &o->endpoint_url, SF_ENV(r->env, "SLATEDB_S3_ENDPOINT_URL"), err) != SF_OK)
        return SF_NOMEM;
    if (!choice.ignore_configured &&
        (set_string(r, &o->endpoint_url, SF_ENV(r->env, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), err) != SF_OK ||
         set_string(r, &o->endpoint_url, p->s3_endpoint, err) != SF_OK ||
         set_string(r, &o->endpoint_url, p->endpoint, err) != SF_OK))
        return SF_NOMEM;
    if (!o->endpoint_url) {
        choice.dualstack = choice.dualstack || sf__is_true(p->s3_dualstack);
        rc = sf__aws_endpoint(&standard, "s3", o->region, &choice, r->alloc, err);
        if (rc != SF_OK)
            return sf_error_prefix(err, rc, "S3 endpoint: ");
        o->endpoint_url = standard;
    }
    return check_endpoint(o->endpoint_url, err);
}

static sf_status resolve_place(struct resolver *r, sf_error *err)
{
    sf_s3_options *o = r->out;
    const sf_profile *p = r->profile;
    const char *found;
    sf_status rc;

    if (set_string(r, &o->region, SF_ENV(r->env, "S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"), err) != SF_OK ||
        set_string(r, &o->region, p->region, err) != SF_OK || set_string(r, &o->region, "us-east-1", err) != SF_OK ||
        set_string(r, &o->ca_bundle, SF_ENV(r->env, "AWS_CA_BUNDLE"), err) != SF_OK ||
        set_string(r, &o->ca_bundle, p->ca_bundle, err) != SF_OK ||
        set_string(r, &o->ca_bundle, SF_ENV(r->env, "SSL_CERT_FILE"), err) != SF_OK)
        return SF_NOMEM;
    if (!o->ca_bundle && sf__ca_bundle_of_system(&found) && set_string(r, &o->ca_bundle, found, err) != SF_OK)
        return SF_NOMEM;
    rc = check_region(o->region, err);
    if (rc != SF_OK)
        return rc;
    resolve_choice(r);
    return resolve_endpoint(r, err);
}

/* As object_store and AWS's own tools spell it. */
static void take_payer(sf_s3_options *o, const sf_environment *env)
{
    const char *payer = SF_ENV(env, "AWS_REQUEST_PAYER");

    o->requester_pays = o->requester_pays || sf__is_true(payer) || (payer && strcasecmp(payer, "requester") == 0);
}

static void take_addressing(sf_s3_options *o, const sf_environment *env)
{
    const char *wish = SF_ENV(env, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST");

    if (wish)
        o->addressing = sf__is_true(wish) ? SF_ADDRESSING_VIRTUAL : SF_ADDRESSING_PATH;
}

void sf_s3_options_take_variables(sf_s3_options *o, const char *(*get)(void *ctx, const char *name), void *ctx)
{
    const sf_environment env = {.get = get, .ctx = ctx};
    const struct {
        const char *name, **text;
    } texts[] = {{"AWS_ACCESS_KEY_ID", &o->access_key_id},
                 {"AWS_SECRET_ACCESS_KEY", &o->secret_access_key},
                 {"AWS_SESSION_TOKEN", &o->session_token},
                 {"AWS_ENDPOINT_URL", &o->endpoint_url},
                 {"AWS_REGION", &o->region}};

    if (sf__env_get(&env, "AWS_ACCESS_KEY_ID")) {
        o->session_token = NULL;
        o->credential_source = NULL;
    }
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const char *said = SF_ENV(&env, texts[i].name);

        if (said)
            *texts[i].text = said;
    }
    take_payer(o, &env);
    take_addressing(o, &env);
}

static void resolve_addressing(struct resolver *r)
{
    const char *style = r->profile->addressing;

    if (r->out->addressing == SF_ADDRESSING_AUTO)
        take_addressing(r->out, r->env);
    if (r->out->addressing == SF_ADDRESSING_AUTO)
        r->out->addressing = style && strcmp(style, "virtual") == 0 ? SF_ADDRESSING_VIRTUAL : SF_ADDRESSING_PATH;
}

static sf_status resolve_numbers(sf_s3_options *o, sf_error *err)
{
    const struct {
        int64_t *value, usual;
        const char *name;
    } numbers[] = {
        {&o->connect_timeout_ms, 5000, "connect_timeout_ms"},
        {&o->read_timeout_ms, 30000, "read_timeout_ms"},
        {&o->retry_base_ms, 200, "retry_base_ms"},
        {&o->retry_cap_ms, 4000, "retry_cap_ms"},
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

/* Keys and source have moved to the origin: one home, one place to overwrite. */
static void drop_credentials(sf_s3_options *o, const sf_allocator *a)
{
    o->credential_source = NULL;
    for (size_t i = 0; i < STRING_FIELDS; i++) {
        const char **s = string_field(o, i);

        if (!string_fields[i].secret)
            continue;
        sf__secret_free(a, (char *)*s);
        *s = NULL;
    }
}

static sf_status resolve_all(sf_s3_resolved *out, const sf_s3_options *opts, const sf_environment *env,
                             sf_shared_files *files, sf_profile *profile, const sf_allocator *a, sf_error *err)
{
    struct resolver r = {.env = env, .alloc = a, .out = &out->options, .profile = profile};
    const char *named;
    sf_status rc = take_arguments(&r, opts, err);

    if (rc == SF_OK)
        rc = resolve_numbers(r.out, err);
    if (rc != SF_OK)
        return rc;
    named = r.out->profile ? r.out->profile : SF_ENV(env, "AWS_PROFILE", "AWS_DEFAULT_PROFILE");
    rc = sf__shared_files_read(files, env, a, err);
    if (rc == SF_OK)
        rc = sf__profile_read(profile, files, named ? named : "default", err);
    if (rc == SF_OK && named && !sf__profile_found(profile))
        rc = sf_fail(err, SF_INVALID, "profile \"%s\" is in neither the shared credentials nor the config file (%s, %s)",
                     named, files->credentials_path ? files->credentials_path : "no home",
                     files->config_path ? files->config_path : "no home");
    if (rc == SF_OK)
        rc = resolve_place(&r, err);
    if (rc == SF_OK)
        rc = sf__credential_origin_find(&out->origin,
                                        &(sf_origin_search){.options = r.out,
                                                            .env = env,
                                                            .files = files,
                                                            .profile = profile,
                                                            .profile_name = named ? named : "default",
                                                            .endpoints = r.endpoints},
                                        a, err);
    if (rc == SF_OK) {
        resolve_addressing(&r);
        take_payer(r.out, r.env);
    }
    return rc;
}

/* What no header can carry is refused now, not at the first request. */
static sf_status check_given(const sf_credential_origin *o, const sf_allocator *a, sf_error *err)
{
    sf_credentials *c;
    sf_status rc;

    if (!o->access_key_id)
        return SF_OK;
    rc = sf__credential_origin_keys(&c, o, a, err);
    if (rc == SF_OK)
        sf__credentials_release(c);
    return rc;
}

sf_status sf__s3_options_resolve(sf_s3_resolved **out, const sf_s3_options *opts, sf_getenv_fn env, void *env_ctx,
                                 const sf_allocator *a, sf_error *err)
{
    const sf_environment environment = {env, env_ctx};
    sf_shared_files files = {.alloc = a};
    sf_profile profile = {.alloc = a};
    sf_s3_resolved *r = sf__calloc(a, 1, sizeof(*r));
    sf_status rc;

    if (!r)
        return sf_fail(err, SF_NOMEM, "S3 options");
    rc = resolve_all(r, opts, &environment, &files, &profile, a, err);
    sf__profile_cleanup(&profile);
    sf__shared_files_cleanup(&files);
    if (rc == SF_OK)
        rc = check_given(&r->origin, a, err);
    drop_credentials(&r->options, a);
    if (rc == SF_OK)
        *out = r;
    else
        sf__s3_resolved_free(r, a);
    return rc;
}

void sf__s3_resolved_free(sf_s3_resolved *r, const sf_allocator *a)
{
    if (!r)
        return;
    for (size_t i = 0; i < STRING_FIELDS; i++)
        sf__secret_free(a, (char *)*string_field(&r->options, i));
    sf_store_events_release(r->options.events);
    sf__credential_origin_cleanup(&r->origin);
    sf__free(a, r);
}
