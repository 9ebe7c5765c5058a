/* Bounded reader of FlatBuffers (docs/formats/slatedb.md 3). Nothing is verified up front: every access checks the
 * offset, the count and the alignment of what it follows, so a table costs what is read of it. Views borrow the buffer;
 * pure, any thread.
 *
 *   byte 0: u32 offset of the root table
 *   table t:   i32 s (vtable lies at t - s) | inline fields
 *   vtable:    u16 own size | u16 size of the inline part | u16 field offset from t, per field id (0 = absent)
 *   vector:    u32 count | elements           reference: u32 offset, counted from where the reference stands
 */
#ifndef SF_BACKEND_SLATEDB_FORMAT_FLATBUF_H
#define SF_BACKEND_SLATEDB_FORMAT_FLATBUF_H

#include "base/bytes.h"
#include "base/error.h"

/* Tables in tables; the schemas here need 5. */
#define SF_FB_MAX_DEPTH 12

typedef struct sf_fb_table {
    sf_bytes buf;
    uint32_t pos;        /* of the table */
    uint32_t vtable;     /* of its vtable */
    uint16_t vtable_len; /* inside the buffer */
    uint16_t inline_len; /* inside the buffer, at least 4 */
    uint16_t depth;
} sf_fb_table;

/* Vector of tables; all slots lie inside the buffer. */
typedef struct sf_fb_vector {
    sf_bytes buf;
    uint32_t pos; /* of the first slot */
    uint32_t count;
    uint16_t depth;
} sf_fb_vector;

typedef enum sf_fb_need { SF_FB_OPTIONAL, SF_FB_REQUIRED } sf_fb_need;

sf_status sf__fb_root(sf_bytes buf, sf_fb_table *out, sf_error *err) SF_MUST_USE;

/* Absent scalars give `def`. */
sf_status sf__fb_u8(const sf_fb_table *t, unsigned id, uint8_t def, uint8_t *out, sf_error *err) SF_MUST_USE;
sf_status sf__fb_u16(const sf_fb_table *t, unsigned id, uint16_t def, uint16_t *out, sf_error *err) SF_MUST_USE;
sf_status sf__fb_u32(const sf_fb_table *t, unsigned id, uint32_t def, uint32_t *out, sf_error *err) SF_MUST_USE;
sf_status sf__fb_u64(const sf_fb_table *t, unsigned id, uint64_t def, uint64_t *out, sf_error *err) SF_MUST_USE;
/* Any byte but 0 is true. */
sf_status sf__fb_bool(const sf_fb_table *t, unsigned id, bool def, bool *out, sf_error *err) SF_MUST_USE;

/* Objects. An absent optional one sets *present to false (may be NULL) and *out to zeroes; an absent required one is
 * SF_CORRUPT. `what` names the field in messages. */
sf_status sf__fb_table_field(const sf_fb_table *t, unsigned id, sf_fb_need need, const char *what, sf_fb_table *out,
                             bool *present, sf_error *err) SF_MUST_USE;
/* Vector of u8. */
sf_status sf__fb_bytes(const sf_fb_table *t, unsigned id, sf_fb_need need, const char *what, sf_bytes *out,
                       bool *present, sf_error *err) SF_MUST_USE;
/* The span leaves out the trailing 0, which must be there. */
sf_status sf__fb_string(const sf_fb_table *t, unsigned id, sf_fb_need need, const char *what, sf_bytes *out,
                        bool *present, sf_error *err) SF_MUST_USE;
sf_status sf__fb_tables(const sf_fb_table *t, unsigned id, sf_fb_need need, const char *what, sf_fb_vector *out,
                        bool *present, sf_error *err) SF_MUST_USE;
/* i < v->count, else SF_CORRUPT. */
sf_status sf__fb_tables_at(const sf_fb_vector *v, uint32_t i, sf_fb_table *out, sf_error *err) SF_MUST_USE;

#endif
