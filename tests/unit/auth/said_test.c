/* What sources of credentials say, fit for a message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "auth/said.h"

#define SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

static void one_line(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", ""},
        {" \n", ""},
        {"no keys today\n", "no keys today"},
        {"<html>\r\n <h1>502\tBad Gateway</h1>\n", "<html> <h1>502 Bad Gateway</h1>"},
        {"a\x1b[31mred\x7f", "a\\x1b[31mred\\x7f"},
        {"{\"code\":\"InvalidTokenException\",\"message\":\"Token not valid\"}",
         "{\"code\":\"InvalidTokenException\",\"message\":\"Token not valid\"}"},
        {"Error: profile /home/me/.aws/config2 of eu-west-1 at 2026-01-02T03:04:05Z, HTTP/1.1, UTF-8",
         "Error: profile /home/me/.aws/config2 of eu-west-1 at 2026-01-02T03:04:05Z, HTTP/1.1, UTF-8"},
        {"{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"min io!\",\"SessionToken\" : \"t",
         "{\"Version\":1,\"AccessKeyId\":\"***\",\"SecretAccessKey\":\"***\",\"SessionToken\" : \"***"},
        {"<SecretAccessKey>abc</SecretAccessKey>", "<SecretAccessKey>***</SecretAccessKey>"},
        {"PASSWORD=hunter, user=me", "PASSWORD=***, user=me"},
        {"got AKIAIOSFODNN7EXAMPLE and " SECRET ", sorry", "got *** and ***, sorry"},
        {"S3CRET", "***"},
        {"0123456789abcdef0123456789abcdef", "***"},
        {"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "***.***.***"},
        {"12345678901234567890", "12345678901234567890"},
        {"sch\xc3\xb6n", "sch\xc3\xb6n"},
    };
    char got[SF_SAID_BYTES];

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf__said(got, sizeof(got), sf_bytes_str(rows[i].text));
        if (strcmp(got, rows[i].want) != 0)
            fail_msg("%s: %s", rows[i].text, got);
    }
}

static void cut(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"words and words", "words an..."}, {"words and w", "words and w"},
        {"words and w\n\n", "words and w"}, {"words a\xc3\xb6\xc3\xb6\xc3\xb6", "words a..."},
        {SECRET " and", "*** and"},         {"word " SECRET SECRET, "word ***"},
    };
    char got[12];

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf__said(got, sizeof(got), sf_bytes_str(rows[i].text));
        if (strcmp(got, rows[i].want) != 0)
            fail_msg("%s: %s", rows[i].text, got);
    }
}

static void last_lines(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", ""},
        {"one\n", "one"},
        {"Traceback\n  File x\n  File y\n    raise\nValueError: no vault\n\n", "raise ValueError: no vault"},
        {"a first line that is rather long, and longer\nthe last\n", "the last"},
        {"0 1 2 3 4 5 6 7 8 9 a b c d e f g h i j k l m n o p q r s t u v w x y z the end",
         "p q r s t u v w x y z the end"},
    };
    char got[36];

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf__said_last(got, sizeof(got), sf_bytes_str(rows[i].text));
        if (i + 1 < sizeof(rows) / sizeof(rows[0]) ? strcmp(got, rows[i].want) != 0 : !strstr(got, "the end"))
            fail_msg("%s: %s", rows[i].text, got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_line), cmocka_unit_test(cut), cmocka_unit_test(last_lines)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
