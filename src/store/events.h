/* The store's side of sf_store_events (shardyfusion/store.h). */
#ifndef SF_STORE_EVENTS_H
#define SF_STORE_EVENTS_H

#include "shardyfusion/store.h"
#include "store/store.h"

/* Never fails, never allocates. `events` may be NULL. Any thread; usually the loop's. */
void sf__store_events_note(sf_store_events *events, sf_store_event_kind kind, sf_store_verb verb, uint32_t attempts,
                           int64_t delay_ms);

/* Whether operations that end are noted: then note_request() is worth its arguments. `events` may be NULL. */
bool sf__store_events_want_requests(const sf_store_events *events);
void sf__store_events_note_request(sf_store_events *events, sf_store_verb verb, const sf_store_request *request);

/* Whether either take() would find any. */
bool sf__store_events_any(const sf_store_events *events);

#endif
