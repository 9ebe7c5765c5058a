/* Checksums and hashes of the formats. Pure; any thread. */
#ifndef SF_BASE_CHECKSUM_H
#define SF_BASE_CHECKSUM_H

#include "base/alloc.h"
#include "base/bytes.h"

typedef struct sf_hash128 {
    uint64_t hi, lo;
} sf_hash128;

uint32_t sf__crc32(sf_bytes b);   /* CRC-32/ISO-HDLC, the one of zlib */
uint64_t sf__xxh3_64(sf_bytes b); /* seed 0 */
uint64_t sf__xxh3_64_seeded(sf_bytes b, uint64_t seed);
sf_hash128 sf__xxh3_128(sf_bytes b); /* seed 0 */
uint64_t sf__siphash13(sf_bytes b);  /* SipHash-1-3, key 0 (docs/formats/slatedb.md 5.5) */

/* sf__xxh3_128 over bytes that come piece by piece. One thread. */
typedef struct sf_hasher {
    void *memory; /* with room to align the state in it */
    const sf_allocator *alloc;
} sf_hasher;

bool sf__hasher_init(sf_hasher *h, const sf_allocator *a) SF_MUST_USE; /* false without memory */
void sf__hasher_add(sf_hasher *h, sf_bytes b);
sf_hash128 sf__hasher_value(const sf_hasher *h); /* of what was added so far; more may follow */
void sf__hasher_cleanup(sf_hasher *h);           /* takes a zeroed one */

#endif
