#include "cache/extent_file.h"

static const char magic[8] = "SFEXTENT";

/* The last 8 bytes of each part are the check of those before. What is decoded holds when it encodes to the same. */
static void seal(uint8_t *part, size_t n, uint64_t salt)
{
    sf_store_le(part + n - 8, 8, sf__xxh3_64_seeded(sf_bytes_of(part, n - 8), salt));
}

void sf__extent_file_init(sf_extent_file *f, uint64_t bytes, uint64_t salt)
{
    *f = (sf_extent_file){.slots = (uint32_t)(bytes / 1024), .bytes = bytes, .salt = salt};
}

void sf__extent_file_encode(const sf_extent_file *f, uint8_t out[SF_EXTENT_FILE_UNIT])
{
    memset(out, 0, SF_EXTENT_FILE_UNIT);
    memcpy(out, magic, sizeof(magic));
    sf_store_le(out + 8, 4, SF_EXTENT_FILE_VERSION);
    sf_store_le(out + 12, 4, f->slots);
    sf_store_le(out + 16, 8, f->bytes);
    sf_store_le(out + 24, 8, f->salt);
    seal(out, SF_EXTENT_FILE_UNIT, f->salt);
}

bool sf__extent_file_decode(sf_extent_file *out, sf_bytes header, uint64_t file_bytes)
{
    uint8_t again[SF_EXTENT_FILE_UNIT];
    sf_extent_file f;
    sf_cursor c = header;
    sf_bytes word;
    uint32_t version;

    if (!sf_cursor_take(&c, sizeof(magic), &word) || !sf_cursor_u32le(&c, &version) || !sf_cursor_u32le(&c, &f.slots) ||
        !sf_cursor_u64le(&c, &f.bytes) || !sf_cursor_u64le(&c, &f.salt))
        return false;
    sf__extent_file_encode(&f, again);
    if (!sf_bytes_eq(header, sf_bytes_of(again, sizeof(again)))) /* of another version, too */
        return false;
    if (f.bytes != file_bytes || f.bytes < SF_EXTENT_FILE_MIN_BYTES || f.bytes > SF_EXTENT_FILE_MAX_BYTES ||
        f.slots == 0 || f.slots > f.bytes / 2 / SF_EXTENT_FILE_SLOT)
        return false;
    *out = f;
    return true;
}

uint64_t sf__extent_file_begin(const sf_extent_file *f)
{
    uint64_t end = SF_EXTENT_FILE_UNIT + (uint64_t)f->slots * SF_EXTENT_FILE_SLOT;

    return (end + SF_EXTENT_FILE_UNIT - 1) / SF_EXTENT_FILE_UNIT * SF_EXTENT_FILE_UNIT;
}

uint64_t sf__extent_name_hash(const sf_extent_name *name)
{
    const uint64_t words[4] = {name->object.hi, name->object.lo, name->off, name->len};

    return sf__xxh3_64(sf_bytes_of(words, sizeof(words)));
}

void sf__extent_slot_encode(const sf_extent_file *f, const sf_extent_slot *slot, uint8_t out[SF_EXTENT_FILE_SLOT])
{
    memset(out, 0, SF_EXTENT_FILE_SLOT);
    sf_store_le(out, 8, slot->name);
    sf_store_le(out + 8, 4, slot->at / SF_EXTENT_FILE_UNIT);
    sf_store_le(out + 12, 4, slot->len);
    seal(out, SF_EXTENT_FILE_SLOT, f->salt);
}

bool sf__extent_slot_decode(sf_extent_slot *out, const sf_extent_file *f, sf_bytes in, uint64_t from)
{
    uint8_t again[SF_EXTENT_FILE_SLOT];
    sf_extent_slot s;
    sf_cursor c = in;
    uint32_t units;

    if (!sf_cursor_u64le(&c, &s.name) || !sf_cursor_u32le(&c, &units) || !sf_cursor_u32le(&c, &s.len))
        return false;
    s.at = (uint64_t)units * SF_EXTENT_FILE_UNIT;
    sf__extent_slot_encode(f, &s, again);
    if (!sf_bytes_eq(in, sf_bytes_of(again, sizeof(again))))
        return false;
    if (s.len == 0 || from < sf__extent_file_begin(f) || s.at < from || s.at > f->bytes ||
        sf__extent_room(s.len) > f->bytes - s.at)
        return false;
    *out = s;
    return true;
}

void sf__extent_head_encode(const sf_extent_file *f, const sf_extent_name *name, sf_bytes data,
                            uint8_t out[SF_EXTENT_FILE_UNIT])
{
    memset(out, 0, SF_EXTENT_FILE_UNIT);
    sf_store_le(out, 8, name->object.hi);
    sf_store_le(out + 8, 8, name->object.lo);
    sf_store_le(out + 16, 8, name->off);
    sf_store_le(out + 24, 4, name->len);
    sf_store_le(out + 32, 8, sf__xxh3_64_seeded(data, f->salt));
    seal(out, SF_EXTENT_FILE_UNIT, f->salt);
}

bool sf__extent_head_check(const sf_extent_file *f, const sf_extent_name *name, sf_bytes head, sf_bytes data)
{
    uint8_t right[SF_EXTENT_FILE_UNIT];

    if (data.n != name->len)
        return false;
    sf__extent_head_encode(f, name, data, right);
    return sf_bytes_eq(head, sf_bytes_of(right, sizeof(right)));
}
