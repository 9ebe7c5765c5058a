/* A published snapshot in memory, with three runs to point at, for the tests of readers. */
#ifndef TESTS_UNIT_READER_WORLD_H
#define TESTS_UNIT_READER_WORLD_H

#include "../net/on_loop.h"

#include "base/bytes.h"
#include "shardyfusion/reader.h"

#define PREFIX "mem://reader-test/copy"
#define KEYS 400 /* of which each run has 120 */

struct world {
    sf_runtime *rt;
    sf_bucket *bucket; /* of PREFIX; the objects of the snapshot lie below copy/ */
};

/* The pointer names the newest run. `o`: NULL for the defaults. */
void world_open(struct world *w, const sf_runtime_options *o);
void world_close(struct world *w);
/* The same for cmocka. */
int world_set_up(void **state);
int world_tear_down(void **state);

void world_put_object(struct world *w, const char *key, sf_bytes body);
/* All files below a folder, as objects below `key`. */
void world_put_folder(struct world *w, const char *path, const char *key);
void world_delete_object(struct world *w, const char *key);
/* The name of the manifest of run `n`, below the snapshot's prefix. */
void world_manifest_name(unsigned n, char out[static 256]);
void world_point_at(struct world *w, const char *ref);
void world_point_at_run(struct world *w, unsigned n);

sf_reader *world_open_reader(struct world *w);
/* Of the run it serves, such as "run-002"; valid until the next call. */
char *world_run_id(sf_reader *r);

#endif
