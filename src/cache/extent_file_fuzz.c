/* Input: a file of the disk cache, padded with zeros to the smallest one where it is shorter.
 *
 * What its slots name lies in the file, one behind the other; what a head vouches for is what it was made of, and nothing else. What
 * is encoded decodes to the same. */
#include <stdlib.h>

#include "cache/extent_file.h"

#define MOST_BYTES (SF_EXTENT_FILE_MIN_BYTES * 2)

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void check_extent(const sf_extent_file *f, sf_bytes file, const sf_extent_slot *slot)
{
    sf_extent_name name = {.len = slot->len};
    uint8_t head[SF_EXTENT_FILE_UNIT];
    sf_bytes stored, data;

    must(sf_bytes_slice(file, slot->at, SF_EXTENT_FILE_UNIT, &stored));
    must(sf_bytes_slice(file, slot->at + SF_EXTENT_FILE_UNIT, slot->len, &data));
    name.object = (sf_hash128){sf_load_le(stored.p, 8), sf_load_le(stored.p + 8, 8)};
    name.off = sf_load_le(stored.p + 16, 8);
    if (sf__extent_head_check(f, &name, stored, data)) {
        sf__extent_head_encode(f, &name, data, head);
        must(memcmp(head, stored.p, sizeof(head)) == 0);
        name.off++;
        must(!sf__extent_head_check(f, &name, stored, data));
    }
}

static void check_file(const sf_extent_file *f, sf_bytes file)
{
    uint8_t header[SF_EXTENT_FILE_UNIT], again[SF_EXTENT_FILE_SLOT];
    uint64_t end = sf__extent_file_begin(f);

    sf__extent_file_encode(f, header);
    must(memcmp(header, file.p, sizeof(header)) == 0);
    for (uint32_t i = 0; i < f->slots; i++) {
        sf_extent_slot slot;
        sf_bytes in;

        must(sf_bytes_slice(file, SF_EXTENT_FILE_UNIT + (uint64_t)i * SF_EXTENT_FILE_SLOT, SF_EXTENT_FILE_SLOT, &in));
        if (!sf__extent_slot_decode(&slot, f, in, end))
            break;
        must(slot.at >= end && slot.at % SF_EXTENT_FILE_UNIT == 0);
        sf__extent_slot_encode(f, &slot, again);
        must(sf_load_le(again, 8) == slot.name && sf_load_le(again + 12, 4) == slot.len);
        check_extent(f, file, &slot);
        end = slot.at + sf__extent_room(slot.len);
        must(end <= file.n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The checks hold for any input, so that what lies behind them is reached. */
static void seal(uint8_t *file, size_t slots)
{
    uint64_t salt = sf_load_le(file + 24, 8);

    sf_store_le(file + 56, 8, sf__xxh3_64_seeded(sf_bytes_of(file, 56), salt));
    for (size_t i = 0; i < slots; i++) {
        uint8_t *slot = file + SF_EXTENT_FILE_UNIT + i * SF_EXTENT_FILE_SLOT;

        sf_store_le(slot + 24, 8, sf__xxh3_64_seeded(sf_bytes_of(slot, 24), salt));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    size_t bytes = n < SF_EXTENT_FILE_MIN_BYTES ? SF_EXTENT_FILE_MIN_BYTES : n < MOST_BYTES ? n : MOST_BYTES;
    uint8_t *file = calloc(1, bytes);
    sf_extent_file f;

    must(file != NULL);
    if (n > 0)
        memcpy(file, data, n < bytes ? n : bytes);
    if (sf__extent_file_decode(&f, sf_bytes_of(file, SF_EXTENT_FILE_UNIT), bytes))
        check_file(&f, sf_bytes_of(file, bytes));
    memcpy(file, "SFEXTENT\1\0\0\0", 12);
    sf_store_le(file + 16, 8, bytes);
    seal(file, 16);
    if (sf__extent_file_decode(&f, sf_bytes_of(file, SF_EXTENT_FILE_UNIT), bytes))
        check_file(&f, sf_bytes_of(file, bytes));
    free(file);
    return 0;
}
