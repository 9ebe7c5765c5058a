/* Which process a run record belongs to, told by the 32 hex digits that end the name of its folder: of this machine (and
 * boot, and container), of a process, of its start; the last six are random. So a run whose writer was killed can go on
 * at once on the same machine, although its lease lasts. Any thread. */
#ifndef SF_WRITER_OWNER_H
#define SF_WRITER_OWNER_H

#include "snapshot/names.h"

/* This process; where the system does not tell, all digits are random. False without random bytes. */
bool sf__owner_hex(char out[SF_HEX128_TEXT]) SF_MUST_USE;
/* A process of this machine that has ended. False for everything else: other machines, digits of other writers. */
bool sf__owner_is_gone(const char *hex);

#endif
