/* Input: a file of blocks to be mapped.
 *
 * What its slots name lies in the file, one behind the other, and is what their hashes say; an sf_buf that passes leads back to the beginning
 * of the mapping, and its content lies in its block. What is encoded decodes to the same. */
#include <stdlib.h>

#include "cache/image_file.h"

#define MOST_BYTES 65536u

static const sf_hash128 object = {1, 2};

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* In memory of its own, so that what reads behind the end is seen. */
static void check_block(const sf_image_file *f, uint32_t i, const sf_image_slot *slot, sf_bytes in)
{
    uint8_t *block = malloc(in.n), again[sizeof(sf_buf)];
    const sf_buf *b = (const sf_buf *)block;

    must(block != NULL);
    memcpy(block, in.p, in.n);
    if (sf__image_block_check(f, i, slot, sf_bytes_of(block, in.n))) {
        sf_image_slot other = *slot;

        must(b->in_mapping == ((sizeof(sf_buf_mapping) + slot->at) | SF_BUF_IS_MAPPED));
        must(sizeof(*b) + b->front + b->n == in.n && b->cap == b->front + b->n && atomic_load(&b->refs) == 0);
        sf__image_buf_encode(slot->at, b->front, b->n, again);
        must(memcmp(again, block, sizeof(again)) == 0);
        must(sf__image_block_hash(f, i + 1, in) != slot->hash);
        other.at += SF_IMAGE_UNIT;
        must(!sf__image_block_check(f, i, &other, sf_bytes_of(block, in.n)));
    }
    free(block);
}

static void check_file(const sf_image_file *f, sf_bytes file)
{
    uint8_t header[SF_IMAGE_UNIT], again[SF_IMAGE_SLOT];
    uint64_t end = 0;

    sf__image_file_encode(f, header);
    must(memcmp(header, file.p, sizeof(header)) == 0);
    for (uint32_t i = 0; i < f->blocks; i++) {
        sf_image_slot slot;
        sf_bytes in, block;

        must(sf_bytes_slice(file, SF_IMAGE_UNIT + (uint64_t)i * SF_IMAGE_SLOT, SF_IMAGE_SLOT, &in));
        if (!sf__image_slot_decode(&slot, f, in, end))
            break;
        must(slot.at >= end && slot.at >= sf__image_begin(f->blocks) && slot.at % SF_IMAGE_UNIT == 0);
        sf__image_slot_encode(&slot, again);
        must(memcmp(again, in.p, sizeof(again)) == 0);
        must(sf_bytes_slice(file, slot.at, slot.len, &block));
        check_block(f, i, &slot, block);
        end = slot.at + slot.len;
    }
}

/* The checks hold for any input, and so does what each sf_buf says of its place, so that what lies behind them is reached. */
static void seal(uint8_t *file, size_t n, uint32_t blocks)
{
    sf_image_file f = {.object = object, .blocks = blocks, .bytes = n, .salt = sf_load_le(file + 24, 8)};

    for (uint32_t i = 0; i < blocks; i++) {
        uint8_t *in = file + SF_IMAGE_UNIT + (size_t)i * SF_IMAGE_SLOT;
        uint64_t at = sf_load_le(in, 4) * SF_IMAGE_UNIT, len = sf_load_le(in + 4, 4);

        if (at < sf__image_begin(blocks) || at > n || len > n - at || len < sizeof(sf_buf))
            continue;
        if (file[at] != 0) { /* else as it came */
            size_t rest = (size_t)len - sizeof(sf_buf), front = file[at] % (rest + 1);

            sf__image_buf_encode(at, (uint32_t)front, rest - front, file + at);
        }
        sf_store_le(in + 8, 8, sf__image_block_hash(&f, i, sf_bytes_of(file + at, len)));
    }
    f.slots_hash = sf__image_slots_hash(&f, sf_bytes_of(file + SF_IMAGE_UNIT, (size_t)blocks * SF_IMAGE_SLOT));
    sf__image_file_encode(&f, file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    size_t bytes = n < MOST_BYTES ? n : MOST_BYTES;
    uint8_t *file = malloc(bytes + 1); /* not of no bytes */
    uint32_t blocks;
    sf_image_file f;

    must(file != NULL);
    if (bytes > 0)
        memcpy(file, data, bytes);
    blocks = bytes >= 16 ? (uint32_t)sf_load_le(file + 12, 4) : 0;
    if (bytes >= SF_IMAGE_UNIT && sf__image_file_decode(&f, sf_bytes_of(file, SF_IMAGE_UNIT), bytes, object, blocks))
        check_file(&f, sf_bytes_of(file, bytes));
    must(!sf__image_file_decode(&f, sf_bytes_of(file, bytes < SF_IMAGE_UNIT ? bytes : SF_IMAGE_UNIT - 1), bytes, object,
                                blocks));
    if (bytes >= SF_IMAGE_UNIT && sf__image_begin(blocks) <= bytes) {
        seal(file, bytes, blocks);
        must(sf__image_file_decode(&f, sf_bytes_of(file, SF_IMAGE_UNIT), bytes, object, blocks));
        check_file(&f, sf_bytes_of(file, bytes));
        must(!sf__image_file_decode(&f, sf_bytes_of(file, SF_IMAGE_UNIT), bytes, (sf_hash128){1, 3}, blocks));
        must(!sf__image_file_decode(&f, sf_bytes_of(file, SF_IMAGE_UNIT), bytes + 1, object, blocks));
    }
    free(file);
    return 0;
}
