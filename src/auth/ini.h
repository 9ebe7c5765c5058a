/* INI files as the AWS tools write them and botocore reads them. Untrusted text, no I/O, no memory. Pure; any thread. */
#ifndef SF_AUTH_INI_H
#define SF_AUTH_INI_H

#include "base/bytes.h"

/* One setting. `parent` is the setting that an indented one belongs to, and empty otherwise. Spans into the text, trimmed.
 * A line that is no setting has a `fault`, no name, and itself as value; its section is empty when it has none, or when it
 * hides where the next one begins. Whoever reads one section passes over those of the others: other tools own the file. */
typedef struct sf_ini_item {
    sf_bytes section, parent, name, value;
    size_t line;       /* from 1 */
    const char *fault; /* static text, or NULL */
} sf_ini_item;
void sf__ini_parse(sf_bytes text, void (*on_item)(void *ctx, const sf_ini_item *item), void *ctx);

#endif
