/* JSON: every value's source text parses on its own to the same value, and strings survive writing and reading. */
#include <stdlib.h>

#include "base/json.h"
#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const sf_allocator *const heap = &sf__allocator_default;
static unsigned looked_at; /* values of one input: each is parsed again, which is quadratic in the depth */

static void expect(bool ok)
{
    if (!ok)
        abort();
}

static void expect_written(sf_bytes text)
{
    sf_strbuf out;
    sf_json_doc doc;

    sf__strbuf_init(&out, heap);
    expect(sf_utf8_is_valid(text) && sf__json_write_str(&out, text));
    expect(sf__json_parse(&doc, sf_bytes_of(out.s, out.n), 0, heap, NULL) == SF_OK);
    expect(doc.root->kind == SF_JSON_STRING && sf_bytes_eq(doc.root->str, text));
    sf__json_cleanup(&doc);
    sf__strbuf_cleanup(&out);
}

static void expect_value(const sf_json *v, unsigned flags)
{
    sf_json_doc doc;
    size_t n = 0;

    if (looked_at++ > 200)
        return;
    expect(sf__json_parse(&doc, v->raw, flags, heap, NULL) == SF_OK);
    expect(doc.root->kind == v->kind && sf_bytes_eq(doc.root->raw, v->raw));
    expect(sf__json_is_truthy(doc.root) == sf__json_is_truthy(v));
    if (v->kind == SF_JSON_STRING)
        expect(sf_bytes_eq(doc.root->str, v->str));
    sf__json_cleanup(&doc);
    if (v->kind == SF_JSON_STRING)
        expect_written(v->str);
    if (v->kind != SF_JSON_ARRAY && v->kind != SF_JSON_OBJECT)
        return;
    for (const sf_json *c = v->first; c; c = c->next, n++) {
        expect_value(c, flags);
        if (v->kind == SF_JSON_OBJECT && looked_at <= 200)
            expect_written(c->key);
    }
    expect(n == v->count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_bytes text = sf_bytes_of(data, size);
    sf_status strict = SF_CORRUPT, rc = SF_OK;
    sf_json_doc doc;

    for (unsigned flags = 0; flags < 4; flags++) {
        rc = sf__json_parse(&doc, text, flags, heap, NULL);
        if (flags == 0)
            strict = rc;
        expect(rc == SF_OK || (rc == SF_CORRUPT && strict != SF_OK)); /* tolerance takes nothing away */
        if (rc != SF_OK)
            continue;
        looked_at = 0;
        expect_value(doc.root, flags);
        sf__json_cleanup(&doc);
    }
    return 0;
}
