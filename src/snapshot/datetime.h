/* Dates and times of the published documents (pointer, manifest, run record, folder names). Pure; any thread. */
#ifndef SF_SNAPSHOT_DATETIME_H
#define SF_SNAPSHOT_DATETIME_H

#include "base/bytes.h"

typedef struct sf_datetime {
    int64_t us; /* microseconds since 1970, UTC; a text without zone counts as UTC */
    bool naive; /* the text named no zone */
} sf_datetime;

/* "2026-01-02[T03:04[:05[.678901]][Z|+01:00|+0100]]" with its variants (docs/formats/snapshot.md 3), or a number of
 * seconds, or of milliseconds above 2*10^10. No blanks around. Fractions beyond microseconds are cut. */
bool sf__datetime_parse(sf_bytes text, sf_datetime *out) SF_MUST_USE;
/* A JSON number: as above, also with an exponent. Rounded to microseconds. */
bool sf__datetime_from_number(sf_bytes number, sf_datetime *out) SF_MUST_USE;

/* Calendar fields, in UTC, checked: years 1 to 9999, no second 60. */
bool sf__datetime_from_fields(unsigned year, unsigned month, unsigned day, unsigned hour, unsigned minute,
                              unsigned second, int64_t *us) SF_MUST_USE;

#define SF_DATETIME_TEXT 48 /* room for any int64, terminator included */
/* "2026-01-02T03:04:05.678901Z"; without fraction when the microseconds are 0. */
void sf__datetime_format(char out[SF_DATETIME_TEXT], int64_t us);
/* The same, always with six digits of fraction: names of folders. */
void sf__datetime_format_folder(char out[SF_DATETIME_TEXT], int64_t us);

#endif
