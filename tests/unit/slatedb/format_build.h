/* Builds the bytes that the SlateDB codecs read, by the text of docs/formats/slatedb.md and apart from the decoders:
 * rows and blocks of both versions, Bloom filters, FlatBuffers, stored blocks, SST files. Aborts without memory. */
#ifndef SF_TESTS_UNIT_SLATEDB_FORMAT_BUILD_H
#define SF_TESTS_UNIT_SLATEDB_FORMAT_BUILD_H

#include "backend/slatedb/format/block.h"
#include "backend/slatedb/format/compress.h"

struct out {
    uint8_t *p;
    size_t n, cap;
};

void out_free(struct out *o); /* leaves an empty one */
void out_put(struct out *o, const void *p, size_t n);
void out_be(struct out *o, size_t n, uint64_t v);
void out_le(struct out *o, size_t n, uint64_t v);
void out_varint(struct out *o, uint32_t v);
static inline sf_bytes out_bytes(const struct out *o)
{
    return (sf_bytes){o->p, o->n};
}

/* splitmix64: the same numbers on every machine. */
uint64_t rng_next(uint64_t *state);

struct test_row {
    uint8_t *key;
    size_t key_len;
    uint8_t *value;
    size_t value_len;
    uint64_t seq;
    int64_t expire_ts, create_ts;
    uint8_t flags;
};

/* A restart every `interval` rows (version 2 only). */
void build_block(struct out *o, const struct test_row *rows, size_t count, unsigned version, size_t interval);

/* payload | crc32 */
void build_compressed(struct out *o, sf_bytes plain, sf_codec codec);
void build_stored(struct out *o, sf_bytes plain, sf_codec codec);

/* u16be probes | bits; over `count` keys */
void build_bloom(struct out *o, const sf_bytes *keys, size_t count, unsigned bits_per_key);
/* One entry of a composite filter block, after its u16be count. */
void build_filter_entry(struct out *o, const char *name, sf_bytes payload);

/* FlatBuffers in `o`, from its byte 0. A table: the inline sizes of its fields by id, 0 = absent. The first table is
 * the root. Positions count from byte 0; 0 as `ref` in fb_table() means root. */
size_t fb_table(struct out *o, size_t ref, const uint8_t *sizes, size_t count);
size_t fb_field(const struct out *o, size_t table, unsigned id); /* 0: absent */
void fb_set(struct out *o, size_t table, unsigned id, uint64_t v);
void fb_bytes(struct out *o, size_t table, unsigned id, sf_bytes v); /* with a 0 behind: serves strings too */
/* Position of the first of `count` references. */
size_t fb_vector(struct out *o, size_t table, unsigned id, size_t count);

#endif
