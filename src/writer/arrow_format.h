/* Types as the Arrow C interface writes them: short texts, "l" for int64. Pure; any thread. */
#ifndef SF_WRITER_ARROW_FORMAT_H
#define SF_WRITER_ARROW_FORMAT_H

#include "shardyfusion/writer.h"

/* How a column's values lie in its buffers. */
typedef enum sf_arrow_layout {
    SF_ARROW_INT, /* signed, `width` bytes each */
    SF_ARROW_UINT,
    SF_ARROW_DECIMAL,  /* signed, without places behind the point, `width` bytes each */
    SF_ARROW_BOOL,     /* a bit each */
    SF_ARROW_FLOAT,    /* `width` bytes each, 4 or 8 */
    SF_ARROW_FIXED,    /* `width` bytes each */
    SF_ARROW_OFFSET32, /* buffer 1: int32 offsets into buffer 2 */
    SF_ARROW_OFFSET64,
    SF_ARROW_VIEW,  /* buffer 1: 16 bytes each: length, then the bytes or where they are */
    SF_ARROW_NULL,  /* no buffers: every row is null */
    SF_ARROW_INDEX, /* a dictionary's: integers as `width` and `is_signed` say, into the next level */
    SF_ARROW_RUNS   /* run ends of `width` bytes, one for each value of the next level */
} sf_arrow_layout;

typedef struct sf_arrow_format {
    sf_arrow_layout layout; /* not the last two, which schemas tell */
    size_t width;
    bool is_text; /* of bytes */
} sf_arrow_format;

/* False for types that are neither keys nor values nor route, and for texts that are no types. */
bool sf__arrow_format_parse(sf_arrow_format *out, const char *format) SF_MUST_USE;
/* As pyarrow prints the type, for messages; texts that are no types in quotes. */
void sf__arrow_type_name(const struct ArrowSchema *s, char *out, size_t n);

#endif
