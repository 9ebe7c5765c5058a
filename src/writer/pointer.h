/* The pointer of a prefix, or of the store that keeps its manifests: what it names, and making it name something else. Threads as in site/objects.h. */
#ifndef SF_WRITER_POINTER_H
#define SF_WRITER_POINTER_H

#include "shardyfusion/writer.h"
#include "site/objects.h"
#include "snapshot/current.h"

typedef struct sf_pointer {
    bool exists, parsed;
    sf_current current; /* parsed */
    char etag[128];     /* exists */
    sf_error why;       /* exists, but does not parse */
} sf_pointer;

/* A missing pointer is a result; a malformed one too. */
sf_status sf__pointer_load(const sf_site *s, const sf_cancel_flag *cancel, sf_pointer *out, sf_error *err) SF_MUST_USE;
void sf__pointer_cleanup(const sf_site *s, sf_pointer *p); /* takes a zeroed one */

/* Whether it names this very manifest, by the same or another name for the place. */
bool sf__pointer_names(const sf_site *s, const sf_pointer *p, const char *ref);

/* Whether two references name one place. */
bool sf__same_reference(const sf_site *s, const char *a, const char *b);

/* What the pointer must be for a put to go ahead. */
typedef struct sf_expectation {
    sf_expected_current kind;
    const char *ref; /* SF_EXPECT_REF */
} sf_expectation;
/* SF_CONFLICT when it is not as expected now; *found as below. */
sf_status sf__pointer_check(const sf_site *s, const sf_expectation *expected, const sf_cancel_flag *cancel,
                            char **found, sf_error *err) SF_MUST_USE;
/* Makes it name `ref`; of pointers below the prefix only. SF_CONFLICT when it is not as expected, with *found (may be NULL, freed with sf__free()) set to
 * what it names instead. */
sf_status sf__pointer_move(const sf_site *s, const char *ref, const char *run_id, const sf_expectation *expected,
                           const sf_cancel_flag *cancel, char **found, bool *uncertain, sf_error *err) SF_MUST_USE;

#endif
