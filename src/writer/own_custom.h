/* What a manifest says of the shards of our writers, for readers and for people: members of its `custom` object. Pure; any
 * thread. */
#ifndef SF_WRITER_OWN_CUSTOM_H
#define SF_WRITER_OWN_CUSTOM_H

#include "base/strbuf.h"
#include "shardyfusion/writer.h"

typedef struct sf_own_custom {
    sf_backend backend;
    const sf_sqlite_options *sqlite; /* of that backend */
    const sf_attempt *shards;        /* those that have a content_hash are named with it */
    size_t count;
} sf_own_custom;

/* JSON without the braces around it, so that it can follow members of the user's. */
void sf__own_custom_write(sf_strbuf *out, const sf_own_custom *c);

#endif
