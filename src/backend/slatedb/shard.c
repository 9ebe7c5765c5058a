#include "backend/slatedb/shard.h"

#include "backend/lookup.h"
#include "base/container.h"
#include "base/error.h"

static const sf_shard_vtable vtable = {
    .try_get = sf__slatedb_try_get,
    .try_get_together = sf__slatedb_try_get_together,
    .get_many = sf__slatedb_get_many,
    .get_many_cancel = sf__lookup_cancel,
    .scan_open = sf__slatedb_scan_open,
    .scan_next = sf__slatedb_scan_next,
    .scan_fill = sf__slatedb_scan_fill,
    .scan_fill_cancel = sf__slatedb_scan_fill_cancel,
    .scan_fill_overdue = sf__slatedb_scan_fill_overdue,
    .scan_free = sf__slatedb_scan_free,
    .check = sf__slatedb_check,
    .explain = sf__slatedb_explain,
    .hot_keys = sf__slatedb_hot_keys,
    .can_stay = sf__slatedb_can_stay,
    .resident_bytes = sf__slatedb_resident_bytes,
    .resident = sf__slatedb_resident,
    .resident_cancel = sf__slatedb_resident_cancel,
    .resident_let_go = sf__slatedb_resident_let_go,
    .free = sf__slatedb_shard_free,
};

sf_status sf__slatedb_shard_new(sf_slatedb_shard **out, const sf_shard_open *op, sf_error *err)
{
    const sf_allocator *a = op->rt->alloc;
    sf_slatedb_shard *s = sf__calloc(a, 1, sizeof(*s));

    if (!s || !sf__shard_init(&s->base, &vtable, op)) {
        sf__free(a, s);
        return sf_fail(err, SF_NOMEM, "shard");
    }
    s->store = sf__store_acquire(op->store);
    s->cost = op->cost;
    s->disk = op->disk ? sf__disk_cache_acquire(op->disk) : NULL;
    *out = s;
    return SF_OK;
}

void sf__slatedb_shard_free(sf_shard *base)
{
    sf_slatedb_shard *s = sf_container_of(base, sf_slatedb_shard, base);
    sf_runtime *rt;

    if (!s)
        return;
    rt = base->rt;
    if (base->bytes_resident > 0)
        sf__block_cache_charge(base->cache, -(int64_t)base->bytes_resident);
    sf__read_view_cleanup(&s->view, rt->alloc);
    sf__store_release(s->store);
    sf__disk_cache_release(s->disk);
    sf__shard_destroy(base);
}
