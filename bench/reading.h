/* What programs share that read with the library. */
#ifndef BENCH_READING_H
#define BENCH_READING_H

#include <string.h>

#include "bench.h"
#include "shardyfusion/reader.h"

static inline void ok(sf_status rc, const sf_error *err)
{
    must(rc == SF_OK, err->message);
}

/* The first eight bytes of a value, of which sums are made. */
static inline uint64_t head_of(const void *value)
{
    uint64_t v;

    memcpy(&v, value, 8);
    return v;
}

/* The sum over all rows, which are counted. */
static inline uint64_t scan_all(sf_reader *reader, uint64_t *count)
{
    sf_snapshot *s = sf_reader_borrow(reader, NULL);
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    const sf_row *rows;
    uint64_t sum = 0;
    sf_scan *scan;
    size_t n;

    *count = 0;
    ok(sf_scan_open(&scan, s, &o, &err), &err);
    for (;;) {
        ok(sf_scan_next(scan, 4096, SF_TIMEOUT_NONE, &rows, &n, &err), &err);
        if (n == 0)
            break;
        for (size_t i = 0; i < n; i++)
            sum += head_of(rows[i].value.p);
        *count += n;
    }
    sf_scan_close(scan);
    sf_snapshot_give_back(s);
    return sum;
}

#endif
