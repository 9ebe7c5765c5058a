/* Documents that bring credentials, times in them, and commands that print them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "auth/credential_process.h"
#include "auth/credentials.h"
#include "base/clock.h"
#include "base/error.h"

static const sf_allocator *const a = &sf__allocator_default;

/* ------------------------------------------------------------------ documents ------------------------------------ */

#define STS(body)                                                                                            \
    "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"                \
    "<AssumeRoleWithWebIdentityResult><Credentials>" body "</Credentials></AssumeRoleWithWebIdentityResult>" \
    "<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"

static void documents(void **state)
{
    static const struct {
        const char *name;
        sf_credential_document kind;
        const char *text, *want; /* id/secret/token until second, or the error */
    } cases[] = {
        {"process", SF_CREDENTIALS_FROM_PROCESS,
         "{\"Version\": 1, \"AccessKeyId\": \"A\", \"SecretAccessKey\": \"S/+\", "
         "\"SessionToken\": \"T==\", \"Expiration\": \"1970-01-02T00:00:00Z\"}",
         "A/S/+/T== until 86400"},
        {"process, for ever", SF_CREDENTIALS_FROM_PROCESS,
         "{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\"}\n", "A/S/- until 0"},
        {"process, nulls", SF_CREDENTIALS_FROM_PROCESS,
         "{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\","
         "\"SessionToken\":null,\"Expiration\":null}",
         "A/S/- until 0"},
        {"process, another version", SF_CREDENTIALS_FROM_PROCESS,
         "{\"Version\":2,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\"}",
         "UNSUPPORTED: the document's Version is not 1"},
        {"process, half", SF_CREDENTIALS_FROM_PROCESS, "{\"Version\":1,\"AccessKeyId\":\"A\"}",
         "CORRUPT: the document has no SecretAccessKey"},
        {"process, no time", SF_CREDENTIALS_FROM_PROCESS,
         "{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Expiration\":\"soon\"}",
         "CORRUPT: Expiration is not a time"},
        {"process, a list", SF_CREDENTIALS_FROM_PROCESS, "[]", "CORRUPT: the document is no JSON object"},
        {"process, words", SF_CREDENTIALS_FROM_PROCESS, "no keys today", "CORRUPT: JSON: "},
        {"a header inside", SF_CREDENTIALS_FROM_PROCESS,
         "{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\\r\\nX: y\"}",
         "INVALID: credentials: the secret access key holds a blank or control character"},
        {"endpoint", SF_CREDENTIALS_FROM_ENDPOINT,
         "{\"Code\":\"Success\",\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\","
         "\"Token\":\"T\",\"Expiration\":\"1970-01-01T00:01:00.500Z\"}",
         "A/S/T until 60"},
        {"endpoint, refused", SF_CREDENTIALS_FROM_ENDPOINT, "{\"Code\":\"AssumeRoleUnauthorizedAccess\"}",
         "DENIED: the document's Code is not Success"},
        {"SSO", SF_CREDENTIALS_FROM_SSO,
         "{\"roleCredentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":\"S\","
         "\"sessionToken\":\"T\",\"expiration\":61000}}",
         "A/S/T until 61"},
        {"SSO, something else", SF_CREDENTIALS_FROM_SSO, "{\"message\":\"no\"}",
         "CORRUPT: the document has no accessKeyId"},
        {"SSO, a time that is none", SF_CREDENTIALS_FROM_SSO,
         "{\"roleCredentials\":{\"accessKeyId\":\"A\","
         "\"secretAccessKey\":\"S\",\"expiration\":-1}}",
         "CORRUPT: expiration is not a time"},
        {"STS", SF_CREDENTIALS_FROM_STS,
         STS("<AccessKeyId>A</AccessKeyId><SecretAccessKey>S</SecretAccessKey>"
             "<SessionToken>T</SessionToken><Expiration>1970-01-01T01:00:00Z</Expiration>"),
         "A/S/T until 3600"},
        {"STS, no token", SF_CREDENTIALS_FROM_STS,
         STS("<AccessKeyId>A</AccessKeyId><SecretAccessKey>S</SecretAccessKey>"
             "<Expiration>1970-01-01T01:00:00Z</Expiration>"),
         "CORRUPT: XML: no credentials of an assumed role"},
        {"STS, an entity", SF_CREDENTIALS_FROM_STS, "<!DOCTYPE x [<!ENTITY e \"x\">]><x>&e;</x>",
         "CORRUPT: XML: a document type is declared"},
        {"STS, nothing", SF_CREDENTIALS_FROM_STS, "", "CORRUPT: XML expected, nothing came"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_error err = SF_ERROR_INIT;
        sf_credentials *c = NULL;
        char got[256];

        if (sf__credentials_parse(&c, cases[i].kind, sf_bytes_str(cases[i].text), a, &err) == SF_OK)
            snprintf(got, sizeof(got), "%s/%s/%s until %lld", c->access_key_id, c->secret_access_key,
                     c->session_token ? c->session_token : "-", (long long)(c->expires_us / 1000000));
        else
            snprintf(got, sizeof(got), "%s: %.200s", sf_status_name(err.code), err.message);
        if (strncmp(got, cases[i].want, strlen(cases[i].want)) != 0)
            fail_msg("%s: %s", cases[i].name, got);
        sf__credentials_release(c);
    }
}

static void lengths(void **state)
{
    static char text[SF_CREDENTIAL_BYTES + 1];
    static const char *const names[] = {"the access key id", "the secret access key", "the session token"};

    memset(text, 'x', sizeof(text));
    for (size_t part = 0; part < 3; part++)
        for (size_t n = SF_CREDENTIAL_BYTES; n <= sizeof(text); n++) {
            sf_bytes parts[] = {sf_bytes_str("A"), sf_bytes_str("S"), sf_bytes_str("T")};
            sf_error err = SF_ERROR_INIT;
            sf_credentials *c = NULL;

            parts[part] = sf_bytes_of(text, n);
            assert_int_equal(sf__credentials_new(&c, parts[0], parts[1], parts[2], 0, a, &err),
                             n == sizeof(text) ? SF_INVALID : SF_OK);
            if (n == sizeof(text) &&
                (!strstr(err.message, names[part]) || !strstr(err.message, "longer than 65536 bytes")))
                fail_msg("%s: %s", names[part], err.message);
            sf__credentials_release(c);
        }
}

static void times(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds; /* -1: refused */
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2026-01-02T03:04:05Z", 1767323045},
        {"2026-01-02T03:04:05.999999Z", 1767323045},
        {"2026-01-02T03:04:05UTC", 1767323045},
        {"2026-01-02T04:04:05+01:00", 1767323045},
        {"2026-01-01T21:34:05-0530", 1767323045},
        {"2026-01-02 03:04:05Z", 1767323045},
        {"2026-01-02T03:04:05", 1767323045},
        {"2026-01-02t03:04:05.5z", 1767323045},
        {"2026-01-02 03:04:05 UTC", 1767323045},
        {"2026-01-02T03:04", -1},
        {"2026-13-02T03:04:05Z", -1},
        {"2026-01-02T24:04:05Z", -1},
        {"2026-01-02T03:04:05Zz", -1},
        {"1969-12-31T23:59:59Z", -1},
        {"", -1},
        {"2026-01-02T03:04:05+1", -1},
        {"2026-01-02T03:04:05+25:00", -1},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t us = 0;
        bool taken = sf__credential_time_parse(sf_bytes_str(cases[i].text), &us);

        if (taken != (cases[i].seconds >= 0) || (taken && us != cases[i].seconds * 1000000))
            fail_msg("%s: %d, %lld", cases[i].text, taken, (long long)us);
    }
}

static void sso_tokens(void **state)
{
    sf_error err = SF_ERROR_INIT;
    int64_t us = 0;
    char *token = NULL;

    assert_int_equal(sf__sso_token_parse(&token, &us,
                                         sf_bytes_str("{\"accessToken\":\"tok\",\"expiresAt\":"
                                                      "\"1970-01-01T00:00:09Z\"}"),
                                         a, &err),
                     SF_OK);
    assert_string_equal(token, "tok");
    assert_int_equal(us, 9000000);
    sf__secret_free(a, token);
    assert_int_equal(sf__sso_token_parse(&token, &us, sf_bytes_str("{\"accessToken\":\"tok\"}"), a, &err), SF_CORRUPT);
    assert_int_equal(sf__sso_token_parse(&token, &us, sf_bytes_str("{\"expiresAt\":\"1970-01-01T00:00:09Z\"}"), a, &err),
                     SF_CORRUPT);
    assert_int_equal(sf__sso_token_parse(&token, &us, sf_bytes_str("7"), a, &err), SF_CORRUPT);
}

/* ------------------------------------------------------------------ commands ------------------------------------- */

static void words(void **state)
{
    static const struct {
        const char *command, *want; /* the words in angle brackets; NULL: refused */
    } cases[] = {
        {"get keys", "<get><keys>"},
        {"  get\tkeys \n", "<get><keys>"},
        {"get 'a b' \"c d\"", "<get><a b><c d>"},
        {"get a' 'b\" \"c", "<get><a b c>"},
        {"get '' x", "<get><><x>"},
        {"get \"a\\\"b\\\\c\\d\"", "<get><a\"b\\c\\d>"},
        {"get a\\ b", "<get><a b>"},
        {"get 'a\\b'", "<get><a\\b>"},
        {"get $HOME `x`", "<get><$HOME><`x`>"},
        {"get x\\", "<get><x\\>"},
        {"", NULL},
        {"  ", NULL},
        {"get 'a", NULL},
        {"get \"a", NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char got[256] = "", **list = NULL;

        if (sf__command_split(&list, cases[i].command, a, NULL) == SF_OK)
            for (char **w = list; *w; w++)
                snprintf(got + strlen(got), sizeof(got) - strlen(got), "<%s>", *w);
        if (strcmp(got, cases[i].want ? cases[i].want : "") != 0)
            fail_msg("%s: %s", cases[i].command, got);
        sf__free(a, list);
    }
}

static void commands(void **state)
{
    static const struct {
        const char *name, *command;
        int64_t deadline_ms; /* if that ends it: longer, where this machine is too busy for the command to come so far */
        bool stop;
        sf_status rc;
        const char *want; /* output, or part of the message */
    } cases[] = {
        {"prints", "echo '{\"a\": 1}'", 20000, false, SF_OK, "{\"a\": 1}\n"},
        {"prints nothing", "true", 20000, false, SF_OK, ""},
        {"reads nothing", "cat", 20000, false, SF_OK, ""},
        {"complains", "sh -c 'echo secret >&2; echo out'", 20000, false, SF_OK, "out\n"},
        {"complains without end", "sh -c 'yes >&2 & sleep 0.1; kill $!; echo out'", 20000, false, SF_OK, "out\n"},
        {"says why it fails", "sh -c 'echo Traceback >&2; echo \"no vault at $((1+1))\" >&2; exit 3'", 20000, false,
         SF_DENIED, "ended with status 3: Traceback no vault at 2"},
        {"says why, with a key", "sh -c 'echo bad AKIAIOSFODNN7EXAMPLE >&2; exit 3'", 20000, false, SF_DENIED,
         "status 3: bad ***"},
        {"says why and stays", "sh -c 'echo waiting >&2; exec >&-; sleep 1000'", 150, false, SF_TIMEOUT,
         "in time: waiting"},
        {"closes its output early", "sh -c 'exec >&-; sleep 0.1'", 20000, false, SF_OK, ""},
        {"fails", "sh -c 'echo secret; exit 3'", 20000, false, SF_DENIED, "ended with status 3"},
        {"is killed", "sh -c 'kill -9 $$'", 20000, false, SF_DENIED, "ended by signal 9"},
        {"is not there", "/nonexistent/get-keys --now", 20000, false, SF_INVALID, "cannot be started"},
        {"is no command", "'", 20000, false, SF_INVALID, "quote"},
        {"prints without end", "yes", 20000, false, SF_CORRUPT, "more than 65536 bytes"},
        {"takes for ever", "sleep 1000", 150, false, SF_TIMEOUT, "not ended in time"},
        {"takes for ever, in a child", "sh -c 'sleep 1000; true'", 150, false, SF_TIMEOUT, "not ended in time"},
        {"closes its output and stays", "sh -c 'exec >&-; sleep 1000'", 150, false, SF_TIMEOUT, "not ended in time"},
        {"nobody waits any more", "sleep 1000", 20000, true, SF_CANCELLED, "cancelled"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        atomic_bool stop = cases[i].stop;
        sf_error err = SF_ERROR_INIT;
        char *out = NULL, complaint[SF_SAID_BYTES];
        size_t n = 0;
        sf_status rc;

        for (int64_t ms = cases[i].deadline_ms;; ms *= 2) {
            rc = sf__credential_process_run(&out, &n, complaint, cases[i].command, sf__deadline_in_ms(ms), &stop, a,
                                            &err);
            if (rc != SF_TIMEOUT || ms > 20000 || strstr(err.message, cases[i].want))
                break;
        }
        if (rc != cases[i].rc)
            fail_msg("%s: %s: %s", cases[i].name, sf_status_name(rc), err.message);
        if (rc == SF_OK ? n != strlen(cases[i].want) || strcmp(out, cases[i].want) != 0
                        : !strstr(err.message, cases[i].want))
            fail_msg("%s: \"%s\"", cases[i].name, rc == SF_OK ? out : err.message);
        if (strstr(err.message, "secret"))
            fail_msg("%s: its output is in \"%s\"", cases[i].name, err.message);
        sf__free(a, out);
    }
}

/* In a program that leaves its children to the system, the output alone decides. */
static void commands_without_children(void **state)
{
    atomic_bool stop = false;
    sf_error err = SF_ERROR_INIT;
    char *out = NULL, complaint[SF_SAID_BYTES];
    size_t n;

    signal(SIGCHLD, SIG_IGN);
    if (sf__credential_process_run(&out, &n, complaint, "echo x", sf__deadline_in_ms(20000), &stop, a, &err) != SF_OK)
        fail_msg("%s", err.message);
    signal(SIGCHLD, SIG_DFL);
    assert_string_equal(out, "x\n");
    sf__free(a, out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents),
        cmocka_unit_test(lengths),
        cmocka_unit_test(times),
        cmocka_unit_test(sso_tokens),
        cmocka_unit_test(words),
        cmocka_unit_test(commands),
        cmocka_unit_test(commands_without_children),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
