/* Whole WAL objects. Input: u8 mode | u8 after_seq | object. Mode bit 0: the object's checksums are mended first, as far
 * as its parts can be found, since no mutation gets past them. What decodes is made into a table, and has to be in it. */
#include <stdlib.h>

#include "backend/slatedb/format/index.h"
#include "backend/slatedb/format/sst_info.h"
#include "backend/slatedb/wal.h"
#include "base/checksum.h"
#include "base/limits.h"

static const sf_allocator *a = &sf__allocator_default;

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* The last four bytes of [off, off + len) become the checksum of the others. */
static void mend(sf_buf *object, uint64_t off, uint64_t len)
{
    if (off > object->n || len > object->n - off || len < SF_STORED_CRC_BYTES)
        return;
    sf_store_be(object->data + off + len - SF_STORED_CRC_BYTES, 4,
                sf__crc32(sf_bytes_of(object->data + off, (size_t)len - SF_STORED_CRC_BYTES)));
}

static void mend_blocks(sf_buf *object, const sf_sst_info *info)
{
    sf_bytes stored, plain;
    sf_buf *buf = NULL;
    sf_index index = {0};

    mend(object, info->index_off, info->index_len);
    if (!sf_bytes_slice(sf__buf_bytes(object), info->index_off, info->index_len, &stored) ||
        sf__stored_block_view(NULL, stored, info->codec, SF_LIMIT_META_BYTES, a, &plain, &buf, NULL) != SF_OK)
        return;
    if (sf__index_decode(&index, plain, sf__sst_blocks_end(info), a, NULL) == SF_OK)
        for (uint32_t i = 0; i < index.count; i++)
            mend(object, sf__index_block_off(&index, i), sf__index_block_len(&index, i));
    sf__index_cleanup(&index, a);
    sf__buf_release(buf);
}

static void mend_all(sf_buf *object)
{
    sf_sst_info info;
    sf_sst_footer footer;
    bool empty;

    if (object->n <= SF_SST_FOOTER_BYTES ||
        sf__sst_footer_decode(&footer, sf__buf_bytes(object), object->n, NULL) != SF_OK)
        return;
    mend(object, footer.info_off, footer.info_len);
    if (sf__sst_open(&info, &footer, &empty, sf__buf_bytes(object), NULL) == SF_OK)
        mend_blocks(object, &info);
}

/* Every row is in the table, or a newer one of the same key. */
static void check_table(const sf_wal_rows *rows)
{
    const sf_wal_rows *objects[] = {rows};
    sf_memtable *table;

    must(sf__memtable_build(&table, objects, 1, a, NULL) == SF_OK);
    must(!table == (rows->count == 0) && (!table || (table->count > 0 && table->count <= rows->count)));
    for (size_t i = 1; table && i < table->count; i++)
        must(sf_bytes_cmp(table->rows[i - 1].key, table->rows[i].key) < 0);
    for (size_t i = 0; i < rows->count; i++) {
        const sf_mem_row *found = sf__memtable_get(table, rows->rows[i].key);

        must(found && found->seq >= rows->rows[i].seq && found->seq <= table->max_seq);
    }
    sf__memtable_free(table, a);
}

/* Rows up to a sequence number are left out, no other ones. */
static void check_dropped(const sf_wal_rows *all, sf_bytes object, uint64_t after_seq)
{
    sf_wal_rows some;
    size_t next = 0;

    must(sf__wal_decode(&some, object, after_seq, NULL, a, NULL) == SF_OK);
    for (size_t i = 0; i < all->count; i++) {
        if (all->rows[i].seq <= after_seq)
            continue;
        must(next < some.count && some.rows[next].seq == all->rows[i].seq);
        must(sf_bytes_eq(some.rows[next].key, all->rows[i].key) && sf_bytes_eq(some.rows[next].value, all->rows[i].value));
        next++;
    }
    must(next == some.count);
    check_table(&some);
    sf__wal_rows_cleanup(&some, a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_cursor in = {data, size};
    uint8_t mode, after_seq;
    sf_wal_rows rows;
    sf_error err = {.code = SF_OK};
    sf_buf *object;
    sf_status rc;

    if (!sf_cursor_u8(&in, &mode) || !sf_cursor_u8(&in, &after_seq))
        return 0;
    object = sf__buf_copy(a, in);
    must(object != NULL);
    if (mode & 1)
        mend_all(object);
    rc = sf__wal_decode(&rows, sf__buf_bytes(object), 0, NULL, a, &err);
    if (rc == SF_OK) {
        check_table(&rows);
        check_dropped(&rows, sf__buf_bytes(object), after_seq);
    } else {
        must((rc == SF_CORRUPT || rc == SF_UNSUPPORTED) && err.code == rc && err.message[0] != '\0');
        must(rows.count == 0 && rows.rows == NULL);
    }
    sf__wal_rows_cleanup(&rows, a);
    sf__buf_release(object);
    return 0;
}
