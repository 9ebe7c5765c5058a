/* Opening: a reader over a prefix, or one shard on its own. */
#include "base/container.h"
#include "base/error.h"
#include "base/options.h"
#include "reader/load.h"
#include "reader/reader.h"
#include "reader/shard_open.h"
#include "runtime/call.h"

struct open_call {
    sf_call call;
    sf_source *source;
    uint64_t since_ns;
    sf_load load;
    sf_reader *reader; /* result */
};

static void open_loaded(sf_load *l)
{
    struct open_call *o = l->ctx;
    sf_call *c = &o->call;
    sf_error e = SF_ERROR_INIT;

    sf__call_failed(c, &l->error);
    if (!c->error)
        sf__reader_new(&o->reader, c->rt, o->source, l->snapshot, l->fallback, o->since_ns, &e);
    sf__call_failed(c, &e);
    sf__call_finish(c);
}

static void open_start(sf_call *c)
{
    struct open_call *o = sf_container_of(c, struct open_call, call);

    o->since_ns = sf__clock_mono_ns();
    o->load =
        (sf_load){.source = o->source, .deadline_ns = c->deadline_ns, .call_ctx = c->ctx, .done = open_loaded, .ctx = o};
    if (!sf__load_start(&o->load)) {
        sf__call_fail(c, SF_NOMEM, "opening a reader");
        sf__call_finish(c);
    }
}

static void open_cancel(sf_call *c)
{
    sf__load_cancel(&sf_container_of(c, struct open_call, call)->load);
}

static void open_destroy(sf_call *c)
{
    struct open_call *o = sf_container_of(c, struct open_call, call);

    if (o->reader)
        sf__reader_release(o->reader);
    sf__load_cleanup(&o->load, c->alloc);
    sf__source_release(o->source);
}

static const sf_call_type open_type = {.start = open_start, .cancel = open_cancel, .destroy = open_destroy};

const sf_load *sf__open_call_load(const sf_call *c)
{
    return c->type == &open_type ? &sf_container_of(c, struct open_call, call)->load : NULL;
}

sf_reader *sf_call_take_reader(sf_call *c)
{
    sf_reader *r = NULL;

    if (c->type == &open_type) {
        r = sf_container_of(c, struct open_call, call)->reader;
        sf_container_of(c, struct open_call, call)->reader = NULL;
    }
    return sf__reader_hand_out(r);
}

sf_status sf_reader_open_start(sf_call **out, sf_runtime *rt, const char *prefix, const sf_reader_options *opts,
                               sf_call_done_fn done, void *ctx, sf_error *err)
{
    struct open_call *o;
    sf_source *source;
    sf_status rc = sf__runtime_check_process(rt, err);

    if (rc == SF_OK)
        rc = sf__source_new(&source, rt, prefix, opts, err);
    if (rc != SF_OK)
        return rc;
    o = (struct open_call *)sf__call_new(&open_type, sizeof(*o), rt, source->open_timeout_ms, done, ctx);
    if (!o) {
        sf__source_release(source);
        return sf_fail(err, SF_NOMEM, "opening a reader");
    }
    o->source = source;
    *out = &o->call;
    sf__call_start(&o->call);
    return SF_OK;
}

sf_status sf_reader_open(sf_reader **out, sf_runtime *rt, const char *prefix, const sf_reader_options *opts, sf_error *err)
{
    sf_call *c;
    sf_status rc = sf__runtime_check_may_wait(rt, err);

    if (rc == SF_OK)
        rc = sf_reader_open_start(&c, rt, prefix, opts, NULL, NULL, err);
    if (rc != SF_OK)
        return rc;
    rc = sf_call_wait(c, err);
    if (rc == SF_OK)
        *out = sf_call_take_reader(c);
    sf_call_release(c);
    return rc;
}

/* ------------------------------------------------------------------ one shard ------------------------------------ */

struct shard_call {
    sf_call call;
    sf_source *source;
    char *checkpoint;
    sf_any_shard_open open;
    sf_snapshot *snapshot; /* result */
};

static void shard_opened(sf_shard_open *op)
{
    struct shard_call *o = op->ctx;
    sf_call *c = &o->call;
    sf_error e = SF_ERROR_INIT;

    sf_error_tell(c->alloc, &op->error, &e);
    sf__call_failed(c, &e);
    if (!c->error && sf__snapshot_of_shard(&o->snapshot, c->rt, op->shard, &e) != SF_OK)
        sf__shard_release(op->shard);
    sf__call_failed(c, &e);
    sf__call_finish(c);
}

static void shard_start(sf_call *c)
{
    struct shard_call *o = sf_container_of(c, struct shard_call, call);

    o->open.op = (sf_shard_open){
        .rt = c->rt,
        .store = o->source->site.store,
        .path = o->source->site.path,
        .url = o->source->site.prefix,
        .checkpoint = o->checkpoint,
        .disk = o->source->disk,
        .cache = o->source->cache,
        .cost = o->source->cost,
        .deadline_ns = c->deadline_ns,
        .done = shard_opened,
        .ctx = o,
    };
    sf__any_shard_open(&o->open, o->source, o->source->sqlite.mode, false);
}

static void shard_cancel(sf_call *c)
{
    sf__any_shard_open_cancel(&sf_container_of(c, struct shard_call, call)->open);
}

static void shard_destroy(sf_call *c)
{
    struct shard_call *o = sf_container_of(c, struct shard_call, call);

    sf__snapshot_release(o->snapshot);
    sf__free(c->alloc, o->checkpoint);
    sf__source_release(o->source);
}

static const sf_call_type shard_type = {.start = shard_start, .cancel = shard_cancel, .destroy = shard_destroy};

sf_snapshot *sf_call_take_snapshot(sf_call *c)
{
    sf_snapshot *s = NULL;

    if (c->type == &shard_type) {
        s = sf_container_of(c, struct shard_call, call)->snapshot;
        sf_container_of(c, struct shard_call, call)->snapshot = NULL;
    }
    return sf__snapshot_hand_out(s);
}

sf_status sf_snapshot_open_shard_start(sf_call **out, sf_runtime *rt, const char *url, const sf_reader_options *given,
                                       const char *checkpoint, int64_t timeout_ms, sf_call_done_fn done, void *ctx,
                                       sf_error *err)
{
    sf_reader_options opts = SF_READER_OPTIONS_INIT;
    struct shard_call *o;
    sf_source *source;
    sf_status rc = sf__runtime_check_process(rt, err);

    if (rc == SF_OK)
        rc = sf__options_take(&opts, sizeof(opts), given, "reader options", err);
    if (opts.shard_s3)
        opts.s3 = opts.shard_s3; /* what lies at the URL is a shard */
    opts.manifests = NULL;
    opts.shard_opener = NULL;
    opts.manifest_ref = NULL;
    opts.confine = SF_CONFINE_DEFAULT;
    if (rc == SF_OK)
        rc = sf__source_new(&source, rt, url, &opts, err);
    if (rc != SF_OK)
        return rc;
    o = (struct shard_call *)sf__call_new(&shard_type, sizeof(*o), rt, timeout_ms, done, ctx);
    if (!o) {
        sf__source_release(source);
        return sf_fail(err, SF_NOMEM, "opening a shard");
    }
    o->source = source;
    o->checkpoint = checkpoint ? sf__strdup(rt->alloc, checkpoint) : NULL;
    if (checkpoint && !o->checkpoint) {
        sf__call_drop(&o->call);
        return sf_fail(err, SF_NOMEM, "opening a shard");
    }
    *out = &o->call;
    sf__call_start(&o->call);
    return SF_OK;
}

sf_status sf_snapshot_open_shard(sf_snapshot **out, sf_runtime *rt, const char *url, const sf_reader_options *given,
                                 const char *checkpoint, int64_t timeout_ms, sf_error *err)
{
    sf_call *c;
    sf_status rc = sf__runtime_check_may_wait(rt, err);

    if (rc == SF_OK)
        rc = sf_snapshot_open_shard_start(&c, rt, url, given, checkpoint, timeout_ms, NULL, NULL, err);
    if (rc != SF_OK)
        return rc;
    rc = sf_call_wait(c, err);
    if (rc == SF_OK)
        *out = sf_call_take_snapshot(c);
    sf_call_release(c);
    return rc;
}
