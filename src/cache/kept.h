/* Blocks that stay in memory, across fork(): what a process kept (sf__block_cache_keep()) when it forked, its children find again by the
 * name of the object, and keep where it lies (sf__block_cache_inherit()). So the memory is everybody's as long as nobody writes to it, and
 * look-ups write nothing to what they find (base/pin.h). A child frees, moves and releases nothing of what it has inherited; it is there
 * until the child ends, as all that its parent had. Any thread. */
#ifndef SF_CACHE_KEPT_H
#define SF_CACHE_KEPT_H

#include "base/checksum.h"
#include "cache/block_table.h"

/* From now on, until it is closed or lets go, children find what the table keeps. `name` must tell the object from all others for good, whatever store
 * and process: the names of the block cache do not. `a` = where its blocks
 * are allocated. Not offered is, and harms nobody, what lies in memory of a caller's allocator, which may not outlive a fork, and what there
 * is no memory for. */
void sf__kept_offer(sf_block_table *t, sf_hash128 name, const sf_allocator *a);
void sf__kept_withdraw(sf_block_table *t); /* harmless when it was not offered */

/* The parent's table of that name, of as many blocks, as it was at the fork: to read, as long as this process lives. NULL: there is none. */
const sf_block_table *sf__kept_inherited(sf_hash128 name, uint32_t count);

#endif
