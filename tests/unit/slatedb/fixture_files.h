/* Reads the fixture folders. Aborts when one cannot be read. */
#ifndef SF_TESTS_UNIT_SLATEDB_FIXTURE_FILES_H
#define SF_TESTS_UNIT_SLATEDB_FIXTURE_FILES_H

#include "format_build.h"

struct names {
    char **v; /* sorted */
    size_t count;
};

/* Names in `dir` that end in `suffix`; none when there is no such folder. */
struct names names_in(const char *dir, const char *suffix);
void names_free(struct names *n);

/* False: there is no such file. */
bool file_read(const char *path, struct out *o);

#endif
