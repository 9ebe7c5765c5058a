/* Columns of a row as a JSON object, byte for byte what json.dumps(row, sort_keys=True, separators=(",", ":")) makes of the row in
 * Python: in ASCII, members by their names, NaN and Infinity as they are. One thread. */
#ifndef SF_WRITER_ARROW_JSON_H
#define SF_WRITER_ARROW_JSON_H

#include "base/strbuf.h"
#include "writer/arrow_column.h"

/* Members of the object by their columns' names, in any order, a name as often as one likes. */
typedef struct sf_arrow_members {
    const char *const *names; /* NULL: all columns */
    size_t count;
} sf_arrow_members;

typedef struct sf_arrow_json {
    struct arrow_member *members; /* in their order */
    size_t count;
    sf_strbuf prefixes; /* what stands in front of each value: {"a": or ,"b": */
    sf_strbuf text;     /* of the present row */
} sf_arrow_json;

/* Whether no two of the columns have one name, and each is of bools, integers, float or double, text, nulls, and no extension type: what JSON
 * has a form for, whatever makes it. The others a caller makes JSON of by its own means. */
bool sf__arrow_json_takes(const struct ArrowSchema *schema, const sf_arrow_members *wanted);

/* A column that the stream does not have is null in every row. SF_INVALID: two of a name, or a name that is no UTF-8; types are checked
 * when a batch has rows. The schema is not kept. Cleaned up in any case. */
sf_status sf__arrow_json_init(sf_arrow_json *j, const struct ArrowSchema *schema, const sf_arrow_members *wanted,
                              const sf_allocator *a, sf_error *err) SF_MUST_USE;
void sf__arrow_json_cleanup(sf_arrow_json *j); /* takes a zeroed one */
sf_status sf__arrow_json_enter(sf_arrow_json *j, const struct ArrowArray *batch, sf_error *err) SF_MUST_USE;
/* The object, until the next call. SF_BAD_ROW: text that is no UTF-8, an index outside of its dictionary. */
sf_status sf__arrow_json_row(sf_arrow_json *j, int64_t row, sf_bytes *out, sf_error *err) SF_MUST_USE;

#endif
