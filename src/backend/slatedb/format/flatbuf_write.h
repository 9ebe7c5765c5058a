/* Writes FlatBuffers front to back (docs/formats/slatedb.md 3) so that the FlatBuffers verifier takes them: a vtable
 * once for all tables of a kind, tables so that their 8 byte fields are aligned, children behind them. One thread.
 *
 *     sf_fb_layout l = sf__fb_layout(sizes, count);     sizes of the fields by id, 0 = never present
 *     vtable = sf__fb_put_vtable(w, &l);
 *     t = sf__fb_put_table(w, &l, vtable, ref);         `ref`: the slot that points here; 0 for the root
 *     sf__fb_set(w, &l, t, id, value);
 *     sf__fb_put_bytes(w, sf__fb_slot(&l, t, id), bytes)
 *
 * Without memory everything goes on harmlessly; sf__fb_ok() tells at the end. Positions count from the FlatBuffer's
 * byte 0, which may stand behind other bytes of the buffer. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_FLATBUF_WRITE_H
#define SF_BACKEND_SLATEDB_FORMAT_FLATBUF_WRITE_H

#include "base/alloc.h"
#include "base/bytes.h"

#define SF_FB_MAX_FIELDS 18

typedef struct sf_fb_layout {
    uint16_t count, inline_len;
    uint16_t off[SF_FB_MAX_FIELDS]; /* from the table; 0 = never present */
    uint8_t size[SF_FB_MAX_FIELDS];
} sf_fb_layout;

typedef struct sf_fb_writer {
    const sf_allocator *alloc;
    uint8_t *p;
    size_t n, cap;
    size_t start; /* of the FlatBuffer */
    bool failed;
} sf_fb_writer;

/* `prefix`: bytes that come first and are not part of the FlatBuffer. */
void sf__fb_writer_init(sf_fb_writer *w, sf_bytes prefix, const sf_allocator *a);
void sf__fb_writer_cleanup(sf_fb_writer *w); /* takes a zeroed one */
/* False: out of memory, or too large for its 32 bit offsets. */
bool sf__fb_ok(const sf_fb_writer *w) SF_MUST_USE;
static inline sf_bytes sf__fb_written(const sf_fb_writer *w) /* with the prefix */
{
    return (sf_bytes){w->p, w->n};
}

sf_fb_layout sf__fb_layout(const uint8_t *sizes, unsigned count);
size_t sf__fb_put_vtable(sf_fb_writer *w, const sf_fb_layout *l);
size_t sf__fb_put_table(sf_fb_writer *w, const sf_fb_layout *l, size_t vtable, size_t ref); /* zeroed */
void sf__fb_set(sf_fb_writer *w, const sf_fb_layout *l, size_t table, unsigned id, uint64_t v);
static inline size_t sf__fb_slot(const sf_fb_layout *l, size_t table, unsigned id)
{
    return table + l->off[id];
}

/* Objects that the slot `ref` points to. */
void sf__fb_put_bytes(sf_fb_writer *w, size_t ref, sf_bytes v);  /* vector of u8 */
void sf__fb_put_string(sf_fb_writer *w, size_t ref, sf_bytes v); /* valid UTF-8 */
/* Vector of tables: its first slot, the others follow every 4 bytes. */
size_t sf__fb_put_tables(sf_fb_writer *w, size_t ref, size_t count);

#endif
