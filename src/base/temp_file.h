/* Files for the time of one operation, with mode 0600. Blocking; any thread. */
#ifndef SF_BASE_TEMP_FILE_H
#define SF_BASE_TEMP_FILE_H

#include "base/alloc.h"
#include "base/error.h"

/* A new, empty file below `folder` (NULL: $TMPDIR, else /tmp), open for reading and writing, without a name from the start where
 * the file system can do that, else a moment later: nobody else opens it, and it goes with its last descriptor. `what`: the
 * folder, in messages. */
sf_status sf__temp_file_nameless(const char *folder, const char *what, const sf_allocator *a, int *fd, sf_error *err)
    SF_MUST_USE;

/* The folder of a file without a name, for messages: whoever has the descriptor often does not know it. Text of `out`. */
#define SF_TEMP_FILE_FOLDER_BYTES 256u
const char *sf__temp_file_folder(int fd, char out[SF_TEMP_FILE_FOLDER_BYTES]);

/* One with a name, in a folder that is open, to be renamed; *name is without the folder, and to be freed. */
sf_status sf__temp_file_named(int folder, const sf_allocator *a, int *fd, char **name, sf_error *err) SF_MUST_USE;
bool sf__temp_file_is_one(const char *name); /* whether a name in a folder is one that was made here */

#endif
