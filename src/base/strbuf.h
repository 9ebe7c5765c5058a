/* A growing text buffer with a sticky out-of-memory flag: append freely, check once at the end. One thread. */
#ifndef SF_BASE_STRBUF_H
#define SF_BASE_STRBUF_H

#include "base/alloc.h"
#include "base/bytes.h"

typedef struct sf_strbuf {
    const sf_allocator *alloc;
    char *s; /* terminated when not NULL */
    size_t n, cap;
    bool failed; /* an append ran out of memory; the text is incomplete */
} sf_strbuf;

void sf__strbuf_init(sf_strbuf *b, const sf_allocator *a);
void sf__strbuf_cleanup(sf_strbuf *b);
void sf__strbuf_add(sf_strbuf *b, const void *p, size_t n);
void sf__strbuf_puts(sf_strbuf *b, const char *s);
void sf__strbuf_putc(sf_strbuf *b, char c);
void sf__strbuf_printf(sf_strbuf *b, const char *fmt, ...) SF_PRINTF(2, 3);
/* Only the first `n` bytes stay. */
void sf__strbuf_cut(sf_strbuf *b, size_t n);
/* The text; the caller frees it with sf__free. NULL after a failed append. Empties the buffer. */
char *sf__strbuf_detach(sf_strbuf *b) SF_MUST_USE;

#endif
