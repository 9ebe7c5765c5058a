#include "base/temp_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/fd.h"

#define PREFIX ".shardyfusion-"

static const char *default_folder(void)
{
    const char *t = getenv("TMPDIR");

    return t && *t ? t : "/tmp";
}

static sf_status named_then_not(const char *folder, const sf_allocator *a, int *fd, sf_error *err)
{
    int in = SF_FD(open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC));
    char *name;
    sf_status rc;

    if (in < 0)
        return sf__fail_errno(err, errno, SF_IO, "open");
    rc = sf__temp_file_named(in, a, fd, &name, err);
    if (rc == SF_OK) {
        unlinkat(in, name, 0);
        sf__free(a, name);
    }
    close(in);
    return rc;
}

sf_status sf__temp_file_nameless(const char *folder, const char *what, const sf_allocator *a, int *fd, sf_error *err)
{
    sf_status rc;

    if (!folder)
        folder = default_folder();
    *fd = SF_FD(open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (*fd >= 0)
        return SF_OK;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
        return sf__fail_errno(err, errno, SF_IO, "%s %s", what, folder);
    rc = named_then_not(folder, a, fd, err);
    return rc == SF_OK ? rc : sf_error_prefix(err, rc, "%s %s: ", what, folder);
}

const char *sf__temp_file_folder(int fd, char out[SF_TEMP_FILE_FOLDER_BYTES])
{
    char link[32], path[SF_TEMP_FILE_FOLDER_BYTES], *slash;
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    path[n > 0 ? n : 0] = '\0';
    slash = strrchr(path, '/');
    if (slash)
        *slash = '\0';
    memcpy(out, path, sizeof(path));
    return *out ? out : "its folder";
}

sf_status sf__temp_file_named(int folder, const sf_allocator *a, int *fd, char **name, sf_error *err)
{
    for (;;) {
        uint64_t random;
        int e;

        if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
            return sf__fail_errno(err, errno, SF_IO, "temporary file: getrandom");
        *name = sf__asprintf(a, PREFIX "%016" PRIx64, random);
        if (!*name)
            return sf_fail(err, SF_NOMEM, "temporary file");
        *fd = SF_FD(openat(folder, *name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
        if (*fd >= 0)
            return SF_OK;
        e = errno;
        sf__free(a, *name);
        *name = NULL;
        if (e != EEXIST)
            return sf__fail_errno(err, e, e == EACCES || e == EPERM ? SF_DENIED : SF_IO, "temporary file");
    }
}

bool sf__temp_file_is_one(const char *name)
{
    return strncmp(name, PREFIX, sizeof(PREFIX) - 1) == 0;
}
