#include "backend/sqlite/pages.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/sqlite/file_view.h"
#include "base/container.h"
#include "base/error.h"

/* ------------------------------------------------------------------ the source ----------------------------------- */

/* Where a store tells no ETag nothing tells one object from the next: then pages are not shared between openings. */
void sf__page_source_identify(sf_page_source *s)
{
    static atomic_uint_fast64_t openings;
    uint64_t opening = s->etag[0] ? 0 : atomic_fetch_add_explicit(&openings, 1, memory_order_relaxed) + 1;
    char url[512];
    sf_hash128 parts[3];

    sf__store_object_url(s->store, s->key, url, sizeof(url));
    parts[0] = sf__xxh3_128(sf_bytes_str(url));
    parts[1] = sf__xxh3_128(sf_bytes_str(s->etag));
    parts[2] = (sf_hash128){opening, s->store->serial};
    s->identity = sf__xxh3_128(sf_bytes_of(parts, sizeof(parts)));
}

void sf__page_source_cleanup(sf_page_source *s)
{
    sf__block_table_close(atomic_exchange_explicit(&s->table, NULL, memory_order_acq_rel));
    if (sf__page_source_resident_bytes(s) > 0)
        sf__block_cache_charge(s->shard_cache, -(int64_t)sf__page_source_resident_bytes(s));
    s->charged = 0;
    sf__sidecar_cleanup(&s->sidecar);
}

uint32_t sf__page_source_count(const sf_page_source *s)
{
    const uint64_t n = s->bytes / s->page_bytes;

    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX; /* SQLite has no more */
}

static sf_cache_key cache_key(const sf_page_source *s, uint32_t number)
{
    sf_block_table *t = atomic_load_explicit(&s->table, memory_order_acquire);

    /* what lies behind the end by what another page says has no place */
    return (sf_cache_key){.object = s->identity,
                          .off = sf__page_off(s, number),
                          .table = t && number - 1 < t->count ? t : NULL,
                          .block = number - 1};
}

static void cache_put(const sf_page_source *s, uint32_t number, sf_buf *page)
{
    sf_cache_key key;

    sf__block_table_at(&s->table, s->shard_cache, sf__page_source_count(s), false);
    key = cache_key(s, number);
    sf__block_cache_put(s->shard_cache, &key, page);
}

static sf_buf *from_sidecar(const sf_page_source *s, uint32_t number)
{
    sf_buf *page;
    uint32_t i;

    if (!s->sidecar.body || !sf__sidecar_find_page(&s->sidecar, number, &i))
        return NULL;
    page = sf__buf_new(s->rt->alloc, s->page_bytes);
    if (page)
        sf__sidecar_page(&s->sidecar, i, page->data);
    return page;
}

/* What the kernel would have to read first is left to a worker. */
static sf_buf *from_copy(const sf_page_source *s, uint32_t number)
{
#ifdef RWF_NOWAIT
    sf_buf *page = s->copy >= 0 ? sf__buf_new(s->rt->alloc, s->page_bytes) : NULL;
    struct iovec into;

    if (!page)
        return NULL;
    into = (struct iovec){page->data, page->n};
    if (preadv2(s->copy, &into, 1, (off_t)sf__page_off(s, number), RWF_NOWAIT) == (ssize_t)page->n)
        return page;
    sf__buf_release(page);
#else
    (void)s;
    (void)number;
#endif
    return NULL;
}

sf_buf *sf__page_source_try(const sf_page_source *s, uint32_t number, bool keep)
{
    sf_cache_key key = cache_key(s, number);
    sf_buf *page = sf__block_cache_find(s->shard_cache, &s->table, sf__page_source_count(s), &key);

    if (page && page->n == s->page_bytes)
        return page;
    sf__buf_release(page); /* of another opening, which a sidecar had told another size */
    page = from_sidecar(s, number);
    if (!page)
        page = from_copy(s, number);
    if (page && keep && s->cached)
        cache_put(s, number, page);
    return page;
}

void sf__page_source_keep(const sf_page_source *s, sf_bytes beginning)
{
    for (uint32_t number = 1; s->cached && sf__page_off(s, number) + s->page_bytes <= beginning.n; number++) {
        sf_buf *page = sf__buf_copy(s->rt->alloc, sf_bytes_of(beginning.p + sf__page_off(s, number), s->page_bytes));

        if (page)
            cache_put(s, number, page);
        sf__buf_release(page);
    }
}

sf_status sf__page_source_stay(sf_page_source *s, uint32_t number, sf_buf *page, sf_error *err)
{
    const uint64_t bytes = sizeof(*page) + page->cap;
    sf_cache_key key;

    if (!sf__block_table_at(&s->table, s->shard_cache, sf__page_source_count(s), true))
        return sf_fail(err, SF_NOMEM, "pages to stay in memory");
    key = cache_key(s, number);
    if (!key.table || !sf__block_cache_keep(s->shard_cache, &key, page))
        return SF_OK; /* it is none, or stays already */
    s->charged += bytes;
    sf__block_cache_charge(s->shard_cache, (int64_t)bytes);
    return sf__block_cache_check_charged(s->shard_cache, err);
}

void sf__page_source_let_go(sf_page_source *s)
{
    sf_block_table *table = atomic_load_explicit(&s->table, memory_order_acquire);
    uint64_t bytes = table ? sf__block_table_let_go(table) : 0;

    s->charged -= bytes;
    sf__block_cache_charge(s->shard_cache, -(int64_t)bytes);
}

sf_status sf__page_error_name(const sf_page_source *s, uint32_t number, sf_status rc, sf_error *err)
{
    char url[512];

    if (!err)
        return rc;
    sf__store_object_url(s->store, s->key, url, sizeof(url));
    sf_error_prefix(err, rc, "%s at %llu: ", url, (unsigned long long)sf__page_off(s, number));
    sf_error_object(err, url);
    return rc;
}

/* ------------------------------------------------------------------ runs ----------------------------------------- */

static int need_cmp(const void *pa, const void *pb)
{
    const sf_page_need *a = pa, *b = pb;

    return (a->first > b->first) - (a->first < b->first);
}

/* Needs come from what pages say, so they may overlap as they like. */
size_t sf__page_needs_merge(sf_page_need *needs, size_t count, uint32_t page_bytes, uint64_t gap)
{
    const uint64_t most = SF_PAGE_RUN_BYTES / page_bytes;
    size_t n = 0;

    if (count > 0)
        qsort(needs, count, sizeof(*needs), need_cmp);
    for (size_t i = 0; i < count; i++) {
        sf_page_need *last = n > 0 ? &needs[n - 1] : NULL;
        const uint64_t known = last ? (uint64_t)last->first + last->count : 0,
                       end = (uint64_t)needs[i].first + needs[i].count;
        const uint64_t first = needs[i].first > known ? needs[i].first : known;

        if (end <= known)
            continue;
        if (last && first <= known + gap && end - last->first <= most)
            last->count = (uint32_t)(end - last->first);
        else
            needs[n++] = (sf_page_need){(uint32_t)first, (uint32_t)(end - first)};
    }
    return n;
}

static const sf_allocator *alloc_of(const sf_page_run *r)
{
    return r->source->rt->alloc;
}

static sf_buf **slot_of(sf_page_run *r, uint32_t i)
{
    return r->many ? &r->many[i] : &r->one;
}

bool sf__page_run_init(sf_page_run *r, const sf_page_source *source, uint32_t first, uint32_t count)
{
    *r = (sf_page_run){.source = source, .first = first, .count = count};
    if (count > 1)
        r->many = sf__calloc(source->rt->alloc, count, sizeof(*r->many));
    return count == 1 || r->many;
}

void sf__page_run_cleanup(sf_page_run *r)
{
    if (!r->source)
        return;
    for (uint32_t i = 0; i < r->count; i++)
        sf__buf_release(*slot_of(r, i));
    sf__free(alloc_of(r), r->many);
    sf_error_drop(alloc_of(r), r->error);
    *r = (sf_page_run){0};
}

sf_buf *sf__page_run_page(const sf_page_run *r, uint32_t number)
{
    if (!r->source || r->state != SF_PAGE_RUN_DONE || !sf__page_run_has(r, number))
        return NULL;
    return r->many ? r->many[number - r->first] : r->one;
}

static uint64_t bytes_of(const sf_page_run *r)
{
    return (uint64_t)r->count * r->source->page_bytes;
}

static void run_failed(sf_page_run *r, const sf_error *e)
{
    for (uint32_t i = 0; i < r->count; i++) {
        sf__buf_release(*slot_of(r, i));
        *slot_of(r, i) = NULL;
    }
    if (!r->error)
        r->error = sf_error_keep(alloc_of(r), e);
}

static void run_end(sf_page_run *r)
{
    const sf_page_source *s = r->source;

    for (uint32_t i = 0; r->keep && s->cached && !r->error && i < r->count; i++)
        cache_put(s, r->first + i, *slot_of(r, i));
    r->state = SF_PAGE_RUN_DONE;
    r->done(r); /* r may be gone: nothing after this line */
}

/* ---- by ranges of the object */

static sf_status fetched(sf_page_run *r, sf_buf *data, sf_error *err)
{
    const sf_page_source *s = r->source;

    if (r->count == 1) {
        r->one = sf__buf_acquire(data);
        return SF_OK;
    }
    for (uint32_t i = 0; i < r->count; i++) {
        r->many[i] = sf__buf_copy(s->rt->alloc, sf_bytes_of(data->data + (size_t)i * s->page_bytes, s->page_bytes));
        if (!r->many[i])
            return sf_fail(err, SF_NOMEM, "pages of shard.db");
    }
    return SF_OK;
}

sf_status sf__page_source_judge(const sf_page_source *s, const sf_error *e, uint64_t object_size, sf_error *err)
{
    char url[512];

    if (e->code == SF_OK && (object_size == SF_STORE_ALL || object_size == s->bytes))
        return SF_OK;
    if (e->code != SF_OK && e->code != SF_CONFLICT) {
        if (err)
            *err = *e;
        return e->code;
    }
    sf__store_object_url(s->store, s->key, url, sizeof(url));
    sf_fail(err, SF_CORRUPT, "get %s: it is not the object that was opened: it was replaced since then", url);
    if (err)
        sf_error_object(err, url);
    return SF_CORRUPT;
}

const char *sf__page_source_condition(const sf_page_source *s)
{
    return s->etag[0] && !atomic_load_explicit(s->unconditional, memory_order_relaxed) ? s->etag : NULL;
}

bool sf__page_source_refuses_conditions(const sf_page_source *s, const char *condition, const sf_error *e)
{
    if (!condition || (e->code != SF_UNSUPPORTED && e->http_status != 400 && e->http_status != 501))
        return false;
    atomic_store_explicit(s->unconditional, true, memory_order_relaxed);
    return true;
}

static void fetch_start(sf_page_run *r, uint64_t deadline_ns);

static void fetch_done(sf_fetch *f)
{
    sf_page_run *r = f->ctx;
    const sf_page_source *s = r->source;
    sf_error e = SF_ERROR_INIT;

    if (sf__page_source_refuses_conditions(s, f->if_match, f->error)) {
        fetch_start(r, f->deadline_ns);
        return;
    }
    if (sf__page_source_judge(s, f->error, f->object_size, &e) != SF_OK || fetched(r, f->data, &e) != SF_OK)
        run_failed(r, &e);
    sf__buf_release(f->data);
    run_end(r);
}

static void fetch_start(sf_page_run *r, uint64_t deadline_ns)
{
    const sf_page_source *s = r->source;

    r->read.fetch = (sf_fetch){
        .store = s->store,
        .key = s->key,
        .off = sf__page_off(s, r->first),
        .len = bytes_of(r),
        .if_match = sf__page_source_condition(s),
        .deadline_ns = deadline_ns,
        .done = fetch_done,
        .ctx = r,
    };
    sf__fetch_start(s->rt->fetcher, &r->read.fetch);
}

/* ---- from the copy */

static void copy_run(sf_work *w)
{
    sf_page_run *r = sf_container_of(w, sf_page_run, read.work);
    const sf_page_source *s = r->source;
    sf_file_view view = sf__file_view_of(s->copy, s->bytes);
    sf_error e = SF_ERROR_INIT;

    for (uint32_t i = 0; i < r->count && e.code == SF_OK; i++) {
        sf_buf *page = sf__buf_new(s->rt->alloc, s->page_bytes);

        *slot_of(r, i) = page;
        if (!page)
            sf_fail(&e, SF_NOMEM, "pages of shard.db");
        else
            view.read(view.ctx, sf__page_off(s, r->first + i), page->n, page->data, &e);
    }
    if (e.code != SF_OK)
        run_failed(r, &e);
}

static void copy_done(sf_work *w)
{
    run_end(sf_container_of(w, sf_page_run, read.work));
}

void sf__page_run_start(sf_page_run *r, uint64_t deadline_ns)
{
    r->state = SF_PAGE_RUN_READING;
    if (r->source->copy < 0) {
        fetch_start(r, deadline_ns); /* ends in fetch_done() */
        return;
    }
    r->read.work = (sf_work){.run = copy_run, .done = copy_done};
    sf__work_submit(r->source->rt->loop, SF_WORK_FILE, &r->read.work);
}

/* A worker is not called back: it reads a megabyte at most. */
void sf__page_run_cancel(sf_page_run *r)
{
    if (r->state == SF_PAGE_RUN_READING && r->source->copy < 0)
        sf__fetch_cancel(&r->read.fetch);
}

void sf__page_run_overdue(const sf_page_run *r, uint64_t since_ns, sf_error *err)
{
    if (r->source->copy < 0) {
        sf__fetch_overdue(&r->read.fetch, since_ns, err);
        return;
    }
    sf_error_overdue(err, &(sf_overdue){.since_ns = since_ns, .waits_for = "its copy on disk to be read"});
}
