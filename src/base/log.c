#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/escape.h"

void sf__log(const sf_log *log, sf_log_level level, const char *component, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    if (!log || !log->fn)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sf__escape(text, sizeof(text));
    log->fn(log->ctx, level, component, text);
}
