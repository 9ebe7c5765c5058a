/*   NEW --> LOADING --> OPEN        reads wait while it is LOADING; look-ups in memory have nothing to say before */
#include "cache/disk_cache.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/private_folder.h"
#include "base/thread.h"
#include "cache/image_folder.h"

#define FILES_PER_CACHE 16u /* at least */
#define MAX_FILES (2 * (unsigned)(SF_DISK_CACHE_MAX_BYTES / SF_EXTENT_FILE_MAX_BYTES))
#define MAX_WAITING_BYTES (UINT64_C(32) << 20) /* to be written */
#define LOOP_BYTES (64u << 10) /* read on the loop thread when the page cache has them; more goes to a worker */
#define LOOK_AGAIN_NS UINT64_C(1000000000) /* at what other processes have made */
#define GIVE_UP_NS UINT64_C(30000000000)   /* no writing after a write that failed */
#define NAME_FORMAT "%012" PRIx64 ".extents"
#define NAME_DIGITS 12
#define LAST_NUMBER UINT64_C(0xffffffffffff)
#define FIRST_SLOTS 1024u /* of the table in memory */
#define SLOTS_AT_ONCE 1024u
#define ENTRIES_AT_ONCE 256u /* of the table, under the lock, which the loop thread takes for every look */

enum disk_state { DISK_NEW, DISK_LOADING, DISK_OPEN };

/* A file of the folder, open. */
struct disk_file {
    atomic_uint refs;
    int fd;
    uint64_t number;
    sf_extent_file f;
    uint32_t slots; /* that were read, or written */
    uint64_t end;   /* of the last extent */
    bool gone;      /* seen no more */
};

/* Where an extent lies. */
struct disk_entry {
    uint64_t name;  /* its hash */
    uint32_t place; /* of its head */
    uint32_t len;   /* 0: free */
    uint16_t file;  /* NO_FILE: it is no more */
};
#define NO_FILE UINT16_MAX
static_assert(MAX_FILES < NO_FILE, "a place among the files is 16 bits, and so are loops over them");

struct disk_write {
    struct disk_write *next;
    sf_hash128 object;
    sf_buf *data; /* the bytes from cuts[0] on */
    uint32_t part_count;
    const bool *wanted; /* behind the cuts; NULL: all are */
    uint64_t cuts[];
};

struct sf_disk_cache {
    /* set at creation */
    atomic_uint refs;
    const sf_allocator *alloc;
    sf_loop *loop;
    sf_disk_caches *all;
    sf_disk_cache *next; /* of `all`, under its lock */
    int folder;
    dev_t folder_dev; /* which one it is */
    ino_t folder_ino;
    uint64_t max_bytes, file_bytes;
    /* loop thread */
    enum disk_state state;
    sf_disk_read *first_read, *last_read; /* while LOADING */
    struct disk_write *first_write, **last_write;
    uint64_t waiting_bytes, taken_bytes;
    bool writing; /* `upkeep` is under way, with what it took */
    sf_work upkeep;
    /* the upkeep job's, one at a time */
    struct disk_write *taken;
    struct disk_file *own; /* appended to, by a descriptor for writing; or NULL */
    int own_fd;
    uint64_t looked_ns;
    atomic_uint_fast64_t quiet_until_ns; /* after a failure */
    atomic_uint_fast64_t mapped_bytes;   /* of files that others map, when it last looked */
    atomic_bool waits_for_disk;          /* this file system does not say what the page cache has */
    sf_mutex lock;                       /* covers exactly: */
    struct disk_file *files[MAX_FILES];  /* NULL: none. Changed by the upkeep job only */
    struct disk_entry *entries;
    size_t entry_count, entry_cap; /* a power of two, or 0 */
    uint64_t old_below;            /* files of lower numbers go soon */
    /* any */
    atomic_uint_fast64_t hits, misses, bytes_read, bytes_written, dropped;
};

static void count(atomic_uint_fast64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ------------------------------------------------------------------ files ---------------------------------------- */

static void file_release(sf_disk_cache *c, struct disk_file *f)
{
    if (!f || atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1)
        return;
    close(f->fd);
    sf__free(c->alloc, f);
}

static bool number_of(const char *name, uint64_t *out)
{
    char again[32];

    if (strspn(name, "0123456789abcdef") != NAME_DIGITS)
        return false;
    *out = strtoull(name, NULL, 16);
    snprintf(again, sizeof(again), NAME_FORMAT, *out);
    return strcmp(again, name) == 0;
}

static int open_file(const sf_disk_cache *c, uint64_t number, int flags)
{
    char name[32];

    snprintf(name, sizeof(name), NAME_FORMAT, number);
    return SF_FD(openat(c->folder, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
}

static bool write_all(int fd, struct iovec *v, int n, uint64_t off)
{
    while (n > 0) {
        ssize_t put = pwritev(fd, v, n, (off_t)off);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        off += (uint64_t)put;
        for (; n > 0 && (size_t)put >= v->iov_len; v++, n--)
            put -= (ssize_t)v->iov_len;
        if (n > 0) {
            v->iov_base = (uint8_t *)v->iov_base + put;
            v->iov_len -= (size_t)put;
        }
    }
    return true;
}

/* ------------------------------------------------------------------ the table ------------------------------------ */

static struct disk_entry *entry_find(const sf_disk_cache *c, uint64_t name, uint32_t len)
{
    size_t mask = c->entry_cap - 1;

    if (c->entry_cap == 0)
        return NULL;
    for (size_t i = name & mask; c->entries[i].len != 0; i = (i + 1) & mask)
        if (c->entries[i].name == name && c->entries[i].len == len && c->entries[i].file != NO_FILE)
            return &c->entries[i];
    return NULL;
}

static void entry_add(struct disk_entry *entries, size_t cap, const struct disk_entry *e)
{
    size_t i = e->name & (cap - 1);

    while (entries[i].len != 0)
        i = (i + 1) & (cap - 1);
    entries[i] = *e;
}

/* Copies those that are there to `to`, unless that is NULL. How many these are. Upkeep job, which alone adds any: so the lock goes now and
 * then, and others look up in between. What they forget meanwhile may be there again, and will be found bad again. */
static size_t entries_copy(sf_disk_cache *c, struct disk_entry *to, size_t cap)
{
    size_t live = 0;

    for (size_t i = 0; i < c->entry_cap;) {
        size_t end = c->entry_cap - i < ENTRIES_AT_ONCE ? c->entry_cap : i + ENTRIES_AT_ONCE;

        sf_mutex_lock(&c->lock);
        for (; i < end; i++) {
            const struct disk_entry *e = &c->entries[i];

            if (e->len == 0 || e->file == NO_FILE)
                continue;
            live++;
            if (to)
                entry_add(to, cap, e);
        }
        sf_mutex_unlock(&c->lock);
    }
    return live;
}

static bool entries_have_room(const sf_disk_cache *c, size_t n)
{
    return c->entry_count + n <= c->entry_cap / 4 * 3;
}

/* With room for `n` more, and without those that are no more. Upkeep job, not under the lock. Without memory there is none, and what does
 * not fit in is not found, which harms nobody. */
static void entries_reserve(sf_disk_cache *c, size_t n)
{
    struct disk_entry *entries, *old = c->entries;
    size_t live, cap = FIRST_SLOTS;

    if (entries_have_room(c, n))
        return;
    live = entries_copy(c, NULL, 0);
    while (cap / 2 < live + n)
        cap *= 2;
    entries = sf__calloc(c->alloc, cap, sizeof(*entries));
    if (!entries)
        return;
    live = entries_copy(c, entries, cap);
    sf_mutex_lock(&c->lock);
    c->entries = entries;
    c->entry_cap = cap;
    c->entry_count = live;
    sf_mutex_unlock(&c->lock);
    sf__free(c->alloc, old);
}

/* The newest place counts. */
static void entry_set(sf_disk_cache *c, const sf_extent_slot *slot, uint16_t file)
{
    struct disk_entry e = {slot->name, (uint32_t)(slot->at / SF_EXTENT_FILE_UNIT), slot->len, file};
    struct disk_entry *old = entry_find(c, slot->name, slot->len);

    if (old) {
        *old = e;
    } else if (entries_have_room(c, 1)) {
        entry_add(c->entries, c->entry_cap, &e);
        c->entry_count++;
    }
}

/* Where one is said to lie. *file is acquired. */
static bool find(sf_disk_cache *c, const sf_extent_name *name, struct disk_file **file, uint64_t *at, bool *old)
{
    const struct disk_entry *e;

    sf_mutex_lock(&c->lock);
    e = entry_find(c, sf__extent_name_hash(name), name->len);
    if (e) {
        *file = c->files[e->file];
        *at = (uint64_t)e->place * SF_EXTENT_FILE_UNIT;
        *old = *old || (*file)->number < c->old_below;
        atomic_fetch_add_explicit(&(*file)->refs, 1, memory_order_relaxed);
    }
    sf_mutex_unlock(&c->lock);
    return e;
}

static void forget(sf_disk_cache *c, const sf_extent_name *name)
{
    struct disk_entry *e;

    sf_mutex_lock(&c->lock);
    e = entry_find(c, sf__extent_name_hash(name), name->len);
    if (e)
        e->file = NO_FILE;
    sf_mutex_unlock(&c->lock);
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

static sf_extent_name part_name(sf_hash128 object, const uint64_t *cuts, uint32_t i)
{
    return (sf_extent_name){.object = object, .off = cuts[i], .len = (uint32_t)(cuts[i + 1] - cuts[i])};
}

/* SF_WOULD_BLOCK: only with `now`. SF_CORRUPT: what lies there is not it. */
static sf_status read_at(sf_disk_cache *c, const struct disk_file *f, uint64_t at, const sf_extent_name *name,
                         uint8_t *to, bool now)
{
    uint8_t head[SF_EXTENT_FILE_UNIT];
    struct iovec v[2] = {{head, sizeof(head)}, {to, name->len}};
    const ssize_t whole = (ssize_t)(sizeof(head) + name->len);
    ssize_t n;

    do
        n = preadv2(f->fd, v, 2, (off_t)at, now ? RWF_NOWAIT : 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && now && errno != EAGAIN)
        atomic_store_explicit(&c->waits_for_disk, true, memory_order_relaxed);
    if (now && n < whole)
        return SF_WOULD_BLOCK;
    if (n != whole || !sf__extent_head_check(&f->f, name, sf_bytes_of(head, sizeof(head)), sf_bytes_of(to, name->len)))
        return SF_CORRUPT;
    return SF_OK;
}

static sf_status read_part(sf_disk_cache *c, const sf_extent_name *name, uint8_t *to, bool now, bool *old)
{
    struct disk_file *f;
    uint64_t at;
    sf_status rc;

    if (!find(c, name, &f, &at, old))
        return SF_NOT_FOUND;
    rc = read_at(c, f, at, name, to, now);
    file_release(c, f);
    if (rc == SF_CORRUPT)
        forget(c, name);
    return rc;
}

static sf_status read_parts(sf_disk_cache *c, sf_disk_read *r, bool now)
{
    uint64_t total = r->cuts[r->part_count] - r->cuts[0];
    sf_status rc = SF_OK;

    r->data = sf__buf_new(c->alloc, (size_t)total);
    if (!r->data)
        rc = SF_NOMEM;
    for (uint32_t i = 0; rc == SF_OK && i < r->part_count; i++) {
        const sf_extent_name name = part_name(r->object, r->cuts, i);

        rc = read_part(c, &name, r->data->data + (r->cuts[i] - r->cuts[0]), now, &r->old);
    }
    if (rc != SF_OK) {
        sf__buf_release(r->data);
        r->data = NULL;
    }
    return rc;
}

bool sf__disk_cache_knows(sf_disk_cache *c, const sf_extent_name *name)
{
    bool known;

    sf_mutex_lock(&c->lock);
    known = entry_find(c, sf__extent_name_hash(name), name->len);
    sf_mutex_unlock(&c->lock);
    return known;
}

static bool knows_all(sf_disk_cache *c, const sf_disk_read *r)
{
    for (uint32_t i = 0; i < r->part_count; i++) {
        const sf_extent_name name = part_name(r->object, r->cuts, i);

        if (!sf__disk_cache_knows(c, &name))
            return false;
    }
    return true;
}

static void read_counted(sf_disk_cache *c, const sf_disk_read *r)
{
    count(r->data ? &c->hits : &c->misses, r->part_count);
    if (r->data)
        count(&c->bytes_read, r->data->n);
}

static void read_run(sf_work *w)
{
    sf_disk_read *r = sf_container_of(w, sf_disk_read, work);

    (void)read_parts(r->cache, r, false); /* whatever happened: without bytes it is a miss */
}

static void read_done(sf_work *w)
{
    sf_disk_read *r = sf_container_of(w, sf_disk_read, work);
    sf_disk_cache *c = r->cache;
    atomic_uint *busy = &c->all->jobs;

    read_counted(c, r);
    r->done(r);
    sf__disk_cache_release(c);
    atomic_fetch_sub_explicit(busy, 1, memory_order_release);
}

/* On a worker; or through the inbox, when there is nothing to read after all. */
static void read_submit(sf_disk_cache *c, sf_disk_read *r)
{
    r->work = (sf_work){.run = read_run, .done = read_done, .bulk = r->cuts[r->part_count] - r->cuts[0] > LOOP_BYTES};
    sf__work_submit(c->loop, SF_WORK_FILE, &r->work); /* ends in read_done() */
}

static void upkeep_start(sf_disk_cache *c);

bool sf__disk_cache_read(sf_disk_cache *c, sf_disk_read *r)
{
    bool small = r->cuts[r->part_count] - r->cuts[0] <= LOOP_BYTES;

    assert(sf__loop_is_current(c->loop));
    r->data = NULL;
    r->old = false;
    if (c->state == DISK_OPEN) {
        bool known = knows_all(c, r);
        sf_status rc = known ? SF_WOULD_BLOCK : SF_NOT_FOUND;

        if (known && small && !atomic_load_explicit(&c->waits_for_disk, memory_order_relaxed))
            rc = read_parts(c, r, true);
        if (rc != SF_WOULD_BLOCK) {
            read_counted(c, r);
            return true;
        }
    }
    r->cache = sf__disk_cache_acquire(c);
    atomic_fetch_add_explicit(&c->all->jobs, 1, memory_order_relaxed);
    if (c->state == DISK_OPEN) {
        read_submit(c, r);
        return false;
    }
    r->next = NULL;
    *(c->first_read ? &c->last_read->next : &c->first_read) = r;
    c->last_read = r;
    if (c->state == DISK_NEW) {
        c->state = DISK_LOADING; /* ends in upkeep_done() */
        if (!c->writing)         /* which looks at the folder as well */
            upkeep_start(c);
    }
    return false;
}

void sf__disk_cache_forget(sf_disk_cache *c, sf_hash128 object, const uint64_t *cuts, uint32_t part_count)
{
    for (uint32_t i = 0; i < part_count; i++) {
        const sf_extent_name name = part_name(object, cuts, i);

        forget(c, &name);
    }
}

/* ------------------------------------------------------------------ looking at the folder ------------------------ */

/* Slots that are new in it, into the table. */
static void file_look(sf_disk_cache *c, struct disk_file *f, uint16_t no)
{
    uint8_t slots[SLOTS_AT_ONCE * SF_EXTENT_FILE_SLOT];
    bool more = true;

    while (more && f->slots < f->f.slots) {
        uint32_t n = f->f.slots - f->slots < SLOTS_AT_ONCE ? f->f.slots - f->slots : SLOTS_AT_ONCE;

        if (!sf__pread_all(f->fd, slots, (size_t)n * SF_EXTENT_FILE_SLOT,
                           SF_EXTENT_FILE_UNIT + (uint64_t)f->slots * SF_EXTENT_FILE_SLOT))
            return;
        entries_reserve(c, n);
        sf_mutex_lock(&c->lock);
        for (uint32_t i = 0; more && i < n; i++) {
            sf_extent_slot slot;

            more = sf__extent_slot_decode(
                &slot, &f->f, sf_bytes_of(slots + (size_t)i * SF_EXTENT_FILE_SLOT, SF_EXTENT_FILE_SLOT), f->end);
            if (!more)
                break;
            entry_set(c, &slot, no);
            f->end = slot.at + sf__extent_room(slot.len);
            f->slots++;
        }
        sf_mutex_unlock(&c->lock);
    }
}

static bool file_is_ours(int fd, sf_extent_file *f)
{
    uint8_t header[SF_EXTENT_FILE_UNIT];
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && sf__is_private(&st) && st.st_nlink > 0 && st.st_size > 0 &&
           sf__pread_all(fd, header, sizeof(header), 0) &&
           sf__extent_file_decode(f, sf_bytes_of(header, sizeof(header)), (uint64_t)st.st_size);
}

static struct disk_file *file_new(const sf_disk_cache *c, int fd, uint64_t number, const sf_extent_file *f)
{
    struct disk_file *file = sf__calloc(c->alloc, 1, sizeof(*file));

    if (!file)
        return NULL;
    atomic_init(&file->refs, 1);
    file->fd = fd;
    file->number = number;
    file->f = *f;
    file->end = sf__extent_file_begin(f);
    return file;
}

/* Its place among the files; MAX_FILES: there is none. */
static unsigned place_for(sf_disk_cache *c, struct disk_file *file)
{
    unsigned no = 0;

    sf_mutex_lock(&c->lock);
    while (no < MAX_FILES && c->files[no])
        no++;
    if (no < MAX_FILES)
        c->files[no] = file;
    sf_mutex_unlock(&c->lock);
    return no;
}

static struct disk_file *file_take(sf_disk_cache *c, uint64_t number)
{
    int fd = open_file(c, number, O_RDONLY);
    struct disk_file *file = NULL;
    sf_extent_file f;

    if (fd >= 0 && file_is_ours(fd, &f))
        file = file_new(c, fd, number, &f);
    if (file && place_for(c, file) == MAX_FILES) {
        file_release(c, file);
        return NULL;
    }
    if (!file && fd >= 0)
        close(fd);
    return file;
}

/* Files that have gone take their extents with them. */
static void drop_gone(sf_disk_cache *c)
{
    struct disk_file *gone[MAX_FILES];
    unsigned n = 0;

    for (unsigned i = 0; i < MAX_FILES; i++)
        n += c->files[i] && c->files[i]->gone;
    if (n == 0) /* most often; the table may have millions, and the loop thread looks into it */
        return;
    n = 0;
    for (size_t i = 0; i < c->entry_cap;) {
        size_t end = c->entry_cap - i < ENTRIES_AT_ONCE ? c->entry_cap : i + ENTRIES_AT_ONCE;

        sf_mutex_lock(&c->lock);
        for (; i < end; i++)
            if (c->entries[i].len != 0 && c->entries[i].file != NO_FILE && c->files[c->entries[i].file]->gone)
                c->entries[i].file = NO_FILE;
        sf_mutex_unlock(&c->lock);
    }
    sf_mutex_lock(&c->lock);
    for (unsigned i = 0; i < MAX_FILES; i++)
        if (c->files[i] && c->files[i]->gone) {
            gone[n++] = c->files[i];
            c->files[i] = NULL;
        }
    sf_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < n; i++)
        file_release(c, gone[i]);
}

static struct disk_file *file_known(const sf_disk_cache *c, uint64_t number)
{
    for (unsigned i = 0; i < MAX_FILES; i++)
        if (c->files[i] && c->files[i]->number == number)
            return c->files[i];
    return NULL;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* What lies in the folder: numbers, ascending; at most MAX_FILES. *bytes of all; *next: a number above all. */
static unsigned folder_list(const sf_disk_cache *c, uint64_t numbers[MAX_FILES], uint64_t *bytes, uint64_t *next)
{
    int fd = SF_FD(openat(c->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    unsigned n = 0;

    *bytes = 0;
    *next = 1;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    for (struct dirent *e; n < MAX_FILES && (e = readdir(d));) {
        struct stat st;
        uint64_t number;

        if (!number_of(e->d_name, &number))
            continue;
        if (number >= *next) /* whatever it is */
            *next = number + 1;
        if (fstatat(c->folder, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        numbers[n++] = number;
        *bytes += (uint64_t)st.st_size;
    }
    closedir(d);
    qsort(numbers, n, sizeof(*numbers), by_number);
    if (*next > LAST_NUMBER) { /* by a name that somebody has made: then the first that is free */
        *next = 1;
        for (unsigned i = 0; i < n && numbers[i] <= *next; i++)
            *next = numbers[i] + 1;
    }
    return n;
}

static void own_drop(sf_disk_cache *c)
{
    if (c->own) {
        flock(c->own_fd, LOCK_UN); /* not by closing: a process that was forked meanwhile has the descriptor, too */
        close(c->own_fd);
    }
    c->own = NULL;
}

/* Which files are there, and what is new in them. */
static void look(sf_disk_cache *c)
{
    uint64_t numbers[MAX_FILES], bytes, next;
    unsigned n = folder_list(c, numbers, &bytes, &next);
    const uint64_t mapped = sf__image_folder_bytes(c->folder); /* by others, too (image.h) */

    for (unsigned i = 0; i < MAX_FILES; i++)
        if (c->files[i])
            c->files[i]->gone = true;
    for (unsigned i = 0; i < n; i++) {
        struct disk_file *f = file_known(c, numbers[i]);

        if (!f)
            f = file_take(c, numbers[i]);
        if (f)
            f->gone = false;
    }
    if (c->own && c->own->gone)
        own_drop(c);
    drop_gone(c);
    for (unsigned i = 0; i < n; i++) /* in their order: what is newer counts */
        for (unsigned no = 0; no < MAX_FILES; no++)
            if (c->files[no] && c->files[no]->number == numbers[i] && c->files[no] != c->own)
                file_look(c, c->files[no], (uint16_t)no);
    sf_mutex_lock(&c->lock);
    c->old_below = bytes + mapped + c->file_bytes > c->max_bytes && n >= 4 ? numbers[n / 4] : 0;
    sf_mutex_unlock(&c->lock);
    atomic_store_explicit(&c->mapped_bytes, mapped, memory_order_relaxed);
    c->looked_ns = sf__clock_mono_ns();
}

/* ------------------------------------------------------------------ writing -------------------------------------- */

static bool has_room(const struct disk_file *f, uint64_t len)
{
    return f->slots < f->f.slots && sf__extent_room(len) <= f->f.bytes - f->end;
}

/* Locked, so nobody else appends to it; what was appended meanwhile is looked at. */
static bool own_take(sf_disk_cache *c, struct disk_file *f, uint16_t no)
{
    int fd = open_file(c, f->number, O_RDWR);
    struct stat mine, known;

    if (fd < 0)
        return false;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 || fstat(fd, &mine) != 0 || fstat(f->fd, &known) != 0 ||
        mine.st_ino != known.st_ino || mine.st_dev != known.st_dev || mine.st_nlink == 0) {
        close(fd);
        return false;
    }
    file_look(c, f, no);
    c->own = f;
    c->own_fd = fd;
    return true;
}

/* One that nobody appends to any more. */
static bool own_find(sf_disk_cache *c, uint64_t len)
{
    for (unsigned no = 0; no < MAX_FILES; no++) {
        struct disk_file *f = c->files[no];

        if (f && f->f.bytes == c->file_bytes && f->number >= c->old_below && has_room(f, len) &&
            own_take(c, f, (uint16_t)no)) {
            if (has_room(f, len))
                return true;
            own_drop(c);
        }
    }
    return false;
}

/* Its bytes are given back even where others have it open. */
static void remove_file(const sf_disk_cache *c, uint64_t number)
{
    int fd = open_file(c, number, O_WRONLY);
    char name[32];

    snprintf(name, sizeof(name), NAME_FORMAT, number);
    if (unlinkat(c->folder, name, 0) == 0 && fd >= 0 && ftruncate(fd, 0) != 0)
        (void)0; /* they go when it is closed */
    if (fd >= 0)
        close(fd);
}

/* For so many bytes; *next: the number of a new file. Files that are mapped go by rules of their own (image_folder.h). */
static bool make_room(const sf_disk_cache *c, uint64_t more, uint64_t *next)
{
    uint64_t numbers[MAX_FILES], bytes;
    unsigned n = folder_list(c, numbers, &bytes, next);

    bytes += sf__image_folder_bytes(c->folder);
    for (unsigned i = 0; i < n && bytes + more > c->max_bytes; i++) {
        struct stat st;
        char name[32];

        snprintf(name, sizeof(name), NAME_FORMAT, numbers[i]);
        if (fstatat(c->folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            bytes -= (uint64_t)st.st_size < bytes ? (uint64_t)st.st_size : bytes;
        remove_file(c, numbers[i]);
    }
    return bytes + more <= c->max_bytes;
}

bool sf__disk_cache_make_room(const sf_disk_cache *c, uint64_t bytes)
{
    uint64_t next;

    return make_room(c, bytes, &next);
}

int sf__disk_cache_folder(const sf_disk_cache *c)
{
    return c->folder;
}

uint64_t sf__disk_cache_max_bytes(const sf_disk_cache *c)
{
    return c->max_bytes;
}

static bool own_make(sf_disk_cache *c)
{
    uint8_t header[SF_EXTENT_FILE_UNIT];
    struct iovec v = {header, sizeof(header)};
    sf_extent_file f;
    uint64_t number, salt;
    int fd = -1;

    if (getrandom(&salt, sizeof(salt), 0) != (ssize_t)sizeof(salt) || !sf__private_folder_lock(c->folder, LOCK_EX))
        return false;
    sf__extent_file_init(&f, c->file_bytes, salt);
    sf__extent_file_encode(&f, header);
    sf__image_folder_shrink(c->folder, 0, c->max_bytes / 2, INT64_MAX); /* whoever wrote them may have had more room */
    if (make_room(c, c->file_bytes, &number))
        fd = open_file(c, number, O_RDWR | O_CREAT | O_EXCL);
    if (fd >= 0 && (flock(fd, LOCK_EX | LOCK_NB) != 0 || ftruncate(fd, (off_t)f.bytes) != 0 || !write_all(fd, &v, 1, 0))) {
        remove_file(c, number);
        close(fd);
        fd = -1;
    }
    sf__private_folder_lock(c->folder,
                            LOCK_UN); /* not by closing: a process that was forked just now has the descriptor, too */
    if (fd < 0)
        return false;
    c->own = file_take(c, number);
    c->own_fd = fd;
    if (!c->own)
        close(fd);
    return c->own;
}

/* A file to append so many bytes to. */
static bool own_for(sf_disk_cache *c, uint64_t len)
{
    struct stat st;

    if (c->own && (!has_room(c->own, len) || fstat(c->own_fd, &st) != 0 || st.st_nlink == 0))
        own_drop(c);
    return c->own || own_find(c, len) || own_make(c);
}

static uint16_t place_of(const sf_disk_cache *c, const struct disk_file *f)
{
    uint16_t no = 0;

    while (c->files[no] != f)
        no++;
    return no;
}

static bool append(sf_disk_cache *c, const sf_extent_name *name, sf_bytes data)
{
    struct disk_file *f = c->own;
    const sf_extent_slot slot = {.name = sf__extent_name_hash(name), .at = f->end, .len = name->len};
    uint8_t head[SF_EXTENT_FILE_UNIT], slot_bytes[SF_EXTENT_FILE_SLOT];
    struct iovec v[2] = {{head, sizeof(head)}, {(void *)data.p, data.n}}, s = {slot_bytes, sizeof(slot_bytes)};

    sf__extent_head_encode(&f->f, name, data, head);
    sf__extent_slot_encode(&f->f, &slot, slot_bytes);
    if (!write_all(c->own_fd, v, 2, slot.at) ||
        !write_all(c->own_fd, &s, 1, SF_EXTENT_FILE_UNIT + (uint64_t)f->slots * SF_EXTENT_FILE_SLOT))
        return false;
    entries_reserve(c, 1);
    sf_mutex_lock(&c->lock);
    f->slots++;
    f->end += sf__extent_room(data.n);
    entry_set(c, &slot, place_of(c, f));
    sf_mutex_unlock(&c->lock);
    count(&c->bytes_written, data.n);
    return true;
}

/* Where it lies among the old ones it is written again. */
static bool is_there(sf_disk_cache *c, const sf_extent_name *name)
{
    const struct disk_entry *e;
    bool there;

    sf_mutex_lock(&c->lock);
    e = entry_find(c, sf__extent_name_hash(name), name->len);
    there = e && c->files[e->file]->number >= c->old_below;
    sf_mutex_unlock(&c->lock);
    return there;
}

static void write_one(sf_disk_cache *c, const struct disk_write *w)
{
    for (uint32_t i = 0; i < w->part_count; i++) {
        const sf_extent_name name = part_name(w->object, w->cuts, i);
        bool quiet = sf__clock_mono_ns() < atomic_load_explicit(&c->quiet_until_ns, memory_order_relaxed);

        if ((w->wanted && !w->wanted[i]) || sf__extent_room(name.len) > c->file_bytes / 2 || is_there(c, &name))
            continue;
        if (!quiet && own_for(c, name.len) &&
            append(c, &name, sf_bytes_of(w->data->data + (w->cuts[i] - w->cuts[0]), name.len)))
            continue;
        count(&c->dropped, 1);
        if (!quiet)
            atomic_store_explicit(&c->quiet_until_ns, sf__clock_mono_ns() + GIVE_UP_NS, memory_order_relaxed);
    }
}

static void upkeep_run(sf_work *work)
{
    sf_disk_cache *c = sf_container_of(work, sf_disk_cache, upkeep);

    if (c->looked_ns == 0 || sf__clock_mono_ns() - c->looked_ns >= LOOK_AGAIN_NS)
        look(c);
    for (struct disk_write *w = c->taken, *next; w; w = next) {
        next = w->next;
        write_one(c, w);
        sf__buf_release(w->data);
        sf__free(c->alloc, w);
    }
    c->taken = NULL;
}

static void reads_go(sf_disk_cache *c)
{
    sf_disk_read *r = c->first_read;

    c->state = DISK_OPEN;
    c->first_read = NULL;
    for (sf_disk_read *next; r; r = next) {
        next = r->next;
        read_submit(c, r);
    }
}

static void upkeep_done(sf_work *work)
{
    sf_disk_cache *c = sf_container_of(work, sf_disk_cache, upkeep);
    atomic_uint *busy = &c->all->jobs;

    c->writing = false;
    c->taken_bytes = 0;
    if (c->state == DISK_LOADING)
        reads_go(c);
    if (c->first_write)
        upkeep_start(c);
    sf__disk_cache_release(c);
    atomic_fetch_sub_explicit(busy, 1, memory_order_release);
}

static void upkeep_start(sf_disk_cache *c)
{
    c->writing = true;
    c->taken = c->first_write;
    c->first_write = NULL;
    c->last_write = &c->first_write;
    c->taken_bytes = c->waiting_bytes;
    c->waiting_bytes = 0;
    sf__disk_cache_acquire(c);
    atomic_fetch_add_explicit(&c->all->jobs, 1, memory_order_relaxed);
    c->upkeep = (sf_work){.run = upkeep_run, .done = upkeep_done, .bulk = true};
    sf__work_submit(c->loop, SF_WORK_FILE, &c->upkeep);
}

void sf__disk_cache_keep(sf_disk_cache *c, sf_hash128 object, const uint64_t *cuts, const bool *wanted,
                         uint32_t part_count, sf_buf *data)
{
    size_t cut_bytes = ((size_t)part_count + 1) * sizeof(*cuts);
    struct disk_write *w = NULL;

    assert(sf__loop_is_current(c->loop));
    if (sf__disk_cache_backlog(c) + data->n <= MAX_WAITING_BYTES)
        w = sf__alloc(c->alloc, sizeof(*w) + cut_bytes + (wanted ? part_count * sizeof(*wanted) : 0));
    if (!w) {
        count(&c->dropped, part_count);
        return;
    }
    *w = (struct disk_write){.object = object, .data = sf__buf_acquire(data), .part_count = part_count};
    memcpy(w->cuts, cuts, cut_bytes);
    if (wanted)
        w->wanted = memcpy(w->cuts + part_count + 1, wanted, part_count * sizeof(*wanted));
    *c->last_write = w;
    c->last_write = &w->next;
    c->waiting_bytes += data->n;
    if (!c->writing)
        upkeep_start(c);
}

uint64_t sf__disk_cache_backlog(const sf_disk_cache *c)
{
    return c->waiting_bytes + c->taken_bytes;
}

uint64_t sf__disk_cache_room(const sf_disk_cache *c)
{
    uint64_t mapped = atomic_load_explicit(&c->mapped_bytes, memory_order_relaxed);

    return mapped < c->max_bytes ? (c->max_bytes - mapped) / 4 * 3 : 0;
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

static void disk_cache_free(sf_disk_cache *c)
{
    own_drop(c);
    for (unsigned i = 0; i < MAX_FILES; i++)
        file_release(c, c->files[i]);
    close(c->folder);
    sf_mutex_destroy(&c->lock);
    sf__free(c->alloc, c->entries);
    sf__free(c->alloc, c);
}

static uint64_t file_bytes_for(uint64_t max_bytes)
{
    uint64_t bytes = SF_EXTENT_FILE_MAX_BYTES;

    while (bytes > max_bytes / FILES_PER_CACHE)
        bytes /= 2;
    return bytes;
}

void sf__disk_caches_init(sf_disk_caches *all)
{
    *all = (sf_disk_caches){.first = NULL};
    sf_mutex_init(&all->lock);
}

void sf__disk_caches_cleanup(sf_disk_caches *all)
{
    assert(!all->first);
    sf_mutex_destroy(&all->lock);
}

/* Unless the last one is just letting it go. */
static bool try_acquire(sf_disk_cache *c)
{
    unsigned refs = atomic_load_explicit(&c->refs, memory_order_relaxed);

    while (refs > 0)
        if (atomic_compare_exchange_weak_explicit(&c->refs, &refs, refs + 1, memory_order_relaxed, memory_order_relaxed))
            return true;
    return false;
}

/* Under the lock of `all`. */
static sf_disk_cache *find_same(const sf_disk_caches *all, const struct stat *folder, uint64_t max_bytes)
{
    for (sf_disk_cache *c = all->first; c; c = c->next)
        if (c->folder_dev == folder->st_dev && c->folder_ino == folder->st_ino && c->max_bytes == max_bytes &&
            try_acquire(c))
            return c;
    return NULL;
}

sf_status sf__disk_cache_open(sf_disk_cache **out, const char *folder, uint64_t max_bytes, sf_loop *loop,
                              sf_disk_caches *all, const sf_allocator *a, sf_error *err)
{
    sf_disk_cache *c, *same;
    struct stat st;
    int fd;
    sf_status rc;

    if (max_bytes < SF_DISK_CACHE_MIN_BYTES || max_bytes > SF_DISK_CACHE_MAX_BYTES)
        return sf_fail(err, SF_INVALID, "disk_bytes is %llu, and must be from 1 MiB to 1 TiB, or 0 for no disk cache",
                       (unsigned long long)max_bytes);
    rc = sf__private_folder_open(folder, true, &fd, err);
    if (rc != SF_OK)
        return sf_error_prefix(err, rc, "disk cache: ");
    if (fstat(fd, &st) != 0) {
        rc = sf__fail_errno(err, errno, SF_IO, "disk cache: folder %s", folder);
        close(fd);
        return rc;
    }
    c = sf__calloc(a, 1, sizeof(*c));
    if (!c) {
        close(fd);
        return sf_fail(err, SF_NOMEM, "disk cache");
    }
    atomic_init(&c->refs, 1);
    c->alloc = a;
    c->loop = loop;
    c->all = all;
    c->folder = fd;
    c->folder_dev = st.st_dev;
    c->folder_ino = st.st_ino;
    c->max_bytes = max_bytes;
    c->file_bytes = file_bytes_for(max_bytes);
    c->last_write = &c->first_write;
    sf_mutex_init(&c->lock);
    sf_mutex_lock(&all->lock);
    same = find_same(all, &st, max_bytes);
    if (!same) {
        c->next = all->first;
        all->first = c;
    }
    sf_mutex_unlock(&all->lock);
    if (same)
        disk_cache_free(c);
    *out = same ? same : c;
    return SF_OK;
}

sf_disk_cache *sf__disk_cache_acquire(sf_disk_cache *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void sf__disk_cache_release(sf_disk_cache *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    sf_mutex_lock(&c->all->lock);
    for (sf_disk_cache **at = &c->all->first; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    sf_mutex_unlock(&c->all->lock);
    disk_cache_free(c);
}

void sf__disk_cache_get_stats(const sf_disk_cache *c, sf_disk_cache_stats *out)
{
    *out = (sf_disk_cache_stats){
        .hits = atomic_load_explicit(&c->hits, memory_order_relaxed),
        .misses = atomic_load_explicit(&c->misses, memory_order_relaxed),
        .bytes_read = atomic_load_explicit(&c->bytes_read, memory_order_relaxed),
        .bytes_written = atomic_load_explicit(&c->bytes_written, memory_order_relaxed),
        .dropped = atomic_load_explicit(&c->dropped, memory_order_relaxed),
    };
}
