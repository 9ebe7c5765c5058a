/* Local copies of shard.db in a folder that any number of processes may share. A copy's name is its lineage (where the
 * shard was published, but for the run, and its number), then its identity (URL, checkpoint, ETag):
 *
 *     0123456789abcdef-0123456789abcdef0123456789abcdef.db
 *
 * Whoever reads one holds a shared lock on it. Of a lineage the copy that was taken last stays, for the next start; others
 * go as soon as nobody reads them, and so do downloads that were killed. The folder is one of private_folder.h; `folder` is its
 * descriptor, `file` the copy with its path. Blocking file I/O; any thread. */
#ifndef SF_BACKEND_SQLITE_COPIES_H
#define SF_BACKEND_SQLITE_COPIES_H

#include "base/alloc.h"
#include "base/error.h"

/* `checkpoint` may be NULL. NULL without memory. */
char *sf__copy_name(const char *folder, const char *store_url, const char *key, int32_t db_id, const char *checkpoint,
                    const char *etag, const sf_allocator *a);
/* The copy of that name and size (record included), locked for as long as the descriptor is open. SF_NOT_FOUND: there is none.
 * SF_CORRUPT: what there is must not be read, for it is no file of ours, of another size or being removed. */
sf_status sf__copy_take(int folder, const char *file, uint64_t size, int *fd, sf_error *err) SF_MUST_USE;
/* A finished copy gets its name, and `fd`, its descriptor, the lock. Where a folder has that name it goes without one: it serves as
 * long as its descriptor is open, and the next who opens the shard downloads it again. */
sf_status sf__copy_keep(int folder, int fd, const char *temporary, const char *file, sf_error *err) SF_MUST_USE;
/* Removes what is left over beside this copy. What cannot be removed stays until the next time. `fd`: of the copy when it is
 * taken now, which makes it the last; or -1. */
void sf__copies_prune(int folder, const char *file, int fd);
/* The same for who has no descriptor of the folder any more. */
void sf__copies_prune_at(const char *file);

#endif
