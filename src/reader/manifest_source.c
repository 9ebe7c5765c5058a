#include "reader/manifest_source.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/options.h"

sf_status sf__foreign_manifests_new(sf_foreign_manifests **out, const sf_manifest_source *given, sf_error *err)
{
    sf_manifest_source whole = {0};
    sf_status rc = sf__options_take(&whole, sizeof(whole), given, "source of manifests", err);
    sf_foreign_manifests *f;

    if (rc != SF_OK)
        return rc;
    if (!whole.load_current || !whole.load_manifest || !whole.list_manifests || !whole.retain != !whole.release)
        return sf_fail(err, SF_INVALID, "source of manifests: %s is missing",
                       !whole.load_current     ? "load_current"
                       : !whole.load_manifest  ? "load_manifest"
                       : !whole.list_manifests ? "list_manifests"
                       : whole.retain          ? "release"
                                               : "retain");
    f = sf__calloc(&sf__allocator_default, 1, sizeof(*f));
    if (!f)
        return sf_fail(err, SF_NOMEM, "source of manifests");
    f->source = whole;
    atomic_init(&f->refs, 1);
    if (whole.retain)
        whole.retain(whole.ctx);
    *out = f;
    return SF_OK;
}

sf_foreign_manifests *sf__foreign_manifests_acquire(sf_foreign_manifests *f)
{
    atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
    return f;
}

void sf__foreign_manifests_release(sf_foreign_manifests *f)
{
    if (!f || atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (f->source.release)
        f->source.release(f->source.ctx);
    sf__free(&sf__allocator_default, f);
}
