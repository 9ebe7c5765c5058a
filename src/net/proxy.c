#include "net/proxy.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "net/url.h"

/* ------------------------------------------------------------------ addresses ------------------------------------ */

struct address {
    uint8_t bytes[16];
    unsigned bits; /* 32 or 128; 0: not an address */
};

static sf_bytes unbracketed(sf_bytes host)
{
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        return sf_bytes_of(host.p + 1, host.n - 2);
    return host;
}

static struct address address_of(sf_bytes host)
{
    struct address a = {.bits = 0};
    char text[INET6_ADDRSTRLEN];
    uint8_t six[16];

    host = unbracketed(host);
    if (host.n == 0 || host.n >= sizeof(text))
        return a;
    memcpy(text, host.p, host.n);
    text[host.n] = '\0';
    if (inet_pton(AF_INET, text, a.bytes) == 1) {
        a.bits = 32;
    } else if (inet_pton(AF_INET6, text, six) == 1) {
        static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

        if (memcmp(six, mapped, sizeof(mapped)) == 0) { /* ::ffff:10.0.0.1 is 10.0.0.1 */
            memcpy(a.bytes, six + 12, 4);
            a.bits = 32;
        } else {
            memcpy(a.bytes, six, sizeof(six));
            a.bits = 128;
        }
    }
    return a;
}

static bool same_bits(const struct address *a, const struct address *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;

    if (a->bits != b->bits || a->bits == 0 || bits > a->bits || memcmp(a->bytes, b->bytes, whole) != 0)
        return false;
    return rest == 0 || (a->bytes[whole] ^ b->bytes[whole]) >> (8 - rest) == 0;
}

/* ------------------------------------------------------------------ entries -------------------------------------- */

/* Up to five digits, which is more than any port or prefix has. */
static bool number_of(sf_bytes digits, unsigned *out)
{
    unsigned v = 0;

    if (digits.n == 0 || digits.n > 5)
        return false;
    for (size_t i = 0; i < digits.n; i++) {
        if (digits.p[i] < '0' || digits.p[i] > '9')
            return false;
        v = v * 10 + (unsigned)(digits.p[i] - '0');
    }
    *out = v;
    return true;
}

/* Takes ":443" off the end. What has several colons and no brackets is an IPv6 address, and has none. */
static bool take_port(sf_bytes *entry, unsigned *port)
{
    const uint8_t *colon = entry->n > 0 ? memrchr(entry->p, ':', entry->n) : NULL;
    sf_bytes host;

    if (!colon)
        return false;
    host = sf_bytes_of(entry->p, (size_t)(colon - entry->p));
    if (host.n > 0 && memchr(host.p, ':', host.n) && host.p[host.n - 1] != ']')
        return false;
    if (!number_of(sf_bytes_of(colon + 1, entry->n - host.n - 1), port))
        return false;
    *entry = host;
    return true;
}

static bool is_name_or_below(sf_bytes host, sf_bytes entry)
{
    bool below_only = entry.n > 1 && entry.p[0] == '*' && entry.p[1] == '.';

    if (below_only)
        entry = sf_bytes_of(entry.p + 1, entry.n - 1);
    while (entry.n > 0 && entry.p[0] == '.')
        entry = sf_bytes_of(entry.p + 1, entry.n - 1);
    if (entry.n > 0 && entry.p[entry.n - 1] == '.')
        entry.n--;
    if (host.n > 0 && host.p[host.n - 1] == '.')
        host.n--;
    if (entry.n == 0 || host.n < entry.n ||
        strncasecmp((const char *)host.p + host.n - entry.n, (const char *)entry.p, entry.n) != 0)
        return false;
    return host.n == entry.n ? !below_only : host.p[host.n - entry.n - 1] == '.';
}

static bool entry_matches(sf_bytes entry, sf_bytes host, unsigned port)
{
    const uint8_t *slash = memchr(entry.p, '/', entry.n);
    struct address mine = address_of(host), theirs;
    unsigned bits, only;

    if (slash) {
        theirs = address_of(sf_bytes_of(entry.p, (size_t)(slash - entry.p)));
        return number_of(sf_bytes_of(slash + 1, entry.n - (size_t)(slash - entry.p) - 1), &bits) &&
               same_bits(&mine, &theirs, bits);
    }
    if (take_port(&entry, &only) && only != port)
        return false;
    if (entry.n == 1 && entry.p[0] == '*')
        return true;
    theirs = address_of(entry);
    if (mine.bits > 0 || theirs.bits > 0) /* "0.1" is not what 127.0.0.1 lies below */
        return same_bits(&mine, &theirs, theirs.bits);
    return is_name_or_below(host, entry);
}

bool sf__no_proxy_matches(const char *list, sf_bytes host, unsigned port)
{
    static const char separators[] = ", \t\r\n";

    for (list += strspn(list, separators); *list; list += strspn(list, separators)) {
        size_t n = strcspn(list, separators);

        if (entry_matches(sf_bytes_of(list, n), host, port))
            return true;
        list += n;
    }
    return false;
}

/* ------------------------------------------------------------------ variables ------------------------------------ */

static const char *either(const sf_environment *env, const char *small, const char *capital)
{
    const char *v = sf__env_get(env, small);

    if (!v)
        v = sf__env_get(env, capital);
    return v && *v ? v : NULL;
}

const char *sf__proxy_of(const char *url, const sf_environment *env)
{
    const char *proxy, *exceptions;
    unsigned port;
    sf_url u;
    bool tls;

    if (sf__url_split(&u, url, NULL) != SF_OK)
        return NULL; /* whoever sends it refuses it, too */
    tls = u.scheme.n == 5 && strncasecmp((const char *)u.scheme.p, "https", 5) == 0;
    if (tls)
        proxy = either(env, "https_proxy", "HTTPS_PROXY");
    else
        proxy = either(env, "http_proxy", sf__env_get(env, "REQUEST_METHOD") ? "http_proxy" : "HTTP_PROXY");
    if (!proxy)
        proxy = either(env, "all_proxy", "ALL_PROXY");
    exceptions = either(env, "no_proxy", "NO_PROXY");
    if (!number_of(u.port, &port))
        port = tls ? 443 : 80;
    if (proxy && exceptions && sf__no_proxy_matches(exceptions, u.host, port))
        return NULL;
    return proxy;
}
