/* Files of environment variables: NAME=VALUE lines. One thread. */
#ifndef SHARDY_DOTENV_H
#define SHARDY_DOTENV_H

#include "text.h"

/* The next variable at *p, which moves behind it; false at the end. Lines that are none are skipped. Comments, `export`, quotes with escapes
 * in double ones, values over several lines in quotes; nothing is substituted. The texts are overwritten. */
bool dotenv_next(const char **p, struct text *name, struct text *value);

#endif
