/* Log hook: a callback on the runtime, silent by default. Any thread. */
#ifndef SF_BASE_LOG_H
#define SF_BASE_LOG_H

#include "shardyfusion/base.h"

typedef struct sf_log {
    sf_log_fn fn; /* NULL: silent */
    void *ctx;
} sf_log;

void sf__log(const sf_log *log, sf_log_level level, const char *component, const char *fmt, ...) SF_PRINTF(4, 5);

#endif
