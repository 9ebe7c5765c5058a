#include "base/clock.h"

#include <time.h>

static int64_t read_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

uint64_t sf__clock_mono_ns(void)
{
    return (uint64_t)read_ns(CLOCK_MONOTONIC);
}

int64_t sf__clock_unix_us(void)
{
    return read_ns(CLOCK_REALTIME) / 1000;
}

int64_t sf__clock_files_us(void)
{
    return read_ns(CLOCK_REALTIME_COARSE) / 1000;
}

uint64_t sf__deadline_in_ms(int64_t ms)
{
    uint64_t now = sf__clock_mono_ns();

    if (ms <= 0)
        return now;
    if ((uint64_t)ms >= (SF_NO_DEADLINE - now) / 1000000)
        return SF_NO_DEADLINE;
    return now + (uint64_t)ms * 1000000;
}
