#include "cache/kept.h"

#include "base/thread.h"

struct sf_kept {
    struct sf_kept *next, **link;
    sf_block_table *table;
    sf_hash128 name;
    const sf_allocator *alloc;
};

#define BUCKETS 256u

static sf_mutex lock = PTHREAD_MUTEX_INITIALIZER; /* covers: */
static struct sf_kept *offered[BUCKETS];
/* changed by forks only, when there are no other threads */
static struct sf_kept *inherited[BUCKETS];

static unsigned bucket_of(sf_hash128 name)
{
    return (unsigned)name.lo % BUCKETS;
}

/* ------------------------------------------------------------------ forks ---------------------------------------- */

/* The lock is taken over the fork: so no table that is offered is just being closed. What it keeps comes to its place when it is complete, so
 * the child finds it whole or not at all, whatever the parent's other threads are at. */
static void before_fork(void)
{
    sf_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
    sf_mutex_unlock(&lock);
}

static void after_fork_in_child(void)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        struct sf_kept **end = &offered[i];

        while (*end)
            end = &(*end)->next;
        *end = inherited[i];
        inherited[i] = offered[i];
        offered[i] = NULL;
    }
    sf_mutex_unlock(&lock);
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* ------------------------------------------------------------------ the parent's --------------------------------- */

void sf__kept_offer(sf_block_table *t, sf_hash128 name, const sf_allocator *a)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct sf_kept *k = a->realloc == sf__allocator_default.realloc && !t->kept ? sf__calloc(a, 1, sizeof(*k)) : NULL;

    if (!k)
        return;
    pthread_once(&once, watch_forks);
    k->table = t;
    k->name = name;
    k->alloc = a;
    t->kept = k;
    sf_mutex_lock(&lock);
    k->link = &offered[bucket_of(name)];
    k->next = *k->link;
    if (k->next)
        k->next->link = &k->next;
    *k->link = k;
    sf_mutex_unlock(&lock);
}

void sf__kept_withdraw(sf_block_table *t)
{
    struct sf_kept *k = t->kept;

    if (!k)
        return;
    sf_mutex_lock(&lock);
    *k->link = k->next;
    if (k->next)
        k->next->link = k->link;
    sf_mutex_unlock(&lock);
    t->kept = NULL;
    sf__free(k->alloc, k);
}

/* ------------------------------------------------------------------ the child's ---------------------------------- */

const sf_block_table *sf__kept_inherited(sf_hash128 name, uint32_t count)
{
    const struct sf_kept *k = inherited[bucket_of(name)];

    while (k && !(k->name.hi == name.hi && k->name.lo == name.lo && k->table->count == count))
        k = k->next;
    return k ? k->table : NULL;
}
