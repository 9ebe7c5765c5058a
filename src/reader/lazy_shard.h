/* A shard that is opened when it is first read: one opening for all that wait for it. When that fails, those who wait fail,
 * and the next one to read tries again. */
#ifndef SF_READER_LAZY_SHARD_H
#define SF_READER_LAZY_SHARD_H

#include "reader/shard_open.h"

/* Nothing is read. `site` is copied. */
sf_status sf__lazy_shard_new(sf_shard **out, sf_source *source, const sf_shard_site *site, sf_error *err) SF_MUST_USE;

#endif
