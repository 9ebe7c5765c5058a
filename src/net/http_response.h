/* Collects one HTTP response, line by line and piece by piece, into the results of an sf_http_request, and keeps it
 * within its bounds. Knows nothing of sockets or curl. One thread at a time. */
#ifndef SF_NET_HTTP_RESPONSE_H
#define SF_NET_HTTP_RESPONSE_H

#include "net/http_request.h"

typedef struct sf_http_collector {
    sf_http_request *r;
    const sf_allocator *alloc;
    size_t header_cap, header_bytes;
    bool cut; /* an error page went beyond what is kept of it: the response counts as complete all the same */
} sf_http_collector;

/* One line of the header, the status line and the blank line included. A status line begins anew: what came before
 * was an interim response. Fails with SF_CORRUPT or SF_NOMEM. */
sf_status sf__http_collect_header(sf_http_collector *c, const char *line, size_t n, sf_error *err) SF_MUST_USE;

/* A piece of the body of a response with `status`. `announced` is its Content-Length, negative when there is none.
 * Fails like sf__http_collect_header(); with `cut` set the rest of the body is not wanted. */
sf_status sf__http_collect_body(sf_http_collector *c, long status, int64_t announced, const void *from, size_t n,
                                sf_error *err) SF_MUST_USE;

#endif
