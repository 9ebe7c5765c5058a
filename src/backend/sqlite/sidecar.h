/* `shard.sidecar`, version 8 (docs/formats/snapshot.md 14): the pages of shard.db that every look-up needs, and where
 * its overflow chains lie, so that a reader of ranges starts warm. Pure but for what
 * reads and takes the bytes; any thread.
 *
 *     "SQPC" | u8 version | u64le body length | u32le page size | u8 T | T bytes tag | zstd frame of the body
 *     body: u32le n | n page numbers | n + 1 offsets into the page area
 *           u32le c | c heads of chains | c + 1 indexes into the next array | m page numbers of all chains | page area
 *
 * The tag is the ETag of the shard.db that it belongs to. A page is stored without the free gap in its middle:
 *
 *     | 100 on page 1 | b-tree header | cell pointers | gap ... | cells |                                            */
#ifndef SF_BACKEND_SQLITE_SIDECAR_H
#define SF_BACKEND_SQLITE_SIDECAR_H

#include "backend/sqlite/sidecar_map.h"
#include "base/buf.h"
#include "base/plain_room.h"

#define SF_SIDECAR_NAME "shard.sidecar"
#define SF_SIDECAR_TAG_MAX 255u

typedef sf_status (*sf_sidecar_sink)(void *ctx, sf_bytes piece, sf_error *err);

/* The sidecar of a whole shard.db, piece by piece; `map` is its, and sorted. `etag` is written as it is; longer than
 * SF_SIDECAR_TAG_MAX it is left out, which is what not bound to anything looks like. SF_CORRUPT: the map is of another one. A
 * failure of the sink or of reading comes back as it is. */
sf_status sf__sidecar_encode(const sf_file_view *db, const sf_sidecar_map *map, const char *etag, const sf_allocator *a,
                             sf_sidecar_sink sink, void *ctx, sf_error *err) SF_MUST_USE;
/* From memory into memory. SF_UNSUPPORTED: this file cannot have one (reserved bytes in its pages, WAL mode, more than a reader
 * would take); then do without. SF_CORRUPT: not a sound database. */
sf_status sf__sidecar_encode_bytes(sf_bytes db, const char *etag, const sf_allocator *a, sf_buf **out, sf_error *err)
    SF_MUST_USE;

/* A decoded one; checked as a whole, so that nothing below can fail. Released with sf__sidecar_cleanup(). */
typedef struct sf_sidecar {
    uint32_t page_bytes;
    uint32_t page_count, chain_count;
    uint8_t tag[SF_SIDECAR_TAG_MAX];
    uint8_t tag_bytes; /* 0: not bound */
    sf_buf *body;
    sf_bytes pages, page_offs, heads, chain_starts, chain_pages, area; /* in the body; all but the area u32le each */
} sf_sidecar;

/* `etag`: of the shard.db at hand; SF_CONFLICT when the sidecar is bound to another one or to none. NULL: do not
 * compare. SF_UNSUPPORTED: another version. SF_CORRUPT: anything else wrong. A reader goes on without it in all three
 * cases. SF_WOULD_BLOCK: it unpacks to more than `room` has; NULL: without a bound but SF_LIMIT_SIDECAR_BYTES. */
sf_status sf__sidecar_decode(sf_sidecar *out, sf_bytes object, const char *etag, sf_plain_room *room,
                             const sf_allocator *a, sf_error *err) SF_MUST_USE;
void sf__sidecar_cleanup(sf_sidecar *s); /* takes a zeroed one and leaves one */

uint32_t sf__sidecar_page_number(const sf_sidecar *s, uint32_t i); /* i < page_count; ascending */
bool sf__sidecar_find_page(const sf_sidecar *s, uint32_t number, uint32_t *i);
void sf__sidecar_page(const sf_sidecar *s, uint32_t i, uint8_t *out); /* page_bytes bytes, as in shard.db */

uint32_t sf__sidecar_chain_head(const sf_sidecar *s, uint32_t i); /* i < chain_count; ascending */
/* The pages of the chain that begins with `head` are chain pages *first, *first + 1, ... */
bool sf__sidecar_find_chain(const sf_sidecar *s, uint32_t head, uint32_t *first, uint32_t *count);
uint32_t sf__sidecar_chain_page(const sf_sidecar *s, uint32_t i);

#endif
