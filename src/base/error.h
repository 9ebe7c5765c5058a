/* Filling sf_error. Every function takes a NULL `err` and returns the code, so that a failure is one statement:
 *     return sf_fail(err, SF_CORRUPT, "index names %zu blocks", n);
 *     return sf_error_prefix(err, rc, "shard %u: ", db_id);               on the way up
 * Here, once, what storage or the network may have put into a message is escaped (escape.h). */
#ifndef SF_BASE_ERROR_H
#define SF_BASE_ERROR_H

#include "base/alloc.h"

sf_status sf_fail(sf_error *err, sf_status code, const char *fmt, ...) SF_PRINTF(3, 4);
/* What is said already, behind these words, and under this code. */
sf_status sf_error_prefix(sf_error *err, sf_status code, const char *fmt, ...) SF_PRINTF(3, 4);
sf_status sf_error_recode(sf_error *err, sf_status code); /* under another code only */
#ifdef __clang_analyzer__ /* it looks into no other file, and would have a failure return SF_OK */
#define sf_fail(err, code, ...) (sf_fail((err), (code), __VA_ARGS__), (code))
#define sf_error_prefix(err, code, ...) (sf_error_prefix((err), (code), __VA_ARGS__), (code))
#define sf_error_recode(err, code) (sf_error_recode((err), (code)), (code))
#endif
/* Name the object (kept when one is named already). */
void sf_error_object(sf_error *err, const char *url);
void sf_error_clear(sf_error *err);

/* What did not fail: for those who hand an error on by pointer, so that it is never NULL. */
extern const sf_error sf__no_error;
/* An sf_error takes more than a kilobyte: what is kept for long, and many times over, keeps one only after a failure.
 * A copy of `e`, or, without memory for it, one that says so (SF_NOMEM). */
const sf_error *sf_error_keep(const sf_allocator *a, const sf_error *e) SF_MUST_USE;
void sf_error_drop(const sf_allocator *a, const sf_error *kept); /* takes NULL */
/* Tells what is kept, once: copies it to `err` and drops it. SF_OK when there is none. */
sf_status sf_error_tell(const sf_allocator *a, const sf_error **kept, sf_error *err);

/* Of what ended because its deadline passed. */
typedef struct sf_overdue {
    uint64_t since_ns;     /* when it began, or 0: not known */
    uint32_t attempts;     /* begun */
    const char *waits_for; /* what it was doing then: "an answer", or NULL */
    const sf_error *last;  /* how the last attempt that ended failed, or NULL */
    bool early;            /* it has not passed yet, but leaves no time for another attempt */
} sf_overdue;
/* SF_TIMEOUT: "the deadline passed after 3 attempts in 1.0 s; the last one: GET answered 503". The caller names operation
 * and object. `last` may be *err itself. */
sf_status sf_error_overdue(sf_error *err, const sf_overdue *o);

#endif
