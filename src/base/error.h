/* Filling sf_error. Every function takes a NULL `err` and returns the code, so that a failure is one statement:
 *     return sf_fail(err, SF_CORRUPT, "index names %zu blocks", n);
 *     return sf_error_prefix(err, rc, "shard %u: ", db_id);               on the way up
 * Here, once, what storage or the network may have put into a message is escaped (escape.h). */
#ifndef SF_BASE_ERROR_H
#define SF_BASE_ERROR_H

#include "shardyfusion/base.h"

sf_status sf_fail(sf_error *err, sf_status code, const char *fmt, ...) SF_PRINTF(3, 4);
sf_status sf_error_prefix(sf_error *err, sf_status code, const char *fmt, ...) SF_PRINTF(3, 4);
/* Name the object (kept when one is named already). */
void sf_error_object(sf_error *err, const char *url);
void sf_error_clear(sf_error *err);

#endif
