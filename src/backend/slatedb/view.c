#include "backend/slatedb/view.h"

#include <stdlib.h>

#include "base/error.h"

/* ------------------------------------------------------------------ making it ------------------------------------ */

static int by_name(const void *pa, const void *pb, void *views)
{
    uint32_t a = *(const uint32_t *)pa, b = *(const uint32_t *)pb;
    int c = memcmp(((const sf_sst_view *)views)[a].ulid, ((const sf_sst_view *)views)[b].ulid, SF_ULID_TEXT_LEN);

    return c != 0 ? c : (a > b) - (a < b);
}

/* Two views of one SST have to describe the same file. */
static bool same_file(const sf_sst_view *a, const sf_sst_view *b)
{
    const sf_sst_info *x = &a->info, *y = &b->info;

    return x->index_off == y->index_off && x->index_len == y->index_len && x->filter_off == y->filter_off &&
           x->filter_len == y->filter_len && x->filter_format == y->filter_format && x->codec == y->codec &&
           x->sst_type == y->sst_type && a->format_version == b->format_version;
}

static bool shows_all(const sf_sst_view *v)
{
    return v->info.has_first_key && !v->visible;
}

static void find_only(sf_read_view *v)
{
    const sf_slatedb_tree *t = v->manifest.tree_count == 1 ? &v->manifest.trees[0] : NULL;
    const sf_sst_view *ssts = NULL;
    uint32_t n = 0;

    if (t && t->prefix.n == 0 && t->l0_count + t->run_count == 1) {
        ssts = t->run_count == 1 ? t->runs[0].ssts : t->l0;
        n = t->run_count == 1 ? t->runs[0].sst_count : 1;
    }
    for (uint32_t i = 0; i < n; i++)
        if (!shows_all(&ssts[i]))
            return;
    v->only = ssts;
    v->only_count = n;
    v->only_sst = n == 1 ? sf__read_view_sst(v, ssts) : NULL;
}

sf_status sf__read_view_ssts(sf_read_view *v, const sf_store *store, const char *db_path, sf_disk_cache *disk,
                             const sf_allocator *a, sf_error *err)
{
    const sf_slatedb_manifest *m = &v->manifest;
    uint32_t n = m->view_count;
    size_t room = n > 0 ? n : 1;
    uint32_t *order = sf__calloc(a, room, sizeof(*order));
    bool in_order = true;
    sf_status rc = SF_OK;

    v->ssts = sf__calloc(a, room, sizeof(*v->ssts));
    v->sst_of_view = sf__calloc(a, room, sizeof(*v->sst_of_view));
    if (!order || !v->ssts || !v->sst_of_view)
        rc = sf_fail(err, SF_NOMEM, "%u SSTs", n);
    for (uint32_t i = 0; rc == SF_OK && i < n; i++)
        order[i] = i;
    if (rc == SF_OK)
        qsort_r(order, n, sizeof(*order), by_name, m->views);
    for (uint32_t i = 0; rc == SF_OK && i < n; i++) {
        const sf_sst_view *sv = &m->views[order[i]];
        sf_sst *last = v->sst_count > 0 ? &v->ssts[v->sst_count - 1] : NULL;

        if (!last || memcmp(last->view->ulid, sv->ulid, SF_ULID_TEXT_LEN) != 0) {
            last = &v->ssts[v->sst_count++];
            rc = sf__sst_init(last, sv, store, db_path, disk, a, err);
        } else if (!same_file(last->view, sv)) {
            rc = sf_fail(err, SF_CORRUPT, "SlateDB manifest: SST %s is described in two ways", sv->ulid);
        }
        v->sst_of_view[order[i]] = last;
        in_order = in_order && last == &v->ssts[order[i]];
    }
    if (in_order) {
        sf__free(a, v->sst_of_view);
        v->sst_of_view = NULL;
    }
    sf__free(a, order);
    if (rc == SF_OK)
        find_only(v);
    return rc;
}

void sf__read_view_cleanup(sf_read_view *v, const sf_allocator *a)
{
    for (uint32_t i = 0; i < v->sst_count; i++)
        sf__sst_cleanup(&v->ssts[i], a);
    sf__free(a, v->ssts);
    sf__free(a, v->sst_of_view);
    sf__memtable_free(v->memtable, a);
    sf__slatedb_manifest_cleanup(&v->manifest);
    *v = (sf_read_view){0};
}

size_t sf__read_view_resident_bytes(const sf_read_view *v)
{
    size_t n = v->manifest.bytes + (v->sst_of_view ? (size_t)v->manifest.view_count * sizeof(sf_sst *) : 0) +
               sf__memtable_resident_bytes(v->memtable);

    for (uint32_t i = 0; i < v->sst_count; i++)
        n += sf__sst_resident_bytes(&v->ssts[i]);
    return n;
}

/* ------------------------------------------------------------------ looking up ----------------------------------- */

/* Whether SST i of a run may hold keys >= `key`. Without a last key it reaches to the first key of the next. */
static bool reaches(const sf_sst_view *ssts, uint32_t count, uint32_t i, sf_bytes key)
{
    if (ssts[i].info.has_last_key)
        return sf_bytes_cmp(ssts[i].info.last_key, key) >= 0;
    return i + 1 == count || sf_bytes_cmp(ssts[i + 1].info.first_key, key) >= 0;
}

uint32_t sf__run_first_from(const sf_sst_view *ssts, uint32_t count, sf_bytes key)
{
    uint32_t lo = 0, hi = count; /* the first that begins above `key` */

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (sf_bytes_cmp(ssts[mid].info.first_key, key) <= 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    while (lo > 0 && reaches(ssts, count, lo - 1, key)) /* more than one: neighbours that share a boundary key */
        lo--;
    return lo;
}

const sf_sst *sf__read_view_only_of_run(const sf_read_view *v, sf_bytes key)
{
    uint32_t i = sf__run_first_from(v->only, v->only_count, key);

    if (i == v->only_count || (i + 1 < v->only_count && sf_bytes_cmp(v->only[i + 1].info.first_key, key) <= 0))
        return NULL; /* in none, or perhaps in two */
    return sf__read_view_sst(v, &v->only[i]);
}

void sf__probe_init(sf_probe *p, const sf_read_view *v, sf_bytes key)
{
    *p = (sf_probe){.key = key};
    p->tree = key.n > 0 ? sf__slatedb_manifest_tree(&v->manifest, key) : NULL; /* no row has an empty key */
}

static bool filter_says_no(sf_probe *p, const sf_sst *sst)
{
    if (sst->filter.count == 0)
        return false;
    if (!p->hashed) {
        p->hash = sf__filter_hash(p->key);
        p->hashed = true;
    }
    return !sf__filter_may_contain_hash(&sst->filter, p->hash);
}

bool sf__probe_ruled_out(sf_probe *p)
{
    bool no = p->unfiltered && filter_says_no(p, p->sst);

    p->unfiltered = false;
    if (no)
        p->block = p->block_end;
    return no;
}

static bool consider(sf_probe *p, const sf_read_view *v, const sf_sst_view *sv)
{
    const sf_sst *sst;
    sf_index_range r;

    if (!sf__sst_view_may_hold(sv, p->key))
        return false;
    sst = sf__read_view_sst(v, sv);
    p->unfiltered = p->tree->l0_count + p->tree->run_count == 1;
    if (!p->unfiltered && filter_says_no(p, sst))
        return false;
    r = sf__index_candidates(&sst->index, p->key);
    if (r.first > r.last)
        return false;
    p->sst = sst;
    p->block = r.first;
    p->block_end = r.last + 1;
    return true;
}

static bool next_in_run(sf_probe *p, const sf_read_view *v)
{
    while (p->next_in_run < p->run->sst_count) {
        const sf_sst_view *sv = &p->run->ssts[p->next_in_run++];

        if (sf_bytes_cmp(sv->info.first_key, p->key) > 0)
            break;
        if (consider(p, v, sv))
            return true;
    }
    p->run = NULL;
    return false;
}

bool sf__probe_next_sst(sf_probe *p, const sf_read_view *v)
{
    const sf_slatedb_tree *t = p->tree;

    if (!t)
        return false;
    if (p->run && next_in_run(p, v))
        return true;
    while (p->next_source < t->l0_count)
        if (consider(p, v, &t->l0[p->next_source++]))
            return true;
    while (p->next_source - t->l0_count < t->run_count) {
        p->run = &t->runs[p->next_source++ - t->l0_count];
        p->next_in_run = sf__run_first_from(p->run->ssts, p->run->sst_count, p->key);
        if (next_in_run(p, v))
            return true;
    }
    return false;
}
