/* The client of PostgreSQL without one: what it refuses, and servers that are not there or never answer. What it does with a real
 * one is in tests/python/test_postgres_command.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <dirent.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shardyfusion/postgres.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define PASSWORD "s3cret"

static void test_what_is_refused(void **state)
{
    static const struct {
        const char *name, *conninfo, *table, *message;
        sf_status code;
    } cases[] = {
        {"a table", "", "a b", "table_name must be a word", SF_INVALID},
        {"an option", "postgresql://u:" PASSWORD "@h/d?nothing=1", "t", "is none that libpq takes", SF_INVALID},
        {"no pair", "host=h " PASSWORD, "t", "is none that libpq takes", SF_INVALID},
        {"a quote", "host=h password='" PASSWORD, "t", "is none that libpq takes", SF_INVALID},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_postgres_options o = SF_POSTGRES_OPTIONS_INIT;
        sf_error err = SF_ERROR_INIT;
        sf_postgres *p = NULL;

        o.table_name = cases[i].table;
        if (sf_postgres_open(&p, cases[i].conninfo, &o, &err) != cases[i].code ||
            !strstr(err.message, cases[i].message) || strstr(err.message, PASSWORD))
            fail_msg("%s: %s '%s'", cases[i].name, sf_status_name(err.code), err.message);
        assert_null(p);
    }
}

static void test_names(void **state)
{
    static const struct {
        const char *conninfo, *name;
    } cases[] = {
        {"postgresql://u:" PASSWORD "@db.example:5433/d", "postgresql://db.example:5433/d"},
        {"host=h dbname=d password=" PASSWORD, "postgresql://h/d"},
        {"", "postgresql:///"},
        {"postgresql://u:x@" PASSWORD "@db.example/d", "postgresql:///"}, /* what libpq takes for the host */
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_postgres *p;

        assert_int_equal(sf_postgres_open(&p, cases[i].conninfo, NULL, NULL), SF_OK);
        assert_string_equal(sf_postgres_name(p), cases[i].name);
        sf_postgres_release(p);
    }
    sf_postgres_release(NULL);
}

/* ------------------------------------------------------------------ servers -------------------------------------- */

/* A port at which connections are taken, by the kernel alone. `closed`: it was one. */
static int listen_at(char conninfo[static 128], bool closed)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
    if (!closed)
        assert_int_equal(listen(fd, 64), 0);
    snprintf(conninfo, 128, "host=127.0.0.1 port=%u user=u dbname=d password=" PASSWORD, ntohs(at.sin_port));
    return fd;
}

static sf_postgres *open_postgres(const char *conninfo, int64_t timeout_ms)
{
    sf_postgres_options o = SF_POSTGRES_OPTIONS_INIT;
    sf_postgres *p;

    o.timeout_ms = timeout_ms;
    assert_int_equal(sf_postgres_open(&p, conninfo, &o, NULL), SF_OK);
    return p;
}

static sf_status open_reader(sf_runtime *rt, sf_postgres *p, int64_t timeout_ms, sf_error *err)
{
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_manifest_source source = sf_postgres_manifest_source(p);
    sf_reader *r = NULL;
    sf_status rc;

    o.manifests = &source;
    o.open_timeout_ms = timeout_ms;
    rc = sf_reader_open(&r, rt, "any name", &o, err);
    sf_reader_free(r);
    return rc;
}

static unsigned count_threads(void)
{
    DIR *dir = opendir("/proc/self/task");
    unsigned n = 0;

    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void wait_for_threads(unsigned n)
{
    while (count_threads() > n)
        sched_yield();
}

static void test_nobody_listens(void **state)
{
    char conninfo[128];
    int fd = listen_at(conninfo, true);
    sf_postgres *p = open_postgres(conninfo, 20000);
    sf_error err = SF_ERROR_INIT;
    sf_history_entry *entries;
    sf_runtime *rt;
    size_t count;

    (void)state;
    assert_int_equal(sf_runtime_new(&rt, NULL, NULL), SF_OK);
    assert_int_equal(open_reader(rt, p, 20000, &err), SF_UNAVAILABLE);
    assert_non_null(strstr(err.message, "load_current: "));
    assert_null(strstr(err.message, PASSWORD));
    assert_int_equal(sf_postgres_list(p, 5, &entries, &count, &err), SF_UNAVAILABLE);
    assert_int_equal(sf_postgres_set_current(p, "r", SF_EXPECT_ANY, NULL, &err), SF_UNAVAILABLE);
    assert_int_equal(sf_postgres_set_current(p, "r", SF_EXPECT_REF, NULL, &err), SF_INVALID);
    sf_postgres_release(p);
    sf_runtime_release(rt);
    close(fd);
}

/* Readers go on, and all else may be gone, while the threads still wait. */
static void test_a_server_that_never_answers(void **state)
{
    unsigned threads = count_threads();
    char conninfo[128];
    int fd = listen_at(conninfo, false);
    sf_postgres *p = open_postgres(conninfo, 60000);
    sf_error err = SF_ERROR_INIT;
    sf_runtime *rt;
    sf_status rc;
    int i = 0;

    (void)state;
    assert_int_equal(sf_runtime_new(&rt, NULL, NULL), SF_OK);
    for (rc = SF_TIMEOUT; rc == SF_TIMEOUT; i++) /* not in each of the shortest does it come as far as a thread */
        rc = open_reader(rt, p, 1 + i / 16, &err);
    assert_int_equal(rc, SF_EXHAUSTED);
    assert_true(i > 16);
    sf_runtime_release(rt);
    sf_postgres_release(p);
    close(fd); /* the kernel resets what it has taken */
    wait_for_threads(threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_a_server_that_never_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
