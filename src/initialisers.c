/* The initialisers of option structs as functions, for callers that cannot use the macros: C++ before 20, and languages that
 * bind the library by its symbols. */
#include <string.h>

#include "shardyfusion/postgres.h"
#include "shardyfusion/reader.h"
#include "shardyfusion/runtime.h"
#include "shardyfusion/store.h"
#include "shardyfusion/writer.h"

/* The caller's struct may be an older one, which ends sooner, or a newer one, whose tail nobody here knows. */
static void fill(void *options, size_t size, const void *defaults, size_t known)
{
    memset(options, 0, size);
    memcpy(options, defaults, size < known ? size : known);
    if (size >= sizeof(size))
        memcpy(options, &size, sizeof(size));
}

#define INITIALISER(type, macro)                          \
    void type##_init(type *options, size_t size)          \
    {                                                     \
        const type defaults = macro;                      \
                                                          \
        fill(options, size, &defaults, sizeof(defaults)); \
    }

INITIALISER(sf_runtime_options, SF_RUNTIME_OPTIONS_INIT)
INITIALISER(sf_s3_options, SF_S3_OPTIONS_INIT)
INITIALISER(sf_put_options, SF_PUT_OPTIONS_INIT)
INITIALISER(sf_reader_options, SF_READER_OPTIONS_INIT)
INITIALISER(sf_scan_options, SF_SCAN_OPTIONS_INIT)
INITIALISER(sf_verify_options, SF_VERIFY_OPTIONS_INIT)
INITIALISER(sf_verification_options, SF_VERIFICATION_OPTIONS_INIT)
INITIALISER(sf_slatedb_options, SF_SLATEDB_OPTIONS_INIT)
INITIALISER(sf_sqlite_options, SF_SQLITE_OPTIONS_INIT)
INITIALISER(sf_cel_sharding, SF_CEL_SHARDING_INIT)
INITIALISER(sf_writer_options, SF_WRITER_OPTIONS_INIT)
INITIALISER(sf_shard_builder_options, SF_SHARD_BUILDER_OPTIONS_INIT)
INITIALISER(sf_site_options, SF_SITE_OPTIONS_INIT)
INITIALISER(sf_rollback_options, SF_ROLLBACK_OPTIONS_INIT)
INITIALISER(sf_cleanup_options, SF_CLEANUP_OPTIONS_INIT)
INITIALISER(sf_postgres_options, SF_POSTGRES_OPTIONS_INIT)
