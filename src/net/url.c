#include "net/url.h"

#include <strings.h>

#include "base/error.h"

static bool is_alpha(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_unreserved(uint8_t c)
{
    return is_alpha(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

static int hex_value(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static void encode(sf_strbuf *out, sf_bytes s, const char *kept)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];

        if (is_unreserved(c) || (c != '\0' && strchr(kept, c))) {
            sf__strbuf_putc(out, (char)c);
        } else {
            char e[3] = {'%', hex[c >> 4], hex[c & 15]};

            sf__strbuf_add(out, e, sizeof(e));
        }
    }
}

void sf__url_encode(sf_strbuf *out, sf_bytes s, bool keep_slash)
{
    encode(out, s, keep_slash ? "/" : "");
}

void sf__url_encode_path(sf_strbuf *out, sf_bytes s)
{
    encode(out, s, "/!$&'()*+,;=:@");
}

bool sf__url_is_encoded(sf_bytes s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '%')
            continue;
        if (s.n - i < 3 || hex_value(s.p[i + 1]) < 0 || hex_value(s.p[i + 2]) < 0)
            return false;
        i += 2;
    }
    return true;
}

uint8_t sf__url_next(sf_bytes s, size_t *n)
{
    *n = s.p[0] == '%' && s.n >= 3 ? 3 : 1;
    return (uint8_t)(*n == 1 ? s.p[0] : hex_value(s.p[1]) << 4 | hex_value(s.p[2]));
}

bool sf__url_decode(sf_strbuf *out, sf_bytes s)
{
    const uint8_t *mark;
    size_t n;

    if (!sf__url_is_encoded(s)) /* first, so that a failure leaves nothing behind */
        return false;
    while (s.n > 0 && (mark = memchr(s.p, '%', s.n))) {
        sf__strbuf_add(out, s.p, (size_t)(mark - s.p));
        s = sf_bytes_of(mark, s.n - (size_t)(mark - s.p));
        sf__strbuf_putc(out, (char)sf__url_next(s, &n));
        s = sf_bytes_of(s.p + n, s.n - n);
    }
    if (s.n > 0)
        sf__strbuf_add(out, s.p, s.n);
    return true;
}

/* Up to the first byte of `stops`, or all of it; *s keeps the rest, which begins with that byte. */
static sf_bytes take_until(sf_bytes *s, const char *stops)
{
    size_t n = 0;
    sf_bytes head;

    while (n < s->n && !strchr(stops, s->p[n]))
        n++;
    head = sf_bytes_of(s->p, n);
    *s = sf_bytes_of(s->p + n, s->n - n);
    return head;
}

static sf_bytes drop(sf_bytes s, size_t n)
{
    return sf_bytes_of(s.p + n, s.n - n);
}

sf_bytes sf__url_scheme_of(const char *url)
{
    const char *end = strstr(url, "://");
    size_t n = end ? (size_t)(end - url) : 0;

    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)url[i];

        if (!is_alpha(c) && (i == 0 || !(is_digit(c) || c == '+' || c == '-' || c == '.')))
            return sf_bytes_of(url, 0);
    }
    return sf_bytes_of(url, n);
}

bool sf__url_scheme_is(sf_bytes scheme, const char *name)
{
    return scheme.n == strlen(name) && strncasecmp((const char *)scheme.p, name, scheme.n) == 0;
}

static bool host_is_sound(sf_bytes host)
{
    bool bracketed = host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';

    if (bracketed && host.n == 2)
        return false;
    for (size_t i = bracketed; i < host.n - bracketed; i++) {
        uint8_t c = host.p[i];

        /* bytes above 0x7f: international names, which the resolver maps */
        if (!is_unreserved(c) && c < 0x80 && !(bracketed && (c == ':' || c == '%')))
            return false;
    }
    return true;
}

sf_status sf__url_split(sf_url *out, const char *url, sf_error *err)
{
    sf_bytes rest = sf_bytes_str(url), authority;
    sf_url u = {.scheme = sf__url_scheme_of(url)};
    unsigned number = 0;

    if (u.scheme.n == 0)
        return sf_fail(err, SF_INVALID, "URL has no scheme");
    for (size_t i = 0; i < rest.n; i++) {
        if (rest.p[i] <= ' ' || rest.p[i] == 0x7f)
            return sf_fail(err, SF_INVALID, "URL has a blank or control character at %zu", i);
        if (rest.p[i] == '#')
            return sf_fail(err, SF_INVALID, "URL has a fragment");
    }
    rest = drop(rest, u.scheme.n + 3);
    authority = take_until(&rest, "/?");
    u.path = take_until(&rest, "?");
    if (rest.n > 0)
        u.query = drop(rest, 1);
    for (size_t i = authority.n; i-- > 0;) {
        if (authority.p[i] == '@') {
            u.userinfo = sf_bytes_of(authority.p, i);
            authority = drop(authority, i + 1);
            break;
        }
    }
    if (authority.n > 0 && authority.p[0] == '[') {
        u.host = take_until(&authority, "]");
        if (authority.n == 0)
            return sf_fail(err, SF_INVALID, "URL has an address without its closing bracket");
        u.host.n++;
        authority = drop(authority, 1);
    } else {
        u.host = take_until(&authority, ":");
    }
    if (authority.n > 0) {
        if (authority.p[0] != ':' || authority.n > 6)
            return sf_fail(err, SF_INVALID, "URL has a malformed port");
        u.port = drop(authority, 1);
        for (size_t i = 0; i < u.port.n; i++) {
            number = number * 10 + (unsigned)(u.port.p[i] - '0');
            if (!is_digit(u.port.p[i]) || number > UINT16_MAX)
                return sf_fail(err, SF_INVALID, "URL has a malformed port");
        }
    }
    if (!host_is_sound(u.host))
        return sf_fail(err, SF_INVALID, "URL has a malformed host");
    *out = u;
    return SF_OK;
}
