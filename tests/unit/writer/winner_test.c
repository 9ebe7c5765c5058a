#include "../../support/heap.h"
#include "../snapshot/vectors.h"

#include "writer/winner.h"

static const char *optional_text(const sf_json *v)
{
    return v->kind == SF_JSON_NULL ? NULL : strndup((const char *)v->str.p, v->str.n);
}

static size_t attempts_of(const sf_json *c, sf_attempt **out)
{
    const sf_json *list = need(c, "attempts");
    sf_attempt *all = calloc(list->count + 1, sizeof(*all));
    size_t n = 0;

    assert_non_null(all);
    for (const sf_json *v = list->first; v; v = v->next, n++) {
        all[n].db_id = need_int(v, "db_id");
        all[n].attempt = (uint32_t)need_int(v, "attempt");
        all[n].has_task_attempt_id = need(v, "task_attempt_id")->kind != SF_JSON_NULL;
        if (all[n].has_task_attempt_id)
            all[n].task_attempt_id = need_int(v, "task_attempt_id");
        all[n].db_url = optional_text(need(v, "db_url"));
    }
    *out = all;
    return n;
}

static void test_vectors(void **state)
{
    struct golden g;

    (void)state;
    golden_open(&g, "vectors/winners.json");
    for (const sf_json *c = need_cases(&g, "cases"); c; c = c->next) {
        const sf_json *expected = sf__json_get(c, "winners");
        uint32_t num_dbs = (uint32_t)need_int(c, "num_dbs");
        sf_error err = SF_ERROR_INIT;
        sf_attempt *attempts;
        size_t n = attempts_of(c, &attempts), *winners, count;
        sf_status rc = sf__winners_choose(&winners, &count, attempts, n, num_dbs, HEAP, &err);
        char name[100];

        snprintf(name, sizeof(name), "%.*s", (int)need(c, "name")->str.n, (const char *)need(c, "name")->str.p);
        if (rc != (expected ? SF_OK : SF_INVALID))
            fail_msg("%s: %s", name, err.message);
        if (expected) {
            const sf_json *v = expected->first;

            if (count != expected->count)
                fail_msg("%s: %zu winners", name, count);
            for (size_t i = 0; i < count; i++, v = v->next) {
                const sf_attempt *w = &attempts[winners[i]];

                if (w->db_id != need_int(v, "db_id") || w->attempt != need_int(v, "attempt") ||
                    !text_is(need(v, "db_url"), w->db_url))
                    fail_msg("%s: winner %zu is %s", name, i, w->db_url);
            }
        }
        sf__free(HEAP, winners);
        for (size_t i = 0; i < n; i++)
            free((void *)(uintptr_t)attempts[i].db_url);
        free(attempts);
    }
    golden_close(&g);
}

static void test_without_memory(void **state)
{
    const sf_attempt attempts[] = {{.db_id = 1, .db_url = "a"}, {.db_id = 0, .db_url = "b"}};
    bool fired = true;
    long n;

    (void)state;
    for (n = 0; fired; n++) {
        size_t *winners, count;
        struct test_heap h;
        sf_status rc;

        heap_init(&h);
        heap_arm(&h, n);
        rc = sf__winners_choose(&winners, &count, attempts, 2, 2, &h.alloc, NULL);
        sf__free(&h.alloc, winners);
        fired = heap_disarm(&h);
        assert_int_equal(rc, fired ? SF_NOMEM : SF_OK);
        assert_int_equal(count, rc == SF_OK ? 2 : 0);
        assert_int_equal(h.live, 0);
    }
    assert_true(n > 2);
}

static bool naively_touches(const char *a, const char *b)
{
    size_t n = strlen(a) < strlen(b) ? strlen(a) : strlen(b);

    return strncmp(a, b, n) == 0 && (a[n] == '\0' || a[n] == '/') && (b[n] == '\0' || b[n] == '/');
}

/* Every folder against every set of the others: as comparing with each of them would say. */
static void test_folders(void **state)
{
    static const char *const names[] = {"a",  "a/b",  "a/b/c", "a/bc",    "a-b", "a-b/c",
                                        "ab", "ab/c", "a/b-c", "a/b-c/d", "b",   "\xc3\xa9/x"};

    (void)state;
    for (size_t mask = 0; mask < (size_t)1 << COUNT(names); mask++) {
        const char *folders[COUNT(names)];
        sf_folder_set s = {.folders = folders};

        for (size_t i = COUNT(names); i-- > 0;)
            if (mask & (size_t)1 << i)
                folders[s.count++] = names[i];
        sf__folder_set_sort(&s);
        for (size_t i = 0; i < COUNT(names); i++) {
            bool touches = false;

            for (size_t k = 0; k < s.count; k++)
                touches = touches || naively_touches(folders[k], names[i]);
            if (sf__folder_set_touches(&s, names[i]) != touches)
                fail_msg("%s among the set %zx", names[i], mask);
        }
    }
}

/* What 40,000 attempts cost grows with their number, not with its square. */
static void test_many_folders(void **state)
{
    enum { MANY = 40000 };
    char *text = malloc((size_t)MANY * 64);
    const char **folders = malloc(MANY * sizeof(*folders));
    sf_folder_set s = {.folders = folders, .count = MANY};

    (void)state;
    for (size_t i = 0; i < MANY; i++) {
        snprintf(text + 64 * i, 64, "shards/run_id=r/db=%05zu/attempt=%02zu", (i * 7919) % MANY, i % 3);
        folders[i] = text + 64 * i;
    }
    sf__folder_set_sort(&s);
    for (size_t i = 0; i < MANY; i++) {
        char other[64];

        assert_true(sf__folder_set_touches(&s, text + 64 * i));
        snprintf(other, sizeof(other), "shards/run_id=r/db=%05zu/attempt=07", i);
        assert_false(sf__folder_set_touches(&s, other));
    }
    assert_true(s.comparisons < (uint64_t)2 * MANY * 5 * 17); /* five places in a path, 2^17 folders */
    free(folders);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_many_folders),
    };

    return cmocka_run_group_tests_name("winner", tests, NULL, NULL);
}
