#include "backend/sqlite/copy_check.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"

#define READ_BYTES ((size_t)256 << 10)

/* ------------------------------------------------------------------ digest --------------------------------------- */

/* A sum, so that the order does not matter; each term is of one piece at one place. */
void sf__copy_digest_add(sf_copy_digest *d, uint64_t off, sf_hash128 piece)
{
    uint8_t term[24];
    sf_hash128 h;

    sf_store_le(term, 8, off);
    sf_store_le(term + 8, 8, piece.lo);
    sf_store_le(term + 16, 8, piece.hi);
    h = sf__xxh3_128(sf_bytes_of(term, sizeof(term)));
    d->sum.lo ^= h.lo;
    d->sum.hi ^= h.hi;
}

sf_status sf__copy_piece_hash(const sf_file_view *file, uint64_t off, const sf_allocator *a, sf_hash128 *out,
                              sf_error *err)
{
    uint64_t left = file->size - off, end = off + (left < SF_COPY_PIECE_BYTES ? left : SF_COPY_PIECE_BYTES);
    uint8_t *buf = sf__alloc(a, READ_BYTES);
    sf_hasher hasher = {0};
    sf_status rc = SF_OK;

    if (!buf || !sf__hasher_init(&hasher, a))
        rc = sf_fail(err, SF_NOMEM, "check of a copy");
    while (rc == SF_OK && off < end) {
        size_t n = end - off < READ_BYTES ? (size_t)(end - off) : READ_BYTES;

        rc = file->read(file->ctx, off, n, buf, err);
        if (rc == SF_OK)
            sf__hasher_add(&hasher, sf_bytes_of(buf, n));
        off += n;
    }
    if (rc == SF_OK)
        *out = sf__hasher_value(&hasher);
    sf__hasher_cleanup(&hasher);
    sf__free(a, buf);
    return rc;
}

void sf__copy_record(const sf_copy_digest *d, const char *name, uint64_t size, uint8_t out[SF_COPY_RECORD_BYTES])
{
    uint8_t all[256 + 24];
    size_t n = strnlen(name, 255); /* as long as names of files get */
    sf_hash128 h;

    memcpy(all, name, n);
    sf_store_le(all + n, 8, size);
    sf_store_le(all + n + 8, 8, d->sum.lo);
    sf_store_le(all + n + 16, 8, d->sum.hi);
    h = sf__xxh3_128(sf_bytes_of(all, n + 24));
    memcpy(out, "SFCOPY1\n", 8);
    sf_store_le(out + 8, 8, size);
    sf_store_le(out + 16, 8, h.lo);
    sf_store_le(out + 24, 8, h.hi);
}

/* ------------------------------------------------------------------ what is known --------------------------------- */

#define BUCKETS 1024u
#define SLOTS 8u

static atomic_uint_fast64_t known[BUCKETS][SLOTS]; /* 0: free */

static uint64_t stamp_of(const struct stat *st, const uint8_t record[SF_COPY_RECORD_BYTES])
{
    const uint64_t words[] = {
        (uint64_t)st->st_dev,          (uint64_t)st->st_ino,          (uint64_t)st->st_size,
        (uint64_t)st->st_mtim.tv_sec,  (uint64_t)st->st_mtim.tv_nsec, (uint64_t)st->st_ctim.tv_sec,
        (uint64_t)st->st_ctim.tv_nsec,
    };
    uint8_t all[sizeof(words) + SF_COPY_RECORD_BYTES];

    memcpy(all, words, sizeof(words));
    memcpy(all + sizeof(words), record, SF_COPY_RECORD_BYTES);
    return sf__xxh3_64(sf_bytes_of(all, sizeof(all))) | 1;
}

bool sf__copy_is_known(const struct stat *st, const uint8_t record[SF_COPY_RECORD_BYTES])
{
    uint64_t stamp = stamp_of(st, record);
    atomic_uint_fast64_t *bucket = known[(stamp >> 1) % BUCKETS];

    for (unsigned i = 0; i < SLOTS; i++)
        if (atomic_load_explicit(&bucket[i], memory_order_relaxed) == stamp)
            return true;
    return false;
}

/* File systems count time in ticks: what is written in the tick of the last change leaves no trace. */
static bool is_settled(const struct stat *st)
{
    int64_t tick_us = st->st_ctim.tv_nsec == 0 ? 2000000 : 20000;

    return sf__clock_unix_us() - ((int64_t)st->st_ctim.tv_sec * 1000000 + st->st_ctim.tv_nsec / 1000) > tick_us;
}

void sf__copy_remember(const struct stat *st, const uint8_t record[SF_COPY_RECORD_BYTES])
{
    uint64_t stamp = stamp_of(st, record);
    atomic_uint_fast64_t *bucket = known[(stamp >> 1) % BUCKETS];

    if (!is_settled(st) || sf__copy_is_known(st, record))
        return;
    for (unsigned i = 0; i < SLOTS; i++) {
        uint_fast64_t none = 0;

        if (atomic_compare_exchange_strong_explicit(&bucket[i], &none, stamp, memory_order_relaxed, memory_order_relaxed))
            return;
    }
    atomic_store_explicit(&bucket[(stamp >> 32) % SLOTS], stamp, memory_order_relaxed);
}
