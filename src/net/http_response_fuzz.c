/* Responses as curl hands them over: header lines, then pieces of a body. Whatever comes, what is kept stays within its
 * bounds and is well-formed. Input: the status (2 bytes), the bound on the body (2), what is announced (2), then
 * the header up to an empty line, then the body in pieces of 1 + n % 7 * 50 bytes. */
#include <stdlib.h>

#include "net/http_response.h"

static void check_headers(const sf_http_request *r)
{
    size_t total = 0;

    if (r->response_header_count > 128)
        abort();
    for (size_t i = 0; i < r->response_header_count; i++) {
        const char *name = r->response_headers[i].name, *value = r->response_headers[i].value;
        size_t n = strlen(value);

        for (const char *p = name; *p; p++)
            if (*p >= 'A' && *p <= 'Z')
                abort();
        if (n > 0 && (strchr(" \t\r\n", value[0]) || strchr(" \t\r\n", value[n - 1])))
            abort();
        if (name[0] && sf__http_response_header(r, name) == NULL)
            abort();
        total += strlen(name) + n;
    }
    if (total > 64u << 10)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_http_request r = {0};
    sf_http_collector c = {.r = &r, .alloc = &sf__allocator_default};
    sf_cursor in = sf_bytes_of(data, size);
    uint16_t status, bound, announced;
    sf_status rc = SF_OK;
    sf_bytes piece;
    bool good, with_body;

    if (!sf_cursor_u16be(&in, &status) || !sf_cursor_u16be(&in, &bound) || !sf_cursor_u16be(&in, &announced))
        return 0;
    r.max_body_bytes = bound;
    good = status >= 200 && status <= 299;
    while (rc == SF_OK && in.n > 0) {
        const uint8_t *end = memchr(in.p, '\n', in.n);
        size_t n = end ? (size_t)(end - in.p) + 1 : in.n;

        if (!sf_cursor_take(&in, n, &piece))
            abort();
        rc = sf__http_collect_header(&c, (const char *)piece.p, piece.n, NULL);
        if (piece.n <= 2)
            break;
    }
    check_headers(&r);
    with_body = rc == SF_OK;
    while (rc == SF_OK && !c.cut && in.n > 0) {
        size_t n = 1 + in.p[0] % 7 * 50u;

        if (!sf_cursor_take(&in, n < in.n ? n : in.n, &piece))
            abort();
        rc = sf__http_collect_body(&c, status, announced == 0 ? -1 : announced, piece.p, piece.n, NULL);
        if (good && sf__buf_bytes(r.response).n > bound)
            abort();
    }
    if ((rc != SF_OK && rc != SF_CORRUPT) || r.too_long != (with_body && rc == SF_CORRUPT))
        abort();
    if (r.response && (r.response->n > r.response->cap || r.response->n > size))
        abort();
    sf__http_request_cleanup(&r, &sf__allocator_default);
    return 0;
}
