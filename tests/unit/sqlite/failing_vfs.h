/* SQLite's files without locks, with a write that fails: the nth one, counted over all files. One thread. */
#ifndef TESTS_UNIT_SQLITE_FAILING_VFS_H
#define TESTS_UNIT_SQLITE_FAILING_VFS_H

#include <stdbool.h>

#define FAILING_VFS "failing"

void failing_vfs_register(void);
/* `code`: SQLITE_FULL or SQLITE_IOERR_WRITE. nth 0: none fails. */
void failing_vfs_arm(unsigned nth, int code);
bool failing_vfs_fired(void);

#endif
