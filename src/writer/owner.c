#include "writer/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/fd.h"

/* Digits of each part. */
#define PLACE_DIGITS 12
#define PROCESS_DIGITS 8
#define START_DIGITS 6

static size_t read_text(const char *path, char *out, size_t n)
{
    int fd = SF_FD(open(path, O_RDONLY | O_CLOEXEC));
    ssize_t got = fd >= 0 ? read(fd, out, n - 1) : -1;

    if (fd >= 0)
        close(fd);
    out[got > 0 ? got : 0] = '\0';
    return got > 0 ? (size_t)got : 0;
}

/* Machine, boot and container: process numbers mean something only there. */
static bool place_of(uint64_t *out)
{
    char text[256];
    size_t n = read_text("/proc/sys/kernel/random/boot_id", text, 128);
    ssize_t more = readlink("/proc/self/ns/pid", text + n, sizeof(text) - n);

    if (n == 0 || more <= 0)
        return false;
    *out = sf__xxh3_64(sf_bytes_of(text, n + (size_t)more)) >> (64 - 4 * PLACE_DIGITS);
    return true;
}

/* When the process started, in clock ticks since the boot. False: that cannot be told, or it waits for its parent only, and
 * then *ended. */
static bool start_of(unsigned long process, unsigned long long *out, bool *ended)
{
    char path[64], text[1024], *p;
    int field = 3; /* the state, behind the name in brackets, which may hold anything */

    *ended = false;
    snprintf(path, sizeof(path), "/proc/%lu/stat", process);
    if (read_text(path, text, sizeof(text)) == 0) { /* one of another user may be hidden: only the kernel knows all */
        *ended = process > 0 && process <= INT_MAX && kill((pid_t)process, 0) != 0 && errno == ESRCH;
        return false;
    }
    p = strrchr(text, ')');
    if (!p || p[1] != ' ')
        return false;
    *ended = p[2] == 'Z' || p[2] == 'X';
    if (*ended)
        return false;
    for (p += 2; *p && field < 22; p++)
        field += *p == ' ';
    *out = strtoull(p, NULL, 10) & ((1u << (4 * START_DIGITS)) - 1);
    return field == 22;
}

bool sf__owner_hex(char out[SF_HEX128_TEXT])
{
    unsigned long process = (unsigned long)getpid();
    unsigned long long start;
    char random[SF_HEX128_TEXT];
    uint64_t place;
    bool ended;

    if (!sf__uuid_hex(random))
        return false;
    memcpy(out, random, sizeof(random));
    if (place_of(&place) && start_of(process, &start, &ended))
        snprintf(out, SF_HEX128_TEXT, "%0*llx%0*lx%0*llx%.6s", PLACE_DIGITS, (unsigned long long)place, PROCESS_DIGITS,
                 process & 0xffffffff, START_DIGITS, start, random);
    return true;
}

bool sf__owner_is_gone(const char *hex)
{
    unsigned long long theirs, start, started, now;
    unsigned long process;
    uint64_t ours;
    bool ended;

    if (strlen(hex) < SF_HEX128_TEXT - 1 || sscanf(hex, "%12llx%8lx%6llx", &theirs, &process, &started) != 3)
        return false;
    if (!place_of(&ours) || ours != theirs || !start_of((unsigned long)getpid(), &now, &ended))
        return false; /* another machine's, or one that cannot tell */
    return start_of(process, &start, &ended) ? start != started : ended;
}
