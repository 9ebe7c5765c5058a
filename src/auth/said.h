/* What a source of credentials said, for messages: on one line, cut, and without what may be a secret. Pure; any thread. */
#ifndef SF_AUTH_SAID_H
#define SF_AUTH_SAID_H

#include "base/bytes.h"

#define SF_SAID_BYTES 320u

/* Terminated; `cap` is at least 8. In place of "***" stood a word that looks like a key, or the value of something named so. Guesses, and on the
 * side of hiding: who knows the secrets that may be in a text looks for them besides. Empty for an empty text. */
void sf__said(char *out, size_t cap, sf_bytes text);
/* The last lines of it, so many as fit. */
void sf__said_last(char *out, size_t cap, sf_bytes text);

#endif
