/* A source of manifests of the caller's, as a reader keeps it. Counted, because a question may outlive everything else: so
 * its memory is the process's, never the caller's allocator's. */
#ifndef SF_READER_MANIFEST_SOURCE_H
#define SF_READER_MANIFEST_SOURCE_H

#include <stdatomic.h>

#include "shardyfusion/reader.h"

typedef struct sf_foreign_manifests {
    sf_manifest_source source; /* complete, whatever the caller's header knew */
    atomic_uint refs;
} sf_foreign_manifests;

/* Retains the source. SF_INVALID when a function is missing. */
sf_status sf__foreign_manifests_new(sf_foreign_manifests **out, const sf_manifest_source *given, sf_error *err);
sf_foreign_manifests *sf__foreign_manifests_acquire(sf_foreign_manifests *f); /* any thread */
void sf__foreign_manifests_release(sf_foreign_manifests *f);                  /* takes NULL; any thread */

#endif
