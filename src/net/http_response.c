#include "net/http_response.h"

#include <string.h>

#include "base/error.h"
#include "base/grow.h"

#define MAX_HEADERS 128u
#define MAX_HEADER_BYTES (64u << 10)
#define FIRST_BODY_BYTES (16u << 10)

/* ---------------------------------------------------------------- header ---------------------------------------- */

static void headers_clear(sf_http_request *r, const sf_allocator *a)
{
    for (size_t i = 0; i < r->response_header_count; i++)
        sf__free(a, r->response_headers[i].name); /* the value sits behind it */
    r->response_header_count = 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool headers_reserve(sf_http_collector *c)
{
    sf_http_request *r = c->r;
    return SF_RESERVE(c->alloc, &r->response_headers, &c->header_cap, r->response_header_count + 1);
}

static char *header_text(const sf_allocator *a, sf_bytes name, sf_bytes value)
{
    char *text = sf__alloc(a, name.n + value.n + 2);

    if (!text)
        return NULL;
    for (size_t i = 0; i < name.n; i++)
        text[i] = (char)(name.p[i] >= 'A' && name.p[i] <= 'Z' ? name.p[i] + ('a' - 'A') : name.p[i]);
    text[name.n] = '\0';
    memcpy(text + name.n + 1, value.p, value.n);
    text[name.n + 1 + value.n] = '\0';
    return text;
}

sf_status sf__http_collect_header(sf_http_collector *c, const char *line, size_t n, sf_error *err)
{
    sf_http_request *r = c->r;
    const char *colon, *value, *end = line + n;
    char *text;

    if (n >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        headers_clear(r, c->alloc);
        c->header_bytes = 0;
        return SF_OK;
    }
    c->header_bytes += n;
    if (c->header_bytes > MAX_HEADER_BYTES)
        return sf_fail(err, SF_CORRUPT, "response headers are longer than %u bytes", MAX_HEADER_BYTES);
    if (n > 0 && memchr(line, '\0', n))
        return sf_fail(err, SF_CORRUPT, "a response header holds a zero byte");
    colon = memchr(line, ':', n);
    if (!colon || colon == line || is_blank(line[0])) /* the blank line; folded lines, which nobody sends */
        return SF_OK;
    if (r->response_header_count == MAX_HEADERS)
        return sf_fail(err, SF_CORRUPT, "response has more than %u headers", MAX_HEADERS);
    for (value = colon + 1; value < end && is_blank(*value); value++)
        continue;
    while (end > value && is_blank(end[-1]))
        end--;
    text = headers_reserve(c) ? header_text(c->alloc, sf_bytes_of(line, (size_t)(colon - line)),
                                            sf_bytes_of(value, (size_t)(end - value)))
                              : NULL;
    if (!text)
        return sf_fail(err, SF_NOMEM, "response headers");
    r->response_headers[r->response_header_count++] = (sf_http_header){.name = text, .value = text + (colon - line) + 1};
    return SF_OK;
}

const char *sf__http_response_header(const sf_http_request *r, const char *name)
{
    for (size_t i = 0; i < r->response_header_count; i++)
        if (strcmp(r->response_headers[i].name, name) == 0)
            return r->response_headers[i].value;
    return NULL;
}

/* ---------------------------------------------------------------- body ------------------------------------------ */

/* Room for `need` bytes. The first allocation is the whole body when its length is known, so that the buffer has no
 * slack that a cache would be charged for. */
static bool body_reserve(sf_http_collector *c, size_t need, uint64_t expected, uint64_t bound)
{
    sf_http_request *r = c->r;
    uint64_t cap = r->response ? (uint64_t)r->response->cap + r->response->cap / 2 : expected;
    sf_buf *b;

    if (r->response && need <= r->response->cap)
        return true;
    if (cap > bound)
        cap = bound;
    if (cap < need)
        cap = need;
    if (r->response) {
        b = sf__buf_reserve(r->response, (size_t)cap);
    } else {
        b = sf__buf_new(c->alloc, (size_t)cap);
        if (b)
            b->n = 0;
    }
    if (b)
        r->response = b;
    return b != NULL;
}

sf_status sf__http_collect_body(sf_http_collector *c, long status, int64_t announced, const void *from, size_t n,
                                sf_error *err)
{
    sf_http_request *r = c->r;
    bool good = status >= 200 && status <= 299;
    uint64_t bound = good || r->max_body_bytes > SF_HTTP_ERROR_BODY_BYTES ? r->max_body_bytes : SF_HTTP_ERROR_BODY_BYTES;
    uint64_t expected = announced >= 0 ? (uint64_t)announced : r->expect_body_bytes;
    size_t have = r->response ? r->response->n : 0;

    if (good && announced >= 0 && (uint64_t)announced > bound && r->grow && r->grow(r, (uint64_t)announced))
        bound = r->max_body_bytes = (uint64_t)announced;
    if (n > bound - have || (announced >= 0 && (uint64_t)announced > bound && good)) {
        if (good) { /* as soon as it is announced: there is no point in receiving it */
            r->too_long = true;
            return sf_fail(err, SF_CORRUPT, "response body is longer than %llu bytes", (unsigned long long)bound);
        }
        c->cut = true;
        n = (size_t)(bound - have);
    }
    if (!body_reserve(c, have + n, expected ? expected : FIRST_BODY_BYTES, bound))
        return sf_fail(err, SF_NOMEM, "response body of %zu bytes", have + n);
    memcpy(r->response->data + have, from, n);
    r->response->n = have + n;
    return SF_OK;
}

void sf__http_request_cleanup(sf_http_request *r, const sf_allocator *a)
{
    headers_clear(r, a);
    sf__free(a, r->response_headers);
    r->response_headers = NULL;
    sf__buf_release(r->response);
    r->response = NULL;
}
