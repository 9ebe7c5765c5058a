/* Objects through the public API, on every store that needs no server. Each case runs over files and in memory. */
#include "../../support/heap.h"
#include "../net/on_loop.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "runtime/runtime.h"
#include "shardyfusion/store.h"
#include "site/location.h"
#include "store/wait.h"

#define MAX_BYTES 1000000
#define PATIENCE_MS 20000

struct world {
    sf_runtime *rt;
    sf_bucket *bucket;
    char base[512]; /* below the bucket's root */
    char folder[64];
    char key[700];
};

static const char *key_of(struct world *w, const char *name)
{
    snprintf(w->key, sizeof(w->key), "%s/%s", w->base, name);
    return w->key;
}

static void open_bucket(struct world *w, const char *url)
{
    char root[128];

    assert_int_equal(sf_url_split(url, root, sizeof(root), w->base, sizeof(w->base), NULL), SF_OK);
    assert_int_equal(sf_bucket_open(&w->bucket, w->rt, url, NULL, NULL), SF_OK);
}

static int set_up_memory(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    *state = w;
    assert_int_equal(sf_runtime_new(&w->rt, NULL, NULL), SF_OK);
    open_bucket(w, "mem://bucket-test/some/where");
    return 0;
}

static int set_up_files(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    *state = w;
    snprintf(w->folder, sizeof(w->folder), "/tmp/bucket-test-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    assert_int_equal(sf_runtime_new(&w->rt, NULL, NULL), SF_OK);
    open_bucket(w, w->folder);
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    char command[128];

    sf_bucket_close(w->bucket);
    sf_runtime_release(w->rt);
    if (w->folder[0]) {
        snprintf(command, sizeof(command), "rm -rf %s", w->folder);
        assert_int_equal(system(command), 0);
    }
    free(w);
    return 0;
}

static void put(struct world *w, const char *name, const char *text)
{
    sf_error e = SF_ERROR_INIT;

    if (sf_bucket_put(w->bucket, key_of(w, name), sf_bytes_str(text), NULL, PATIENCE_MS, NULL, &e) != SF_OK)
        fail_msg("put %s: %s", name, e.message);
}

static void assert_holds(struct world *w, const char *name, const char *text)
{
    sf_object o = {0};
    sf_error e = SF_ERROR_INIT;

    if (sf_bucket_get(w->bucket, key_of(w, name), MAX_BYTES, PATIENCE_MS, &o, &e) != SF_OK)
        fail_msg("get %s: %s", name, e.message);
    assert_true(sf_bytes_eq(o.data, sf_bytes_str(text)));
    assert_int_equal(o.size, strlen(text));
    assert_true(o.etag[0] != '\0');
    sf_object_release(&o);
    sf_object_release(&o);
}

/* ------------------------------------------------------------------ objects -------------------------------------- */

static void what_is_put_can_be_read(void **state)
{
    struct world *w = *state;
    sf_put_options opts = SF_PUT_OPTIONS_INIT;
    sf_object written = {0}, seen = {0}, read = {0};

    put(w, "a", "");
    assert_holds(w, "a", "");
    put(w, "a", "one");
    assert_holds(w, "a", "one");
    opts.content_type = "application/json";
    assert_int_equal(
        sf_bucket_put(w->bucket, key_of(w, "x=1/b c"), sf_bytes_str("two"), &opts, PATIENCE_MS, &written, NULL), SF_OK);
    assert_int_equal(sf_bucket_head(w->bucket, w->key, PATIENCE_MS, &seen, NULL), SF_OK);
    assert_int_equal(sf_bucket_get(w->bucket, w->key, 3, PATIENCE_MS, &read, NULL), SF_OK);
    assert_int_equal(seen.size, 3);
    assert_int_equal(seen.data.n, 0);
    assert_string_equal(seen.etag, written.etag);
    assert_string_equal(read.etag, written.etag);
    assert_true(sf_bytes_eq(read.data, sf_bytes_str("two")));
    sf_object_release(&read);
    sf_object_release(&seen);
    sf_object_release(&written);
}

static void parts_can_be_read(void **state)
{
    static const struct {
        uint64_t off, len;
        sf_status rc;
        const char *want;
    } rows[] = {
        {0, 6, SF_OK, "abcdef"},  {2, 3, SF_OK, "cde"},
        {5, 1, SF_OK, "f"},       {5, 2, SF_CORRUPT, NULL},
        {6, 1, SF_CORRUPT, NULL}, {UINT64_MAX, 1, SF_INVALID, NULL},
        {0, 0, SF_INVALID, NULL}, {0, UINT64_MAX, SF_INVALID, NULL},
    };
    struct world *w = *state;
    sf_object o = {0};
    sf_bucket_info info;

    put(w, "parts", "abcdef");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_status rc =
            sf_bucket_get_range(w->bucket, key_of(w, "parts"), rows[i].off, rows[i].len, PATIENCE_MS, &o, NULL);

        if (rc != rows[i].rc || (rc == SF_OK && !sf_bytes_eq(o.data, sf_bytes_str(rows[i].want))))
            fail_msg("row %zu: %s", i, sf_status_name(rc));
        sf_object_release(&o);
    }
    assert_int_equal(sf_bucket_get_range(w->bucket, key_of(w, "none"), 0, 1, PATIENCE_MS, &o, NULL), SF_NOT_FOUND);
    sf_bucket_get_info(w->bucket, &info);
    assert_null(info.endpoint_url);
    assert_false(info.ignores_ranges);
}

static void conditions_hold(void **state)
{
    struct world *w = *state;
    sf_put_options create = SF_PUT_OPTIONS_INIT, replace = SF_PUT_OPTIONS_INIT, both = SF_PUT_OPTIONS_INIT;
    sf_object first = {0}, second = {0};
    sf_error e = SF_ERROR_INIT;

    create.create_only = true;
    assert_int_equal(sf_bucket_put(w->bucket, key_of(w, "p"), sf_bytes_str("1"), &create, PATIENCE_MS, &first, NULL),
                     SF_OK);
    assert_int_equal(sf_bucket_put(w->bucket, w->key, sf_bytes_str("2"), &create, PATIENCE_MS, NULL, &e), SF_CONFLICT);
    assert_non_null(strstr(e.object, w->key));
    assert_holds(w, "p", "1");
    replace.if_match = first.etag;
    assert_int_equal(sf_bucket_put(w->bucket, w->key, sf_bytes_str("33"), &replace, PATIENCE_MS, &second, NULL), SF_OK);
    assert_string_not_equal(first.etag, second.etag);
    assert_int_equal(sf_bucket_put(w->bucket, w->key, sf_bytes_str("44"), &replace, PATIENCE_MS, NULL, NULL),
                     SF_CONFLICT);
    assert_holds(w, "p", "33");
    both.create_only = true;
    both.if_match = first.etag;
    assert_int_equal(sf_bucket_put(w->bucket, key_of(w, "q"), sf_bytes_str(""), &both, PATIENCE_MS, NULL, NULL),
                     SF_INVALID);
}

static void failures_name_the_object(void **state)
{
    struct world *w = *state;
    sf_object o = {0};
    sf_error e = SF_ERROR_INIT;

    put(w, "long", "0123456789");
    assert_int_equal(sf_bucket_get(w->bucket, key_of(w, "absent"), MAX_BYTES, PATIENCE_MS, &o, &e), SF_NOT_FOUND);
    assert_non_null(strstr(e.object, w->key));
    assert_string_equal(e.operation, "get");
    assert_int_equal(sf_bucket_head(w->bucket, w->key, PATIENCE_MS, &o, &e), SF_NOT_FOUND);
    assert_int_equal(sf_bucket_get(w->bucket, key_of(w, "long"), 9, PATIENCE_MS, &o, &e), SF_CORRUPT);
    assert_int_equal(sf_bucket_get(w->bucket, w->key, 0, PATIENCE_MS, &o, &e), SF_INVALID);
    assert_int_equal(sf_bucket_get(w->bucket, "/slash", MAX_BYTES, PATIENCE_MS, &o, &e), SF_INVALID);
    assert_int_equal(sf_bucket_put(w->bucket, "", sf_bytes_str(""), NULL, PATIENCE_MS, NULL, &e), SF_INVALID);
    assert_null(o.owner); /* untouched by failures */
    assert_holds(w, "long", "0123456789");
}

static void listings_are_complete_and_sorted(void **state)
{
    static const char *const names[] = {"l/a", "l/b/1", "l/b/2", "l/b0", "l/c/d/e", "m"};
    static const char *const flat[] = {"l/a", "l/b/1", "l/b/2", "l/b0", "l/c/d/e"};
    static const char *const cut[] = {"l/a", "l/b/", "l/b0", "l/c/"};
    struct world *w = *state;

    for (size_t i = 0; i < 6; i++)
        put(w, names[i], names[i]);
    for (int delimited = 0; delimited < 2; delimited++) {
        const char *const *expected = delimited ? cut : flat;
        size_t wanted = delimited ? 4 : 5, count = 0;
        const sf_object_entry *entries;
        sf_call *c;

        assert_int_equal(sf_bucket_list(&c, w->bucket, key_of(w, "l/"), delimited ? "/" : NULL, PATIENCE_MS, NULL),
                         SF_OK);
        entries = sf_call_entries(c, &count);
        assert_int_equal(count, wanted);
        for (size_t i = 0; i < count; i++) {
            bool is_prefix = expected[i][strlen(expected[i]) - 1] == '/';

            assert_string_equal(entries[i].key, key_of(w, expected[i]));
            assert_int_equal(entries[i].is_prefix, is_prefix);
            assert_int_equal(entries[i].size, is_prefix ? 0 : strlen(expected[i]));
        }
        assert_null(sf_call_object(c)); /* of another kind of call: nothing */
        sf_call_release(c);
    }
}

static void deleting_what_is_not_there_is_fine(void **state)
{
    struct world *w = *state;
    char absent[700];
    sf_object o = {0};
    const char *keys[2];

    put(w, "d1", "1");
    put(w, "d2", "2");
    snprintf(absent, sizeof(absent), "%s", key_of(w, "absent"));
    keys[0] = absent;
    keys[1] = key_of(w, "d1");
    assert_int_equal(sf_bucket_delete_many(w->bucket, keys, 2, PATIENCE_MS, NULL), SF_OK);
    assert_int_equal(sf_bucket_head(w->bucket, key_of(w, "d1"), PATIENCE_MS, &o, NULL), SF_NOT_FOUND);
    assert_int_equal(sf_bucket_delete_many(w->bucket, keys, 0, PATIENCE_MS, NULL), SF_INVALID);
    assert_int_equal(sf_bucket_delete_many(w->bucket, keys, 1001, PATIENCE_MS, NULL), SF_INVALID);
    assert_int_equal(sf_bucket_delete(w->bucket, absent, PATIENCE_MS, NULL), SF_OK);
    assert_int_equal(sf_bucket_delete(w->bucket, key_of(w, "d2"), PATIENCE_MS, NULL), SF_OK);
    assert_int_equal(sf_bucket_delete(w->bucket, w->key, PATIENCE_MS, NULL), SF_OK);
    assert_int_equal(sf_bucket_head(w->bucket, w->key, PATIENCE_MS, &o, NULL), SF_NOT_FOUND);
}

/* ------------------------------------------------------------------ calls ---------------------------------------- */

static void arrive(void *ctx, sf_call *c)
{
    gate_arrive(ctx);
}

static void inputs_are_copied(void **state)
{
    struct world *w = *state;
    struct gate gate = GATE_INIT;
    char key[700], body[] = "body", type[] = "text/plain";
    sf_put_options opts = SF_PUT_OPTIONS_INIT;
    sf_call *c;

    snprintf(key, sizeof(key), "%s", key_of(w, "copied"));
    opts.content_type = type;
    assert_int_equal(
        sf_bucket_put_start(&c, w->bucket, key, sf_bytes_str(body), &opts, PATIENCE_MS, arrive, &gate, NULL), SF_OK);
    memset(key, 'x', strlen(key));
    memset(body, 'x', strlen(body));
    memset(type, 'x', strlen(type));
    gate_wait(&gate, 1);
    assert_int_equal(sf_call_wait(c, NULL), SF_OK);
    assert_true(sf_call_object(c)->etag[0] != '\0');
    sf_call_release(c);
    assert_holds(w, "copied", "body");
}

static void calls_outlive_their_bucket(void **state)
{
    struct world *w = *state;
    sf_bucket *second;
    char url[800];
    sf_call *c, *listing;
    sf_object taken;

    put(w, "kept", "value");
    snprintf(url, sizeof(url), w->folder[0] ? "/%s" : "mem://bucket-test/%s", w->base);
    assert_int_equal(sf_bucket_open(&second, w->rt, url, NULL, NULL), SF_OK);
    assert_int_equal(sf_bucket_get_start(&c, second, key_of(w, "kept"), MAX_BYTES, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_bucket_list_start(&listing, second, w->key, NULL, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    sf_bucket_close(second);
    sf_call_release(listing); /* nobody wants it */
    assert_int_equal(sf_call_wait(c, NULL), SF_OK);
    taken = *sf_call_object(c);
    sf_call_object(c)->owner = NULL;
    sf_call_release(c);
    assert_true(sf_bytes_eq(taken.data, sf_bytes_str("value")));
    sf_object_release(&taken);
}

/* Also when it was the only one, and in memory. */
static void objects_outlive_their_bucket(void **state)
{
    struct world *w = *state;
    char url[800];

    put(w, "kept", "value");
    snprintf(url, sizeof(url), w->folder[0] ? "/%s" : "mem://bucket-test/%s", w->base);
    sf_bucket_close(w->bucket);
    open_bucket(w, url);
    assert_holds(w, "kept", "value");
}

static void cancelled_and_late_calls_end(void **state)
{
    struct world *w = *state;
    sf_object o = {0};
    unsigned cancelled = 0;
    sf_status rc;

    put(w, "c", "value");
    for (unsigned i = 0; i < 200; i++) {
        sf_call *c;

        assert_int_equal(sf_bucket_get_start(&c, w->bucket, key_of(w, "c"), MAX_BYTES, PATIENCE_MS, NULL, NULL, NULL),
                         SF_OK);
        sf_call_cancel(c);
        rc = sf_call_wait(c, NULL);
        assert_true(rc == SF_OK || rc == SF_CANCELLED);
        cancelled += rc == SF_CANCELLED;
        sf_call_release(c);
        assert_int_equal(sf_bucket_list_start(&c, w->bucket, w->base, NULL, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
        sf_call_cancel(c);
        rc = sf_call_wait(c, NULL);
        assert_true(rc == SF_OK || rc == SF_CANCELLED);
        sf_call_release(c);
    }
    assert_true(cancelled > 0);
    assert_int_equal(sf_bucket_get(w->bucket, w->key, MAX_BYTES, 0, &o, NULL), SF_TIMEOUT);
}

/* ------------------------------------------------------------------ all at once ---------------------------------- */

/* One that takes connections and says nothing. */
struct mute {
    int listener;
    char url[64];
    sf_s3_options s3;
};

static void mute_open(struct mute *m)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(at);

    m->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(m->listener, (struct sockaddr *)&at, n), 0);
    assert_int_equal(listen(m->listener, 16), 0);
    assert_int_equal(getsockname(m->listener, (struct sockaddr *)&at, &n), 0);
    snprintf(m->url, sizeof(m->url), "http://127.0.0.1:%u", ntohs(at.sin_port));
    m->s3 = (sf_s3_options)SF_S3_OPTIONS_INIT;
    m->s3.endpoint_url = m->url;
    m->s3.anonymous = true;
}

struct blocked {
    sf_store *store;
    sf_status rc;
    atomic_bool done;
};

static void *block(void *arg)
{
    struct blocked *b = arg;
    sf_store_op op = {.verb = SF_STORE_HEAD, .key = "k", .deadline_ns = SF_NO_DEADLINE};

    b->rc = sf__store_wait(b->store, &op, NULL, NULL);
    sf__store_op_cleanup(&op, b->store->alloc);
    atomic_store(&b->done, true);
    return NULL;
}

static void all_that_is_under_way_ends(void **state)
{
    struct mute mute;
    struct blocked blocked = {.rc = SF_OK};
    sf_call *calls[4], *begun_later;
    sf_runtime *rt;
    sf_bucket *b, *memory;
    pthread_t thread;
    char *path;
    bool all = false;

    (void)state;
    mute_open(&mute);
    assert_int_equal(sf_runtime_new(&rt, NULL, NULL), SF_OK);
    sf_runtime_cancel_all(rt); /* nothing */
    assert_int_equal(sf_bucket_open(&b, rt, "s3://bucket", &mute.s3, NULL), SF_OK);
    assert_int_equal(sf_bucket_open(&memory, rt, "mem://all-at-once", NULL, NULL), SF_OK);
    assert_int_equal(sf__location_open(rt, "s3://bucket/k", &mute.s3, &blocked.store, &path, NULL), SF_OK);
    sf__free(rt->alloc, path);
    assert_int_equal(pthread_create(&thread, NULL, block, &blocked), 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(i % 2 == 0 ? sf_bucket_get_start(&calls[i], b, "k", 9, SF_TIMEOUT_NONE, NULL, NULL, NULL)
                                    : sf_bucket_list_start(&calls[i], b, "", NULL, SF_TIMEOUT_NONE, NULL, NULL, NULL),
                         SF_OK);
    sf_call_cancel(calls[3]);
    while (!all) { /* the thread may not have begun yet */
        sf_runtime_cancel_all(rt);
        all = atomic_load(&blocked.done);
        for (unsigned i = 0; i < 4; i++)
            all = all && sf_call_is_done(calls[i]);
        sched_yield();
    }
    pthread_join(thread, NULL);
    assert_int_equal(blocked.rc, SF_CANCELLED);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(sf_call_error(calls[i])->code, SF_CANCELLED);
        sf_call_release(calls[i]);
    }
    assert_int_equal(
        sf_bucket_put_start(&begun_later, memory, "k", sf_bytes_str("v"), NULL, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_call_wait(begun_later, NULL), SF_OK);
    sf_call_release(begun_later);
    sf__store_release(blocked.store);
    sf_bucket_close(memory);
    sf_bucket_close(b);
    sf_runtime_cancel_all(rt); /* the end does not wait for it in vain */
    sf_runtime_release(rt);
    close(mute.listener);
}

struct writer {
    struct world *w;
    unsigned no;
    unsigned failures;
};

static void *write_and_read(void *arg)
{
    struct writer *t = arg;
    char key[600], text[32];

    for (unsigned i = 0; i < 50; i++) {
        sf_object o = {0};

        snprintf(key, sizeof(key), "%s/t%u", t->w->base, t->no);
        snprintf(text, sizeof(text), "%u/%u", t->no, i);
        t->failures += sf_bucket_put(t->w->bucket, key, sf_bytes_str(text), NULL, PATIENCE_MS, NULL, NULL) != SF_OK;
        t->failures += sf_bucket_get(t->w->bucket, key, MAX_BYTES, PATIENCE_MS, &o, NULL) != SF_OK ||
                       !sf_bytes_eq(o.data, sf_bytes_str(text));
        sf_object_release(&o);
    }
    return NULL;
}

static void every_thread_sees_its_own_writes(void **state)
{
    struct writer writers[4];
    pthread_t threads[4];

    for (unsigned i = 0; i < 4; i++) {
        writers[i] = (struct writer){*state, i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, write_and_read, &writers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(writers[i].failures, 0);
    }
}

static void a_forked_child_is_told(void **state)
{
    struct world *w = *state;
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        sf_object o = {0};
        sf_call *c;
        bool told = sf_bucket_get(w->bucket, "k", 1, 1000, &o, NULL) == SF_FORKED &&
                    sf_bucket_list(&c, w->bucket, "", NULL, 1000, NULL) == SF_FORKED;

        sf_bucket_close(w->bucket);
        _exit(told ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ------------------------------------------------------------------ memory that runs out ------------------------- */

static sf_status scenario(sf_runtime *rt, sf_error *err)
{
    sf_put_options opts = SF_PUT_OPTIONS_INIT;
    const char *keys[] = {"s/a", "s/b"};
    sf_bucket *b = NULL;
    sf_object o = {0};
    sf_call *c = NULL;
    sf_status rc = sf_bucket_open(&b, rt, "mem://scarce", NULL, err);

    opts.content_type = "text/plain";
    if (rc == SF_OK)
        rc = sf_bucket_put(b, keys[0], sf_bytes_str("x"), &opts, PATIENCE_MS, NULL, err);
    if (rc == SF_OK)
        rc = sf_bucket_get(b, keys[0], MAX_BYTES, PATIENCE_MS, &o, err);
    if (rc == SF_OK)
        rc = sf_bucket_list(&c, b, "s/", "/", PATIENCE_MS, err);
    if (rc == SF_OK)
        rc = sf_bucket_delete_many(b, keys, 2, PATIENCE_MS, err);
    sf_call_release(c);
    sf_object_release(&o);
    sf_bucket_close(b);
    return rc;
}

static void any_failed_allocation_is_survived(void **state)
{
    struct test_heap heap;

    heap_init(&heap);
    for (long n = 0;; n++) {
        sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
        sf_runtime *rt = NULL;
        sf_error e = SF_ERROR_INIT;
        sf_status rc;

        heap_arm(&heap, n);
        o.allocator = &heap.alloc;
        rc = sf_runtime_new(&rt, &o, &e);
        if (rc == SF_OK)
            rc = scenario(rt, &e);
        sf_runtime_release(rt);
        assert_int_equal(heap_settle(&heap, 0), 0);
        if (!heap.fired) {
            assert_int_equal(rc, SF_OK);
            assert_true(n > 20);
            break;
        }
        if (rc != SF_NOMEM && rc != SF_OK)
            fail_msg("allocation %ld: %s: %s", n, sf_status_name(rc), e.message);
        assert_true(n < 10000);
    }
}

/* ------------------------------------------------------------------ URLs ----------------------------------------- */

static void urls_are_split(void **state)
{
    static const struct {
        const char *url;
        sf_status rc;
        const char *root, *key;
    } rows[] = {
        {"s3://bucket/some/prefix", SF_OK, "s3://bucket", "some/prefix"},
        {"s3://bucket/some/prefix//", SF_OK, "s3://bucket", "some/prefix"},
        {"s3://bucket", SF_OK, "s3://bucket", ""},
        {"s3://bucket//x", SF_OK, "s3://bucket", "x"},
        {"s3:///x", SF_INVALID, NULL, NULL},
        {"mem://name/a=1/b", SF_OK, "mem://name", "a=1/b"},
        {"file:///tmp/x/", SF_OK, "file://", "tmp/x"},
        {"file:///", SF_OK, "file://", ""},
        {"file://tmp", SF_INVALID, NULL, NULL},
        {"/tmp/../var/./x", SF_OK, "file://", "var/x"},
        {"/..", SF_OK, "file://", ""},
        {"gs://bucket/x", SF_INVALID, NULL, NULL},
        {"", SF_INVALID, NULL, NULL},
    };
    char root[64], key[4200], here[4096];

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_status rc = sf_url_split(rows[i].url, root, sizeof(root), key, sizeof(key), NULL);

        if (rc != rows[i].rc || (rc == SF_OK && (strcmp(root, rows[i].root) != 0 || strcmp(key, rows[i].key) != 0)))
            fail_msg("%s: %s, \"%s\", \"%s\"", rows[i].url, sf_status_name(rc), root, key);
    }
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(sf_url_split("x/../y", root, sizeof(root), key, sizeof(key), NULL), SF_OK);
    assert_memory_equal(key, here + 1, strlen(here) - 1);
    assert_string_equal(key + strlen(here) - 1, "/y");
    assert_int_equal(sf_url_split("s3://bucket/key", root, 11, key, sizeof(key), NULL), SF_INVALID);
    assert_int_equal(sf_url_split("s3://bucket/key", root, sizeof(root), key, 3, NULL), SF_INVALID);
    assert_int_equal(sf_url_split("s3://bucket/key", root, 12, key, 4, NULL), SF_OK);
}

int main(void)
{
#define ON_BOTH(f)                                       \
    {#f " (memory)", f, set_up_memory, tear_down, NULL}, \
    {                                                    \
        #f " (files)", f, set_up_files, tear_down, NULL  \
    }
    const struct CMUnitTest tests[] = {
        ON_BOTH(what_is_put_can_be_read),
        ON_BOTH(parts_can_be_read),
        ON_BOTH(conditions_hold),
        ON_BOTH(failures_name_the_object),
        ON_BOTH(listings_are_complete_and_sorted),
        ON_BOTH(deleting_what_is_not_there_is_fine),
        ON_BOTH(inputs_are_copied),
        ON_BOTH(calls_outlive_their_bucket),
        ON_BOTH(objects_outlive_their_bucket),
        ON_BOTH(cancelled_and_late_calls_end),
        ON_BOTH(every_thread_sees_its_own_writes),
        ON_BOTH(a_forked_child_is_told),
        cmocka_unit_test(all_that_is_under_way_ends),
        cmocka_unit_test(any_failed_allocation_is_survived),
        cmocka_unit_test(urls_are_split),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
