#include "backend/sqlite/sidecar.h"

#include <zstd.h>
#include <zstd_errors.h>

#include "backend/sqlite/btree_page.h"
#include "backend/sqlite/sidecar_format.h"
#include "base/limits.h"

/* ------------------------------------------------------------------ pages ---------------------------------------- */

static uint32_t at(sf_bytes u32s, uint32_t i)
{
    return (uint32_t)sf_load_le(u32s.p + 4 * (size_t)i, 4);
}

/* Of a stored page that is whole again. */
static bool page_fits(sf_bytes stored, uint32_t number, uint32_t page_bytes)
{
    size_t from, to;

    return sf__btree_gap(stored, number, page_bytes, &from, &to) && from <= stored.n &&
           stored.n == page_bytes - (to - from);
}

static sf_bytes stored_page(const sf_sidecar *s, uint32_t i)
{
    return sf_bytes_of(s->area.p + at(s->page_offs, i), at(s->page_offs, i + 1) - at(s->page_offs, i));
}

void sf__sidecar_page(const sf_sidecar *s, uint32_t i, uint8_t *out)
{
    sf_bytes stored = stored_page(s, i);
    size_t from = 0, to = 0;

    if (!sf__btree_gap(stored, at(s->pages, i), s->page_bytes, &from, &to))
        from = to = 0; /* decode has checked: it does not happen */
    memcpy(out, stored.p, from);
    memset(out + from, 0, to - from);
    memcpy(out + to, stored.p + from, stored.n - from);
}

/* ------------------------------------------------------------------ look-ups ------------------------------------- */

static bool find(sf_bytes u32s, uint32_t value, uint32_t *i)
{
    uint32_t lo = 0, hi = (uint32_t)(u32s.n / 4);

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (at(u32s, mid) < value)
            lo = mid + 1;
        else
            hi = mid;
    }
    *i = lo;
    return lo < u32s.n / 4 && at(u32s, lo) == value;
}

uint32_t sf__sidecar_page_number(const sf_sidecar *s, uint32_t i)
{
    return at(s->pages, i);
}

bool sf__sidecar_find_page(const sf_sidecar *s, uint32_t number, uint32_t *i)
{
    return find(s->pages, number, i);
}

uint32_t sf__sidecar_chain_head(const sf_sidecar *s, uint32_t i)
{
    return at(s->heads, i);
}

bool sf__sidecar_find_chain(const sf_sidecar *s, uint32_t head, uint32_t *first, uint32_t *count)
{
    uint32_t i;

    if (!find(s->heads, head, &i))
        return false;
    *first = at(s->chain_starts, i);
    *count = at(s->chain_starts, i + 1) - *first;
    return true;
}

uint32_t sf__sidecar_chain_page(const sf_sidecar *s, uint32_t i)
{
    return at(s->chain_pages, i);
}

/* ------------------------------------------------------------------ decoding ------------------------------------- */

static sf_status bad(const char *what, sf_error *err)
{
    return sf_fail(err, SF_CORRUPT, "sidecar: %s", what);
}

static bool take_u32s(sf_cursor *c, uint64_t count, sf_bytes *out)
{
    return count <= c->n / 4 && sf_cursor_take(c, (size_t)count * 4, out);
}

static bool ascending(sf_bytes u32s)
{
    for (size_t i = 4; i < u32s.n; i += 4)
        if (sf_load_le(u32s.p + i, 4) <= sf_load_le(u32s.p + i - 4, 4))
            return false;
    return true;
}

static sf_status decode_pages(sf_sidecar *s, sf_cursor *c, sf_error *err)
{
    if (!sf_cursor_u32le(c, &s->page_count) || !take_u32s(c, s->page_count, &s->pages) ||
        !take_u32s(c, (uint64_t)s->page_count + 1, &s->page_offs))
        return bad("the list of pages runs past the end", err);
    if (!ascending(s->pages) || (s->page_count > 0 && at(s->pages, 0) == 0))
        return bad("page numbers are not ascending from 1", err);
    if (at(s->page_offs, 0) != 0 || !ascending(s->page_offs))
        return bad("page offsets are not ascending from 0", err);
    return SF_OK;
}

static sf_status decode_chains(sf_sidecar *s, sf_cursor *c, sf_error *err)
{
    if (!sf_cursor_u32le(c, &s->chain_count) || !take_u32s(c, s->chain_count, &s->heads) ||
        !take_u32s(c, (uint64_t)s->chain_count + 1, &s->chain_starts) ||
        !take_u32s(c, at(s->chain_starts, s->chain_count), &s->chain_pages))
        return bad("the list of overflow chains runs past the end", err);
    if (!ascending(s->heads) || at(s->chain_starts, 0) != 0 || !ascending(s->chain_starts))
        return bad("overflow chains are not in order", err);
    for (uint32_t i = 0; i < s->chain_count; i++)
        if (at(s->chain_pages, at(s->chain_starts, i)) != at(s->heads, i))
            return bad("an overflow chain does not begin with its head", err);
    for (uint32_t i = 0; i < s->chain_pages.n / 4; i++)
        if (at(s->chain_pages, i) == 0)
            return bad("an overflow chain names page 0", err);
    return SF_OK;
}

/* Page 1 begins with the head of the database. */
static bool first_page_agrees(sf_bytes stored, uint32_t page_bytes)
{
    uint32_t size;

    return sf__btree_page_bytes(stored, &size) && size == page_bytes;
}

static sf_status decode_body(sf_sidecar *s, sf_error *err)
{
    sf_cursor c = sf__buf_bytes(s->body);
    sf_status rc = decode_pages(s, &c, err);

    if (rc == SF_OK)
        rc = decode_chains(s, &c, err);
    if (rc != SF_OK)
        return rc;
    s->area = c;
    if (at(s->page_offs, s->page_count) != s->area.n)
        return bad("the page area is not as long as its offsets say", err);
    if (s->page_count > 0 && at(s->pages, 0) == 1 && !first_page_agrees(stored_page(s, 0), s->page_bytes))
        return sf_fail(err, SF_CORRUPT, "sidecar: pages of %u bytes, and the database has others", s->page_bytes);
    for (uint32_t i = 0; i < s->page_count; i++)
        if (!page_fits(stored_page(s, i), at(s->pages, i), s->page_bytes))
            return sf_fail(err, SF_CORRUPT, "sidecar: page %u does not come to %u bytes", at(s->pages, i), s->page_bytes);
    return SF_OK;
}

/* Exactly one frame that says its size and has a checksum. */
static sf_status inflate(sf_sidecar *s, sf_bytes frame, uint64_t body_bytes, sf_plain_room *room, const sf_allocator *a,
                         sf_error *err)
{
    size_t got;

    if (body_bytes > SF_LIMIT_SIDECAR_BYTES ||
        (body_bytes > SF_LIMIT_INFLATE_FREE_BYTES && body_bytes / SF_LIMIT_INFLATE_RATIO > frame.n))
        return sf_fail(err, SF_CORRUPT, "sidecar: %zu bytes claim to stand for %llu", frame.n,
                       (unsigned long long)body_bytes);
    if (frame.n <= SF_ZSTD_DESCRIPTOR_OFF || ZSTD_getFrameContentSize(frame.p, frame.n) != body_bytes ||
        ZSTD_findFrameCompressedSize(frame.p, frame.n) != frame.n ||
        !(frame.p[SF_ZSTD_DESCRIPTOR_OFF] & SF_ZSTD_CHECKSUM_FLAG))
        return bad("not one frame of the right size with a checksum", err);
    if (room && body_bytes > room->left) {
        room->wanted = body_bytes;
        return sf_fail(err, SF_WOULD_BLOCK, "sidecar: it unpacks to more than the %llu bytes that were set aside",
                       (unsigned long long)room->left);
    }
    s->body = sf__buf_new(a, (size_t)body_bytes);
    if (!s->body)
        return sf_fail(err, SF_NOMEM, "sidecar of %llu bytes", (unsigned long long)body_bytes);
    got = ZSTD_decompress(s->body->data, s->body->n, frame.p, frame.n);
    if (ZSTD_isError(got) && ZSTD_getErrorCode(got) == ZSTD_error_memory_allocation)
        return sf_fail(err, SF_NOMEM, "sidecar: decompressor");
    return got == body_bytes ? SF_OK : bad("the frame cannot be decompressed", err);
}

static sf_status decode_head(sf_sidecar *s, sf_cursor *c, uint64_t *body_bytes, const char *etag, sf_error *err)
{
    sf_bytes magic, tag;
    uint8_t version;

    if (!sf_cursor_take(c, 4, &magic) || memcmp(magic.p, SF_SIDECAR_MAGIC, 4) != 0 || !sf_cursor_u8(c, &version))
        return bad("it does not begin with " SF_SIDECAR_MAGIC, err);
    if (version != SF_SIDECAR_VERSION)
        return sf_fail(err, SF_UNSUPPORTED, "sidecar: version %u, only %u is supported", version, SF_SIDECAR_VERSION);
    if (!sf_cursor_u64le(c, body_bytes) || !sf_cursor_u32le(c, &s->page_bytes) || !sf_cursor_u8(c, &s->tag_bytes) ||
        !sf_cursor_take(c, s->tag_bytes, &tag))
        return bad("the head is cut short", err);
    if (s->page_bytes < SF_DB_PAGE_BYTES_MIN || s->page_bytes > SF_DB_PAGE_BYTES_MAX ||
        (s->page_bytes & (s->page_bytes - 1)) != 0)
        return sf_fail(err, SF_CORRUPT, "sidecar: pages of %u bytes", s->page_bytes);
    if (etag && (tag.n == 0 || !sf_bytes_eq(tag, sf_bytes_str(etag))))
        return sf_fail(err, SF_CONFLICT, "sidecar: it belongs to another shard.db than %s", etag);
    if (tag.n > 0)
        memcpy(s->tag, tag.p, tag.n);
    return SF_OK;
}

sf_status sf__sidecar_decode(sf_sidecar *out, sf_bytes object, const char *etag, sf_plain_room *room,
                             const sf_allocator *a, sf_error *err)
{
    sf_sidecar s = {0};
    sf_cursor c = object;
    uint64_t body_bytes = 0;
    sf_status rc = decode_head(&s, &c, &body_bytes, etag, err);

    if (rc == SF_OK)
        rc = inflate(&s, c, body_bytes, room, a, err);
    if (rc == SF_OK)
        rc = decode_body(&s, err);
    if (rc != SF_OK) {
        sf__sidecar_cleanup(&s);
        return rc;
    }
    if (room)
        room->left -= body_bytes;
    *out = s;
    return SF_OK;
}

void sf__sidecar_cleanup(sf_sidecar *s)
{
    sf__buf_release(s->body);
    *s = (sf_sidecar){0};
}
