/* Local copies of shard.db in a folder that any number of processes may share. A copy's name is its lineage (where the
 * shard was published, but for the run, and its number), then its identity (URL, checkpoint, ETag):
 *
 *     0123456789abcdef-0123456789abcdef0123456789abcdef.db
 *
 * Whoever reads one holds a shared lock on it. Of a lineage the copy that was taken last stays, for the next start; others
 * go as soon as nobody reads them, and so do downloads that were killed. Blocking file I/O; any thread. */
#ifndef SF_BACKEND_SQLITE_COPIES_H
#define SF_BACKEND_SQLITE_COPIES_H

#include "base/alloc.h"
#include "base/error.h"

/* Makes the folder, for its owner alone, and those above it that are missing. SF_DENIED when somebody else owns it (the
 * superuser may) or may write to it: what lies there would be read as if it came from the snapshot. Those above need no look:
 * whatever they lead to, the folder itself is ours. */
sf_status sf__copies_folder(const char *path, const sf_allocator *a, sf_error *err) SF_MUST_USE;
/* `checkpoint` may be NULL. NULL without memory. */
char *sf__copy_name(const char *folder, const char *store_url, const char *key, int32_t db_id, const char *checkpoint,
                    const char *etag, const sf_allocator *a);
/* The copy of that name and size, if it is a file of ours, locked for as long as the descriptor is open; -1: there is none. */
int sf__copy_take(const char *file, uint64_t size);
/* A finished copy gets its name, and `fd`, its descriptor, the lock. */
sf_status sf__copy_keep(int fd, const char *temporary, const char *file, sf_error *err) SF_MUST_USE;
/* Removes what is left over beside this copy. What cannot be removed stays until the next time. */
void sf__copies_prune(const char *file);

#endif
