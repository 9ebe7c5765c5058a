#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *libc_realloc(void *ctx, void *p, size_t n)
{
    (void)ctx;
    return realloc(p, n);
}

static void libc_free(void *ctx, void *p)
{
    (void)ctx;
    free(p);
}

const sf_allocator sf__allocator_default = {
    .size = sizeof(sf_allocator),
    .realloc = libc_realloc,
    .free = libc_free,
};

void *sf__realloc(const sf_allocator *a, void *p, size_t n)
{
    return a->realloc(a->ctx, p, n > 0 ? n : 1);
}

void *sf__alloc(const sf_allocator *a, size_t n)
{
    return sf__realloc(a, NULL, n);
}

void *sf__calloc(const sf_allocator *a, size_t count, size_t size)
{
    size_t n;
    void *p;

    if (__builtin_mul_overflow(count, size, &n))
        return NULL;
    p = sf__alloc(a, n);
    if (p)
        memset(p, 0, n);
    return p;
}

void sf__free(const sf_allocator *a, void *p)
{
    if (p)
        a->free(a->ctx, p);
}

char *sf__strndup(const sf_allocator *a, const void *s, size_t n)
{
    char *copy = n < SIZE_MAX ? sf__alloc(a, n + 1) : NULL;

    if (!copy)
        return NULL;
    if (n > 0)
        memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

char *sf__strdup(const sf_allocator *a, const char *s)
{
    return sf__strndup(a, s, strlen(s));
}

char *sf__asprintf(const sf_allocator *a, const char *fmt, ...)
{
    va_list args, again;
    int n;
    char *text = NULL;

    va_start(args, fmt);
    va_copy(again, args);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n >= 0) {
        text = sf__alloc(a, (size_t)n + 1);
        if (text)
            vsnprintf(text, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    return text;
}
