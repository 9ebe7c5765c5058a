#include "backend/slatedb/merge.h"

#include "base/error.h"

void sf__merge_init(sf_merge *m, bool reverse, const sf_allocator *a)
{
    *m = (sf_merge){.alloc = a, .reverse = reverse};
}

void sf__merge_cleanup(sf_merge *m)
{
    if (!m->alloc)
        return;
    sf__buf_release(m->owner);
    sf__free(m->alloc, m->heap);
    sf__free(m->alloc, m->key);
    *m = (sf_merge){0};
}

bool sf__merge_reserve(sf_merge *m, size_t count)
{
    sf_scan_source **p;

    if (count <= m->cap)
        return true;
    p = sf__realloc(m->alloc, m->heap, count * sizeof(*p));
    if (!p)
        return false;
    m->heap = p;
    m->cap = count;
    return true;
}

/* ------------------------------------------------------------------ the heap ------------------------------------- */

static bool before(const sf_merge *m, const sf_scan_source *a, const sf_scan_source *b)
{
    int c = sf_bytes_cmp(a->key, b->key);

    return m->reverse ? c > 0 : c < 0;
}

static void sift_down(sf_merge *m)
{
    sf_scan_source *src = m->heap[0];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= m->count)
            break;
        if (child + 1 < m->count && before(m, m->heap[child + 1], m->heap[child]))
            child++;
        if (!before(m, m->heap[child], src))
            break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = src;
}

void sf__merge_push(sf_merge *m, sf_scan_source *src)
{
    size_t i = m->count++;

    while (i > 0 && before(m, src, m->heap[(i - 1) / 2])) {
        m->heap[i] = m->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    m->heap[i] = src;
}

void sf__merge_top_moved(sf_merge *m)
{
    if (m->heap[0]->state != SF_SOURCE_AT_ROW) {
        m->heap[0] = m->heap[--m->count];
        if (m->count == 0)
            return;
    }
    sift_down(m);
}

/* ------------------------------------------------------------------ versions ------------------------------------- */

static sf_status key_set(sf_merge *m, sf_bytes key, sf_error *err)
{
    if (key.n > m->key_cap) {
        size_t cap = key.n < 64 ? 64 : key.n + key.n / 2;
        uint8_t *p = sf__realloc(m->alloc, m->key, cap);

        if (!p)
            return sf_fail(err, SF_NOMEM, "key of %zu bytes", key.n);
        m->key = p;
        m->key_cap = cap;
    }
    if (key.n > 0)
        memcpy(m->key, key.p, key.n);
    m->key_n = key.n;
    m->started = true;
    return SF_OK;
}

static void version_set(sf_merge *m, const sf_scan_source *src)
{
    if (m->owner != src->owner) {
        sf__buf_release(m->owner);
        m->owner = sf__buf_acquire(src->owner);
    }
    m->value = src->value;
    m->seq = src->seq;
    m->flags = src->flags;
    m->gathered = true;
}

sf_status sf__merge_gather(sf_merge *m, bool *complete, sf_error *err)
{
    const sf_scan_source *top = m->heap[0];
    int c = m->started ? sf_bytes_cmp(top->key, sf__merge_key(m)) : 0;
    sf_status rc;

    *complete = false;
    if (m->gathered && c == 0) {
        if (top->seq > m->seq)
            version_set(m, top);
        return SF_OK;
    }
    if (m->started && (m->reverse ? c >= 0 : c <= 0))
        return sf_fail(err, SF_CORRUPT, "the rows of an SST, or the SSTs of a sorted run, are not in key order");
    if (m->gathered) {
        *complete = true;
        return SF_OK;
    }
    rc = key_set(m, top->key, err);
    if (rc == SF_OK)
        version_set(m, top);
    return rc;
}

void sf__merge_drop(sf_merge *m)
{
    m->gathered = false;
}
