/* The site of who publishes or cleans up: a prefix whose stores are open, and the URLs of its objects. Opening blocks. */
#ifndef SF_WRITER_SITE_OPEN_H
#define SF_WRITER_SITE_OPEN_H

#include "shardyfusion/writer.h"
#include "site/objects.h"

/* `opts` may be NULL. On success *out is cleaned up with sf__site_cleanup(). */
sf_status sf__site_open(sf_site *out, sf_runtime *rt, const char *prefix, const sf_site_options *opts, sf_error *err)
    SF_MUST_USE;

/* The URL of a name below the prefix, freed with sf__free(). NULL without memory. */
char *sf__site_url(const sf_site *s, const char *name) SF_MUST_USE;
/* The other way round: the name, freed with sf__free(); NULL when the URL lies elsewhere. */
sf_status sf__site_name_of(const sf_site *s, const char *url, char **out, sf_error *err) SF_MUST_USE;

#endif
