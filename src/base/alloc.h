/* The allocator that everything in the library takes its memory from. It is handed in by the runtime; there is no
 * global one, so that a test can fail the n-th allocation. Any thread may call it. */
#ifndef SF_BASE_ALLOC_H
#define SF_BASE_ALLOC_H

#include "shardyfusion/base.h"

/* The C library's allocator. */
extern const sf_allocator sf__allocator_default;

void *sf__alloc(const sf_allocator *a, size_t n) SF_MUST_USE;
/* Zeroed; NULL when count * size overflows. */
void *sf__calloc(const sf_allocator *a, size_t count, size_t size) SF_MUST_USE;
void *sf__realloc(const sf_allocator *a, void *p, size_t n) SF_MUST_USE;
/* Takes NULL. */
void sf__free(const sf_allocator *a, void *p);
char *sf__strdup(const sf_allocator *a, const char *s) SF_MUST_USE;
/* Copies n bytes and terminates them. */
char *sf__strndup(const sf_allocator *a, const void *s, size_t n) SF_MUST_USE;
char *sf__asprintf(const sf_allocator *a, const char *fmt, ...) SF_MUST_USE SF_PRINTF(2, 3);

#endif
