#include "snapshot/content_hashes.h"

#include "base/error.h"

/* A number as JSON writers write it: no sign, no zeros in front. */
static bool db_id_of(sf_bytes name, uint32_t num_dbs, uint32_t *db_id)
{
    uint64_t v = 0;

    if (name.n == 0 || name.n > 10 || (name.n > 1 && name.p[0] == '0'))
        return false;
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] < '0' || name.p[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(name.p[i] - '0');
    }
    *db_id = (uint32_t)v;
    return v < num_dbs;
}

static sf_status collect(sf_content_hashes *h, uint32_t num_dbs, sf_error *err)
{
    const sf_json *all = sf__json_get(h->doc.root, "content_hash");
    const sf_json *algorithm = sf__json_get(all, "algorithm"), *shards = sf__json_get(all, "shards");
    uint32_t db_id;

    if (!algorithm || algorithm->kind != SF_JSON_STRING || !sf_bytes_eq(algorithm->str, sf_bytes_str("xxh3_128")) ||
        !shards || shards->kind != SF_JSON_OBJECT)
        return SF_OK;
    h->hex = sf__calloc(h->alloc, num_dbs, sizeof(*h->hex));
    if (!h->hex)
        return sf_fail(err, SF_NOMEM, "content hashes of %u shards", num_dbs);
    for (const sf_json *one = shards->first; one; one = one->next)
        if (one->kind == SF_JSON_STRING && one->str.n == 32 && db_id_of(one->key, num_dbs, &db_id))
            h->hex[db_id] = one->str;
    return SF_OK;
}

sf_status sf__content_hashes_init(sf_content_hashes *h, const sf_snapshot_manifest *m, const sf_allocator *a,
                                  sf_error *err)
{
    const char *custom = m ? m->custom_json : NULL;
    sf_status rc;

    *h = (sf_content_hashes){.alloc = a};
    if (!custom)
        return SF_OK;
    rc = sf__json_parse(&h->doc, sf_bytes_str(custom), SF_JSON_NAN | SF_JSON_LONE_SURROGATES, a, err);
    if (rc == SF_NOMEM)
        return rc;
    if (rc != SF_OK) {
        sf_error_clear(err);
        return SF_OK;
    }
    rc = collect(h, m->num_dbs, err);
    if (rc != SF_OK)
        sf__content_hashes_cleanup(h);
    return rc;
}

sf_bytes sf__content_hashes_of(const sf_content_hashes *h, uint32_t db_id)
{
    return h->hex ? h->hex[db_id] : (sf_bytes){0};
}

void sf__content_hashes_cleanup(sf_content_hashes *h)
{
    if (h->hex)
        sf__free(h->alloc, h->hex);
    if (h->doc.root)
        sf__json_cleanup(&h->doc);
    *h = (sf_content_hashes){0};
}
