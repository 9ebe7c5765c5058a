#include "backend/sqlite/copying.h"

#include "base/container.h"
#include "base/error.h"

static void go_on(sf_copying *c);

void sf__copying_cancel(sf_copying *c)
{
    c->stopped = true;
    for (unsigned i = 0; i < SF_COPYING_SLOTS; i++)
        if (c->chunks[i].busy)
            sf__fetch_cancel(&c->chunks[i].fetch); /* harmless when it is written */
}

/* The first failure counts. */
static void failed(sf_copying *c, const sf_error *e)
{
    if (!c->error && !c->changed)
        c->error = sf_error_keep(c->rt->alloc, e);
    sf__copying_cancel(c);
}

static void chunk_home(struct copied_chunk *k)
{
    sf__buf_release(k->fetch.data);
    k->busy = false;
    k->owner->pending--;
    go_on(k->owner);
}

static void write_run(sf_work *w)
{
    struct copied_chunk *k = sf_container_of(w, struct copied_chunk, write);
    sf_bytes b = sf__buf_bytes(k->fetch.data);
    sf_error e; /* filled by failures only */

    k->error = NULL;
    if (sf__local_copy_write(k->owner->copy, k->fetch.off, b, &e) != SF_OK) {
        sf__store_error_name(&e, "open", k->owner->store, k->owner->key);
        k->error = sf_error_keep(k->owner->rt->alloc, &e);
    } else {
        k->hash = sf__xxh3_128(b);
    }
}

static void write_done(sf_work *w)
{
    struct copied_chunk *k = sf_container_of(w, struct copied_chunk, write);
    sf_copying *c = k->owner;

    if (k->error)
        failed(c, k->error);
    else
        sf__copy_digest_add(&c->copy->digest, k->fetch.off, k->hash);
    sf_error_drop(c->rt->alloc, k->error);
    chunk_home(k);
}

static void chunk_done(sf_fetch *f)
{
    struct copied_chunk *k = f->ctx;
    sf_copying *c = k->owner;

    if (f->error->code != SF_OK) {
        failed(c, f->error);
    } else if ((f->object_size != SF_STORE_ALL && f->object_size != c->copy->size) || f->data->n != f->len) {
        c->changed = !c->error;
        sf__copying_cancel(c);
    }
    if (c->stopped) {
        chunk_home(k);
        return;
    }
    k->write = (sf_work){.run = write_run, .done = write_done, .bulk = true};
    sf__work_submit(c->rt->loop, SF_WORK_FILE, &k->write);
}

static void chunk_start(sf_copying *c, struct copied_chunk *k)
{
    uint64_t left = c->copy->size - c->next_off;

    *k = (struct copied_chunk){.owner = c, .busy = true};
    k->fetch = (sf_fetch){
        .store = c->store,
        .key = c->key,
        .off = c->next_off,
        .len = left < SF_COPY_PIECE_BYTES ? left : SF_COPY_PIECE_BYTES, /* each is hashed while it is at hand */
        .deadline_ns = c->deadline_ns,
        .done = chunk_done,
        .ctx = k,
    };
    c->next_off += k->fetch.len;
    c->pending++;
    sf__fetch_start(c->rt->fetcher, &k->fetch);
}

/* Fills free slots, until nothing is left to begin or to wait for. */
static void go_on(sf_copying *c)
{
    for (unsigned i = 0; i < SF_COPYING_SLOTS && c->next_off < c->copy->size && !c->stopped; i++)
        if (!c->chunks[i].busy)
            chunk_start(c, &c->chunks[i]);
    if (c->pending == 0)
        c->done(c);
}

void sf__copying_start(sf_copying *c)
{
    go_on(c);
}
