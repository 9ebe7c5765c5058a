/* SQLite over files from untrusted sources: nothing that a schema may smuggle in runs, and nothing grows beyond the file.
 * For every connection that reads one. */
#ifndef SF_BASE_SQLITE_HARDEN_H
#define SF_BASE_SQLITE_HARDEN_H

#include <stdint.h>

struct sqlite3;

/* Right after opening, before anything is read. Returns SQLite's code. */
int sf__sqlite_harden(struct sqlite3 *db, uint64_t file_bytes);

#endif
