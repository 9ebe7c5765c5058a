/* Environment variables, the process's or a test's. Any thread, as long as nobody sets them meanwhile. */
#ifndef SF_BASE_ENV_H
#define SF_BASE_ENV_H

#include <stdbool.h>
#include <stdlib.h>
#include <strings.h>

/* getenv() with a context; NULL stands for the process's environment. */
typedef const char *(*sf_getenv_fn)(void *ctx, const char *name);

typedef struct sf_environment {
    sf_getenv_fn get;
    void *ctx;
} sf_environment;

/* NULL when it is not set. */
static inline const char *sf__env_get(const sf_environment *env, const char *name)
{
    return env->get ? env->get(env->ctx, name) : getenv(name);
}

/* The first of the names that is set and not empty; NULL-terminated. */
static inline const char *sf__env_first(const sf_environment *env, const char *const *names)
{
    for (; *names; names++) {
        const char *v = sf__env_get(env, *names);

        if (v && *v)
            return v;
    }
    return NULL;
}
#define SF_ENV(env, ...) sf__env_first(env, (const char *const[]){__VA_ARGS__, NULL})

/* What a variable or a setting says that is on or off; NULL is off. */
static inline bool sf__is_true(const char *s)
{
    return s && (strcasecmp(s, "true") == 0 || strcasecmp(s, "yes") == 0 || strcasecmp(s, "on") == 0 ||
                 (s[0] == '1' && s[1] == '\0'));
}

#endif
