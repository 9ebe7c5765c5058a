/* What the programs here share: clocks, keys, and the form of their results, a line of JSON a sample:
 *     {"name": "get/uniform/ours", "unit": "ns", "samples": [431.2]}
 * The parts of a name are path, case and who; bench/run.py puts samples of one name together. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static inline double clock_of(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline double seconds(void)
{
    return clock_of(CLOCK_MONOTONIC);
}

static inline double thread_cpu(void)
{
    return clock_of(CLOCK_THREAD_CPUTIME_ID);
}

static inline double process_cpu(void)
{
    return clock_of(CLOCK_PROCESS_CPUTIME_ID);
}

static inline void sample(const char *path, const char *the_case, const char *who, const char *unit, double value)
{
    printf("{\"name\": \"%s/%s/%s\", \"unit\": \"%s\", \"samples\": [%.6g]}\n", path, the_case, who, unit, value);
    fflush(stdout);
}

static inline uint64_t mix(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "%s failed\n", what);
    exit(1);
}

#endif
