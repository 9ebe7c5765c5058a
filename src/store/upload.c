#include "store/upload.h"

#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/grow.h"

#define MAX_PARTS 10000u
#define MAX_IN_FLIGHT 64u
/* The first buffer starts with this and doubles: small objects take little. */
#define FIRST_BUFFER_BYTES (UINT64_C(64) << 10)
/* What is left behind is taken back with a deadline of its own: the upload may have failed by its deadline. */
#define CLEANUP_TIMEOUT_MS 30000

/*   FILLING --> PARTS --> DONE        FILLING: all so far is in the first buffer, no request was made
 *      |  \______|_________^
 *      v         v                    a failed one stays so: whatever is called then gets the first error again
 *    FAILED <----+                                                                                                 */
enum upload_state { UPLOAD_FILLING, UPLOAD_PARTS, UPLOAD_DONE, UPLOAD_FAILED };

struct slot {
    uint8_t *bytes;
    uint64_t cap, n;
    bool sent; /* its part is on the way, or home and not looked at */
    sf_waited_op part;
};

struct sf_upload {
    const sf_allocator *alloc;
    sf_store *store; /* acquired */
    char *key, *content_type;
    sf_upload_options opts;
    sf_waiter waiter;
    enum upload_state state;
    sf_error error; /* FAILED: why */
    uint64_t size;
    char *upload_id;
    bool ours;           /* the object, if it is there: no other writer can have stored it and rely on it */
    bool unsure;         /* an answer was lost; the object's size will tell */
    char **etags;        /* of parts 1 .. part_count */
    uint32_t part_count; /* sent */
    size_t etag_cap;
    struct slot *slots; /* part n uses slot (n - 1) % slot_count, when part n - slot_count is home */
    uint32_t slot_count;
};

/* ------------------------------------------------------------------ life ----------------------------------------- */

static sf_status check_options(const sf_upload_options *o, sf_error *err)
{
    if (o->part_bytes == 0 || o->part_bytes > SIZE_MAX / 2048)
        return sf_fail(err, SF_INVALID, "upload parts of %llu bytes", (unsigned long long)o->part_bytes);
    if (o->parts_in_flight == 0 || o->parts_in_flight > MAX_IN_FLIGHT)
        return sf_fail(err, SF_INVALID, "%u upload parts in flight are not within 1 to %u", o->parts_in_flight,
                       MAX_IN_FLIGHT);
    return SF_OK;
}

static void upload_destroy(sf_upload *u)
{
    const sf_allocator *a = u->alloc;

    for (uint32_t i = 0; u->slots && i < u->slot_count; i++)
        sf__free(a, u->slots[i].bytes);
    for (uint32_t i = 0; u->etags && i < u->part_count; i++)
        sf__free(a, u->etags[i]);
    sf__free(a, u->slots);
    sf__free(a, u->etags);
    sf__free(a, u->upload_id);
    sf__free(a, u->key);
    sf__free(a, u->content_type);
    sf__waiter_destroy(&u->waiter);
    sf__store_release(u->store);
    sf__free(a, u);
}

sf_status sf__upload_open(sf_upload **out, sf_store *store, const char *key, const char *content_type,
                          const sf_upload_options *opts, sf_error *err)
{
    sf_status rc = check_options(opts, err);
    sf_upload *u;

    if (rc != SF_OK)
        return rc;
    u = sf__calloc(store->alloc, 1, sizeof(*u));
    if (!u)
        return sf_fail(err, SF_NOMEM, "upload of %s", key);
    u->alloc = store->alloc;
    u->store = sf__store_acquire(store);
    u->opts = *opts;
    u->error = (sf_error)SF_ERROR_INIT;
    sf__waiter_init(&u->waiter, store->loop, opts->cancel);
    u->slot_count = opts->parts_in_flight + 1;
    u->key = sf__strdup(u->alloc, key);
    u->content_type = content_type ? sf__strdup(u->alloc, content_type) : NULL;
    u->slots = sf__calloc(u->alloc, u->slot_count, sizeof(*u->slots));
    if (!u->key || !u->slots || (content_type && !u->content_type)) {
        upload_destroy(u);
        return sf_fail(err, SF_NOMEM, "upload of %s", key);
    }
    *out = u;
    return SF_OK;
}

uint64_t sf__upload_size(const sf_upload *u)
{
    return u->size;
}

/* ------------------------------------------------------------------ requests ------------------------------------- */

/* The only way into FAILED. */
static sf_status fail(sf_upload *u, const sf_error *e, sf_error *err)
{
    u->error = *e;
    u->state = UPLOAD_FAILED;
    if (err)
        *err = u->error;
    return u->error.code;
}

static sf_status check_state(const sf_upload *u, sf_error *err)
{
    if (u->state == UPLOAD_FILLING || u->state == UPLOAD_PARTS)
        return SF_OK;
    if (u->state == UPLOAD_DONE)
        return sf_fail(err, SF_STATE, "%s/%s is uploaded", u->store->url, u->key);
    if (err)
        *err = u->error;
    return u->error.code;
}

static sf_store_op new_op(const sf_upload *u, sf_store_verb verb, int64_t timeout_ms)
{
    return (sf_store_op){
        .verb = verb,
        .key = u->key,
        .upload_id = u->upload_id,
        .content_type = u->content_type,
        .deadline_ns = sf__deadline_in_ms(timeout_ms),
    };
}

/* Of part `number`, from 1. */
static uint64_t part_bytes(const sf_upload *u, uint32_t number)
{
    return u->opts.part_bytes << (number - 1) / SF_UPLOAD_PARTS_PER_SIZE;
}

static sf_status create_upload(sf_upload *u, sf_error *err)
{
    sf_store_op op = new_op(u, SF_STORE_MULTIPART_CREATE, u->opts.timeout_ms);
    sf_status rc = sf__store_wait(u->store, &op, u->opts.cancel, err);

    if (rc == SF_OK) {
        u->upload_id = op.upload_id_out;
        op.upload_id_out = NULL;
        u->state = UPLOAD_PARTS;
    }
    sf__store_op_cleanup(&op, u->alloc);
    return rc;
}

/* Waits for the slot's part and keeps its ETag. */
static sf_status slot_settle(sf_upload *u, struct slot *s, sf_error *err)
{
    sf_status rc;

    if (!s->sent)
        return SF_OK;
    rc = sf__store_wait_end(&s->part, err);
    s->sent = false;
    s->n = 0;
    if (rc == SF_OK) {
        uint32_t number = s->part.op.part_number;

        u->etags[number - 1] = sf__strdup(u->alloc, s->part.op.etag);
        if (!u->etags[number - 1])
            rc = sf_fail(err, SF_NOMEM, "part %u of %s", number, u->key);
    }
    sf__store_op_cleanup(&s->part.op, u->alloc);
    return rc;
}

static bool etags_reserve(sf_upload *u)
{
    return SF_RESERVE(u->alloc, &u->etags, &u->etag_cap, u->part_count + 1);
}

static struct slot *filling(sf_upload *u)
{
    return &u->slots[u->part_count % u->slot_count];
}

static sf_status send_part(sf_upload *u, sf_error *err)
{
    struct slot *s = filling(u);

    if (u->part_count == MAX_PARTS)
        return sf_fail(err, SF_INVALID, "%s/%s: the object needs more than %u parts", u->store->url, u->key, MAX_PARTS);
    if (!u->upload_id && create_upload(u, err) != SF_OK)
        return err->code;
    if (!etags_reserve(u))
        return sf_fail(err, SF_NOMEM, "upload of %s", u->key);
    u->etags[u->part_count++] = NULL;
    s->part = (sf_waited_op){.op = new_op(u, SF_STORE_MULTIPART_PART, u->opts.timeout_ms)};
    s->part.op.part_number = u->part_count;
    s->part.op.off = u->size - s->n;
    s->part.op.body = sf_bytes_of(s->bytes, (size_t)s->n);
    s->sent = true;
    sf__store_wait_start(&u->waiter, u->store, &s->part);
    return SF_OK;
}

/* Room for at least one more byte, at best for `want`, at most for the whole part. */
static sf_status slot_reserve(sf_upload *u, struct slot *s, uint64_t want, sf_error *err)
{
    uint64_t full = part_bytes(u, u->part_count + 1), cap = s->cap;
    uint8_t *p;

    want = want < full - s->n ? s->n + want : full;
    if (s->cap >= want)
        return SF_OK;
    if (u->state != UPLOAD_FILLING || want >= full / 2)
        cap = full;
    else
        for (cap = cap ? cap : FIRST_BUFFER_BYTES; cap < want; cap *= 2)
            ;
    if (s->n == 0) { /* nothing to keep: no copy */
        sf__free(u->alloc, s->bytes);
        s->bytes = NULL;
        s->cap = 0;
    }
    p = sf__realloc(u->alloc, s->bytes, (size_t)cap);
    if (!p)
        return sf_fail(err, SF_NOMEM, "upload part of %llu bytes", (unsigned long long)cap);
    s->bytes = p;
    s->cap = cap;
    return SF_OK;
}

static sf_status append(sf_upload *u, sf_bytes b, sf_error *err)
{
    while (b.n > 0) {
        struct slot *s = filling(u);
        uint64_t full = part_bytes(u, u->part_count + 1), n;

        if (s->sent && slot_settle(u, s, err) != SF_OK)
            return err->code;
        if (s->n == full) { /* only now: what fits into one part goes without parts */
            if (send_part(u, err) != SF_OK)
                return err->code;
            continue;
        }
        if (slot_reserve(u, s, b.n, err) != SF_OK)
            return err->code;
        n = full < s->cap ? full - s->n : s->cap - s->n;
        n = n < b.n ? n : b.n;
        memcpy(s->bytes + s->n, b.p, (size_t)n);
        s->n += n;
        u->size += n;
        b.p += n;
        b.n -= (size_t)n;
    }
    return SF_OK;
}

sf_status sf__upload_append(sf_upload *u, sf_bytes bytes, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_status rc = check_state(u, err);

    if (rc != SF_OK)
        return rc;
    return append(u, bytes, &e) == SF_OK ? SF_OK : fail(u, &e, err);
}

/* ------------------------------------------------------------------ the end -------------------------------------- */

/* The one request that makes the object. Of what must be new, only a success says that it is ours: one that was cancelled
 * or whose answer was lost may have met another writer's. */
static sf_status make_object(sf_upload *u, sf_store_op *op, sf_upload_result *r, sf_error *err)
{
    sf_status rc;

    op->create_only = u->opts.create_only;
    rc = sf__store_wait(u->store, op, u->opts.cancel, err);
    u->ours = rc == SF_OK || (!op->create_only && rc != SF_CONFLICT);
    memcpy(r->etag, op->etag, sizeof(r->etag));
    if (rc != SF_OK && op->may_be_ours) {
        u->unsure = true;
        r->etag[0] = '\0';
        rc = SF_OK;
    }
    sf__store_op_cleanup(op, u->alloc);
    return rc;
}

static sf_status put_whole(sf_upload *u, sf_upload_result *r, sf_error *err)
{
    sf_store_op op = new_op(u, SF_STORE_PUT, u->opts.timeout_ms);

    op.body = sf_bytes_of(u->slots[0].bytes, (size_t)u->slots[0].n);
    return make_object(u, &op, r, err);
}

static sf_status taken(const sf_upload *u, sf_error *err)
{
    return sf_fail(err, SF_CONFLICT, "%s/%s: another writer has stored it meanwhile", u->store->url, u->key);
}

/* For stores that have no condition for completing, or ignore it: this is as near as it gets there. */
static sf_status check_absent(sf_upload *u, sf_error *err)
{
    sf_store_op op = new_op(u, SF_STORE_HEAD, u->opts.timeout_ms);
    sf_error e = SF_ERROR_INIT;
    sf_status rc = sf__store_wait(u->store, &op, u->opts.cancel, &e);

    sf__store_op_cleanup(&op, u->alloc);
    if (rc == SF_NOT_FOUND)
        return SF_OK;
    if (rc == SF_OK)
        return taken(u, err);
    *err = e;
    return rc;
}

static sf_status complete(sf_upload *u, sf_upload_result *r, sf_error *err)
{
    sf_store_op op;
    sf_status rc = filling(u)->n > 0 && !filling(u)->sent ? send_part(u, err) : SF_OK;

    for (uint32_t i = 0; i < u->slot_count && rc == SF_OK; i++)
        rc = slot_settle(u, &u->slots[i], err);
    if (rc == SF_OK && u->opts.create_only)
        rc = check_absent(u, err);
    if (rc != SF_OK)
        return rc;
    op = new_op(u, SF_STORE_MULTIPART_COMPLETE, u->opts.timeout_ms);
    op.keys = (const char *const *)u->etags;
    op.key_count = u->part_count;
    return make_object(u, &op, r, err);
}

static sf_status verify(sf_upload *u, sf_upload_result *r, sf_error *err)
{
    sf_store_op op = new_op(u, SF_STORE_HEAD, u->opts.timeout_ms);
    sf_status rc = sf__store_wait(u->store, &op, u->opts.cancel, err);

    if (rc == SF_OK && op.object_size != u->size && u->unsure && u->opts.create_only) {
        rc = taken(u, err);
    } else if (rc == SF_OK && op.object_size != u->size) {
        rc = sf_fail(err, SF_CORRUPT, "%s/%s: %llu bytes were uploaded, the store has %llu", u->store->url, u->key,
                     (unsigned long long)u->size, (unsigned long long)op.object_size);
    } else if (rc == SF_OK && !sf__store_etag_same(op.etag, r->etag)) {
        rc = sf_fail(err, SF_CORRUPT, "%s/%s: uploaded as %s, the store has %s", u->store->url, u->key, r->etag, op.etag);
    }
    memcpy(r->etag, op.etag, sizeof(r->etag));
    r->size = op.object_size;
    sf__store_op_cleanup(&op, u->alloc);
    return rc;
}

sf_status sf__upload_finish(sf_upload *u, sf_upload_result *out, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_upload_result r = {0};
    sf_status rc = check_state(u, err);

    if (rc != SF_OK)
        return rc;
    rc = u->upload_id ? complete(u, &r, &e) : put_whole(u, &r, &e);
    if (rc == SF_OK)
        rc = verify(u, &r, &e);
    if (rc != SF_OK)
        return fail(u, &e, err);
    u->state = UPLOAD_DONE;
    r.ours = u->ours;
    if (out)
        *out = r;
    return SF_OK;
}

/* As far as that works: nobody is left to hear of a failure, and what stays is not part of anything. */
static void take_back(sf_upload *u)
{
    sf_store_op op;
    sf_error ignored;

    for (uint32_t i = 0; i < u->slot_count; i++)
        if (u->slots[i].sent)
            sf__wait_cancel(&u->slots[i].part.waited);
    for (uint32_t i = 0; i < u->slot_count; i++)
        if (slot_settle(u, &u->slots[i], &ignored) != SF_OK)
            continue;
    if (u->upload_id) {
        op = new_op(u, SF_STORE_MULTIPART_ABORT, CLEANUP_TIMEOUT_MS);
        op.tidy = true;
        if (sf__store_wait(u->store, &op, NULL, &ignored) == SF_OK)
            sf__store_op_cleanup(&op, u->alloc);
    }
    if (u->ours) {
        op = new_op(u, SF_STORE_DELETE, CLEANUP_TIMEOUT_MS);
        op.tidy = true;
        if (sf__store_wait(u->store, &op, NULL, &ignored) == SF_OK)
            sf__store_op_cleanup(&op, u->alloc);
    }
}

void sf__upload_free(sf_upload *u)
{
    if (!u)
        return;
    if (u->state != UPLOAD_DONE)
        take_back(u);
    upload_destroy(u);
}
