/* Replayed WAL objects as one immutable sorted table (docs/formats/slatedb.md 7.2). */
#ifndef SF_BACKEND_SLATEDB_WAL_H
#define SF_BACKEND_SLATEDB_WAL_H

#include "backend/slatedb/format/compress.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

typedef struct sf_mem_row {
    sf_bytes key, value;
    uint64_t seq;
    uint8_t flags; /* SF_ROW_* */
} sf_mem_row;

/* The newest version of each key, at least one. Immutable; any thread. */
typedef struct sf_memtable {
    sf_mem_row *rows; /* by key */
    size_t count;
    sf_buf *bytes;    /* holds keys and values */
    uint64_t max_seq; /* of all replayed rows */
} sf_memtable;

/* Decoded rows of one WAL object, in the order they were written. */
typedef struct sf_wal_rows {
    sf_arena arena; /* keys and values */
    sf_mem_row *rows;
    size_t count, cap;
    uint64_t bytes;            /* of keys and values */
    uint64_t min_seq, max_seq; /* when count > 0 */
} sf_wal_rows;

/* `object` = the whole WAL object. Rows with seq <= after_seq are left out. Any thread. On failure *out is empty. `room` as
 * in compress.h, may be NULL. */
sf_status sf__wal_decode(sf_wal_rows *out, sf_bytes object, uint64_t after_seq, sf_plain_room *room,
                         const sf_allocator *a, sf_error *err) SF_MUST_USE;
/* Takes a zeroed struct and leaves one. */
void sf__wal_rows_cleanup(sf_wal_rows *w, const sf_allocator *a);

/* Sorts the rows of `count` WAL objects, given by ascending id. *out is the caller's; NULL: they have none. Any thread; for many rows, on a
 * worker. */
sf_status sf__memtable_build(sf_memtable **out, const sf_wal_rows *const *objects, size_t count, const sf_allocator *a,
                             sf_error *err) SF_MUST_USE;
void sf__memtable_free(sf_memtable *m, const sf_allocator *a); /* takes NULL */
size_t sf__memtable_resident_bytes(const sf_memtable *m);

/* First row with a key >= `key` (count: none). */
size_t sf__memtable_lower_bound(const sf_memtable *m, sf_bytes key);

/* NULL: not there. `m` may be NULL. */
static inline const sf_mem_row *sf__memtable_get(const sf_memtable *m, sf_bytes key)
{
    size_t i;

    if (!m)
        return NULL;
    i = sf__memtable_lower_bound(m, key);
    return i < m->count && sf_bytes_eq(m->rows[i].key, key) ? &m->rows[i] : NULL;
}

#endif
