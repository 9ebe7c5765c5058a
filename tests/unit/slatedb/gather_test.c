/* Which blocks come with one request: near ones, and ones that are further apart where there would be more requests than turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "backend/slatedb/gather.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define BLOCK_BYTES (4 * KIB)
#define BLOCKS 40000u

static sf_sst ssts[2];

static int setup(void **state)
{
    for (unsigned s = 0; s < 2; s++) {
        ssts[s].index.count = BLOCKS;
        ssts[s].index.offs = calloc(BLOCKS + 1, sizeof(*ssts[s].index.offs));
        for (uint32_t i = 0; i <= BLOCKS; i++)
            ssts[s].index.offs[i] = i * BLOCK_BYTES;
    }
    return 0;
}

static int teardown(void **state)
{
    for (unsigned s = 0; s < 2; s++)
        free(ssts[s].index.offs);
    return 0;
}

/* How many ranges there are, and their bytes; each need is in one of them, and none is larger than it may be. */
static sf_gather_room ranges(const sf_block_need *needs, size_t count, const sf_read_cost *cost)
{
    sf_gather_room all = {0};

    for (size_t i = 0, n; i < count; i += n) {
        uint64_t bytes;

        n = sf__gather_range(needs + i, count - i, cost);
        assert_true(n > 0 && i + n <= count);
        assert_ptr_equal(needs[i].sst, needs[i + n - 1].sst);
        bytes = (needs[i + n - 1].block + 1 - needs[i].block) * BLOCK_BYTES;
        assert_true(n == 1 || bytes <= cost->max_bytes);
        all.requests++;
        all.bytes += bytes;
    }
    return all;
}

static void near_blocks_come_together(void **state)
{
    static const struct {
        const char *name;
        uint64_t gap, max;
        size_t count;
        struct {
            unsigned sst;
            uint32_t block;
        } needs[6];
        size_t ranges[6]; /* how many needs are in each */
    } cases[] = {
        {"neighbours", 0, MIB, 3, {{0, 1}, {0, 2}, {0, 3}}, {3}},
        {"in any order, several keys of one block", 0, MIB, 5, {{0, 3}, {0, 2}, {0, 3}, {0, 1}, {0, 2}}, {3}},
        {"not neighbours", 0, MIB, 2, {{0, 1}, {0, 3}}, {1, 1}},
        {"over a gap", 8 * KIB, MIB, 3, {{0, 1}, {0, 4}, {0, 8}}, {2, 1}},
        {"of two SSTs", MIB, MIB, 2, {{0, 1}, {1, 2}}, {1, 1}},
        {"as large as a request may be", MIB, 16 * KIB, 5, {{0, 0}, {0, 1}, {0, 3}, {0, 4}, {0, 7}}, {3, 2}},
        {"a block that is larger than that", MIB, 1, 2, {{0, 0}, {0, 1}}, {1, 1}},
    };

    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        const sf_read_cost cost = {cases[c].gap, cases[c].max};
        sf_block_need needs[6];
        size_t count = cases[c].count, i = 0;

        for (size_t k = 0; k < count; k++)
            needs[k] = (sf_block_need){.sst = &ssts[cases[c].needs[k].sst], .block = cases[c].needs[k].block};
        count = sf__gather_sort(needs, count);
        for (size_t r = 0; cases[c].ranges[r] > 0; r++) {
            size_t n = i < count ? sf__gather_range(needs + i, count - i, &cost) : 0;

            if (n != cases[c].ranges[r])
                fail_msg("%s: %zu blocks in range %zu", cases[c].name, n, r);
            i += n;
        }
        if (i != count)
            fail_msg("%s: %zu of %zu blocks", cases[c].name, i, count);
    }
}

static uint64_t random_next(uint64_t *r)
{
    *r ^= *r << 13;
    *r ^= *r >> 7;
    *r ^= *r << 17;
    return *r;
}

static uint64_t waves_of(const sf_gather_room *all, const sf_gather_room *room)
{
    uint64_t by_requests = (all->requests + room->requests - 1) / room->requests;
    uint64_t by_bytes = (all->bytes + room->bytes - 1) / room->bytes;

    return by_requests > by_bytes ? by_requests : by_bytes;
}

/* A longer range is cheaper than another wave. */
static void gaps_are_as_wide_as_waves_need(void **state)
{
    static const struct {
        const char *name;
        uint32_t blocks, keys; /* keys that lie anywhere in so many blocks */
        uint64_t gap;
        sf_gather_room room;
        uint64_t waves, widest;
    } cases[] = {
        {"few", 27000, 200, 32 * KIB, {256, 64 * MIB}, 1, 32 * KIB},
        {"as many as there is room for", 27000, 1000, 32 * KIB, {800, 64 * MIB}, 1, 32 * KIB},
        {"more", 27000, 1000, 32 * KIB, {256, 64 * MIB}, 1, 256 * KIB},
        {"nearly all blocks, more than the bytes", 27000, 10000, 32 * KIB, {256, 64 * MIB}, 2, 32 * KIB},
        {"so few bytes that wide gaps do not pay", 27000, 1000, 32 * KIB, {256, 16 * MIB}, 2, 256 * KIB},
        {"far apart", 40000, 500, 4 * KIB, {64, 64 * MIB}, 8, 4 * KIB},
        {"neighbours only", 27000, 1000, 0, {256, 64 * MIB}, 4, 0},
        {"as wide as can be already", 27000, 1000, UINT64_MAX, {16, 1 * MIB}, UINT64_MAX, UINT64_MAX},
    };

    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        const sf_read_cost usual = {cases[c].gap, MIB};
        sf_block_need *needs = calloc(cases[c].keys, sizeof(*needs));
        uint64_t random = 88172645463325252u;
        sf_gather_room all, before;
        sf_read_cost cost;
        size_t count;

        assert_non_null(needs);
        for (uint32_t i = 0; i < cases[c].keys; i++)
            needs[i] = (sf_block_need){.sst = &ssts[0], .block = (uint32_t)(random_next(&random) % cases[c].blocks)};
        count = sf__gather_sort(needs, cases[c].keys);
        before = ranges(needs, count, &usual);
        cost = sf__gather_cost(needs, count, &usual, &cases[c].room);
        all = ranges(needs, count, &cost);
        if (cost.gap_bytes < usual.gap_bytes || cost.gap_bytes > cases[c].widest || cost.max_bytes != usual.max_bytes)
            fail_msg("%s: gaps of %llu bytes", cases[c].name, (unsigned long long)cost.gap_bytes);
        if (waves_of(&all, &cases[c].room) > cases[c].waves)
            fail_msg("%s: %llu requests, %llu bytes", cases[c].name, (unsigned long long)all.requests,
                     (unsigned long long)all.bytes);
        if (cost.gap_bytes > usual.gap_bytes && waves_of(&all, &cases[c].room) >= waves_of(&before, &cases[c].room))
            fail_msg("%s: gaps of %llu bytes for nothing", cases[c].name, (unsigned long long)cost.gap_bytes);
        free(needs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(near_blocks_come_together),
        cmocka_unit_test(gaps_are_as_wide_as_waves_need),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
