/* doctor: whether the prefix can be reached, read and published to, and what stands in the way. Requests are
 * not repeated, so that what fails now and then is seen; all of them together have as long as one operation
 * of another command. */
#include "cli.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define POINTER_MAX_BYTES (1u << 20)
#define ROUND_TRIPS 20
#define NEWEST_MANIFESTS 1000 /* among which the pointer's is looked for */
#define REMOVAL_MS 10000      /* at least, for what must not be left behind */
#define CLOCK_REFUSED_S 900   /* S3 refuses requests that are signed by a clock which is further off */
#define PROBE_NAME "_doctor-" /* and 16 digits */

enum diagnosis { DIAGNOSIS_OK, DIAGNOSIS_WARNING, DIAGNOSIS_FAILED, DIAGNOSIS_SKIPPED };
static const char *const diagnoses[] = {"ok", "warning", "failed", "skipped"};

/* In the order in which they are told. */
enum check {
    CHECK_SETTINGS,
    CHECK_CREDENTIALS,
    CHECK_ENDPOINT,
    CHECK_TLS,
    CHECK_CLOCK,
    CHECK_DATABASE, /* where manifests are in PostgreSQL */
    CHECK_POINTER,
    CHECK_LIST,
    CHECK_SNAPSHOT,
    CHECK_SHARD,
    CHECK_RANGES,
    CHECK_LATENCY,
    CHECK_WRITE, /* with --write: */
    CHECK_CREATE_ONLY,
    CHECK_REPLACE_ONLY,
    CHECK_DELETE,
    CHECK_COUNT
};
static const char *const checks[CHECK_COUNT] = {
    "settings", "credentials", "endpoint", "tls",     "clock", "database",    "pointer",      "list",
    "snapshot", "shard",       "ranges",   "latency", "write", "create-only", "replace-only", "delete"};

struct doctor {
    struct cli *c;
    const char *place; /* the pointer's URL, or the prefix that shards lie below */
    struct list list;
    sf_bucket *bucket;           /* repeats nothing */
    char root[1024], path[4096]; /* of the prefix */
    char pointer[4200];          /* its key */
    sf_object current;           /* what the pointer holds; empty: there is none */
    bool on_s3, writes, failed;
    uint64_t began_ns;
    enum check next; /* to be told */
};

/* ------------------------------------------------------------------ time
 * ------------------------------------------ */

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Of the whole. */
static int64_t left_ms(const struct doctor *d)
{
    int64_t all = d->c->settings.timeout_ms, gone = (int64_t)((now_ns() - d->began_ns) / 1000000);

    return all == SF_TIMEOUT_NONE ? all : gone < all ? all - gone : 0;
}

/* ------------------------------------------------------------------ telling
 * --------------------------------------- */

static void doctor_line(struct text *t, const struct out *o, const struct cell *cells)
{
    static const enum out_colour colours[] = {COLOUR_GREEN, COLOUR_YELLOW, COLOUR_RED, COLOUR_BOLD};
    uint64_t diagnosis = DIAGNOSIS_OK;

    parse_choice("ok|warning|failed|skipped", cells[1].text, &diagnosis);
    text_printf(t, "%-12s  ", cells[0].text);
    out_colour(o, t, colours[diagnosis]);
    text_printf(t, "%s", cells[1].text);
    out_plain(o, t);
    if (cells[2].kind == CELL_TEXT) {
        text_printf(t, "%*s", (int)(9 - strlen(cells[1].text)), "");
        cell_put(t, o, &cells[2]);
    }
    text_putc(t, '\n');
}

static const struct column columns[] = {{"check", "CHECK"}, {"status", "STATUS"}, {"detail", "DETAIL"},
                                        {"ahead_seconds"},  {"p50_us"},           {"p99_us"}};

/* What it applies to and is not told is skipped before a later one is. */
static bool applies(const struct doctor *d, enum check check)
{
    bool has_object = !d->c->settings.dsn || d->writes; /* to read parts of */

    return (check < CHECK_CREDENTIALS || check > CHECK_CLOCK || d->on_s3) &&
           (check != CHECK_DATABASE || d->c->settings.dsn) &&
           ((check != CHECK_RANGES && check != CHECK_LATENCY) || has_object) && (check < CHECK_WRITE || d->writes);
}

static void tell_cells(struct doctor *d, enum check check, enum diagnosis diagnosis, const char *detail,
                       const struct cell *numbers)
{
    static const struct cell none[3] = {{.kind = CELL_ABSENT}, {.kind = CELL_ABSENT}, {.kind = CELL_ABSENT}};
    const struct cell *n = numbers ? numbers : none;
    struct cell said = {.kind = detail ? CELL_TEXT : CELL_ABSENT, .text = detail};

    if (interrupted())
        return;
    for (; d->next < check; d->next++)
        if (applies(d, d->next))
            list_row(&d->list, (struct cell[]){{.kind = CELL_TEXT, .text = checks[d->next]},
                                               {.kind = CELL_TEXT, .text = diagnoses[DIAGNOSIS_SKIPPED]},
                                               none[0],
                                               none[0],
                                               none[1],
                                               none[2]});
    if (check == CHECK_COUNT)
        return;
    list_row(&d->list, (struct cell[]){{.kind = CELL_TEXT, .text = checks[check]},
                                       {.kind = CELL_TEXT, .text = diagnoses[diagnosis]},
                                       said,
                                       n[0],
                                       n[1],
                                       n[2]});
    if (d->c->out.terminal)
        fflush(d->c->out.to);
    d->failed |= diagnosis == DIAGNOSIS_FAILED;
    d->next = check + 1;
}

static void tell(struct doctor *d, enum check check, enum diagnosis diagnosis, const char *fmt, ...) SF_PRINTF(4, 5);
static void tell(struct doctor *d, enum check check, enum diagnosis diagnosis, const char *fmt, ...)
{
    char detail[2048];
    va_list args;

    va_start(args, fmt);
    vsnprintf(detail, sizeof(detail), fmt, args);
    va_end(args);
    tell_cells(d, check, diagnosis, detail, NULL);
}

/* ------------------------------------------------------------------ how it is reached
 * ------------------------------ */

static void check_settings(struct doctor *d)
{
    const struct settings *s = &d->c->settings;

    tell(d, CHECK_SETTINGS, DIAGNOSIS_OK, "%s%s%s%s%s", d->place, s->config_path ? ", by " : "",
         s->config_path ? s->config_path : "", s->env_file ? ", shards by " : "", s->env_file ? s->env_file : "");
}

static void say_credentials(const struct doctor *d, const sf_bucket_info *info, char *out, size_t n)
{
    const struct settings *s = &d->c->settings;

    if (s->s3.access_key_id)
        snprintf(out, n, "keys%s of [%s] in %s", s->s3.session_token ? " with a session token" : "", s->profile,
                 s->credentials_path);
    else if (info->credentials)
        snprintf(out, n, "%s", info->credentials);
    else
        snprintf(out, n, "none: requests go unsigned%s%s%s", info->looked_at ? " (looked at: " : "",
                 info->looked_at ? info->looked_at : "", info->looked_at ? ")" : "");
}

static void check_tls(struct doctor *d, const sf_bucket_info *info)
{
    if (!info->encrypted)
        tell(d, CHECK_TLS, DIAGNOSIS_WARNING, "none: what is sent can be read on its way");
    else if (info->insecure)
        tell(d, CHECK_TLS, DIAGNOSIS_WARNING, "the certificate is not verified (verify_ssl)");
    else
        tell(d, CHECK_TLS, DIAGNOSIS_OK, "the certificate is verified by %s",
             info->ca_bundle ? info->ca_bundle : "the system's authorities");
}

static void check_clock(struct doctor *d, const sf_bucket_info *info)
{
    int64_t ahead = (info->clock_ahead_us + (info->clock_ahead_us < 0 ? -500000 : 500000)) / 1000000, off = llabs(ahead);
    struct cell numbers[3] = {
        {.kind = CELL_SECONDS, .seconds = (double)-ahead}, {.kind = CELL_ABSENT}, {.kind = CELL_ABSENT}};
    struct text detail = {0};

    if (!info->has_told_time) {
        tell(d, CHECK_CLOCK, DIAGNOSIS_WARNING, "the store does not tell the time");
        return;
    }
    if (off == 0) {
        text_puts(&detail, "within two seconds of the store's");
    } else {
        text_puts(&detail, "this machine is ");
        text_duration(&detail, (double)off);
        text_puts(&detail, ahead < 0 ? " ahead of the store" : " behind the store");
        if (off >= CLOCK_REFUSED_S)
            text_puts(&detail, "; S3 refuses more than 15 minutes: set the clock");
    }
    tell_cells(d, CHECK_CLOCK,
               off == 0                ? DIAGNOSIS_OK
               : off < CLOCK_REFUSED_S ? DIAGNOSIS_WARNING
                                       : DIAGNOSIS_FAILED,
               text_str(&detail), numbers);
    text_free(&detail);
}

/* By the first answer, or its lack. False: there is no use in going on. */
static bool check_way(struct doctor *d, const sf_error *e)
{
    bool answered = e->code == SF_OK || e->http_status != 0;
    sf_bucket_info info;
    char said[1024];

    sf_bucket_get_info(d->bucket, &info);
    say_credentials(d, &info, said, sizeof(said));
    if (e->code != SF_OK && e->attempts == 0) { /* nothing was sent: there were none to sign it with */
        tell(d, CHECK_CREDENTIALS, DIAGNOSIS_FAILED, "%s: %s", said, e->message);
        return false;
    }
    if (info.credentials_refused)
        tell(d, CHECK_CREDENTIALS, DIAGNOSIS_FAILED, "%s: %s", said, e->message);
    else
        tell(d, CHECK_CREDENTIALS,
             info.credentials || d->c->settings.s3.access_key_id ? DIAGNOSIS_OK : DIAGNOSIS_WARNING, "%s", said);
    tell(d, CHECK_ENDPOINT, answered ? DIAGNOSIS_OK : DIAGNOSIS_FAILED, "%s, region %s, %s%s%s%s", info.endpoint_url,
         info.region, info.virtual_hosted ? "virtual-hosted style" : "path style",
         info.proxied ? ", through a proxy" : "", answered ? "" : ": ", answered ? "" : e->message);
    if (!answered)
        return false;
    check_tls(d, &info);
    check_clock(d, &info);
    return !info.credentials_refused;
}

/* ------------------------------------------------------------------ reading
 * --------------------------------------- */

/* It may have been deleted. */
static void tell_no_pointer(struct doctor *d)
{
    sf_error e = SF_ERROR_INIT;
    struct publications p;

    if (session_history(d->c, 1, &p, &e) == SF_OK && p.count > 0)
        tell(d, CHECK_POINTER, DIAGNOSIS_FAILED,
             "there is no %s/%s, but snapshots: shardy rollback --offset 0 makes it", d->root, d->pointer);
    else
        tell(d, CHECK_POINTER, d->writes ? DIAGNOSIS_WARNING : DIAGNOSIS_FAILED,
             "nothing is published here: there is no %s/%s", d->root, d->pointer);
    session_history_free(&p);
}

static void check_pointer(struct doctor *d, const sf_error *e)
{
    if (e->code == SF_OK)
        tell(d, CHECK_POINTER, DIAGNOSIS_OK, "%zu bytes", d->current.data.n);
    else if (e->code == SF_NOT_FOUND)
        tell_no_pointer(d);
    else
        tell(d, CHECK_POINTER, DIAGNOSIS_FAILED, "%s", e->message);
}

/* Both of PostgreSQL: whether it answers, and what it names. */
static bool check_database(struct doctor *d)
{
    enum diagnosis lacking = d->writes ? DIAGNOSIS_WARNING : DIAGNOSIS_FAILED;
    const char *current = NULL;
    sf_error e = SF_ERROR_INIT;
    struct publications p;
    sf_status rc = session_history(d->c, NEWEST_MANIFESTS, &p, &e);

    for (size_t i = 0; i < p.count; i++)
        if (p.entries[i].is_current)
            current = p.entries[i].run_id;
    if (rc == SF_NOT_FOUND)
        tell(d, CHECK_DATABASE, lacking, "%s (publish makes tables that are missing)", e.message);
    else if (rc != SF_OK)
        tell(d, CHECK_DATABASE, DIAGNOSIS_FAILED, "%s", e.message);
    else
        tell(d, CHECK_DATABASE, DIAGNOSIS_OK, "%s answers, and has the tables", d->c->prefix);
    if (rc == SF_OK && p.count == 0)
        tell(d, CHECK_POINTER, lacking, "nothing is published: there is no manifest in %s", d->c->prefix);
    else if (rc == SF_OK)
        tell(d, CHECK_POINTER, DIAGNOSIS_OK, "%s%s", current ? "run_id=" : "none of the newest manifests",
             current ? current : "");
    session_history_free(&p);
    return rc == SF_OK && p.count > 0;
}

static void check_list(struct doctor *d)
{
    char *folder = cli_format("%s%s", d->path, *d->path ? "/" : "");
    const sf_object_entry *entries;
    sf_error e = SF_ERROR_INIT;
    const char *probe = NULL;
    sf_call *call = NULL;
    size_t count;

    if (sf_bucket_list(&call, d->bucket, folder, "/", left_ms(d), &e) != SF_OK) {
        tell(d, CHECK_LIST, DIAGNOSIS_FAILED, "%s", e.message);
        free(folder);
        return;
    }
    entries = sf_call_entries(call, &count);
    for (size_t i = 0; i < count; i++)
        if (strncmp(entries[i].key + strlen(folder), PROBE_NAME, strlen(PROBE_NAME)) == 0)
            probe = entries[i].key;
    if (probe)
        tell(d, CHECK_LIST, DIAGNOSIS_WARNING, "a doctor that was killed has left %s/%s, which may be deleted", d->root,
             probe);
    else
        tell(d, CHECK_LIST, DIAGNOSIS_OK, "%zu names", count);
    sf_call_release(call);
    free(folder);
}

/* The smallest one: SQLite's are downloaded as a whole. */
static bool smallest_shard(const sf_snapshot *snap, uint32_t *db_id)
{
    uint64_t least = UINT64_MAX;
    sf_shard_info s;

    for (uint32_t i = 0; sf_snapshot_get_shard(snap, i, &s); i++) {
        uint64_t size = s.db_bytes > 0 ? s.db_bytes : s.row_count;

        if (!s.db_url || size >= least)
            continue;
        least = size;
        *db_id = i;
    }
    return least < UINT64_MAX;
}

static void check_shard(struct doctor *d, sf_snapshot *snap)
{
    sf_bytes key = {(const uint8_t *)"", 0};
    sf_error e = SF_ERROR_INIT;
    sf_call *call = NULL;
    uint32_t db_id = 0;
    sf_status rc;

    if (!smallest_shard(snap, &db_id)) {
        tell(d, CHECK_SHARD, DIAGNOSIS_OK, "all are empty");
        return;
    }
    rc = sf_snapshot_get_start(&call, snap, db_id, &key, 1, left_ms(d), NULL, NULL, &e);
    if (rc == SF_OK)
        rc = sf_call_wait(call, &e);
    sf_call_release(call);
    if (rc == SF_OK)
        tell(d, CHECK_SHARD, DIAGNOSIS_OK, "shard %u opens", db_id);
    else
        tell(d, CHECK_SHARD, DIAGNOSIS_FAILED, "shard %u: %s", db_id, e.message);
}

/* Whatever the session looks at: what the pointer names now. */
static void check_snapshot(struct doctor *d)
{
    sf_reader_options o = session_reader_options(d->c);
    const sf_rejected_manifest *rejected;
    sf_error e = SF_ERROR_INIT;
    sf_snapshot *snap = NULL;
    sf_reader *reader = NULL;
    sf_snapshot_info info;
    sf_call *call = NULL;
    size_t count;
    sf_status rc;

    o.manifest_ref = NULL;
    o.open_timeout_ms = left_ms(d);
    rc = sf_reader_open_start(&call, d->c->rt, d->c->prefix, &o, NULL, NULL, &e);
    if (rc == SF_OK)
        rc = sf_call_wait(call, &e);
    if (rc == SF_OK) {
        reader = sf_call_take_reader(call);
        snap = sf_reader_borrow(reader, &e);
    }
    if (!snap) {
        tell(d, CHECK_SNAPSHOT, DIAGNOSIS_FAILED, "%s", e.message);
    } else {
        rejected = sf_call_rejected_manifests(call, &count);
        sf_snapshot_get_info(snap, &info);
        if (count > 0)
            tell(d, CHECK_SNAPSHOT, DIAGNOSIS_WARNING, "run_id=%s is served, an older one: %s", info.run_id,
                 rejected[0].error.message);
        else
            tell(d, CHECK_SNAPSHOT, DIAGNOSIS_OK, "run_id=%s, %u shards", info.run_id, info.num_dbs);
        check_shard(d, snap);
    }
    sf_snapshot_give_back(snap);
    sf_reader_free(reader);
    sf_call_release(call);
}

/* One byte out of the middle, against the whole. */
static void check_ranges(struct doctor *d, const char *key, sf_bytes whole)
{
    sf_object part = {0};
    sf_error e = SF_ERROR_INIT;
    sf_bucket_info info;

    if (sf_bucket_get_range(d->bucket, key, 1, 1, left_ms(d), &part, &e) != SF_OK) {
        tell(d, CHECK_RANGES, DIAGNOSIS_FAILED, "%s", e.message);
        return;
    }
    sf_bucket_get_info(d->bucket, &info);
    if (info.ignores_ranges)
        tell(d, CHECK_RANGES, DIAGNOSIS_FAILED,
             "the store answers with the whole object: each read of a block brings all of its object");
    else if (whole.n > 1 && part.data.p[0] != whole.p[1])
        tell(d, CHECK_RANGES, DIAGNOSIS_FAILED, "the store answers with other bytes than were asked for");
    else
        tell(d, CHECK_RANGES, DIAGNOSIS_OK, "a part of an object can be read");
    sf_object_release(&part);
}

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Of reads of one small object, over the connection that there is. */
static void check_latency(struct doctor *d, const char *key)
{
    uint64_t took_us[ROUND_TRIPS];
    unsigned good = 0, failed = 0;
    sf_error e = SF_ERROR_INIT;
    struct text detail = {0};

    for (unsigned i = 0; i < ROUND_TRIPS && left_ms(d) > 0 && !interrupted(); i++) {
        uint64_t began = now_ns();
        sf_object o = {0};

        if (sf_bucket_get(d->bucket, key, POINTER_MAX_BYTES, left_ms(d), &o, &e) == SF_OK)
            took_us[good++] = (now_ns() - began) / 1000;
        else
            failed++;
        sf_object_release(&o);
    }
    if (failed > 0)
        text_printf(&detail, "%u of %u requests failed, the last one: %s%s", failed, good + failed, e.message,
                    good > 0 ? "; " : "");
    if (good > 0) {
        uint64_t p50, p99;

        qsort(took_us, good, sizeof(took_us[0]), by_size);
        p50 = took_us[(good - 1) / 2];
        p99 = took_us[(good * 99 - 1) / 100];
        text_printf(&detail, "p50 %.1f ms, p99 %.1f ms of %u reads", (double)p50 / 1e3, (double)p99 / 1e3, good);
        tell_cells(d, CHECK_LATENCY, failed > 0 ? DIAGNOSIS_WARNING : DIAGNOSIS_OK, text_str(&detail),
                   (struct cell[]){
                       {.kind = CELL_ABSENT}, {.kind = CELL_UINT, .number = p50}, {.kind = CELL_UINT, .number = p99}});
    } else if (failed > 0) {
        tell_cells(d, CHECK_LATENCY, DIAGNOSIS_FAILED, text_str(&detail), NULL);
    } else {
        tell(d, CHECK_LATENCY, DIAGNOSIS_FAILED, "no time was left (--timeout)");
    }
    text_free(&detail);
}

/* ------------------------------------------------------------------ writing
 * --------------------------------------- */

static const sf_bytes probe_body = {(const uint8_t *)"shardy doctor\n", 14};

static sf_status put(struct doctor *d, const char *key, const sf_put_options *o, sf_object *out, sf_error *e)
{
    *e = (sf_error)SF_ERROR_INIT;
    return sf_bucket_put(d->bucket, key, probe_body, o, left_ms(d), out, e);
}

/* Puts the object that is there, on the condition that it is not. */
static void check_create_only(struct doctor *d, const char *key)
{
    sf_put_options o = SF_PUT_OPTIONS_INIT;
    sf_error e;

    o.create_only = true;
    switch (put(d, key, &o, NULL, &e)) {
    case SF_CONFLICT:
        tell(d, CHECK_CREATE_ONLY, DIAGNOSIS_OK, "If-None-Match is honoured");
        return;
    case SF_OK:
        tell(d, CHECK_CREATE_ONLY, DIAGNOSIS_FAILED,
             "the store ignores If-None-Match: of two who publish at once neither would notice the other");
        return;
    case SF_UNSUPPORTED:
        tell(d, CHECK_CREATE_ONLY, DIAGNOSIS_WARNING, "only one at a time may publish: %s", e.message);
        return;
    default:
        tell(d, CHECK_CREATE_ONLY, DIAGNOSIS_FAILED, "%s", e.message);
    }
}

static void check_replace_only(struct doctor *d, const char *key, const char *etag)
{
    sf_put_options o = SF_PUT_OPTIONS_INIT;
    sf_error e;
    sf_status rc;

    if (!*etag) {
        tell(d, CHECK_REPLACE_ONLY, DIAGNOSIS_WARNING,
             "the store gives no ETags: rollback needs --force here, and publish no --expect");
        return;
    }
    o.if_match = "\"00000000000000000000000000000000\"";
    rc = put(d, key, &o, NULL, &e);
    if (rc == SF_CONFLICT) {
        o.if_match = etag;
        rc = put(d, key, &o, NULL, &e);
        if (rc == SF_OK)
            tell(d, CHECK_REPLACE_ONLY, DIAGNOSIS_OK, "If-Match is honoured");
        else
            tell(d, CHECK_REPLACE_ONLY, DIAGNOSIS_FAILED, "with the right ETag: %s", e.message);
    } else if (rc == SF_OK) {
        tell(d, CHECK_REPLACE_ONLY, DIAGNOSIS_FAILED,
             "the store ignores If-Match: rollback and publish may overwrite a pointer that was moved "
             "meanwhile");
    } else if (rc == SF_UNSUPPORTED) {
        tell(d, CHECK_REPLACE_ONLY, DIAGNOSIS_WARNING, "rollback needs --force here, and publish no --expect: %s",
             e.message);
    } else {
        tell(d, CHECK_REPLACE_ONLY, DIAGNOSIS_FAILED, "%s", e.message);
    }
}

/* Whatever came before: the probe may be there although its put has failed. */
static void remove_probe(struct doctor *d, const char *key, bool is_there)
{
    int64_t left = left_ms(d);
    sf_error e = SF_ERROR_INIT;
    sf_bucket *patient;
    sf_status rc = sf_bucket_open(&patient, d->c->rt, d->place, &d->c->settings.s3, &e);

    if (rc == SF_OK) {
        rc = sf_bucket_delete(patient, key, left > REMOVAL_MS ? left : REMOVAL_MS, &e);
        sf_bucket_close(patient);
    }
    if (rc == SF_OK && is_there)
        tell(d, CHECK_DELETE, DIAGNOSIS_OK, "the object is gone");
    else if (rc != SF_OK && is_there)
        tell(d, CHECK_DELETE, DIAGNOSIS_FAILED, "%s/%s is left over: %s", d->root, key, e.message);
    else if (rc != SF_OK)
        tell(d, CHECK_DELETE, DIAGNOSIS_FAILED, "%s", e.message);
}

/* How much of the path of local files leads to folders that are there; all of it in other stores, which have none. */
static size_t length_there(const struct doctor *d, char *path)
{
    if (strcmp(d->root, "file://") == 0)
        for (char *slash; access(path, F_OK) != 0 && (slash = strrchr(path, '/')) != NULL;)
            *slash = '\0';
    return strlen(path);
}

/* Folders that the probe has made go with it, as far as nobody else has put anything there meanwhile. */
static void remove_folders(const struct doctor *d, char *path, size_t there)
{
    snprintf(path, sizeof(d->path) + 1, "/%s", d->path);
    while (strlen(path) > there && rmdir(path) == 0)
        *strrchr(path, '/') = '\0';
}

/* An own object below the prefix. Signals that end the program wait until it is gone. */
static void check_writing(struct doctor *d)
{
    sf_put_options o = SF_PUT_OPTIONS_INIT;
    sf_object made = {0};
    uint64_t number = 0;
    sigset_t ends, before;
    char path[sizeof(d->path) + 1];
    size_t there;
    sf_status rc;
    sf_error e;
    char *key;

    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        number = now_ns();
    key = cli_format("%s%s" PROBE_NAME "%016" PRIx64, d->path, *d->path ? "/" : "", number);
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ends, &before);
    snprintf(path, sizeof(path), "/%s", d->path);
    there = length_there(d, path);
    rc = put(d, key, &o, &made, &e);
    if (rc == SF_OK && d->current.data.n == 0) { /* nothing else could be read */
        check_ranges(d, key, probe_body);
        check_latency(d, key);
    }
    if (rc == SF_OK) {
        tell(d, CHECK_WRITE, DIAGNOSIS_OK, "an object could be written");
        check_create_only(d, key);
        check_replace_only(d, key, made.etag);
    } else {
        tell(d, CHECK_WRITE, DIAGNOSIS_FAILED, "%s", e.message);
    }
    remove_probe(d, key, rc == SF_OK);
    remove_folders(d, path, there);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    sf_object_release(&made);
    free(key);
}

/* ------------------------------------------------------------------ all of it
 * ------------------------------------- */

/* The prefix and the pointer's key; false with the failure told. */
static bool find_place(struct doctor *d)
{
    sf_error e = SF_ERROR_INIT;

    if (!session_locate(d->c))
        return false;
    if (!d->c->postgres)
        d->place = d->c->prefix;
    if (sf_url_split(d->place, d->root, sizeof(d->root), d->path, sizeof(d->path), &e) != SF_OK) {
        tell(d, CHECK_POINTER, DIAGNOSIS_FAILED, "%s", e.message);
        return false;
    }
    snprintf(d->pointer, sizeof(d->pointer), "%s%s%s", d->path, *d->path ? "/" : "", d->c->current_name);
    return true;
}

/* The object that the URL names as it stands: it is the pointer, or an answer. */
static void first_contact(struct doctor *d, sf_error *e)
{
    sf_object o = {0};

    if (sf_url_split(d->place, d->root, sizeof(d->root), d->path, sizeof(d->path), e) == SF_OK)
        sf_bucket_get(d->bucket, *d->path ? d->path : "_CURRENT", POINTER_MAX_BYTES, left_ms(d), &o, e);
    sf_object_release(&o);
}

static void examine(struct doctor *d)
{
    sf_error e = SF_ERROR_INIT;
    bool is_published;

    first_contact(d, &e);
    if (d->on_s3 && !check_way(d, &e))
        return;
    if (!find_place(d))
        return;
    if (d->c->postgres) {
        is_published = check_database(d);
    } else {
        e = (sf_error)SF_ERROR_INIT;
        is_published = sf_bucket_get(d->bucket, d->pointer, POINTER_MAX_BYTES, left_ms(d), &d->current, &e) == SF_OK;
        check_pointer(d, &e);
    }
    check_list(d);
    if (is_published)
        check_snapshot(d);
    if (d->current.data.n > 0) {
        check_ranges(d, d->pointer, d->current.data);
        check_latency(d, d->pointer);
    }
    if (d->writes)
        check_writing(d);
}

/* NULL with the failure said. */
static const char *place_of(struct cli *c)
{
    if (!session_start(c))
        return NULL;
    return c->settings.dsn || args_has(&c->args, OPT_S3_PREFIX) ? session_prefix(c, "doctor") : c->settings.current_url;
}

int cmd_doctor(struct cli *c)
{
    struct doctor d = {.c = c,
                       .list = {.out = &c->out,
                                .op = "doctor",
                                .member = "checks",
                                .columns = columns,
                                .n = sizeof(columns) / sizeof(columns[0]),
                                .line = doctor_line},
                       .writes = args_has(&c->args, OPT_WRITE),
                       .began_ns = now_ns()};
    sf_s3_options once = c->settings.s3;
    sf_error e = SF_ERROR_INIT;
    sf_bucket_info info;

    if (!args_has(&c->args, OPT_POLICY) && (args_has(&c->args, OPT_REF) || args_has(&c->args, OPT_OFFSET)))
        return args_usage_error(c->args.command,
                                "doctor looks at what the pointer names: it takes no --ref and no --offset");
    d.place = place_of(c);
    if (!d.place)
        return 1;
    if (args_has(&c->args, OPT_POLICY))
        return policy_print(c, d.place, c->args.opt[OPT_POLICY].number);
    once.max_retries = 0;
    list_begin(&d.list);
    if (sf_bucket_open(&d.bucket, c->rt, d.place, &once, &e) == SF_OK) {
        sf_bucket_get_info(d.bucket, &info);
        d.on_s3 = info.endpoint_url != NULL;
        check_settings(&d);
        examine(&d);
    } else {
        d.on_s3 = strncasecmp(d.place, "s3:", 3) == 0;
        tell(&d, CHECK_SETTINGS, DIAGNOSIS_FAILED, "%s", e.message);
    }
    tell_cells(&d, CHECK_COUNT, DIAGNOSIS_SKIPPED, NULL, NULL);
    list_end(&d.list);
    sf_object_release(&d.current);
    sf_bucket_close(d.bucket);
    return d.failed ? 1 : 0;
}
