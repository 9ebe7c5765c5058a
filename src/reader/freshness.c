#include "reader/freshness.h"

#include <stdlib.h>

#include "backend/slatedb/format/opening_record.h"
#include "backend/sqlite/opening_record.h"
#include "backend/sqlite/shard_writer.h" /* SF_SQLITE_DB_NAME */
#include "base/error.h"

/* Objects that are expected in one listing: a page has 1,000, and some may have come since. */
#define OBJECTS_PER_LISTING 900u
/* Between the numbers of two shards of a listing: what lies between is listed, too. */
#define SPAN_PER_LISTING 400u
/* Enough for twice what is expected, and then it is not worth while. */
#define PAGES_PER_LISTING 3u

#define MANIFEST "manifest/"
#define FIRST_MANIFEST MANIFEST "00000000000000000001.manifest"
#define WAL "wal/"

/* A listing, and the shards that it is for: neighbours by folder. */
struct listed_part {
    sf_freshness *f;
    bool busy;
    size_t first, count;
    char *prefix, *until;
    sf_store_listing listing;
};

bool sf__freshness_init(sf_freshness *f, size_t room)
{
    const sf_allocator *a = f->rt->alloc;

    f->shards = sf__calloc(a, room + 1, sizeof(*f->shards));
    f->room = room;
    return f->shards;
}

sf_recorded_shard *sf__freshness_add(sf_freshness *f, sf_store *store, const char *path, uint32_t db_id, sf_bytes record)
{
    sf_recorded_shard s = {.store = store, .db_id = db_id};
    sf_sqlite_record sqlite;

    if (f->count == f->room)
        return NULL;
    if (sf__sqlite_record_decode(&sqlite, record)) {
        s.sqlite = true;
        s.objects = 1 + sqlite.has_sidecar;
        s.db_bytes = sqlite.db_bytes;
        s.etag_hash = sf__store_etag_hash(sqlite.etag);
    } else if (!sf__opening_record_facts(record, &s.manifest_bytes, &s.objects)) {
        return NULL;
    }
    s.folder = sf__asprintf(f->rt->alloc, "%s%s", path, path[0] ? "/" : "");
    if (!s.folder)
        return NULL;
    f->shards[f->count] = s;
    return &f->shards[f->count++];
}

/* ------------------------------------------------------------------ what to list --------------------------------- */

static int by_folder(const void *x, const void *y)
{
    const sf_recorded_shard *a = *(sf_recorded_shard *const *)x, *b = *(sf_recorded_shard *const *)y;

    if (a->store != b->store)
        return a->store < b->store ? -1 : 1;
    return strcmp(a->folder, b->folder);
}

/* Bytes of the folder of its run, with the slash; where there is none, of its own. */
static size_t run_bytes(const char *folder)
{
    const char *run = strncmp(folder, "run_id=", 7) == 0 ? folder : strstr(folder, "/run_id=");
    const char *end = run ? strchr(run + 1, '/') : NULL;

    return end ? (size_t)(end - folder) + 1 : strlen(folder);
}

static bool same_run(const sf_recorded_shard *a, const sf_recorded_shard *b)
{
    size_t n = run_bytes(a->folder);

    return a->store == b->store && strncmp(a->folder, b->folder, n) == 0 && strcmp(a->folder, b->folder) != 0;
}

static size_t part_size(const sf_freshness *f, size_t first)
{
    const sf_recorded_shard *s = f->by_folder[first];
    uint64_t objects = s->objects;
    size_t n = 1;

    for (; first + n < f->count; n++) {
        const sf_recorded_shard *next = f->by_folder[first + n];

        objects += next->objects;
        if (objects > OBJECTS_PER_LISTING || !same_run(s, next) || next->db_id < s->db_id ||
            next->db_id - s->db_id > SPAN_PER_LISTING)
            break;
    }
    return n;
}

static void part_done(sf_store_listing *l);

/* Between its first and its last shard. */
static bool part_init(struct listed_part *p, sf_freshness *f, size_t first, size_t count)
{
    const sf_allocator *a = f->rt->alloc;
    const sf_recorded_shard *low = f->by_folder[first], *high = f->by_folder[first + count - 1];
    size_t n = 0;

    *p = (struct listed_part){.f = f, .first = first, .count = count};
    while (low->folder[n] && low->folder[n] == high->folder[n])
        n++;
    while (n > 0 && low->folder[n - 1] != '/')
        n--;
    p->prefix = sf__strndup(a, low->folder, n);
    p->until = sf__strdup(a, high->folder);
    if (!p->prefix || !p->until)
        return false;
    if (p->until[0])
        p->until[strlen(p->until) - 1] = '/' + 1; /* behind all that begins with the folder */
    p->listing = (sf_store_listing){
        .store = low->store,
        .prefix = p->prefix,
        .start_after = count > 1 ? low->folder : NULL,
        .until = p->until[0] ? p->until : NULL,
        .deadline_ns = f->deadline_ns,
        .max_pages = PAGES_PER_LISTING,
        .done = part_done,
        .ctx = p,
    };
    return true;
}

static bool parts_init(sf_freshness *f)
{
    const sf_allocator *a = f->rt->alloc;
    size_t n = 0;

    f->by_folder = sf__calloc(a, f->count + 1, sizeof(*f->by_folder));
    if (!f->by_folder)
        return false;
    for (size_t i = 0; i < f->count; i++)
        f->by_folder[i] = &f->shards[i];
    qsort(f->by_folder, f->count, sizeof(*f->by_folder), by_folder);
    for (size_t i = 0; i < f->count; i += part_size(f, i))
        n++;
    f->parts = sf__calloc(a, n + 1, sizeof(*f->parts));
    if (!f->parts)
        return false;
    for (size_t i = 0; i < f->count; i += f->parts[f->part_count - 1].count)
        if (!part_init(&f->parts[f->part_count++], f, i, part_size(f, i)))
            return false;
    return true;
}

/* ------------------------------------------------------------------ what it means -------------------------------- */

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* The entries of one shard of SQLite. */
static bool has_recorded_db(const sf_recorded_shard *s, const sf_store_entry *entries, size_t count)
{
    const size_t n = strlen(s->folder);

    for (size_t i = 0; i < count; i++)
        if (strcmp(entries[i].key + n, SF_SQLITE_DB_NAME) == 0)
            return entries[i].size == s->db_bytes && entries[i].etag_hash == s->etag_hash;
    return false;
}

/* The entries of one shard. Whoever writes to one of SlateDB leaves another manifest, or something in the WAL. */
static bool is_as_built(const sf_recorded_shard *s, const sf_store_entry *entries, size_t count)
{
    size_t n = strlen(s->folder);
    bool has_manifest = false;

    if (s->sqlite)
        return has_recorded_db(s, entries, count);
    for (size_t i = 0; i < count; i++) {
        const char *name = entries[i].key + n;

        if (strcmp(name, FIRST_MANIFEST) == 0 && entries[i].size == s->manifest_bytes)
            has_manifest = true;
        else if (starts_with(name, MANIFEST) || starts_with(name, WAL))
            return false;
    }
    return has_manifest;
}

/* *next goes behind the entries of the shard. */
static sf_freshness_verdict judge(const sf_recorded_shard *s, const sf_store_listing *l, size_t *next)
{
    size_t first = *next, end;

    while (first < l->entry_count && strcmp(l->entries[first].key, s->folder) < 0)
        first++;
    for (end = first; end < l->entry_count && starts_with(l->entries[end].key, s->folder); end++)
        ;
    *next = end;
    if (end == l->entry_count && l->truncated) /* the rest of it was not listed */
        return SF_STALE;
    return is_as_built(s, l->entries + first, end - first) ? SF_FRESH : SF_STALE;
}

static int by_key(const void *x, const void *y)
{
    return strcmp(((const sf_store_entry *)x)->key, ((const sf_store_entry *)y)->key);
}

/* S3 sorts what it lists. A store that does not is believed where it has listed all: a listing that was cut off behind some key may have left out
 * others. */
static bool put_in_order(sf_store_listing *l)
{
    if (!l->unsorted)
        return true;
    if (l->entry_count > 1)
        qsort(l->entries, l->entry_count, sizeof(*l->entries), by_key);
    return !l->truncated;
}

static void part_done(sf_store_listing *l)
{
    struct listed_part *p = l->ctx;
    sf_freshness *f = p->f;
    bool listed = l->error->code == SF_OK, believed = listed && put_in_order(l);
    size_t next = 0;

    p->busy = false;
    if (!listed && l->error->code != SF_CANCELLED)
        sf__log(&f->rt->log, SF_LOG_DEBUG, "reader", "shards are opened the long way: %s", l->error->message);
    else if (!believed && l->key)
        sf__log(&f->rt->log, SF_LOG_WARN, "reader",
                "shards are opened the long way: %s/%s is listed in no order, \"%s\" behind \"%s\", and was not listed to "
                "its end; S3 lists by key: have the gateway do so",
                l->store->url, l->prefix, l->key, l->behind);
    for (size_t i = 0; i < p->count; i++) {
        sf_recorded_shard *s = f->by_folder[p->first + i];

        s->verdict = believed ? judge(s, l, &next) : SF_STALE;
    }
    sf__store_listing_cleanup(l);
    for (size_t i = 0; i < p->count; i++) {
        sf_recorded_shard *s = f->by_folder[p->first + i];

        if (s->told)
            s->told(s);
    }
    if (--f->pending == 0)
        f->done(f); /* f may be gone: nothing after this line */
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

bool sf__freshness_start(sf_freshness *f)
{
    if (f->count > 0 && !parts_init(f)) {
        for (size_t i = 0; i < f->count; i++)
            f->shards[i].verdict = SF_STALE;
        return false;
    }
    f->pending = f->part_count;
    for (size_t i = 0; i < f->part_count; i++) {
        f->parts[i].busy = true;
        sf__fetcher_list(f->rt->fetcher, &f->parts[i].listing);
    }
    return f->part_count > 0;
}

void sf__freshness_cancel(sf_freshness *f)
{
    for (size_t i = 0; f->pending > 0 && i < f->part_count; i++)
        if (f->parts[i].busy)
            sf__fetcher_list_cancel(f->rt->fetcher, &f->parts[i].listing);
}

void sf__freshness_cleanup(sf_freshness *f)
{
    const sf_allocator *a = f->rt ? f->rt->alloc : NULL;

    for (size_t i = 0; i < f->part_count; i++) {
        sf__free(a, f->parts[i].prefix);
        sf__free(a, f->parts[i].until);
    }
    for (size_t i = 0; i < f->count; i++)
        sf__free(a, f->shards[i].folder);
    if (a) {
        sf__free(a, f->parts);
        sf__free(a, f->by_folder);
        sf__free(a, f->shards);
    }
    *f = (sf_freshness){.rt = f->rt};
}
