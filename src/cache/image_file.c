#include "cache/image_file.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

static_assert(SF_IMAGE_UNIT % _Alignof(sf_buf) == 0 && sizeof(sf_buf_mapping) == SF_IMAGE_UNIT,
              "an sf_buf may lie at every place, and what stands before the file keeps the places' alignment");

static const char magic[8] = "SFBLOCKS";

void sf__image_name(sf_hash128 object, const char *suffix, char out[SF_IMAGE_NAME_BYTES])
{
    const uint64_t words[4] = {object.hi, object.lo, SF_IMAGE_VERSION, sizeof(sf_buf)};
    sf_hash128 name = sf__xxh3_128(sf_bytes_of(words, sizeof(words)));

    snprintf(out, SF_IMAGE_NAME_BYTES, "%016" PRIx64 "%016" PRIx64 "%s", name.hi, name.lo, suffix);
}

void sf__image_file_encode(const sf_image_file *f, uint8_t out[SF_IMAGE_UNIT])
{
    memcpy(out, magic, sizeof(magic));
    sf_store_le(out + 8, 4, SF_IMAGE_VERSION);
    sf_store_le(out + 12, 4, f->blocks);
    sf_store_le(out + 16, 8, f->bytes);
    sf_store_le(out + 24, 8, f->salt);
    sf_store_le(out + 32, 8, f->object.hi);
    sf_store_le(out + 40, 8, f->object.lo);
    sf_store_le(out + 48, 8, f->slots_hash);
    sf_store_le(out + 56, 8, sf__xxh3_64_seeded(sf_bytes_of(out, 56), f->salt));
}

/* What is decoded holds when it encodes to the same. */
bool sf__image_file_decode(sf_image_file *out, sf_bytes header, uint64_t file_bytes, sf_hash128 object, uint32_t blocks)
{
    uint8_t again[SF_IMAGE_UNIT];
    sf_image_file f = {.object = object, .blocks = blocks, .bytes = file_bytes};

    if (header.n != SF_IMAGE_UNIT || file_bytes > SF_IMAGE_MAX_BYTES || file_bytes < sf__image_begin(blocks))
        return false;
    f.salt = sf_load_le(header.p + 24, 8);
    f.slots_hash = sf_load_le(header.p + 48, 8);
    sf__image_file_encode(&f, again);
    if (!sf_bytes_eq(header, sf_bytes_of(again, sizeof(again))))
        return false;
    *out = f;
    return true;
}

uint64_t sf__image_begin(uint32_t blocks)
{
    return SF_IMAGE_UNIT + sf__image_room((uint64_t)blocks * SF_IMAGE_SLOT);
}

uint64_t sf__image_slots_hash(const sf_image_file *f, sf_bytes slots)
{
    return sf__xxh3_64_seeded(slots, f->salt);
}

void sf__image_slot_encode(const sf_image_slot *slot, uint8_t out[SF_IMAGE_SLOT])
{
    sf_store_le(out, 4, slot->at / SF_IMAGE_UNIT);
    sf_store_le(out + 4, 4, slot->len);
    sf_store_le(out + 8, 8, slot->hash);
}

bool sf__image_slot_decode(sf_image_slot *out, const sf_image_file *f, sf_bytes in, uint64_t from)
{
    sf_image_slot s;
    sf_cursor c = in;
    uint32_t units;

    if (!sf_cursor_u32le(&c, &units) || !sf_cursor_u32le(&c, &s.len) || !sf_cursor_u64le(&c, &s.hash))
        return false;
    s.at = (uint64_t)units * SF_IMAGE_UNIT;
    if (s.at < sf__image_begin(f->blocks) || s.at < from || s.at > f->bytes || s.len > f->bytes - s.at ||
        s.len < sizeof(sf_buf))
        return false;
    *out = s;
    return true;
}

void sf__image_buf_encode(uint64_t at, uint32_t front, size_t n, uint8_t out[sizeof(sf_buf)])
{
    sf_buf b;

    memset(&b, 0, sizeof(b)); /* what lies between its members, too */
    b.front = front;
    b.n = n;
    b.cap = front + n;
    b.in_mapping = (sizeof(sf_buf_mapping) + (uintptr_t)at) | SF_BUF_IS_MAPPED;
    memcpy(out, &b, sizeof(b));
}

uint64_t sf__image_block_hash(const sf_image_file *f, uint32_t block, sf_bytes bytes)
{
    return sf__xxh3_64_seeded(bytes, f->salt + block);
}

bool sf__image_block_check(const sf_image_file *f, uint32_t block, const sf_image_slot *slot, sf_bytes bytes)
{
    uint8_t right[sizeof(sf_buf)];
    const sf_buf *b = (const sf_buf *)bytes.p;
    size_t len = bytes.n - sizeof(*b);

    if (bytes.n < sizeof(*b) || bytes.n != slot->len || sf__image_block_hash(f, block, bytes) != slot->hash ||
        b->front > len)
        return false;
    sf__image_buf_encode(slot->at, b->front, len - b->front, right);
    return memcmp(bytes.p, right, sizeof(right)) == 0;
}
