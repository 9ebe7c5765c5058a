/* curl's multi handle on our loop, which watches its sockets and runs its timer. Knows nothing of requests. Loop thread only. */
#ifndef SF_NET_CURL_LOOP_H
#define SF_NET_CURL_LOOP_H

#include <curl/curl.h>

#include "net/loop.h"

typedef struct sf_curl_loop {
    /* set by the owner */
    void (*ended)(CURL *easy, CURLcode code); /* a transfer, not inside of curl */
    void (*unwatched)(CURL *easy, int e);     /* a socket of it cannot be watched (an errno); inside of curl */
    /* private, but for adding and removing transfers */
    CURLM *multi;
    sf_loop *loop;
    const sf_allocator *alloc;
    sf_timer timer;
} sf_curl_loop;

sf_status sf__curl_loop_init(sf_curl_loop *c, sf_loop *loop, const sf_allocator *a, uint32_t max_connections,
                             sf_error *err) SF_MUST_USE;
void sf__curl_loop_cleanup(sf_curl_loop *c); /* no transfer in it */

#endif
