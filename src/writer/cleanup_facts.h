/* What lies below a prefix, as clean-up sees it: the pointer, the manifests, the runs with their records and shards; and
 * which of it must stay. Gathered once; immutable after. One thread. */
#ifndef SF_WRITER_CLEANUP_FACTS_H
#define SF_WRITER_CLEANUP_FACTS_H

#include "base/arena.h"
#include "writer/pointer.h"
#include "writer/published.h"

/* One manifest of the history. */
typedef struct sf_manifest_fact {
    const char *ref, *folder; /* folder: "manifests/NAME/", below the prefix; NULL: it is a caller's store's */
    const char *run_id;       /* of the name */
    int64_t published_at_us;
    bool is_current;
    bool given_up;
} sf_manifest_fact;

/* One run, whatever shows that it was there. */
typedef struct sf_run_fact {
    const char *run_id;
    const char *const *records; /* folders of its run records, with slash */
    size_t record_count;
    bool has_shards;        /* a folder below the shard prefix, or an upload that may become one */
    bool has_unread_record; /* one of them says nothing we understand */
    bool is_live;           /* a record is running and its lease is not over */
    bool announced;         /* a record says that the snapshot was visible */
    const char *elsewhere; /* a record names this manifest, which is none of the prefix's, or of the caller's store: unless
                            * it lists it all the same */
    const char *claimed;  /* a record says that the caller's store has published this, and its list does not show it */
    bool is_named;        /* by a manifest that stays: in its name, or as the place of a shard */
    bool is_opaque;       /* named by a manifest that cannot be read here: what it uses is not known */
    bool lost_manifest;   /* a manifest of it is given up */
    int64_t last_sign_us; /* of life: the newest time in its records, manifests and uploads; 0: none */
} sf_run_fact;

typedef struct sf_cleanup_facts {
    sf_arena arena;
    sf_pointer pointer;
    sf_manifest_fact *manifests; /* newest first */
    size_t manifest_count;
    sf_run_fact *runs; /* by run id */
    size_t run_count, run_cap;
    const char **kept_folders; /* of shards that a kept manifest names, with slash, sorted */
    size_t kept_count, kept_cap;
    sf_site_uploads uploads; /* below the shard prefix, that nobody has finished; of files below the whole prefix */
    sf_error uploads_error;  /* why they could not be listed, or not all; SF_OK otherwise */
} sf_cleanup_facts;

/* *now_us: the time of day as the store has it, which ages are told by. SF_BAD_MANIFEST when the pointer or what it names cannot be understood,
 * SF_INVALID when a caller's store is not this prefix's: then nothing is safe to delete. */
sf_status sf__cleanup_gather(sf_cleanup_facts *out, const sf_site *s, const sf_cleanup_options *opts, int64_t *now_us,
                             sf_error *err) SF_MUST_USE;
void sf__cleanup_facts_free(sf_cleanup_facts *f, const sf_site *s);

sf_run_fact *sf__cleanup_find_run(const sf_cleanup_facts *f, const char *run_id); /* NULL: unknown */
/* Whether a kept shard lies in `folder` (with slash), or is it. */
bool sf__cleanup_holds_kept(const sf_cleanup_facts *f, const char *folder);

#endif
