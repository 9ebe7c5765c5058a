/* Rows out of Arrow record batches, one after the other, for whoever takes rows. Keys, values and routing columns are read where
 * they lie; nothing is allocated a row. One thread. */
#ifndef SF_WRITER_ARROW_ROWS_H
#define SF_WRITER_ARROW_ROWS_H

#include "shardyfusion/arrow.h"
#include "writer/arrow_json.h"
#include "writer/cel_shards.h"

/* What of a row is its value. */
typedef struct sf_arrow_value {
    enum { SF_ARROW_VALUE_COLUMN, SF_ARROW_VALUE_JSON, SF_ARROW_VALUE_NONE /* values are empty */ } kind;
    const char *column;       /* as it stands; NULL: the second */
    sf_arrow_members members; /* of the JSON object */
} sf_arrow_value;

typedef struct sf_arrow_rows {
    const sf_allocator *alloc;
    const char *key_column; /* NULL: the first */
    sf_arrow_value value;
    const sf_cel_shards *cel; /* NULL, or whose columns a key brings along */
    /* Both hold until it returns; what it returns other than SF_OK ends the reading. */
    sf_status (*take)(void *ctx, const sf_key *key, sf_bytes value, sf_error *err);
    /* A row that cannot be read: SF_OK leaves it out, else it is what ends the reading. `key` is NULL when that is what is wrong; NULL:
     * no row is left out. */
    sf_status (*refuse)(void *ctx, const sf_key *key, sf_status rc, sf_error *err);
    void *ctx;
    uint64_t rows; /* so far, for messages: the next one is row `rows` + 1 */
} sf_arrow_rows;

/* All rows of a stream. Releases it, however it ends. SF_BAD_ROW names the row, SF_INVALID the column or what the stream says of its
 * failure; also of one that is released already. */
sf_status sf__arrow_rows_read(sf_arrow_rows *r, struct ArrowArrayStream *stream, sf_error *err) SF_MUST_USE;

#endif
