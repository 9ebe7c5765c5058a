#include "auth/credential_origin.h"

#include <strings.h>

#include <openssl/evp.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "net/url.h"

#define MAX_ROLE_DEPTH 4u
#define CONTAINER_HOST "http://169.254.170.2"
#define MACHINE_ENDPOINT "http://169.254.169.254"
#define MACHINE_ENDPOINT_IPV6 "http://[fd00:ec2::254]"

const char *sf__origin_name(sf_origin_kind kind)
{
    switch (kind) {
    case SF_ORIGIN_NONE:
        return "nobody";
    case SF_ORIGIN_GIVEN:
        return "keys";
    case SF_ORIGIN_SOURCE:
        return "provider";
    case SF_ORIGIN_WEB_IDENTITY:
        return "web identity";
    case SF_ORIGIN_ROLE:
        return "assumed role";
    case SF_ORIGIN_SSO:
        return "SSO";
    case SF_ORIGIN_PROCESS:
        return "credential_process";
    case SF_ORIGIN_CONTAINER:
        return "container endpoint";
    case SF_ORIGIN_MACHINE:
        return "instance metadata";
    }
    return "unknown";
}

/* Neither a command, nor the path of a container's endpoint, which serves whoever knows it. */
static void describe(sf_strbuf *b, const sf_credential_origin *o)
{
    sf__strbuf_puts(b, sf__origin_name(o->kind));
    if (o->kind == SF_ORIGIN_GIVEN && o->session_token)
        sf__strbuf_puts(b, " with a session token");
    if (o->kind == SF_ORIGIN_MACHINE)
        sf__strbuf_printf(b, " at %s%s", o->endpoint, o->optional ? ", if anybody answers there" : "");
    if (o->where)
        sf__strbuf_printf(b, " of %s", o->where);
    if (o->role_arn)
        sf__strbuf_printf(b, ", %s", o->role_arn);
    if (o->file)
        sf__strbuf_printf(b, ", by %s", o->file);
    if (o->base) {
        sf__strbuf_puts(b, ", with ");
        describe(b, o->base);
    }
}

char *sf__credential_origin_describe(const sf_credential_origin *o, const sf_allocator *a)
{
    sf_strbuf b;

    sf__strbuf_init(&b, a);
    describe(&b, o);
    return sf__strbuf_detach(&b);
}

/* ------------------------------------------------------------------ texts ---------------------------------------- */

static const size_t texts[] = {
    offsetof(sf_credential_origin, access_key_id), offsetof(sf_credential_origin, secret_access_key),
    offsetof(sf_credential_origin, session_token), offsetof(sf_credential_origin, endpoint),
    offsetof(sf_credential_origin, region),        offsetof(sf_credential_origin, role_arn),
    offsetof(sf_credential_origin, session_name),  offsetof(sf_credential_origin, external_id),
    offsetof(sf_credential_origin, file),          offsetof(sf_credential_origin, authorization),
    offsetof(sf_credential_origin, account),       offsetof(sf_credential_origin, role_name),
    offsetof(sf_credential_origin, command),       offsetof(sf_credential_origin, ca_bundle),
    offsetof(sf_credential_origin, looked_at),     offsetof(sf_credential_origin, where),
};
#define TEXTS (sizeof(texts) / sizeof(texts[0]))

static char **text_at(const sf_credential_origin *o, size_t i)
{
    return (char **)((char *)o + texts[i]);
}

void sf__credential_origin_cleanup(sf_credential_origin *o)
{
    for (size_t i = 0; i < TEXTS; i++) {
        char **s = text_at(o, i);

        if (*s)
            explicit_bzero(*s, strlen(*s));
        sf__free(o->alloc, *s);
    }
    sf__asker_release(o->asker);
    if (o->base) {
        sf__credential_origin_cleanup(o->base);
        sf__free(o->alloc, o->base);
    }
    *o = (sf_credential_origin){0};
}

static sf_status nomem(sf_error *err)
{
    return sf_fail(err, SF_NOMEM, "credentials");
}

sf_status sf__credential_origin_copy(sf_credential_origin *out, const sf_credential_origin *from, const sf_allocator *a,
                                     sf_error *err)
{
    sf_credential_origin o = {.kind = from->kind, .alloc = a, .optional = from->optional};
    bool complete = true;

    for (size_t i = 0; i < TEXTS; i++) {
        const char *s = *text_at(from, i);

        if (s)
            *text_at(&o, i) = sf__strdup(a, s);
        complete = complete && (!s || *text_at(&o, i));
    }
    if (from->asker)
        o.asker = sf__asker_acquire(from->asker);
    if (complete && from->base) {
        o.base = sf__calloc(a, 1, sizeof(*o.base));
        complete = o.base && sf__credential_origin_copy(o.base, from->base, a, err) == SF_OK;
    }
    if (!complete) {
        sf__credential_origin_cleanup(&o);
        return nomem(err);
    }
    *out = o;
    return SF_OK;
}

sf_status sf__credential_origin_keys(sf_credentials **out, const sf_credential_origin *o, const sf_allocator *a,
                                     sf_error *err)
{
    return sf__credentials_new(out, sf_bytes_str(o->access_key_id), sf_bytes_str(o->secret_access_key),
                               sf_bytes_str(o->session_token ? o->session_token : ""),
                               o->asker ? sf__asker_source(o->asker)->expires_us : 0, a, err);
}

/* ------------------------------------------------------------------ the search ----------------------------------- */

struct search {
    const sf_origin_search *in;
    const sf_allocator *alloc;
    sf_error *err;
};

static sf_status set(const struct search *s, char **to, const char *value)
{
    if (!value || !*value)
        return SF_OK;
    *to = sf__strdup(s->alloc, value);
    return *to ? SF_OK : nomem(s->err);
}

/* Whether both halves are there; half a pair is an error. */
static sf_status take_keys(const struct search *s, sf_credential_origin *o, const char *id, const char *secret,
                           const char *token, const char *where)
{
    if (!id && !secret)
        return SF_OK;
    if (!id || !secret)
        return sf_fail(s->err, SF_INVALID, "S3 credentials in %s: %s is missing", where,
                       id ? "the secret access key" : "the access key id");
    o->kind = SF_ORIGIN_GIVEN;
    if (set(s, &o->access_key_id, id) != SF_OK || set(s, &o->secret_access_key, secret) != SF_OK ||
        set(s, &o->session_token, token) != SF_OK)
        return SF_NOMEM;
    return set(s, &o->where, where);
}

/* What a profile says. */
static sf_status set_profile(const struct search *s, sf_credential_origin *o, const char *name)
{
    o->where = sf__asprintf(s->alloc, "profile \"%s\"", name);
    return o->where ? SF_OK : nomem(s->err);
}

/* Of a service other than S3: its own variable, the one for all, what the profile says, or the public endpoint. */
static sf_status set_endpoint(const struct search *s, sf_credential_origin *o, const char *variable,
                              const char *in_profile, const char *service, const char *region)
{
    const char *named = s->in->endpoints.ignore_configured ? NULL : SF_ENV(s->in->env, variable, "AWS_ENDPOINT_URL");
    sf_status rc;
    size_t n;

    if (!named && !s->in->endpoints.ignore_configured)
        named = in_profile ? in_profile : s->in->profile->endpoint;
    rc = named ? set(s, &o->endpoint, named)
               : sf__aws_endpoint(&o->endpoint, service, region, &s->in->endpoints, s->alloc, s->err);
    if (rc != SF_OK)
        return rc;
    n = strlen(o->endpoint);
    while (n > 0 && o->endpoint[n - 1] == '/')
        o->endpoint[--n] = '\0';
    return SF_OK;
}

/* What the search's profile says of the token service: also for the roles of other profiles, as botocore does. */
static sf_status set_sts_endpoint(const struct search *s, sf_credential_origin *o)
{
    return set_endpoint(s, o, "AWS_ENDPOINT_URL_STS", s->in->profile->sts_endpoint, "sts", s->in->options->region);
}

static sf_status take_web_identity(const struct search *s, sf_credential_origin *o, const char *file, const char *role,
                                   const char *session)
{
    o->kind = SF_ORIGIN_WEB_IDENTITY;
    if (set(s, &o->file, file) != SF_OK || set(s, &o->role_arn, role) != SF_OK ||
        set(s, &o->session_name, session ? session : "shardyfusion") != SF_OK)
        return SF_NOMEM;
    return set_sts_endpoint(s, o);
}

static sf_status take_environment_keys(const struct search *s, sf_credential_origin *o)
{
    const sf_environment *env = s->in->env;

    return take_keys(s, o, SF_ENV(env, "S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
                     SF_ENV(env, "S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
                     SF_ENV(env, "S3_SESSION_TOKEN", "AWS_SESSION_TOKEN"), "the environment");
}

static sf_status take_environment(const struct search *s, sf_credential_origin *o)
{
    const sf_environment *env = s->in->env;
    const char *file = SF_ENV(env, "AWS_WEB_IDENTITY_TOKEN_FILE"), *role = SF_ENV(env, "AWS_ROLE_ARN");
    sf_status rc = take_environment_keys(s, o);

    if (rc != SF_OK || o->kind != SF_ORIGIN_NONE || !file)
        return rc;
    if (!role)
        return sf_fail(s->err, SF_INVALID, "AWS_WEB_IDENTITY_TOKEN_FILE is set, AWS_ROLE_ARN is not");
    rc = set(s, &o->where, "the environment");
    return rc == SF_OK ? take_web_identity(s, o, file, role, SF_ENV(env, "AWS_ROLE_SESSION_NAME")) : rc;
}

/* Credentials travel to this address: in the clear only within the machine, or to the two link-local ones of ECS and EKS. */
static sf_status check_container_url(const struct search *s, const char *text)
{
    static const char *const hosts[] = {"localhost", "[::1]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"};
    sf_url url;
    sf_status rc = sf__url_split(&url, text, s->err);

    if (rc != SF_OK)
        return sf_error_prefix(s->err, rc, "AWS_CONTAINER_CREDENTIALS_FULL_URI: ");
    if (sf_bytes_eq(url.scheme, sf_bytes_str("https")))
        return SF_OK;
    if (sf_bytes_eq(url.scheme, sf_bytes_str("http"))) {
        for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
            if (sf_bytes_eq(url.host, sf_bytes_str(hosts[i])))
                return SF_OK;
        if (sf_bytes_starts_with(url.host, sf_bytes_str("127.")) &&
            strspn((const char *)url.host.p, "0123456789.") >= url.host.n)
            return SF_OK;
    }
    return sf_fail(s->err, SF_INVALID,
                   "AWS_CONTAINER_CREDENTIALS_FULL_URI: neither https nor an address of this machine");
}

static sf_status take_container(const struct search *s, sf_credential_origin *o)
{
    const sf_environment *env = s->in->env;
    const char *relative = SF_ENV(env, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
               *full = SF_ENV(env, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    sf_status rc;

    if (!relative && !full)
        return SF_OK;
    if (relative && relative[0] != '/')
        return sf_fail(s->err, SF_INVALID, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with a slash");
    if (!relative && (rc = check_container_url(s, full)) != SF_OK)
        return rc;
    o->kind = SF_ORIGIN_CONTAINER;
    o->endpoint = relative ? sf__asprintf(s->alloc, CONTAINER_HOST "%s", relative) : sf__strdup(s->alloc, full);
    if (!o->endpoint)
        return nomem(s->err);
    if (set(s, &o->file, SF_ENV(env, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")) != SF_OK ||
        (!o->file && set(s, &o->authorization, SF_ENV(env, "AWS_CONTAINER_AUTHORIZATION_TOKEN")) != SF_OK))
        return SF_NOMEM;
    return SF_OK;
}

static sf_status take_machine(const struct search *s, sf_credential_origin *o, bool optional)
{
    const sf_environment *env = s->in->env;
    const char *disabled = SF_ENV(env, "AWS_EC2_METADATA_DISABLED"),
               *mode = SF_ENV(env, "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"),
               *named = SF_ENV(env, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
    size_t n;

    if (disabled && strcasecmp(disabled, "true") == 0)
        return optional ? SF_OK : sf_fail(s->err, SF_INVALID, "the instance metadata are switched off");
    o->kind = SF_ORIGIN_MACHINE;
    o->optional = optional;
    if (!named)
        named = mode && strcasecmp(mode, "ipv6") == 0 ? MACHINE_ENDPOINT_IPV6 : MACHINE_ENDPOINT;
    if (set(s, &o->endpoint, named) != SF_OK)
        return SF_NOMEM;
    n = strlen(o->endpoint);
    while (n > 0 && o->endpoint[n - 1] == '/')
        o->endpoint[--n] = '\0';
    return SF_OK;
}

/* ------------------------------------------------------------------ profiles ------------------------------------- */

static sf_status take_profile(const struct search *s, sf_credential_origin *o, const sf_profile *p, const char *name,
                              unsigned depth);

/* Of the profile's keys one may be missing, or both be empty: never a reason to go unsigned. */
static sf_status take_profile_keys(const struct search *s, sf_credential_origin *o, const sf_profile *p, const char *name)
{
    char where[512];

    if (!p->access_key || !p->secret_key)
        return sf_fail(s->err, SF_INVALID, "profile \"%s\" in %s: %s is missing or empty", name, p->keys_path,
                       p->access_key ? "aws_secret_access_key" : "aws_access_key_id");
    snprintf(where, sizeof(where), "profile \"%s\" in %s", name, p->keys_path);
    return take_keys(s, o, p->access_key, p->secret_key, p->token, where);
}

static sf_status take_base(const struct search *s, sf_credential_origin *o, const sf_profile *p, const char *name,
                           unsigned depth)
{
    sf_profile other;
    sf_status rc;

    if (depth == MAX_ROLE_DEPTH)
        return sf_fail(s->err, SF_INVALID, "profile \"%s\": more than %u roles in a row", name, MAX_ROLE_DEPTH);
    if (p->source_profile && strcmp(p->source_profile, name) == 0) {
        rc = p->keys_path ? take_profile_keys(s, o, p, name) : SF_OK;
    } else if (p->source_profile) {
        rc = sf__profile_read(&other, s->in->files, p->source_profile, s->err);
        if (rc != SF_OK)
            return rc;
        rc = take_profile(s, o, &other, p->source_profile, depth + 1);
        sf__profile_cleanup(&other);
    } else if (strcasecmp(p->credential_source, "Environment") == 0) {
        rc = take_environment_keys(s, o);
    } else if (strcasecmp(p->credential_source, "EcsContainer") == 0) {
        rc = take_container(s, o);
    } else if (strcasecmp(p->credential_source, "Ec2InstanceMetadata") == 0) {
        rc = take_machine(s, o, false);
    } else {
        return sf_fail(s->err, SF_INVALID,
                       "profile \"%s\": credential_source is none of Environment, EcsContainer, "
                       "Ec2InstanceMetadata",
                       name);
    }
    if (rc == SF_OK && o->kind == SF_ORIGIN_NONE)
        rc = sf_fail(s->err, SF_INVALID, "profile \"%s\": nothing to assume its role with", name);
    return rc;
}

static sf_status take_role(const struct search *s, sf_credential_origin *o, const sf_profile *p, const char *name,
                           unsigned depth)
{
    sf_status rc;

    o->kind = SF_ORIGIN_ROLE;
    if (set_profile(s, o, name) != SF_OK)
        return SF_NOMEM;
    o->base = sf__calloc(s->alloc, 1, sizeof(*o->base));
    if (!o->base)
        return nomem(s->err);
    o->base->alloc = s->alloc;
    rc = take_base(s, o->base, p, name, depth);
    if (rc != SF_OK)
        return rc;
    if (set(s, &o->role_arn, p->role_arn) != SF_OK || set(s, &o->external_id, p->external_id) != SF_OK ||
        set(s, &o->session_name, p->role_session ? p->role_session : "shardyfusion") != SF_OK ||
        set(s, &o->region, s->in->options->region) != SF_OK)
        return SF_NOMEM;
    return set_sts_endpoint(s, o);
}

/* "$HOME/.aws/sso/cache/<SHA-1 of the session's name, or of the URL>.json", where `aws sso login` leaves it. */
static sf_status set_sso_file(const struct search *s, sf_credential_origin *o, const sf_profile *p)
{
    const char *home = s->in->files->home, *named = p->sso_session ? p->sso_session : p->sso_start_url;
    unsigned char raw[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    unsigned n;

    if (EVP_Digest(named, strlen(named), raw, &n, EVP_sha1(), NULL) != 1)
        return sf_fail(s->err, SF_UNSUPPORTED, "the cryptographic library refuses SHA-1, which names the SSO cache");
    sf__hex_format(hex, sf_bytes_of(raw, n));
    o->file = sf__asprintf(s->alloc, "%s/.aws/sso/cache/%s.json", home ? home : "", hex);
    return o->file ? SF_OK : nomem(s->err);
}

static sf_status take_sso(const struct search *s, sf_credential_origin *o, const sf_profile *p, const char *name)
{
    sf_status rc;

    if (!p->sso_start_url || !p->sso_region || !p->sso_account || !p->sso_role)
        return sf_fail(s->err, SF_INVALID,
                       "profile \"%s\": SSO needs sso_start_url, sso_region, sso_account_id and "
                       "sso_role_name",
                       name);
    o->kind = SF_ORIGIN_SSO;
    if (set_profile(s, o, name) != SF_OK || set(s, &o->account, p->sso_account) != SF_OK ||
        set(s, &o->role_name, p->sso_role) != SF_OK)
        return SF_NOMEM;
    rc = set_sso_file(s, o, p);
    if (rc != SF_OK)
        return rc;
    return set_endpoint(s, o, "AWS_ENDPOINT_URL_SSO", s->in->profile->sso_endpoint, "portal.sso", p->sso_region);
}

static sf_status take_profile(const struct search *s, sf_credential_origin *o, const sf_profile *p, const char *name,
                              unsigned depth)
{
    sf_status rc;

    if (!sf__profile_found(p) && depth > 0)
        return sf_fail(s->err, SF_INVALID,
                       "profile \"%s\", a source_profile, is in neither the shared credentials nor the "
                       "config file",
                       name);
    if (p->role_arn && p->web_identity_file)
        return set_profile(s, o, name) != SF_OK
                   ? SF_NOMEM
                   : take_web_identity(s, o, p->web_identity_file, p->role_arn, p->role_session);
    if (p->role_arn && (p->source_profile || p->credential_source))
        return take_role(s, o, p, name, depth);
    if (p->role_arn)
        return sf_fail(s->err, SF_INVALID,
                       "profile \"%s\": role_arn without source_profile, credential_source or "
                       "web_identity_token_file",
                       name);
    if (p->sso_session || p->sso_start_url)
        return take_sso(s, o, p, name);
    if (p->keys_path)
        return take_profile_keys(s, o, p, name);
    if (!p->process)
        return SF_OK;
    o->kind = SF_ORIGIN_PROCESS;
    rc = set_profile(s, o, name);
    return rc == SF_OK ? set(s, &o->command, p->process) : rc;
}

/* ------------------------------------------------------------------ all of it ------------------------------------ */

static sf_status take_arguments(const struct search *s, sf_credential_origin *o)
{
    const sf_s3_options *given = s->in->options;
    sf_status rc;

    if (given->session_token && !given->access_key_id && !given->secret_access_key)
        return sf_fail(s->err, SF_INVALID, "S3 credentials in the options: a session token without its keys");
    rc = take_keys(s, o, given->access_key_id, given->secret_access_key, given->session_token, "the options");
    if (rc != SF_OK || !given->credential_source)
        return rc;
    o->kind = SF_ORIGIN_SOURCE;
    return sf__asker_new(&o->asker, given->credential_source, s->err);
}

static sf_status search_all(const struct search *s, sf_credential_origin *o)
{
    const sf_s3_options *given = s->in->options;
    bool profile_first = given->profile != NULL;
    sf_status rc;

    if (given->anonymous)
        return SF_OK;
    rc = take_arguments(s, o);
    if (rc != SF_OK || o->kind != SF_ORIGIN_NONE)
        return rc;
    rc = profile_first ? take_profile(s, o, s->in->profile, s->in->profile_name, 0) : take_environment(s, o);
    if (rc == SF_OK && o->kind == SF_ORIGIN_NONE)
        rc = profile_first ? take_environment(s, o) : take_profile(s, o, s->in->profile, s->in->profile_name, 0);
    if (rc == SF_OK && o->kind == SF_ORIGIN_NONE)
        rc = take_container(s, o);
    if (rc == SF_OK && o->kind == SF_ORIGIN_NONE)
        rc = take_machine(s, o, true);
    return rc;
}

/* ------------------------------------------------------------------ none ----------------------------------------- */

static void add_file(sf_strbuf *b, const struct search *s, const sf_text_file *file, const char *path,
                     const char *usual, bool has_profile)
{
    sf__strbuf_printf(b, ", %.160s", path ? path : usual);
    if (!path)
        sf__strbuf_puts(b, " (HOME is not set)");
    else if (!file->s)
        sf__strbuf_printf(b, " (%s)", file->absent ? file->absent : "empty");
    else
        sf__strbuf_printf(b, has_profile ? " (no keys in [%s])" : " (no [%s])", s->in->profile_name);
}

/* For whoever is refused without them. */
static sf_status set_looked_at(const struct search *s, sf_credential_origin *o)
{
    const sf_shared_files *files = s->in->files;
    sf_strbuf b;

    sf__strbuf_init(&b, s->alloc);
    sf__strbuf_puts(&b, "the environment");
    add_file(&b, s, &files->credentials, files->credentials_path, "~/.aws/credentials", s->in->profile->in_credentials);
    add_file(&b, s, &files->config, files->config_path, "~/.aws/config", s->in->profile->in_config);
    if (o->kind == SF_ORIGIN_NONE)
        sf__strbuf_puts(&b, ", not the instance metadata (AWS_EC2_METADATA_DISABLED)");
    else
        sf__strbuf_printf(&b, ", the instance metadata at %.80s", o->endpoint);
    o->looked_at = sf__strbuf_detach(&b);
    return o->looked_at ? SF_OK : nomem(s->err);
}

sf_status sf__credential_origin_find(sf_credential_origin *out, const sf_origin_search *search, const sf_allocator *a,
                                     sf_error *err)
{
    struct search s = {.in = search, .alloc = a, .err = err};
    sf_credential_origin o = {.alloc = a};
    sf_status rc = search_all(&s, &o);

    if (rc == SF_OK && !search->options->anonymous && (o.kind == SF_ORIGIN_NONE || o.optional))
        rc = set_looked_at(&s, &o);
    if (rc == SF_OK && o.kind > SF_ORIGIN_SOURCE)
        rc = set(&s, &o.ca_bundle, search->options->ca_bundle);
    for (sf_credential_origin *base = o.base; rc == SF_OK && base; base = base->base)
        rc = set(&s, &base->ca_bundle, search->options->ca_bundle);
    if (rc == SF_OK)
        *out = o;
    else
        sf__credential_origin_cleanup(&o);
    return rc;
}
