#include "snapshot/current.h"

#include "base/error.h"
#include "base/limits.h"
#include "snapshot/datetime.h"
#include "snapshot/lax.h"

#define PREFIX "CURRENT pointer validation failed: "

static sf_status text_field(char **out, const sf_json *root, const char *name, const sf_allocator *a, sf_error *err)
{
    const sf_json *v = sf__json_get(root, name);

    if (!v)
        return sf_fail(err, SF_BAD_MANIFEST, PREFIX "%s is missing", name);
    if (v->kind != SF_JSON_STRING)
        return sf_fail(err, SF_BAD_MANIFEST, PREFIX "%s is not a string", name);
    if (v->str.n > 0 && memchr(v->str.p, 0, v->str.n))
        return sf_fail(err, SF_BAD_MANIFEST, PREFIX "%s holds a NUL character", name);
    *out = sf__strndup(a, v->str.p, v->str.n);
    return *out ? SF_OK : sf_fail(err, SF_NOMEM, "%s of the pointer", name);
}

static sf_status updated_at(sf_current *c, const sf_json *root, sf_error *err)
{
    const sf_json *v = sf__json_get(root, "updated_at");
    sf_datetime t;
    bool ok = false;

    if (!v)
        return sf_fail(err, SF_BAD_MANIFEST, PREFIX "updated_at is missing");
    if (v->kind == SF_JSON_STRING)
        ok = sf__datetime_parse(v->str, &t);
    else if (v->kind == SF_JSON_INT || v->kind == SF_JSON_FLOAT)
        ok = sf__datetime_from_number(v->raw, &t);
    if (!ok)
        return sf_fail(err, SF_BAD_MANIFEST, PREFIX "updated_at is not a date and time");
    c->updated_at_us = t.us;
    c->updated_at_naive = t.naive;
    return SF_OK;
}

static sf_status current_decode(sf_current *c, const sf_json *root, const sf_allocator *a, sf_error *err)
{
    const sf_json *version = sf__json_get(root, "format_version");
    sf_lax_int any;
    sf_status rc;

    if (root->kind != SF_JSON_OBJECT)
        return sf_fail(err, SF_BAD_MANIFEST, PREFIX "not a JSON object");
    rc = text_field(&c->manifest_ref, root, "manifest_ref", a, err);
    if (rc == SF_OK)
        rc = text_field(&c->manifest_content_type, root, "manifest_content_type", a, err);
    if (rc == SF_OK)
        rc = text_field(&c->run_id, root, "run_id", a, err);
    if (rc == SF_OK)
        rc = updated_at(c, root, err);
    /* readers do not gate on the version, whatever number it is */
    if (rc == SF_OK && version && !sf__lax_int_from_json(version, &any))
        rc = sf_fail(err, SF_BAD_MANIFEST, PREFIX "format_version is not an integer");
    return rc;
}

sf_status sf__current_parse(sf_current *out, sf_bytes text, const sf_allocator *a, sf_error *err)
{
    sf_current c = {0};
    sf_json_doc doc;
    sf_status rc;

    if (text.n > SF_LIMIT_CURRENT_BYTES)
        return sf_fail(err, SF_BAD_MANIFEST, PREFIX "%zu bytes are more than %u", text.n, SF_LIMIT_CURRENT_BYTES);
    rc = sf__json_parse(&doc, text, SF_JSON_NAN, a, err);
    if (rc != SF_OK)
        return rc == SF_NOMEM ? rc : sf_error_prefix(err, SF_BAD_MANIFEST, PREFIX);
    rc = current_decode(&c, doc.root, a, err);
    sf__json_cleanup(&doc);
    if (rc != SF_OK) {
        sf__current_cleanup(&c, a);
        return rc;
    }
    *out = c;
    return SF_OK;
}

void sf__current_cleanup(sf_current *c, const sf_allocator *a)
{
    sf__free(a, c->manifest_ref);
    sf__free(a, c->manifest_content_type);
    sf__free(a, c->run_id);
    *c = (sf_current){0};
}

sf_status sf__current_format(char **out, const char *manifest_ref, const char *content_type, const char *run_id,
                             int64_t updated_at_us, const sf_allocator *a, sf_error *err)
{
    char time[SF_DATETIME_TEXT];
    sf_strbuf b;
    char *text;
    bool ok;

    sf__datetime_format(time, updated_at_us);
    sf__strbuf_init(&b, a);
    sf__strbuf_puts(&b, "{\"format_version\":1,\"manifest_content_type\":");
    ok = sf__json_write_str(&b, sf_bytes_str(content_type));
    sf__strbuf_puts(&b, ",\"manifest_ref\":");
    ok = sf__json_write_str(&b, sf_bytes_str(manifest_ref)) && ok;
    sf__strbuf_puts(&b, ",\"run_id\":");
    ok = sf__json_write_str(&b, sf_bytes_str(run_id)) && ok;
    sf__strbuf_printf(&b, ",\"updated_at\":\"%s\"}", time);
    if (!ok) {
        sf__strbuf_cleanup(&b);
        return sf_fail(err, SF_INVALID, "a text of the pointer is not UTF-8");
    }
    text = sf__strbuf_detach(&b);
    if (!text)
        return sf_fail(err, SF_NOMEM, "pointer");
    *out = text;
    return SF_OK;
}
