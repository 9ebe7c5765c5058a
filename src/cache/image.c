#include "cache/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/private_folder.h"
#include "cache/image_folder.h"

#define MAX_BLOCK_BYTES (sizeof(sf_buf) + SF_LIMIT_BLOCK_BYTES + (64u << 10)) /* with what stands in front */
#define STAGED_BYTES (1u << 20)                                               /* written at once */
#define SYNCED_BYTES (UINT64_C(32) << 20)                                     /* the same, to the disk */

/* Not in <linux/magic.h> of every system. */
#define MAGIC_XFS 0x58465342
#define MAGIC_BCACHEFS 0xca451a4e
#define MAGIC_ZFS 0x2fc12fc1

/* What is mapped from a network, or from a program that plays file system, may fail at any time. */
static bool is_local(int folder)
{
    struct statfs st;

    if (fstatfs(folder, &st) != 0)
        return false;
    switch ((unsigned long)st.f_type & 0xffffffffu) {
    case EXT4_SUPER_MAGIC:
    case MAGIC_XFS:
    case BTRFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case MAGIC_BCACHEFS:
    case MAGIC_ZFS:
        return true;
    default:
        return false;
    }
}

static int folder_of(const sf_image *m)
{
    return sf__disk_cache_folder(m->cache);
}

static uint64_t most_bytes(const sf_image *m)
{
    uint64_t half = sf__disk_cache_max_bytes(m->cache) / 2;

    return half < SF_IMAGE_MAX_BYTES ? half : SF_IMAGE_MAX_BYTES;
}

static bool is_ours(int fd, struct stat *st)
{
    return fstat(fd, st) == 0 && S_ISREG(st->st_mode) && sf__is_private(st) && st->st_size >= 0;
}

/* ------------------------------------------------------------------ mapping -------------------------------------- */

enum verdict { GOOD, BAD, UNKNOWN /* for want of memory, or of time */ };

static bool goes_on(const sf_image *m)
{
    return !atomic_load_explicit(&m->unwanted, memory_order_relaxed) && sf__clock_mono_ns() < m->deadline_ns;
}

/* Reads and checks all blocks. By reading, since what the disk cannot read is then an error. */
static enum verdict check_blocks(const sf_image *m, const sf_image_file *f, int fd, const uint8_t *slots)
{
    enum verdict verdict = GOOD;
    uint8_t *scratch = NULL;
    size_t cap = 0;
    uint64_t end = 0;

    for (uint32_t i = 0; verdict == GOOD && i < f->blocks; i++) {
        sf_image_slot slot;

        if (!sf__image_slot_decode(&slot, f, sf_bytes_of(slots + (size_t)i * SF_IMAGE_SLOT, SF_IMAGE_SLOT), end) ||
            slot.len > MAX_BLOCK_BYTES) {
            verdict = BAD;
            break;
        }
        if (slot.len > cap) {
            sf__free(m->alloc, scratch);
            cap = slot.len;
            scratch = sf__alloc(m->alloc, cap);
        }
        if (!scratch || !goes_on(m))
            verdict = UNKNOWN;
        else if (!sf__pread_all(fd, scratch, slot.len, slot.at) ||
                 !sf__image_block_check(f, i, &slot, sf_bytes_of(scratch, slot.len)) ||
                 !m->holds(m->ctx, i, (const sf_buf *)scratch))
            verdict = BAD;
        end = slot.at + slot.len;
    }
    sf__free(m->alloc, scratch);
    return verdict;
}

static enum verdict check(const sf_image *m, int fd, uint64_t *bytes)
{
    uint8_t header[SF_IMAGE_UNIT], *slots;
    size_t slot_bytes = (size_t)m->blocks * SF_IMAGE_SLOT;
    enum verdict verdict;
    sf_image_file f;
    struct stat st;

    if (!is_ours(fd, &st) || !sf__pread_all(fd, header, sizeof(header), 0) ||
        !sf__image_file_decode(&f, sf_bytes_of(header, sizeof(header)), (uint64_t)st.st_size, m->object, m->blocks))
        return BAD;
    slots = sf__alloc(m->alloc, slot_bytes);
    if (!slots)
        return UNKNOWN;
    verdict = sf__pread_all(fd, slots, slot_bytes, SF_IMAGE_UNIT) &&
                      sf__image_slots_hash(&f, sf_bytes_of(slots, slot_bytes)) == f.slots_hash
                  ? check_blocks(m, &f, fd, slots)
                  : BAD;
    sf__free(m->alloc, slots);
    *bytes = f.bytes;
    return verdict;
}

/* MAPPED, or NONE. What is bad goes. False: there may be one that is good, which others map: so it is not made again. */
static bool try_map(sf_image *m)
{
    char name[SF_IMAGE_NAME_BYTES];
    uint64_t bytes = 0;
    enum verdict verdict;
    int fd;

    sf__image_name(m->object, SF_IMAGE_SUFFIX, name);
    fd = SF_FD(openat(folder_of(m), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd < 0)
        return !sf__errno_is_exhausted(errno) && errno != ENOMEM;
    verdict = check(m, fd, &bytes);
    if (verdict == GOOD)
        m->mapping = sf__buf_mapping_new(fd, (size_t)bytes);
    if (m->mapping) {
        m->state = SF_IMAGE_MAPPED;
        (void)!futimens(fd, NULL); /* it was used now; where that is not ours to say, it goes earlier */
    }
    if (verdict == BAD && sf__image_folder_names(folder_of(m), name, fd))
        unlinkat(folder_of(m), name, 0);
    close(fd);
    return verdict == BAD;
}

/* ------------------------------------------------------------------ claiming ------------------------------------- */

static void making_drop(sf_image *m)
{
    flock(m->making, LOCK_UN); /* not by closing: a process that was forked meanwhile has the descriptor, too */
    close(m->making);
    m->making = -1;
}

/* What was left behind is not used again but removed: whoever cuts files off might cut off one that has got its name meanwhile. */
static void try_lock(sf_image *m)
{
    char name[SF_IMAGE_NAME_BYTES];
    int folder = folder_of(m);
    struct stat st;

    sf__image_name(m->object, SF_IMAGE_MAKING_SUFFIX, name);
    m->making = SF_FD(openat(folder, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
    if (m->making < 0)
        return;
    if (is_ours(m->making, &st)) /* a file system without locks has none of these files */
        m->state = flock(m->making, LOCK_EX | LOCK_NB) == 0 ? SF_IMAGE_OURS
                   : errno == EWOULDBLOCK                   ? SF_IMAGE_OTHERS
                                                            : SF_IMAGE_NONE;
    if (m->state != SF_IMAGE_OURS) {
        close(m->making);
        m->making = -1;
        return;
    }
    if (sf__image_folder_names(folder, name, m->making) && fstat(m->making, &st) == 0) {
        if (st.st_size == 0)
            return;
        unlinkat(folder, name, 0);
    }
    making_drop(m);
    m->state = SF_IMAGE_OTHERS;
}

static void give_up(sf_image *m)
{
    char name[SF_IMAGE_NAME_BYTES];

    sf__image_name(m->object, SF_IMAGE_MAKING_SUFFIX, name);
    unlinkat(folder_of(m), name, 0); /* ours, while it is locked */
    making_drop(m);
    m->state = SF_IMAGE_NONE;
}

static bool fits(const sf_image *m, uint64_t expected_bytes)
{
    return m->blocks > 0 && expected_bytes <= most_bytes(m) && sf__image_begin(m->blocks) <= most_bytes(m);
}

/* It may have come in between. */
static void look_again(sf_image *m)
{
    sf_image_state state;

    m->state = SF_IMAGE_NONE;
    if (try_map(m)) {
        m->state = SF_IMAGE_OURS;
        return;
    }
    state = m->state;
    give_up(m);
    m->state = state;
}

void sf__image_claim(sf_image *m, uint64_t expected_bytes)
{
    m->state = SF_IMAGE_NONE;
    m->making = -1;
    if (!fits(m, expected_bytes) || !is_local(folder_of(m)))
        return;
    if (!try_map(m))
        return;
    try_lock(m);
    if (m->state == SF_IMAGE_OURS)
        look_again(m);
}

/* ------------------------------------------------------------------ writing -------------------------------------- */

struct writer {
    const sf_image *image;
    sf_image_file f;
    uint8_t *slots, *staged;
    size_t n;          /* bytes that are staged, */
    uint64_t at;       /* for here on */
    uint64_t unsynced; /* bytes before them */
};

/* What the disk does not take is noticed here, and not when the page is read again. A part at a time, so that whoever waits for it can stop it. */
static bool write_some(struct writer *w, const void *p, size_t n)
{
    bool ok = sf__pwrite_all(w->image->making, sf_bytes_of(p, n), w->at) == 0;

    w->at += n;
    w->unsynced += n;
    if (ok && w->unsynced >= SYNCED_BYTES) {
        ok = fdatasync(w->image->making) == 0;
        w->unsynced = 0;
    }
    return ok;
}

static bool flush(struct writer *w)
{
    bool ok = write_some(w, w->staged, w->n);

    w->n = 0;
    return ok;
}

static bool put(struct writer *w, const void *p, size_t n)
{
    if (n > STAGED_BYTES - w->n && !flush(w))
        return false;
    if (n > STAGED_BYTES)
        return write_some(w, p, n);
    memcpy(w->staged + w->n, p, n);
    w->n += n;
    return true;
}

static bool put_block(struct writer *w, uint32_t i, const sf_buf *buf)
{
    static const uint8_t zeros[SF_IMAGE_UNIT];
    const sf_image *m = w->image;
    sf_bytes content = sf__buf_bytes(buf);
    size_t len = sizeof(sf_buf) + buf->front + content.n;
    sf_image_slot slot = {.at = w->at + w->n, .len = (uint32_t)len};
    uint8_t *whole;
    bool ok;

    if (len > MAX_BLOCK_BYTES || slot.at + sf__image_room(len) > w->f.bytes)
        return false;
    whole = sf__alloc(m->alloc, len);
    if (!whole)
        return false;
    sf__image_buf_encode(slot.at, buf->front, content.n, whole);
    memcpy(whole + sizeof(sf_buf), buf->data, buf->front + content.n);
    slot.hash = sf__image_block_hash(&w->f, i, sf_bytes_of(whole, len));
    sf__image_slot_encode(&slot, w->slots + (size_t)i * SF_IMAGE_SLOT);
    ok = put(w, whole, len) && put(w, zeros, (size_t)(sf__image_room(len) - len));
    sf__free(m->alloc, whole);
    return ok;
}

static bool put_blocks(struct writer *w)
{
    const sf_image *m = w->image;
    bool ok = true;

    for (uint32_t i = 0; ok && i < m->blocks; i++) {
        sf_buf *buf = goes_on(m) ? m->get(m->ctx, i) : NULL;

        ok = buf && put_block(w, i, buf);
        sf__buf_release(buf);
    }
    return ok && flush(w);
}

/* The header comes last. */
static bool put_head(struct writer *w)
{
    const sf_image *m = w->image;
    size_t slot_bytes = (size_t)m->blocks * SF_IMAGE_SLOT;
    uint8_t header[SF_IMAGE_UNIT];

    w->f.slots_hash = sf__image_slots_hash(&w->f, sf_bytes_of(w->slots, slot_bytes));
    sf__image_file_encode(&w->f, header);
    return w->at == w->f.bytes && sf__pwrite_all(m->making, sf_bytes_of(w->slots, slot_bytes), SF_IMAGE_UNIT) == 0 &&
           sf__pwrite_all(m->making, sf_bytes_of(header, sizeof(header)), 0) == 0 && fdatasync(m->making) == 0;
}

/* Of all of the file. */
static bool count_bytes(const sf_image *m, uint64_t *out)
{
    bool ok = true;

    *out = sf__image_begin(m->blocks);
    for (uint32_t i = 0; ok && i < m->blocks; i++) {
        sf_buf *buf = m->get(m->ctx, i);

        ok = buf != NULL;
        if (ok)
            *out += sf__image_room(sizeof(*buf) + buf->front + buf->n);
        sf__buf_release(buf);
    }
    return ok;
}

/* The file has its size from then on, so that others count it. */
static bool make_room(const sf_image *m, uint64_t bytes)
{
    int folder = SF_FD(openat(folder_of(m), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    bool ok = folder >= 0 && sf__private_folder_lock(folder, LOCK_EX) &&
              sf__image_folder_shrink(folder, bytes, most_bytes(m), m->since_us) &&
              sf__disk_cache_make_room(m->cache, bytes) && ftruncate(m->making, (off_t)bytes) == 0;

    if (folder >= 0) {
        sf__private_folder_lock(folder, LOCK_UN);
        close(folder);
    }
    return ok;
}

static bool write_file(const sf_image *m)
{
    struct writer w = {.image = m, .f = {.object = m->object, .blocks = m->blocks}, .at = sf__image_begin(m->blocks)};
    char making[SF_IMAGE_NAME_BYTES], name[SF_IMAGE_NAME_BYTES];
    bool ok;

    sf__image_name(m->object, SF_IMAGE_MAKING_SUFFIX, making);
    sf__image_name(m->object, SF_IMAGE_SUFFIX, name);
    w.slots = sf__calloc(m->alloc, m->blocks, SF_IMAGE_SLOT);
    w.staged = sf__alloc(m->alloc, STAGED_BYTES);
    ok = w.slots && w.staged && getrandom(&w.f.salt, sizeof(w.f.salt), 0) == (ssize_t)sizeof(w.f.salt) &&
         count_bytes(m, &w.f.bytes) && make_room(m, w.f.bytes) && put_blocks(&w) && put_head(&w) &&
         renameat(folder_of(m), making, folder_of(m), name) == 0;
    sf__free(m->alloc, w.slots);
    sf__free(m->alloc, w.staged);
    return ok;
}

void sf__image_write(sf_image *m)
{
    if (!write_file(m)) {
        give_up(m);
        return;
    }
    m->state = SF_IMAGE_NONE;
    (void)try_map(m);
    making_drop(m);
}

/* ------------------------------------------------------------------ having it ------------------------------------ */

sf_buf *sf__image_block(const sf_image *m, uint32_t block)
{
    uint8_t *file = (uint8_t *)(m->mapping + 1);
    const uint8_t *slot = file + SF_IMAGE_UNIT + (size_t)block * SF_IMAGE_SLOT;

    return (sf_buf *)(file + sf_load_le(slot, 4) * SF_IMAGE_UNIT);
}

void sf__image_cleanup(sf_image *m)
{
    if (m->state == SF_IMAGE_OURS)
        give_up(m);
    sf__buf_mapping_release(m->mapping);
    m->mapping = NULL;
    m->state = SF_IMAGE_NONE;
}
