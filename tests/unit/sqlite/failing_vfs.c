#include "failing_vfs.h"

#include <sqlite3.h>
#include <stddef.h>

#include "backend/sqlite/vfs.h"

/* The methods of the real file, but for writing: taken over when a file is opened. */
static sqlite3_vfs vfs;
static sqlite3_vfs *real;
static sqlite3_io_methods methods;
static int (*real_write)(sqlite3_file *, const void *, int, sqlite3_int64);
static unsigned until_failure;
static int failure;
static bool fired;

static int failing_write(sqlite3_file *file, const void *p, int n, sqlite3_int64 off)
{
    if (until_failure > 0 && --until_failure == 0) {
        fired = true;
        return failure;
    }
    return real_write(file, p, n, off);
}

static int failing_open(sqlite3_vfs *v, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    int rc = real->xOpen(real, name, file, flags, out_flags);

    if (rc == SQLITE_OK) {
        methods = *file->pMethods;
        real_write = methods.xWrite;
        methods.xWrite = failing_write;
        file->pMethods = &methods;
    }
    return rc;
}

void failing_vfs_register(void)
{
    real = sqlite3_vfs_find(sf__vfs_name());
    vfs = *real;
    vfs.zName = FAILING_VFS;
    vfs.pNext = NULL;
    vfs.xOpen = failing_open;
    sqlite3_vfs_register(&vfs, 0);
}

void failing_vfs_arm(unsigned nth, int code)
{
    until_failure = nth;
    failure = code;
    fired = false;
}

bool failing_vfs_fired(void)
{
    return fired;
}
