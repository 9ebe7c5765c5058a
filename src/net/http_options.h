/* What curl is told of one request: transport, method, signature, headers, body. Callbacks are whoever's who drives it. */
#ifndef SF_NET_HTTP_OPTIONS_H
#define SF_NET_HTTP_OPTIONS_H

#include <curl/curl.h>

#include "net/http_request.h"

/* Collects the first failure in `rc`. */
#define SF_CURL_SET(rc, easy, option, value) \
    ((rc) = (rc) == CURLE_OK ? curl_easy_setopt((easy), (option), (value)) : (rc))

/* *headers, NULL at first, are the caller's to free, after the transfer and after failures, too. A body that is not small is read by
 * the handle's CURLOPT_READFUNCTION. */
CURLcode sf__http_options_set(CURL *easy, const sf_http_request *r, struct curl_slist **headers);
/* Forgets all of a request, its credentials, too. False: the handle is good for no other one. */
bool sf__http_options_reset(CURL *easy) SF_MUST_USE;

#endif
