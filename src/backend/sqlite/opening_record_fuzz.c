/* Input: a record. What decodes may be put into a request, and written again it is the same. */
#include <stdlib.h>

#include "backend/sqlite/opening_record.h"

static void must(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_sqlite_record r;
    sf_buf *again;

    if (!sf__sqlite_record_decode(&r, sf_bytes_of(data, size)))
        return 0;
    must(r.db_bytes > 0 && memchr(r.etag, '\0', sizeof(r.etag)) && r.etag[0]);
    for (const char *c = r.etag; *c; c++)
        must(*c > ' ' && *c <= '~');
    must(sf__sqlite_record_encode(&again, &r, &sf__allocator_default, NULL) == SF_OK && again);
    must(sf_bytes_eq(sf__buf_bytes(again), sf_bytes_of(data, size)));
    sf__buf_release(again);
    return 0;
}
