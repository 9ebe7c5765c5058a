/* An allocator for secrets: it overwrites what it gives back. It takes its memory from another one and is as thread-safe
 * as that; for parsers and buffers that handle keys and tokens and do not know it. */
#ifndef SF_BASE_WIPE_H
#define SF_BASE_WIPE_H

#include "base/alloc.h"

/* `base` is borrowed and has to outlive *out and everything taken from it. */
void sf__wiping_allocator(sf_allocator *out, const sf_allocator *base);

#endif
