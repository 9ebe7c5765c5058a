#include "backend/sqlite/temp_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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

sf_status sf__temp_file_create(const char *folder, const sf_allocator *a, int *fd, char **path, sf_error *err)
{
    char *name;

    if (!folder)
        folder = default_folder();
    /* Never a name that SQLite could take for a URI. */
    name = sf__asprintf(a, "%s%s/" PREFIX "XXXXXX", folder[0] == '/' ? "" : "./", folder);
    if (!name)
        return sf_fail(err, SF_NOMEM, "temporary file");
    *fd = SF_FD(mkostemp(name, O_CLOEXEC));
    if (*fd < 0) {
        int e = errno;

        sf__free(a, name);
        return sf__fail_errno(err, e, SF_IO, "temporary file in %s", folder);
    }
    *path = name;
    return SF_OK;
}

sf_status sf__temp_file_create_in(int folder, const sf_allocator *a, int *fd, char **name, sf_error *err)
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

void sf__temp_file_hide(const sf_allocator *a, char **path)
{
    if (!*path)
        return;
    unlink(*path);
    sf__free(a, *path);
    *path = NULL;
}
