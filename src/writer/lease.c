#include "writer/lease.h"

#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "snapshot/datetime.h"
#include "writer/owner.h"
#include "writer/site_open.h"

#define RUN_ID "_run_id="

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static sf_status put_record(sf_lease *l, const sf_run_record *r, const sf_cancel_flag *cancel, bool create_only,
                            sf_error *err)
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

static sf_run_record record_now(const sf_lease *l, sf_run_status status, const char *manifest_ref)
{
    int64_t now = sf__store_now_us(l->site->store);

    return (sf_run_record){
        .format_version = 1,
        .run_id = l->options.run_id,
        .writer_type = l->options.writer_type,
        .status = status,
        .started_at_us = l->started_at_us,
        .updated_at_us = now,
        .lease_expires_at_us = status == SF_RUN_RUNNING ? now + l->options.lease_ms * 1000 : now,
        .s3_prefix = l->site->prefix,
        .shard_prefix = l->options.shard_prefix,
        .db_path_template = l->options.db_path_template,
        .manifest_ref = manifest_ref,
    };
}

static void log_failure(const sf_lease *l, const char *what, const sf_error *e)
{
    sf__log(&l->site->rt->log, SF_LOG_WARN, "writer", "%s: the run record could not be %s: %s",
            l->url ? l->url : l->site->prefix, what, e->message);
}

/* ------------------------------------------------------------------ heartbeat ------------------------------------ */

/* False when it is time to stop. Called and left with the lock held. */
static bool sleep_until_beat(sf_lease *l)
{
    uint64_t due_ns = sf__deadline_in_ms(l->options.heartbeat_ms);

    while (!l->stopping && sf__clock_mono_ns() < due_ns)
        sf_cond_wait_until(&l->wake, &l->lock, due_ns);
    return !l->stopping;
}

static void *beat(void *ctx)
{
    sf_lease *l = ctx;

    sf_mutex_lock(&l->lock);
    while (sleep_until_beat(l)) {
        sf_run_record r = record_now(l, SF_RUN_RUNNING, l->manifest_ref);
        sf_error e = SF_ERROR_INIT;
        int64_t began_ms = now_ms();
        sf_status rc;

        sf_mutex_unlock(&l->lock);
        rc = put_record(l, &r, &l->stop, false, &e);
        if (rc != SF_OK && !sf__is_cancelled(&l->stop))
            log_failure(l, "renewed", &e);
        sf_mutex_lock(&l->lock);
        if (rc == SF_OK && began_ms - l->renewed_ms <= l->options.lease_ms) /* what lapsed once stays so */
            l->renewed_ms = began_ms;
    }
    sf_mutex_unlock(&l->lock);
    return NULL;
}

/* A request that is cut off may still arrive, behind the last word that follows: it is waited for where that would matter. */
static void stop_thread(sf_lease *l, bool cut_off)
{
    if (!l->has_thread)
        return;
    if (cut_off)
        atomic_store_explicit(&l->stop, true, memory_order_relaxed);
    sf_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_signal(&l->wake);
    sf_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    l->has_thread = false;
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

sf_status sf__lease_folder_format(char **out, int64_t started_at_us, const char *run_id, const sf_allocator *a,
                                  sf_error *err)
{
    char time[SF_DATETIME_TEXT], id[SF_HEX128_TEXT];

    if (!sf__owner_hex(id))
        return sf_fail(err, SF_IO, "the system has no random bytes");
    sf__datetime_format_folder(time, started_at_us);
    *out = sf__asprintf(a, "%s" RUN_ID "%s_%s", time, run_id, id);
    return *out ? SF_OK : sf_fail(err, SF_NOMEM, "run record");
}

static sf_status make_name(sf_lease *l, sf_error *err)
{
    const sf_allocator *a = l->site->rt->alloc;
    char *folder;
    sf_status rc = sf__lease_folder_format(&folder, l->started_at_us, l->options.run_id, a, err);

    if (rc != SF_OK)
        return rc;
    l->name = sf__asprintf(a, "%s/%s/" SF_RUN_RECORD_NAME, l->options.run_registry_prefix, folder);
    sf__free(a, folder);
    l->url = l->name ? sf__site_url(l->site, l->name) : NULL;
    return l->url ? SF_OK : sf_fail(err, SF_NOMEM, "run record");
}

bool sf__lease_folder_parse(const char *folder, sf_bytes *run_id, const char **owner)
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

/* The store answered, and would answer the same to a shard: the rows need not come. */
static bool is_for_good(sf_status rc)
{
    return rc == SF_DENIED || rc == SF_NOT_FOUND || rc == SF_IO || rc == SF_INVALID;
}

static void forget_record(sf_lease *l)
{
    sf__free(l->site->rt->alloc, l->name);
    sf__free(l->site->rt->alloc, l->url);
    l->name = l->url = NULL;
}

sf_status sf__lease_start(sf_lease *l, const sf_site *site, const sf_lease_options *options, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_run_record r;
    sf_status rc;

    *l = (sf_lease){.site = site, .options = *options, .started_at_us = sf__site_now_us(site)};
    atomic_init(&l->stop, false);
    sf_mutex_init(&l->lock);
    sf_cond_init(&l->wake);
    if (!options->run_registry_prefix)
        return SF_OK;
    rc = make_name(l, &e);
    if (rc == SF_OK) {
        r = record_now(l, SF_RUN_RUNNING, NULL);
        l->renewed_ms = now_ms();
        rc = put_record(l, &r, NULL, true, &e);
    }
    if (rc == SF_NOMEM || is_for_good(rc)) {
        sf__lease_cleanup(l);
        if (err)
            *err = e;
        return rc;
    }
    if (rc != SF_OK) {
        log_failure(l, "created", &e);
        forget_record(l);
        return SF_OK;
    }
    l->has_thread = sf__thread_start(&l->thread, beat, l) == 0;
    if (!l->has_thread)
        sf__log(&site->rt->log, SF_LOG_WARN, "writer", "%s: no thread for the heartbeat; the lease ends in %lld s",
                l->url, (long long)(options->lease_ms / 1000));
    return SF_OK;
}

bool sf__lease_has_lapsed(sf_lease *l)
{
    bool lapsed;

    sf_mutex_lock(&l->lock);
    lapsed = l->name && now_ms() - l->renewed_ms > l->options.lease_ms;
    sf_mutex_unlock(&l->lock);
    return lapsed;
}

void sf__lease_announce(sf_lease *l, const char *manifest_ref)
{
    sf_mutex_lock(&l->lock);
    l->manifest_ref = manifest_ref;
    sf_mutex_unlock(&l->lock);
}

void sf__lease_finish(sf_lease *l, sf_run_status status, const char *error_type, const char *error_message)
{
    sf_error e = SF_ERROR_INIT;
    sf_run_record r;

    if (!l->site || !l->name)
        return;
    stop_thread(l, status != SF_RUN_SUCCEEDED);
    r = record_now(l, status, l->manifest_ref);
    r.error_type = error_type;
    r.error_message = error_message;
    if (put_record(l, &r, NULL, false, &e) != SF_OK)
        log_failure(l, "finished", &e);
    sf__free(l->site->rt->alloc, l->name); /* the URL stays: it is reported */
    l->name = NULL;
}

void sf__lease_cleanup(sf_lease *l)
{
    if (!l->site)
        return;
    stop_thread(l, true);
    forget_record(l);
    sf_cond_destroy(&l->wake);
    sf_mutex_destroy(&l->lock);
    *l = (sf_lease){.site = NULL};
}
