/* Time, injected: the engine reads the clock through one of these so that tests need not sleep. Any thread. */
#ifndef SF_BASE_CLOCK_H
#define SF_BASE_CLOCK_H

#include "shardyfusion/base.h"

#define SF_NO_DEADLINE UINT64_MAX

uint64_t sf__clock_mono_ns(void); /* monotonic */
int64_t sf__clock_unix_us(void);  /* wall clock, microseconds since 1970 */
int64_t sf__clock_files_us(void); /* the same as files get it, up to a tick behind: none that is touched later has an earlier time */

/* Absolute deadline `ms` from now, saturating; 0 or less gives a deadline that has passed. */
uint64_t sf__deadline_in_ms(int64_t ms);

#endif
