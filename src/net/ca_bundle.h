/* Which certificate authorities TLS trusts when nobody says so. libcurl knows one place, that of the machine where it was built; a wheel runs on others.
 * Looks at files: not for the loop thread. */
#ifndef SF_NET_CA_BUNDLE_H
#define SF_NET_CA_BUNDLE_H

#include <stdbool.h>

/* Where distributions keep theirs, ended by NULL. */
extern const char *const sf__ca_bundle_places[];

/* The first of `places` that can be read; NULL: none. */
const char *sf__ca_bundle_among(const char *const *places);
/* False: there are none, neither where libcurl looks nor elsewhere, so that no certificate will be trusted. Else *out is the file to give to libcurl, NULL where it
 * finds its own. */
bool sf__ca_bundle_of_system(const char **out);
/* A file that is as good as the system's where that has none: for who brings one along, once, before anything is opened. Copied, cut to nothing when it
 * is too long. */
void sf__ca_bundle_bring(const char *path);

#endif
