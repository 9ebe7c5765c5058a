/* The sorter against qsort: many shapes of keys, in memory and spilled, with every allocation failing in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <signal.h>

#include <unistd.h>

#include "../../support/heap.h"
#include "writer/run_set.h"
#include "writer/sorter.h"
#include "writer/spill.h"

static uint64_t rng_next(uint64_t *s)
{
    uint64_t z = (*s += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

struct row {
    uint32_t group;
    uint8_t *key;
    size_t key_len, value_len;
    uint32_t number; /* of adding; the value begins with it */
};

typedef size_t key_shape(uint64_t *rng, uint32_t i, uint8_t *out);

static size_t random_keys(uint64_t *rng, uint32_t i, uint8_t *out)
{
    sf_store_be(out, 8, rng_next(rng));
    return 8;
}

static size_t dense_keys(uint64_t *rng, uint32_t i, uint8_t *out)
{
    sf_store_be(out, 8, rng_next(rng) % 5000);
    return 8;
}

static size_t text_keys(uint64_t *rng, uint32_t i, uint8_t *out)
{
    return (size_t)sprintf((char *)out, "tenant/number/4711/user:%llu", (unsigned long long)(rng_next(rng) % 100000));
}

/* Some agree in their first 8 bytes, enough of them to be sorted by the next 8. */
static size_t tenant_keys(uint64_t *rng, uint32_t i, uint8_t *out)
{
    return (size_t)sprintf((char *)out, "tenant/%c%llu", (char)('a' + rng_next(rng) % 4),
                           (unsigned long long)(rng_next(rng) % 100000));
}

/* Zeroes and lengths decide. */
static size_t zero_keys(uint64_t *rng, uint32_t i, uint8_t *out)
{
    size_t n = rng_next(rng) % 40;

    memset(out, 0, n);
    if (n > 0 && rng_next(rng) % 4 == 0)
        out[rng_next(rng) % n] = (uint8_t)(rng_next(rng) % 2);
    return n;
}

static size_t one_key(uint64_t *rng, uint32_t i, uint8_t *out)
{
    memcpy(out, "the one and only key", 20);
    return 20;
}

static size_t short_keys(uint64_t *rng, uint32_t i, uint8_t *out)
{
    size_t n = rng_next(rng) % 3;

    for (size_t k = 0; k < n; k++)
        out[k] = (uint8_t)rng_next(rng);
    return n;
}

static size_t long_prefix_keys(uint64_t *rng, uint32_t i, uint8_t *out)
{
    memset(out, 'p', 700);
    sf_store_be(out + 700, 4, rng_next(rng));
    return 704;
}

/* Each key has the one before as a prefix: nesting as deep as it gets. */
static size_t staircase_keys(uint64_t *rng, uint32_t i, uint8_t *out)
{
    size_t n = rng_next(rng) % 900;

    memset(out, 's', n);
    return n;
}

static size_t ascending_keys(uint64_t *rng, uint32_t i, uint8_t *out)
{
    sf_store_be(out, 8, i);
    return 8;
}

static size_t descending_keys(uint64_t *rng, uint32_t i, uint8_t *out)
{
    sf_store_be(out, 8, UINT32_MAX - i);
    return 8;
}

static int by_group_key_number(const void *pa, const void *pb)
{
    const struct row *a = pa, *b = pb;
    int c;

    if (a->group != b->group)
        return a->group < b->group ? -1 : 1;
    c = sf_bytes_cmp(sf_bytes_of(a->key, a->key_len), sf_bytes_of(b->key, b->key_len));
    return c ? c : (a->number > b->number) - (a->number < b->number);
}

struct input {
    struct row *rows;
    size_t count;
    uint32_t groups;
};

static struct input make_input(key_shape *shape, size_t count, uint32_t groups, uint64_t seed)
{
    struct input in = {calloc(count + 1, sizeof(struct row)), count, groups};
    uint8_t key[1024];

    for (size_t i = 0; i < count; i++) {
        struct row *r = &in.rows[i];

        r->key_len = shape(&seed, (uint32_t)i, key);
        r->key = malloc(r->key_len + 1);
        memcpy(r->key, key, r->key_len);
        r->group = (uint32_t)(rng_next(&seed) % groups);
        r->number = (uint32_t)i;
        r->value_len = 4 + rng_next(&seed) % 60;
        if (rng_next(&seed) % 997 == 0)
            r->value_len = 100000; /* longer than a chunk and a block */
    }
    return in;
}

static void input_free(struct input *in)
{
    for (size_t i = 0; i < in->count; i++)
        free(in->rows[i].key);
    free(in->rows);
}

static void make_value(const struct row *r, uint8_t *value)
{
    memset(value, (int)(r->number & 0xff), r->value_len);
    sf_store_be(value, 4, r->number);
}

static sf_status add_all(sf_sorter *s, const struct input *in, sf_error *e)
{
    uint8_t *value = malloc(100001);
    sf_status rc = SF_OK;

    for (size_t i = 0; i < in->count && rc == SF_OK; i++) {
        const struct row *r = &in->rows[i];

        make_value(r, value);
        rc = sf__sorter_add(s, r->group, sf_bytes_of(r->key, r->key_len), sf_bytes_of(value, r->value_len), e);
    }
    free(value);
    return rc;
}

/* Reads all groups; `sorted` is the input by by_group_key_number(). Returns the number of overwritten rows. */
static sf_status check_all(sf_sorter *s, const struct input *sorted, const char *name, uint64_t *overwritten, sf_error *e)
{
    uint8_t *value = malloc(100001);
    size_t at = 0;
    sf_status rc = SF_OK;

    *overwritten = 0;
    for (uint32_t g = 0; g < sorted->groups && rc == SF_OK; g++) {
        sf_sorter_reader *reader = NULL;
        bool end = false;

        rc = sf__sorter_open(s, g, &reader, e);
        while (rc == SF_OK) {
            sf_bytes k, v;

            rc = sf__sorter_next(reader, &end, &k, &v, e);
            if (rc != SF_OK || end)
                break;
            while (at + 1 < sorted->count && sorted->rows[at + 1].group == g && sorted->rows[at].group == g &&
                   sf_bytes_eq(sf_bytes_of(sorted->rows[at].key, sorted->rows[at].key_len),
                               sf_bytes_of(sorted->rows[at + 1].key, sorted->rows[at + 1].key_len))) {
                at++;
                ++*overwritten;
            }
            if (at == sorted->count || sorted->rows[at].group != g)
                fail_msg("%s: group %u has a row too many", name, g);
            make_value(&sorted->rows[at], value);
            if (!sf_bytes_eq(k, sf_bytes_of(sorted->rows[at].key, sorted->rows[at].key_len)) ||
                !sf_bytes_eq(v, sf_bytes_of(value, sorted->rows[at].value_len)))
                fail_msg("%s: row %zu is another one", name, at);
            at++;
        }
        sf__sorter_close(reader);
        if (rc == SF_OK && at < sorted->count && sorted->rows[at].group == g)
            fail_msg("%s: group %u ends early", name, g);
    }
    free(value);
    return rc;
}

static struct input sorted_copy(const struct input *in)
{
    struct input out = *in;

    out.rows = calloc(in->count + 1, sizeof(struct row));
    memcpy(out.rows, in->rows, in->count * sizeof(struct row));
    qsort(out.rows, out.count, sizeof(struct row), by_group_key_number);
    return out;
}

static const struct {
    const char *name;
    key_shape *shape;
} shapes[] = {
    {"random", random_keys},
    {"dense", dense_keys},
    {"text", text_keys},
    {"zeroes", zero_keys},
    {"one key", one_key},
    {"short", short_keys},
    {"long prefix", long_prefix_keys},
    {"staircase", staircase_keys},
    {"ascending", ascending_keys},
    {"descending", descending_keys},
    {"tenants", tenant_keys},
};

static void sorts_like_qsort(void **state)
{
    static const struct {
        size_t count;
        uint32_t groups;
        uint64_t memory;
    } sizes[] = {
        {0, 1, 1u << 20},     {1, 1, 1u << 16},     {2, 3, 1u << 20},     {300, 1, 1u << 20},     {20000, 1, 1u << 26},
        {20000, 1, 1u << 16}, {20000, 7, 1u << 26}, {20000, 7, 1u << 18}, {3000, 1000, 1u << 18}, {25000, 3, 1u << 16},
    };

    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i += TEST_STEP)
        for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
            sf_sorter_options o = SF_SORTER_OPTIONS_INIT;
            struct input in = make_input(shapes[i].shape, sizes[k].count, sizes[k].groups, 1 + k);
            struct input sorted = sorted_copy(&in);
            sf_sorter_stats stats;
            sf_sorter *s;
            sf_error e = SF_ERROR_INIT;
            uint64_t overwritten = 0;
            char name[100];

            snprintf(name, sizeof(name), "%s, size %zu", shapes[i].name, k);
            o.groups = sizes[k].groups;
            o.memory_bytes = sizes[k].memory;
            assert_int_equal(sf__sorter_new(&s, &o, &sf__allocator_default, &e), SF_OK);
            if (add_all(s, &in, &e) != SF_OK || sf__sorter_seal(s, &e) != SF_OK ||
                check_all(s, &sorted, name, &overwritten, &e) != SF_OK)
                fail_msg("%s: %s", name, e.message);
            sf__sorter_get_stats(s, &stats);
            assert_int_equal(stats.rows, in.count);
            if (stats.duplicates != overwritten)
                fail_msg("%s: %llu duplicates counted, %llu expected", name, (unsigned long long)stats.duplicates,
                         (unsigned long long)overwritten);
            if (sizes[k].count * 30 > sizes[k].memory)
                assert_true(stats.spilled_runs > 0);
            else if (sizes[k].memory == 1u << 26)
                assert_true(stats.spilled_runs == 0);
            sf__sorter_free(s);
            free(sorted.rows);
            input_free(&in);
        }
}

static void duplicates_can_be_refused(void **state)
{
    for (int spilled = 0; spilled < 2; spilled++) {
        sf_sorter_options o = SF_SORTER_OPTIONS_INIT;
        struct input in = make_input(ascending_keys, 20000, 1, 1), sorted;
        sf_sorter *s;
        sf_error e = SF_ERROR_INIT;
        uint64_t overwritten;

        o.refuse_duplicates = true;
        o.key_encoding = SF_KEY_U64BE;
        if (spilled)
            o.memory_bytes = 1u << 16;
        sf_store_be(in.rows[19999].key, 8, 77); /* far from the other one: in another run */
        sorted = sorted_copy(&in);
        assert_int_equal(sf__sorter_new(&s, &o, &sf__allocator_default, &e), SF_OK);
        assert_int_equal(add_all(s, &in, &e), SF_OK);
        assert_int_equal(sf__sorter_seal(s, &e), SF_OK);
        assert_int_equal(check_all(s, &sorted, "duplicates", &overwritten, &e), SF_INVALID);
        if (strcmp(e.message, "row 20000: duplicate key 77 in shard 0, row 78 has it already") != 0)
            fail_msg("%s", e.message);
        sf__sorter_free(s);
        free(sorted.rows);
        input_free(&in);
    }
}

/* ------------------------------------------------------------------ threads -------------------------------------- */

struct reading {
    sf_sorter *s;
    uint32_t group;
    uint64_t rows;
    bool in_order;
};

static void *read_group(void *arg)
{
    struct reading *r = arg;
    sf_sorter_reader *reader;
    uint8_t last[1024];
    size_t last_len = 0;
    bool end;
    sf_bytes k, v;

    r->in_order = sf__sorter_open(r->s, r->group, &reader, NULL) == SF_OK;
    while (r->in_order && sf__sorter_next(reader, &end, &k, &v, NULL) == SF_OK && !end) {
        if (r->rows > 0 && sf_bytes_cmp(sf_bytes_of(last, last_len), k) >= 0)
            r->in_order = false;
        memcpy(last, k.p, k.n);
        last_len = k.n;
        r->rows++;
    }
    sf__sorter_close(reader);
    return NULL;
}

static void groups_are_read_at_once(void **state)
{
    for (int spilled = 0; spilled < 2; spilled++) {
        sf_sorter_options o = SF_SORTER_OPTIONS_INIT;
        struct input in = make_input(ascending_keys, 30000, 4, 1);
        struct reading r[4];
        pthread_t threads[4];
        uint64_t rows = 0;
        sf_sorter *s;
        sf_error e = SF_ERROR_INIT;

        o.groups = 4;
        if (spilled)
            o.memory_bytes = 1u << 18;
        assert_int_equal(sf__sorter_new(&s, &o, &sf__allocator_default, &e), SF_OK);
        assert_int_equal(add_all(s, &in, &e), SF_OK);
        assert_int_equal(sf__sorter_seal(s, &e), SF_OK);
        for (uint32_t g = 0; g < 4; g++) {
            r[g] = (struct reading){.s = s, .group = g};
            assert_int_equal(pthread_create(&threads[g], NULL, read_group, &r[g]), 0);
        }
        for (uint32_t g = 0; g < 4; g++) {
            pthread_join(threads[g], NULL);
            assert_true(r[g].in_order);
            rows += r[g].rows;
        }
        assert_int_equal(rows, in.count);
        sf__sorter_free(s);
        input_free(&in);
    }
}

/* As the attempt after one that failed does. */
static void a_group_is_read_again(void **state)
{
    struct input in = make_input(tenant_keys, 30000, 2, 1), sorted = sorted_copy(&in);

    for (int spilled = 0; spilled < 2; spilled++) {
        sf_sorter_options o = SF_SORTER_OPTIONS_INIT;
        sf_error e = SF_ERROR_INIT;
        uint64_t overwritten;
        sf_sorter *s;

        o.groups = 2;
        if (spilled)
            o.memory_bytes = 1u << 18;
        assert_int_equal(sf__sorter_new(&s, &o, &sf__allocator_default, &e), SF_OK);
        assert_int_equal(add_all(s, &in, &e), SF_OK);
        assert_int_equal(sf__sorter_seal(s, &e), SF_OK);
        assert_int_equal(check_all(s, &sorted, "first", &overwritten, &e), SF_OK);
        assert_int_equal(check_all(s, &sorted, "again", &overwritten, &e), SF_OK);
        sf__sorter_free(s);
    }
    free(sorted.rows);
    input_free(&in);
}

/* ------------------------------------------------------------------ faults --------------------------------------- */

static void any_failed_allocation_is_survived(void **state)
{
    struct input in = make_input(text_keys, 3000, 3, 1), sorted = sorted_copy(&in);

    for (int spilled = 0; spilled < 2; spilled++)
        for (long nth = 0;; nth += TEST_STEP) {
            struct test_heap h;
            sf_sorter_options o = SF_SORTER_OPTIONS_INIT;
            sf_sorter *s = NULL;
            sf_error e = SF_ERROR_INIT;
            uint64_t overwritten;
            sf_status rc;

            o.groups = 3;
            o.memory_bytes = spilled ? 1u << 16 : 1u << 26;
            heap_init(&h);
            heap_arm(&h, nth);
            rc = sf__sorter_new(&s, &o, &h.alloc, &e);
            if (rc == SF_OK)
                rc = add_all(s, &in, &e);
            if (rc == SF_OK)
                rc = sf__sorter_seal(s, &e);
            if (rc == SF_OK)
                rc = check_all(s, &sorted, "allocation", &overwritten, &e);
            sf__sorter_free(s);
            if (h.live != 0)
                fail_msg("allocation %ld: %ld left", nth, h.live);
            if (!h.fired) {
                assert_int_equal(rc, SF_OK);
                assert_true(nth > 5);
                break;
            }
            if (rc != SF_NOMEM)
                fail_msg("allocation %ld: %s %s", nth, sf_status_name(rc), e.message);
        }
    free(sorted.rows);
    input_free(&in);
}

/* No room: a bound on file sizes makes write() fail like a full disk does. */
static void a_full_disk_is_reported(void **state)
{
    struct input in = make_input(text_keys, 60000, 1, 1);
    sf_sorter_options o = SF_SORTER_OPTIONS_INIT;
    struct rlimit old, tight;
    sf_sorter *s;
    sf_error e = SF_ERROR_INIT;
    sf_status rc;

    o.memory_bytes = 4u << 20;
    getrlimit(RLIMIT_FSIZE, &old);
    tight = (struct rlimit){1u << 20, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    assert_int_equal(sf__sorter_new(&s, &o, &sf__allocator_default, &e), SF_OK);
    rc = add_all(s, &in, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(rc, SF_IO);
    if (!strstr(e.message, "spill file in /") || !strstr(e.message, ": write: "))
        fail_msg("%s", e.message);
    sf__sorter_free(s);

    o.spill_folder = "/nonexistent/folder";
    assert_int_equal(sf__sorter_new(&s, &o, &sf__allocator_default, &e), SF_OK);
    assert_int_equal(add_all(s, &in, &e), SF_IO);
    if (!strstr(e.message, "spill folder /nonexistent/folder: "))
        fail_msg("%s", e.message);
    assert_int_equal(sf__sorter_seal(s, &e), SF_STATE);
    sf__sorter_free(s);
    input_free(&in);
}

/* Every byte of a spill file in turn, and every length. */
static void a_damaged_spill_file_is_noticed(void **state)
{
    sf_spill_run *run;
    sf_spill_writer w;
    sf_error e = SF_ERROR_INIT;
    uint64_t size;

    assert_int_equal(sf__spill_run_new(&run, "/tmp", &sf__allocator_default, &e), SF_OK);
    sf__spill_writer_init(&w, run);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(sf__spill_writer_add(&w, i / 2, sf_bytes_of("abcde", i + 1), sf_bytes_of("values", 6), &e),
                         SF_OK);
    assert_int_equal(sf__spill_writer_finish(&w, &e), SF_OK);
    sf__spill_writer_cleanup(&w);
    size = run->size;
    for (uint64_t at = 0; at < 2 * size; at++) {
        sf_spill_cursor c = {0};
        bool bad = false;
        uint8_t b;

        assert_int_equal(pread(run->fd, &b, 1, (off_t)(at / 2)), 1);
        b ^= at % 2 ? 0x80 : 1;
        assert_int_equal(pwrite(run->fd, &b, 1, (off_t)(at / 2)), 1);
        for (uint32_t g = 0; g < 3; g++) {
            uint64_t off = 0, end = 0;

            assert_true(sf__spill_run_find(run, g, &off, &end));
            sf__spill_cursor_set(&c, run, off, end);
            do
                bad |= sf__spill_cursor_next(&c, &e) == SF_CORRUPT;
            while (c.valid);
        }
        sf__spill_cursor_cleanup(&c);
        if (!bad)
            fail_msg("byte %llu", (unsigned long long)at / 2);
        b ^= at % 2 ? 0x80 : 1;
        assert_int_equal(pwrite(run->fd, &b, 1, (off_t)(at / 2)), 1);
    }
    assert_int_equal(ftruncate(run->fd, (off_t)size - 1), 0);
    {
        sf_spill_cursor c = {0};
        uint64_t off = 0, end = 0;

        assert_true(sf__spill_run_find(run, 2, &off, &end));
        sf__spill_cursor_set(&c, run, off, end);
        assert_int_equal(sf__spill_cursor_next(&c, &e), SF_CORRUPT);
        sf__spill_cursor_cleanup(&c);
    }
    sf__spill_run_free(run);
}

static void a_flag_stops_it(void **state)
{
    struct input in = make_input(text_keys, 100, 1, 1);
    sf_sorter_options o = SF_SORTER_OPTIONS_INIT;
    sf_cancel_flag flag;
    sf_sorter *s;
    sf_error e = SF_ERROR_INIT;
    sf_sorter_reader *r;
    bool end;
    sf_bytes k, v;

    atomic_init(&flag, false);
    o.cancel = &flag;
    assert_int_equal(sf__sorter_new(&s, &o, &sf__allocator_default, &e), SF_OK);
    assert_int_equal(add_all(s, &in, &e), SF_OK);
    assert_int_equal(sf__sorter_seal(s, &e), SF_OK);
    assert_int_equal(sf__sorter_open(s, 0, &r, &e), SF_OK);
    assert_int_equal(sf__sorter_next(r, &end, &k, &v, &e), SF_OK);
    atomic_store(&flag, true);
    assert_int_equal(sf__sorter_next(r, &end, &k, &v, &e), SF_CANCELLED);
    sf__sorter_close(r);
    sf__sorter_free(s);
    assert_int_equal(sf__sorter_new(&s, &o, &sf__allocator_default, &e), SF_OK);
    assert_int_equal(add_all(s, &in, &e), SF_CANCELLED);
    sf__sorter_free(s);
    input_free(&in);
}

/* Sets the flag when so many bytes are asked for: when the thread beside is in the midst of its work. */
struct trigger {
    sf_allocator alloc;
    size_t bytes;
    sf_cancel_flag flag;
};

static void *trigger_realloc(void *ctx, void *p, size_t n)
{
    struct trigger *t = ctx;

    if (n == t->bytes)
        atomic_store(&t->flag, true);
    return realloc(p, n);
}

static void trigger_free(void *ctx, void *p)
{
    (void)ctx;
    free(p);
}

/* Of one group, that is of all rows. */
static void a_flag_stops_the_thread_beside(void **state)
{
    static const struct {
        const char *name;
        size_t bytes;
        unsigned runs;
    } cases[] = {
        {"in a run", (1u << 20) + 2 * SF_SPILL_BLOCK_BYTES, 1}, /* the buffer of what is written */
        {"in a merge", SF_SPILL_READ_BYTES, 64},                /* that of what is read */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct trigger t = {.bytes = cases[i].bytes};
        sf_duplicate_rows duplicates = {.refused = false};
        sf_run_set s = {.alloc = &t.alloc, .folder = "/tmp", .duplicates = &duplicates, .cancel = &t.flag};
        sf_error e = SF_ERROR_INIT;
        sf_status rc = SF_OK;
        sf_rows rows;

        t.alloc = (sf_allocator){sizeof(sf_allocator), trigger_realloc, trigger_free, &t};
        atomic_init(&t.flag, false);
        atomic_init(&duplicates.count, 0);
        sf__rows_init(&rows, 4096, &t.alloc);
        for (unsigned run = 0; run < cases[i].runs && rc == SF_OK; run++) {
            assert_true(sf__rows_add(&rows, 0, sf_bytes_of(&run, sizeof(run)), sf_bytes_str("value")));
            assert_true(sf__rows_add(&rows, 0, sf_bytes_str("another key"), sf_bytes_str("value")));
            rc = sf__run_set_add(&s, &rows, &e);
        }
        assert_int_equal(rc, SF_OK);
        rc = sf__run_set_wait(&s, &e);
        assert_true(atomic_load(&t.flag));
        if (rc != SF_CANCELLED)
            fail_msg("%s: %s", cases[i].name, sf_status_name(rc));
        sf__run_set_cleanup(&s);
        sf__rows_cleanup(&rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sorts_like_qsort),
        cmocka_unit_test(duplicates_can_be_refused),
        cmocka_unit_test(groups_are_read_at_once),
        cmocka_unit_test(a_group_is_read_again),
        cmocka_unit_test(any_failed_allocation_is_survived),
        cmocka_unit_test(a_full_disk_is_reported),
        cmocka_unit_test(a_damaged_spill_file_is_noticed),
        cmocka_unit_test(a_flag_stops_it),
        cmocka_unit_test(a_flag_stops_the_thread_beside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
