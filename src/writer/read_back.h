/* Looking keys up in a shard that no manifest names yet, through the reader of its backend. Blocks; for threads that may
 * wait. */
#ifndef SF_WRITER_READ_BACK_H
#define SF_WRITER_READ_BACK_H

#include "shardyfusion/writer.h"
#include "site/objects.h"

typedef struct sf_read_back {
    const sf_site *site;
    sf_backend backend;
    const char *spill_folder; /* SQLite: for a copy, while it lasts; NULL: $TMPDIR, else /tmp */
    const sf_cancel_flag *cancel;
} sf_read_back;

/* `values` has `count` zeroed slots; those that were filled are released by the caller, after a failure, too. */
sf_status sf__read_back(const sf_read_back *r, const sf_attempt *shard, const sf_bytes *keys, size_t count,
                        sf_value *values, sf_error *err) SF_MUST_USE;

#endif
