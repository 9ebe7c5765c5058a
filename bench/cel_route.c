/* What it costs to route a key by CEL: nanoseconds of processor time per key, the fastest of some rounds, for
 * rules as people write them, next to routing by hash.
 *
 *     cel_route [KEYS_PER_ROUND] */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"
#include "snapshot/cel_rule.h"
#include "snapshot/router.h"

#define ROUNDS 15
#define DIFFERENT 4096u /* contexts */

static const struct rule {
    const char *name, *sharding;
    uint32_t num_dbs; /* 0: by hash */
    bool has_context;
} rules[] = {
    {"hash", NULL, 0, false},
    {"categorical, 8 texts",
     "{\"cel_expr\": \"region\", \"cel_columns\": {\"region\": \"string\"}, \"routing_values\": "
     "[\"region 0\", \"region 1\", \"region 2\", \"region 3\", \"region 4\", \"region 5\", \"region 6\", "
     "\"region 7\"]}",
     8, true},
    {"categorical, 8 integers",
     "{\"cel_expr\": \"tier\", \"cel_columns\": {\"tier\": \"int\"}, \"routing_values\": "
     "[0, 1, 2, 3, 4, 5, 6, 7]}",
     8, true},
    {"categorical, two columns",
     "{\"cel_expr\": \"region + ':' + string(tier)\", \"cel_columns\": {\"region\": \"string\", \"tier\": "
     "\"int\"}, "
     "\"routing_values\": [\"region 0:0\", \"region 1:1\", \"region 2:2\", \"region 3:3\", \"region 4:4\", "
     "\"region 5:5\", "
     "\"region 6:6\", \"region 7:7\"]}",
     8, true},
    {"direct, key % 8", "{\"cel_expr\": \"key % 8\", \"cel_columns\": {\"key\": \"int\"}, \"routing_values\": null}", 8,
     false},
    {"direct, shard_hash(key) % 8u",
     "{\"cel_expr\": \"shard_hash(key) % 8u\", \"cel_columns\": {\"key\": \"int\"}, \"routing_values\": null}", 8, false},
    {"direct, a chain of four conditions",
     "{\"cel_expr\": \"region == 'region 0' ? 0 : region == 'region 1' ? 1 : region == 'region 2' ? 2 : tier > 4 ? 3 : 4\", "
     "\"cel_columns\": {\"region\": \"string\", \"tier\": \"int\"}, \"routing_values\": null}",
     8, true},
    {"direct, shard_hash(region) % 8u",
     "{\"cel_expr\": \"shard_hash(region) % 8u\", \"cel_columns\": {\"region\": \"string\"}, "
     "\"routing_values\": null}",
     8, true},
};

static void must(sf_status rc, const sf_error *e)
{
    if (rc == SF_OK)
        return;
    fprintf(stderr, "%s\n", e->message);
    exit(1);
}

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static sf_key keys[DIFFERENT];
static sf_routing_context contexts[DIFFERENT];
static sf_routing_value values[DIFFERENT][2];
static char regions[8][16];

static void make_keys(void)
{
    for (unsigned i = 0; i < 8; i++)
        snprintf(regions[i], sizeof(regions[i]), "region %u", i);
    for (unsigned i = 0; i < DIFFERENT; i++) {
        unsigned n = i * 2654435761u >> 29;

        values[i][0] = (sf_routing_value){.column = "region", .type = SF_ROUTING_STR, .b = {(uint8_t *)regions[n], 8}};
        values[i][1] = (sf_routing_value){.column = "tier", .type = SF_ROUTING_INT, .i = n};
        contexts[i] = (sf_routing_context){values[i], 2};
        keys[i] = sf_key_int(i);
    }
}

static double measure(const sf_router *router, unsigned long count)
{
    double best = 1e18;
    sf_error err = SF_ERROR_INIT;
    uint32_t sum = 0;

    for (int round = 0; round < ROUNDS; round++) {
        double begin = now_ns(), took;

        for (unsigned long i = 0; i < count; i++) {
            uint32_t db_id = 0;

            must(sf__router_route(router, &keys[i % DIFFERENT], &db_id, &err), &err);
            sum += db_id;
        }
        took = (now_ns() - begin) / (double)count;
        best = took < best ? took : best;
    }
    return sum == 0xffffffff ? 0 : best; /* the sum is used */
}

int main(int argc, char **argv)
{
    unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;

    make_keys();
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        const struct rule *rule = &rules[i];
        sf_error err = SF_ERROR_INIT;
        sf_router router;

        if (rule->num_dbs == 0) {
            must(sf__router_init_hash(&router, 8, &err), &err);
        } else {
            router = (sf_router){.strategy = SF_SHARDING_CEL, .num_dbs = rule->num_dbs};
            must(sf__cel_rule_new(&router.rule, sf_bytes_str(rule->sharding), rule->num_dbs, &sf__allocator_default, &err),
                 &err);
        }
        for (unsigned k = 0; k < DIFFERENT; k++)
            keys[k].context = rule->has_context ? &contexts[k] : NULL;
        printf("%-34s %6.0f ns\n", rule->name, measure(&router, count));
        sf__router_cleanup(&router);
    }
    return 0;
}
