#include "backend/slatedb/merge.h"

#include "base/error.h"
#include "base/grow.h"

void sf__merge_init(sf_merge *m, bool reverse, const sf_allocator *a)
{
    *m = (sf_merge){.alloc = a, .reverse = reverse};
}

void sf__merge_cleanup(sf_merge *m)
{
    if (!m->alloc)
        return;
    sf__buf_release(m->owner);
    sf__kway_cleanup(&m->kway);
    sf__free(m->alloc, m->sources);
    sf__free(m->alloc, m->key);
    *m = (sf_merge){0};
}

bool sf__merge_begin(sf_merge *m, uint32_t count)
{
    sf__kway_cleanup(&m->kway);
    sf__free(m->alloc, m->sources);
    m->built = false;
    m->sources = sf__calloc(m->alloc, (size_t)count + 1, sizeof(sf_scan_source *));
    return m->sources && sf__kway_init(&m->kway, count, m->reverse ? SF_KWAY_REVERSE : SF_KWAY_FORWARD, m->alloc);
}

static void stand(sf_merge *m, uint32_t i)
{
    if (m->sources[i]->state == SF_SOURCE_AT_ROW)
        sf__kway_set(&m->kway, i, m->sources[i]->key);
    else
        sf__kway_end(&m->kway, i);
}

void sf__merge_build(sf_merge *m)
{
    for (uint32_t i = 0; i < m->kway.count; i++)
        stand(m, i);
    sf__kway_build(&m->kway);
    m->built = true;
}

void sf__merge_top_moved(sf_merge *m)
{
    stand(m, sf__kway_winner(&m->kway));
    sf__kway_replay(&m->kway);
}

/* ------------------------------------------------------------------ versions ------------------------------------- */

static sf_status key_set(sf_merge *m, sf_bytes key, sf_error *err)
{
    if (!SF_RESERVE(m->alloc, &m->key, &m->key_cap, key.n))
        return sf_fail(err, SF_NOMEM, "key of %zu bytes", key.n);
    if (key.n > 0)
        memcpy(m->key, key.p, key.n);
    m->key_n = key.n;
    m->started = true;
    return SF_OK;
}

sf_status sf__merge_taken(sf_merge *m, sf_bytes key, sf_error *err)
{
    return key_set(m, key, err);
}

/* Whether `a` comes before `b`. */
static bool is_before(const sf_merge *m, sf_bytes a, sf_bytes b)
{
    int c = sf_bytes_cmp(a, b);

    return m->reverse ? c > 0 : c < 0;
}

bool sf__merge_top_alone(const sf_merge *m, const sf_bytes **before)
{
    const sf_scan_source *top = sf__merge_top(m);
    uint32_t next;

    *before = NULL;
    if (m->gathered || top->mem || (m->started && !is_before(m, sf__merge_key(m), top->key)))
        return false;
    if (!sf__kway_runner_up(&m->kway, &next))
        return true;
    *before = &m->kway.slots[next].key;
    return is_before(m, top->key, **before);
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
    const sf_scan_source *top = sf__merge_top(m);
    int c = m->started ? sf_bytes_cmp(top->key, sf__merge_key(m)) : 0;
    sf_status rc;

    *complete = false;
    if (m->gathered && c == 0) {
        if (top->seq > m->seq)
            version_set(m, top);
        return SF_OK;
    }
    if (m->started && (m->reverse ? c >= 0 : c <= 0))
        return sf_fail(err, SF_CORRUPT, SF_ROWS_OUT_OF_ORDER);
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
