#include "backend/shard_check.h"

#include <string.h>

#include "base/error.h"

sf_status sf__shard_check_judge(sf_shard_check *c, const sf_store *store, const char *key, uint64_t off, sf_status rc,
                                sf_error *err)
{
    if (rc == SF_OK)
        return SF_OK;
    if (err->object[0] == '\0') { /* of what was read, not of reading it */
        char url[sizeof(err->object)];

        sf__store_object_url(store, key, url, sizeof(url));
        sf_error_prefix(err, rc, "%s: ", url);
        sf_error_object(err, url);
    }
    sf_error_recode(err, rc);
    if (!sf__is_damage(rc))
        return rc;
    c->found(c, err, off);
    sf_error_clear(err);
    return SF_OK;
}
