/* What comes from where, in which order, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "store/s3_options.h"
#include "watcher.h"

static const sf_allocator *const a = &sf__allocator_default;

/* ------------------------------------------------------------------ resolving ------------------------------------ */

/* "NAME=value" strings, NULL-terminated. */
static const char *from_list(void *ctx, const char *name)
{
    size_t n = strlen(name);

    for (const char *const *e = ctx; *e; e++)
        if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
            return *e + n + 1;
    return NULL;
}

static char folder[] = "/tmp/sf-credentials-XXXXXX";
static char home[64];

static void write_file(const char *name, const char *text)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/.aws/%s", folder, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int make_files(void **state)
{
    char path[128];

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/.aws", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(home, sizeof(home), "HOME=%s", folder);
    write_file("credentials", "[default]\naws_access_key_id = FILEID\naws_secret_access_key = FILESECRET\n"
                              "[work]\naws_access_key_id = WORKID\naws_secret_access_key = WORK/SECRET+=\n"
                              "aws_session_token = WORKTOKEN\nregion = cred-region\n"
                              "[half]\naws_access_key_id = HALFID\n");
    write_file("config",
               "[default]\nregion = file-region\n"
               "[profile work]\nregion = work-region\naws_access_key_id = NOTTHIS\nendpoint_url = http://plain:1\n"
               "services = local\ns3 =\n  addressing_style = virtual\n"
               "[services local]\ns3 =\n  endpoint_url = http://services:2/pre\n"
               "[profile role]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = work\n"
               "[profile role-of-role]\nrole_arn = arn:aws:iam::1:role/y\nsource_profile = role\nrole_session_name = me\n"
               "[profile self]\nrole_arn = arn:z\nsource_profile = self\naws_access_key_id = SELFID\n"
               "aws_secret_access_key = s\n"
               "[profile env-role]\nrole_arn = arn:e\ncredential_source = Environment\n"
               "[profile circle]\nrole_arn = arn:c\nsource_profile = circle2\n"
               "[profile circle2]\nrole_arn = arn:c\nsource_profile = circle\n"
               "[profile of-nobody]\nrole_arn = arn:c\nsource_profile = nope\n"
               "[profile alone]\nrole_arn = arn:c\n"
               "[profile somewhere]\nrole_arn = arn:c\ncredential_source = Somewhere\n"
               "[profile web]\nrole_arn = arn:p\nweb_identity_token_file = /token\n"
               "[sso-session corp]\nsso_start_url = https://x.awsapps.com/start\nsso_region = eu-west-2\n"
               "[profile sso]\nsso_session = corp\nsso_account_id = 42\nsso_role_name = reader\n"
               "[profile old-sso]\nsso_start_url = https://x.awsapps.com/start\nsso_region = eu-west-2\n"
               "sso_account_id = 42\nsso_role_name = reader\n"
               "[profile half-sso]\nsso_session = corp\n"
               "[profile process]\ncredential_process = get 'some keys'\n"
               "[profile gov]\nregion = us-gov-west-1\nuse_fips_endpoint = true\nuse_dualstack_endpoint = false\n"
               "s3 =\n  use_dualstack_endpoint = true\n"
               "[profile ignoring]\nignore_configured_endpoint_urls = true\nendpoint_url = http://ignored\n"
               "[profile own-sts]\nrole_arn = arn:s\nsource_profile = work\nservices = fleet\nendpoint_url = http://all:5\n"
               "[services fleet]\nsts =\n  endpoint_url = http://sts:5/\n"
               "[profile empty]\n region = us-west-2\n");
    write_file("other", "[default]\naws_access_key_id = OTHERID\naws_secret_access_key = OTHERSECRET\n");
    return 0;
}

static int remove_files(void **state)
{
    static const char *const names[] = {".aws/credentials", ".aws/config", ".aws/other", ".aws"};
    char path[128];

    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        assert_int_equal(remove(path), 0);
    }
    return rmdir(folder);
}

/* ------------------------------------------------------------------ sources -------------------------------------- */

static int held;

static void source_get(void *ctx, sf_credential_answer *answer)
{
    sf_credential_answer_fail(answer, SF_DENIED, "nobody asks here");
}

static void source_retain(void *ctx)
{
    ++*(int *)ctx;
}

static void source_release(void *ctx)
{
    --*(int *)ctx;
}

#define SOURCE(...) {.size = sizeof(sf_credential_source), .ctx = &held, __VA_ARGS__}
static const sf_credential_source source = SOURCE(.get = source_get, .retain = source_retain, .release = source_release),
                                  mute = SOURCE(.retain = source_retain, .release = source_release),
                                  lost = SOURCE(.get = source_get, .retain = source_retain),
                                  sizeless = {.get = source_get};
static const struct {
    sf_credential_source known;
    uint64_t newer;
} newer = {{.size = sizeof(newer), .get = source_get}, 1};

/* ------------------------------------------------------------------ arguments ------------------------------------ */

#define ARGUMENTS(...) {.size = sizeof(sf_s3_options), .max_retries = -1, __VA_ARGS__}
#define MAX_ENV 8
/* Every case sees HOME, too, unless it sets its own. */
#define NO_HOME "HOME=/nonexistent"

/* id/secret/token, or "origin(endpoint ...)", then @region endpoint addressing */
static void describe(char *to, size_t n, const sf_s3_resolved *r)
{
    const sf_credential_origin *o = &r->origin;
    const sf_s3_options *s = &r->options;
    char keys[256];

    assert_null(s->access_key_id); /* they have one home */
    assert_null(s->secret_access_key);
    assert_null(s->session_token);
    if (o->access_key_id)
        snprintf(keys, sizeof(keys), "%s%s/%s/%s", o->kind == SF_ORIGIN_SOURCE ? "provider " : "", o->access_key_id,
                 o->secret_access_key, o->session_token ? o->session_token : "-");
    else if (o->kind == SF_ORIGIN_MACHINE && o->optional && strcmp(o->endpoint, "http://169.254.169.254") == 0)
        snprintf(keys, sizeof(keys), "-/-/-");
    else
        snprintf(keys, sizeof(keys), "%s(%s %s %s %s%s)", sf__origin_name(o->kind), o->endpoint ? o->endpoint : "-",
                 o->role_arn    ? o->role_arn
                 : o->role_name ? o->role_name
                 : o->command   ? o->command
                                : "-",
                 o->session_name    ? o->session_name
                 : o->account       ? o->account
                 : o->authorization ? o->authorization
                                    : "-",
                 o->file ? strstr(o->file, "/.aws/") ? strstr(o->file, "/.aws/") : o->file : "-",
                 o->base ? o->base->kind == SF_ORIGIN_GIVEN ? o->base->access_key_id : sf__origin_name(o->base->kind)
                         : "");
    snprintf(to, n, "%s@%s %s %s", keys, s->region, s->endpoint_url,
             s->addressing == SF_ADDRESSING_VIRTUAL ? "virtual" : "path");
}

/* Its name changes. */
static void hide_folder(char *s)
{
    for (char *at; (at = strstr(s, folder)) != NULL;) {
        memmove(at + 6, at + strlen(folder), strlen(at + strlen(folder)) + 1);
        memcpy(at, "FOLDER", 6);
    }
}

static void resolving(void **state)
{
    static const struct {
        const char *name;
        sf_s3_options opts;
        const char *env[MAX_ENV];
        const char *want; /* id/secret/token@region endpoint addressing, or the error */
    } cases[] = {
        /* clang-format off */
        {"defaults", ARGUMENTS(), {NO_HOME}, "-/-/-@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"default profile", ARGUMENTS(), {0},
         "FILEID/FILESECRET/-@file-region https://s3.file-region.amazonaws.com path"},
        {"environment over files", ARGUMENTS(),
         {"AWS_ACCESS_KEY_ID=E", "AWS_SECRET_ACCESS_KEY=S", "AWS_REGION=r-1", "AWS_ENDPOINT_URL=http://h:9"},
         "E/S/-@r-1 http://h:9 path"},
        {"S3_ over AWS_", ARGUMENTS(),
         {"AWS_ACCESS_KEY_ID=E", "AWS_SECRET_ACCESS_KEY=S", "S3_ACCESS_KEY_ID=E3", "S3_SECRET_ACCESS_KEY=S3",
          "S3_REGION=r3", "AWS_REGION=r-1", "S3_SESSION_TOKEN=T3"}, "E3/S3/T3@r3 https://s3.r3.amazonaws.com path"},
        {"variables one by one", ARGUMENTS(), {"S3_ACCESS_KEY_ID=E3", "AWS_SECRET_ACCESS_KEY=S", "AWS_SESSION_TOKEN=T", NO_HOME},
         "E3/S/T@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"empty is unset", ARGUMENTS(), {"AWS_ACCESS_KEY_ID=", "AWS_REGION=", "AWS_DEFAULT_REGION=dr", NO_HOME},
         "-/-/-@dr https://s3.dr.amazonaws.com path"},
        {"arguments over all", ARGUMENTS(.access_key_id = "A", .secret_access_key = "B", .region = "ar",
                                         .endpoint_url = "https://a/x"),
         {"AWS_ACCESS_KEY_ID=E", "AWS_SECRET_ACCESS_KEY=S", "AWS_SESSION_TOKEN=T", "AWS_REGION=r"}, "A/B/-@ar https://a/x path"},
        {"endpoint names", ARGUMENTS(), {"AWS_ENDPOINT_URL=http://c", "AWS_ENDPOINT_URL_S3=http://b",
                                         "SLATEDB_S3_ENDPOINT_URL=http://a", NO_HOME}, "-/-/-@us-east-1 http://a path"},
        {"service's endpoint name", ARGUMENTS(), {"AWS_ENDPOINT_URL=http://c", "AWS_ENDPOINT_URL_S3=http://b", NO_HOME},
         "-/-/-@us-east-1 http://b path"},
        {"a profile from the environment", ARGUMENTS(), {"AWS_PROFILE=work"},
         "WORKID/WORK/SECRET+=/WORKTOKEN@cred-region http://services:2/pre virtual"},
        {"variables over that profile", ARGUMENTS(), {"AWS_PROFILE=work", "AWS_ACCESS_KEY_ID=E", "AWS_SECRET_ACCESS_KEY=S"},
         "E/S/-@cred-region http://services:2/pre virtual"},
        {"a profile as argument", ARGUMENTS(.profile = "work"), {"AWS_ACCESS_KEY_ID=E", "AWS_SECRET_ACCESS_KEY=S", "AWS_REGION=r"},
         "WORKID/WORK/SECRET+=/WORKTOKEN@r http://services:2/pre virtual"},
        {"an indented first setting", ARGUMENTS(), {"AWS_PROFILE=empty"},
         "-/-/-@us-west-2 https://s3.us-west-2.amazonaws.com path"},
        {"another credentials file", ARGUMENTS(), {"AWS_SHARED_CREDENTIALS_FILE=~/.aws/other"},
         "OTHERID/OTHERSECRET/-@file-region https://s3.file-region.amazonaws.com path"},
        {"no config file", ARGUMENTS(), {"AWS_CONFIG_FILE=/dev/null"},
         "FILEID/FILESECRET/-@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"virtual", ARGUMENTS(), {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST=True", NO_HOME},
         "-/-/-@us-east-1 https://s3.us-east-1.amazonaws.com virtual"},
        {"not virtual", ARGUMENTS(), {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST=false", "AWS_PROFILE=work"},
         "WORKID/WORK/SECRET+=/WORKTOKEN@cred-region http://services:2/pre path"},
        {"addressing as argument", ARGUMENTS(.addressing = SF_ADDRESSING_VIRTUAL), {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST=false", NO_HOME},
         "-/-/-@us-east-1 https://s3.us-east-1.amazonaws.com virtual"},
        {"anonymous", ARGUMENTS(.anonymous = true, .access_key_id = "A", .secret_access_key = "B"), {"AWS_ACCESS_KEY_ID=E"},
         "nobody(- - - -)@file-region https://s3.file-region.amazonaws.com path"},
        {"china", ARGUMENTS(.region = "cn-north-1"), {NO_HOME}, "-/-/-@cn-north-1 https://s3.cn-north-1.amazonaws.com.cn path"},
        {"FIPS", ARGUMENTS(), {NO_HOME, "AWS_REGION=us-west-2", "AWS_USE_FIPS_ENDPOINT=true"},
         "-/-/-@us-west-2 https://s3-fips.us-west-2.amazonaws.com path"},
        {"FIPS by the region", ARGUMENTS(.region = "fips-us-west-2"), {NO_HOME, "AWS_USE_DUALSTACK_ENDPOINT=TRUE"},
         "-/-/-@us-west-2 https://s3-fips.dualstack.us-west-2.amazonaws.com path"},
        {"FIPS where there is none", ARGUMENTS(.region = "cn-north-1"), {NO_HOME, "AWS_USE_FIPS_ENDPOINT=true"},
         "INVALID: S3 endpoint: region cn-north-1: its partition, aws-cn, has no FIPS endpoints"},
        {"FIPS, but an endpoint", ARGUMENTS(.region = "cn-north-1"), {NO_HOME, "AWS_USE_FIPS_ENDPOINT=true", "AWS_ENDPOINT_URL=http://h"},
         "-/-/-@cn-north-1 http://h path"},
        {"FIPS of a profile", ARGUMENTS(.profile = "gov"), {0}, "-/-/-@us-gov-west-1 https://s3-fips.dualstack.us-gov-west-1.amazonaws.com path"},
        {"not FIPS, whatever the profile says", ARGUMENTS(.profile = "gov"), {"AWS_USE_FIPS_ENDPOINT=false", "AWS_USE_DUALSTACK_ENDPOINT=false"},
         "-/-/-@us-gov-west-1 https://s3.dualstack.us-gov-west-1.amazonaws.com path"},
        {"another partition", ARGUMENTS(.region = "eusc-de-east-1"), {NO_HOME}, "-/-/-@eusc-de-east-1 https://s3.eusc-de-east-1.amazonaws.eu path"},
        {"configured endpoints ignored", ARGUMENTS(), {"AWS_PROFILE=work", "AWS_ENDPOINT_URL=http://e", "AWS_ENDPOINT_URL_S3=http://f",
         "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true"}, "WORKID/WORK/SECRET+=/WORKTOKEN@cred-region https://s3.cred-region.amazonaws.com virtual"},
        {"configured endpoints ignored, but an argument", ARGUMENTS(.endpoint_url = "http://a"), {NO_HOME, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true"},
         "-/-/-@us-east-1 http://a path"},
        {"configured endpoints ignored by the profile", ARGUMENTS(.profile = "ignoring"), {"AWS_ENDPOINT_URL=http://e"},
         "-/-/-@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"configured endpoints ignored by the profile, not the environment", ARGUMENTS(.profile = "ignoring"),
         {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=false"}, "-/-/-@us-east-1 http://ignored path"},
        {"token service of a profile", ARGUMENTS(.profile = "own-sts"), {0},
         "assumed role(http://sts:5 arn:s shardyfusion -WORKID)@us-east-1 http://all:5 path"},
        {"token service, ignored", ARGUMENTS(.profile = "own-sts"), {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=1", "AWS_USE_FIPS_ENDPOINT=true"},
         "assumed role(https://sts-fips.us-east-1.amazonaws.com arn:s shardyfusion -WORKID)@us-east-1 https://s3-fips.us-east-1.amazonaws.com path"},
        {"half of a pair in the options", ARGUMENTS(.access_key_id = "A"), {"AWS_SECRET_ACCESS_KEY=S"},
         "INVALID: S3 credentials in the options: the secret access key is missing"},
        {"a token alone", ARGUMENTS(.session_token = "T"), {0},
         "INVALID: S3 credentials in the options: a session token without its keys"},
        {"half of a pair in the environment", ARGUMENTS(), {"AWS_SECRET_ACCESS_KEY=S"},
         "INVALID: S3 credentials in the environment: the access key id is missing"},
        {"half of a pair in a profile", ARGUMENTS(), {"AWS_PROFILE=half"},
         "INVALID: profile \"half\" in FOLDER/.aws/credentials: aws_secret_access_key is missing or empty"},
        {"no such profile", ARGUMENTS(.profile = "nope"), {0},
         "INVALID: profile \"nope\" is in neither the shared credentials nor the config file (FOLDER/.aws/credentials, FOLDER/.aws/config)"},
        {"a role", ARGUMENTS(), {"AWS_PROFILE=role"},
         "assumed role(https://sts.us-east-1.amazonaws.com arn:aws:iam::1:role/x shardyfusion -WORKID)@us-east-1 "
         "https://s3.us-east-1.amazonaws.com path"},
        {"a role of a role", ARGUMENTS(), {"AWS_PROFILE=role-of-role", "AWS_ENDPOINT_URL_STS=http://sts:1/"},
         "assumed role(http://sts:1 arn:aws:iam::1:role/y me -assumed role)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"a role of its own keys", ARGUMENTS(), {"AWS_PROFILE=self", "AWS_ENDPOINT_URL=http://all:1"},
         "assumed role(http://all:1 arn:z shardyfusion -SELFID)@us-east-1 http://all:1 path"},
        {"a role by the environment", ARGUMENTS(.profile = "env-role"), {"AWS_ACCESS_KEY_ID=E", "AWS_SECRET_ACCESS_KEY=S"},
         "assumed role(https://sts.us-east-1.amazonaws.com arn:e shardyfusion -E)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"a role in a circle", ARGUMENTS(), {"AWS_PROFILE=circle"}, "INVALID: profile \"circle\": more than 4 roles in a row"},
        {"a role of nobody", ARGUMENTS(), {"AWS_PROFILE=of-nobody"},
         "INVALID: profile \"nope\", a source_profile, is in neither the shared credentials nor the config file"},
        {"a role without a source", ARGUMENTS(), {"AWS_PROFILE=alone"},
         "INVALID: profile \"alone\": role_arn without source_profile, credential_source or web_identity_token_file"},
        {"a role from somewhere", ARGUMENTS(), {"AWS_PROFILE=somewhere"},
         "INVALID: profile \"somewhere\": credential_source is none of Environment, EcsContainer, Ec2InstanceMetadata"},
        {"web identity", ARGUMENTS(.region = "cn-north-1"), {"AWS_WEB_IDENTITY_TOKEN_FILE=/t", "AWS_ROLE_ARN=arn:w"},
         "web identity(https://sts.cn-north-1.amazonaws.com.cn arn:w shardyfusion /t)@cn-north-1 "
         "https://s3.cn-north-1.amazonaws.com.cn path"},
        {"keys over web identity", ARGUMENTS(),
         {"AWS_WEB_IDENTITY_TOKEN_FILE=/t", "AWS_ROLE_ARN=arn:w", "AWS_ACCESS_KEY_ID=E", "AWS_SECRET_ACCESS_KEY=S", NO_HOME},
         "E/S/-@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"web identity over the profile", ARGUMENTS(),
         {"AWS_WEB_IDENTITY_TOKEN_FILE=/t", "AWS_ROLE_ARN=arn:w", "AWS_ROLE_SESSION_NAME=me", "AWS_PROFILE=work"},
         "web identity(http://plain:1 arn:w me /t)@cred-region http://services:2/pre virtual"},
        {"a named profile over web identity", ARGUMENTS(.profile = "work"), {"AWS_WEB_IDENTITY_TOKEN_FILE=/t", "AWS_ROLE_ARN=arn:w"},
         "WORKID/WORK/SECRET+=/WORKTOKEN@cred-region http://services:2/pre virtual"},
        {"web identity without a role", ARGUMENTS(), {"AWS_WEB_IDENTITY_TOKEN_FILE=/t"},
         "INVALID: AWS_WEB_IDENTITY_TOKEN_FILE is set, AWS_ROLE_ARN is not"},
        {"web identity of a profile", ARGUMENTS(), {"AWS_PROFILE=web"},
         "web identity(https://sts.us-east-1.amazonaws.com arn:p shardyfusion /token)@us-east-1 "
         "https://s3.us-east-1.amazonaws.com path"},
        {"SSO session", ARGUMENTS(), {"AWS_PROFILE=sso"},
         "SSO(https://portal.sso.eu-west-2.amazonaws.com reader 42 "
         "/.aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"SSO as it was", ARGUMENTS(), {"AWS_PROFILE=old-sso", "AWS_ENDPOINT_URL_SSO=http://p"},
         "SSO(http://p reader 42 /.aws/sso/cache/3947de8b16688092197fa616c34e01335f21d256.json)@us-east-1 "
         "https://s3.us-east-1.amazonaws.com path"},
        {"SSO by half", ARGUMENTS(), {"AWS_PROFILE=half-sso"},
         "INVALID: profile \"half-sso\": SSO needs sso_start_url, sso_region, sso_account_id and sso_role_name"},
        {"a command", ARGUMENTS(), {"AWS_PROFILE=process"},
         "credential_process(- get 'some keys' - -)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"container", ARGUMENTS(), {NO_HOME, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/x"},
         "container endpoint(http://169.254.170.2/v2/x - - -)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"pod", ARGUMENTS(), {NO_HOME, "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials",
                              "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/var/token", "AWS_CONTAINER_AUTHORIZATION_TOKEN=no"},
         "container endpoint(http://169.254.170.23/v1/credentials - - /var/token)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"container with a token", ARGUMENTS(), {NO_HOME, "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.1.2.3:80/c",
                                                 "AWS_CONTAINER_AUTHORIZATION_TOKEN=Basic"},
         "container endpoint(http://127.1.2.3:80/c - Basic -)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"container far away", ARGUMENTS(), {NO_HOME, "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.evil.example/c"},
         "INVALID: AWS_CONTAINER_CREDENTIALS_FULL_URI: neither https nor an address of this machine"},
        {"container, a path that is none", ARGUMENTS(), {NO_HOME, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=@evil/x"},
         "INVALID: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with a slash"},
        {"profile over container", ARGUMENTS(), {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/x"},
         "FILEID/FILESECRET/-@file-region https://s3.file-region.amazonaws.com path"},
        {"metadata elsewhere", ARGUMENTS(), {NO_HOME, "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://[::1]:9/"},
         "instance metadata(http://[::1]:9 - - -)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"metadata over IPv6", ARGUMENTS(), {NO_HOME, "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6"},
         "instance metadata(http://[fd00:ec2::254] - - -)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"no metadata", ARGUMENTS(), {NO_HOME, "AWS_EC2_METADATA_DISABLED=true"},
         "nobody(- - - -)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"a role, but keys", ARGUMENTS(.access_key_id = "A", .secret_access_key = "B"), {"AWS_PROFILE=role"},
         "A/B/-@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"a line feed in a secret", ARGUMENTS(.access_key_id = "A", .secret_access_key = "B\n"), {0},
         "INVALID: credentials: the secret access key holds a blank or control character"},
        {"a header in a token", ARGUMENTS(.access_key_id = "A", .secret_access_key = "B", .session_token = "T\r\nX: y"), {0},
         "INVALID: credentials: the session token holds a blank or control character"},
        {"region", ARGUMENTS(.region = "a:b"), {0}, "INVALID: S3 region: only letters, digits, - and _ may be in a name"},
        {"no scheme", ARGUMENTS(.endpoint_url = "localhost:9000"), {0}, "INVALID: S3 endpoint: URL has no scheme"},
        {"other scheme", ARGUMENTS(.endpoint_url = "ftp://h"), {0}, "INVALID: S3 endpoint: not an http:// or https:// URL"},
        {"credentials in the endpoint", ARGUMENTS(.endpoint_url = "http://u:topsecret@h"), {0},
         "INVALID: S3 endpoint: neither credentials nor a query may be part of the URL"},
        {"a source", ARGUMENTS(.credential_source = &source, .profile = "nope", .session_token = ""), {"AWS_PROFILE=nope"},
         "INVALID: profile \"nope\" is in neither the shared credentials nor the config file (FOLDER/.aws/credentials, FOLDER/.aws/config)"},
        {"a source before all others", ARGUMENTS(.credential_source = &source),
         {"AWS_ACCESS_KEY_ID=E", "AWS_SECRET_ACCESS_KEY=F", "AWS_PROFILE=role"},
         "provider(- - - -)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"a source that has told its keys", ARGUMENTS(.credential_source = &source, .access_key_id = "A", .secret_access_key = "B"),
         {NO_HOME}, "provider A/B/-@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"a source that has told half of them", ARGUMENTS(.credential_source = &source, .access_key_id = "A"), {0},
         "INVALID: S3 credentials in the options: the secret access key is missing"},
        {"a source, but anonymous", ARGUMENTS(.credential_source = &source, .anonymous = true), {NO_HOME},
         "nobody(- - - -)@us-east-1 https://s3.us-east-1.amazonaws.com path"},
        {"a source's odd key", ARGUMENTS(.credential_source = &source, .access_key_id = "A", .secret_access_key = "B C"), {0},
         "INVALID: credentials: the secret access key holds a blank or control character"},
        {"a source without get", ARGUMENTS(.credential_source = &mute), {0}, "INVALID: source of credentials: get is missing"},
        {"a source of half a count", ARGUMENTS(.credential_source = &lost), {0},
         "INVALID: source of credentials: release is missing"},
        {"a source without size", ARGUMENTS(.credential_source = &sizeless), {0},
         "INVALID: source of credentials: size is not set"},
        {"a newer source", ARGUMENTS(.credential_source = &newer.known), {0},
         "UNSUPPORTED: source of credentials: a newer field is set"},
        {"timeout", ARGUMENTS(.read_timeout_ms = -1), {0}, "INVALID: S3 options: read_timeout_ms is negative"},
        {"retries", {.size = sizeof(sf_s3_options), .max_retries = -2}, {0}, "INVALID: S3 options: max_retries is negative"},
        {"no size", {.max_retries = -1}, {0}, "INVALID: S3 options: size is not set"},
        /* clang-format on */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *env[MAX_ENV + 2] = {0};
        sf_error err = SF_ERROR_INIT;
        sf_s3_resolved *r = NULL;
        char got[512];
        size_t n = 0;

        while (n < MAX_ENV && cases[i].env[n]) {
            env[n] = cases[i].env[n];
            n++;
        }
        env[n] = home; /* the first of a name counts */
        if (sf__s3_options_resolve(&r, &cases[i].opts, from_list, env, a, &err) == SF_OK)
            describe(got, sizeof(got), r);
        else
            snprintf(got, sizeof(got), "%s: %.200s", sf_status_name(err.code), err.message);
        hide_folder(got);
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("%s: %s", cases[i].name, got);
        sf__s3_resolved_free(r, a);
        assert_int_equal(held, 0);
    }
}

/* For people: never a key, a command, or where a container asks. */
static void where_they_were_found(void **state)
{
    static const struct {
        sf_s3_options opts;
        const char *env[MAX_ENV];
        const char *want;
    } rows[] = {
        {ARGUMENTS(.access_key_id = "A", .secret_access_key = "B"), {0}, "keys of the options"},
        {ARGUMENTS(),
         {"AWS_ACCESS_KEY_ID=E", "AWS_SECRET_ACCESS_KEY=S", "AWS_SESSION_TOKEN=T"},
         "keys with a session token of the environment"},
        {ARGUMENTS(), {0}, "keys of profile \"default\" in FOLDER/.aws/credentials"},
        {ARGUMENTS(),
         {"AWS_PROFILE=role"},
         "assumed role of profile \"role\", arn:aws:iam::1:role/x, with keys with a session token of profile \"work\" in FOLDER/.aws/credentials"},
        {ARGUMENTS(),
         {"AWS_WEB_IDENTITY_TOKEN_FILE=/t", "AWS_ROLE_ARN=arn:w"},
         "web identity of the environment, arn:w, by /t"},
        {ARGUMENTS(), {"AWS_PROFILE=web"}, "web identity of profile \"web\", arn:p, by /token"},
        {ARGUMENTS(),
         {"AWS_PROFILE=sso"},
         "SSO of profile \"sso\", by FOLDER/.aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json"},
        {ARGUMENTS(), {"AWS_PROFILE=process"}, "credential_process of profile \"process\""},
        {ARGUMENTS(), {NO_HOME, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/x"}, "container endpoint"},
        {ARGUMENTS(), {NO_HOME}, "instance metadata at http://169.254.169.254, if anybody answers there"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *env[MAX_ENV + 2] = {0};
        sf_s3_resolved *r = NULL;
        char got[512], *said;
        size_t n = 0;

        while (n < MAX_ENV && rows[i].env[n]) {
            env[n] = rows[i].env[n];
            n++;
        }
        env[n] = home;
        assert_int_equal(sf__s3_options_resolve(&r, &rows[i].opts, from_list, env, a, NULL), SF_OK);
        said = sf__credential_origin_describe(&r->origin, a);
        snprintf(got, sizeof(got), "%s", said);
        hide_folder(got);
        if (strcmp(got, rows[i].want) != 0)
            fail_msg("%zu: %s", i, got);
        sf__free(a, said);
        sf__s3_resolved_free(r, a);
        assert_int_equal(held, 0);
    }
}

/* Requests that go unsigned because there is nothing to sign with: whoever is refused learns where was looked. */
static void where_was_looked(void **state)
{
    static const struct {
        const char *env[MAX_ENV];
        bool anonymous;
        const char *want; /* NULL: nothing to say */
    } rows[] = {
        {{"AWS_PROFILE=empty", "AWS_EC2_METADATA_DISABLED=true"},
         false,
         "the environment, FOLDER/.aws/credentials (no [empty]), FOLDER/.aws/config (no keys in [empty]), not the instance "
         "metadata (AWS_EC2_METADATA_DISABLED)"},
        {{"AWS_SHARED_CREDENTIALS_FILE=~/.aws", "AWS_CONFIG_FILE=~/none"},
         false,
         "the environment, FOLDER/.aws (a folder), FOLDER/none (no such file), the instance metadata at "
         "http://169.254.169.254"},
        {{"HOME="},
         false,
         "the environment, ~/.aws/credentials (HOME is not set), ~/.aws/config (HOME is not set), the "
         "instance metadata at http://169.254.169.254"},
        {{"AWS_ACCESS_KEY_ID=E", "AWS_SECRET_ACCESS_KEY=S"}, false, NULL},
        {{NO_HOME}, true, NULL},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const sf_s3_options opts = ARGUMENTS(.anonymous = rows[i].anonymous);
        const char *env[MAX_ENV + 2] = {0};
        sf_error err = SF_ERROR_INIT;
        sf_s3_resolved *r = NULL;
        char got[512];
        size_t n = 0;

        for (; n < MAX_ENV && rows[i].env[n]; n++)
            env[n] = rows[i].env[n];
        env[n] = home;
        if (sf__s3_options_resolve(&r, &opts, from_list, env, a, &err) != SF_OK)
            fail_msg("%zu: %s", i, err.message);
        snprintf(got, sizeof(got), "%s", r->origin.looked_at ? r->origin.looked_at : "nothing");
        hide_folder(got);
        if (strcmp(got, rows[i].want ? rows[i].want : "nothing") != 0)
            fail_msg("%zu: %s", i, got);
        sf__s3_resolved_free(r, a);
    }
}

static void numbers_and_sizes(void **state)
{
    static const char *env[] = {NO_HOME, NULL};
    struct {
        sf_s3_options known;
        uint64_t newer;
    } future = {.known = {.size = sizeof(future), .max_retries = 0, .read_timeout_ms = 7}};
    sf_s3_options old = {.size = offsetof(sf_s3_options, connect_timeout_ms), .region = "old", .read_timeout_ms = 99};
    sf_s3_resolved *r = NULL;
    const sf_s3_options *o;
    sf_error err = SF_ERROR_INIT;

    assert_int_equal(sf__s3_options_resolve(&r, NULL, from_list, env, a, &err), SF_OK);
    o = &r->options;
    assert_int_equal(o->size, sizeof(*o));
    assert_int_equal(o->connect_timeout_ms, 5000);
    assert_int_equal(o->read_timeout_ms, 30000);
    assert_int_equal(o->max_retries, 5);
    assert_int_equal(o->retry_base_ms, 200);
    assert_int_equal(o->retry_cap_ms, 4000);
    assert_int_equal(o->retry_total_ms, 30000);
    sf__s3_resolved_free(r, a);

    assert_int_equal(sf__s3_options_resolve(&r, &old, from_list, env, a, &err), SF_OK); /* fields it has never heard of */
    assert_string_equal(r->options.region, "old");
    assert_int_equal(r->options.read_timeout_ms, 30000);
    assert_int_equal(r->options.max_retries, 5);
    sf__s3_resolved_free(r, a);

    assert_int_equal(sf__s3_options_resolve(&r, &future.known, from_list, env, a, &err), SF_OK);
    assert_int_equal(r->options.max_retries, 0);
    assert_int_equal(r->options.read_timeout_ms, 7);
    sf__s3_resolved_free(r, a);
    future.newer = 1;
    assert_int_equal(sf__s3_options_resolve(&r, &future.known, from_list, env, a, &err), SF_UNSUPPORTED);
}

static void no_memory_and_no_traces(void **state)
{
    static const char *const secrets[] = {"WORK/SECRET", NULL};
    const char *env[] = {home, "AWS_PROFILE=work", NULL};
    const sf_s3_options asked =
        ARGUMENTS(.region = "r", .access_key_id = "A", .secret_access_key = "WORK/SECRET", .credential_source = &source);

    for (long nth = 0;; nth++) {
        struct watcher w;
        sf_error err = SF_ERROR_INIT;
        sf_s3_resolved *r = NULL;
        sf_status rc;

        watch_init(&w, secrets);
        heap_arm(&w.heap, nth);
        rc = sf__s3_options_resolve(&r, NULL, from_list, env, &w.alloc, &err);
        sf__s3_resolved_free(r, &w.alloc);
        assert_int_equal(w.heap.live, 0);
        assert_int_equal(w.seen, 0);
        assert_int_equal(rc, w.heap.fired ? SF_NOMEM : SF_OK);
        if (!w.heap.fired) {
            assert_true(nth > 10);
            break;
        }
    }
    for (long nth = 0;; nth++) { /* options with all that can be in them */
        struct watcher w;
        sf_s3_resolved *r = NULL;
        sf_error err = SF_ERROR_INIT;
        sf_status rc;

        watch_init(&w, secrets);
        heap_arm(&w.heap, nth);
        rc = sf__s3_options_resolve(&r, &asked, from_list, env, &w.alloc, &err);
        assert_int_equal(held, r ? 1 : 0);
        sf__s3_resolved_free(r, &w.alloc);
        assert_int_equal(held, 0);
        assert_int_equal(w.heap.live, 0);
        assert_int_equal(w.seen, 0);
        assert_int_equal(rc, w.heap.fired ? SF_NOMEM : SF_OK);
        if (!w.heap.fired) {
            assert_true(nth > 10);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resolving),
        cmocka_unit_test(where_they_were_found),
        cmocka_unit_test(where_was_looked),
        cmocka_unit_test(numbers_and_sizes),
        cmocka_unit_test(no_memory_and_no_traces),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
