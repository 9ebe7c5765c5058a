/* Memory of large reads is used again, never by two at once, and no more of it lies idle than was in use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "cache/read_memory.h"
#include "../../support/heap.h"

#define KIB (UINT64_C(1) << 10)
#define MOST 64u

struct world {
    struct test_heap heap;
    sf_budget budget;
    sf_read_memory memory;
};

static void begin(struct world *w)
{
    heap_init(&w->heap);
    sf__budget_init(&w->budget, NULL, 1, 1 << 20);
    sf__read_memory_init(&w->memory, &w->budget, &w->heap.alloc);
}

static void end(struct world *w)
{
    assert_int_equal(atomic_load(&w->budget.bytes_held), 0);
    assert_int_equal(atomic_load(&w->heap.live), 0); /* nothing is kept when nothing is in use */
    sf__read_memory_cleanup(&w->memory);
}

static sf_buf *take(struct world *w, size_t n)
{
    sf_buf *b = sf__buf_new(&w->memory.allocator, n);

    assert_non_null(b);
    memset(b->data, 0x5a, n); /* all of it is there */
    return b;
}

static void memory_is_used_again(void **state)
{
    static const struct {
        const char *name;
        uint64_t first, next;
        bool same;
    } cases[] = {
        {"the same size", 512 * KIB, 512 * KIB, true},           {"about the same size", 512 * KIB, 300 * KIB, true},
        {"another size", 512 * KIB, 100 * KIB, false},           {"the largest", 1024 * KIB, 1024 * KIB, true},
        {"too large to be kept", 2048 * KIB, 2048 * KIB, false}, {"too small to be kept", 16 * KIB, 16 * KIB, false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        sf_buf *other, *next;

        begin(&w);
        other = take(&w, 600 * KIB);
        sf__buf_release(take(&w, cases[i].first));
        heap_arm(&w.heap, 0);
        next = sf__buf_new(&w.memory.allocator, cases[i].next);
        if ((next != NULL) != cases[i].same)
            fail_msg("%s: %s", cases[i].name, cases[i].same ? "it was not used again" : "it was");
        sf__buf_release(next);
        sf__buf_release(other);
        end(&w);
    }
}

/* Idle and in use together are no more than was in use at once, and what is idle is bounded by itself. */
static void little_lies_idle(void **state)
{
    struct world w;
    sf_buf *bufs[MOST];
    uint64_t all;

    begin(&w);
    for (unsigned i = 0; i < MOST; i++)
        bufs[i] = take(&w, i % 2 ? 1000 * KIB : 100 * KIB);
    all = w.memory.used_bytes;
    for (unsigned i = 0; i < MOST; i++) {
        sf__buf_release(bufs[i]);
        assert_true(w.memory.idle_bytes + w.memory.used_bytes <= all);
        assert_true(w.memory.idle_bytes <= SF_READ_MEMORY_IDLE_BYTES);
        assert_int_equal(atomic_load(&w.budget.bytes_held), w.memory.idle_bytes);
        assert_true(w.memory.idle_bytes > 0 || i + 1 == MOST);
    }
    end(&w);
}

static void without_memory_there_is_none(void **state)
{
    struct world w;
    sf_buf *other;

    begin(&w);
    other = take(&w, 600 * KIB);
    for (uint64_t n = 10 * KIB; n <= 4096 * KIB; n *= 4) {
        heap_arm(&w.heap, 0);
        assert_null(sf__buf_new(&w.memory.allocator, n));
        heap_arm(&w.heap, -1);
    }
    assert_null(sf__buf_new(&w.memory.allocator, SIZE_MAX - sizeof(sf_buf)));
    assert_null(sf__buf_reserve(other, 2 * other->cap)); /* they do not grow */
    sf__buf_release(other);
    end(&w);
}

/* A heap that is empty, and has what a buffer had in use end before it says so, as another thread may. */
struct late_heap {
    sf_allocator alloc;
    sf_buf *ends; /* NULL: there is memory */
};

static void *late_realloc(void *ctx, void *p, size_t n)
{
    struct late_heap *h = ctx;

    if (!h->ends)
        return realloc(p, n);
    sf__buf_release(h->ends);
    h->ends = NULL;
    return NULL;
}

static void late_free(void *ctx, void *p)
{
    free(p);
}

static void nothing_stays_behind_a_failure(void **state)
{
    struct late_heap heap = {.alloc = {sizeof(sf_allocator), late_realloc, late_free, &heap}};
    struct world w;

    sf__budget_init(&w.budget, NULL, 1, 1 << 20);
    sf__read_memory_init(&w.memory, &w.budget, &heap.alloc);
    heap.ends = take(&w, 600 * KIB);
    assert_null(sf__buf_new(&w.memory.allocator, 100 * KIB));
    assert_null(heap.ends);
    assert_int_equal(w.memory.idle_bytes, 0);
    assert_int_equal(atomic_load(&w.budget.bytes_held), 0);
    sf__read_memory_cleanup(&w.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_used_again),
        cmocka_unit_test(little_lies_idle),
        cmocka_unit_test(without_memory_there_is_none),
        cmocka_unit_test(nothing_stays_behind_a_failure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
