/* Where credentials come from, against scripted stand-ins of the services that give them, and what the S3 store makes of
 * them: once for all who wait, ahead of their end, anew when the store calls them expired. */
#include "s3_bench.h"
#include "scripted_server.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "auth/credential_provider.h"
#include "base/error.h"
#include "watcher.h"

#define REPLY(status, headers, body) "HTTP/1.1 " status "\r\nConnection: close\r\n" headers "\r\n" body
#define OK(body) REPLY("200 OK", "", body)
#define KEYS(id, token, expiration)                                                                         \
    OK("{\"Code\":\"Success\",\"AccessKeyId\":\"" id "\",\"SecretAccessKey\":\"S3CRET\",\"Token\":\"" token \
       "\",\"Expiration\":\"" expiration "\"}")
#define ROLE(call)                                                                                                              \
    OK("<" call "Response><" call "Result><Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>S3CRET"                  \
       "</SecretAccessKey><SessionToken>T0KEN</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials></" call \
       "Result></" call "Response>")
#define BUSY REPLY("503 Busy", "", "")

/* The time of day of these tests: 2029-12-31T23:00:00Z, one hour before the credentials end. */
#define START_US (INT64_C(1893452400) * 1000000)
#define SECONDS(n) (INT64_C(1000000) * (n))
static atomic_llong now;

static int64_t test_now_us(void)
{
    return atomic_load(&now);
}

static char folder[] = "/tmp/sf-provider-XXXXXX";
static char token_file[64], sso_file[64], old_sso_file[64], empty_file[64];

static void write_file(char path[64], const char *name, const char *text)
{
    FILE *f;

    snprintf(path, 64, "%s/%s", folder, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int make_files(void **state)
{
    assert_non_null(mkdtemp(folder));
    write_file(token_file, "token", " W3B.TOKEN+/=\n");
    write_file(sso_file, "sso", "{\"accessToken\":\"LOG-IN\",\"expiresAt\":\"2030-01-01T00:00:00Z\"}");
    write_file(old_sso_file, "old-sso", "{\"accessToken\":\"LOG-IN\",\"expiresAt\":\"2029-01-01T00:00:00Z\"}");
    write_file(empty_file, "empty", "\n");
    return 0;
}

static int remove_files(void **state)
{
    char *const files[] = {token_file, sso_file, old_sso_file, empty_file};

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        assert_int_equal(remove(files[i]), 0);
    return remove(folder);
}

/* ------------------------------------------------------------------ one provider --------------------------------- */

struct taker {
    struct fixture *f;
    sf_credential_wait wait;
    struct gate *gate;
    sf_credentials *got;
    sf_error err;
};

struct fixture {
    const sf_allocator *alloc;
    sf_loop *loop;
    sf_http *http;
    sf_credential_provider *provider;
    sf_credential_origin origin;
    struct taker takers[16];
    size_t taker_count;
    struct gate gate;
    sf_status rc;
};

static void fixture_open_on_loop(void *arg)
{
    struct fixture *f = arg;

    f->rc = sf__http_new(&f->http, f->loop, f->alloc, 4, NULL);
    if (f->rc == SF_OK)
        f->rc =
            sf__credential_provider_new(&f->provider, &f->origin, f->http, NULL, test_now_us, f->loop, f->alloc, NULL);
}

static sf_status fixture_open(struct fixture *f, const sf_allocator *a, const sf_credential_origin *origin)
{
    *f = (struct fixture){.alloc = a, .origin = *origin, .gate = GATE_INIT};
    f->rc = sf__loop_new(&f->loop, a, NULL);
    if (f->rc == SF_OK)
        on_loop(f->loop, fixture_open_on_loop, f);
    return f->rc;
}

static void fixture_close_on_loop(void *arg)
{
    struct fixture *f = arg;

    for (size_t i = 0; i < f->taker_count; i++) {
        sf__credential_provider_leave(&f->takers[i].wait);
        sf__credentials_release(f->takers[i].got);
    }
    sf__credential_provider_free(f->provider);
    sf__http_free(f->http);
}

static void fixture_close(struct fixture *f)
{
    if (f->loop)
        on_loop(f->loop, fixture_close_on_loop, f);
    sf__loop_free(f->loop);
}

static void taker_done(sf_credential_wait *w, sf_credentials *got, const sf_error *err)
{
    struct taker *t = (struct taker *)((char *)w - offsetof(struct taker, wait));

    t->got = got;
    t->err = *err;
    gate_arrive(&t->f->gate);
}

/* One more who wants credentials. */
static void take_on_loop(void *arg)
{
    struct fixture *f = arg;
    struct taker *t = &f->takers[f->taker_count++];

    t->f = f;
    t->got = sf__credential_provider_try(f->provider);
    if (t->got) {
        gate_arrive(&f->gate);
        return;
    }
    t->wait.done = taker_done;
    sf__credential_provider_wait(f->provider, &t->wait);
}

static struct taker *take(struct fixture *f)
{
    on_loop(f->loop, take_on_loop, f);
    return &f->takers[f->taker_count - 1];
}

static struct taker *take_and_wait(struct fixture *f)
{
    struct taker *t = take(f);

    gate_wait(&f->gate, (unsigned)f->taker_count);
    return t;
}

/* ------------------------------------------------------------------ every origin --------------------------------- */

/* "@" in front of the endpoint's rest stands for the server. */
static void every_origin(void **state)
{
    static const struct {
        const char *name;
        sf_credential_origin origin;
        const char *endpoint; /* behind the server's address; NULL: none */
        char *file;
        bool dead; /* nobody listens */
        sf_credential_origin base;
        const char *steps[SERVER_STEPS];
        const char *want; /* id/token, or the error */
        unsigned requests;
        const char *sent[5];
    } rows[] = {
        /* clang-format off */
        {"web identity", {.kind = SF_ORIGIN_WEB_IDENTITY, .role_arn = "arn:aws:iam::1:role/x y", .session_name = "me"}, "",
         token_file, false, {0}, {ROLE("AssumeRoleWithWebIdentity")}, "ASIA/T0KEN", 1,
         {"POST / HTTP/1.1", "\r\n\r\nAction=AssumeRoleWithWebIdentity&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx%20y&"
          "RoleSessionName=me&Version=2011-06-15&WebIdentityToken=W3B.TOKEN%2B%2F%3D",
          "Content-Type: application/x-www-form-urlencoded\r\n"}},
        {"web identity, refused", {.kind = SF_ORIGIN_WEB_IDENTITY, .role_arn = "r", .session_name = "me"}, "", token_file, false,
         {0}, {REPLY("400 Bad Request", "", "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>"
         "<Message>Wrong issuer</Message></Error></ErrorResponse>")},
         "DENIED: credentials by web identity: POST http://127.0.0.1:%u/: answered 400 InvalidIdentityToken: Wrong issuer", 1, {0}},
        {"web identity, busy at first", {.kind = SF_ORIGIN_WEB_IDENTITY, .role_arn = "r", .session_name = "me"}, "", token_file,
         false, {0}, {BUSY, STEP_RESET, ROLE("AssumeRoleWithWebIdentity")}, "ASIA/T0KEN", 3, {0}},
        {"web identity, busy for ever", {.kind = SF_ORIGIN_WEB_IDENTITY, .role_arn = "r", .session_name = "me"}, "", token_file,
         false, {0}, {BUSY, BUSY, BUSY}, "UNAVAILABLE: credentials by web identity: POST http://127.0.0.1:%u/: answered 503", 3, {0}},
        {"web identity, something else", {.kind = SF_ORIGIN_WEB_IDENTITY, .role_arn = "r", .session_name = "me"}, "", token_file,
         false, {0}, {OK("<html>")}, "DENIED: credentials by web identity: POST http://127.0.0.1:%u/: XML: ", 1, {0}},
        {"web identity, no token", {.kind = SF_ORIGIN_WEB_IDENTITY, .role_arn = "r", .session_name = "me"}, "", empty_file, false,
         {0}, {0}, "INVALID: credentials by web identity: ", 0, {0}},
        {"web identity, no file", {.kind = SF_ORIGIN_WEB_IDENTITY, .role_arn = "r", .session_name = "me"}, "", "/nonexistent/t",
         false, {0}, {0}, "INVALID: credentials by web identity: /nonexistent/t: no such file", 0, {0}},
        {"role", {.kind = SF_ORIGIN_ROLE, .role_arn = "arn:r", .session_name = "me", .external_id = "x 1", .region = "eu-west-1"},
         "", NULL, false, {.kind = SF_ORIGIN_GIVEN, .access_key_id = "AKIA", .secret_access_key = "S3CRET", .session_token = "T1"},
         {ROLE("AssumeRole")}, "ASIA/T0KEN", 1,
         {"GET /?Action=AssumeRole&ExternalId=x%201&RoleArn=arn%3Ar&RoleSessionName=me&Version=2011-06-15 HTTP/1.1",
          "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/", "/eu-west-1/sts/aws4_request", "x-amz-security-token: T1\r\n"}},
        {"role, refused", {.kind = SF_ORIGIN_ROLE, .role_arn = "arn:r", .session_name = "me", .region = "eu-west-1"},
         "", NULL, false, {.kind = SF_ORIGIN_GIVEN, .access_key_id = "AKIA", .secret_access_key = "S3CRET"},
         {REPLY("403 Forbidden", "", "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>")},
         "DENIED: credentials by assumed role: GET http://127.0.0.1:%u/: answered 403 AccessDenied: no", 1, {0}},
        {"role of nobody", {.kind = SF_ORIGIN_ROLE, .role_arn = "arn:r", .session_name = "me", .region = "eu-west-1"},
         "", NULL, false, {.kind = SF_ORIGIN_NONE}, {0}, "DENIED: credentials by assumed role: nothing to assume the role with", 0,
         {0}},
        {"SSO", {.kind = SF_ORIGIN_SSO, .account = "42", .role_name = "read er"}, "", sso_file, false, {0},
         {OK("{\"roleCredentials\":{\"accessKeyId\":\"ASIA\",\"secretAccessKey\":\"S3CRET\",\"sessionToken\":\"T0KEN\","
             "\"expiration\":1893456000000}}")}, "ASIA/T0KEN", 1,
         {"GET /federation/credentials?account_id=42&role_name=read%20er HTTP/1.1", "x-amz-sso_bearer_token: LOG-IN\r\n"}},
        {"SSO, log-in over", {.kind = SF_ORIGIN_SSO, .account = "42", .role_name = "r"}, "", old_sso_file, false, {0}, {0},
         "DENIED: credentials by SSO: ", 0, {0}},
        {"SSO, never logged in", {.kind = SF_ORIGIN_SSO, .account = "42", .role_name = "r"}, "", "/nonexistent/sso", false, {0}, {0},
         "INVALID: credentials by SSO: /nonexistent/sso: no such file", 0, {0}},
        {"SSO, signed out", {.kind = SF_ORIGIN_SSO, .account = "42", .role_name = "r"}, "", sso_file, false, {0},
         {REPLY("401 Unauthorized", "", "{\"message\":\"Session token not found or invalid\"}")},
         "DENIED: credentials by SSO: GET http://127.0.0.1:%u/federation/credentials: answered 401", 1, {0}},
        {"process", {.kind = SF_ORIGIN_PROCESS, .command = "echo '{\"Version\":1,\"AccessKeyId\":\"ASIA\",\"SecretAccessKey\":"
         "\"S3CRET\",\"SessionToken\":\"T0KEN\"}'"}, NULL, NULL, false, {0}, {0}, "ASIA/T0KEN", 0, {0}},
        {"process, failing", {.kind = SF_ORIGIN_PROCESS, .command = "false"}, NULL, NULL, false, {0}, {0},
         "DENIED: credentials by credential_process: the command ended with status 1", 0, {0}},
        {"process, words", {.kind = SF_ORIGIN_PROCESS, .command = "echo S3CRET"}, NULL, NULL, false, {0}, {0},
         "DENIED: credentials by credential_process: JSON: expected a value at byte 0; it printed: ***", 0, {0}},
        {"process, HTML", {.kind = SF_ORIGIN_PROCESS, .command = "echo '<html>gone</html>'"}, NULL, NULL, false, {0}, {0},
         "DENIED: credentials by credential_process: JSON: expected a value at byte 0; it printed: <html>gone</html>", 0, {0}},
        {"process, nothing but a complaint", {.kind = SF_ORIGIN_PROCESS, .command = "sh -c 'echo no vault >&2'"}, NULL, NULL, false,
         {0}, {0}, "DENIED: credentials by credential_process: JSON: empty text; it printed nothing; it complained: no vault", 0,
         {0}},
        {"process, another version", {.kind = SF_ORIGIN_PROCESS, .command = "echo '{\"Version\":2}'"}, NULL, NULL, false, {0}, {0},
         "DENIED: credentials by credential_process: the document's Version is not 1; it printed: {\"Version\":2}", 0, {0}},
        {"process, a broken document", {.kind = SF_ORIGIN_PROCESS, .command = "echo '{\"Version\":1,\"SecretAccessKey\":\"S3CRET'"},
         NULL, NULL, false, {0}, {0}, "DENIED: credentials by credential_process: JSON: ", 0, {0}},
        {"process, no zone", {.kind = SF_ORIGIN_PROCESS, .command = "echo '{\"Version\":1,\"AccessKeyId\":\"ASIA\","
         "\"SecretAccessKey\":\"S3CRET\",\"SessionToken\":\"T0KEN\",\"Expiration\":\"2030-01-01T00:00:00\"}'"}, NULL, NULL, false,
         {0}, {0}, "ASIA/T0KEN", 0, {0}},
        {"container, HTML", {.kind = SF_ORIGIN_CONTAINER}, "/c", NULL, false, {0}, {OK("<html>\n<b>log in</b>")},
         "DENIED: credentials by container endpoint: GET http://127.0.0.1:%u/c: JSON: expected a value at byte 0; it said: <html> "
         "<b>log in</b>", 1, {0}},
        {"container, its own token comes back", {.kind = SF_ORIGIN_CONTAINER, .authorization = "pass-phrase"}, "/c", NULL, false, {0},
         {OK("no: pass-phrase")}, "DENIED: credentials by container endpoint: GET http://127.0.0.1:%u/c: JSON: expected a value at byte 0; "
         "it said: (text withheld)", 1, {0}},
        {"container, refused in words", {.kind = SF_ORIGIN_CONTAINER}, "/c", NULL, false, {0},
         {REPLY("403 Forbidden", "", "{\"message\":\"not you\"}")},
         "DENIED: credentials by container endpoint: GET http://127.0.0.1:%u/c: answered 403; it said: {\"message\":\"not you\"}", 1,
         {0}},
        {"container", {.kind = SF_ORIGIN_CONTAINER, .authorization = "Basic abc"}, "/v2/credentials/1", NULL, false, {0},
         {KEYS("ASIA", "T0KEN", "2030-01-01T00:00:00Z")}, "ASIA/T0KEN", 1,
         {"GET /v2/credentials/1 HTTP/1.1", "Authorization: Basic abc\r\n"}},
        {"pod", {.kind = SF_ORIGIN_CONTAINER}, "/v1/credentials", token_file, false, {0},
         {KEYS("ASIA", "T0KEN", "2030-01-01T00:00:00Z")}, "ASIA/T0KEN", 1, {"Authorization: W3B.TOKEN+/=\r\n"}},
        {"container, over before it came", {.kind = SF_ORIGIN_CONTAINER}, "/c", NULL, false, {0},
         {KEYS("ASIA", "T0KEN", "2029-01-01T00:00:00Z")},
         "DENIED: credentials by container endpoint: they have expired before they came", 1, {0}},
        {"container, not there", {.kind = SF_ORIGIN_CONTAINER}, "/c", NULL, true, {0}, {0},
         "UNAVAILABLE: credentials by container endpoint: GET http://127.0.0.1:%u/c: ", 0, {0}},
        {"container, a header inside", {.kind = SF_ORIGIN_CONTAINER, .authorization = "a\r\nX-Evil: 1"}, "/c", NULL, false, {0}, {0},
         "INVALID: credentials by container endpoint: the authorization token holds a control character", 0, {0}},
        {"machine", {.kind = SF_ORIGIN_MACHINE, .optional = true}, "", NULL, false, {0},
         {OK("META-TOKEN"), OK("my role\nother\n"), KEYS("ASIA", "T0KEN", "2030-01-01T00:00:00Z")}, "DENIED: ", 2, {0}},
        {"machine", {.kind = SF_ORIGIN_MACHINE, .optional = true}, "", NULL, false, {0},
         {OK("META-TOKEN"), OK("my-role\nother\n"), KEYS("ASIA", "T0KEN", "2030-01-01T00:00:00Z")}, "ASIA/T0KEN", 3,
         {"PUT /latest/api/token HTTP/1.1", "X-aws-ec2-metadata-token-ttl-seconds: 21600\r\n",
          "GET /latest/meta-data/iam/security-credentials/ HTTP/1.1",
          "GET /latest/meta-data/iam/security-credentials/my-role HTTP/1.1", "X-aws-ec2-metadata-token: META-TOKEN\r\n"}},
        {"machine, busy in between", {.kind = SF_ORIGIN_MACHINE, .optional = true}, "", NULL, false, {0},
         {OK("META-TOKEN"), BUSY, OK("my-role"), BUSY, KEYS("ASIA", "T0KEN", "2030-01-01T00:00:00Z")}, "ASIA/T0KEN", 5, {0}},
        {"machine without a role", {.kind = SF_ORIGIN_MACHINE, .optional = true}, "", NULL, false, {0},
         {OK("META-TOKEN"), REPLY("404 Not Found", "", "")}, "anonymous for 60 s", 2, {0}},
        {"no metadata here", {.kind = SF_ORIGIN_MACHINE, .optional = true}, "", NULL, true, {0}, {0}, "anonymous for 60 s", 0, {0}},
        {"no metadata here, but needed", {.kind = SF_ORIGIN_MACHINE}, "", NULL, true, {0}, {0},
         "UNAVAILABLE: credentials by instance metadata: PUT http://127.0.0.1:%u/latest/api/token: ", 0, {0}},
        {"no metadata for us", {.kind = SF_ORIGIN_MACHINE, .optional = true}, "", NULL, false, {0},
         {REPLY("403 Forbidden", "", "")},
         "DENIED: credentials by instance metadata: PUT http://127.0.0.1:%u/latest/api/token: answered 403", 1, {0}},
        /* clang-format on */
    };

    atomic_store(&now, START_US);
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* the machine's own services are not asked through it */
    setenv("no_proxy", "127.0.0.1", 1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_credential_origin origin = rows[i].origin, base = rows[i].base;
        struct server server;
        struct fixture f;
        struct taker *t;
        char endpoint[128], got[512], want[512];

        server_start(&server, rows[i].steps, false);
        if (rows[i].dead)
            server_stop(&server);
        if (rows[i].endpoint) {
            snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u%s", server.port, rows[i].endpoint);
            origin.endpoint = endpoint;
        }
        origin.file = rows[i].file;
        if (origin.kind == SF_ORIGIN_ROLE)
            origin.base = &base;
        if (origin.kind == SF_ORIGIN_MACHINE || origin.kind == SF_ORIGIN_CONTAINER)
            unsetenv("no_proxy");
        assert_int_equal(fixture_open(&f, &sf__allocator_default, &origin), SF_OK);
        t = take_and_wait(&f);
        setenv("no_proxy", "127.0.0.1", 1);
        if (!rows[i].dead)
            server_stop(&server);
        if (!t->got)
            snprintf(got, sizeof(got), "%s: %s", sf_status_name(t->err.code), t->err.message);
        else if (t->got->access_key_id)
            snprintf(got, sizeof(got), "%s/%s", t->got->access_key_id, t->got->session_token);
        else
            snprintf(got, sizeof(got), "anonymous for %lld s", (long long)((t->got->expires_us - START_US) / 1000000));
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(want, sizeof(want), rows[i].want, server.port);
#pragma GCC diagnostic pop
        if (strncmp(got, want, strlen(want)) != 0)
            fail_msg("%s: %s", rows[i].name, got);
        if (strstr(got, "S3CRET") || strstr(got, "W3B.TOKEN") || strstr(got, "LOG-IN"))
            fail_msg("%s: a secret in \"%s\"", rows[i].name, got);
        if (server.requests.count != rows[i].requests)
            fail_msg("%s: %u requests", rows[i].name, server.requests.count);
        for (size_t k = 0; k < 5 && rows[i].sent[k]; k++)
            if (!strstr(server.all, rows[i].sent[k]))
                fail_msg("%s: no \"%s\" in\n%s", rows[i].name, rows[i].sent[k], server.all);
        fixture_close(&f);
    }
    unsetenv("http_proxy");
    unsetenv("no_proxy");
}

/* ------------------------------------------------------------------ signatures ----------------------------------- */

/* The value of a header, with blanks around it cut; static. */
static const char *header_of(const char *request, const char *name)
{
    static char values[16][1024];
    static unsigned next;
    char *out = values[next++ % 16], wanted[128];
    const char *at;
    size_t n;

    snprintf(wanted, sizeof(wanted), "\r\n%s:", name);
    at = strcasestr(request, wanted);
    if (!at)
        fail_msg("no %s in\n%s", name, request);
    at += strlen(wanted);
    at += strspn(at, " ");
    n = strcspn(at, "\r");
    snprintf(out, 1024, "%.*s", (int)n, at);
    return out;
}

static void hex_of(const unsigned char *raw, char out[65])
{
    for (int i = 0; i < 32; i++)
        snprintf(out + 2 * i, 3, "%02x", raw[i]);
}

static void hmac(const void *key, size_t n, const char *text, unsigned char out[32])
{
    assert_non_null(HMAC(EVP_sha256(), key, (int)n, (const unsigned char *)text, strlen(text), out, NULL));
}

/* AWS's signature, version 4, computed anew from what was sent. */
static void signature_of(const char *request, const char *secret, const char *region, const char *service, char out[65])
{
    char method[16], target[1024], canonical[8192], names[256], to_sign[1024], key[128], day[9];
    const char *authorization = header_of(request, "Authorization"), *date = header_of(request, "X-Amz-Date");
    unsigned char raw[32];
    char *query, hash[65], *save = NULL;

    assert_int_equal(sscanf(request, "%15s %1023s", method, target), 2);
    query = strchr(target, '?');
    if (query)
        *query++ = '\0';
    assert_int_equal(sscanf(strstr(authorization, "SignedHeaders="), "SignedHeaders=%255[^,]", names), 1);
    snprintf(canonical, sizeof(canonical), "%s\n%s\n%s\n", method, target, query ? query : "");
    snprintf(to_sign, sizeof(to_sign), "%s", names);
    for (char *name = strtok_r(to_sign, ";", &save); name; name = strtok_r(NULL, ";", &save))
        snprintf(canonical + strlen(canonical), sizeof(canonical) - strlen(canonical), "%s:%s\n", name,
                 header_of(request, name));
    snprintf(canonical + strlen(canonical), sizeof(canonical) - strlen(canonical), "\n%s\n%s", names,
             header_of(request, "x-amz-content-sha256"));
    assert_int_equal(EVP_Digest(canonical, strlen(canonical), raw, NULL, EVP_sha256(), NULL), 1);
    hex_of(raw, hash);
    snprintf(day, sizeof(day), "%.8s", date);
    snprintf(to_sign, sizeof(to_sign), "AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%s", date, day, region, service,
             hash);
    snprintf(key, sizeof(key), "AWS4%s", secret);
    hmac(key, strlen(key), day, raw);
    hmac(raw, 32, region, raw);
    hmac(raw, 32, service, raw);
    hmac(raw, 32, "aws4_request", raw);
    hmac(raw, 32, to_sign, raw);
    hex_of(raw, out);
}

/* The token service of the tests takes any signature; the real one does not. */
static void roles_are_asked_for_with_a_valid_signature(void **state)
{
    static const char *const steps[] = {ROLE("AssumeRole"), NULL};
    static const char *const tokens[] = {NULL, "T0/+=="};

    atomic_store(&now, START_US);
    for (size_t i = 0; i < 2; i++) {
        sf_credential_origin base = {.kind = SF_ORIGIN_GIVEN,
                                     .access_key_id = "AKIA",
                                     .secret_access_key = "S3CRET/+",
                                     .session_token = (char *)tokens[i]};
        sf_credential_origin origin = {.kind = SF_ORIGIN_ROLE,
                                       .role_arn = "arn:aws:iam::1:role/a b+c",
                                       .session_name = "m=e",
                                       .external_id = "x~1",
                                       .region = "eu-west-1",
                                       .base = &base};
        struct server server;
        struct fixture f;
        char endpoint[64], wanted[65];

        server_start(&server, steps, false);
        snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", server.port);
        origin.endpoint = endpoint;
        assert_int_equal(fixture_open(&f, &sf__allocator_default, &origin), SF_OK);
        assert_non_null(take_and_wait(&f)->got);
        server_stop(&server);
        signature_of(server.first, "S3CRET/+", "eu-west-1", "sts", wanted);
        if (!strstr(header_of(server.first, "Authorization"), wanted))
            fail_msg("%s: not the signature of\n%s", wanted, server.first);
        fixture_close(&f);
    }
}

/* ------------------------------------------------------------------ keeping them current ------------------------- */

/* A container endpoint: the shortest way to credentials. */
static sf_credential_origin container(const struct server *s, char endpoint[64])
{
    snprintf(endpoint, 64, "http://127.0.0.1:%u/c", s->port);
    return (sf_credential_origin){.kind = SF_ORIGIN_CONTAINER, .endpoint = endpoint};
}

static void turn(void *arg) {}

static void one_request_for_all_who_wait(void **state)
{
    static const char *const steps[] = {KEYS("A", "T", "2030-01-01T00:00:00Z"), NULL};
    struct server server;
    struct fixture f;
    char endpoint[64];
    sf_credential_origin origin;

    atomic_store(&now, START_US);
    server_start(&server, steps, false);
    origin = container(&server, endpoint);
    assert_int_equal(fixture_open(&f, &sf__allocator_default, &origin), SF_OK);
    for (int i = 0; i < 10; i++)
        take(&f);
    gate_wait(&f.gate, 10);
    for (int i = 0; i < 10; i++) {
        assert_non_null(f.takers[i].got);
        assert_ptr_equal(f.takers[i].got, f.takers[0].got);
    }
    server_stop(&server);
    assert_int_equal(server.requests.count, 1);
    fixture_close(&f);
}

static void newer_ones_ahead_of_the_end(void **state)
{
    static const char *const steps[] = {KEYS("A", "T", "2030-01-01T00:00:00Z"),
                                        KEYS("B", "T", "2030-01-01T01:00:00Z"),
                                        REPLY("500 Oh", "", ""),
                                        REPLY("500 Oh", "", ""),
                                        REPLY("500 Oh", "", ""),
                                        NULL};
    struct server server;
    struct fixture f;
    struct taker *t;
    char endpoint[64];
    sf_credential_origin origin;

    atomic_store(&now, START_US);
    server_start(&server, steps, false);
    origin = container(&server, endpoint);
    assert_int_equal(fixture_open(&f, &sf__allocator_default, &origin), SF_OK);
    assert_string_equal(take_and_wait(&f)->got->access_key_id, "A");
    atomic_store(&now, START_US + SECONDS(3299)); /* 301 s before the end: too early */
    assert_string_equal(take_and_wait(&f)->got->access_key_id, "A");
    assert_int_equal(server.requests.count, 1);
    atomic_store(&now, START_US + SECONDS(3301));
    t = take(&f); /* nobody waits for the newer ones */
    assert_non_null(t->got);
    assert_string_equal(t->got->access_key_id, "A");
    gate_wait(&server.requests, 2);
    do { /* they arrive */
        f.taker_count -= f.taker_count == 16;
        sf__credentials_release(f.taker_count == 15 ? f.takers[15].got : NULL);
        t = take(&f);
    } while (strcmp(t->got->access_key_id, "B") != 0);
    atomic_store(&now, START_US + SECONDS(3600 + 3400)); /* close to the end of those; this time it fails */
    f.taker_count--;
    sf__credentials_release(t->got);
    t = take(&f);
    assert_string_equal(t->got->access_key_id, "B");
    gate_wait(&server.requests, 5);
    for (int i = 0; i < 10; i++) /* some turns: the failure comes home, and stays without consequence */
        on_loop(f.loop, turn, NULL);
    f.taker_count--;
    sf__credentials_release(t->got);
    t = take(&f);
    assert_string_equal(t->got->access_key_id, "B");
    atomic_store(&now, START_US + SECONDS(3600 + 3601)); /* over: now they have to be got, or nothing works */
    f.taker_count--;
    sf__credentials_release(t->got);
    f.gate.count = 0;
    t = take(&f);
    gate_wait(&f.gate, 1);
    assert_null(t->got);
    assert_int_equal(t->err.code, SF_UNAVAILABLE);
    server_stop(&server);
    fixture_close(&f);
}

static void failures_rest(void **state)
{
    static const char *const steps[] = {REPLY("403 Forbidden", "", ""), NULL};
    struct server server;
    struct fixture f;
    char endpoint[64];
    sf_credential_origin origin;

    atomic_store(&now, START_US);
    server_start(&server, steps, false);
    origin = container(&server, endpoint);
    assert_int_equal(fixture_open(&f, &sf__allocator_default, &origin), SF_OK);
    for (int i = 0; i < 5; i++) {
        struct taker *t = take_and_wait(&f);

        assert_null(t->got);
        assert_int_equal(t->err.code, SF_DENIED);
        assert_non_null(strstr(t->err.message, "answered 403"));
    }
    server_stop(&server);
    assert_int_equal(server.requests.count, 1); /* nobody hammers on a closed door */
    fixture_close(&f);
}

static void nobody_waits_for_ever(void **state)
{
    static const char *const steps[] = {STEP_STALL, NULL};
    static const struct {
        const char *name;
        sf_credential_origin origin;
        bool stalled;
    } rows[] = {
        {"a request", {.kind = SF_ORIGIN_CONTAINER}, true},
        {"a command", {.kind = SF_ORIGIN_PROCESS, .command = "sleep 1000"}, false},
        {"a back-off", {.kind = SF_ORIGIN_CONTAINER}, false},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_credential_origin origin = rows[i].origin;
        struct server server;
        struct fixture f;
        char endpoint[64];
        struct taker *t;

        server_start(&server, steps, false);
        if (origin.kind == SF_ORIGIN_CONTAINER)
            origin = container(&server, endpoint);
        if (!rows[i].stalled)
            server_stop(&server);
        assert_int_equal(fixture_open(&f, &sf__allocator_default, &origin), SF_OK);
        t = take(&f);
        if (rows[i].stalled)
            gate_wait(&server.requests, 1);
        fixture_close(&f); /* with all of it under way */
        assert_null(t->got);
        assert_int_equal(f.gate.count, 0);
        if (rows[i].stalled)
            server_stop(&server);
    }
}

/* ------------------------------------------------------------------ what the store makes of them ----------------- */

#define EXPIRED REPLY("400 Bad Request", "", "<Error><Code>ExpiredToken</Code><Message>Over.</Message></Error>")
#define OBJECT REPLY("206 Partial Content", "Content-Length: 1\r\nContent-Range: bytes 0-0/1\r\n", "x")

/* Nothing goes unsigned unsaid: one warning, and the reason beside the refusal; silence where that was asked for. */
static void refused_without_credentials(void **state)
{
    static const struct {
        const char *name;
        sf_credential_origin origin;
        const char *answer;
        sf_store_verb verb;
        size_t warnings;
        const char *want; /* NULL: no word of credentials */
    } rows[] = {
        {"none",
         {.kind = SF_ORIGIN_NONE, .looked_at = (char *)"here, there"},
         REPLY("403 Forbidden", "", ""),
         SF_STORE_GET,
         1,
         "; no credentials were found, the request went unsigned (looked at: here, there)"},
        {"none, to HEAD",
         {.kind = SF_ORIGIN_NONE, .looked_at = (char *)"here"},
         REPLY("401 Unauthorized", "", ""),
         SF_STORE_HEAD,
         1,
         "(looked at: here)"},
        {"none, nobody has metadata",
         {.kind = SF_ORIGIN_MACHINE, .optional = true, .endpoint = (char *)"http://127.0.0.1:1", .looked_at = (char *)"here"},
         REPLY("403 Forbidden", "", "<Error><Code>AccessDenied</Code></Error>"),
         SF_STORE_GET,
         1,
         "AccessDenied; no credentials were found"},
        {"none, another answer",
         {.kind = SF_ORIGIN_NONE, .looked_at = (char *)"here"},
         REPLY("404 Not Found", "", ""),
         SF_STORE_GET,
         1,
         NULL},
        {"anonymous", {.kind = SF_ORIGIN_NONE}, REPLY("403 Forbidden", "", ""), SF_STORE_GET, 0, NULL},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *const steps[SERVER_STEPS] = {rows[i].answer};
        sf_s3_resolved r = {.options = SF_S3_OPTIONS_INIT, .origin = rows[i].origin};
        struct server objects;
        struct bench b;
        char url[64];

        server_start(&objects, steps, false);
        snprintf(url, sizeof(url), "http://127.0.0.1:%u", objects.port);
        r.options.endpoint_url = url;
        r.options.region = "us-east-1";
        r.options.addressing = SF_ADDRESSING_PATH;
        r.options.connect_timeout_ms = r.options.read_timeout_ms = 10000;
        assert_int_equal(bench_open_bucket(&b, &sf__allocator_default, "bkt", &r, NULL), SF_OK);
        bench_run(&b, &(sf_store_op){.verb = rows[i].verb, .key = "k", .len = 1});
        server_stop(&objects);
        if (rows[i].want ? !strstr(b.error.message, rows[i].want) : strstr(b.error.message, "credentials") != NULL)
            fail_msg("%s: \"%s\"", rows[i].name, b.error.message);
        if (b.warnings != rows[i].warnings || strstr(objects.all, "Authorization"))
            fail_msg("%s: %zu warnings, sent\n%s", rows[i].name, b.warnings, objects.all);
        sf__store_op_cleanup(&b.op, b.alloc);
        bench_close(&b);
    }
}

static void the_store_signs_anew(void **state)
{
    static const struct {
        const char *name;
        sf_store_verb verb;
        bool fresh; /* the credentials have only just come */
        const char *objects[SERVER_STEPS], *keys[SERVER_STEPS];
        sf_status rc;
        uint32_t attempts;
        unsigned key_requests;
        const char *sent, *message;
    } rows[] = {
        /* clang-format off */
        {"expired once", SF_STORE_GET, false, {OBJECT, EXPIRED, OBJECT},
         {KEYS("AAA", "T1", "2030-01-01T00:00:00Z"), KEYS("BBB", "T2", "2030-01-01T00:00:00Z")}, SF_OK, 2, 2,
         "Credential=BBB/", ""},
        {"expired for ever", SF_STORE_GET, false, {OBJECT, EXPIRED, EXPIRED},
         {KEYS("AAA", "T1", "2030-01-01T00:00:00Z"), KEYS("BBB", "T2", "2030-01-01T00:00:00Z")}, SF_DENIED, 2, 2,
         "x-amz-security-token: T2\r\n", "ExpiredToken"},
        {"expired, no others to be had", SF_STORE_GET, false, {OBJECT, EXPIRED},
         {KEYS("AAA", "T1", "2030-01-01T00:00:00Z"), REPLY("403 Forbidden", "", "")}, SF_DENIED, 1, 2, "",
         "credentials by container endpoint"},
        {"expired, but fresh", SF_STORE_GET, true, {OBJECT, EXPIRED}, {KEYS("AAA", "T1", "2030-01-01T00:00:00Z")}, SF_DENIED,
         1, 1, "", "ExpiredToken"},
        {"HEAD says no why", SF_STORE_HEAD, false, {OBJECT, REPLY("400 Bad Request", "", ""), REPLY("200 OK", "Content-Length: 3\r\n", "")},
         {KEYS("AAA", "T1", "2030-01-01T00:00:00Z"), KEYS("BBB", "T2", "2030-01-01T00:00:00Z")}, SF_OK, 2, 2,
         "Credential=BBB/", ""},
        {"denied for another reason", SF_STORE_GET, false,
         {OBJECT, REPLY("403 Forbidden", "", "<Error><Code>AccessDenied</Code></Error>")},
         {KEYS("AAA", "T1", "2030-01-01T00:00:00Z")}, SF_DENIED, 1, 1, "", "AccessDenied"},
        /* clang-format on */
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server objects, keys;
        char endpoint[64], url[64];
        sf_s3_resolved r = {.options = SF_S3_OPTIONS_INIT};
        struct bench b;

        atomic_store(&now, START_US);
        server_start(&objects, rows[i].objects, false);
        server_start(&keys, rows[i].keys, false);
        snprintf(url, sizeof(url), "http://127.0.0.1:%u", objects.port);
        r.options.endpoint_url = url;
        r.options.region = "us-east-1";
        r.options.addressing = SF_ADDRESSING_PATH;
        r.options.connect_timeout_ms = r.options.read_timeout_ms = 10000;
        r.origin = container(&keys, endpoint);
        assert_int_equal(bench_open_bucket(&b, &sf__allocator_default, "bkt", &r, test_now_us), SF_OK);
        bench_run(&b, &(sf_store_op){.verb = SF_STORE_GET, .key = "k", .len = 1}); /* with the first ones */
        assert_int_equal(b.error.code, SF_OK);
        sf__store_op_cleanup(&b.op, b.alloc);
        if (!rows[i].fresh)
            atomic_store(&now, START_US + SECONDS(10));
        bench_run(&b, &(sf_store_op){.verb = rows[i].verb, .key = "k", .len = 1});
        server_stop(&objects);
        server_stop(&keys);
        if (b.error.code != rows[i].rc || b.error.attempts != rows[i].attempts)
            fail_msg("%s: %s in %u attempts: %s", rows[i].name, sf_status_name(b.error.code), b.error.attempts,
                     b.error.message);
        if (!strstr(b.error.message, rows[i].message))
            fail_msg("%s: \"%s\"", rows[i].name, b.error.message);
        if (keys.requests.count != rows[i].key_requests)
            fail_msg("%s: %u requests for credentials", rows[i].name, keys.requests.count);
        if (!strstr(objects.all, rows[i].sent))
            fail_msg("%s: no \"%s\" in\n%s", rows[i].name, rows[i].sent, objects.all);
        sf__store_op_cleanup(&b.op, b.alloc);
        bench_close(&b);
    }
}

static void operations_wait_within_their_deadline(void **state)
{
    static const char *const steps[] = {STEP_STALL, NULL};

    for (int cancelled = 0; cancelled < 2; cancelled++) {
        sf_s3_resolved r = {.options = SF_S3_OPTIONS_INIT};
        struct server keys;
        char endpoint[64];
        struct bench b;

        server_start(&keys, steps, false);
        r.options.endpoint_url = "http://127.0.0.1:1";
        r.options.region = "us-east-1";
        r.options.addressing = SF_ADDRESSING_PATH;
        r.origin = container(&keys, endpoint);
        assert_int_equal(bench_open_bucket(&b, &sf__allocator_default, "bkt", &r, test_now_us), SF_OK);
        b.op = (sf_store_op){.verb = SF_STORE_GET,
                             .key = "k",
                             .len = 1,
                             .done = on_done,
                             .ctx = &b,
                             .deadline_ns = sf__deadline_in_ms(cancelled ? 20000 : 100)};
        on_loop(b.loop, submit_op, &b);
        if (cancelled) {
            gate_wait(&keys.requests, 1);
            on_loop(b.loop, cancel_op, &b);
        }
        gate_wait(&b.done, 1);
        assert_int_equal(b.error.code, cancelled ? SF_CANCELLED : SF_TIMEOUT);
        assert_int_equal(b.error.attempts, 0);
        bench_close(&b); /* while the credentials are still awaited */
        server_stop(&keys);
    }
}

/* ------------------------------------------------------------------ memory --------------------------------------- */

static void tell(void *ctx, sf_credential_answer *answer)
{
    sf_credential_answer_set(answer, "ASIA", "S3CRET", "T0KEN", START_US + SECONDS(3600));
}

static void no_memory_and_no_traces(void **state)
{
    static const char *const secrets[] = {"S3CRET", "T0KEN", "W3B.TOKEN", "LOG-IN", NULL};
    static const char *const sts[] = {ROLE("AssumeRoleWithWebIdentity"), NULL},
                             *const portal[] = {OK("{\"roleCredentials\":{\"accessKeyId\":\"ASIA\",\"secretAccessKey\":\"S3CRET\","
                                                   "\"sessionToken\":\"T0\\u004bEN\",\"expiration\":1893456000000}}"),
                                                NULL},
                             *const box[] = {KEYS("ASIA", "T0KEN", "2030-01-01T00:00:00Z"), NULL};
    const struct {
        const char *name;
        sf_credential_origin origin;
        const char *const *steps;
        char *file;
    } rows[] = {
        {"web identity", {.kind = SF_ORIGIN_WEB_IDENTITY, .role_arn = "r", .session_name = "me"}, sts, token_file},
        {"SSO", {.kind = SF_ORIGIN_SSO, .account = "42", .role_name = "r"}, portal, sso_file},
        {"container", {.kind = SF_ORIGIN_CONTAINER}, box, token_file},
        {"process",
         {.kind = SF_ORIGIN_PROCESS,
          .command = "echo '{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":"
                     "\"S3CRET\",\"SessionToken\":\"T\"}'"},
         box,
         NULL},
        {"source", {.kind = SF_ORIGIN_SOURCE}, box, NULL},
    };
    const sf_credential_source source = {.size = sizeof(source), .get = tell};
    sf_asker *asker;

    assert_int_equal(sf__asker_new(&asker, &source, NULL), SF_OK);
    atomic_store(&now, START_US);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_credential_origin origin = rows[i].origin;
        struct server server;
        char endpoint[64];

        server_start(&server, rows[i].steps, true);
        snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", server.port);
        origin.endpoint = endpoint;
        origin.file = rows[i].file;
        origin.asker = origin.kind == SF_ORIGIN_SOURCE ? asker : NULL;
        for (long nth = 0;; nth++) {
            struct watcher w;
            struct fixture f;
            struct taker *t;

            watch_init(&w, secrets);
            assert_int_equal(fixture_open(&f, &w.alloc, &origin), SF_OK);
            heap_arm(&w.heap, nth);
            t = take_and_wait(&f);
            heap_disarm(&w.heap);
            if (w.heap.fired ? t->got != NULL || t->err.code != SF_NOMEM : t->got == NULL)
                fail_msg("%s, allocation %ld: %s", rows[i].name, nth, t->err.message);
            fixture_close(&f);
            if (w.heap.live != 0 || w.seen != 0)
                fail_msg("%s, allocation %ld: %ld blocks left, %ld with secrets", rows[i].name, nth, w.heap.live, w.seen);
            if (!w.heap.fired) {
                assert_true(nth > 3);
                break;
            }
        }
        server_stop(&server);
    }
    sf__asker_release(asker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_origin),
        cmocka_unit_test(roles_are_asked_for_with_a_valid_signature),
        cmocka_unit_test(one_request_for_all_who_wait),
        cmocka_unit_test(newer_ones_ahead_of_the_end),
        cmocka_unit_test(failures_rest),
        cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(refused_without_credentials),
        cmocka_unit_test(the_store_signs_anew),
        cmocka_unit_test(operations_wait_within_their_deadline),
        cmocka_unit_test(no_memory_and_no_traces),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
