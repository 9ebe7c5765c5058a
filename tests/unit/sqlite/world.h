/* What the tests of SQLite shards share: a store that can fail, a folder of copies, blocking forms of opening, and rows to compare
 * with. */
#ifndef TESTS_UNIT_SQLITE_WORLD_H
#define TESTS_UNIT_SQLITE_WORLD_H

#include "../shard/support.h"
#include "golden.h"

#include "fault_store.h"

#include "backend/sqlite/shard.h"

#define PATH "db=00001"

struct world {
    struct env env;
    sf_store *inner;
    fault_store *faults;
    char folder[64];
    unsigned refs;       /* of the runtime, without a shard */
    sf_sqlite_mode mode; /* 0: as copies */
    bool uncached;
    sf_buf *record;        /* of the shard, or NULL */
    bool cancelled;        /* openings, when the first step has begun */
    sf_block_cache *cache; /* or NULL: the runtime's */
};

/* Every way to read a shard. */
struct way {
    const char *name;
    sf_sqlite_mode mode;
    bool sidecar, uncached;
};
#define WAY_COUNT 4u
extern const struct way ways[WAY_COUNT];

/* An opening under way. */
struct begun {
    sf_shard_open op;
    sf_error error;
    sf_sqlite_reading reading;
    bool cancelled;
    sf_task cancel;
    struct gate gate;
};

/* The rows of a database. */
struct table {
    sf_buf **keys, **values;
    size_t count;
};

void world_init(struct world *w);
void world_cleanup(struct world *w);
unsigned copies(struct world *w, char path[static 512]); /* files in the folder; *path is the last one's */
void open_begin_at(struct begun *b, struct world *w, const char *checkpoint, uint64_t deadline_ns);
void begun_cancel(void *arg);
sf_status open_at(struct world *w, const char *checkpoint, sf_shard **out, sf_error *err);
sf_shard *opened(struct world *w);
void put_db(struct world *w, sf_bytes db);
void put_sidecar(struct world *w, sf_bytes db);        /* of the shard.db that is there */
sf_status store_ask(sf_store *store, sf_store_op *op); /* blocking */
sf_buf *store_get(struct world *w);                    /* what shard.db is */
void table_read(struct table *t, sf_bytes db);         /* by SQLite itself */
void table_free(struct table *t);
sf_bytes key_at(const struct table *t, size_t i);
/* All rows backwards, each twice, and absent keys in between, as one operation. */
void check_look_ups(const char *name, sf_shard *s, const struct table *t);
void put_schema(struct world *w, const char *sql); /* a database made by these statements */
/* Closing ends on a worker, which removes copies that nobody reads. */
void expect_copies(struct world *w, unsigned n, char path[static 512]);
void expect_closed(struct world *w); /* all shards */
sf_shard *opened_at(struct world *w, const char *checkpoint);

#endif
