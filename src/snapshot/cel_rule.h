/* A rule for routing by CEL: the expression of a manifest with its columns and, perhaps, the values that its
 * shards stand for (docs/formats/snapshot.md 7.1). Immutable; any thread may route by it. */
#ifndef SF_SNAPSHOT_CEL_RULE_H
#define SF_SNAPSHOT_CEL_RULE_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "snapshot/cel/value.h"

typedef struct sf_cel_rule sf_cel_rule;

/* `sharding`: the text of a manifest's `sharding` column, checked. SF_INVALID when the expression does not
 * compile, SF_NOMEM. */
sf_status sf__cel_rule_new(sf_cel_rule **out, sf_bytes sharding, uint32_t num_dbs, const sf_allocator *a, sf_error *err);
void sf__cel_rule_free(sf_cel_rule *rule); /* takes NULL */

/* The one column is the key itself: keys need no context. */
bool sf__cel_rule_is_by_key(const sf_cel_rule *rule);
/* The rule's own copy of a column's name, by which the column is found sooner; `name` when it has no such column. */
const char *sf__cel_rule_column(const sf_cel_rule *rule, const char *name);
/* What the expression gives for a key and its context: an integer, text or bytes, which borrows from `m`, the key and the context.
 * Fails as sf__router_route() does. */
sf_status sf__cel_rule_token(const sf_cel_rule *rule, const sf_key *key, sf_cel_memory *m, sf_cel_value *out,
                             sf_error *err);
/* The shard that such a result names. As sf__router_route(), which is the two together. */
sf_status sf__cel_rule_shard(const sf_cel_rule *rule, const sf_cel_value *token, uint32_t *db_id, sf_error *err);
sf_status sf__cel_rule_route(const sf_cel_rule *rule, const sf_key *key, uint32_t *db_id, sf_error *err);

#endif
