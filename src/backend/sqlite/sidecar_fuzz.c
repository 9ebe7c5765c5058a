/* Input: u8 mode | bytes. Mode 0: a sidecar. 1: u8 power | body, put into a frame for pages of 2^(9 + power % 8) bytes.
 * 2: a database.
 *
 * What decodes can be asked for every page and chain; a page that is rebuilt and trimmed again is what was stored. What a
 * database is encoded to decodes, and its pages are the database's. */
#include <stdlib.h>
#include <zstd.h>

#include "backend/sqlite/btree_page.h"
#include "backend/sqlite/sidecar.h"
#include "backend/sqlite/sidecar_format.h"

#define ROOM_BYTES 300u

static const sf_allocator *const heap = &sf__allocator_default;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void check_page(const sf_sidecar *s, uint32_t i, sf_bytes db)
{
    uint32_t number = sf__sidecar_page_number(s, i), found;
    uint32_t off = (uint32_t)sf_load_le(s->page_offs.p + 4 * (size_t)i, 4);
    uint32_t end = (uint32_t)sf_load_le(s->page_offs.p + 4 * (size_t)i + 4, 4);
    uint8_t *page = malloc(s->page_bytes);
    const uint8_t *stored = s->area.p + off;
    sf_bytes original;
    size_t from, to;

    must(page != NULL);
    must(sf__sidecar_find_page(s, number, &found) && found == i);
    sf__sidecar_page(s, i, page);
    must(sf__btree_gap(sf_bytes_of(page, s->page_bytes), number, s->page_bytes, &from, &to));
    must(end - off == s->page_bytes - (to - from));
    must(memcmp(stored, page, from) == 0 && memcmp(stored + from, page + to, s->page_bytes - to) == 0);
    if (db.p) {
        must(sf_bytes_slice(db, (uint64_t)(number - 1) * s->page_bytes, s->page_bytes, &original));
        must(memcmp(original.p, page, from) == 0 && memcmp(original.p + to, page + to, s->page_bytes - to) == 0);
    }
    free(page);
}

static void check_decoded(const sf_sidecar *s, sf_bytes db)
{
    for (uint32_t i = 0; i < s->page_count; i++)
        check_page(s, i, db);
    for (uint32_t i = 0, end = 0; i < s->chain_count; i++) {
        uint32_t first, count;

        must(sf__sidecar_find_chain(s, sf__sidecar_chain_head(s, i), &first, &count));
        must(first == end && count > 0 && sf__sidecar_chain_page(s, first) == sf__sidecar_chain_head(s, i));
        end = first + count;
        must(end <= s->chain_pages.n / 4);
    }
}

static void check_object(sf_bytes object)
{
    sf_plain_room room = {.left = ROOM_BYTES};
    sf_sidecar s;
    sf_status rc;

    rc = sf__sidecar_decode(&s, object, NULL, &room, heap, NULL);
    if (rc == SF_WOULD_BLOCK) { /* as much as it says, and not a byte less */
        must(room.left == ROOM_BYTES && room.wanted > ROOM_BYTES);
        room.left = room.wanted;
        rc = sf__sidecar_decode(&s, object, NULL, &room, heap, NULL);
        must(rc != SF_WOULD_BLOCK);
    }
    if (rc != SF_OK)
        return;
    check_decoded(&s, (sf_bytes){0});
    sf__sidecar_cleanup(&s);
}

static void check_body(sf_bytes in)
{
    size_t bound = ZSTD_compressBound(in.n), n;
    ZSTD_CCtx *c = ZSTD_createCCtx();
    sf_buf *b = sf__buf_new(heap, SF_SIDECAR_HEAD_BYTES + bound);
    uint8_t power;

    must(c && b);
    if (!sf_cursor_u8(&in, &power))
        power = 0;
    memcpy(b->data, SF_SIDECAR_MAGIC, 4);
    b->data[4] = SF_SIDECAR_VERSION;
    sf_store_le(b->data + 5, 8, in.n);
    sf_store_le(b->data + 13, 4, UINT64_C(512) << power % 8);
    b->data[17] = 0;
    ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, 1);
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
    n = ZSTD_compress2(c, b->data + SF_SIDECAR_HEAD_BYTES, bound, in.p, in.n);
    must(!ZSTD_isError(n));
    check_object(sf_bytes_of(b->data, SF_SIDECAR_HEAD_BYTES + n));
    sf__buf_release(b);
    ZSTD_freeCCtx(c);
}

static void check_database(sf_bytes db)
{
    sf_buf *object = NULL;
    sf_sidecar s;

    if (sf__sidecar_encode_bytes(db, "\"tag\"", heap, &object, NULL) != SF_OK)
        return;
    must(sf__sidecar_decode(&s, sf__buf_bytes(object), "\"tag\"", NULL, heap, NULL) == SF_OK);
    must(s.page_count > 0 && sf__sidecar_page_number(&s, 0) == 1);
    check_decoded(&s, db);
    sf__sidecar_cleanup(&s);
    sf__buf_release(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_cursor in = {data, size};
    uint8_t mode;

    if (!sf_cursor_u8(&in, &mode))
        return 0;
    if (mode % 3 == 0)
        check_object(in);
    else if (mode % 3 == 1)
        check_body(in);
    else
        check_database(in);
    return 0;
}
