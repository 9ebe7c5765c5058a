/* URLs from configuration and from stored documents: every part lies inside the text and joins to it again; what is encoded
 * decodes to itself. */
#include <stdlib.h>

#include "net/url.h"

static void check_inside(const char *url, sf_bytes part)
{
    size_t n = strlen(url);

    if (part.n > 0 &&
        (part.p < (const uint8_t *)url || part.n > n || (size_t)(part.p - (const uint8_t *)url) > n - part.n))
        abort();
}

static void add(sf_strbuf *b, const char *before, sf_bytes part, const char *after)
{
    sf__strbuf_puts(b, before);
    sf__strbuf_add(b, part.p, part.n);
    sf__strbuf_puts(b, after);
}

/* "scheme://host/path" without what may be empty and still have its mark. */
static void check_split(const char *url)
{
    sf_url u, again;
    sf_strbuf b;

    if (sf__url_split(&u, url, NULL) != SF_OK)
        return;
    check_inside(url, u.scheme);
    check_inside(url, u.userinfo);
    check_inside(url, u.host);
    check_inside(url, u.port);
    check_inside(url, u.path);
    check_inside(url, u.query);
    sf__strbuf_init(&b, &sf__allocator_default);
    add(&b, "", u.scheme, "://");
    if (u.userinfo.n > 0)
        add(&b, "", u.userinfo, "@");
    add(&b, "", u.host, "");
    if (u.port.n > 0)
        add(&b, ":", u.port, "");
    add(&b, "", u.path, "");
    if (u.query.n > 0)
        add(&b, "?", u.query, "");
    if (sf__url_split(&again, b.s, NULL) != SF_OK || !sf_bytes_eq(u.host, again.host) ||
        !sf_bytes_eq(u.port, again.port) || !sf_bytes_eq(u.path, again.path) || !sf_bytes_eq(u.query, again.query) ||
        !sf_bytes_eq(u.userinfo, again.userinfo))
        abort();
    sf__strbuf_cleanup(&b);
}

static void check_codec(sf_bytes text, bool keep_slash)
{
    sf_strbuf encoded, decoded;

    sf__strbuf_init(&encoded, &sf__allocator_default);
    sf__strbuf_init(&decoded, &sf__allocator_default);
    sf__url_encode(&encoded, text, keep_slash);
    for (size_t i = 0; i < encoded.n; i++)
        if ((unsigned char)encoded.s[i] <= ' ' || (unsigned char)encoded.s[i] > '~' || strchr("?#&+=", encoded.s[i]))
            abort();
    if (!sf__url_decode(&decoded, sf_bytes_of(encoded.s, encoded.n)) ||
        !sf_bytes_eq(sf_bytes_of(decoded.s, decoded.n), text))
        abort();
    sf__strbuf_cleanup(&decoded);
    sf__strbuf_init(&decoded, &sf__allocator_default);
    if (!sf__url_decode(&decoded, text) && decoded.n > 0)
        abort();
    sf__strbuf_cleanup(&encoded);
    sf__strbuf_cleanup(&decoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *url = sf__strndup(&sf__allocator_default, data, size);

    if (!url)
        return 0;
    check_split(url);
    check_codec(sf_bytes_of(data, size), size % 2 == 0);
    sf__free(&sf__allocator_default, url);
    return 0;
}
