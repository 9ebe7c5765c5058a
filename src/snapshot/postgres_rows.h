/* Manifests as rows of a PostgreSQL database (docs/formats/snapshot.md 15): the statements, and what their
 * results mean. Who sends them is somebody else's business. Pure; any thread. */
#ifndef SF_SNAPSHOT_POSTGRES_ROWS_H
#define SF_SNAPSHOT_POSTGRES_ROWS_H

#include "base/buf.h"
#include "base/strbuf.h"

/* Identifiers end at 63 bytes, and what is longer is cut without an error: two tables would become one. */
#define SF_POSTGRES_NAME_BYTES 63u

typedef struct sf_postgres_tables {
    char builds[2 * SF_POSTGRES_NAME_BYTES + 2], shards[2 * SF_POSTGRES_NAME_BYTES + 2];
    char pointer[2 * SF_POSTGRES_NAME_BYTES + 2], pointer_index[SF_POSTGRES_NAME_BYTES + 1];
} sf_postgres_tables;

/* Names are words of ASCII letters, digits and _, perhaps behind a schema's name and a dot; they go into
 * statements as they are. SF_INVALID for others. */
sf_status sf__postgres_tables_init(sf_postgres_tables *t, const char *table_name, const char *pointer_table_name,
                                   sf_error *err);

typedef enum sf_postgres_statement {
    SF_POSTGRES_TABLES_EXIST, /* -> boolean */
    SF_POSTGRES_CREATE,       /* several statements; inside of a transaction */
    SF_POSTGRES_CURRENT,      /* -> reference, microseconds; no row: nothing was published */
    SF_POSTGRES_MANIFEST,     /* reference -> a text for sf__postgres_manifest_encode() */
    SF_POSTGRES_LIST,         /* limit -> reference, microseconds; newest first */
    SF_POSTGRES_LOCK,         /* one publisher at a time from here to the transaction's end; readers do not wait */
    SF_POSTGRES_PUT_BUILD,    /* run id, microseconds, num_dbs, s3_prefix, key_col, db_path_template,
                               * shard_prefix, key_encoding,   sharding, custom */
    SF_POSTGRES_DROP_SHARDS,  /* run id */
    SF_POSTGRES_PUT_SHARDS,   /* run id, an array of the shards as JSON */
    SF_POSTGRES_DROP_BUILD,   /* run id; its shards are dropped before it */
    SF_POSTGRES_POINT,        /* reference -> reference; no row: there is no such build */
    SF_POSTGRES_POINTED,      /* reference, microseconds -> a row when the pointer has named that build of that
                                 time */
    SF_POSTGRES_STATEMENT_COUNT
} sf_postgres_statement;

/* The texts' parameters are $1, $2, ..., each used once and in this order. Every result is text or NULL. */
void sf__postgres_statement_write(sf_strbuf *out, sf_postgres_statement which, const sf_postgres_tables *t);
const char *sf__postgres_statement_name(sf_postgres_statement which); /* in lower case */

/* The manifest in the published format, of what SF_POSTGRES_MANIFEST has answered. Not parsed: whoever reads
 * it finds out what is wrong with it. SF_BAD_MANIFEST when it has no such form at all. Runs SQLite: not for
 * the loop thread. */
sf_status sf__postgres_manifest_encode(sf_buf **out, sf_bytes row, const sf_allocator *a, sf_error *err);

/* What a failure means, by its SQLSTATE, "" when it has none, and its text; *again: another attempt over another connection may
 * succeed. Never SF_OK. */
sf_status sf__postgres_status(const char *sqlstate, const char *text, bool *again);
/* Drivers quote what they cannot make sense of in a connection string, which may be a part of a password: then the text must not
 * be shown. */
bool sf__postgres_may_tell_password(const char *sqlstate, const char *text);

/* A member of `custom` that our publisher adds: how many rows of shards belong to the build. A shard without
 * a row is an empty one, so a lost row would make its keys vanish. */
#define SF_POSTGRES_SHARD_ROWS "shard_rows"

#endif
