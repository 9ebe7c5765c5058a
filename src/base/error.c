#include "base/error.h"
#undef sf_fail /* the analyzer's, where they are used */
#undef sf_error_prefix
#undef sf_error_recode

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/escape.h"

static const struct {
    const char *name, *text;
    bool retryable;
} statuses[SF_STATUS_COUNT] = {
#define SF_STATUS_ROW(name, number, retryable, text) [SF_##name] = {#name, text, retryable},
    SF_STATUS_LIST(SF_STATUS_ROW)
#undef SF_STATUS_ROW
};

static bool status_known(sf_status s)
{
    return (unsigned)s < SF_STATUS_COUNT;
}

const char *sf_status_name(sf_status s)
{
    return status_known(s) ? statuses[s].name : "UNKNOWN";
}

const char *sf_status_text(sf_status s)
{
    return status_known(s) ? statuses[s].text : "unknown status";
}

bool sf_status_is_retryable(sf_status s)
{
    return status_known(s) && statuses[s].retryable;
}

const sf_error sf__no_error = SF_ERROR_INIT;

void sf_error_init(sf_error *err)
{
    *err = sf__no_error;
}

const char *sf_version(void)
{
    return SF_VERSION_STRING;
}

uint32_t sf_version_number(void)
{
    return SF_VERSION;
}

static const sf_error not_kept = {.code = SF_NOMEM, .db_id = -1, .message = "no memory to say what failed"};

const sf_error *sf_error_keep(const sf_allocator *a, const sf_error *e)
{
    sf_error *copy = sf__alloc(a, sizeof(*copy));

    if (!copy)
        return &not_kept;
    *copy = *e;
    return copy;
}

void sf_error_drop(const sf_allocator *a, const sf_error *kept)
{
    if (kept != &not_kept)
        sf__free(a, (sf_error *)kept);
}

sf_status sf_error_tell(const sf_allocator *a, const sf_error **kept, sf_error *err)
{
    const sf_error *e = *kept;
    sf_status rc = e ? e->code : SF_OK;

    if (e && err)
        *err = *e;
    *kept = NULL;
    sf_error_drop(a, e);
    return rc;
}

void sf_error_clear(sf_error *err)
{
    if (err)
        *err = (sf_error)SF_ERROR_INIT;
}

sf_status sf_fail(sf_error *err, sf_status code, const char *fmt, ...)
{
    static const char no_memory[] = "out of memory: "; /* callers name what did not fit */
    const size_t n = code == SF_NOMEM ? sizeof(no_memory) - 1 : 0;
    va_list args;

    if (!err)
        return code;
    *err = (sf_error)SF_ERROR_INIT;
    err->code = code;
    va_start(args, fmt);
    vsnprintf(err->message + n, sizeof(err->message) - n, fmt, args);
    va_end(args);
    if (n > 0 && strstr(err->message + n, no_memory)) /* somebody's below, handed on */
        memmove(err->message, err->message + n, strlen(err->message + n) + 1);
    else
        memcpy(err->message, no_memory, n);
    sf__escape(err->message, sizeof(err->message));
    return code;
}

sf_status sf_error_prefix(sf_error *err, sf_status code, const char *fmt, ...)
{
    char text[sizeof(err->message)];
    va_list args;
    size_t n, room;

    if (!err)
        return code;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sf__escape(text, sizeof(text));
    n = strlen(text);
    room = sizeof(text) - 1 - n;
    strncat(text, err->message, room);
    sf__escape(text, sizeof(text)); /* what is cut off may have torn a character */
    memcpy(err->message, text, sizeof(text));
    return sf_error_recode(err, code);
}

sf_status sf_error_recode(sf_error *err, sf_status code)
{
    if (err)
        err->code = code;
    return code;
}

void sf_error_object(sf_error *err, const char *url)
{
    if (!err || err->object[0] != '\0')
        return;
    snprintf(err->object, sizeof(err->object), "%s", url);
    sf__escape(err->object, sizeof(err->object));
}

static void add(char *text, size_t size, const char *fmt, ...) SF_PRINTF(3, 4);
static void add(char *text, size_t size, const char *fmt, ...)
{
    size_t n = strlen(text);
    va_list args;

    va_start(args, fmt);
    vsnprintf(text + n, size - n, fmt, args);
    va_end(args);
}

static void add_time(char *text, size_t size, uint64_t since_ns)
{
    uint64_t ms = (sf__clock_mono_ns() - since_ns) / 1000000;

    if (ms < 1000)
        add(text, size, "%" PRIu64 " ms", ms);
    else
        add(text, size, "%" PRIu64 ".%" PRIu64 " s", ms / 1000, ms % 1000 / 100);
}

sf_status sf_error_overdue(sf_error *err, const sf_overdue *o)
{
    const sf_error *last = o->last && o->last->code != SF_OK ? o->last : NULL;
    uint32_t ended = last ? last->attempts : 0, attempts = o->attempts > ended ? o->attempts : ended;
    char text[sizeof(err->message)] = "the deadline passed";
    int http_status = last ? last->http_status : 0;

    if (!err)
        return SF_TIMEOUT;
    if (o->early)
        snprintf(text, sizeof(text), "the deadline leaves no time for another attempt");
    if (attempts > 0 || o->since_ns)
        add(text, sizeof(text), " after ");
    if (attempts > 0)
        add(text, sizeof(text), "%u attempt%s", attempts, attempts == 1 ? "" : "s");
    if (o->since_ns) {
        add(text, sizeof(text), "%s", attempts > 0 ? " in " : "");
        add_time(text, sizeof(text), o->since_ns);
    }
    if (o->waits_for)
        add(text, sizeof(text), ", while it waited for %s", o->waits_for);
    if (last)
        add(text, sizeof(text), "; the last one%s: %s", attempts > ended ? " that ended" : "", last->message);
    sf_fail(err, SF_TIMEOUT, "%s", text);
    err->attempts = attempts;
    err->http_status = http_status;
    return SF_TIMEOUT;
}
