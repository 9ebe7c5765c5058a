/* Bytes as a spill file: a cursor stays inside them, whatever they hold, and its checksums let nothing through that the
 * writer would not have written: rows that come out go in again as the same bytes. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checksum.h"
#include "writer/spill.h"

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* The input with right checksums, so that the fuzzer gets behind them. */
static void mend(uint8_t *p, size_t n)
{
    while (n >= 8) {
        size_t len = (size_t)sf_load_le(p, 4);

        if (len > n - 8)
            return;
        sf_store_le(p + 4, 4, sf__crc32(sf_bytes_of(p + 8, len)));
        p += 8 + len;
        n -= 8 + len;
    }
}

static void walk(const uint8_t *data, size_t size, bool mended)
{
    int fd = memfd_create("spill", MFD_CLOEXEC);
    uint8_t *copy = malloc(size + 1);
    sf_spill_run run = {.alloc = &sf__allocator_default, .fd = fd, .size = size}, *again = NULL;
    sf_spill_cursor c = {0}, d = {0};
    sf_spill_writer w;
    sf_status rc;
    size_t rows = 0;
    uint64_t off = 0, end = 0;

    must(fd >= 0 && copy);
    if (size > 0)
        memcpy(copy, data, size);
    if (mended)
        mend(copy, size);
    must(write(fd, copy, size) == (ssize_t)size);
    must(sf__spill_run_new(&again, "/tmp", &sf__allocator_default, NULL) == SF_OK);
    sf__spill_writer_init(&w, again);
    sf__spill_cursor_set(&c, &run, 0, size);
    while ((rc = sf__spill_cursor_next(&c, NULL)) == SF_OK && c.valid) {
        must(sf__spill_writer_add(&w, 7, c.key, c.value, NULL) == SF_OK);
        rows++;
    }
    must(rc == SF_OK || rc == SF_CORRUPT);
    must(sf__spill_writer_finish(&w, NULL) == SF_OK);
    must(sf__spill_run_find(again, 7, &off, &end) == (rows > 0));
    sf__spill_cursor_set(&c, &run, 0, size);
    sf__spill_cursor_set(&d, again, off, end);
    for (size_t i = 0; i < rows; i++) {
        must(sf__spill_cursor_next(&c, NULL) == SF_OK && c.valid);
        must(sf__spill_cursor_next(&d, NULL) == SF_OK && d.valid);
        must(sf_bytes_eq(c.key, d.key) && sf_bytes_eq(c.value, d.value));
    }
    must(sf__spill_cursor_next(&d, NULL) == SF_OK && !d.valid);
    sf__spill_cursor_cleanup(&c);
    sf__spill_cursor_cleanup(&d);
    sf__spill_writer_cleanup(&w);
    sf__spill_run_free(again);
    close(fd);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    walk(data, size, false);
    walk(data, size, true);
    return 0;
}
