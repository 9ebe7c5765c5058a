#include "writer/site_lease.h"

#include "base/error.h"
#include "snapshot/datetime.h"
#include "writer/manifest_store.h"
#include "writer/owner.h"
#include "writer/site_open.h"

#define RUN_ID "_run_id="

/* ------------------------------------------------------------------ the folder's name --------------------------- */

sf_status sf__run_folder_format(char **out, int64_t started_at_us, const char *run_id, const sf_allocator *a,
                                sf_error *err)
{
    char time[SF_DATETIME_TEXT], id[SF_HEX128_TEXT];

    if (!sf__owner_hex(id))
        return sf_fail(err, SF_IO, "the system has no random bytes");
    sf__datetime_format_folder(time, started_at_us);
    *out = sf__asprintf(a, "%s" RUN_ID "%s_%s", time, run_id, id);
    return *out ? SF_OK : sf_fail(err, SF_NOMEM, "run record");
}

bool sf__run_folder_parse(const char *folder, sf_bytes *run_id, const char **owner)
{
    const char *name = strchr(folder, '/'), *begin = name ? strstr(name, RUN_ID) : NULL;
    size_t n, digits = SF_HEX128_TEXT - 1;

    if (!begin)
        return false;
    begin += sizeof(RUN_ID) - 1;
    n = strlen(begin);
    if (n < digits + 3 || begin[n - 1] != '/' || begin[n - digits - 2] != '_')
        return false;
    *run_id = sf_bytes_of(begin, n - digits - 2);
    if (owner)
        *owner = begin + n - digits - 1;
    return true;
}

/* ------------------------------------------------------------------ the keeper ----------------------------------- */

static sf_status put_record(const sf_site_lease *l, const sf_run_record *r, const sf_cancel_flag *cancel,
                            bool create_only, sf_error *err)
{
    const sf_allocator *a = l->site->rt->alloc;
    sf_site_put put = {.name = l->name, .content_type = SF_RUN_RECORD_CONTENT_TYPE, .create_only = create_only};
    char *text;
    size_t n;
    sf_status rc = sf__run_record_format(&text, &n, r, a, err);

    if (rc != SF_OK)
        return rc;
    put.body = sf_bytes_of(text, n);
    rc = sf__site_put(l->site, &put, cancel, NULL, err);
    sf__free(a, text);
    return rc;
}

static void log_failure(const sf_site_lease *l, const char *what, const sf_error *e)
{
    sf__log(&l->site->rt->log, SF_LOG_WARN, "writer", "%s: the run record could not be %s: %s",
            l->url ? l->url : l->site->prefix, what, e->message);
}

static bool keeper_put(void *ctx, const sf_run_record *r, const sf_cancel_flag *cancel)
{
    const sf_site_lease *l = ctx;
    sf_error e = SF_ERROR_INIT;
    sf_status rc = put_record(l, r, cancel, false, &e);

    if (rc != SF_OK && !sf__is_cancelled(cancel))
        log_failure(l, r->status == SF_RUN_RUNNING ? "renewed" : "finished", &e);
    return rc == SF_OK;
}

static int64_t keeper_now_us(void *ctx)
{
    return sf__store_now_us(((const sf_site_lease *)ctx)->site->store);
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

static sf_status make_name(sf_site_lease *l, const char *run_registry_prefix, sf_error *err)
{
    const sf_allocator *a = l->site->rt->alloc;
    const sf_lease_options *o = &l->lease.options;
    char *folder;
    sf_status rc = sf__run_folder_format(&folder, o->started_at_us, o->run_id, a, err);

    if (rc != SF_OK)
        return rc;
    l->name = sf__asprintf(a, "%s/%s/" SF_RUN_RECORD_NAME, run_registry_prefix, folder);
    sf__free(a, folder);
    l->url = l->name ? sf__site_url(l->site, l->name) : NULL;
    return l->url ? SF_OK : sf_fail(err, SF_NOMEM, "run record");
}

static void forget_record(sf_site_lease *l)
{
    sf__free(l->site->rt->alloc, l->name);
    sf__free(l->site->rt->alloc, l->url);
    l->name = l->url = NULL;
}

static void *beat(void *ctx)
{
    sf__thread_name("sf-heartbeat");
    sf__lease_run(ctx);
    return NULL;
}

sf_status sf__site_lease_start(sf_site_lease *l, const sf_site *site, const char *run_registry_prefix,
                               const sf_lease_options *options, sf_error *err)
{
    sf_lease_keeper keeper = {.ctx = l, .put = keeper_put, .now_us = keeper_now_us};
    sf_lease_options o = *options;
    sf_error e = SF_ERROR_INIT;
    sf_run_record r;
    sf_status rc;

    *l = (sf_site_lease){.site = site};
    o.s3_prefix = site->prefix;
    o.manifest_store = site->manifests ? site->manifests->name : NULL;
    o.started_at_us = sf__site_now_us(site);
    o.renewed_ms = sf__lease_clock_ms();
    sf__lease_init(&l->lease, &keeper, &o);
    if (!run_registry_prefix)
        return SF_OK;
    rc = make_name(l, run_registry_prefix, &e);
    if (rc == SF_OK) {
        r = sf__lease_record(&l->lease, SF_RUN_RUNNING, NULL);
        rc = put_record(l, &r, NULL, true, &e);
    }
    if (rc == SF_NOMEM || sf__lease_is_refused(rc)) {
        sf__site_lease_cleanup(l);
        if (err)
            *err = e;
        return rc;
    }
    if (rc != SF_OK) {
        log_failure(l, "created", &e);
        forget_record(l);
        return SF_OK;
    }
    l->has_thread = sf__thread_start(&l->thread, beat, &l->lease) == 0;
    if (!l->has_thread)
        sf__log(&site->rt->log, SF_LOG_WARN, "writer", "%s: no thread for the heartbeat; the lease ends in %lld s",
                l->url, (long long)(o.lease_ms / 1000));
    return SF_OK;
}

bool sf__site_lease_has_lapsed(sf_site_lease *l)
{
    return l->name && sf__lease_has_lapsed(&l->lease, sf__lease_clock_ms());
}

void sf__site_lease_intend(sf_site_lease *l, const char *manifest_ref)
{
    sf__lease_announce(&l->lease, manifest_ref);
    if (l->name)
        sf__lease_renew(&l->lease);
}

static void stop_thread(sf_site_lease *l, bool cut_off)
{
    sf__lease_stop(&l->lease, cut_off);
    if (l->has_thread)
        pthread_join(l->thread, NULL);
    l->has_thread = false;
}

void sf__site_lease_finish(sf_site_lease *l, sf_run_status status, const char *error_type, const char *error_message)
{
    if (!l->site || !l->name)
        return;
    stop_thread(l, status != SF_RUN_SUCCEEDED);
    sf__lease_finish(&l->lease, status, error_type, error_message);
    sf__free(l->site->rt->alloc, l->name); /* the URL stays: it is reported */
    l->name = NULL;
}

void sf__site_lease_cleanup(sf_site_lease *l)
{
    if (!l->site)
        return;
    stop_thread(l, true);
    sf__lease_cleanup(&l->lease);
    forget_record(l);
    *l = (sf_site_lease){.site = NULL};
}
