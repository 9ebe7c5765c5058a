/* What every store must do, over files and memory. */
#include "../../support/heap.h"
#include "../net/on_loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "store/store.h"

static const sf_allocator *const heap = &sf__allocator_default;

struct world {
    sf_loop *loop;
    sf_store *store;
    char prefix[256]; /* of every key, with its slash */
    char folder[256]; /* of the file store's, to be removed */
};

struct waiting {
    sf_task task;
    struct world *w;
    sf_store_op *op;
    sf_error error;
    bool cancel;
    struct gate gate;
};

static void arrived(sf_store_op *op)
{
    struct waiting *g = op->ctx;

    g->error = *op->error;
    gate_arrive(&g->gate);
}

static void submit(sf_task *task)
{
    struct waiting *g = (struct waiting *)task;

    sf__store_submit(g->w->store, g->op);
    assert_int_equal(g->gate.count, 0);
    if (g->cancel)
        sf__store_cancel(g->w->store, g->op);
}

static sf_status run_full(struct world *w, sf_store_op *op, bool cancel, sf_error *err)
{
    struct waiting g = {.task.run = submit, .w = w, .op = op, .cancel = cancel, .gate = GATE_INIT};

    op->done = arrived;
    op->ctx = &g;
    if (op->deadline_ns == 0)
        op->deadline_ns = SF_NO_DEADLINE;
    sf__loop_post(w->loop, &g.task);
    gate_wait(&g.gate, 1);
    if (err)
        *err = g.error;
    return g.error.code;
}

static sf_status run(struct world *w, sf_store_op *op)
{
    return run_full(w, op, false, NULL);
}

static const char *name(struct world *w, const char *rest)
{
    static char names[8][512];
    static unsigned next;
    char *out = names[next++ % 8];

    snprintf(out, 512, "%s%s", w->prefix, rest);
    return out;
}

static sf_status put(struct world *w, const char *key, const char *text)
{
    sf_store_op op = {.verb = SF_STORE_PUT, .key = name(w, key), .body = sf_bytes_str(text)};

    return run(w, &op);
}

/* ------------------------------------------------------------------ set-up --------------------------------------- */

static int set_up_loop(struct world **out)
{
    struct world *w = calloc(1, sizeof(*w));

    *out = w;
    return !w || sf__loop_new(&w->loop, heap, NULL) != SF_OK;
}

static int set_up_file(void **state)
{
    struct world *w;

    if (set_up_loop(&w) != 0)
        return 1;
    *state = w;
    strcpy(w->folder, "/tmp/sf-store-XXXXXX");
    if (!mkdtemp(w->folder))
        return 1;
    snprintf(w->prefix, sizeof(w->prefix), "%s/", w->folder + 1);
    return sf__store_file_new(&w->store, w->loop, heap, NULL) != SF_OK;
}

static int set_up_memory(void **state)
{
    struct world *w;

    if (set_up_loop(&w) != 0)
        return 1;
    *state = w;
    return sf__store_memory_open(&w->store, "test", w->loop, heap, NULL) != SF_OK;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    char command[300];
    int rc = 0;

    sf__store_release(w->store);
    sf__loop_free(w->loop);
    if (w->folder[0]) {
        snprintf(command, sizeof(command), "rm -r '%s'", w->folder);
        rc = system(command);
    }
    free(w);
    return rc;
}

/* ------------------------------------------------------------------ tests ---------------------------------------- */

static void reads_ranges(void **state)
{
    static const struct {
        sf_store_verb verb;
        uint64_t off, len, max;
        sf_status expected;
        const char *text;
    } rows[] = {
        {SF_STORE_GET, 0, SF_STORE_ALL, 100, SF_OK, "0123456789"},
        {SF_STORE_GET, 0, SF_STORE_ALL, 9, SF_CORRUPT, NULL},
        {SF_STORE_GET, 0, 10, 0, SF_OK, "0123456789"},
        {SF_STORE_GET, 3, 4, 0, SF_OK, "3456"},
        {SF_STORE_GET, 9, 1, 0, SF_OK, "9"},
        {SF_STORE_GET, 9, 2, 0, SF_CORRUPT, NULL},
        {SF_STORE_GET, 11, 1, 0, SF_CORRUPT, NULL},
        {SF_STORE_GET, 3, 0, 0, SF_INVALID, NULL},
        {SF_STORE_GET, UINT64_MAX - 1, 5, 0, SF_INVALID, NULL},
        {SF_STORE_GET, 1, SF_STORE_ALL, 10, SF_INVALID, NULL},
        {SF_STORE_GET_SUFFIX, 0, 3, 0, SF_OK, "789"},
        {SF_STORE_GET_SUFFIX, 0, 30, 0, SF_OK, "0123456789"},
        {SF_STORE_GET_SUFFIX, 0, 0, 0, SF_INVALID, NULL},
    };
    struct world *w = *state;

    assert_int_equal(put(w, "some/object", "0123456789"), SF_OK);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_store_op op = {.verb = rows[i].verb,
                          .key = name(w, "some/object"),
                          .off = rows[i].off,
                          .len = rows[i].len,
                          .max_bytes = rows[i].max};
        sf_error e;

        assert_int_equal(run_full(w, &op, false, &e), rows[i].expected);
        if (rows[i].text) {
            assert_int_equal(op.object_size, 10);
            assert_int_equal(op.data->n, strlen(rows[i].text));
            assert_memory_equal(op.data->data, rows[i].text, op.data->n);
        } else {
            assert_null(op.data);
            assert_int_equal(op.longer, rows[i].max == 9 ? 10 : 0);
            assert_non_null(strstr(e.object, "some/object"));
            assert_string_equal(e.operation, "get");
        }
        sf__store_op_cleanup(&op, heap);
    }
}

static void empty_and_missing(void **state)
{
    struct world *w = *state;
    sf_store_op get = {.verb = SF_STORE_GET, .key = name(w, "empty"), .len = SF_STORE_ALL, .max_bytes = 1};
    sf_store_op gone = {.verb = SF_STORE_GET, .key = name(w, "gone"), .len = SF_STORE_ALL, .max_bytes = 1};
    sf_store_op head = {.verb = SF_STORE_HEAD, .key = name(w, "gone")};
    sf_store_op slash = {.verb = SF_STORE_HEAD, .key = "/absolute"};

    assert_int_equal(put(w, "empty", ""), SF_OK);
    assert_int_equal(run(w, &get), SF_OK);
    assert_non_null(get.data);
    assert_int_equal(get.data->n, 0);
    sf__store_op_cleanup(&get, heap);
    assert_int_equal(run(w, &gone), SF_NOT_FOUND);
    assert_int_equal(run(w, &head), SF_NOT_FOUND);
    assert_int_equal(run(w, &slash), SF_INVALID);
}

static void conditional_puts(void **state)
{
    struct world *w = *state;
    sf_store_op create = {.verb = SF_STORE_PUT, .key = name(w, "c/x"), .body = sf_bytes_str("one"), .create_only = true};
    sf_store_op again = create, replace, stale, read = {.verb = SF_STORE_GET, .key = create.key, .len = 3};

    assert_int_equal(run(w, &create), SF_OK);
    assert_int_equal(run(w, &again), SF_CONFLICT);
    replace =
        (sf_store_op){.verb = SF_STORE_PUT, .key = create.key, .body = sf_bytes_str("two"), .if_match = create.etag};
    stale = replace;
    assert_int_equal(run(w, &replace), SF_OK);
    assert_string_not_equal(replace.etag, create.etag);
    assert_int_equal(run(w, &stale), SF_CONFLICT);
    assert_int_equal(run(w, &read), SF_OK);
    assert_memory_equal(read.data->data, "two", 3);
    assert_string_equal(read.etag, replace.etag);
    sf__store_op_cleanup(&read, heap);
    read.if_match = create.etag;
    assert_int_equal(run(w, &read), SF_CONFLICT);
    sf__store_op_cleanup(&read, heap);
    read = (sf_store_op){
        .verb = SF_STORE_GET, .key = create.key, .len = SF_STORE_ALL, .max_bytes = 9, .if_none_match = create.etag};
    assert_int_equal(run(w, &read), SF_OK);
    assert_false(read.not_modified);
    assert_int_equal(read.data->n, 3);
    sf__store_op_cleanup(&read, heap);
    read.if_none_match = replace.etag;
    assert_int_equal(run(w, &read), SF_OK);
    assert_int_equal(read.data->n, read.not_modified ? 0 : 3); /* files come in any case */
    sf__store_op_cleanup(&read, heap);
}

static char *list(struct world *w, const char *prefix, const char *delimiter, const char *after)
{
    static char text[1024];
    sf_store_op op = {.verb = SF_STORE_LIST,
                      .key = name(w, prefix),
                      .delimiter = delimiter,
                      .start_after = after ? name(w, after) : NULL};

    text[0] = '\0';
    assert_int_equal(run(w, &op), SF_OK);
    assert_null(op.next);
    for (size_t i = 0; i < op.entry_count; i++) {
        const sf_store_entry *e = &op.entries[i];

        assert_memory_equal(e->key, w->prefix, strlen(w->prefix));
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s=%d", i ? " " : "", e->key + strlen(w->prefix),
                 e->is_prefix ? -1 : (int)e->size);
    }
    sf__store_op_cleanup(&op, heap);
    return text;
}

static void lists(void **state)
{
    static const char *keys[] = {"d/a", "d/b/x", "d/b/y", "d/b.c", "d/c", "d2/z", "e"};
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        assert_int_equal(put(w, keys[i], "v"), SF_OK);
    assert_string_equal(list(w, "d/", NULL, NULL), "d/a=1 d/b.c=1 d/b/x=1 d/b/y=1 d/c=1");
    assert_string_equal(list(w, "d/", "/", NULL), "d/a=1 d/b.c=1 d/b/=-1 d/c=1");
    assert_string_equal(list(w, "d/b", "/", NULL), "d/b.c=1 d/b/=-1");
    assert_string_equal(list(w, "d/b", NULL, NULL), "d/b.c=1 d/b/x=1 d/b/y=1");
    assert_string_equal(list(w, "d", "/", NULL), "d/=-1 d2/=-1");
    assert_string_equal(list(w, "d/", "/", "d/b.c"), "d/b/=-1 d/c=1");
    assert_string_equal(list(w, "d/", NULL, "d/b/x"), "d/b/y=1 d/c=1");
    assert_string_equal(list(w, "none/", NULL, NULL), "");
}

static void deletes(void **state)
{
    struct world *w = *state;
    const char *keys[] = {name(w, "x/1"), name(w, "x/2"), name(w, "x/none")};
    sf_store_op one = {.verb = SF_STORE_DELETE, .key = name(w, "x/3")}, twice = one;
    sf_store_op many = {.verb = SF_STORE_DELETE_MANY, .key = "", .keys = keys, .key_count = 3};

    assert_int_equal(put(w, "x/1", "a"), SF_OK);
    assert_int_equal(put(w, "x/2", "a"), SF_OK);
    assert_int_equal(put(w, "x/3", "a"), SF_OK);
    assert_int_equal(run(w, &one), SF_OK);
    assert_int_equal(run(w, &twice), SF_OK);
    assert_int_equal(run(w, &many), SF_OK);
    assert_string_equal(list(w, "x/", NULL, NULL), "");
}

static void multipart(void **state)
{
    struct world *w = *state;
    const char *key = name(w, "m/big"), *etags[2];
    sf_store_op create = {.verb = SF_STORE_MULTIPART_CREATE, .key = key}, other = create;
    sf_store_op second = {
        .verb = SF_STORE_MULTIPART_PART, .key = key, .part_number = 2, .off = 6, .body = sf_bytes_str("world")};
    sf_store_op first = {.verb = SF_STORE_MULTIPART_PART, .key = key, .part_number = 1, .body = sf_bytes_str("hello ")};
    sf_store_op complete = {.verb = SF_STORE_MULTIPART_COMPLETE, .key = key, .keys = etags, .key_count = 2};
    sf_store_op drop = {.verb = SF_STORE_MULTIPART_ABORT, .key = key}, late;
    sf_store_op read = {.verb = SF_STORE_GET, .key = key, .len = SF_STORE_ALL, .max_bytes = 100};

    assert_int_equal(run(w, &create), SF_OK);
    assert_int_equal(run(w, &other), SF_OK);
    first.upload_id = second.upload_id = complete.upload_id = create.upload_id_out;
    drop.upload_id = other.upload_id_out;
    assert_int_equal(run(w, &second), SF_OK);
    assert_int_equal(run(w, &first), SF_OK);
    etags[0] = etags[1] = first.etag;
    assert_int_equal(run(w, &complete), SF_INVALID);
    assert_string_equal(list(w, "m/", NULL, NULL), "");
    etags[1] = second.etag;
    assert_int_equal(run(w, &complete), SF_OK);
    assert_int_equal(run(w, &read), SF_OK);
    assert_int_equal(read.data->n, 11);
    assert_memory_equal(read.data->data, "hello world", 11);
    late = first;
    assert_int_equal(run(w, &late), SF_NOT_FOUND);
    assert_int_equal(run(w, &drop), SF_OK);
    assert_string_equal(list(w, "m/", NULL, NULL), "m/big=11");
    sf__store_op_cleanup(&read, heap);
    sf__store_op_cleanup(&create, heap);
    sf__store_op_cleanup(&other, heap);
}

static int by_upload_key(const void *a, const void *b)
{
    return strcmp(((const sf_store_upload *)a)->key, ((const sf_store_upload *)b)->key);
}

/* "folder of the object, ..."; that is all that files tell. */
static char *folders_of_uploads(struct world *w, const char *prefix)
{
    static char text[1024];
    sf_store_op op = {.verb = SF_STORE_MULTIPART_LIST, .key = name(w, prefix)};
    int64_t now = sf__clock_unix_us();

    assert_int_equal(run(w, &op), SF_OK);
    assert_null(op.next);
    if (op.upload_count > 1)
        qsort(op.uploads, op.upload_count, sizeof(*op.uploads), by_upload_key);
    text[0] = '\0';
    for (size_t i = 0; i < op.upload_count; i++) {
        const sf_store_upload *u = &op.uploads[i];

        assert_true(u->id[0] != '\0');
        assert_true(u->begun_us > now - 600000000 && u->begun_us <= now + 1000000);
        strncat(text, u->key + strlen(w->prefix), (size_t)(strrchr(u->key, '/') - u->key) + 1 - strlen(w->prefix));
        strcat(text, " ");
    }
    sf__store_op_cleanup(&op, heap);
    return text;
}

static void unfinished_uploads(void **state)
{
    static const char *const keys[] = {"u/a/k", "u/a/k", "u/b/c/k", "u2/k"};
    struct world *w = *state;
    sf_store_op list_them, nowhere = {.verb = SF_STORE_MULTIPART_LIST, .key = name(w, "none/")}, late = nowhere;

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        sf_store_op begin = {.verb = SF_STORE_MULTIPART_CREATE, .key = name(w, keys[i])};

        assert_int_equal(run(w, &begin), SF_OK);
        sf__store_op_cleanup(&begin, heap);
    }
    assert_int_equal(put(w, "u/a/object", "x"), SF_OK);
    assert_string_equal(folders_of_uploads(w, "u/"), "u/a/ u/a/ u/b/c/ ");
    assert_string_equal(folders_of_uploads(w, "u/b/"), "u/b/c/ ");
    assert_string_equal(folders_of_uploads(w, "u2/"), "u2/ ");
    assert_string_equal(folders_of_uploads(w, "none/"), "");
    assert_string_equal(list(w, "u/", NULL, NULL), "u/a/object=1");
    late.deadline_ns = 1;
    assert_int_equal(run(w, &late), SF_TIMEOUT);
    assert_int_equal(run_full(w, &nowhere, true, NULL), SF_CANCELLED);
    list_them = (sf_store_op){.verb = SF_STORE_MULTIPART_LIST, .key = name(w, "u")};
    assert_int_equal(run(w, &list_them), SF_OK);
    assert_int_equal(list_them.upload_count, 4);
    for (size_t i = 0; i < list_them.upload_count; i++) { /* what a list names can be aborted */
        sf_store_op drop = {
            .verb = SF_STORE_MULTIPART_ABORT, .key = list_them.uploads[i].key, .upload_id = list_them.uploads[i].id};

        assert_int_equal(run(w, &drop), SF_OK);
    }
    sf__store_op_cleanup(&list_them, heap);
    assert_string_equal(folders_of_uploads(w, "u"), "");
    assert_string_equal(list(w, "u/", NULL, NULL), "u/a/object=1");
}

static void cancels_and_times_out(void **state)
{
    struct world *w = *state;
    sf_store_op read, late;

    assert_int_equal(put(w, "o", "text"), SF_OK);
    read = (sf_store_op){.verb = SF_STORE_GET, .key = name(w, "o"), .len = 4};
    late = read;
    late.deadline_ns = 1;
    assert_int_equal(run_full(w, &read, true, NULL), SF_CANCELLED);
    assert_null(read.data);
    assert_int_equal(run(w, &late), SF_TIMEOUT);
    assert_null(late.data);
}

static void refuses_odd_file_names(void **state)
{
    static const char *const names[] = {"a//b", "a/../b", "./a", "a/"};
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(put(w, names[i], "x"), SF_INVALID);
}

/* Folders, links and uploads that are not what they should be. */
static void what_lies_in_the_way_of_files(void **state)
{
    static const char *const ids[] = {"../../../etc/passwd", "0123456789abcdef0123456789abcdeg"};
    struct world *w = *state;
    char path[300], *deep = calloc(1, 6000);
    sf_store_op read = {.verb = SF_STORE_GET, .key = name(w, "d"), .len = SF_STORE_ALL, .max_bytes = 100};
    sf_store_op create = {.verb = SF_STORE_PUT, .key = name(w, "d/a"), .create_only = true};
    sf_store_op odd = {.verb = SF_STORE_LIST, .key = name(w, ""), .delimiter = "|"};
    sf_store_op list_deep = {.verb = SF_STORE_LIST, .key = deep};
    sf_store_op begin = {.verb = SF_STORE_MULTIPART_CREATE, .key = name(w, "up")};
    sf_store_op part = {.verb = SF_STORE_MULTIPART_PART, .key = begin.key, .part_number = 1, .body = sf_bytes_str("one")};
    sf_store_op next = {
        .verb = SF_STORE_MULTIPART_PART, .key = begin.key, .part_number = 2, .off = 3, .body = sf_bytes_str("two")};
    const char *etag;
    sf_store_op complete = {.verb = SF_STORE_MULTIPART_COMPLETE, .key = begin.key, .keys = &etag, .key_count = 1};

    assert_non_null(deep);
    assert_int_equal(put(w, "d/a", "text"), SF_OK);
    assert_int_equal(run(w, &read), SF_NOT_FOUND); /* a folder is no object */
    assert_int_equal(put(w, "d", "x"), SF_NOT_FOUND);
    assert_int_equal(put(w, "d/a/b", "x"), SF_NOT_FOUND); /* nor is an object a folder */
    assert_int_equal(run(w, &create), SF_CONFLICT);
    assert_int_equal(run(w, &odd), SF_INVALID);
    memset(deep, 'x', 5000);
    deep[4999] = '/';
    assert_int_equal(run(w, &list_deep), SF_INVALID);
    free(deep);

    snprintf(path, sizeof(path), "%s/d/gone", w->folder);
    assert_int_equal(symlink("nowhere", path), 0);
    assert_string_equal(list(w, "d/", NULL, NULL), "d/a=4"); /* as if it had just been deleted */
    snprintf(path, sizeof(path), "%s/d/loop", w->folder);
    assert_int_equal(symlink("loop", path), 0);
    odd = (sf_store_op){.verb = SF_STORE_LIST, .key = name(w, "d/")};
    assert_int_equal(run(w, &odd), SF_IO); /* what cannot be looked at is not left out */
    assert_int_equal(unlink(path), 0);

    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        sf_store_op foreign = part;

        foreign.upload_id = ids[i];
        assert_int_equal(run(w, &foreign), SF_NOT_FOUND);
    }
    assert_int_equal(run(w, &begin), SF_OK);
    part.upload_id = next.upload_id = complete.upload_id = begin.upload_id_out;
    assert_int_equal(run(w, &part), SF_OK);
    assert_int_equal(run(w, &next), SF_OK);
    etag = part.etag;
    assert_int_equal(run(w, &complete), SF_INVALID); /* a part is there that nobody names */
    sf__store_op_cleanup(&begin, heap);
}

static sf_status every_verb(struct world *w)
{
    sf_store_op begin = {.verb = SF_STORE_MULTIPART_CREATE, .key = name(w, "s/up")};
    sf_store_op ops[] = {
        {.verb = SF_STORE_PUT, .key = name(w, "s/a"), .body = sf_bytes_str("text")},
        {.verb = SF_STORE_GET, .key = name(w, "s/a"), .len = SF_STORE_ALL, .max_bytes = 100},
        {.verb = SF_STORE_HEAD, .key = name(w, "s/a")},
        {.verb = SF_STORE_LIST, .key = name(w, "s/")},
        {.verb = SF_STORE_MULTIPART_LIST, .key = name(w, "s/")},
        {.verb = SF_STORE_DELETE, .key = name(w, "s/a")},
    };
    sf_status rc = run(w, &begin);

    for (size_t i = 0; rc == SF_OK && i < sizeof(ops) / sizeof(ops[0]); i++) {
        rc = run(w, &ops[i]);
        sf__store_op_cleanup(&ops[i], w->store->alloc);
    }
    if (begin.upload_id_out) {
        sf_store_op drop = {.verb = SF_STORE_MULTIPART_ABORT, .key = begin.key, .upload_id = begin.upload_id_out};
        sf_status dropped = run(w, &drop);

        if (dropped != SF_OK) /* or there would be more to list each time */
            assert_int_equal(run(w, &drop), SF_OK);
        rc = rc == SF_OK ? dropped : rc;
    }
    sf__store_op_cleanup(&begin, w->store->alloc);
    return rc;
}

static void nothing(void *arg) {}

static void files_without_memory(void **state)
{
    struct world *w = *state;
    sf_store *kept = w->store;
    unsigned failures = 0;
    sf_status rc;
    struct test_heap h;

    heap_init(&h);
    for (long n = 0;; n++) {
        heap_arm(&h, n);
        rc = sf__store_file_new(&w->store, w->loop, &h.alloc, NULL);
        if (rc == SF_OK) {
            rc = every_verb(w);
            sf__store_release(w->store);
            on_loop(w->loop, nothing, NULL); /* which frees it */
        }
        w->store = kept;
        assert_int_equal(h.live, 0);
        if (!h.fired)
            break;
        assert_true(rc == SF_NOMEM || rc == SF_OK); /* a listing may shrink in vain */
        failures += rc == SF_NOMEM;
        assert_true(n < 1000);
    }
    assert_int_equal(rc, SF_OK);
    assert_true(failures > 10);
}

/* ------------------------------------------------------------------ a listing without an end --------------------- */

/* Every page has one long name and leads to another. */
static void endless_submit(sf_store *store, sf_store_op *op)
{
    size_t n = (size_t)4 << 20;

    op->entries = sf__calloc(store->alloc, 1, sizeof(*op->entries));
    op->entries[0].key = sf__alloc(store->alloc, n + 1);
    memset(op->entries[0].key, 'x', n);
    op->entries[0].key[n] = '\0';
    op->entry_count = 1;
    op->next = sf__strdup(store->alloc, "more");
    sf__store_op_finish_later(op, NULL);
}

static void endless_cancel(sf_store *store, sf_store_op *op)
{
    (void)store;
    (void)op;
}

static void endless_free(sf_store *store)
{
    sf__store_fini(store);
    sf__free(store->alloc, store);
}

static const sf_store_vtable endless = {.submit = endless_submit, .cancel = endless_cancel, .free = endless_free};

struct endless_listing {
    sf_store_listing l;
    sf_error error;
    struct gate gate;
};

static void endless_done(sf_store_listing *l)
{
    struct endless_listing *e = l->ctx;

    e->error = *l->error;
    gate_arrive(&e->gate);
}

static void endless_start(void *arg)
{
    sf__store_list_all(&((struct endless_listing *)arg)->l);
}

static void endless_listings_are_refused(void **state)
{
    struct endless_listing e = {.gate = GATE_INIT};
    sf_store *store = sf__calloc(&sf__allocator_default, 1, sizeof(*store));
    sf_loop *loop;

    (void)state;
    assert_int_equal(sf__loop_new(&loop, &sf__allocator_default, NULL), SF_OK);
    assert_true(store && sf__store_init(store, &endless, "test://", loop, &sf__allocator_default));
    e.l =
        (sf_store_listing){.store = store, .prefix = "x", .deadline_ns = SF_NO_DEADLINE, .done = endless_done, .ctx = &e};
    on_loop(loop, endless_start, &e);
    gate_wait(&e.gate, 1);
    assert_int_equal(e.error.code, SF_UNSUPPORTED);
    assert_non_null(strstr(e.error.message, "bytes of names"));
    assert_in_range(e.l.bytes, SF_LIMIT_LIST_BYTES, SF_LIMIT_LIST_BYTES + (8u << 20));
    sf__store_release(store);
    sf__loop_free(loop);
    sf__store_listing_cleanup(&e.l); /* what was listed may outlive its store */
}

/* A store whose listing comes in these pages, of keys of one letter. */
struct paged {
    sf_store base;
    const char *const *pages; /* NULL-terminated */
};

static void paged_submit(sf_store *store, sf_store_op *op)
{
    size_t at = op->continuation ? (size_t)op->continuation[0] - '0' : 0;
    const char *const *pages = ((struct paged *)store)->pages;
    const char next[] = {(char)('0' + at + 1), '\0'};

    op->entry_count = strlen(pages[at]);
    op->entries = sf__calloc(store->alloc, op->entry_count, sizeof(*op->entries));
    for (size_t i = 0; i < op->entry_count; i++)
        op->entries[i].key = sf__asprintf(store->alloc, "%c", pages[at][i]);
    op->next = pages[at + 1] ? sf__strdup(store->alloc, next) : NULL;
    sf__store_op_finish_later(op, NULL);
}

static const sf_store_vtable paged = {.submit = paged_submit, .cancel = endless_cancel, .free = endless_free};

static void pages_that_do_not_follow_one_another(void **state)
{
    static const struct {
        const char *pages[5], *until;
        const char *listed;
        char behind, key; /* 0: they do */
    } rows[] = {
        {{"ab", "cd", "ef"}, NULL, "abcdef", 0, 0},
        {{"ab", "cd", "ef"}, "c", "abcd", 0, 0},
        {{"ab", "ef", "cd"}, NULL, "abefcd", 'f', 'c'},
        {{"bc", "ad", "ef", "gh"}, "e", "bcadefgh", 'c', 'a'}, /* what is wanted may lie anywhere */
        {{"ef", "cd", "ab"}, NULL, "efcdab", 'f', 'c'},        /* the first place is told */
        {{"ab", "bc"}, NULL, "abbc", 'b', 'b'},
        {{"ab", "", "cd"}, NULL, "abcd", 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct endless_listing e = {.gate = GATE_INIT};
        struct paged *store = sf__calloc(&sf__allocator_default, 1, sizeof(*store));
        char listed[16] = "";
        sf_loop *loop;

        assert_int_equal(sf__loop_new(&loop, &sf__allocator_default, NULL), SF_OK);
        assert_true(store && sf__store_init(&store->base, &paged, "test://", loop, &sf__allocator_default));
        store->pages = rows[i].pages;
        e.l = (sf_store_listing){.store = &store->base,
                                 .prefix = "",
                                 .until = rows[i].until,
                                 .deadline_ns = SF_NO_DEADLINE,
                                 .done = endless_done,
                                 .ctx = &e};
        on_loop(loop, endless_start, &e);
        gate_wait(&e.gate, 1);
        assert_int_equal(e.error.code, SF_OK);
        for (size_t k = 0; k < e.l.entry_count; k++)
            strcat(listed, e.l.entries[k].key);
        if (strcmp(listed, rows[i].listed) != 0 || e.l.unsorted != (rows[i].key != 0))
            fail_msg("row %zu: %s%s", i, listed, e.l.unsorted ? ", unsorted" : "");
        assert_int_equal(e.l.key ? e.l.key[0] : 0, rows[i].key);
        assert_int_equal(e.l.behind ? e.l.behind[0] : 0, rows[i].behind);
        sf__store_listing_cleanup(&e.l);
        sf__store_release(&store->base);
        sf__loop_free(loop);
    }
}

/* What is cached of one store is nothing to the next one, though it may lie at the same address. */
static void a_store_at_the_place_of_another_is_another(void **state)
{
    sf_store store = {0};
    uint64_t first;

    (void)state;
    assert_true(sf__store_init(&store, NULL, "s3://bucket", NULL, &sf__allocator_default));
    first = store.serial;
    sf__store_fini(&store);
    assert_true(sf__store_init(&store, NULL, "s3://bucket", NULL, &sf__allocator_default));
    assert_true(store.serial != first);
    sf__store_fini(&store);
}

/* An answer that was long on its way tells a time that has passed meanwhile: that is no difference of clocks. */
static void the_time_that_answers_take_is_no_difference(void **state)
{
    static const struct {
        int then_s, within_s, ahead_s;
    } cases[] = {{0, 0, 0},    {-1, 0, 0},   {1, 0, 0},   {-60, 0, -60}, {-60, 50, -10},
                 {-60, 59, 0}, {-60, 70, 0}, {60, 0, 60}, {60, 50, 60}};
    sf_store store = {0};

    (void)state;
    assert_true(sf__store_init(&store, NULL, "s3://bucket", NULL, &sf__allocator_default));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t ahead_us, wanted_us = cases[i].ahead_s * INT64_C(1000000), late_us = -sf__clock_unix_us();

        sf__store_note_time(&store, sf__clock_unix_us() + cases[i].then_s * INT64_C(1000000),
                            cases[i].within_s * INT64_C(1000000));
        late_us += sf__clock_unix_us(); /* however long this thread did not run meanwhile */
        ahead_us = atomic_load(&store.ahead_us);
        if (ahead_us > wanted_us || ahead_us < wanted_us - late_us - 2000000)
            fail_msg("case %zu: %lld us", i, (long long)ahead_us);
    }
    sf__store_fini(&store);
}

int main(void)
{
#define BOTH(f)                                                 \
    cmocka_unit_test_setup_teardown(f, set_up_file, tear_down), \
        cmocka_unit_test_setup_teardown(f, set_up_memory, tear_down)
    const struct CMUnitTest tests[] = {
        BOTH(reads_ranges),
        BOTH(empty_and_missing),
        BOTH(conditional_puts),
        BOTH(lists),
        BOTH(deletes),
        BOTH(multipart),
        BOTH(unfinished_uploads),
        BOTH(cancels_and_times_out),
        cmocka_unit_test(a_store_at_the_place_of_another_is_another),
        cmocka_unit_test(the_time_that_answers_take_is_no_difference),
        cmocka_unit_test_setup_teardown(refuses_odd_file_names, set_up_file, tear_down),
        cmocka_unit_test_setup_teardown(what_lies_in_the_way_of_files, set_up_file, tear_down),
        cmocka_unit_test_setup_teardown(files_without_memory, set_up_file, tear_down),
        cmocka_unit_test(endless_listings_are_refused),
        cmocka_unit_test(pages_that_do_not_follow_one_another),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
