#include "backend/slatedb/format/flatbuf.h"

static uint16_t u16_at(sf_bytes buf, size_t pos)
{
    return (uint16_t)sf_load_le(buf.p + pos, 2);
}

static uint32_t u32_at(sf_bytes buf, size_t pos)
{
    return (uint32_t)sf_load_le(buf.p + pos, 4);
}

static bool fits(sf_bytes buf, uint64_t pos, uint64_t n)
{
    return pos <= buf.n && n <= buf.n - pos;
}

/* Writers align, and SlateDB's own verifier insists: for bytes without a checksum it is the best sign of a flipped bit. */
static sf_status misaligned(const char *what, uint64_t pos, sf_error *err)
{
    return sf_fail(err, SF_CORRUPT, "FlatBuffer %s at %llu is not aligned", what, (unsigned long long)pos);
}

/* Checks once what every field access relies on: vtable and inline part lie inside the buffer. */
static sf_status table_open(sf_bytes buf, uint64_t pos, uint16_t depth, sf_fb_table *out, sf_error *err)
{
    int64_t vtable;
    uint16_t vtable_len, inline_len;

    if (depth > SF_FB_MAX_DEPTH)
        return sf_fail(err, SF_CORRUPT, "FlatBuffer nests deeper than %d tables", SF_FB_MAX_DEPTH);
    if (!fits(buf, pos, 4))
        return sf_fail(err, SF_CORRUPT, "FlatBuffer table at %llu lies outside %zu bytes", (unsigned long long)pos,
                       buf.n);
    if (pos % 4 != 0)
        return misaligned("table", pos, err);
    vtable = (int64_t)pos - (int32_t)u32_at(buf, pos);
    if (vtable < 0 || !fits(buf, (uint64_t)vtable, 4))
        return sf_fail(err, SF_CORRUPT, "FlatBuffer vtable at %lld lies outside %zu bytes", (long long)vtable, buf.n);
    if (vtable % 2 != 0)
        return misaligned("vtable", (uint64_t)vtable, err);
    vtable_len = u16_at(buf, (size_t)vtable);
    inline_len = u16_at(buf, (size_t)vtable + 2);
    if (vtable_len < 4 || vtable_len % 2 != 0 || !fits(buf, (uint64_t)vtable, vtable_len))
        return sf_fail(err, SF_CORRUPT, "FlatBuffer vtable at %lld has %u bytes", (long long)vtable, vtable_len);
    if (inline_len < 4 || !fits(buf, pos, inline_len))
        return sf_fail(err, SF_CORRUPT, "FlatBuffer table at %llu has %u bytes", (unsigned long long)pos, inline_len);
    *out = (sf_fb_table){.buf = buf,
                         .pos = (uint32_t)pos,
                         .vtable = (uint32_t)vtable,
                         .vtable_len = vtable_len,
                         .inline_len = inline_len,
                         .depth = depth};
    return SF_OK;
}

sf_status sf__fb_root(sf_bytes buf, sf_fb_table *out, sf_error *err)
{
    if (buf.n < 4 || buf.n > INT32_MAX)
        return sf_fail(err, SF_CORRUPT, "%zu bytes cannot be a FlatBuffer", buf.n);
    return table_open(buf, u32_at(buf, 0), 1, out, err);
}

/* Position of a field of n bytes; 0 (where no field can lie) when it is absent. */
static sf_status field_pos(const sf_fb_table *t, unsigned id, size_t n, size_t *pos, sf_error *err)
{
    size_t slot = 4 + 2 * (size_t)id;
    uint16_t off;

    *pos = 0;
    if (slot + 2 > t->vtable_len)
        return SF_OK;
    off = u16_at(t->buf, t->vtable + slot);
    if (off == 0)
        return SF_OK;
    if (off < 4 || n > t->inline_len || off > t->inline_len - n)
        return sf_fail(err, SF_CORRUPT, "field %u of the FlatBuffer table at %u lies at %u of %u bytes", id, t->pos,
                       off, t->inline_len);
    *pos = t->pos + (size_t)off;
    return *pos % n == 0 ? SF_OK : misaligned("field", *pos, err);
}

#define FB_SCALAR(name, type)                                                                      \
    sf_status sf__fb_##name(const sf_fb_table *t, unsigned id, type def, type *out, sf_error *err) \
    {                                                                                              \
        size_t pos;                                                                                \
        sf_status rc = field_pos(t, id, sizeof(type), &pos, err);                                  \
                                                                                                   \
        if (rc == SF_OK)                                                                           \
            *out = pos == 0 ? def : (type)sf_load_le(t->buf.p + pos, sizeof(type));                \
        return rc;                                                                                 \
    }
FB_SCALAR(u8, uint8_t)
FB_SCALAR(u16, uint16_t)
FB_SCALAR(u32, uint32_t)
FB_SCALAR(u64, uint64_t)
#undef FB_SCALAR

sf_status sf__fb_bool(const sf_fb_table *t, unsigned id, bool def, bool *out, sf_error *err)
{
    uint8_t v = 0;
    sf_status rc = sf__fb_u8(t, id, def, &v, err);

    if (rc == SF_OK)
        *out = v != 0;
    return rc;
}

/* Where a reference leads; 0 when the field is absent (and may be). */
static sf_status target_pos(const sf_fb_table *t, unsigned id, sf_fb_need need, const char *what, uint64_t *target,
                            sf_error *err)
{
    size_t pos;
    sf_status rc = field_pos(t, id, 4, &pos, err);

    *target = 0;
    if (rc != SF_OK)
        return sf_error_prefix(err, rc, "%s: ", what);
    if (pos == 0)
        return need == SF_FB_REQUIRED ? sf_fail(err, SF_CORRUPT, "%s is missing (FlatBuffer table at %u)", what, t->pos)
                                      : SF_OK;
    *target = (uint64_t)pos + u32_at(t->buf, pos);
    if (*target == pos || *target >= t->buf.n)
        return sf_fail(err, SF_CORRUPT, "%s: FlatBuffer offset at %zu leads to %llu of %zu bytes", what, pos,
                       (unsigned long long)*target, t->buf.n);
    return SF_OK;
}

static sf_status vector_open(sf_bytes buf, uint64_t target, size_t elem_bytes, size_t extra, const char *what,
                             uint32_t *count, sf_error *err)
{
    if (!fits(buf, target, 4))
        return sf_fail(err, SF_CORRUPT, "%s: FlatBuffer vector at %llu lies outside %zu bytes", what,
                       (unsigned long long)target, buf.n);
    if (target % 4 != 0)
        return misaligned("vector", target, err);
    *count = u32_at(buf, (size_t)target);
    if (!fits(buf, target + 4, (uint64_t)*count * elem_bytes + extra))
        return sf_fail(err, SF_CORRUPT, "%s: FlatBuffer vector at %llu has %u elements in %zu bytes", what,
                       (unsigned long long)target, *count, buf.n);
    return SF_OK;
}

sf_status sf__fb_table_field(const sf_fb_table *t, unsigned id, sf_fb_need need, const char *what, sf_fb_table *out,
                             bool *present, sf_error *err)
{
    uint64_t target;
    sf_status rc = target_pos(t, id, need, what, &target, err);

    if (rc != SF_OK)
        return rc;
    if (present)
        *present = target != 0;
    if (target == 0) {
        *out = (sf_fb_table){0};
        return SF_OK;
    }
    rc = table_open(t->buf, target, (uint16_t)(t->depth + 1), out, err);
    return rc == SF_OK ? SF_OK : sf_error_prefix(err, rc, "%s: ", what);
}

static sf_status bytes_field(const sf_fb_table *t, unsigned id, sf_fb_need need, const char *what, bool is_string,
                             sf_bytes *out, bool *present, sf_error *err)
{
    uint64_t target;
    uint32_t count = 0;
    sf_status rc = target_pos(t, id, need, what, &target, err);

    if (rc == SF_OK && target != 0)
        rc = vector_open(t->buf, target, 1, is_string ? 1 : 0, what, &count, err);
    if (rc != SF_OK)
        return rc;
    if (target != 0 && is_string && t->buf.p[target + 4 + count] != 0)
        return sf_fail(err, SF_CORRUPT, "%s: FlatBuffer string at %llu does not end", what, (unsigned long long)target);
    if (present)
        *present = target != 0;
    *out = target != 0 ? (sf_bytes){t->buf.p + target + 4, count} : (sf_bytes){0};
    return SF_OK;
}

sf_status sf__fb_bytes(const sf_fb_table *t, unsigned id, sf_fb_need need, const char *what, sf_bytes *out,
                       bool *present, sf_error *err)
{
    return bytes_field(t, id, need, what, false, out, present, err);
}

sf_status sf__fb_string(const sf_fb_table *t, unsigned id, sf_fb_need need, const char *what, sf_bytes *out,
                        bool *present, sf_error *err)
{
    return bytes_field(t, id, need, what, true, out, present, err);
}

sf_status sf__fb_tables(const sf_fb_table *t, unsigned id, sf_fb_need need, const char *what, sf_fb_vector *out,
                        bool *present, sf_error *err)
{
    uint64_t target;
    uint32_t count = 0;
    sf_status rc = target_pos(t, id, need, what, &target, err);

    if (rc == SF_OK && target != 0)
        rc = vector_open(t->buf, target, 4, 0, what, &count, err);
    if (rc != SF_OK)
        return rc;
    if (present)
        *present = target != 0;
    *out = target != 0 ? (sf_fb_vector){t->buf, (uint32_t)target + 4, count, t->depth} : (sf_fb_vector){0};
    return SF_OK;
}

sf_status sf__fb_tables_at(const sf_fb_vector *v, uint32_t i, sf_fb_table *out, sf_error *err)
{
    size_t slot;

    if (i >= v->count)
        return sf_fail(err, SF_CORRUPT, "element %u of a FlatBuffer vector of %u", i, v->count);
    slot = v->pos + 4 * (size_t)i;
    return table_open(v->buf, (uint64_t)slot + u32_at(v->buf, slot), (uint16_t)(v->depth + 1), out, err);
}
