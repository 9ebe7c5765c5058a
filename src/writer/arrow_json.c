#include "writer/arrow_json.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/json.h"
#include "base/number_text.h"

struct arrow_member {
    sf_arrow_column column;
    bool is_there;
    size_t prefix_end;
};

static size_t count_of(const struct ArrowSchema *schema, const sf_arrow_members *wanted)
{
    return wanted->names ? wanted->count : (size_t)schema->n_children;
}

static const char *name_of(const struct ArrowSchema *schema, const sf_arrow_members *wanted, size_t i)
{
    return wanted->names ? wanted->names[i] : sf_arrow_name(schema, (int64_t)i);
}

/* Metadata: int32 count, then of each pair int32 length and bytes of the name, and of the value. */
static bool has_metadata(const char *p, const char *name)
{
    int32_t count, n;
    bool found = false;

    if (!p)
        return false;
    memcpy(&count, p, sizeof(count));
    p += sizeof(count);
    for (int32_t i = 0; i < 2 * count && !found; i++) {
        memcpy(&n, p, sizeof(n));
        p += sizeof(n);
        found = i % 2 == 0 && (size_t)n == strlen(name) && memcmp(p, name, (size_t)n) == 0;
        p += n;
    }
    return found;
}

/* A type of somebody's, who may have a form of its own for its values. */
static bool is_extension(const struct ArrowSchema *s)
{
    return has_metadata(s->metadata, "ARROW:extension:name") || (s->dictionary && is_extension(s->dictionary)) ||
           (strcmp(s->format, "+r") == 0 && s->n_children == 2 && is_extension(s->children[1]));
}

bool sf__arrow_json_takes(const struct ArrowSchema *schema, const sf_arrow_members *wanted)
{
    for (size_t i = 0; i < count_of(schema, wanted); i++) {
        const char *name = name_of(schema, wanted, i);
        sf_arrow_column c = {.role = SF_ARROW_MEMBER};

        if (sf__arrow_columns_named(schema, name) == 0)
            continue;
        if (sf__arrow_column_find(schema, name, 0, &c, NULL) != SF_OK || !sf__arrow_column_fits(&c) ||
            is_extension(schema->children[c.index]))
            return false;
    }
    return true;
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

/* Bytes of UTF-8 are in the order of their code points, as Python sorts texts. */
static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static sf_status add_member(sf_arrow_json *j, const struct ArrowSchema *schema, const char *name, sf_error *err)
{
    struct arrow_member *m = &j->members[j->count];
    sf_status rc = SF_OK;

    m->column.role = SF_ARROW_MEMBER;
    m->is_there = sf__arrow_columns_named(schema, name) > 0;
    if (m->is_there)
        rc = sf__arrow_column_find(schema, name, 0, &m->column, err);
    if (rc != SF_OK)
        return rc;
    sf__strbuf_putc(&j->prefixes, j->count++ > 0 ? ',' : '{');
    if (!sf__json_write_str(&j->prefixes, sf_bytes_str(name)))
        return sf_fail(err, SF_INVALID, "the name of value column %lld is not UTF-8", (long long)m->column.index);
    sf__strbuf_puts(&j->prefixes, m->is_there ? ":" : ":null");
    m->prefix_end = j->prefixes.n;
    return j->prefixes.failed ? sf_fail(err, SF_NOMEM, "names of columns") : SF_OK;
}

sf_status sf__arrow_json_init(sf_arrow_json *j, const struct ArrowSchema *schema, const sf_arrow_members *wanted,
                              const sf_allocator *a, sf_error *err)
{
    size_t count = count_of(schema, wanted);
    const char **names = sf__calloc(a, count + 1, sizeof(*names));
    sf_status rc = SF_OK;

    *j = (sf_arrow_json){.members = sf__calloc(a, count + 1, sizeof(*j->members))};
    sf__strbuf_init(&j->prefixes, a);
    sf__strbuf_init(&j->text, a);
    if (!names || !j->members)
        rc = sf_fail(err, SF_NOMEM, "%zu columns", count);
    for (size_t i = 0; i < count && rc == SF_OK; i++)
        names[i] = name_of(schema, wanted, i);
    if (rc == SF_OK && count > 0)
        qsort(names, count, sizeof(*names), by_text);
    for (size_t i = 0; i < count && rc == SF_OK; i++)
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0)
            rc = add_member(j, schema, names[i], err);
    sf__free(a, names);
    return rc;
}

void sf__arrow_json_cleanup(sf_arrow_json *j)
{
    if (!j->prefixes.alloc)
        return;
    sf__free(j->prefixes.alloc, j->members);
    sf__strbuf_cleanup(&j->prefixes);
    sf__strbuf_cleanup(&j->text);
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

sf_status sf__arrow_json_enter(sf_arrow_json *j, const struct ArrowArray *batch, sf_error *err)
{
    sf_status rc = SF_OK;

    for (size_t i = 0; i < j->count && rc == SF_OK; i++)
        if (j->members[i].is_there)
            rc = sf__arrow_column_enter(&j->members[i].column, batch, err);
    return rc;
}

/* False: text that is no UTF-8. */
static bool add_value(sf_strbuf *out, const sf_arrow_level *l, int64_t at)
{
    char text[SF_FLOAT_TEXT_BYTES > SF_INTEGER_TEXT_BYTES ? SF_FLOAT_TEXT_BYTES : SF_INTEGER_TEXT_BYTES];
    int64_t v;

    switch (l->type.layout) {
    case SF_ARROW_BOOL:
        sf__strbuf_puts(out, sf_arrow_bool(l, at) ? "true" : "false");
        return true;
    case SF_ARROW_INT:
        v = sf_arrow_int(l, at);
        sf__strbuf_add(out, text, sf__integer_text(text, v < 0 ? -(uint64_t)v : (uint64_t)v, v < 0));
        return true;
    case SF_ARROW_UINT:
        sf__strbuf_add(out, text, sf__integer_text(text, sf_arrow_uint(l, at), false));
        return true;
    case SF_ARROW_FLOAT:
        sf__strbuf_add(out, text, sf__float_text(text, sf_arrow_float(l, at), &sf__float_json));
        return true;
    default:
        return sf__json_write_str(out, sf__arrow_bytes(l, at));
    }
}

static sf_status add_member_value(sf_strbuf *out, sf_arrow_column *c, int64_t row, sf_error *err)
{
    int64_t at = 0;

    switch (sf__arrow_column_at(c, row, &at)) {
    case SF_ARROW_FOUND_NULL:
        sf__strbuf_puts(out, "null");
        return SF_OK;
    case SF_ARROW_FOUND_NOWHERE:
        return sf_fail(err, SF_BAD_ROW, "the value column '%s' has an index outside of its dictionary", c->name);
    default:
        if (!add_value(out, sf_arrow_leaf(c), at))
            return sf_fail(err, SF_BAD_ROW, "the value column '%s' is not valid UTF-8", c->name);
        return SF_OK;
    }
}

sf_status sf__arrow_json_row(sf_arrow_json *j, int64_t row, sf_bytes *out, sf_error *err)
{
    size_t begin = 0;
    sf_status rc = SF_OK;

    sf__strbuf_cut(&j->text, 0);
    if (j->count == 0)
        sf__strbuf_putc(&j->text, '{');
    for (size_t i = 0; i < j->count && rc == SF_OK; i++) {
        struct arrow_member *m = &j->members[i];

        sf__strbuf_add(&j->text, j->prefixes.s + begin, m->prefix_end - begin);
        begin = m->prefix_end;
        if (m->is_there)
            rc = add_member_value(&j->text, &m->column, row, err);
    }
    sf__strbuf_putc(&j->text, '}');
    if (rc == SF_OK && j->text.failed)
        rc = sf_fail(err, SF_NOMEM, "value of more than %zu bytes", j->text.n);
    *out = sf_bytes_of(j->text.s, j->text.n);
    return rc;
}
