/* What the command works with, once options, environment and files have had their say. One thread. */
#ifndef SHARDY_SETTINGS_H
#define SHARDY_SETTINGS_H

#include "command.h"
#include "out.h"
#include "shardyfusion/reader.h"

enum sqlite_mode { SQLITE_DOWNLOAD, SQLITE_RANGE, SQLITE_AUTO }; /* as --sqlite-mode's choices */

struct env_variable {
    char *name, *value;
};

struct settings {
    char *current_url; /* NULL: none was given */
    char *dsn;         /* of PostgreSQL, where pointer and manifests are then; NULL: below a prefix */
    char *table_name, *pointer_table_name; /* its tables; NULL: those of the library */
    bool keep_tables;                      /* those that are not there are not made */
    char *s3_prefix;                       /* of reader.toml; NULL: none */
    char *local_root;                      /* where copies of SQLite shards lie */
    char *null_repr;
    char *env_file;                                 /* slate_env_file; NULL: none */
    char *config_path, *credentials_path, *profile; /* what was read; NULL: nothing */
    bool has_format, has_encoding;
    enum out_format format;
    enum out_encoding encoding;
    enum sqlite_mode sqlite_mode;
    uint64_t sqlite_shard_bytes, sqlite_total_bytes;
    int64_t timeout_ms;
    uint64_t colour;
    bool quiet;             /* no warnings */
    sf_s3_options s3;       /* its texts are in `owned` */
    sf_s3_options shard_s3; /* of shards: as s3, with what slate_env_file says */
    char *owned[32];
    size_t owned_count;
    struct env_variable *variables; /* of env_file, which shard_s3 borrows */
    size_t variable_count;
};

/* False with a message on standard error. Release with settings_free() in any case. */
bool settings_load(struct settings *s, const struct args *a);
void settings_free(struct settings *s);

#endif
