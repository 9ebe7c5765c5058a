#include "backend/sqlite/row_spool.h"

#include <errno.h>
#include <unistd.h>

#include "base/temp_file.h"

#define ROW_HEADER_BYTES 8u
#define BUFFER_BYTES ((size_t)1 << 20)

void sf__row_spool_init(sf_row_spool *s, const char *folder, const sf_allocator *a)
{
    *s = (sf_row_spool){.alloc = a, .folder = folder, .fd = -1};
}

void sf__row_spool_cleanup(sf_row_spool *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    sf__free(s->alloc, s->buf);
    s->buf = NULL;
    s->pos = s->n = s->cap = 0;
}

static sf_status file_fail(const char *what, sf_error *err)
{
    return sf_fail(err, SF_IO, "spooled rows: %s: %s", what, strerror(errno));
}

static sf_status reserve(sf_row_spool *s, size_t cap, sf_error *err)
{
    uint8_t *p;

    if (cap <= s->cap)
        return SF_OK;
    p = sf__realloc(s->alloc, s->buf, cap);
    if (!p)
        return sf_fail(err, SF_NOMEM, "spooled rows: buffer of %zu bytes", cap);
    s->buf = p;
    s->cap = cap;
    return SF_OK;
}

/* ------------------------------------------------------------------ adding --------------------------------------- */

static sf_status write_all(sf_row_spool *s, sf_bytes b, sf_error *err)
{
    while (b.n > 0) {
        ssize_t n = write(s->fd, b.p, b.n);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_fail("write", err);
        s->written += (uint64_t)n;
        b.p += n;
        b.n -= (size_t)n;
    }
    return SF_OK;
}

static sf_status flush(sf_row_spool *s, sf_error *err)
{
    if (s->fd < 0) {
        sf_status rc = sf__temp_file_nameless(s->folder, "spooled rows: folder", s->alloc, &s->fd, err);

        if (rc != SF_OK)
            return rc;
    }
    if (write_all(s, sf_bytes_of(s->buf, s->n), err) != SF_OK)
        return SF_IO;
    s->n = 0;
    return SF_OK;
}

/* Long ones go past the buffer. */
static sf_status put(sf_row_spool *s, sf_bytes b, sf_error *err)
{
    if (b.n > BUFFER_BYTES - s->n) {
        sf_status rc = flush(s, err);

        if (rc != SF_OK)
            return rc;
        if (b.n > BUFFER_BYTES)
            return write_all(s, b, err);
    }
    if (b.n > 0)
        memcpy(s->buf + s->n, b.p, b.n);
    s->n += b.n;
    return SF_OK;
}

sf_status sf__row_spool_add(sf_row_spool *s, sf_bytes key, sf_bytes value, sf_error *err)
{
    uint8_t header[ROW_HEADER_BYTES];
    sf_status rc = reserve(s, BUFFER_BYTES, err);

    sf_store_le(header, 4, key.n);
    sf_store_le(header + 4, 4, value.n);
    if (rc == SF_OK)
        rc = put(s, sf_bytes_of(header, sizeof(header)), err);
    if (rc == SF_OK)
        rc = put(s, key, err);
    return rc == SF_OK ? put(s, value, err) : rc;
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

sf_status sf__row_spool_rewind(sf_row_spool *s, sf_error *err)
{
    if (s->fd >= 0 && s->n > 0 && flush(s, err) != SF_OK)
        return SF_IO;
    s->pos = 0;
    s->read_off = 0;
    return SF_OK;
}

/* At least `need` bytes behind pos, unless the rows end before. */
static sf_status fill(sf_row_spool *s, size_t need, sf_error *err)
{
    if (s->fd < 0 || s->n - s->pos >= need)
        return SF_OK;
    memmove(s->buf, s->buf + s->pos, s->n - s->pos);
    s->n -= s->pos;
    s->pos = 0;
    if (reserve(s, need, err) != SF_OK)
        return SF_NOMEM;
    while (s->n < s->cap && s->read_off < s->written) {
        ssize_t n = pread(s->fd, s->buf + s->n, s->cap - s->n, (off_t)s->read_off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_fail("read", err);
        if (n == 0)
            break;
        s->n += (size_t)n;
        s->read_off += (uint64_t)n;
    }
    return SF_OK;
}

sf_status sf__row_spool_next(sf_row_spool *s, bool *end, sf_bytes *key, sf_bytes *value, sf_error *err)
{
    uint64_t key_bytes, value_bytes;
    sf_status rc = fill(s, ROW_HEADER_BYTES, err);

    if (rc != SF_OK)
        return rc;
    *end = s->n == s->pos;
    if (*end && s->read_off == (s->fd >= 0 ? s->written : 0))
        return SF_OK;
    if (s->n - s->pos < ROW_HEADER_BYTES)
        return sf_fail(err, SF_IO, "spooled rows: the file is cut short");
    key_bytes = sf_load_le(s->buf + s->pos, 4);
    value_bytes = sf_load_le(s->buf + s->pos + 4, 4);
    rc = fill(s, (size_t)(ROW_HEADER_BYTES + key_bytes + value_bytes), err);
    if (rc != SF_OK)
        return rc;
    if (s->n - s->pos < ROW_HEADER_BYTES + key_bytes + value_bytes)
        return sf_fail(err, SF_IO, "spooled rows: the file is cut short");
    *key = sf_bytes_of(s->buf + s->pos + ROW_HEADER_BYTES, (size_t)key_bytes);
    *value = sf_bytes_of(key->p + key_bytes, (size_t)value_bytes);
    s->pos += (size_t)(ROW_HEADER_BYTES + key_bytes + value_bytes);
    return SF_OK;
}
