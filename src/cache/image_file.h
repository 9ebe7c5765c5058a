/* The format of a file that is mapped: all blocks of an object as they lie in memory, ready to be looked up, for every process that has the
 * folder. Numbers are little-endian.
 *
 *     header, 64 bytes       "SFBLOCKS" | u32 version | u32 blocks | u64 bytes of the file | u64 salt | object, 16 bytes | u64 hash of the slots |
 *                            u64 check
 *     slots, 16 bytes each   u32 place, in units of 64 bytes | u32 length | u64 hash of the block        in the order of the blocks
 *     blocks, each from a multiple of 64 on
 *         an sf_buf          whose `in_mapping` tells where the mapping begins; capacity is what it has
 *         bytes              what whoever made it knows about the content (sf_buf.front), and the content
 *
 * Checks and hashes are XXH3 with the file's salt, and a block's with its number. They tell damage, not forgery: that is what the folder's
 * rules are for. What lies in front of a content is believed by nobody: whoever maps the file makes it again and compares. The name of a file
 * has the version in it, so each version has its own. Pure functions; any thread. */
#ifndef SF_CACHE_IMAGE_FILE_H
#define SF_CACHE_IMAGE_FILE_H

#include "base/buf.h"
#include "base/checksum.h"

#define SF_IMAGE_VERSION 1u
#define SF_IMAGE_UNIT 64u /* of places; also what the header takes */
#define SF_IMAGE_SLOT 16u
#define SF_IMAGE_MAX_BYTES (UINT64_C(16) << 30)
#define SF_IMAGE_NAME_BYTES 48u

typedef struct sf_image_file {
    sf_hash128 object;
    uint32_t blocks;
    uint64_t bytes, salt, slots_hash;
} sf_image_file;

typedef struct sf_image_slot {
    uint64_t at;  /* of the sf_buf */
    uint32_t len; /* of all */
    uint64_t hash;
} sf_image_slot;

/* Of the file, with `suffix`. */
void sf__image_name(sf_hash128 object, const char *suffix, char out[SF_IMAGE_NAME_BYTES]);

void sf__image_file_encode(const sf_image_file *f, uint8_t out[SF_IMAGE_UNIT]);
/* False: it is none of this version, or not whole, or has not that many blocks of that object. */
bool sf__image_file_decode(sf_image_file *out, sf_bytes header, uint64_t file_bytes, sf_hash128 object, uint32_t blocks)
    SF_MUST_USE;
uint64_t sf__image_begin(uint32_t blocks); /* where the first block may lie */
static inline uint64_t sf__image_room(uint64_t len)
{
    return (len + SF_IMAGE_UNIT - 1) / SF_IMAGE_UNIT * SF_IMAGE_UNIT;
}

uint64_t sf__image_slots_hash(const sf_image_file *f, sf_bytes slots);
void sf__image_slot_encode(const sf_image_slot *slot, uint8_t out[SF_IMAGE_SLOT]);
/* `from`: where the block before it ends. False: it does not lie in the file. */
bool sf__image_slot_decode(sf_image_slot *out, const sf_image_file *f, sf_bytes in, uint64_t from) SF_MUST_USE;

/* What stands at `at` in front of the bytes of such a block. */
void sf__image_buf_encode(uint64_t at, uint32_t front, size_t n, uint8_t out[sizeof(sf_buf)]);
uint64_t sf__image_block_hash(const sf_image_file *f, uint32_t block, sf_bytes bytes);
/* Whether these are the bytes of that block, and begin with an sf_buf that says what is so. `bytes` aligned as one. */
bool sf__image_block_check(const sf_image_file *f, uint32_t block, const sf_image_slot *slot, sf_bytes bytes) SF_MUST_USE;

#endif
