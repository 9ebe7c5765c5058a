/* Every fixture of SlateDB is verified: those that are damaged are found, and nothing is found in the others.
 */
#include "world.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define CASES SF_FIXTURES_DIR "/slatedb"

/* Empty objects are what SlateDB writes into the WAL, from 0.14 on, to fence others off: an emptied one is like them, below a
 * manifest of version 1, too, which releases up to 0.16 write. */
#define UNSEEN "_zero_wal"

struct seen {
    uint64_t damages;
    char first[1024];
    uint64_t told_bytes, told_rows;
};

static void found(void *ctx, const sf_damage *d)
{
    struct seen *s = ctx;

    assert_int_not_equal(d->error.code, SF_OK);
    assert_true(d->error.object[0] != '\0' && d->error.message[0] != '\0');
    if (s->damages++ == 0)
        snprintf(s->first, sizeof(s->first), "%s", d->error.message);
}

static bool progress(void *ctx, uint64_t bytes, uint64_t rows)
{
    struct seen *s = ctx;

    s->told_bytes += bytes;
    s->told_rows += rows;
    return true;
}

/* False: it does not open. */
static bool verify(sf_runtime *rt, const char *name, bool deep, struct seen *seen, sf_verify_result *result)
{
    sf_verify_options o = SF_VERIFY_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    sf_snapshot *s;
    char url[1024];

    *seen = (struct seen){0};
    snprintf(url, sizeof(url), "mem://%s/db", name);
    if (sf_snapshot_open_shard(&s, rt, url, NULL, NULL, 60000, &e) != SF_OK)
        return false;
    o.deep = deep;
    o.found = found;
    o.progress = progress;
    o.ctx = seen;
    if (sf_snapshot_verify_shard(s, 0, &o, result, &e) != SF_OK)
        fail_msg("%s: %s", name, e.message);
    sf_snapshot_give_back(s);
    assert_int_equal(result->damages, seen->damages);
    assert_int_equal(result->bytes, seen->told_bytes);
    return true;
}

/* In a space of its own, since clones name their parent from the root on. */
static void load(sf_runtime *rt, const char *name)
{
    struct world w = {.rt = rt};
    char text[1024];

    snprintf(text, sizeof(text), "mem://%s/", name);
    assert_int_equal(sf_bucket_open(&w.bucket, rt, text, NULL, NULL), SF_OK);
    snprintf(text, sizeof(text), "%s/%s", CASES, name);
    world_put_folder(&w, text, "");
    sf_bucket_close(w.bucket);
}

static size_t rows_of(const char *name)
{
    char path[1024];
    FILE *f;
    size_t n = 0;
    int ch;

    snprintf(path, sizeof(path), "%s/%s/expected.jsonl", CASES, name);
    f = fopen(path, "r");
    assert_non_null(f);
    while ((ch = fgetc(f)) != EOF)
        n += ch == '\n';
    fclose(f);
    return n;
}

static void check_good(sf_runtime *rt, const char *name)
{
    struct seen seen;
    sf_verify_result r;

    for (int deep = 0; deep < 2; deep++) {
        if (!verify(rt, name, deep, &seen, &r))
            fail_msg("%s does not open", name);
        if (seen.damages > 0)
            fail_msg("%s: %s", name, seen.first);
        if (deep && !strstr(name, "-merge") && r.rows != rows_of(name)) /* whose rows no scan shows */
            fail_msg("%s: %llu rows of %zu", name, (unsigned long long)r.rows, rows_of(name));
        if (!deep)
            assert_int_equal(r.rows, 0);
    }
}

static void check_damaged(sf_runtime *rt, const char *name)
{
    struct seen seen;
    sf_verify_result r;

    if (verify(rt, name, true, &seen, &r) && seen.damages == 0)
        fail_msg("%s: nothing was found", name);
}

static void every_fixture(void **state)
{
    sf_runtime *rt = NULL;
    sf_error e = SF_ERROR_INIT;
    DIR *d = opendir(CASES);
    struct dirent *entry;
    unsigned good = 0, damaged = 0;

    (void)state;
    assert_non_null(d);
    assert_int_equal(sf_runtime_new(&rt, NULL, &e), SF_OK);
    while ((entry = readdir(d))) {
        bool is_unseen = strstr(entry->d_name, UNSEEN);

        if (entry->d_name[0] == '.' || !strchr(entry->d_name, '-'))
            continue;
        load(rt, entry->d_name);
        if (!strstr(entry->d_name, "-corrupt_") || is_unseen) {
            check_good(rt, entry->d_name);
            good++;
        } else {
            check_damaged(rt, entry->d_name);
            damaged++;
        }
    }
    closedir(d);
    sf_runtime_release(rt);
    assert_true(good > 50 && damaged > 20);
}

static bool no_more(void *ctx, uint64_t bytes, uint64_t rows)
{
    (void)ctx;
    (void)bytes;
    (void)rows;
    return false;
}

static void refusals(void **state)
{
    sf_verify_options o = SF_VERIFY_OPTIONS_INIT;
    sf_verify_result r;
    sf_error e = SF_ERROR_INIT;
    sf_runtime *rt;
    sf_snapshot *s;

    (void)state;
    assert_int_equal(sf_runtime_new(&rt, NULL, &e), SF_OK);
    assert_int_equal(sf_snapshot_open_shard(&s, rt, CASES "/0.13.1-mixed/db", NULL, NULL, 60000, &e), SF_OK);
    assert_int_equal(sf_snapshot_verify_shard(s, 1, NULL, &r, &e), SF_INVALID);
    assert_int_equal(sf_snapshot_verify_shard(s, 0, NULL, &r, NULL), SF_OK);
    assert_true(r.damages == 0 && r.objects > 0 && r.bytes > 0);
    o.progress = no_more; /* the last one tells of what was done */
    assert_int_equal(sf_snapshot_verify_shard(s, 0, &o, &r, &e), SF_OK);
    sf_snapshot_give_back(s);
    sf_runtime_release(rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fixture),
        cmocka_unit_test(refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
