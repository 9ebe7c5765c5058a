/* What a sidecar says of shard.db (docs/formats/snapshot.md 14): which pages it has, and where the overflow chains lie. Whoever
 * builds a shard.db notes it on the way; of any other one it is found by walking through it. One thread. */
#ifndef SF_BACKEND_SQLITE_SIDECAR_MAP_H
#define SF_BACKEND_SQLITE_SIDECAR_MAP_H

#include "backend/sqlite/file_view.h"
#include "base/alloc.h"

typedef struct sf_sidecar_map {
    const sf_allocator *alloc;
    uint32_t page_bytes;
    struct sf_sidecar_map_page {
        uint32_t number, stored_bytes;
    } *pages;
    struct sf_sidecar_map_chain {
        uint32_t head, count;
        size_t first; /* in chain_pages */
    } *chains;
    uint32_t *chain_pages;
    size_t page_count, page_cap, chain_count, chain_cap, chain_page_count, chain_page_cap;
    uint64_t area_bytes; /* of the pages, as they are stored */
} sf_sidecar_map;

void sf__sidecar_map_init(sf_sidecar_map *m, uint32_t page_bytes, const sf_allocator *a);
/* In any order. SF_UNSUPPORTED: no reader takes a sidecar of so much; then the map is of no use. */
sf_status sf__sidecar_map_add_page(sf_sidecar_map *m, uint32_t number, uint32_t stored_bytes, sf_error *err) SF_MUST_USE;
/* One more chain; then its pages, the head first. */
sf_status sf__sidecar_map_add_chain(sf_sidecar_map *m, uint32_t head, sf_error *err) SF_MUST_USE;
sf_status sf__sidecar_map_add_chain_page(sf_sidecar_map *m, uint32_t number, sf_error *err) SF_MUST_USE;
/* Pages and chains ascend from now on. */
void sf__sidecar_map_sort(sf_sidecar_map *m);
/* That of a whole shard.db, sorted. *m is made by it, and to be cleaned up whatever comes of it. SF_UNSUPPORTED, SF_CORRUPT: as
 * sf__sidecar_encode_bytes(). */
sf_status sf__sidecar_map_walk(sf_sidecar_map *m, const sf_file_view *db, const sf_allocator *a, sf_error *err)
    SF_MUST_USE;
void sf__sidecar_map_cleanup(sf_sidecar_map *m); /* takes a zeroed one */

/* Of the sidecar's body. */
uint64_t sf__sidecar_map_body_bytes(const sf_sidecar_map *m);

#endif
