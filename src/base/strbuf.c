#include "base/strbuf.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/grow.h"

void sf__strbuf_init(sf_strbuf *b, const sf_allocator *a)
{
    *b = (sf_strbuf){.alloc = a};
}

void sf__strbuf_cleanup(sf_strbuf *b)
{
    sf__free(b->alloc, b->s);
    *b = (sf_strbuf){.alloc = b->alloc};
}

static bool strbuf_reserve(sf_strbuf *b, size_t more)
{
    size_t need;

    if (!b->failed)
        b->failed = __builtin_add_overflow(b->n, more, &need) || need == SIZE_MAX ||
                    !SF_RESERVE(b->alloc, &b->s, &b->cap, need + 1);
    return !b->failed;
}

void sf__strbuf_add(sf_strbuf *b, const void *p, size_t n)
{
    if (!strbuf_reserve(b, n))
        return;
    if (n > 0)
        memcpy(b->s + b->n, p, n);
    b->n += n;
    b->s[b->n] = '\0';
}

void sf__strbuf_puts(sf_strbuf *b, const char *s)
{
    sf__strbuf_add(b, s, strlen(s));
}

void sf__strbuf_putc(sf_strbuf *b, char c)
{
    sf__strbuf_add(b, &c, 1);
}

void sf__strbuf_printf(sf_strbuf *b, const char *fmt, ...)
{
    va_list args, again;
    int n;

    va_start(args, fmt);
    va_copy(again, args);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0)
        b->failed = true;
    else if (strbuf_reserve(b, (size_t)n)) {
        vsnprintf(b->s + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
}

void sf__strbuf_cut(sf_strbuf *b, size_t n)
{
    if (n >= b->n)
        return;
    b->n = n;
    b->s[n] = '\0';
}

char *sf__strbuf_detach(sf_strbuf *b)
{
    char *s;

    if (!b->s)
        sf__strbuf_add(b, "", 0);
    s = b->failed ? NULL : b->s;
    if (b->failed)
        sf__free(b->alloc, b->s);
    *b = (sf_strbuf){.alloc = b->alloc};
    return s;
}
