/* HTTP requests over one curl multi handle that the loop thread drives. Has never heard of S3 objects. Loop thread
 * only, unless said otherwise. Connections are kept alive and reused. */
#ifndef SF_NET_HTTP_H
#define SF_NET_HTTP_H

#include "net/http_request.h"
#include "net/loop.h"

typedef struct sf_http sf_http;

sf_status sf__http_new(sf_http **out, sf_loop *loop, const sf_allocator *a, uint32_t max_connections, sf_error *err);
/* All requests must be done, and not from one's `done`. Takes NULL. */
void sf__http_free(sf_http *http);
bool sf__http_is_idle(const sf_http *http); /* all requests are done */
void sf__http_submit(sf_http *http, sf_http_request *r);
/* Ends as an ordinary SF_CANCELLED completion; harmless when already done. */
void sf__http_cancel(sf_http *http, sf_http_request *r);
/* Ends it at once, without its completion: for owners that go away. False when it is over already and the completion is on
 * its way. */
bool sf__http_abandon(sf_http *http, sf_http_request *r) SF_MUST_USE;
/* What a request under way waits for, for messages: "a connection", "an answer". */
const char *sf__http_waits_for(const sf_http_request *r);

/* Seconds since 1970 of a Date header; negative when it is none. Pure; any thread. */
int64_t sf__http_date(const char *text);

#endif
