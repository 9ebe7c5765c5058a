#include "writer/rerun.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/limits.h"
#include "snapshot/datetime.h"
#include "snapshot/run_record.h"
#include "writer/site_lease.h"
#include "writer/owner.h"

/* ------------------------------------------------------------------ leases --------------------------------------- */

static sf_status fail_live(const sf_site *s, const char *name, const sf_run_record *r, sf_error *err)
{
    char until[SF_DATETIME_TEXT], url[512];

    sf__datetime_format_folder(until, r->lease_expires_at_us);
    snprintf(url, sizeof(url), "%s/%s", s->prefix, name);
    sf_fail(err, SF_CONFLICT,
            "another writer works on run '%s': its lease ends at %s unless it is renewed; wait for it, or take another "
            "run id",
            r->run_id, until);
    sf_error_object(err, url);
    return SF_CONFLICT;
}

static sf_status check_record(const sf_site *s, const char *folder, const char *owner, const sf_cancel_flag *cancel,
                              sf_error *err)
{
    const sf_allocator *a = s->rt->alloc;
    char *name = sf__asprintf(a, "%s" SF_RUN_RECORD_NAME, folder);
    sf_buf *bytes = NULL;
    sf_run_record r;
    sf_arena arena;
    sf_status rc;

    if (!name)
        return sf_fail(err, SF_NOMEM, "run record");
    sf__arena_init(&arena, a);
    rc = sf__site_get(s, name, SF_LIMIT_RUN_RECORD_BYTES, cancel, &bytes, NULL, err);
    if (rc == SF_OK)
        rc = sf__run_record_parse(&r, &arena, sf__buf_bytes(bytes), err);
    if (rc == SF_OK && sf__run_record_is_live(&r, sf__site_now_us(s))) {
        if (sf__owner_is_gone(owner))
            sf__log(&s->rt->log, SF_LOG_WARN, "writer",
                    "%s: its writer, a process of this machine, has ended; its run "
                    "goes on under the next numbers",
                    name);
        else
            rc = fail_live(s, name, &r, err);
    }
    sf__buf_release(bytes);
    sf__arena_cleanup(&arena);
    sf__free(a, name);
    return rc;
}

static bool is_fatal(sf_status rc)
{
    return rc == SF_CONFLICT || rc == SF_NOMEM || rc == SF_CANCELLED;
}

sf_status sf__rerun_check_lease(const sf_site *s, const char *registry, const char *run_id,
                                const sf_cancel_flag *cancel, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_store_listing l;
    sf_status rc = sf__site_list(s, s->store, registry, "/", cancel, &l, &e);
    bool listed = rc == SF_OK;

    for (size_t i = 0; listed && i < l.entry_count && !is_fatal(rc); i++) {
        const char *folder = l.entries[i].key, *owner;
        sf_bytes id;

        if (l.entries[i].is_prefix && sf__run_folder_parse(folder, &id, &owner) && sf_bytes_eq(id, sf_bytes_str(run_id)))
            rc = check_record(s, folder, owner, cancel, &e);
    }
    if (listed)
        sf__store_listing_cleanup(&l);
    if (rc != SF_OK && is_fatal(rc)) {
        if (err)
            *err = e;
        return rc;
    }
    if (rc != SF_OK)
        sf__log(&s->rt->log, SF_LOG_WARN, "writer", "run %s: whether another writer is at it is not known: %s", run_id,
                e.message);
    return SF_OK;
}

/* ------------------------------------------------------------------ attempts ------------------------------------- */

sf_status sf__earlier_attempts_list(sf_earlier_attempts *out, const sf_site *s, const char *shard_prefix,
                                    const char *run_id, const sf_cancel_flag *cancel, sf_error *err)
{
    char *folder = sf__asprintf(s->rt->alloc, "%s/run_id=%s", shard_prefix, run_id);
    sf_status rc;

    *out = (sf_earlier_attempts){.listed = false};
    if (!folder)
        return sf_fail(err, SF_NOMEM, "earlier attempts of run %s", run_id);
    out->run_bytes = strlen(folder) + 1;
    rc = sf__site_list(s, s->shard_store, folder, NULL, cancel, &out->listing, err);
    sf__free(s->rt->alloc, folder);
    out->listed = rc == SF_OK;
    return rc;
}

sf_status sf__earlier_attempts_load(sf_earlier_attempts *out, const sf_site *s, const char *shard_prefix,
                                    const char *run_id, const sf_cancel_flag *cancel, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_status rc = sf__earlier_attempts_list(out, s, shard_prefix, run_id, cancel, &e);

    if (rc != SF_OK && is_fatal(rc)) {
        if (err)
            *err = e;
        return rc;
    }
    if (rc != SF_OK)
        sf__log(&s->rt->log, SF_LOG_WARN, "writer", "run %s: its earlier attempts could not be listed: %s", run_id,
                e.message);
    return SF_OK;
}

void sf__earlier_attempts_free(sf_earlier_attempts *e)
{
    if (e->listed)
        sf__store_listing_cleanup(&e->listing);
    e->listed = false;
}

/* "<digits>/..." */
static bool number_of(const char *text, uint32_t *number)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);

    *number = (uint32_t)v;
    return *text >= '0' && *text <= '9' && *end == '/' && v < UINT32_MAX;
}

bool sf__earlier_attempts_at(const sf_earlier_attempts *e, size_t index, sf_bytes *path, uint32_t *number)
{
    static const char mark[] = "/attempt=";
    const char *key = e->listing.entries[index].key, *begin = key + e->run_bytes;
    const char *at = strlen(key) > e->run_bytes ? strstr(begin, mark) : NULL;

    if (!at || !number_of(at + sizeof(mark) - 1, number))
        return false;
    *path = sf_bytes_of(begin, (size_t)(at - begin));
    return true;
}

size_t sf__earlier_attempts_first(const sf_earlier_attempts *e, const char *folder)
{
    size_t low = 0, high = e->listed ? e->listing.entry_count : 0;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(e->listing.entries[middle].key, folder) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t sf__earlier_attempts_bytes(const sf_earlier_attempts *e, const char *folder)
{
    size_t n = strlen(folder);
    uint64_t bytes = 0;

    for (size_t i = sf__earlier_attempts_first(e, folder); i < e->listing.entry_count; i++) {
        const sf_store_entry *entry = &e->listing.entries[i];

        if (strncmp(entry->key, folder, n) != 0)
            break;
        if (strcmp(entry->key + n, SF_FINISHED_RECORD_NAME) != 0)
            bytes += entry->size;
    }
    return bytes;
}

uint32_t sf__earlier_attempts_next(const sf_earlier_attempts *e, const char *folder)
{
    const sf_store_listing *l = &e->listing;
    size_t n = strlen(folder);
    uint32_t next = 0;

    for (size_t i = sf__earlier_attempts_first(e, folder);
         e->listed && i < l->entry_count && strncmp(l->entries[i].key, folder, n) == 0; i++) {
        uint32_t number;

        if (number_of(l->entries[i].key + n, &number) && number >= next)
            next = number + 1;
    }
    return next;
}
