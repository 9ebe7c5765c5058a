/* Where the pages of a shard.db come from: the block cache, the sidecar and a copy on disk as far as the kernel has it in memory,
 * which is what a thread may do that must not wait; and reads of what those do not have, from the copy or by ranges of the object. */
#ifndef SF_BACKEND_SQLITE_PAGES_H
#define SF_BACKEND_SQLITE_PAGES_H

#include "backend/sqlite/sidecar.h"
#include "backend/sqlite/tree.h"
#include "base/pin.h"
#include "runtime/runtime.h"

/* What one read asks for at most; a larger page goes alone. */
#define SF_PAGE_RUN_BYTES (UINT64_C(1) << 20)

/* Set at open; then any thread may read it. */
typedef struct sf_page_source {
    sf_runtime *rt; /* borrowed, as all that follows */
    sf_block_cache *shard_cache;
    sf_store *store;
    const char *key;            /* of shard.db */
    const char *etag;           /* of the object that was opened */
    atomic_bool *unconditional; /* the store refuses conditions on GETs: then only sizes are compared */
    uint64_t bytes;             /* its size */
    uint32_t page_bytes;
    int copy;                        /* its copy on disk, by descriptor; or -1: read it by ranges */
    bool cached;                     /* pages may be kept */
    sf_hash128 identity;             /* in the cache */
    uint64_t charged;                /* to it, for pages that stay; loop thread */
    sf_sidecar sidecar;              /* owned; or zeroed */
    _Atomic(sf_block_table *) table; /* its pages in memory, once they have a size; NULL: none so far, or without a place */
} sf_page_source;

/* Once it is known which object it is. */
void sf__page_source_identify(sf_page_source *s);
void sf__page_source_cleanup(sf_page_source *s);

/* A page in memory, pinned for the calling thread (base/pin.h), or NULL: it is not there, has no place, or the thread no pin left. */
static inline sf_buf *sf__page_source_pin(const sf_page_source *s, uint32_t number)
{
    sf_block_table *t = atomic_load_explicit(&s->table, memory_order_acquire);
    sf_pins *mine = t && number - 1 < t->count ? sf__pins_of_thread() : NULL;
    sf_pin *pin = mine ? sf__pins_for_value(mine) : NULL;
    sf_buf *page = pin ? sf__block_table_find(t, number - 1, mine, pin) : NULL;

    if (page && page->n != s->page_bytes) {
        sf__owner_release(sf__owner_of_pin(pin));
        return NULL;
    }
    return page ? sf__owner_of_pin(pin) : NULL;
}

/* With a reference, or NULL: it is not in memory, or there is no memory. Never waits. `keep`: one that was not in the cache goes
 * there. */
sf_buf *sf__page_source_try(const sf_page_source *s, uint32_t number, bool keep) SF_MUST_USE;

/* Pages that stay do so no more; loop thread. */
void sf__page_source_let_go(sf_page_source *s);

/* The first pages, which were read together, go to the cache. */
void sf__page_source_keep(const sf_page_source *s, sf_bytes beginning);

/* How many there are, once they have a size. */
uint32_t sf__page_source_count(const sf_page_source *s);
/* What the cache counts for its sidecar and for pages that stay. */
static inline uint64_t sf__page_source_resident_bytes(const sf_page_source *s)
{
    return (s->sidecar.body ? s->sidecar.body->cap : 0) + s->charged;
}

/* Whether a page is one that stays in memory until clean-up. */
static inline bool sf__page_source_stays(const sf_page_source *s, uint32_t number)
{
    sf_block_table *t = atomic_load_explicit(&s->table, memory_order_acquire);

    return t && number - 1 < t->count && sf__block_table_keeps(t, number - 1);
}
/* From now on it is one. Loop thread. SF_EXHAUSTED: the cache may not have so much. */
sf_status sf__page_source_stay(sf_page_source *s, uint32_t number, sf_buf *page, sf_error *err) SF_MUST_USE;

static inline uint64_t sf__page_off(const sf_page_source *s, uint32_t number)
{
    return (uint64_t)(number - 1) * s->page_bytes;
}

/* Adjacent pages, read at once. Embedded by its owner; loop thread only, but for the results. */
typedef struct sf_page_run {
    const sf_page_source *source; /* borrowed until done */
    uint32_t first, count;
    bool keep;                           /* what was read goes to the cache, too, where the source has one */
    void (*done)(struct sf_page_run *r); /* exactly once, never inside start */
    void *ctx;
    const sf_error *error; /* none of them was read; NULL: all were */
    /* private */
    enum sf_page_run_state { SF_PAGE_RUN_IDLE, SF_PAGE_RUN_READING, SF_PAGE_RUN_DONE } state;
    sf_buf *one, **many; /* of more than one */
    union {
        sf_fetch fetch; /* of the object */
        sf_work work;   /* of the copy */
    } read;
} sf_page_run;

/* Not started. Until it is, it may be moved. False without memory: no clean-up then. */
bool sf__page_run_init(sf_page_run *r, const sf_page_source *source, uint32_t first, uint32_t count) SF_MUST_USE;
void sf__page_run_start(sf_page_run *r, uint64_t deadline_ns);
void sf__page_run_cancel(sf_page_run *r); /* harmless when it is not under way; else done() follows */
/* While it is under way: SF_TIMEOUT for one who has waited since then and waits no longer. */
void sf__page_run_overdue(const sf_page_run *r, uint64_t since_ns, sf_error *err);
void sf__page_run_cleanup(sf_page_run *r); /* not under way; takes a zeroed one */

/* Pages between two wanted ones that are read, too, when they are so few bytes: a request costs more. */
#define SF_PAGE_GAP_BYTES (32u << 10)
/* What is needed, in any order, becomes what is read: ascending, without overlaps, neighbours and what has at most `gap` pages between as
 * one, but never more than SF_PAGE_RUN_BYTES, or one need that is more. Returns how many there are now. Pure. */
size_t sf__page_needs_merge(sf_page_need *needs, size_t count, uint32_t page_bytes, uint64_t gap);

/* One of its pages, borrowed; NULL: it is none of them, or was not read. */
sf_buf *sf__page_run_page(const sf_page_run *r, uint32_t number);
static inline bool sf__page_run_has(const sf_page_run *r, uint32_t number)
{
    return number >= r->first && number - r->first < r->count;
}

/* The condition that a read of the object has, or NULL. */
const char *sf__page_source_condition(const sf_page_source *s);
/* After a failed read with that condition: whether it may be tried again, without it. */
bool sf__page_source_refuses_conditions(const sf_page_source *s, const char *condition, const sf_error *e);

/* What an answer to a read comes to that has ended with `e`: SF_OK; SF_CORRUPT when it is of another object than was opened, by
 * condition or by size; or its failure. */
sf_status sf__page_source_judge(const sf_page_source *s, const sf_error *e, uint64_t object_size, sf_error *err)
    SF_MUST_USE;

/* Names object and place in front of what is wrong with a page. */
sf_status sf__page_error_name(const sf_page_source *s, uint32_t number, sf_status rc, sf_error *err);

#endif
