/* The filter block of one SST: Bloom filters that rule keys out (docs/formats/slatedb.md 5.5). Immutable;
 * any thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_FILTER_H
#define SF_BACKEND_SLATEDB_FORMAT_FILTER_H

#include "base/buf.h"
#include "base/checksum.h"
#include "base/error.h"

typedef enum sf_filter_format { SF_FILTER_LEGACY = 0, SF_FILTER_COMPOSITE = 1 } sf_filter_format;

/* Usable filters kept of one block; more only add to "maybe". */
#define SF_FILTER_MAX_BLOOMS 2

typedef struct sf_bloom {
    const uint8_t *bits;
    uint32_t bit_count; /* 0: nothing matches */
    uint32_t probes;    /* 0: everything matches */
} sf_bloom;

/* Zeroed = no filter: everything may be contained. */
typedef struct sf_filter {
    sf_buf *buf; /* acquired; the bits lie in it. NULL: the bits are the caller's */
    uint32_t count;
    sf_bloom blooms[SF_FILTER_MAX_BLOOMS];
} sf_filter;

/* `plain` lies in `owner`, which gets a reference (NULL: the caller keeps the bytes alive). SF_UNSUPPORTED for an
 * unknown format; filters of unknown names are skipped. */
sf_status sf__filter_decode(sf_filter *out, sf_bytes plain, sf_buf *owner, uint8_t format, sf_error *err) SF_MUST_USE;
/* Takes a zeroed struct and leaves one. */
void sf__filter_cleanup(sf_filter *f);

/* What it takes, for a cache to charge. */
static inline size_t sf__filter_bytes(const sf_filter *f)
{
    return f->buf ? sizeof(*f->buf) + f->buf->cap : 0;
}

/* One hash serves all SSTs. */
static inline uint64_t sf__filter_hash(sf_bytes key)
{
    return sf__siphash13(key);
}

/* False: no row of the SST has this key. */
bool sf__filter_may_contain_hash(const sf_filter *f, uint64_t hash);

/* For many keys at a time: the bits of all are on their way before the first is looked at. Whether all may be there. */
bool sf__filter_may_contain_all(const sf_filter *f, const uint64_t *hashes, size_t count);

static inline bool sf__filter_may_contain(const sf_filter *f, sf_bytes key)
{
    return sf__filter_may_contain_hash(f, sf__filter_hash(key));
}

#endif
