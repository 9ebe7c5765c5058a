/* The format of one file of the disk cache: extents of objects, each by itself. All numbers are little-endian.
 *
 *     header, 64 bytes       "SFEXTENT" | u32 version | u32 slots | u64 bytes of the file | u64 salt | zeros | u64 check
 *     slots, 32 bytes each   u64 name | u32 place, in units of 64 bytes | u32 length | zeros | u64 check      in the order they came
 *     extents, each from a multiple of 64 on
 *         head, 64 bytes     object, 16 bytes | u64 offset in it | u32 length | u32 zero | u64 hash of the bytes | zeros | u64 check
 *         bytes
 *
 * A slot is written after its extent, so the first one that does not hold ends the file's contents for who reads it; whoever appends
 * goes on there. Checks and hashes are XXH3 with the file's salt, which no other file has: neither what lay on the disk before, nor what
 * a crash left half written, passes for an extent. They tell damage, not forgery: that is what the folder's rules are for.
 * Pure functions; any thread. */
#ifndef SF_CACHE_EXTENT_FILE_H
#define SF_CACHE_EXTENT_FILE_H

#include "base/checksum.h"

#define SF_EXTENT_FILE_VERSION 1u
#define SF_EXTENT_FILE_UNIT 64u /* of places; also what header and heads take */
#define SF_EXTENT_FILE_SLOT 32u
#define SF_EXTENT_FILE_MIN_BYTES (UINT64_C(64) << 10)
#define SF_EXTENT_FILE_MAX_BYTES (UINT64_C(1) << 30)

typedef struct sf_extent_file {
    uint32_t slots;
    uint64_t bytes; /* the file is made so long from the start */
    uint64_t salt;
} sf_extent_file;

/* What is asked for: of an object these bytes. */
typedef struct sf_extent_name {
    sf_hash128 object;
    uint64_t off;
    uint32_t len; /* not 0 */
} sf_extent_name;

typedef struct sf_extent_slot {
    uint64_t name; /* sf__extent_name_hash() */
    uint64_t at;   /* of the head */
    uint32_t len;
} sf_extent_slot;

/* As many slots as fit extents of a kilobyte. */
void sf__extent_file_init(sf_extent_file *f, uint64_t bytes, uint64_t salt);
void sf__extent_file_encode(const sf_extent_file *f, uint8_t out[SF_EXTENT_FILE_UNIT]);
/* False: it is none of this version, or not whole. */
bool sf__extent_file_decode(sf_extent_file *out, sf_bytes header, uint64_t file_bytes) SF_MUST_USE;
uint64_t sf__extent_file_begin(const sf_extent_file *f); /* where its first extent may lie */

uint64_t sf__extent_name_hash(const sf_extent_name *name);
/* What an extent takes with its head. */
static inline uint64_t sf__extent_room(uint64_t len)
{
    return (SF_EXTENT_FILE_UNIT + len + SF_EXTENT_FILE_UNIT - 1) / SF_EXTENT_FILE_UNIT * SF_EXTENT_FILE_UNIT;
}

void sf__extent_slot_encode(const sf_extent_file *f, const sf_extent_slot *slot, uint8_t out[SF_EXTENT_FILE_SLOT]);
/* `from`: where the extents before it end. False: there is no extent there, or not yet. */
bool sf__extent_slot_decode(sf_extent_slot *out, const sf_extent_file *f, sf_bytes in, uint64_t from) SF_MUST_USE;
void sf__extent_head_encode(const sf_extent_file *f, const sf_extent_name *name, sf_bytes data,
                            uint8_t out[SF_EXTENT_FILE_UNIT]);
/* Whether these are the bytes of that name. */
bool sf__extent_head_check(const sf_extent_file *f, const sf_extent_name *name, sf_bytes head, sf_bytes data) SF_MUST_USE;

#endif
