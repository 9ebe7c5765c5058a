/* Manifests in a PostgreSQL database (docs/formats/snapshot.md 15), instead of objects below a prefix. Needs libpq.so.5 on the
 * machine: it is loaded when the first sf_postgres is made, so whoever makes none needs none. Any thread may call anything. */
#ifndef SHARDYFUSION_POSTGRES_H
#define SHARDYFUSION_POSTGRES_H

#include "shardyfusion/manifest_store.h"
#include "shardyfusion/reader.h"
#include "shardyfusion/writer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sf_postgres sf_postgres;

typedef struct sf_postgres_options {
    size_t size;            /* filled by the initialiser; fields are only ever appended */
    const char *table_name; /* the tables are TABLE_NAME_builds and TABLE_NAME_shards */
    const char
        *pointer_table_name; /* both: words of ASCII letters, digits and _, perhaps behind a schema's name and a dot */
    int64_t timeout_ms;      /* of one question with its connection and repetitions */
} sf_postgres_options;
#define SF_POSTGRES_OPTIONS_INIT                                                                                       \
    {                                                                                                                  \
        .size = sizeof(sf_postgres_options), .table_name = "shardyfusion_manifests",                                   \
        .pointer_table_name = "shardyfusion_pointer", .timeout_ms = 30000                                              \
    }
SF_API void sf_postgres_options_init(sf_postgres_options *options, size_t size);

/* `conninfo`: a URL (postgresql://...) or "host=... dbname=...", as libpq takes them; what it leaves out comes from libpq's own
 * variables and files. Nothing is connected to. `opts` may be NULL. SF_UNSUPPORTED without libpq, SF_INVALID for a text that libpq
 * does not take; no message ever has a password. On success *out is released with sf_postgres_release(). */
SF_API sf_status sf_postgres_open(sf_postgres **out, const char *conninfo, const sf_postgres_options *opts,
                                  sf_error *err);
/* Drops one reference; questions that are open and copies of the source have theirs. Takes NULL. */
SF_API void sf_postgres_release(sf_postgres *p);
/* Host and database, for people: "postgresql://db.example:5432/snapshots". Borrowed. */
SF_API const char *sf_postgres_name(const sf_postgres *p);

/* For sf_reader_options.manifests. A manifest's reference is its run id. Each question has a connection and a thread of its own,
 * which ends within `timeout_ms`, and costs one round trip beyond connecting; a server that hangs holds no reader longer than
 * its own deadline. More than 16 questions that nobody answers: SF_EXHAUSTED. */
SF_API sf_manifest_source sf_postgres_manifest_source(sf_postgres *p);

/* For sf_writer_options.manifests and sf_cleanup_options.manifests: publishing and deleting are a transaction each, in which no
 * other publisher moves the pointer; the reference is the run id. Every function takes `timeout_ms` at most, beside the resolver.
 * A publishing whose answer is lost is asked for, and repeated when it did not happen. */
SF_API sf_manifest_store sf_postgres_manifest_store(sf_postgres *p);

/* Creates the tables where they are not there yet, as the existing package does. The calling thread waits. */
SF_API sf_status sf_postgres_create_tables(sf_postgres *p, sf_error *err);

/* The newest `limit` manifests, newest first. The calling thread waits. *entries is released with sf_postgres_entries_free(). */
SF_API sf_status sf_postgres_list(sf_postgres *p, size_t limit, sf_history_entry **entries, size_t *count,
                                  sf_error *err);
SF_API void sf_postgres_entries_free(sf_history_entry *entries, size_t count); /* takes NULL */

/* Makes the pointer name `ref`, unless it does not name what is expected (SF_CONFLICT) or there is no such manifest
 * (SF_NOT_FOUND). The calling thread waits. */
SF_API sf_status sf_postgres_set_current(sf_postgres *p, const char *ref, sf_expected_current expected,
                                         const char *expected_ref, sf_error *err);

#ifdef __cplusplus
}
#endif
#endif
