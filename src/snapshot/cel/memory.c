#include "snapshot/cel/memory.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/limits.h"

void sf__cel_memory_init(sf_cel_memory *m, const sf_allocator *a)
{
    sf__arena_init(&m->heap, a);
    m->used = 0;
    m->heap_left = SF_LIMIT_CEL_BYTES;
    m->steps_left = SF_LIMIT_CEL_STEPS;
    m->failed = m->final = m->cut = false;
    m->reason[0] = '\0';
}

void sf__cel_memory_cleanup(sf_cel_memory *m)
{
    sf__arena_cleanup(&m->heap);
}

bool sf__cel_fail(sf_cel_memory *m, const char *fmt, ...)
{
    va_list args;

    if (m->final)
        return false;
    va_start(args, fmt);
    vsnprintf(m->reason, sizeof(m->reason), fmt, args);
    va_end(args);
    m->failed = true;
    return false;
}

static bool fail_for_good(sf_cel_memory *m, const char *reason, unsigned long bound)
{
    sf__cel_fail(m, reason, bound);
    m->final = true;
    return false;
}

void *sf__cel_memory_take(sf_cel_memory *m, size_t n)
{
    size_t aligned = (n + 15) & ~(size_t)15;
    void *p;

    if (n <= sizeof(m->inside) && aligned <= sizeof(m->inside) - m->used) {
        p = m->inside + m->used;
        m->used += aligned;
        return p;
    }
    if (n > m->heap_left) {
        fail_for_good(m, "it needs more than %lu bytes of memory", SF_LIMIT_CEL_BYTES);
        return NULL;
    }
    m->heap_left -= n;
    p = sf__arena_alloc(&m->heap, n > 0 ? n : 1);
    if (!p)
        fail_for_good(m, "out of memory", 0);
    return p;
}

void *sf__cel_memory_take_for(size_t n, void *memory)
{
    return sf__cel_memory_take(memory, n);
}

bool sf__cel_memory_exhausted(sf_cel_memory *m)
{
    return fail_for_good(m, "it takes more than %lu steps", SF_LIMIT_CEL_STEPS);
}
