/* The pages of a shard.db that is being built, from the first to the last, by the descriptor of its file: what is next waits in a
 * buffer, and what was left out is put in its place later. One thread at a time; blocks: never on the loop thread. */
#ifndef SF_BACKEND_SQLITE_PAGE_WRITER_H
#define SF_BACKEND_SQLITE_PAGE_WRITER_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/error.h"

/* SQLite locks bytes from here on, and keeps nothing in the page that has them. */
#define SF_SQLITE_LOCK_OFF (UINT64_C(1) << 30)

typedef struct sf_page_writer {
    const sf_allocator *alloc;
    int fd; /* borrowed */
    uint32_t page_bytes, lock_page;
    uint8_t *bytes; /* of the pages first, first + 1, ... */
    uint32_t first, count, room;
} sf_page_writer;

/* `lock_off`: SF_SQLITE_LOCK_OFF, but in tests. False without memory. */
bool sf__page_writer_init(sf_page_writer *w, int fd, uint32_t page_bytes, uint64_t lock_off, const sf_allocator *a)
    SF_MUST_USE;
/* The next page, which the caller fills before it calls anything else here, or puts later; what its bytes are until then is not
 * said. SF_INVALID: a database has no more. */
sf_status sf__page_writer_next(sf_page_writer *w, uint32_t *number, uint8_t **page, sf_error *err) SF_MUST_USE;
/* Which that will be. */
uint32_t sf__page_writer_upcoming(const sf_page_writer *w);
/* All bytes of a page that was next before. */
sf_status sf__page_writer_put(sf_page_writer *w, uint32_t number, const uint8_t *page, sf_error *err) SF_MUST_USE;
/* To the file, whose size is then that of all pages. */
sf_status sf__page_writer_flush(sf_page_writer *w, sf_error *err) SF_MUST_USE;
uint32_t sf__page_writer_count(const sf_page_writer *w); /* of all pages */
void sf__page_writer_cleanup(sf_page_writer *w);         /* takes a zeroed one */

#endif
