#include "backend/slatedb/scan_source.h"

#include "base/error.h"

/* ------------------------------------------------------------------ the replayed WAL ----------------------------- */

static void mem_show(sf_scan_source *src)
{
    const sf_mem_row *r;

    if (src->mem_left == 0) {
        src->state = SF_SOURCE_END;
        return;
    }
    r = &src->mem->rows[src->mem_next];
    src->key = r->key;
    src->value = r->value;
    src->owner = src->mem->bytes;
    src->seq = r->seq;
    src->flags = r->flags;
    src->state = SF_SOURCE_AT_ROW;
}

void sf__source_of_memtable(sf_scan_source *src, sf_scan_io *io, const sf_memtable *mem, const sf_scan_bounds *bounds)
{
    static const sf_memtable none;
    size_t from, to;

    mem = mem ? mem : &none;
    from = sf__memtable_lower_bound(mem, bounds->lo);
    to = bounds->has_hi ? sf__memtable_lower_bound(mem, bounds->hi) : mem->count;
    *src = (sf_scan_source){.io = io, .mem = mem};
    src->mem_left = to > from ? to - from : 0;
    src->mem_next = io->reverse && src->mem_left > 0 ? to - 1 : from;
    mem_show(src);
}

static void mem_next(sf_scan_source *src)
{
    src->mem_left--;
    if (src->mem_left > 0)
        src->mem_next = src->io->reverse ? src->mem_next - 1 : src->mem_next + 1;
    mem_show(src);
}

/* ------------------------------------------------------------------ blocks in order ------------------------------ */

static bool above(sf_bytes key, const sf_scan_bounds *b)
{
    int c;

    if (!b->has_hi)
        return false;
    c = sf_bytes_cmp(key, b->hi);
    return c > 0 || (c == 0 && !b->hi_included);
}

static bool below(sf_bytes key, const sf_scan_bounds *b)
{
    int c = b->lo.n > 0 || b->lo_excluded ? sf_bytes_cmp(key, b->lo) : 1;

    return c < 0 || (c == 0 && b->lo_excluded);
}

/* The scan's bounds and the visible range of the view, or NULL. */
static sf_scan_bounds bounds_of(const sf_scan_bounds *scan, const sf_key_range *visible)
{
    sf_scan_bounds b = *scan;
    int c;

    if (!visible)
        return b;
    if (visible->start.kind != SF_BOUND_UNBOUNDED) {
        c = sf_bytes_cmp(visible->start.key, b.lo);
        if (c > 0 || (c == 0 && visible->start.kind == SF_BOUND_EXCLUDED)) {
            b.lo = visible->start.key;
            b.lo_excluded = visible->start.kind == SF_BOUND_EXCLUDED;
        }
    }
    if (visible->end.kind != SF_BOUND_UNBOUNDED) {
        c = b.has_hi ? sf_bytes_cmp(visible->end.key, b.hi) : -1;
        if (c < 0 || (c == 0 && visible->end.kind == SF_BOUND_EXCLUDED)) {
            b.hi = visible->end.key;
            b.has_hi = true;
            b.hi_included = visible->end.kind == SF_BOUND_INCLUDED;
        }
    }
    return b;
}

/* False: no block of this view is in the bounds. */
static bool view_enter(const sf_scan_source *src, uint32_t view, sf_scan_pos *pos)
{
    const sf_sst_view *sv = &src->ssts[view];
    const sf_index *idx = &sf__read_view_sst(&src->io->shard->view, sv)->index;
    sf_scan_pos p = {.view = view, .entry = true};
    uint32_t first, stop;

    if (!sv->info.has_first_key)
        return false;
    p.bounds = bounds_of(&src->bounds, sv->visible);
    if ((sv->info.has_last_key && below(sv->info.last_key, &p.bounds)) || above(sv->info.first_key, &p.bounds))
        return false;
    first = sf__index_lower_bound(idx, p.bounds.lo);
    first = first > 0 ? first - 1 : 0;
    stop = !p.bounds.has_hi       ? idx->count
           : p.bounds.hi_included ? sf__index_upper_bound(idx, p.bounds.hi)
                                  : sf__index_lower_bound(idx, p.bounds.hi);
    if (stop == 0 || first > stop - 1)
        return false;
    p.block = src->io->reverse ? stop - 1 : first;
    p.last = src->io->reverse ? first : stop - 1;
    *pos = p;
    return true;
}

/* The first block of `view` or of one behind it. */
static bool views_from(const sf_scan_source *src, uint32_t view, sf_scan_pos *pos)
{
    if (src->io->reverse) {
        for (uint32_t v = view + 1; v-- > 0;) {
            if (src->ssts[v].info.has_last_key && below(src->ssts[v].info.last_key, &src->bounds))
                break;
            if (view_enter(src, v, pos))
                return true;
        }
        return false;
    }
    for (uint32_t v = view; v < src->count && !above(src->ssts[v].info.first_key, &src->bounds); v++)
        if (view_enter(src, v, pos))
            return true;
    return false;
}

static bool next_view(const sf_scan_source *src, const sf_scan_pos *from, sf_scan_pos *pos)
{
    if (src->io->reverse)
        return from->view > 0 && views_from(src, from->view - 1, pos);
    return views_from(src, from->view + 1, pos);
}

static bool following(const sf_scan_source *src, const sf_scan_pos *from, sf_scan_pos *pos)
{
    if (from->block == from->last)
        return next_view(src, from, pos);
    *pos = *from;
    pos->entry = false;
    pos->block = src->io->reverse ? pos->block - 1 : pos->block + 1;
    return true;
}

/* The last SST of a run that begins in the bounds. */
static uint32_t last_view(const sf_scan_source *src)
{
    uint32_t lo = 0, hi = src->count;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (above(src->ssts[mid].info.first_key, &src->bounds))
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo > 0 ? lo - 1 : 0;
}

void sf__source_of_ssts(sf_scan_source *src, sf_scan_io *io, const sf_sst_view *ssts, uint32_t count,
                        const sf_scan_bounds *bounds)
{
    uint32_t from = 0;

    *src = (sf_scan_source){.state = SF_SOURCE_END,
                            .io = io,
                            .bounds = *bounds,
                            .ssts = ssts,
                            .count = count,
                            .reach = SF_SCAN_FIRST_WINDOW,
                            .expansion_percent = 100};
    sf__block_cursor_init(&src->cursor, io->shard->base.rt->alloc);
    if (count == 0)
        return;
    if (count > 1) /* a single one may be an SST without rows and keys */
        from = io->reverse ? last_view(src) : sf__run_first_from(ssts, count, bounds->lo);
    if (from < count && views_from(src, from, &src->pos))
        src->state = SF_SOURCE_NEEDS_BLOCK;
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

static bool window_has(const sf_window *w, const sf_sst *sst, uint32_t block)
{
    return w && sf__extent_has(sf__window_extent(w), sst, block);
}

static const sf_sst *sst_at(const sf_scan_source *src, const sf_scan_pos *pos)
{
    return sf__read_view_sst(&src->io->shard->view, &src->ssts[pos->view]);
}

static uint64_t window_bytes(const sf_scan_source *src)
{
    return src->reach < src->io->max_window ? src->reach : src->io->max_window;
}

/* A window of blocks from `pos` on, not into the next of those that are being read ahead already. */
static sf_status window_begin(const sf_scan_source *src, const sf_scan_pos *pos, sf_window **slot, sf_error *err)
{
    const sf_sst *sst = sst_at(src, pos);
    const sf_window *next = src->ahead_count > 0 ? src->ahead[0] : NULL;
    uint64_t stored = window_bytes(src) * 100 / src->expansion_percent,
             sum = sf__index_block_len(&sst->index, pos->block);
    uint32_t b = pos->block, count = 1;

    while (b != pos->last) {
        b = src->io->reverse ? b - 1 : b + 1;
        sum += sf__index_block_len(&sst->index, b);
        if (sum > stored || window_has(next, sst, b))
            break;
        count++;
    }
    *slot = sf__window_begin(src->io->shard, sst, src->io->reverse ? pos->block - (count - 1) : pos->block, count);
    if (!*slot)
        return sf_fail(err, SF_NOMEM, "%u blocks of a scan", count);
    return SF_OK;
}

/* How far the blocks of a window that is home unpack: the next ones are asked for accordingly. */
static void expansion_learn(sf_scan_source *src, const sf_extent *e)
{
    uint64_t stored = 0, plain = 0;

    for (uint32_t i = 0; i < e->count; i++) {
        stored += sf__index_block_len(&e->sst->index, e->first + i);
        plain += sf__extent_block_bytes(e, e->first + i).n;
    }
    src->expansion_percent = plain <= stored || stored == 0       ? 100
                             : plain / stored >= UINT32_MAX / 100 ? UINT32_MAX
                                                                  : (uint32_t)(plain * 100 / stored);
}

/* What the windows ahead will take when they are unpacked, about. */
static uint64_t bytes_ahead(const sf_scan_source *src)
{
    uint64_t stored = 0;

    for (uint32_t i = 0; i < src->ahead_count; i++) {
        const sf_extent *e = sf__window_extent(src->ahead[i]);

        stored += e->sst->index.offs[e->first + e->count] - e->sst->index.offs[e->first];
    }
    return stored * src->expansion_percent / 100;
}

/* One more window ahead, of the blocks that follow `end`; false: there are none, memory has them, or there is no memory. */
static bool ahead_add(sf_scan_source *src, const sf_scan_pos *end)
{
    sf_scan_pos next;
    const sf_extent *e;
    sf_buf *cached;

    if (!following(src, end, &next))
        return false;
    cached = sf__sst_block_cached(sst_at(src, &next), next.block, src->io->shard->base.cache);
    sf__buf_release(cached);
    if (cached || window_begin(src, &next, &src->ahead[src->ahead_count], NULL) != SF_OK)
        return false;
    e = sf__window_extent(src->ahead[src->ahead_count++]);
    src->ahead_end = next;
    src->ahead_end.block = src->io->reverse ? e->first : e->first + e->count - 1;
    return true;
}

/* Half of a window is used up: the scan goes on, so more windows may come. One that has come as far as to read ahead all that it may goes on for sure:
 * then they are asked for as soon as there is room, so that they are read all the while. Failing to ask for them does no harm. */
static void read_ahead(sf_scan_source *src)
{
    const sf_extent *now = sf__window_extent(src->now);
    uint32_t used = src->io->reverse ? now->first + now->count - 1 - src->pos.block : src->pos.block - now->first;
    sf_scan_pos end = src->pos;

    if (src->io->max_ahead == 0 || used != (src->reach < src->io->max_ahead ? now->count / 2 : 0))
        return;
    if (!src->ahead)
        src->ahead = sf__calloc(src->io->shard->base.rt->alloc, SF_SCAN_WINDOWS_AHEAD, sizeof(sf_window *));
    if (!src->ahead)
        return;
    expansion_learn(src, now);
    src->reach = src->reach * 2 < src->io->max_ahead ? src->reach * 2 : src->io->max_ahead;
    end.block = src->io->reverse ? now->first : now->first + now->count - 1;
    while (src->ahead_count == 0 ||
           (src->ahead_count < SF_SCAN_WINDOWS_AHEAD && bytes_ahead(src) + window_bytes(src) <= src->reach))
        if (!ahead_add(src, src->ahead_count > 0 ? &src->ahead_end : &end))
            return;
}

static sf_window *ahead_take(sf_scan_source *src)
{
    sf_window *w = src->ahead[0];

    src->ahead_count--;
    memmove(&src->ahead[0], &src->ahead[1], src->ahead_count * sizeof(src->ahead[0]));
    return w;
}

/* Where a block that follows ends and begins, as far as `bytes`, which is what its cursor looks at first, comes into the processor's cache while this one is
 * walked. Backwards it is the end that is wanted. */
static void prefetch(const sf_scan_source *src, sf_bytes block, size_t bytes)
{
    if (block.n < 64)
        return;
    for (size_t i = 0; i < bytes && i < block.n; i += 64)
        __builtin_prefetch(block.p + i);
    __builtin_prefetch(block.p + block.n - 1);
    if (src->io->reverse)
        __builtin_prefetch(block.p + block.n - 64);
}

/* Of a window. */
static void next_fetch(const sf_scan_source *src, const sf_extent *e)
{
    uint32_t block = src->io->reverse ? src->pos.block - 1 : src->pos.block + 1;

    if (src->pos.block != src->pos.last && sf__extent_has(e, e->sst, block))
        prefetch(src, sf__extent_block_bytes(e, block), 128);
}

/* So much of a block is asked for at once where it lies in memory that nobody has looked at for long. */
#define FAR_BYTES 1024u

/* Of blocks that memory has: they lie anywhere, so the one that follows is taken already, and the buffer of the one behind it is fetched. */
static void next_take(sf_scan_source *src)
{
    const sf_sst *sst = sst_at(src, &src->pos);
    const bool reverse = src->io->reverse;
    uint32_t left = reverse ? src->pos.block - src->pos.last : src->pos.last - src->pos.block;

    if (left == 0)
        return;
    src->next_view = src->pos.view;
    src->next_block = reverse ? src->pos.block - 1 : src->pos.block + 1;
    src->next = sf__sst_block_cached(sst, src->next_block, src->io->shard->base.cache);
    if (!src->next)
        return;
    prefetch(src, sf__buf_bytes(src->next), reverse ? 128 : FAR_BYTES);
    if (left > 1)
        sf__sst_block_hint(sst, reverse ? src->next_block - 1 : src->next_block + 1);
}

/* The block at `pos`, out of memory; NULL: it is not there. */
static sf_buf *cached_take(sf_scan_source *src)
{
    sf_buf *block = src->next;

    src->next = NULL;
    if (block && src->next_view == src->pos.view && src->next_block == src->pos.block)
        return block;
    sf__buf_release(block);
    return sf__sst_block_cached(sst_at(src, &src->pos), src->pos.block, src->io->shard->base.cache);
}

/* The block at `pos`, with a reference to what holds it; false: it is on its way, or there is an error. Scanned blocks are not put
 * into the cache: a scan must not wash out what look-ups need. */
static bool block_take(sf_scan_source *src, sf_status *rc, sf_error *err)
{
    const sf_sst *sst = sst_at(src, &src->pos);
    const sf_extent_block *block;
    const sf_extent *e;

    *rc = SF_OK;
    if (!window_has(src->now, sst, src->pos.block)) {
        sf__window_drop(src->now);
        src->now = NULL;
        if (src->ahead_count > 0 && window_has(src->ahead[0], sst, src->pos.block)) {
            src->now = ahead_take(src);
        } else {
            src->owner = cached_take(src);
            src->plain = sf__buf_bytes(src->owner);
            if (src->owner)
                next_take(src);
            else
                *rc = window_begin(src, &src->pos, &src->now, err);
            return src->owner;
        }
    }
    if (!sf__window_is_home(src->now))
        return false;
    e = sf__window_extent(src->now);
    block = sf__extent_block(e, src->pos.block);
    if (!block->plain) {
        *rc = block->status;
        if (err) {
            *err = *e->error;
            err->code = *rc;
            err->db_id = src->io->shard->base.db_id;
        }
        sf__window_drop(src->now);
        src->now = NULL;
        return false;
    }
    next_fetch(src, e);
    src->owner = sf__buf_acquire(block->plain);
    src->plain = sf__extent_block_bytes(e, src->pos.block);
    read_ahead(src);
    return true;
}

bool sf__source_wait(sf_scan_source *src, sf_window_waiter *waiter)
{
    return src->now && sf__window_wait(src->now, waiter);
}

void sf__source_forget(sf_scan_source *src)
{
    if (src->now)
        sf__window_forget(src->now);
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

static sf_status cursor_step(sf_scan_source *src, sf_error *err)
{
    return src->io->reverse ? sf__block_cursor_prev(&src->cursor, err) : sf__block_cursor_next(&src->cursor, err);
}

static sf_status cursor_begin(sf_scan_source *src, sf_error *err)
{
    const sf_scan_bounds *b = &src->pos.bounds;
    sf_block_cursor *c = &src->cursor;
    sf_block block;
    sf_status rc = sf__sst_block_view(sst_at(src, &src->pos), src->plain, &block, err);

    if (rc != SF_OK)
        return rc;
    sf__block_cursor_set(c, &block);
    if (src->io->reverse) {
        rc = src->pos.entry && b->has_hi && !b->hi_included ? sf__block_cursor_seek_lt(c, b->hi, err)
                                                            : sf__block_cursor_last(c, err);
        while (rc == SF_OK && src->pos.entry && c->valid && above(c->row.key, b))
            rc = sf__block_cursor_prev(c, err);
    } else {
        rc = src->pos.entry && b->lo.n > 0 ? sf__block_cursor_seek_ge(c, b->lo, err) : sf__block_cursor_first(c, err);
        while (rc == SF_OK && src->pos.entry && c->valid && below(c->row.key, b))
            rc = sf__block_cursor_next(c, err);
    }
    return rc;
}

/* The cursor has moved: to a row that shows, or off the block, or out of the view. */
static sf_status settle(sf_scan_source *src, sf_error *err)
{
    sf_block_cursor *c = &src->cursor;
    uint64_t max_seq = src->io->shard->view.max_seq;
    bool more, out = false;

    while (c->valid) {
        sf_status rc;

        if (!src->io->reverse && c->order < 0)
            return sf_fail(err, SF_CORRUPT, SF_ROWS_OUT_OF_ORDER);
        src->new_key = src->new_key || c->order > 0; /* of all rows since the last one that showed */
        out = src->pos.block == src->pos.last &&
              (src->io->reverse ? below(c->row.key, &src->pos.bounds) : above(c->row.key, &src->pos.bounds));
        if (out || c->row.seq <= max_seq)
            break;
        rc = cursor_step(src, err);
        if (rc != SF_OK)
            return rc;
    }
    if (c->valid && !out) {
        src->key = c->row.key;
        src->value = c->row.value;
        src->seq = c->row.seq;
        src->flags = c->row.flags;
        src->state = SF_SOURCE_AT_ROW;
        return SF_OK;
    }
    more = out ? next_view(src, &src->pos, &src->pos) : following(src, &src->pos, &src->pos);
    sf__buf_release(src->owner);
    src->owner = NULL;
    src->state = more ? SF_SOURCE_NEEDS_BLOCK : SF_SOURCE_END;
    return SF_OK;
}

sf_status sf__source_resume(sf_scan_source *src, sf_error *err)
{
    sf_status rc = SF_OK;

    while (rc == SF_OK && src->state == SF_SOURCE_NEEDS_BLOCK) {
        if (!block_take(src, &rc, err))
            return rc;
        rc = cursor_begin(src, err);
        if (rc == SF_OK)
            rc = settle(src, err);
    }
    if (rc != SF_OK) { /* the same block once more, next time */
        sf__buf_release(src->owner);
        src->owner = NULL;
        src->state = SF_SOURCE_NEEDS_BLOCK;
    }
    return rc;
}

sf_status sf__source_next(sf_scan_source *src, sf_error *err)
{
    sf_status rc;

    if (src->mem) {
        mem_next(src);
        return SF_OK;
    }
    src->new_key = src->passed_new_key;
    src->passed_new_key = false;
    rc = cursor_step(src, err);
    return rc == SF_OK ? settle(src, err) : rc;
}

bool sf__source_rows(sf_scan_source *src, const sf_bytes *before, sf_block_rows *out)
{
    const sf_scan_bounds *b = &src->pos.bounds;
    const bool reverse = src->io->reverse;
    bool passed;

    out->max_seq = src->io->shard->view.max_seq;
    out->has_end = src->pos.block == src->pos.last && (reverse ? b->lo.n > 0 || b->lo_excluded : b->has_hi);
    out->end = reverse ? b->lo : b->hi; /* if it is included, too: the step that follows tells */
    if (before && (!out->has_end || (sf_bytes_cmp(*before, out->end) > 0) == reverse)) {
        out->has_end = true;
        out->end = *before;
    }
    passed = sf__block_cursor_rows(&src->cursor, out);
    src->passed_new_key = out->new_key;
    return passed;
}

void sf__source_cleanup(sf_scan_source *src)
{
    if (!src->io || src->mem)
        return;
    sf__buf_release(src->next);
    src->next = NULL;
    sf__window_drop(src->now);
    src->now = NULL;
    while (src->ahead_count > 0)
        sf__window_drop(src->ahead[--src->ahead_count]);
    sf__free(src->io->shard->base.rt->alloc, src->ahead);
    src->ahead = NULL;
    sf__block_cursor_cleanup(&src->cursor);
    sf__buf_release(src->owner);
    src->owner = NULL;
}
