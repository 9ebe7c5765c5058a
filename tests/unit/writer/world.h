/* What the tests of publishing share: a runtime with a heap that can fail, a prefix on a store that can fail, writers
 * over it, and what a reader sees there. */
#ifndef TESTS_WRITER_WORLD_H
#define TESTS_WRITER_WORLD_H

#include "../../support/heap.h"
#include "../net/on_loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "fault_store.h"
#include "snapshot/run_record.h"
#include "writer/maintenance.h"
#include "writer/pointer.h"
#include "writer/published.h"
#include "writer/site_open.h"
#include "writer/writer.h"

struct world {
    struct test_heap heap;
    sf_runtime *rt;
    sf_store *inner;
    fault_store *faults;
    char prefix[512], path[512];
    char folder[128]; /* on disk, for spilled runs */
    sf_error err;     /* of the last call below */
};

/* `url`: NULL for a new place in memory. What would lie in memory lies below SF_WRITER_PREFIX when that is set (a real S3
 * server). */
void world_init(struct world *w, const char *url);
extern const char *world_parent; /* of the folders that worlds make: /tmp, unless a test says otherwise */
/* How many allocations are left when all is over: none, if all is well. */
long world_cleanup(struct world *w);
/* For cmocka: a world of its own for each test, in a place of its own or at `url`; the end fails when memory is left. */
int world_set_up(void **state);
int world_set_up_at(void **state, const char *url);
int world_tear_down(void **state);
#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

void world_remove_folder(const char *path);
sf_cleanup_options world_cleanup_options(void); /* old runs, too, whatever their age */

void world_site(struct world *w, sf_site *out); /* closed by whoever takes it */
sf_writer_options world_options(void);          /* 4 shards, u64be, run "r1", no waiting */
/* NULL when it fails: w->err. */
sf_writer *world_writer(struct world *w, const sf_writer_options *o);

/* Rows [0, count) of `version`, in one of two orders. */
sf_status world_add_rows(struct world *w, sf_writer *writer, unsigned count, unsigned version, bool backwards);
/* One whole snapshot of `count` rows; must succeed. */
void world_publish(struct world *w, const char *run_id, unsigned count, unsigned version);
/* The same, as it comes. */
sf_status world_try_publish(struct world *w, const sf_writer_options *o, unsigned count, unsigned version);

/* A reader that opens now sees all `count` rows of `version` and no other. */
void world_expect_snapshot(struct world *w, unsigned count, unsigned version);
/* The pointer names a manifest of this run; NULL: there is no pointer. */
void world_expect_current(struct world *w, const char *run_id);
sf_snapshot_manifest *world_manifest(struct world *w); /* that the pointer names */

/* Keys below the prefix, sorted, one a line; those of `folder` only. Freed with free(). */
char *world_objects(struct world *w, const char *folder);
size_t world_object_count(struct world *w, const char *folder);
sf_buf *world_get(struct world *w, const char *name); /* NULL: absent */
void world_put(struct world *w, const char *name, sf_bytes body);
void world_delete(struct world *w, const char *folder);
/* The run record of a run that somebody else began. */
void world_put_record(struct world *w, const char *run_id, sf_run_status status, int64_t updated_us, int64_t lease_us,
                      const char *manifest_ref);
/* An upload of one part that nobody ever completes. */
void world_begin_upload(struct world *w, const char *name);
/* Names of all such objects below `folder`, sorted, one a line. Freed with free(). */
char *world_uploads(struct world *w, const char *folder);

#endif
