#include "world.h"

#include <ftw.h>
#include <unistd.h>

#include "site/location.h"

/* ------------------------------------------------------------------ world ---------------------------------------- */

const char *world_parent = "/tmp";

void world_init(struct world *w, const char *url)
{
    static unsigned worlds;
    const char *elsewhere = getenv("SF_WRITER_PREFIX");
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    char *path;

    memset(w, 0, sizeof(*w));
    heap_init(&w->heap);
    o.allocator = &w->heap.alloc;
    snprintf(w->folder, sizeof(w->folder), "%s/sf-writer-test-XXXXXX", world_parent);
    assert_non_null(mkdtemp(w->folder));
    if (elsewhere && (!url || strncmp(url, "mem://", 6) == 0))
        snprintf(w->prefix, sizeof(w->prefix), "%s/%d-%u", elsewhere, (int)getpid(), worlds++);
    else if (url)
        snprintf(w->prefix, sizeof(w->prefix), "%s", url);
    else /* its own: a test that fails leaves its objects to nobody */
        snprintf(w->prefix, sizeof(w->prefix), "mem://writer-test-%u/snap", worlds++);
    assert_int_equal(sf_runtime_new(&w->rt, &o, &w->err), SF_OK);
    assert_int_equal(sf__location_open(w->rt, w->prefix, NULL, &w->inner, &path, &w->err), SF_OK);
    snprintf(w->path, sizeof(w->path), "%s", path);
    sf__free(w->rt->alloc, path);
    w->faults = fault_store_new(w->inner);
    fault_store_reset(w->faults);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void world_remove_folder(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

long world_cleanup(struct world *w)
{
    sf__store_release(&w->faults->base);
    sf__store_release(w->inner);
    sf_runtime_release(w->rt);
    world_remove_folder(w->folder);
    return heap_settle(&w->heap, 0);
}

int world_set_up_at(void **state, const char *url)
{
    struct world *w = malloc(sizeof(*w));

    *state = w;
    if (!w)
        return 1;
    world_init(w, url);
    return 0;
}

int world_set_up(void **state)
{
    return world_set_up_at(state, NULL);
}

int world_tear_down(void **state)
{
    struct world *w = *state;
    long live = world_cleanup(w);

    free(w);
    return live == 0 ? 0 : 1;
}

static sf_status open_faulty_site(struct world *w, sf_site *out)
{
    sf_status rc = sf__site_open(out, w->rt, w->prefix, NULL, &w->err);

    if (rc != SF_OK)
        return rc;
    assert_int_equal(out->store_count, 1);
    sf__store_release(out->store);
    out->stores[0].store = sf__store_acquire(&w->faults->base);
    out->store = out->shard_store = out->stores[0].store;
    out->timeout_ms = 20000;
    return SF_OK;
}

void world_site(struct world *w, sf_site *out)
{
    assert_int_equal(open_faulty_site(w, out), SF_OK);
}

sf_cleanup_options world_cleanup_options(void)
{
    sf_cleanup_options o = SF_CLEANUP_OPTIONS_INIT;

    o.old_runs = true;
    o.min_age_ms = 0;
    return o;
}

/* ------------------------------------------------------------------ writers -------------------------------------- */

sf_writer_options world_options(void)
{
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;

    o.num_dbs = 4;
    o.run_id = "r1";
    o.threads = 2;
    o.retry_base_ms = 0;
    o.max_retries = 0;
    o.memory_bytes = 1 << 20;
    return o;
}

sf_writer *world_writer(struct world *w, const sf_writer_options *o)
{
    sf_writer *writer = NULL;
    sf_site site;

    if (open_faulty_site(w, &site) != SF_OK)
        return NULL;
    if (sf__writer_open_on(&writer, &site, o, &w->err) != SF_OK) {
        sf__site_cleanup(&site);
        return NULL;
    }
    return writer;
}

static sf_bytes value_of(char out[64], unsigned key, unsigned version)
{
    return sf_bytes_of(out, (size_t)snprintf(out, 64, "value %u of version %u", key, version));
}

sf_status world_add_rows(struct world *w, sf_writer *writer, unsigned count, unsigned version, bool backwards)
{
    sf_status rc = SF_OK;

    for (unsigned i = 0; i < count && rc == SF_OK; i++) {
        unsigned k = backwards ? count - 1 - i : i;
        sf_key key = sf_key_int(k);
        char text[64];

        rc = sf_writer_add(writer, &key, value_of(text, k, version), &w->err);
    }
    return rc;
}

sf_status world_try_publish(struct world *w, const sf_writer_options *o, unsigned count, unsigned version)
{
    sf_writer *writer = world_writer(w, o);
    sf_status rc;

    if (!writer)
        return w->err.code;
    rc = world_add_rows(w, writer, count, version, false);
    if (rc == SF_OK)
        rc = sf_writer_finish(writer, &w->err);
    sf_writer_free(writer);
    return rc;
}

void world_publish(struct world *w, const char *run_id, unsigned count, unsigned version)
{
    sf_writer_options o = world_options();

    o.run_id = run_id;
    if (world_try_publish(w, &o, count, version) != SF_OK)
        fail_msg("%s: %s", run_id, w->err.message);
}

/* ------------------------------------------------------------------ what is there -------------------------------- */

void world_expect_snapshot(struct world *w, unsigned count, unsigned version)
{
    sf_reader *r = NULL;
    sf_snapshot *s;
    sf_snapshot_info info;

    if (sf_reader_open(&r, w->rt, w->prefix, NULL, &w->err) != SF_OK)
        fail_msg("open: %s", w->err.message);
    s = sf_reader_borrow(r, &w->err);
    assert_non_null(s);
    sf_snapshot_get_info(s, &info);
    assert_int_equal(info.row_count, count);
    for (unsigned k = 0; k < count + 3; k++) {
        sf_key key = sf_key_int(k);
        sf_value v = {.found = false};
        char text[64];

        if (sf_reader_get(r, &key, 20000, &v, &w->err) != SF_OK)
            fail_msg("get %u: %s", k, w->err.message);
        if (v.found != (k < count) || (v.found && !sf_bytes_eq(v.bytes, value_of(text, k, version))))
            fail_msg("key %u: %.*s", k, (int)v.bytes.n, v.found ? (const char *)v.bytes.p : "absent");
        sf_value_release(&v);
    }
    sf_snapshot_give_back(s);
    sf_reader_free(r);
}

/* Past the faults. */
static void open_site(struct world *w, sf_site *out)
{
    assert_int_equal(sf__site_open(out, w->rt, w->prefix, NULL, &w->err), SF_OK);
}

void world_expect_current(struct world *w, const char *run_id)
{
    sf_pointer p;
    sf_site s;

    open_site(w, &s);
    assert_int_equal(sf__pointer_load(&s, NULL, &p, &w->err), SF_OK);
    if (p.exists != (run_id != NULL) || (run_id && (!p.parsed || strcmp(p.current.run_id, run_id) != 0)))
        fail_msg("the pointer names run %s, not %s", p.parsed ? p.current.run_id : "(none)", run_id ? run_id : "(none)");
    sf__pointer_cleanup(&s, &p);
    sf__site_cleanup(&s);
}

sf_snapshot_manifest *world_manifest(struct world *w)
{
    sf_snapshot_manifest *m = NULL;
    sf_pointer p;
    sf_site s;

    open_site(w, &s);
    assert_int_equal(sf__pointer_load(&s, NULL, &p, &w->err), SF_OK);
    assert_true(p.parsed);
    if (sf__manifest_load(&s, p.current.manifest_ref, NULL, &m, &w->err) != SF_OK)
        fail_msg("%s", w->err.message);
    sf__pointer_cleanup(&s, &p);
    sf__site_cleanup(&s);
    return m;
}

static sf_store_listing list(struct world *w, const char *folder, sf_site *s)
{
    sf_store_listing l;

    open_site(w, s);
    if (folder[0]) {
        assert_int_equal(sf__site_list(s, w->inner, folder, NULL, NULL, &l, &w->err), SF_OK);
        return l;
    }
    l = (sf_store_listing){.store = w->inner, .prefix = w->path, .deadline_ns = SF_NO_DEADLINE};
    assert_int_equal(sf__store_list_wait(&l, NULL, &w->err), SF_OK);
    return l;
}

char *world_objects(struct world *w, const char *folder)
{
    sf_site s;
    sf_store_listing l = list(w, folder, &s);
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    for (size_t i = 0; i < l.entry_count; i++)
        fprintf(f, "%s\n", l.entries[i].key);
    fclose(f);
    sf__store_listing_cleanup(&l);
    sf__site_cleanup(&s);
    return text;
}

size_t world_object_count(struct world *w, const char *folder)
{
    sf_site s;
    sf_store_listing l = list(w, folder, &s);
    size_t n = l.entry_count;

    sf__store_listing_cleanup(&l);
    sf__site_cleanup(&s);
    return n;
}

sf_buf *world_get(struct world *w, const char *name)
{
    sf_buf *b = NULL;
    sf_site s;
    sf_status rc;

    open_site(w, &s);
    rc = sf__site_get(&s, name, 1 << 30, NULL, &b, NULL, &w->err);
    assert_true(rc == SF_OK || rc == SF_NOT_FOUND);
    sf__site_cleanup(&s);
    return b;
}

void world_put(struct world *w, const char *name, sf_bytes body)
{
    sf_site_put put = {.name = name, .body = body};
    sf_site s;

    open_site(w, &s);
    assert_int_equal(sf__site_put(&s, &put, NULL, NULL, &w->err), SF_OK);
    sf__site_cleanup(&s);
}

void world_delete(struct world *w, const char *folder)
{
    uint64_t count = 0;
    sf_site s;

    open_site(w, &s);
    assert_int_equal(sf__site_delete_folder(&s, s.store, folder, false, NULL, &count, &w->err), SF_OK);
    assert_true(count > 0);
    sf__site_cleanup(&s);
}

void world_put_record(struct world *w, const char *run_id, sf_run_status status, int64_t updated_us, int64_t lease_us,
                      const char *manifest_ref)
{
    sf_run_record r = {.format_version = 1,
                       .run_id = run_id,
                       .writer_type = "c",
                       .s3_prefix = w->prefix,
                       .shard_prefix = "shards",
                       .db_path_template = "db={db_id:05d}",
                       .status = status,
                       .started_at_us = updated_us,
                       .updated_at_us = updated_us,
                       .lease_expires_at_us = lease_us,
                       .manifest_ref = manifest_ref};
    char name[300], *text;
    size_t n;

    assert_int_equal(sf__run_record_format(&text, &n, &r, &sf__allocator_default, NULL), SF_OK);
    snprintf(name, sizeof(name), "runs/2026-01-02T03:04:05.000000Z_run_id=%s_0123456789abcdef0123456789abcdef/run.yaml",
             run_id);
    world_put(w, name, sf_bytes_of(text, n));
    sf__free(&sf__allocator_default, text);
}

void world_begin_upload(struct world *w, const char *name)
{
    char key[700];
    sf_store_op create = {.verb = SF_STORE_MULTIPART_CREATE, .key = key, .deadline_ns = SF_NO_DEADLINE}, part;

    snprintf(key, sizeof(key), "%s/%s", w->path, name);
    assert_int_equal(sf__store_wait(w->inner, &create, NULL, &w->err), SF_OK);
    part = (sf_store_op){.verb = SF_STORE_MULTIPART_PART,
                         .key = key,
                         .upload_id = create.upload_id_out,
                         .part_number = 1,
                         .body = sf_bytes_str("part"),
                         .deadline_ns = SF_NO_DEADLINE};
    assert_int_equal(sf__store_wait(w->inner, &part, NULL, &w->err), SF_OK);
    sf__store_op_cleanup(&create, w->inner->alloc);
}

char *world_uploads(struct world *w, const char *folder)
{
    sf_site_uploads u;
    sf_site s;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    open_site(w, &s);
    assert_int_equal(sf__site_uploads(&s, w->inner, folder, &u, &w->err), SF_OK);
    for (size_t i = 0; i < u.count; i++)
        fprintf(f, "%s\n", u.uploads[i].key);
    fclose(f);
    sf__site_uploads_free(&s, &u);
    sf__site_cleanup(&s);
    return text;
}
