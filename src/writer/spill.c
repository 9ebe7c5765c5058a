#include "writer/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/fd.h"
#include "base/grow.h"
#include "base/temp_file.h"

#define BLOCK_HEADER_BYTES 8u
#define ROW_HEADER_BYTES 8u
/* Blocks are collected to this size before they are written. */
#define WRITE_BYTES (1u << 20)

/* ------------------------------------------------------------------ runs ----------------------------------------- */

static sf_status file_fail(const sf_spill_run *r, const char *what, sf_error *err)
{
    const int e = errno;
    char folder[SF_TEMP_FILE_FOLDER_BYTES];

    return sf__fail_errno(err, e, SF_IO, "spill file in %s: %s", sf__temp_file_folder(r->fd, folder), what);
}

sf_status sf__spill_run_new(sf_spill_run **out, const char *folder, const sf_allocator *a, sf_error *err)
{
    sf_spill_run *r = sf__calloc(a, 1, sizeof(*r));
    sf_status rc;

    if (!r)
        return sf_fail(err, SF_NOMEM, "spill run");
    r->alloc = a;
    rc = sf__temp_file_nameless(folder, "spill folder", a, &r->fd, err);
    if (rc != SF_OK) {
        r->fd = -1;
        sf__spill_run_free(r);
        return rc;
    }
    *out = r;
    return SF_OK;
}

void sf__spill_run_free(sf_spill_run *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        close(r->fd);
    sf__free(r->alloc, r->segments);
    sf__free(r->alloc, r);
}

bool sf__spill_run_find(const sf_spill_run *r, uint32_t group, uint64_t *off, uint64_t *end)
{
    size_t lo = 0, hi = r->segment_count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (r->segments[mid].group < group)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == r->segment_count || r->segments[lo].group != group)
        return false;
    *off = r->segments[lo].off;
    *end = lo + 1 < r->segment_count ? r->segments[lo + 1].off : r->size;
    return true;
}

/* ------------------------------------------------------------------ writing -------------------------------------- */

void sf__spill_writer_init(sf_spill_writer *w, sf_spill_run *run)
{
    *w = (sf_spill_writer){.run = run};
}

void sf__spill_writer_cleanup(sf_spill_writer *w)
{
    sf__free(w->run->alloc, w->buf);
    w->buf = NULL;
}

static sf_status reserve(sf_spill_writer *w, size_t more, sf_error *err)
{
    size_t need = w->n + more, cap = w->cap ? w->cap : WRITE_BYTES + 2 * SF_SPILL_BLOCK_BYTES;
    uint8_t *p;

    if (need <= w->cap)
        return SF_OK;
    if (cap < need)
        cap = need;
    p = sf__realloc(w->run->alloc, w->buf, cap);
    if (!p)
        return sf_fail(err, SF_NOMEM, "spill buffer of %zu bytes", cap);
    w->buf = p;
    w->cap = cap;
    return SF_OK;
}

static sf_status flush(sf_spill_writer *w, sf_error *err)
{
    const uint8_t *p = w->buf;
    size_t left = w->n;

    while (left > 0) {
        ssize_t n = write(w->run->fd, p, left);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_fail(w->run, "write", err);
        p += n;
        left -= (size_t)n;
    }
    w->run->size += w->n;
    w->n = 0;
    return SF_OK;
}

static void block_close(sf_spill_writer *w)
{
    sf_bytes payload;

    if (!w->block_open)
        return;
    payload = sf_bytes_of(w->buf + w->block + BLOCK_HEADER_BYTES, w->n - w->block - BLOCK_HEADER_BYTES);
    sf_store_le(w->buf + w->block, 4, payload.n);
    sf_store_le(w->buf + w->block + 4, 4, sf__crc32(payload));
    w->block_open = false;
}

static sf_status segment_begin(sf_spill_writer *w, uint32_t group, sf_error *err)
{
    sf_spill_run *r = w->run;

    if (r->segment_count > 0 && r->segments[r->segment_count - 1].group == group)
        return SF_OK;
    block_close(w);
    if (!SF_RESERVE(r->alloc, &r->segments, &r->segment_cap, r->segment_count + 1))
        return sf_fail(err, SF_NOMEM, "spill run of %zu groups", r->segment_count);
    r->segments[r->segment_count++] = (sf_spill_segment){group, r->size + w->n};
    return SF_OK;
}

sf_status sf__spill_writer_add(sf_spill_writer *w, uint32_t group, sf_bytes key, sf_bytes value, sf_error *err)
{
    size_t n = ROW_HEADER_BYTES + key.n + value.n;
    sf_status rc;
    uint8_t *p;

    if (n > UINT32_MAX - SF_SPILL_BLOCK_BYTES)
        return sf_fail(err, SF_INVALID, "row of %zu bytes", key.n + value.n);
    rc = segment_begin(w, group, err);
    if (rc == SF_OK && !w->block_open && w->n >= WRITE_BYTES)
        rc = flush(w, err);
    if (rc == SF_OK)
        rc = reserve(w, BLOCK_HEADER_BYTES + n, err);
    if (rc != SF_OK)
        return rc;
    if (!w->block_open) {
        w->block_open = true;
        w->block = w->n;
        w->n += BLOCK_HEADER_BYTES;
    }
    p = w->buf + w->n;
    sf_store_le(p, 4, key.n);
    sf_store_le(p + 4, 4, value.n);
    if (key.n > 0)
        memcpy(p + 8, key.p, key.n);
    if (value.n > 0)
        memcpy(p + 8 + key.n, value.p, value.n);
    w->n += n;
    if (w->n - w->block >= SF_SPILL_BLOCK_BYTES)
        block_close(w);
    return SF_OK;
}

sf_status sf__spill_writer_finish(sf_spill_writer *w, sf_error *err)
{
    block_close(w);
    return flush(w, err);
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

void sf__spill_cursor_set(sf_spill_cursor *c, const sf_spill_run *run, uint64_t off, uint64_t end)
{
    *c = (sf_spill_cursor){.run = run, .off = off, .end = end, .buf = c->buf, .cap = c->cap};
}

void sf__spill_cursor_cleanup(sf_spill_cursor *c)
{
    if (c->run)
        sf__free(c->run->alloc, c->buf);
    *c = (sf_spill_cursor){0};
}

/* At least `need` bytes behind pos. */
static sf_status fill(sf_spill_cursor *c, size_t need, sf_error *err)
{
    size_t want = SF_SPILL_READ_BYTES > need ? SF_SPILL_READ_BYTES : need, have = c->n - c->pos;

    if (have >= need)
        return SF_OK;
    if (need - have > c->end - c->off)
        return sf_fail(err, SF_CORRUPT, "spill file: a block runs past its group");
    if (want > c->cap) {
        uint8_t *p = sf__alloc(c->run->alloc, want);

        if (!p)
            return sf_fail(err, SF_NOMEM, "spill buffer of %zu bytes", want);
        if (have > 0)
            memcpy(p, c->buf + c->pos, have);
        sf__free(c->run->alloc, c->buf);
        c->buf = p;
        c->cap = want;
    } else if (have > 0) {
        memmove(c->buf, c->buf + c->pos, have);
    }
    c->pos = 0;
    c->n = have;
    while (c->n < need) {
        uint64_t room = c->cap - c->n, left = c->end - c->off;
        ssize_t n = pread(c->run->fd, c->buf + c->n, (size_t)(room < left ? room : left), (off_t)c->off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_fail(c->run, "read", err);
        if (n == 0)
            return sf_fail(err, SF_CORRUPT, "spill file: it ends at byte %llu", (unsigned long long)c->off);
        c->n += (size_t)n;
        c->off += (uint64_t)n;
    }
    return SF_OK;
}

static sf_status block_next(sf_spill_cursor *c, sf_error *err)
{
    sf_status rc = fill(c, BLOCK_HEADER_BYTES, err);
    uint32_t len, crc;

    if (rc != SF_OK)
        return rc;
    len = (uint32_t)sf_load_le(c->buf + c->pos, 4);
    crc = (uint32_t)sf_load_le(c->buf + c->pos + 4, 4);
    rc = fill(c, BLOCK_HEADER_BYTES + (size_t)len, err);
    if (rc != SF_OK)
        return rc;
    c->rows = sf_bytes_of(c->buf + c->pos + BLOCK_HEADER_BYTES, len);
    if (sf__crc32(c->rows) != crc)
        return sf_fail(err, SF_CORRUPT, "spill file: checksum mismatch before byte %llu", (unsigned long long)c->off);
    c->pos += BLOCK_HEADER_BYTES + (size_t)len;
    return SF_OK;
}

sf_status sf__spill_cursor_next(sf_spill_cursor *c, sf_error *err)
{
    uint32_t key_len, value_len;
    sf_status rc;

    c->valid = false;
    while (c->rows.n == 0) {
        if (c->pos == c->n && c->off == c->end)
            return SF_OK;
        rc = block_next(c, err);
        if (rc != SF_OK)
            return rc;
    }
    if (!sf_cursor_u32le(&c->rows, &key_len) || !sf_cursor_u32le(&c->rows, &value_len) ||
        !sf_cursor_take(&c->rows, key_len, &c->key) || !sf_cursor_take(&c->rows, value_len, &c->value))
        return sf_fail(err, SF_CORRUPT, "spill file: a row runs past its block");
    c->valid = true;
    return SF_OK;
}
