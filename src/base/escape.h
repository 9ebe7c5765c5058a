/* Text of strangers in messages: what moves a terminal's cursor, hides, turns around or forges lines shows as what it is.
 * Pure; any thread. The public form is sf_text_escape(). */
#ifndef SF_BASE_ESCAPE_H
#define SF_BASE_ESCAPE_H

#include "shardyfusion/base.h"

/* The same in place, in a buffer of `size` bytes; what does not fit any more is cut off. What is escaped already stays as it
 * is, so a message that becomes a part of another is escaped once. A buffer that is full may end within a character, which
 * is then left out. */
void sf__escape(char *text, size_t size);

#endif
