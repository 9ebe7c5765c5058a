/* Local files for the time of a build. They lose their name as soon as nobody has to open them by it, so that not even a
 * killed process leaves one. */
#ifndef SF_BACKEND_SQLITE_TEMP_FILE_H
#define SF_BACKEND_SQLITE_TEMP_FILE_H

#include "base/alloc.h"
#include "base/error.h"

/* A new, empty file below `folder` (NULL: $TMPDIR, else /tmp), open for reading and writing. *path names it until
 * sf__temp_file_hide(), which must be called. */
sf_status sf__temp_file_create(const char *folder, const sf_allocator *a, int *fd, char **path,
                               sf_error *err) SF_MUST_USE;
/* The same in a folder that is open; *name is without it, to be freed, and stays until unlinkat(). */
sf_status sf__temp_file_create_in(int folder, const sf_allocator *a, int *fd, char **name, sf_error *err) SF_MUST_USE;
bool sf__temp_file_is_one(const char *name); /* whether a name in a folder is one that was made here */
void sf__temp_file_hide(const sf_allocator *a, char **path); /* removes the name; takes a NULL path */

#endif
