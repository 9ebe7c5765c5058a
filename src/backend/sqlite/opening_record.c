#include "backend/sqlite/opening_record.h"

#include "base/error.h"

#define RECORD_OF_SQLITE 2u
#define HEAD_BYTES 11u

/* It becomes part of a request. */
static bool is_etag(sf_bytes etag)
{
    for (size_t i = 0; i < etag.n; i++)
        if (etag.p[i] <= ' ' || etag.p[i] > '~')
            return false;
    return etag.n > 0 && etag.n < sizeof(((sf_sqlite_record *)0)->etag);
}

sf_status sf__sqlite_record_encode(sf_buf **out, const sf_sqlite_record *r, const sf_allocator *a, sf_error *err)
{
    const sf_bytes etag = sf_bytes_str(r->etag);
    sf_buf *b;

    *out = NULL;
    if (!is_etag(etag) || r->db_bytes == 0)
        return SF_OK;
    b = sf__buf_new(a, HEAD_BYTES + etag.n);
    if (!b)
        return sf_fail(err, SF_NOMEM, "record of a shard");
    b->data[0] = RECORD_OF_SQLITE;
    sf_store_be(b->data + 1, 8, r->db_bytes);
    b->data[9] = r->has_sidecar;
    b->data[10] = (uint8_t)etag.n;
    memcpy(b->data + HEAD_BYTES, etag.p, etag.n);
    *out = b;
    return SF_OK;
}

bool sf__sqlite_record_decode(sf_sqlite_record *out, sf_bytes record)
{
    sf_sqlite_record r = {0};
    sf_bytes etag;
    uint8_t kind, sidecar, n;

    if (!sf_cursor_u8(&record, &kind) || kind != RECORD_OF_SQLITE || !sf_cursor_u64be(&record, &r.db_bytes) ||
        r.db_bytes == 0 || !sf_cursor_u8(&record, &sidecar) || sidecar > 1 || !sf_cursor_u8(&record, &n) ||
        !sf_cursor_take(&record, n, &etag) || record.n > 0 || !is_etag(etag))
        return false;
    r.has_sidecar = sidecar == 1;
    memcpy(r.etag, etag.p, etag.n);
    *out = r;
    return true;
}
