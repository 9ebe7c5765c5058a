#include "backend/sqlite/page_writer.h"

#include "base/fd.h"
#include "base/temp_file.h"

/* More is no quicker: it would no longer stay in the processor's cache. */
#define BUFFER_BYTES (256u << 10)
/* The largest number that SQLite gives a page. */
#define PAGE_COUNT_MAX 0xfffffffeu

bool sf__page_writer_init(sf_page_writer *w, int fd, uint32_t page_bytes, uint64_t lock_off, const sf_allocator *a)
{
    *w = (sf_page_writer){
        .alloc = a,
        .fd = fd,
        .page_bytes = page_bytes,
        .lock_page = (uint32_t)(lock_off / page_bytes + 1),
        .bytes = sf__alloc(a, BUFFER_BYTES),
        .first = 1,
        .room = BUFFER_BYTES / page_bytes,
    };
    return w->bytes != NULL;
}

void sf__page_writer_cleanup(sf_page_writer *w)
{
    if (w->bytes)
        sf__free(w->alloc, w->bytes);
    w->bytes = NULL;
}

static sf_status write_pages(const sf_page_writer *w, uint32_t number, const uint8_t *p, uint32_t count, sf_error *err)
{
    const uint64_t off = (uint64_t)(number - 1) * w->page_bytes;
    const int e = sf__pwrite_all(w->fd, sf_bytes_of(p, (size_t)count * w->page_bytes), off);

    char folder[SF_TEMP_FILE_FOLDER_BYTES];

    if (e == 0)
        return SF_OK;
    return sf__fail_errno(err, e, SF_IO, "shard.db, built in %s: write at %llu", sf__temp_file_folder(w->fd, folder),
                          (unsigned long long)off);
}

sf_status sf__page_writer_flush(sf_page_writer *w, sf_error *err)
{
    sf_status rc = w->count > 0 ? write_pages(w, w->first, w->bytes, w->count, err) : SF_OK;

    if (rc != SF_OK)
        return rc;
    w->first += w->count;
    w->count = 0;
    return SF_OK;
}

uint32_t sf__page_writer_upcoming(const sf_page_writer *w)
{
    const uint32_t number = w->first + w->count;

    return number == w->lock_page ? number + 1 : number;
}

uint32_t sf__page_writer_count(const sf_page_writer *w)
{
    return w->first + w->count - 1;
}

static sf_status take(sf_page_writer *w, uint8_t **page, sf_error *err)
{
    sf_status rc = w->count == w->room ? sf__page_writer_flush(w, err) : SF_OK;

    if (rc != SF_OK)
        return rc;
    *page = w->bytes + (size_t)w->count * w->page_bytes;
    w->count++;
    return SF_OK;
}

sf_status sf__page_writer_next(sf_page_writer *w, uint32_t *number, uint8_t **page, sf_error *err)
{
    const uint32_t next = sf__page_writer_upcoming(w);

    if (next >= PAGE_COUNT_MAX)
        return sf_fail(err, SF_INVALID,
                       "shard.db: it takes more than %u pages of %u bytes, which SQLite has no numbers for: "
                       "write more shards, or larger pages",
                       PAGE_COUNT_MAX, w->page_bytes);
    while (sf__page_writer_count(w) < next) {
        sf_status rc = take(w, page, err);

        if (rc != SF_OK)
            return rc;
        if (sf__page_writer_count(w) == w->lock_page)
            memset(*page, 0, w->page_bytes);
    }
    *number = next;
    return SF_OK;
}

sf_status sf__page_writer_put(sf_page_writer *w, uint32_t number, const uint8_t *page, sf_error *err)
{
    if (number < w->first)
        return write_pages(w, number, page, 1, err);
    memcpy(w->bytes + (size_t)(number - w->first) * w->page_bytes, page, w->page_bytes);
    return SF_OK;
}
