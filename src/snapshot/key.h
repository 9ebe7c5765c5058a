/* Keys: the bytes that choose the shard, and the bytes that are stored in it (docs/formats/snapshot.md 6). The two
 * differ: an integer routes by its little-endian bytes and is stored big-endian. Nothing here allocates. Pure; any
 * thread. */
#ifndef SF_SNAPSHOT_KEY_H
#define SF_SNAPSHOT_KEY_H

#include "base/bytes.h"
#include "shardyfusion/base.h"

/* "u64be", "u32be", "utf8", "raw"; case matters. */
bool sf__key_encoding_from_name(sf_bytes name, sf_key_encoding *out) SF_MUST_USE;
const char *sf__key_encoding_name(sf_key_encoding encoding);

/* Bytes as the Python package takes them: on a snapshot of integer keys they route by themselves and are looked up as
 * they are, which finds little. Its contract says so (compatibility/contract.md 2.3); everybody else is refused. Not public. */
#define SF__KEY_LAX_BYTES ((sf_key_type)(SF_KEY_UINT + 1))

static inline bool sf__key_is_int(const sf_key *key)
{
    return key->type == SF_KEY_INT || key->type == SF_KEY_UINT;
}

/* The loops of sf_store_le() and sf_store_be() stay loops in the compiler's hands; every look-up goes through these. */
static inline void sf__key_store_le64(uint8_t p[8], uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    memcpy(p, &v, 8);
}

static inline void sf__key_store_be64(uint8_t p[8], uint64_t v)
{
    sf__key_store_le64(p, __builtin_bswap64(v));
}

/* Canonical bytes for routing: 8 little-endian bytes in `scratch` for an integer, else the key's own. */
static inline sf_bytes sf__key_route_bytes(const sf_key *key, uint8_t scratch[8])
{
    if (!sf__key_is_int(key))
        return key->b;
    sf__key_store_le64(scratch, key->u);
    return sf_bytes_of(scratch, 8);
}

/* What a look-up asks the shard for. *out lies in `scratch` for integers, else it is the key's own bytes. A key of the
 * wrong type is SF_INVALID_KEY where integers are expected, else SF_INVALID, as is an integer out of range. */
sf_status sf__key_encode(sf_key_encoding encoding, const sf_key *key, uint8_t scratch[8], sf_bytes *out, sf_error *err);
/* An integer key as the encoding stores it, up to 2^64 - 1. */
sf_status sf__key_encode_uint(sf_key_encoding encoding, uint64_t v, uint8_t scratch[8], sf_bytes *out, sf_error *err);
/* What a writer stores: stricter, since bytes are no integers. All failures are SF_INVALID. */
sf_status sf__key_encode_for_write(sf_key_encoding encoding, const sf_key *key, uint8_t scratch[8], sf_bytes *out,
                                   sf_error *err);

/* The key that stored bytes stand for; it borrows them. Encoding it gives the same bytes again: so under utf8 what is not
 * UTF-8 comes back as bytes. SF_INVALID_KEY when the length cannot be right. */
sf_status sf__key_decode(sf_key_encoding encoding, sf_bytes stored, sf_key *out, sf_error *err);

/* A stored key for a message, as its owner writes it: 42, 'text' or b'\xff'. Cut, never empty, terminated. */
#define SF_KEY_DESCRIPTION 160u
void sf__key_describe(char out[SF_KEY_DESCRIPTION], sf_key_encoding encoding, sf_bytes stored);

#endif
