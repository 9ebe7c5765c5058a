/* Bytes as a shuffle block: reading stays inside of them, and what comes out of a whole block is what was laid into it: it takes as many
 * bytes as the block has. */
#include <stdlib.h>

#include "base/checksum.h"
#include "writer/shuffle.h"

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void walk(const uint8_t *data, size_t size, bool mended)
{
    uint8_t *copy = malloc(size + 1);
    sf_shuffle_block b;
    size_t bytes = 28, rows = 0;
    uint32_t wanted;
    sf_bytes key, value;
    sf_status rc;

    must(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    if (mended && size >= 8)
        sf_store_le(copy, 8, sf__xxh3_64(sf_bytes_of(copy + 8, size - 8)));
    rc = sf__shuffle_block_open(&b, sf_bytes_of(copy, size), NULL);
    must(rc == SF_OK || rc == SF_CORRUPT);
    wanted = rc == SF_OK ? b.rows : 0;
    while (rc == SF_OK && b.rows > 0) {
        rc = sf__shuffle_block_next(&b, &key, &value, NULL);
        must(rc == SF_OK || rc == SF_CORRUPT);
        if (rc != SF_OK)
            break;
        must(key.n == 0 || (key.p >= copy && key.p + key.n <= copy + size));
        must(value.n == 0 || (value.p >= copy && value.p + value.n <= copy + size));
        bytes += 8 + key.n + value.n;
        rows++;
    }
    must(rc != SF_OK || (rows == wanted && bytes == size));
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    walk(data, size, false);
    walk(data, size, true);
    return 0;
}
