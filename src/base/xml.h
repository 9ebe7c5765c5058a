/* One small XML document, element by element. Untrusted bytes in: document types are refused, so no entity ever expands,
 * depth and size are bounded. Pure; any thread. (expat has no context for an allocator: its own parser, one document long,
 * lives in the C library's memory, which is wiped, since some documents hold secrets.) */
#ifndef SF_BASE_XML_H
#define SF_BASE_XML_H

#include "base/strbuf.h"

/* "ListBucketResult/CommonPrefixes/Prefix" is a long path that means something; deeper or longer ones are followed by depth
 * alone. */
#define SF_XML_PATH_BYTES 96u

/* An element is told of when it ends: the local names on the way to it, and the text since the last tag. */
typedef struct sf_xml_reader {
    const sf_allocator *alloc;
    void (*on_end)(struct sf_xml_reader *r, const char *path, const char *text);
    void *ctx;
    /* private */
    void *parser;
    char path[SF_XML_PATH_BYTES];
    size_t path_n;
    unsigned depth, named; /* open elements; how many of them are in `path` */
    sf_strbuf text;        /* since the last tag */
    sf_status rc;          /* why it was stopped */
    char why[160];
} sf_xml_reader;

/* SF_CORRUPT: no XML; SF_NOMEM; or what it was stopped with. */
sf_status sf__xml_read(sf_bytes body, void (*on_end)(sf_xml_reader *r, const char *path, const char *text), void *ctx,
                       const sf_allocator *a, sf_error *err);

/* For on_end. Nothing more is told of after it; the first reason stays. */
void sf__xml_stop(sf_xml_reader *r, sf_status rc, const char *fmt, ...) SF_PRINTF(3, 4);
/* Keeps a copy in *to, in place of what was there; false, and stopped, without memory. */
bool sf__xml_set_text(sf_xml_reader *r, char **to, const char *text);
/* A number in decimal digits. False, and *out untouched, for anything else. */
bool sf__xml_u64(const char *text, uint64_t *out) SF_MUST_USE;

#endif
