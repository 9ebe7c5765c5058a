/* Percent-encoding and splitting of URLs, strictly after RFC 3986. Pure; any thread. */
#ifndef SF_NET_URL_H
#define SF_NET_URL_H

#include "base/strbuf.h"

/* Everything outside A-Z a-z 0-9 - . _ ~ becomes %XX (upper case hex, as S3 signatures want it). '/' is kept when
 * `keep_slash` says so: the path of an object's URL; never in a query. */
void sf__url_encode(sf_strbuf *out, sf_bytes s, bool keep_slash);
/* Undoes it. False on a stray or unfinished %, with *out as it was. '+' stays '+'. */
bool sf__url_decode(sf_strbuf *out, sf_bytes s) SF_MUST_USE;
/* Whether that would work. */
bool sf__url_is_encoded(sf_bytes s);
/* The first byte that such a text means; *n: how many stand for it. `s` is not empty. */
uint8_t sf__url_next(sf_bytes s, size_t *n);

/* Spans into the URL that was split; absent parts are empty. */
typedef struct sf_url {
    sf_bytes scheme; /* as written, without ':' */
    sf_bytes userinfo;
    sf_bytes host;  /* IPv6 addresses with their brackets */
    sf_bytes port;  /* digits */
    sf_bytes path;  /* with its leading slash, or empty */
    sf_bytes query; /* without '?' */
} sf_url;

/* "scheme://authority/path?query". SF_INVALID when there is no scheme, when host or port are malformed, or when the
 * text holds blanks or control characters. A fragment is refused. */
sf_status sf__url_split(sf_url *out, const char *url, sf_error *err);

/* The part before "://", or empty when there is none that could be a scheme. */
sf_bytes sf__url_scheme_of(const char *url);
/* Everything that a path may not hold as it is (RFC 3986, pchar and '/') becomes %XX. */
void sf__url_encode_path(sf_strbuf *out, sf_bytes s);
/* In any case, as RFC 3986 has it. */
bool sf__url_scheme_is(sf_bytes scheme, const char *name);

#endif
