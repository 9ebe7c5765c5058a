/* Names that a writer makes up or is given: run ids, folders, the path of a shard. What is refused here would publish a
 * snapshot that cannot be listed, or write outside its own folders. Pure; any thread. */
#ifndef SF_SNAPSHOT_NAMES_H
#define SF_SNAPSHOT_NAMES_H

#include "base/alloc.h"
#include "base/bytes.h"

/* Long names make long object keys; S3 ends at 1024 bytes. */
#define SF_RUN_ID_MAX 255u

/* Not empty, no '/', no control character, not "." or "..", UTF-8, at most SF_RUN_ID_MAX bytes. SF_INVALID. */
sf_status sf__run_id_check(const char *run_id, sf_error *err);

/* One path segment of [A-Za-z0-9._-] without "..", as `output.shard_prefix` and `output.run_registry_prefix` must be.
 * `name` is for the message. SF_INVALID. */
sf_status sf__prefix_segment_check(const char *name, const char *segment, sf_error *err);

/* "db={db_id:05d}" with a number. Literal text, "{{", "}}", "{db_id}" and "{db_id:[0][width][d]}"; everything else, and
 * a result that is no clean relative path, is SF_INVALID. On success *out is freed with sf__free(). */
sf_status sf__db_path_format(char **out, const char *path_template, uint32_t db_id, const sf_allocator *a, sf_error *err);
/* The template works, and gives every shard a path of its own. */
sf_status sf__db_path_check(const char *path_template, uint32_t num_dbs, const sf_allocator *a, sf_error *err);

/* 16 bytes in hexadecimal digits: run ids, checkpoint ids, run records. */
#define SF_HEX128_TEXT 33
/* A random UUID (version 4) in that form. False when the system has no random bytes. */
bool sf__uuid_hex(char out[SF_HEX128_TEXT]) SF_MUST_USE;

#endif
