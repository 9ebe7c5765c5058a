/* Rollback and clean-up on a site that is open already: what the public functions do once they have one, and what tests
 * call over stores of their own. Block; not on the loop thread. */
#ifndef SF_WRITER_MAINTENANCE_H
#define SF_WRITER_MAINTENANCE_H

#include "shardyfusion/writer.h"
#include "site/objects.h"

sf_status sf__rollback_on(const sf_site *s, const char *ref, const sf_rollback_options *opts, sf_error *err) SF_MUST_USE;
sf_status sf__cleanup_on(sf_cleanup_report **out, const sf_site *s, const sf_cleanup_options *opts, sf_error *err)
    SF_MUST_USE;

#endif
