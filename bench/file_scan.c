/* A scan of all rows from files, nothing of which is in our memory, beside a plain loop over the same files, in turn.
 *     file_scan FOLDER NAME [ROUNDS]
 * FOLDER: what bench/lookups.c has made (its snapshot; no codec). NAME: of the data set, the case.
 *
 * The plain loop is one thread that reads the blocks of one SST after the other, a mebibyte at a time into the same memory, checks the checksum
 * of each and walks its rows, as little as that can be: no merge, no order, no versions. The scan gives rows in key order of all shards. Both
 * look at what each value begins with, and their sums are compared. The files are in the kernel's cache. */
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/slatedb/format/index.h"
#include "backend/slatedb/format/sst_info.h"
#include "base/checksum.h"
#include "reading.h"

#define PIECE_BYTES (1u << 20)
#define MAX_FILES 4096u

static struct sst_file {
    int fd;
    sf_index index;
} files[MAX_FILES];
static size_t file_count;

/* ------------------------------------------------------------------ the plain loop ------------------------------- */

static int file_open(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    struct sst_file *f = &files[file_count];
    size_t n = strlen(path);
    sf_error err = SF_ERROR_INIT;
    sf_bytes object, plain;
    sf_sst_footer footer;
    sf_sst_info info;
    sf_buf *buf;
    bool empty;

    (void)ftw;
    if (type != FTW_F || n < 4 || strcmp(path + n - 4, ".sst") != 0)
        return 0;
    must(file_count < MAX_FILES, "fewer SSTs");
    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    object = sf_bytes_of(mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_PRIVATE, f->fd, 0), (size_t)st->st_size);
    must(f->fd >= 0 && object.p != MAP_FAILED, path);
    ok(sf__sst_open(&info, &footer, &empty, object, &err), &err);
    must(!empty && info.codec == SF_CODEC_NONE && footer.version == 2, "blocks of version 2 without a codec");
    ok(sf__stored_block_view(NULL, sf_bytes_of(object.p + info.index_off, info.index_len), info.codec, SIZE_MAX,
                             &sf__allocator_default, &plain, &buf, &err),
       &err);
    ok(sf__index_decode(&f->index, plain, sf__sst_blocks_end(&info), &sf__allocator_default, &err), &err);
    sf__buf_release(buf);
    munmap((void *)object.p, object.n);
    file_count++;
    return 0;
}

static const uint8_t *length(const uint8_t *p, uint32_t *out)
{
    uint32_t v = 0;
    unsigned shift = 0;

    do
        v |= (uint32_t)(*p & 0x7f) << shift;
    while (shift += 7, *p++ & 0x80);
    *out = v;
    return p;
}

/* Rows follow one another up to the restarts: shared, unshared, value_len, suffix, value, seq, flags. */
static uint64_t walk_block(const uint8_t *p, size_t n)
{
    uint64_t sum = 0;
    uint32_t expected;
    const uint8_t *end;

    memcpy(&expected, p + n - 4, 4);
    must(sf__crc32(sf_bytes_of(p, n - 4)) == __builtin_bswap32(expected), "checksum");
    n -= 4;
    end = p + n - 2 - 2 * (size_t)sf_load_be(p + n - 2, 2);
    while (p < end) {
        uint32_t shared, unshared, value_len;

        p = length(length(length(p, &shared), &unshared), &value_len);
        sum += head_of(p + unshared);
        p += unshared + value_len + 8;
        must(*p++ == 0, "plain rows");
    }
    return sum;
}

static uint64_t scan_plainly(void)
{
    static uint8_t piece[PIECE_BYTES];
    uint64_t sum = 0;

    for (size_t f = 0; f < file_count; f++)
        for (uint32_t i = 0; i < files[f].index.count;) {
            const uint64_t *offs = files[f].index.offs;
            uint32_t from = i;
            size_t n;

            while (i < files[f].index.count && offs[i + 1] - offs[from] <= PIECE_BYTES)
                i++;
            n = (size_t)(offs[i] - offs[from]);
            must(i > from && pread(files[f].fd, piece, n, (off_t)offs[from]) == (ssize_t)n, "pread");
            for (uint32_t b = from; b < i; b++)
                sum += walk_block(piece + (offs[b] - offs[from]), (size_t)(offs[b + 1] - offs[b]));
        }
    return sum;
}

int main(int argc, char **argv)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    char path[4096];
    sf_runtime *rt;
    sf_reader *reader;
    unsigned rounds;

    if (argc < 3) {
        fprintf(stderr, "usage: %s FOLDER NAME [ROUNDS]\n", argv[0]);
        return 2;
    }
    rounds = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 5;
    snprintf(path, sizeof(path), "%s/snapshot/shards", argv[1]);
    must(nftw(path, file_open, 16, FTW_PHYS) == 0 && file_count > 0, path);
    snprintf(path, sizeof(path), "%s/snapshot", argv[1]);
    ok(sf_runtime_new(&rt, &o, &err), &err);
    ok(sf_reader_open(&reader, rt, path, NULL, &err), &err);
    for (unsigned round = 0; round <= rounds; round++) {
        double start = seconds(), cpu = process_cpu(), took[2], worked[2];
        uint64_t rows, sum = scan_all(reader, &rows);

        took[0] = seconds() - start;
        worked[0] = process_cpu() - cpu;
        start = seconds();
        cpu = process_cpu();
        must(scan_plainly() == sum, "the same sums");
        took[1] = seconds() - start;
        worked[1] = process_cpu() - cpu;
        for (size_t who = 0; round > 0 && who < 2; who++) { /* the first one warms up */
            static const char *const names[2] = {"ours", "plain loop"};

            sample("scan from files", argv[2], names[who], "ns", took[who] / (double)rows * 1e9);
            sample("scan from files, processor", argv[2], names[who], "ns", worked[who] / (double)rows * 1e9);
        }
    }
    sf_reader_free(reader);
    sf_runtime_release(rt);
    for (size_t f = 0; f < file_count; f++) {
        close(files[f].fd);
        sf__index_cleanup(&files[f].index, &sf__allocator_default);
    }
    return 0;
}
