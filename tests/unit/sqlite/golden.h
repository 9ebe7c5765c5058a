/* The golden shards: files of tests/fixtures/snapshots as bytes. */
#ifndef TESTS_UNIT_SQLITE_GOLDEN_H
#define TESTS_UNIT_SQLITE_GOLDEN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* Paths of all golden files of this name, sorted; at least one. */
static inline void golden_find(const char *name, glob_t *found)
{
    char pattern[1024];

    snprintf(pattern, sizeof(pattern), "%s/snapshots/sqlite-*/bucket/golden/*/shards/*/*/*/%s", SF_FIXTURES_DIR, name);
    if (glob(pattern, 0, NULL, found) != 0 || found->gl_pathc == 0)
        fail_msg("no files %s", pattern);
}

static inline sf_buf *golden_read(const char *path)
{
    FILE *f = fopen(path, "rb");
    sf_buf *b;
    long n = -1;

    if (f && fseek(f, 0, SEEK_END) == 0)
        n = ftell(f);
    if (n < 0)
        fail_msg("%s cannot be read", path);
    rewind(f);
    b = sf__buf_new(&sf__allocator_default, (size_t)n);
    assert_non_null(b);
    assert_int_equal(fread(b->data, 1, b->n, f), b->n);
    fclose(f);
    return b;
}

/* The file beside `path`. */
static inline sf_buf *golden_read_beside(const char *path, const char *name)
{
    char other[1024];

    snprintf(other, sizeof(other), "%.*s/%s", (int)(strrchr(path, '/') - path), path, name);
    return golden_read(other);
}

#endif
