/* The shared files as people have them: what a profile says, and what is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/ini.h"
#include "auth/profile.h"
#include "base/error.h"
#include "base/strbuf.h"

static const sf_allocator *const a = &sf__allocator_default;

/* ------------------------------------------------------------------ INI ------------------------------------------ */

static void list_item(void *ctx, const sf_ini_item *it)
{
    sf_strbuf *b = ctx;

    if (it->fault) {
        sf__strbuf_printf(b, "%zu: %s;", it->line, it->fault);
        return;
    }
    sf__strbuf_printf(b, "[%.*s]%.*s.%.*s=%.*s;", (int)it->section.n, (const char *)it->section.p, (int)it->parent.n,
                      (const char *)it->parent.p, (int)it->name.n, (const char *)it->name.p, (int)it->value.n,
                      (const char *)it->value.p);
}

static void ini(void **state)
{
    static const struct {
        const char *name, *text, *items;
    } cases[] = {
        {"plain", "[a]\nx=1\ny = 2\n", "[a].x=1;[a].y=2;"},
        {"no line end", "[a]\nx=1", "[a].x=1;"},
        {"windows", "[ a ]\r\nx = 1\r\n", "[a].x=1;"},
        {"tabs", "[\ta\t]\nx\t=\t1\t# c\n", "[a].x=1;"},
        {"comments", "# c\n[a] ; c\n;c\nx = 1 # c\ny=a#b\nz = a ;b\n", "[a].x=1;[a].y=a#b;[a].z=a;"},
        {"colons", "[a]\nx: 1\ny = a:b\nz:a=b\n", "[a].x=1;[a].y=a:b;[a].z=a=b;"},
        {"nested", "[a]\ns3 =\n  x = 1\n\ty=2\nz = 3\n", "[a].s3=;[a]s3.x=1;[a]s3.y=2;[a].z=3;"},
        {"nested, a colon in a name", "[a]\ns3 =\n  x:y = 1\n", "[a].s3=;[a]s3.x:y=1;"},
        {"nested, after a blank line", "[a]\ns3 =\n\n  x = 1\n", "[a].s3=;[a]s3.x=1;"},
        {"nesting ends with its section", "[a]\ns3=\n[b]\n x=1\n", "[a].s3=;[b].x=1;"},
        {"indented as a whole", "[a]\n  x=1\n  y=2\n  s3=\n    z=3\n", "[a].x=1;[a].y=2;[a].s3=;[a]s3.z=3;"},
        {"an indented section", "  [a]\nx=1\n", "[a].x=1;"},
        {"signs in a value", "[a]\nx = k=v==\n", "[a].x=k=v==;"},
        {"before any section", "x=1\n[a]\ny=2\n", "1: a setting before any section;[a].y=2;"},
        {"a section that is none", "[a]\nx=1\n[b\ny=2\n",
         "[a].x=1;3: a section's name without its \"]\";4: a setting before any section;"},
        {"a section without a name", "[ ]\n", "1: a section without a name;"},
        {"lines that are none", "[a]\nhello\n=1\nx=1\n",
         "2: neither a section nor a setting;3: neither a section nor a setting;[a].x=1;"},
        {"empty value", "[a]\nx=\n", "[a].x=;"},
        {"nothing", "", ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_strbuf b;

        sf__strbuf_init(&b, a);
        sf__strbuf_puts(&b, "");
        sf__ini_parse(sf_bytes_str(cases[i].text), list_item, &b);
        if (strcmp(b.s, cases[i].items) != 0)
            fail_msg("%s: %s", cases[i].name, b.s);
        sf__strbuf_cleanup(&b);
    }
}

/* ------------------------------------------------------------------ profiles ------------------------------------- */

#define KEYS "aws_access_key_id=A\naws_secret_access_key=B\n"

/* id/secret/token region s3-endpoint process sso, "-" for none */
static void describe(char *to, size_t n, const sf_profile *p)
{
#define OR(s) ((s) ? (s) : "-")
    if (!sf__profile_found(p))
        snprintf(to, n, "none");
    else
        snprintf(to, n, "%s/%s/%s %s %s %s %s", OR(p->access_key), OR(p->secret_key), OR(p->token), OR(p->region),
                 OR(p->s3_endpoint), OR(p->process), OR(p->sso_start_url));
}

static void profiles(void **state)
{
    static const struct {
        const char *name, *credentials, *config, *profile, *want;
    } rows[] = {
        {"plain", "[default]\n" KEYS, "[default]\nregion=r\n", "default", "A/B/- r - - -"},
        {"names in capitals", "[default]\nAWS_ACCESS_KEY_ID=A\nAws_Secret_Access_Key = B\nAWS_SESSION_TOKEN: T\n", "",
         "default", "A/B/T - - - -"},
        {"a section in capitals", "[DEFAULT]\n" KEYS, "", "default", "A/B/- - - - -"},
        {"the older name of a token", "[default]\n" KEYS "aws_security_token=T\n", "", "default", "A/B/T - - - -"},
        {"blanks",
         " [ default ] \n"
         "aws_access_key_id\t=\tA\t# mine\naws_secret_access_key = B ; too\n",
         "", "default", "A/B/- - - - -"},
        {"Windows' line ends", "[default]\r\naws_access_key_id = A\r\naws_secret_access_key = B\r\n", "", "default",
         "A/B/- - - - -"},
        {"a quoted name", "", "[profile \"My Team\"]\n" KEYS "region=r\n", "My Team", "A/B/- r - - -"},
        {"a name in single quotes", "", "[profile 'My Team']\nregion=r\n", "My Team", "-/-/- r - - -"},
        {"an escaped name", "", "[profile My\\ Team]\nregion=r\n", "My Team", "-/-/- r - - -"},
        {"a quote in a name", "", "[profile \"My \\\"Team\\\"\"]\nregion=r\n", "My \"Team\"", "-/-/- r - - -"},
        {"a name with blanks and without quotes is none", "", "[profile My Team]\nregion=r\n", "My Team", "none"},
        {"an open quote is none", "", "[profile \"My]\nregion=r\n", "My", "none"},
        {"tabs around a name", "", "[profile\tx ]\nregion=r\n", "x", "-/-/- r - - -"},
        {"the credentials file has bare names", "[My Team]\n" KEYS, "", "My Team", "A/B/- - - - -"},
        {"a bare name in the config file is no profile", "", "[x]\nregion=r\n", "x", "none"},
        {"default with its word", "", "[profile default]\nregion=r\n", "default", "-/-/- r - - -"},
        {"default twice: the later", "", "[default]\nregion=r\n[profile default]\nregion=s\n", "default", "-/-/- s - - -"},
        {"a section in two parts", "[x]\naws_access_key_id=A\n[y]\n[x]\naws_secret_access_key=B\n", "", "x",
         "A/B/- - - - -"},
        {"set twice", "[x]\nregion=r\n" KEYS "region=s\n", "", "x",
         "INVALID: cred: line 5 sets region again, which line 2 has set"},
        {"another's set twice", "[y]\nregion=r\nregion=s\n[x]\n" KEYS, "", "x", "A/B/- - - - -"},
        {"keys of one file", "[x]\n" KEYS,
         "[profile x]\naws_access_key_id=C\naws_secret_access_key=D\naws_session_token=T\nregion=r\n", "x",
         "A/B/- r - - -"},
        {"halves of two files", "[x]\naws_access_key_id=A\n", "[profile x]\naws_secret_access_key=D\n", "x",
         "A/-/- - - - -"},
        {"empty keys", "[x]\naws_access_key_id=\naws_secret_access_key=\n", "[profile x]\n" KEYS, "x", "-/-/- - - - -"},
        {"services", "", "[profile x]\nservices = \"on prem\"\n[services on\\ prem]\ns3=\n  endpoint_url=http://s\n",
         "x", "INVALID: profile \"x\": there is no [services \"on prem\"] in conf"},
        {"services with a blank", "",
         "[profile x]\nservices = on prem\n[services \"on prem\"]\nS3 =\n  ENDPOINT_URL = http://s\n", "x",
         "-/-/- - http://s - -"},
        {"no such services", "", "[profile x]\nservices = y\n", "x",
         "INVALID: profile \"x\": there is no [services y] in conf"},
        {"a session with a blank", "",
         "[sso-session 'my corp']\nsso_start_url = https://u\n[profile x]\nsso_session = my corp\n", "x",
         "-/-/- - - - https://u"},
        {"no such session", "", "[profile x]\nsso_session = y\n", "x",
         "INVALID: profile \"x\": there is no [sso-session y] in conf"},
        {"a command", "", "[profile x]\ncredential_process = get 'a b' --x=\"1\"\n", "x",
         "-/-/- - - get 'a b' --x=\"1\" -"},
        {"JSON", "{\"AccessKeyId\": \"A\"}\n", "", "x", "INVALID: cred: line 1 is a setting before any section"},
        {"a table", "Access key ID,Secret access key\nAKIA,S3CRET\n", "", "x",
         "INVALID: cred: line 1 is neither a section nor a setting"},
        {"keys alone", KEYS, "", "x", "INVALID: cred: line 1 is a setting before any section"},
        {"an open bracket", "[x\n" KEYS, "", "x", "INVALID: cred: line 1 is a section's name without its \"]\""},
        {"no sign", "[x]\naws_access_key_id S3CRET\n", "", "x",
         "INVALID: cred: line 2 is neither a section nor a setting"},
        {"no sign, but another's", "[y]\naws_access_key_id A\n[x]\n" KEYS, "", "x", "A/B/- - - - -"},
        {"none", "", "", "x", "none"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const sf_shared_files files = {
            .credentials = {(char *)rows[i].credentials, strlen(rows[i].credentials), NULL},
            .config = {(char *)rows[i].config, strlen(rows[i].config), NULL},
            .credentials_path = "cred",
            .config_path = "conf",
            .alloc = a,
        };
        sf_error err = SF_ERROR_INIT;
        sf_profile p;
        char got[512];

        if (sf__profile_read(&p, &files, rows[i].profile, &err) == SF_OK)
            describe(got, sizeof(got), &p);
        else
            snprintf(got, sizeof(got), "%s: %.400s", sf_status_name(err.code), err.message);
        if (strcmp(got, rows[i].want) != 0)
            fail_msg("%s: %s", rows[i].name, got);
        sf__profile_cleanup(&p);
    }
}

/* ------------------------------------------------------------------ files ---------------------------------------- */

static void encodings(void **state)
{
    static const struct {
        const char *name;
        sf_bytes bytes;
        const char *want;
    } rows[] = {
#define BYTES(s) {(const uint8_t *)(s), sizeof(s) - 1}
        {"UTF-8", BYTES("[a]\n"), "[a]\n"},
        {"a byte order mark", BYTES("\xef\xbb\xbf[a]\n"), "[a]\n"},
        {"nothing but the mark", BYTES("\xef\xbb\xbf"), ""},
        {"UTF-16", BYTES("\xff\xfe[\0a\0]\0"), ": text in UTF-16: save it as UTF-8"},
        {"UTF-16, the other way round", BYTES("\xfe\xff\0[\0a\0]"), ": text in UTF-16: save it as UTF-8"},
        {"UTF-16 without a mark", BYTES("[\0a\0]\0"), ": no text: it holds zero bytes (save it as UTF-8)"},
        {"empty", BYTES(""), ""},
    };
    char folder[] = "/tmp/sf-profile-XXXXXX", path[64], pipe_path[64];
    sf_error err = SF_ERROR_INIT;
    sf_text_file f;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/file", folder);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        FILE *out = fopen(path, "w");
        sf_status rc;

        assert_non_null(out);
        assert_int_equal(fwrite(rows[i].bytes.p, 1, rows[i].bytes.n, out), rows[i].bytes.n);
        assert_int_equal(fclose(out), 0);
        rc = sf__text_file_read(&f, path, true, a, &err);
        if (rc == SF_OK ? strcmp(f.s, rows[i].want) != 0 || f.n != strlen(rows[i].want)
                        : rc != SF_INVALID || strncmp(err.message, path, strlen(path)) != 0 ||
                              strcmp(err.message + strlen(path), rows[i].want) != 0)
            fail_msg("%s: %s", rows[i].name, rc == SF_OK ? f.s : err.message);
        sf__text_file_cleanup(&f, a);
    }
    assert_int_equal(remove(path), 0);

    assert_int_equal(sf__text_file_read(&f, folder, true, a, &err), SF_OK);
    assert_null(f.s);
    assert_string_equal(f.absent, "a folder");
    assert_int_equal(sf__text_file_read(&f, path, true, a, &err), SF_OK);
    assert_string_equal(f.absent, "no such file");
    snprintf(pipe_path, sizeof(pipe_path), "%s/pipe", folder);
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_int_equal(sf__text_file_read(&f, pipe_path, true, a, &err), SF_OK); /* and does not wait for a writer */
    assert_string_equal(f.absent, "not a file");
    assert_int_equal(remove(pipe_path), 0);
    assert_int_equal(remove(folder), 0);
}

static const char *from_list(void *ctx, const char *name)
{
    size_t n = strlen(name);

    for (const char *const *e = ctx; *e; e++)
        if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
            return *e + n + 1;
    return NULL;
}

static void places(void **state)
{
    static const struct {
        const char *env[4], *credentials, *config;
    } rows[] = {
        {{"HOME=/h"}, "/h/.aws/credentials", "/h/.aws/config"},
        {{"HOME=/h", "AWS_CONFIG_FILE=~/c", "AWS_SHARED_CREDENTIALS_FILE=/x/~/y"}, "/x/~/y", "/h/c"},
        {{"HOME=/h", "AWS_CONFIG_FILE=$HOME/c", "AWS_SHARED_CREDENTIALS_FILE=${HOME}x/$Y"}, "/hx/$Y", "/h/c"},
        {{"HOME=/h", "AWS_CONFIG_FILE=$$", "AWS_SHARED_CREDENTIALS_FILE=${HOME"}, "${HOME", "$$"},
        {{"AWS_CONFIG_FILE=c"}, NULL, "c"},
        {{NULL}, NULL, NULL},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_shared_files f;
        sf_error err = SF_ERROR_INIT;

        assert_int_equal(sf__shared_files_read(&f, &(sf_environment){from_list, (void *)rows[i].env}, a, &err), SF_OK);
        if (strcmp(f.credentials_path ? f.credentials_path : "-", rows[i].credentials ? rows[i].credentials : "-") != 0 ||
            strcmp(f.config_path ? f.config_path : "-", rows[i].config ? rows[i].config : "-") != 0)
            fail_msg("%zu: %s, %s", i, f.credentials_path, f.config_path);
        sf__shared_files_cleanup(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ini), cmocka_unit_test(profiles), cmocka_unit_test(encodings),
                                       cmocka_unit_test(places)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
