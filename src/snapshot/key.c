#include "snapshot/key.h"

#include <stdio.h>

#include "base/error.h"
#include "base/utf8.h"

static const char *const names[] = {
    [SF_KEY_U64BE] = "u64be",
    [SF_KEY_U32BE] = "u32be",
    [SF_KEY_UTF8] = "utf8",
    [SF_KEY_RAW] = "raw",
};

bool sf__key_encoding_from_name(sf_bytes name, sf_key_encoding *out)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (sf_bytes_eq(name, sf_bytes_str(names[i]))) {
            *out = (sf_key_encoding)i;
            return true;
        }
    }
    return false;
}

const char *sf__key_encoding_name(sf_key_encoding encoding)
{
    return names[encoding];
}

/* As Python prints the types: the texts reach its users. */
static const char *type_name(const sf_key *key)
{
    if (sf__key_is_int(key))
        return "<class 'int'>";
    return key->type == SF_KEY_STR ? "<class 'str'>" : "<class 'bytes'>";
}

static size_t int_width(sf_key_encoding encoding)
{
    return encoding == SF_KEY_U64BE ? 8 : encoding == SF_KEY_U32BE ? 4 : 0;
}

static sf_status fail_range(sf_key_encoding encoding, const char *sign, uint64_t v, sf_error *err)
{
    return sf_fail(err, SF_INVALID, "%s encoding requires value in [0, 2^%zu-1], got %s%llu", names[encoding],
                   int_width(encoding) * 8, sign, (unsigned long long)v);
}

static sf_status fail_no_int(sf_key_encoding encoding, sf_error *err)
{
    return sf_fail(err, SF_INVALID, "%s encoding expects %s key, got <class 'int'>", names[encoding],
                   encoding == SF_KEY_RAW ? "bytes or str" : "str or bytes");
}

sf_status sf__key_encode_uint(sf_key_encoding encoding, uint64_t v, uint8_t scratch[8], sf_bytes *out, sf_error *err)
{
    size_t width = int_width(encoding);

    if (width == 0)
        return fail_no_int(encoding, err);
    if (width == 4 && v > UINT32_MAX)
        return fail_range(encoding, "", v, err);
    sf__key_store_be64(scratch, width == 4 ? v << 32 : v); /* the first `width` bytes count */
    *out = sf_bytes_of(scratch, width);
    return SF_OK;
}

sf_status sf__key_encode(sf_key_encoding encoding, const sf_key *key, uint8_t scratch[8], sf_bytes *out, sf_error *err)
{
    size_t width = int_width(encoding);

    if (sf__key_is_int(key)) {
        if (width > 0 && key->type == SF_KEY_INT && key->i < 0)
            return fail_range(encoding, "-", -key->u, err);
        return sf__key_encode_uint(encoding, key->u, scratch, out, err);
    }
    if (width > 0 && key->type != SF__KEY_LAX_BYTES)
        return sf_fail(err, SF_INVALID_KEY,
                       "%s key encoding requires integer lookup keys, got %s: a stored key of %zu "
                       "bytes is the big-endian integer",
                       names[encoding], type_name(key), width);
    if (width > 0 && key->b.n != width)
        return sf_fail(err, SF_INVALID_KEY, "%s key bytes must have length %zu", names[encoding], width);
    *out = key->b;
    return SF_OK;
}

sf_status sf__key_encode_for_write(sf_key_encoding encoding, const sf_key *key, uint8_t scratch[8], sf_bytes *out,
                                   sf_error *err)
{
    if (int_width(encoding) > 0 && !sf__key_is_int(key))
        return sf_fail(err, SF_INVALID, "%s encoding expects int key, got %s; other keys need key_encoding=\"%s\"",
                       names[encoding], type_name(key), key->type == SF_KEY_STR ? "utf8" : "raw");
    return sf__key_encode(encoding, key, scratch, out, err);
}

sf_status sf__key_decode(sf_key_encoding encoding, sf_bytes stored, sf_key *out, sf_error *err)
{
    size_t width = int_width(encoding);
    uint64_t v;

    if (width == 0) {
        *out = (sf_key){.type = SF_KEY_BYTES, .b = stored};
        if (encoding == SF_KEY_UTF8 && sf_utf8_is_valid(stored))
            out->type = SF_KEY_STR;
        return SF_OK;
    }
    if (stored.n != width)
        return sf_fail(err, SF_INVALID_KEY, "%s key bytes must have length %zu", names[encoding], width);
    v = sf_load_be(stored.p, width);
    *out = v > INT64_MAX ? sf_key_uint(v) : sf_key_int((int64_t)v);
    return SF_OK;
}

/* ------------------------------------------------------------------ for messages --------------------------------- */

#define DESCRIBED_BYTES 32u /* of a key; four characters each at most */

static size_t describe_byte(char *out, size_t room, uint8_t c, bool is_text)
{
    if (c == '\'' || c == '\\')
        return (size_t)snprintf(out, room, "\\%c", c);
    if (c < 0x20 || c == 0x7f || (c > 0x7f && !is_text))
        return (size_t)snprintf(out, room, "\\x%02x", c);
    return (size_t)snprintf(out, room, "%c", c);
}

void sf__key_describe(char out[SF_KEY_DESCRIPTION], sf_key_encoding encoding, sf_bytes stored)
{
    bool is_text = encoding == SF_KEY_UTF8 && sf_utf8_is_valid(stored);
    size_t shown = stored.n < DESCRIBED_BYTES ? stored.n : DESCRIBED_BYTES, used;

    if (int_width(encoding) > 0 && stored.n == int_width(encoding)) {
        snprintf(out, SF_KEY_DESCRIPTION, "%llu", (unsigned long long)sf_load_be(stored.p, stored.n));
        return;
    }
    while (is_text && shown < stored.n && shown > 0 && (stored.p[shown] & 0xc0) == 0x80)
        shown--; /* not within a character */
    used = (size_t)snprintf(out, SF_KEY_DESCRIPTION, is_text ? "'" : "b'");
    for (size_t i = 0; i < shown; i++)
        used += describe_byte(out + used, SF_KEY_DESCRIPTION - used, stored.p[i], is_text);
    if (shown < stored.n)
        snprintf(out + used, SF_KEY_DESCRIPTION - used, "'... (%zu bytes)", stored.n);
    else
        snprintf(out + used, SF_KEY_DESCRIPTION - used, "'");
}
