/* INI files as the AWS tools write them. Untrusted text, no I/O, no memory. Pure; any thread. */
#ifndef SF_AUTH_INI_H
#define SF_AUTH_INI_H

#include "base/bytes.h"

/* One setting. `parent` is the setting that an indented one belongs to, and empty otherwise. Spans into the text, trimmed.
 * Lines that are none of these are skipped: other tools own the file. */
typedef struct sf_ini_item {
    sf_bytes section, parent, name, value;
} sf_ini_item;
void sf__ini_parse(sf_bytes text, void (*on_item)(void *ctx, const sf_ini_item *item), void *ctx);

#endif
