/* Folders whose files only we, or root, can have put there. What lies in one is read as if it came from where we copied it, so
 * the way to it is looked at, too, link by link and by descriptor:
 *
 *   - the folder itself belongs to us or to root, and nobody else may write to it;
 *   - so does each folder above it and each symbolic link on the way, but that those may be writable for a group that we are in, or
 *     have the sticky bit, under which nobody renames what is another's;
 *   - a place where something is mounted is taken as it is: whoever mounts decides who shares it, and volumes of containers are
 *     writable for all.
 *
 * Blocking; any thread. */
#ifndef SF_BASE_PRIVATE_FOLDER_H
#define SF_BASE_PRIVATE_FOLDER_H

#include "base/error.h"

/* Ends a message that asks for another folder. */
#define SF_FOLDER_SETTING "(local_root; in C the folder of the options)"

struct stat;

/* *fd is of the folder, for reading. `make`: it and what is missing above it are made, for their owner alone. SF_DENIED, naming
 * the folder that is open to others. */
sf_status sf__private_folder_open(const char *path, bool make, int *fd, sf_error *err) SF_MUST_USE;
/* What is told of a folder where we may not read, or make anything; `fd` may be an O_PATH one. SF_DENIED, naming it, its owner, its
 * mode, and what to do. */
sf_status sf__private_folder_closed(int fd, const char *path, sf_error *err);
/* Of the folder itself and of what lies in it. */
bool sf__is_private(const struct stat *st);
/* Orders processes for a moment: flock() of the folder's descriptor, LOCK_SH, LOCK_EX or LOCK_UN. Nobody waits longer than such moments
 * take (50 ms); false then, and on a file system without locks: whoever locks must be able to do without. */
bool sf__private_folder_lock(int fd, int how);

#endif
