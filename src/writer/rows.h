/* Rows in memory and their order. Rows lie one behind the other in chunks; what is sorted are 16-byte entries that hold
 * the 8 key bytes under comparison, so that most of the work never looks at a row. One thread; sorting of disjoint
 * ranges of entries may go on in several. */
#ifndef SF_WRITER_ROWS_H
#define SF_WRITER_ROWS_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "writer/duplicates.h"

typedef struct sf_row_entry {
    uint64_t head; /* 8 key bytes as a number, from the depth that is being sorted; zeroes behind the key's end */
    uint32_t row;  /* place in the chunks, in units of 8 bytes; grows with the order of adding */
    uint32_t group;
} sf_row_entry;

/* A row in a chunk: lengths, key, value, padding to 8. */
typedef struct sf_packed_row {
    uint32_t key_len, value_len;
    uint8_t bytes[];
} sf_packed_row;

typedef struct sf_rows {
    const sf_allocator *alloc;
    unsigned chunk_shift; /* a chunk has 1 << chunk_shift bytes */
    uint8_t **chunks;     /* a row longer than a chunk lies across neighbours that are one allocation */
    bool *chunk_is_own;   /* begins an allocation */
    uint32_t chunk_count, chunk_cap, chunk_used;
    size_t chunk_pos; /* room taken in chunk chunk_used - 1 */
    sf_row_entry *entries;
    size_t count, cap;
    uint32_t groups; /* all that rows were added to so far are below; cleared rows count */
} sf_rows;

void sf__rows_init(sf_rows *r, size_t chunk_bytes, const sf_allocator *a); /* a power of two, 4 KiB .. 1 GiB */
void sf__rows_cleanup(sf_rows *r);
/* Copies. Lengths below 4 GiB, their sum with the padding below 8 GiB. */
bool sf__rows_add(sf_rows *r, uint32_t group, sf_bytes key, sf_bytes value) SF_MUST_USE;
/* Bytes that these rows and one more take, with what sorting them takes. */
size_t sf__rows_bytes_with(const sf_rows *r, size_t key_len, size_t value_len);
/* Forgets the rows; keeps the memory, but for rows longer than a chunk. */
void sf__rows_clear(sf_rows *r);

/* Entries by group, stable; off[g] .. off[g + 1] are those of group g (groups + 1 slots). `scratch`: count entries. */
void sf__rows_by_group(sf_rows *r, size_t *off, uint32_t groups, sf_row_entry *scratch);
/* Entries of one group by key, stable. `scratch`: n entries. */
void sf__rows_sort(const sf_rows *r, sf_row_entry *e, size_t n, sf_row_entry *scratch);

/* The row at *at of a sorted range that ends at `end`: the last one added of its key. *at is behind that key then. */
sf_status sf__rows_next_key(const sf_rows *r, size_t *at, size_t end, sf_duplicate_rows *duplicates,
                            const sf_packed_row **out, sf_error *err) SF_MUST_USE;

static inline const sf_packed_row *sf__rows_at(const sf_rows *r, uint32_t row)
{
    uint64_t pos = (uint64_t)row << 3;

    return (const sf_packed_row *)(r->chunks[pos >> r->chunk_shift] + (pos & (((uint64_t)1 << r->chunk_shift) - 1)));
}

static inline sf_bytes sf__packed_key(const sf_packed_row *p)
{
    return (sf_bytes){p->bytes, p->key_len};
}

static inline sf_bytes sf__packed_value(const sf_packed_row *p)
{
    return (sf_bytes){p->bytes + p->key_len, p->value_len};
}

#endif
