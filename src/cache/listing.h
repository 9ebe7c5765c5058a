/* Listings of stores within the fetcher's bound on requests in flight. Loop thread only. */
#ifndef SF_CACHE_LISTING_H
#define SF_CACHE_LISTING_H

#include "cache/fetcher.h"

/* With the completion rules of sf__store_list_all(). `done` and
 * `ctx` of the listing are borrowed until done. Cancel with this call, not with sf__store_list_cancel(). */
void sf__fetcher_list(sf_fetcher *f, sf_store_listing *l);
void sf__fetcher_list_cancel(sf_fetcher *f, sf_store_listing *l);

#endif
