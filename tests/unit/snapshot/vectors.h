/* The golden files, read and compared from tests. Every failure ends the test with the name of what is wrong. */
#ifndef TESTS_VECTORS_H
#define TESTS_VECTORS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "snapshot/datetime.h"
#include "snapshot/key.h"

#define HEAP (&sf__allocator_default)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static inline const char *fixtures_dir(void)
{
    const char *dir = getenv("SF_FIXTURES");

    return dir ? dir : SF_FIXTURES_DIR;
}

/* The file's bytes, terminated; .p is NULL when there is no such file. Freed with free(). */
static inline sf_bytes file_try_read(const char *name)
{
    char path[4096];
    uint8_t *p;
    size_t n = 0, got;
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", fixtures_dir(), name);
    f = fopen(path, "rb");
    if (!f)
        return sf_bytes_of(NULL, 0);
    fseek(f, 0, SEEK_END);
    p = calloc(1, (size_t)ftell(f) + 1);
    rewind(f);
    while (p && (got = fread(p + n, 1, 65536, f)) > 0)
        n += got;
    fclose(f);
    assert_non_null(p);
    return sf_bytes_of(p, n);
}

static inline sf_bytes file_read(const char *name)
{
    sf_bytes b = file_try_read(name);

    if (!b.p)
        fail_msg("%s: no such fixture", name);
    return b;
}

/* A golden file in memory: the document borrows the text. */
struct golden {
    sf_bytes text;
    sf_json_doc doc;
};

static inline void golden_open(struct golden *g, const char *name)
{
    sf_error err = SF_ERROR_INIT;

    g->text = file_read(name);
    if (sf__json_parse(&g->doc, g->text, 0, HEAP, &err) != SF_OK)
        fail_msg("%s: %s", name, err.message);
}

static inline void golden_close(struct golden *g)
{
    sf__json_cleanup(&g->doc);
    free((void *)(uintptr_t)g->text.p);
}

static inline const sf_json *need(const sf_json *object, const char *name)
{
    const sf_json *v = sf__json_get(object, name);

    if (!v)
        fail_msg("no member %s in %.*s", name, object ? (int)object->raw.n : 0,
                 object ? (const char *)object->raw.p : "");
    return v;
}

/* The array of a golden file, which must not be empty: a loop over nothing proves nothing. */
static inline const sf_json *need_cases(const struct golden *g, const char *name)
{
    const sf_json *v = need(g->doc.root, name);

    assert_int_equal(v->kind, SF_JSON_ARRAY);
    assert_true(v->count > 0);
    return v->first;
}

static inline long long need_int(const sf_json *object, const char *name)
{
    return strtoll((const char *)need(object, name)->raw.p, NULL, 10);
}

static inline bool text_is(const sf_json *v, const char *s)
{
    return v->kind == SF_JSON_STRING && s && sf_bytes_eq(v->str, sf_bytes_str(s));
}

/* A string or null against a C string or NULL. */
static inline void expect_text(const char *where, const sf_json *expected, const char *s)
{
    if (expected->kind == SF_JSON_NULL ? s != NULL : !text_is(expected, s))
        fail_msg("%s: '%s', expected %.*s", where, s ? s : "(NULL)", (int)expected->raw.n, (const char *)expected->raw.p);
}

/* Freed with free(). */
static inline sf_bytes hex_decode(sf_bytes hex)
{
    uint8_t *p = malloc(hex.n / 2 + 1);

    assert_non_null(p);
    for (size_t i = 0; i < hex.n / 2; i++) {
        unsigned v = 0;

        assert_int_equal(sscanf((const char *)hex.p + 2 * i, "%2x", &v), 1);
        p[i] = (uint8_t)v;
    }
    return sf_bytes_of(p, hex.n / 2);
}

/* {"int": …}, {"bool": …}, {"str": …} and {"bytes": …} as a key; false for what no key of ours can be. Bytes are to be
 * freed by key_cleanup(). */
static inline bool key_of(const sf_json *typed, sf_key *out)
{
    const sf_json *v = typed->first;

    *out = (sf_key){.type = SF_KEY_INT};
    if (sf_bytes_eq(v->key, sf_bytes_str("int"))) {
        char text[64], *end;

        snprintf(text, sizeof(text), "%.*s", (int)v->str.n, (const char *)v->str.p);
        errno = 0;
        out->i = strtoll(text, &end, 10);
        return errno == 0 && *end == '\0';
    }
    if (sf_bytes_eq(v->key, sf_bytes_str("bool"))) {
        out->i = v->boolean;
        return true;
    }
    if (sf_bytes_eq(v->key, sf_bytes_str("str"))) {
        out->type = SF_KEY_STR;
        out->b = v->str;
        return true;
    }
    if (sf_bytes_eq(v->key, sf_bytes_str("bytes"))) {
        out->type = SF_KEY_BYTES;
        out->b = hex_decode(v->str);
        return true;
    }
    return false;
}

static inline void key_cleanup(sf_key *key)
{
    if (key->type == SF_KEY_BYTES)
        free((void *)(uintptr_t)key->b.p);
}

#define MAX_CONTEXT 8

/* {"region": {"str": "eu"}, "tier": {"int": "3"}} as a context; freed by context_cleanup(). */
struct golden_context {
    sf_routing_context context;
    sf_routing_value values[MAX_CONTEXT];
    char names[MAX_CONTEXT][64];
};

static inline sf_routing_value routing_value_of(const sf_json *typed)
{
    const sf_json *v = typed->first;
    char text[64];

    snprintf(text, sizeof(text), "%.*s", (int)(v->str.n < 63 ? v->str.n : 63), (const char *)v->str.p);
    if (sf_bytes_eq(v->key, sf_bytes_str("null")))
        return (sf_routing_value){.type = SF_ROUTING_NULL};
    if (sf_bytes_eq(v->key, sf_bytes_str("bool")))
        return (sf_routing_value){.type = SF_ROUTING_BOOL, .boolean = v->boolean};
    if (sf_bytes_eq(v->key, sf_bytes_str("double")))
        return (sf_routing_value){.type = SF_ROUTING_DOUBLE, .d = strtod(text, NULL)};
    if (sf_bytes_eq(v->key, sf_bytes_str("str")))
        return (sf_routing_value){.type = SF_ROUTING_STR, .b = v->str};
    if (sf_bytes_eq(v->key, sf_bytes_str("int"))) {
        if (text[0] == '-' || strtoull(text, NULL, 10) <= INT64_MAX)
            return (sf_routing_value){.type = SF_ROUTING_INT, .i = strtoll(text, NULL, 10)};
        return (sf_routing_value){.type = SF_ROUTING_UINT, .u = strtoull(text, NULL, 10)};
    }
    return (sf_routing_value){
        .type = SF_ROUTING_BYTES, .whole = sf_bytes_eq(v->key, sf_bytes_str("bytearray")), .b = hex_decode(v->str)};
}

static inline void context_of(const sf_json *object, struct golden_context *c)
{
    c->context = (sf_routing_context){.values = c->values};
    for (const sf_json *v = object->first; v; v = v->next) {
        size_t i = c->context.count++;

        assert_true(i < MAX_CONTEXT && v->key.n < sizeof(c->names[i]));
        snprintf(c->names[i], sizeof(c->names[i]), "%.*s", (int)v->key.n, (const char *)v->key.p);
        c->values[i] = routing_value_of(v);
        c->values[i].column = c->names[i];
    }
}

static inline void context_cleanup(struct golden_context *c)
{
    for (size_t i = 0; i < c->context.count; i++)
        if (c->values[i].type == SF_ROUTING_BYTES)
            free((void *)(uintptr_t)c->values[i].b.p);
}

/* An ISO date and time of a golden file. */
static inline void expect_time(const char *where, const sf_json *iso, int64_t us, bool naive)
{
    sf_datetime t;

    if (!sf__datetime_parse(iso->str, &t) || t.us != us || t.naive != naive)
        fail_msg("%s: %lld%s, expected %.*s", where, (long long)us, naive ? " naive" : "", (int)iso->raw.n,
                 (const char *)iso->raw.p);
}

/* The same value; numbers by their text, members in any order. */
static inline bool json_equal(const sf_json *a, const sf_json *b)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case SF_JSON_NULL:
        return true;
    case SF_JSON_BOOL:
        return a->boolean == b->boolean;
    case SF_JSON_INT:
    case SF_JSON_FLOAT:
        return sf_bytes_eq(a->raw, b->raw);
    case SF_JSON_STRING:
        return sf_bytes_eq(a->str, b->str);
    case SF_JSON_ARRAY:
    case SF_JSON_OBJECT:
        break;
    }
    if (a->count != b->count)
        return false;
    for (const sf_json *x = a->first, *y = b->first; x; x = x->next) {
        if (a->kind == SF_JSON_OBJECT)
            for (y = b->first; y && !sf_bytes_eq(x->key, y->key);)
                y = y->next;
        if (!y || !json_equal(x, y))
            return false;
        y = y->next;
    }
    return true;
}

#endif
