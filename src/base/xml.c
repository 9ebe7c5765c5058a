#include "base/xml.h"

#include <stdarg.h>
#include <stdio.h>

#include <expat.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/wipe.h"

#define MAX_DEPTH 32u

void sf__xml_stop(sf_xml_reader *r, sf_status rc, const char *fmt, ...)
{
    va_list args;

    if (r->rc != SF_OK)
        return;
    r->rc = rc;
    va_start(args, fmt);
    vsnprintf(r->why, sizeof(r->why), fmt, args);
    va_end(args);
    XML_StopParser(r->parser, XML_FALSE);
}

static void on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
    sf_xml_reader *r = ctx;
    const char *colon = strchr(name, ':'), *local = colon ? colon + 1 : name;
    size_t n = strlen(local);

    if (++r->depth > MAX_DEPTH) {
        sf__xml_stop(r, SF_CORRUPT, "elements are nested too deep");
        return;
    }
    r->text.n = 0;
    if (r->named == r->depth - 1 && r->path_n + n + 2 <= sizeof(r->path)) {
        if (r->path_n > 0)
            r->path[r->path_n++] = '/';
        memcpy(r->path + r->path_n, local, n + 1);
        r->path_n += n;
        r->named++;
    }
}

static void on_stop(void *ctx, const XML_Char *name)
{
    sf_xml_reader *r = ctx;

    if (r->rc != SF_OK)
        return;
    if (r->named == r->depth) {
        sf__strbuf_putc(&r->text, '\0');
        if (r->text.failed)
            sf__xml_stop(r, SF_NOMEM, "XML text");
        else
            r->on_end(r, r->path, r->text.s);
        while (r->path_n > 0 && r->path[r->path_n - 1] != '/')
            r->path_n--;
        if (r->path_n > 0)
            r->path_n--;
        r->path[r->path_n] = '\0';
        r->named--;
    }
    r->depth--;
    r->text.n = 0;
}

static void on_text(void *ctx, const XML_Char *s, int n)
{
    sf_xml_reader *r = ctx;

    if (r->rc == SF_OK)
        sf__strbuf_add(&r->text, s, (size_t)n);
}

static void on_doctype(void *ctx, const XML_Char *name, const XML_Char *system_id, const XML_Char *public_id,
                       int has_internal)
{
    sf__xml_stop(ctx, SF_CORRUPT, "a document type is declared");
}

static sf_bytes skip_blanks(sf_bytes b)
{
    /* S3 keeps a connection alive with blanks while it works; in front of the declaration XML forbids them */
    while (b.n > 0 && (b.p[0] == ' ' || b.p[0] == '\t' || b.p[0] == '\r' || b.p[0] == '\n'))
        b = sf_bytes_of(b.p + 1, b.n - 1);
    return b;
}

/* expat's memory functions have no context, so its memory is the C library's; it holds secrets of the token service. */
static void *parser_alloc(size_t n)
{
    sf_allocator wiping;

    sf__wiping_allocator(&wiping, &sf__allocator_default);
    return sf__alloc(&wiping, n);
}

static void *parser_realloc(void *p, size_t n)
{
    sf_allocator wiping;

    sf__wiping_allocator(&wiping, &sf__allocator_default);
    return sf__realloc(&wiping, p, n);
}

static void parser_free(void *p)
{
    sf_allocator wiping;

    sf__wiping_allocator(&wiping, &sf__allocator_default);
    sf__free(&wiping, p);
}

sf_status sf__xml_read(sf_bytes body, void (*on_end)(sf_xml_reader *, const char *, const char *), void *ctx,
                       const sf_allocator *a, sf_error *err)
{
    static const XML_Memory_Handling_Suite memory = {parser_alloc, parser_realloc, parser_free};
    sf_xml_reader r = {.alloc = a, .on_end = on_end, .ctx = ctx};
    enum XML_Status status;

    body = skip_blanks(body);
    if (body.n == 0)
        return sf_fail(err, SF_CORRUPT, "XML expected, nothing came");
    if (body.n > SF_LIMIT_LIST_PAGE_BYTES)
        return sf_fail(err, SF_CORRUPT, "XML of %zu bytes", body.n);
    r.parser = XML_ParserCreate_MM(NULL, &memory, NULL);
    if (!r.parser)
        return sf_fail(err, SF_NOMEM, "XML parser");
    sf__strbuf_init(&r.text, a);
    XML_SetUserData(r.parser, &r);
    XML_SetElementHandler(r.parser, on_start, on_stop);
    XML_SetCharacterDataHandler(r.parser, on_text);
    XML_SetStartDoctypeDeclHandler(r.parser, on_doctype);
    status = XML_Parse(r.parser, (const char *)body.p, (int)body.n, 1);
    if (r.rc != SF_OK)
        sf_fail(err, r.rc, "XML: %s", r.why);
    else if (status != XML_STATUS_OK)
        r.rc = sf_fail(err, XML_GetErrorCode(r.parser) == XML_ERROR_NO_MEMORY ? SF_NOMEM : SF_CORRUPT,
                       "XML: %s in line %lu", XML_ErrorString(XML_GetErrorCode(r.parser)),
                       (unsigned long)XML_GetCurrentLineNumber(r.parser));
    sf__strbuf_cleanup(&r.text);
    XML_ParserFree(r.parser);
    return r.rc;
}

bool sf__xml_set_text(sf_xml_reader *r, char **to, const char *text)
{
    sf__free(r->alloc, *to);
    *to = sf__strdup(r->alloc, text);
    if (!*to)
        sf__xml_stop(r, SF_NOMEM, "XML text");
    return *to != NULL;
}

bool sf__xml_u64(const char *s, uint64_t *out)
{
    uint64_t v = 0;

    if (!*s)
        return false;
    for (; *s; s++)
        if (*s < '0' || *s > '9' || __builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return false;
    *out = v;
    return true;
}
