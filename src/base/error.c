#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/escape.h"

static const struct {
    const char *name, *text;
    bool retryable;
} statuses[SF_STATUS_COUNT] = {
#define SF_STATUS_ROW(name, retryable, text) [SF_##name] = {#name, text, retryable},
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

void sf_error_clear(sf_error *err)
{
    if (err)
        *err = (sf_error)SF_ERROR_INIT;
}

sf_status sf_fail(sf_error *err, sf_status code, const char *fmt, ...)
{
    va_list args;

    if (!err)
        return code;
    *err = (sf_error)SF_ERROR_INIT;
    err->code = code;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof(err->message), fmt, args);
    va_end(args);
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
    return code;
}

void sf_error_object(sf_error *err, const char *url)
{
    if (!err || err->object[0] != '\0')
        return;
    snprintf(err->object, sizeof(err->object), "%s", url);
    sf__escape(err->object, sizeof(err->object));
}
