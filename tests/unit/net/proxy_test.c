/* Which proxy is taken, and which hosts go past it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "net/proxy.h"

static const char *from_list(void *ctx, const char *name)
{
    size_t n = strlen(name);

    for (const char *const *e = ctx; *e; e++)
        if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
            return *e + n + 1;
    return NULL;
}

static void variables(void **state)
{
    static const struct {
        const char *name, *url, *env[5], *want;
    } rows[] = {
        {"none", "http://h/", {NULL}, NULL},
        {"http", "http://h/", {"http_proxy=p:1"}, "p:1"},
        {"capitals", "http://h/", {"HTTP_PROXY=p:1"}, "p:1"},
        {"a scheme in capitals", "HTTP://h/", {"HTTP_PROXY=p:1"}, "p:1"},
        {"small before capital", "http://h/", {"HTTP_PROXY=q:1", "http_proxy=p:1"}, "p:1"},
        {"small and empty hides capitals", "http://h/", {"HTTP_PROXY=q:1", "http_proxy="}, NULL},
        {"a CGI program does not trust a header", "http://h/", {"HTTP_PROXY=evil:1", "REQUEST_METHOD=GET"}, NULL},
        {"a CGI program with its own", "http://h/", {"HTTP_PROXY=evil:1", "REQUEST_METHOD=GET", "http_proxy=p:1"}, "p:1"},
        {"a CGI program, https", "https://h/", {"HTTPS_PROXY=p:1", "REQUEST_METHOD=GET"}, "p:1"},
        {"https", "https://h/", {"https_proxy=p:1", "http_proxy=q:1"}, "p:1"},
        {"https in capitals", "https://h/", {"HTTPS_PROXY=p:1"}, "p:1"},
        {"the other scheme's", "https://h/", {"http_proxy=q:1"}, NULL},
        {"all", "https://h/", {"ALL_PROXY=socks5://p:1"}, "socks5://p:1"},
        {"all, small", "http://h/", {"all_proxy=p:1", "ALL_PROXY=q:1"}, "p:1"},
        {"the scheme's before all", "http://h/", {"all_proxy=q:1", "HTTP_PROXY=p:1"}, "p:1"},
        {"an exception", "http://h/", {"HTTP_PROXY=p:1", "NO_PROXY=h"}, NULL},
        {"exceptions, small before capital", "http://h/", {"HTTP_PROXY=p:1", "NO_PROXY=h", "no_proxy=i"}, "p:1"},
        {"an exception with the scheme's port", "https://h/", {"HTTPS_PROXY=p:1", "NO_PROXY=h:443"}, NULL},
        {"an exception with another port", "https://h:9000/", {"HTTPS_PROXY=p:1", "NO_PROXY=h:443"}, "p:1"},
        {"an exception with the URL's port", "http://h:9000/", {"HTTP_PROXY=p:1", "NO_PROXY=h:9000"}, NULL},
        {"not a URL", "h", {"HTTP_PROXY=p:1"}, NULL},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *got = sf__proxy_of(rows[i].url, &(sf_environment){from_list, (void *)rows[i].env});

        if ((got != NULL) != (rows[i].want != NULL) || (got && strcmp(got, rows[i].want) != 0))
            fail_msg("%s: %s", rows[i].name, got ? got : "none");
    }
}

static void exceptions(void **state)
{
    static const struct {
        const char *list, *host;
        unsigned port;
        bool want;
    } rows[] = {
        {"", "a.b", 80, false},
        {"*", "a.b", 80, true},
        {"x, *", "10.0.0.1", 80, true},
        {"example.com", "example.com", 80, true},
        {"example.com", "EXAMPLE.com.", 80, true},
        {"Example.COM.", "example.com", 80, true},
        {"example.com", "s3.example.com", 80, true},
        {"example.com", "notexample.com", 80, false},
        {"example.com", "example.com.evil", 80, false},
        {".example.com", "s3.example.com", 80, true},
        {".example.com", "example.com", 80, true},
        {"*.example.com", "s3.example.com", 80, true},
        {"*.example.com", "example.com", 80, false},
        {" a.b ,\tc.d", "c.d", 80, true},
        {"a.b c.d", "c.d", 80, true},
        {",,", "c.d", 80, false},
        {"a.b:9000", "a.b", 9000, true},
        {"a.b:9000", "x.a.b", 9000, true},
        {"a.b:9000", "a.b", 443, false},
        {".a.b:9000", "x.a.b", 9000, true},
        {"*:9000", "x.a.b", 9000, true},
        {"a.b:x", "a.b", 80, false},
        {"a.b:123456", "a.b", 80, false},
        {"127.0.0.1", "127.0.0.1", 9000, true},
        {"127.0.0.1:9000", "127.0.0.1", 9000, true},
        {"127.0.0.1:9001", "127.0.0.1", 9000, false},
        {"0.0.1", "127.0.0.1", 80, false},
        {"0.1", "10.0.0.1", 80, false},
        {"10.0.0.0/8", "10.2.3.4", 80, true},
        {"10.0.0.0/8", "11.2.3.4", 80, false},
        {"10.0.0.0/8", "ten.example.com", 80, false},
        {"192.168.4.0/22", "192.168.7.255", 80, true},
        {"192.168.4.0/22", "192.168.8.0", 80, false},
        {"0.0.0.0/0", "9.9.9.9", 80, true},
        {"0.0.0.0/0", "[::1]", 80, false},
        {"10.0.0.0/33", "10.0.0.0", 80, false},
        {"10.0.0.0/", "10.0.0.0", 80, false},
        {"a.b/8", "a.b", 80, false},
        {"[::1]", "[::1]", 80, true},
        {"::1", "[::1]", 80, true},
        {"0:0:0:0:0:0:0:1", "[::1]", 80, true},
        {"[::1]:9000", "[::1]", 9000, true},
        {"[::1]:9000", "[::1]", 80, false},
        {"fd00::/8", "[fd12:3456::1]", 80, true},
        {"fd00::/8", "[fe80::1]", 80, false},
        {"10.0.0.1", "[::ffff:10.0.0.1]", 80, true},
        {"localhost", "localhost", 80, true},
        {":80", "a", 80, false},
        {".", "a", 80, false},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (sf__no_proxy_matches(rows[i].list, sf_bytes_str(rows[i].host), rows[i].port) != rows[i].want)
            fail_msg("\"%s\" and %s:%u", rows[i].list, rows[i].host, rows[i].port);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(variables), cmocka_unit_test(exceptions)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
