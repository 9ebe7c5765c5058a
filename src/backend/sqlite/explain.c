/* What a look-up of one key considers, as far as memory tells: the page where its way ends. */
#include "backend/sqlite/shard.h"
#include "base/container.h"
#include "base/error.h"
#include "base/pin.h"

void sf__sqlite_explain(sf_shard *base, sf_bytes key, sf_look_fn look, void *ctx)
{
    const sf_sqlite_shard *s = sf_container_of(base, sf_sqlite_shard, base);
    sf_tree_walk w = sf__sqlite_walk(s);
    sf_tree_descent d = {0};
    char url[sizeof(((sf_error *)NULL)->object)];
    sf_look seen = {.object = url, .length = s->pages.page_bytes};
    sf_value value = {0};
    sf_status rc = sf__tree_get(&w, &d, key, &value, NULL);

    sf__store_object_url(s->store, s->key, url, sizeof(url));
    seen.answer = rc != SF_OK ? SF_LOOK_UNKNOWN : value.found ? SF_LOOK_FOUND : SF_LOOK_NOT_THERE;
    seen.offset = sf__page_off(&s->pages, rc != SF_OK ? w.need.first : d.place.page);
    look(ctx, &seen);
    sf__owner_release(value.owner);
    sf__tree_descent_drop(&d);
}
