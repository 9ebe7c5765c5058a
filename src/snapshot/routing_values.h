/* The values that the shards of a categorical snapshot stand for (docs/formats/snapshot.md 7.1): all integers
 * or all texts, each once, numbered from 0 in the order of adding. One thread adds; when it is done any
 * thread may look for one. */
#ifndef SF_SNAPSHOT_ROUTING_VALUES_H
#define SF_SNAPSHOT_ROUTING_VALUES_H

#include "base/arena.h"
#include "base/error.h"
#include "base/strbuf.h"
#include "snapshot/cel/value.h"

struct sf_routing_token;

typedef struct sf_routing_values {
    const sf_allocator *alloc;
    sf_arena texts;
    bool integers;                   /* what they are, once there is one; else texts */
    struct sf_routing_token *tokens; /* by number */
    uint32_t count, cap;
    uint32_t *slots; /* number + 1, or 0, by hash: a power of two of them */
    uint32_t slot_count;
    uint64_t seed; /* of the hash: whoever writes a manifest cannot choose values that collide */
} sf_routing_values;

void sf__routing_values_init(sf_routing_values *v, const sf_allocator *a);
void sf__routing_values_cleanup(sf_routing_values *v); /* takes a zeroed one */

/* What an expression gave: its number, if it is one of the values. An integer of either kind finds the other.
 */
bool sf__routing_values_find(const sf_routing_values *v, const sf_cel_value *token, uint32_t *number) SF_MUST_USE;
/* The same; a value that is not there yet is copied. SF_INVALID: of another kind than those before, bytes
 * (which manifests cannot hold), or one more than a snapshot may have shards. SF_NOMEM. */
sf_status sf__routing_values_add(sf_routing_values *v, const sf_cel_value *token, uint32_t *number, sf_error *err)
    SF_MUST_USE;
/* An integer of a manifest that no expression can give, since it has more than 64 bits: it only takes a
 * number. False without memory. */
bool sf__routing_values_add_beyond(sf_routing_values *v) SF_MUST_USE;

/* Renumbers: integers by size, texts by code point. places[n] (`count` of them) is the new number of what was
 * n. */
void sf__routing_values_sort(sf_routing_values *v, uint32_t *places);
/* Appends a JSON array. None of the values was added as "beyond". */
void sf__routing_values_write(sf_strbuf *out, const sf_routing_values *v);

#endif
