/* Which proxy a request goes through, by the variables that other clients follow. Pure; any thread. */
#ifndef SF_NET_PROXY_H
#define SF_NET_PROXY_H

#include "base/bytes.h"
#include "base/env.h"

/* The proxy's URL, the environment's; NULL: none. By the URL's scheme http_proxy or https_proxy, then all_proxy, each in
 * small letters before capitals; one in small letters that is empty hides the one in capitals. HTTP_PROXY does not count
 * where REQUEST_METHOD is set: to a CGI program it is a header that the caller chose (httpoxy). */
const char *sf__proxy_of(const char *url, const sf_environment *env);

/* Whether a list such as that of NO_PROXY names this host and port. Entries are separated by commas or blanks:
 *     *                       every host
 *     example.com             the host and what is below it; .example.com means the same, *.example.com only what is below
 *     10.0.0.0/8, fd00::/8    addresses by their first bits
 *     127.0.0.1, [::1], ::1   one address, however it is written
 *     any of them:443         with this port only
 * `host` may have the brackets of an IPv6 address. */
bool sf__no_proxy_matches(const char *list, sf_bytes host, unsigned port) SF_MUST_USE;

#endif
