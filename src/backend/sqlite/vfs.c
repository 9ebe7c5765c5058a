#include "backend/sqlite/vfs.h"

#include <inttypes.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What SQLite calls a file name is here where its sf_vfs_file lies, in hexadecimal digits. */
#define NAME_CHARS (2 * sizeof(uintptr_t))

struct handle {
    sqlite3_file base; /* first */
    sf_vfs_file *file;
};

/* ------------------------------------------------------------------ the file ------------------------------------- */

static sf_vfs_file *file_of(sqlite3_file *f)
{
    return ((struct handle *)f)->file;
}

static int file_close(sqlite3_file *f)
{
    (void)f;
    return SQLITE_OK;
}

/* What lies behind the end is zero, and SQLite wants to hear of it. */
static int file_read(sqlite3_file *f, void *out, int n, sqlite3_int64 off)
{
    sf_vfs_file *file = file_of(f);
    const sf_file_view *view = file->view;
    const uint64_t left = (uint64_t)off < view->size ? view->size - (uint64_t)off : 0;
    const size_t have = left < (uint64_t)n ? (size_t)left : (size_t)n;

    if (have > 0 && view->read(view->ctx, (uint64_t)off, have, out, &file->error) != SF_OK)
        return file->error.code == SF_NOMEM ? SQLITE_IOERR_NOMEM : SQLITE_IOERR_READ;
    if (have == (size_t)n)
        return SQLITE_OK;
    memset((uint8_t *)out + have, 0, (size_t)n - have);
    return SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 off)
{
    (void)f;
    (void)p;
    (void)n;
    (void)off;
    return SQLITE_READONLY;
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    (void)f;
    (void)size;
    return SQLITE_READONLY;
}

static int file_size(sqlite3_file *f, sqlite3_int64 *out)
{
    *out = (sqlite3_int64)file_of(f)->view->size;
    return SQLITE_OK;
}

/* Of sync, lock and unlock: nobody changes the file. */
static int file_flag(sqlite3_file *f, int flag)
{
    (void)f;
    (void)flag;
    return SQLITE_OK;
}

static int file_is_reserved(sqlite3_file *f, int *out)
{
    (void)f;
    *out = 0;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *f, int op, void *arg)
{
    (void)f;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int file_sector_size(sqlite3_file *f)
{
    (void)f;
    return 0;
}

static int file_traits(sqlite3_file *f)
{
    (void)f;
    return SQLITE_IOCAP_IMMUTABLE;
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_flag,
    .xFileSize = file_size,
    .xLock = file_flag,
    .xUnlock = file_flag,
    .xCheckReservedLock = file_is_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_traits,
};

/* ------------------------------------------------------------------ the file system ------------------------------ */

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out_flags)
{
    (void)vfs;
    f->pMethods = NULL;
    if (!(flags & SQLITE_OPEN_MAIN_DB) || !name || strlen(name) != NAME_CHARS)
        return SQLITE_CANTOPEN;
    ((struct handle *)f)->file = (sf_vfs_file *)(uintptr_t)strtoumax(name, NULL, 16);
    f->pMethods = &methods;
    if (out_flags)
        *out_flags = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    (void)name;
    (void)sync;
    return SQLITE_READONLY;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    (void)vfs;
    (void)name;
    (void)flags;
    *out = 0;
    return SQLITE_OK;
}

static int vfs_full_name(sqlite3_vfs *vfs, const char *name, int n, char *out)
{
    (void)vfs;
    return snprintf(out, (size_t)n, "%s", name) < n ? SQLITE_OK : SQLITE_CANTOPEN;
}

/* SQLite asks the default one for these; nothing that we run does. */
static int vfs_random(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    memset(out, 0, (size_t)n);
    return n;
}

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    (void)us;
    return 0;
}

static int vfs_time(sqlite3_vfs *vfs, double *out)
{
    (void)vfs;
    *out = 0;
    return SQLITE_ERROR;
}

static char vfs_name[32];
static sqlite3_vfs vfs = {
    .iVersion = 1,
    .szOsFile = sizeof(struct handle),
    .mxPathname = NAME_CHARS + 16, /* it wants room for the name of a journal */
    .zName = vfs_name,
    .xOpen = vfs_open,
    .xDelete = vfs_delete,
    .xAccess = vfs_access,
    .xFullPathname = vfs_full_name,
    .xRandomness = vfs_random,
    .xSleep = vfs_sleep,
    .xCurrentTime = vfs_time,
};

/* SQLite finds them by name. A process may have this code twice (in the extension and in the library), but SQLite once. */
static void name_vfs(void)
{
    snprintf(vfs_name, sizeof(vfs_name), "shardyfusion-%" PRIxPTR, (uintptr_t)&vfs);
}

static const char *name_of_vfs(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, name_vfs);
    /* again, once it is: whoever shuts SQLite down takes it away. What fails shows when it is used. */
    return sqlite3_vfs_register(&vfs, 0) == SQLITE_OK ? vfs_name : "";
}

int sf__vfs_open(sqlite3 **db, sf_vfs_file *file)
{
    char name[NAME_CHARS + 1];

    file->error = (sf_error)SF_ERROR_INIT;
    snprintf(name, sizeof(name), "%0*" PRIxPTR, (int)NAME_CHARS, (uintptr_t)file);
    return sqlite3_open_v2(name, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
                           name_of_vfs());
}
