#include "snapshot/routing_values.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/limits.h"

#define FIRST_SLOTS 16u

/* An integer has its bits; those above int64's range are marked, so that an int and a uint of one value are
 * one token. */
struct sf_routing_token {
    uint64_t hash;
    uint64_t bits;
    bool is_large;
    bool is_beyond;
    sf_bytes text;
    uint32_t number; /* while they are being sorted */
};

void sf__routing_values_init(sf_routing_values *v, const sf_allocator *a)
{
    *v = (sf_routing_values){.alloc = a};
    sf__arena_init(&v->texts, a);
    if (getrandom(&v->seed, sizeof(v->seed), GRND_NONBLOCK) != (ssize_t)sizeof(v->seed))
        v->seed = sf__clock_mono_ns() ^ (uintptr_t)v;
}

void sf__routing_values_cleanup(sf_routing_values *v)
{
    if (!v->alloc)
        return;
    sf__free(v->alloc, v->tokens);
    sf__free(v->alloc, v->slots);
    sf__arena_cleanup(&v->texts);
    *v = (sf_routing_values){0};
}

/* ------------------------------------------------------------------ finding --------------------------------------- */

static bool is_integer(const sf_cel_value *token)
{
    return token->kind == SF_CEL_INT || token->kind == SF_CEL_UINT;
}

/* The text is borrowed. */
static void take_token(const sf_routing_values *v, const sf_cel_value *token, struct sf_routing_token *out)
{
    out->bits = 0;
    out->is_large = out->is_beyond = false;
    out->text = sf_bytes_of(NULL, 0);
    out->number = 0;
    if (is_integer(token)) {
        out->bits = token->u; /* an int's, too */
        out->is_large = token->kind == SF_CEL_UINT && token->u > INT64_MAX;
        out->hash = sf__xxh3_64_seeded(sf_bytes_of(&out->bits, sizeof(out->bits)), v->seed);
    } else {
        out->text = token->s;
        out->hash = sf__xxh3_64_seeded(out->text, v->seed);
    }
}

static bool is_same(const struct sf_routing_token *a, const struct sf_routing_token *b)
{
    return a->hash == b->hash && a->bits == b->bits && a->is_large == b->is_large && sf_bytes_eq(a->text, b->text);
}

/* The slot of a token, or the empty one where it belongs. There is an empty one. */
static uint32_t *slot_of(const sf_routing_values *v, const struct sf_routing_token *t)
{
    uint32_t mask = v->slot_count - 1, at = (uint32_t)t->hash & mask;

    while (v->slots[at] > 0 && !is_same(&v->tokens[v->slots[at] - 1], t))
        at = (at + 1) & mask;
    return &v->slots[at];
}

bool sf__routing_values_find(const sf_routing_values *v, const sf_cel_value *token, uint32_t *number)
{
    struct sf_routing_token t;
    uint32_t slot;

    if (v->slot_count == 0 || token->kind == SF_CEL_BYTES || is_integer(token) != v->integers)
        return false;
    take_token(v, token, &t);
    slot = *slot_of(v, &t);
    if (slot == 0)
        return false;
    *number = slot - 1;
    return true;
}

/* ------------------------------------------------------------------ adding ---------------------------------------- */

static void fill_slots(sf_routing_values *v)
{
    memset(v->slots, 0, v->slot_count * sizeof(*v->slots));
    for (uint32_t i = 0; i < v->count; i++)
        if (!v->tokens[i].is_beyond)
            *slot_of(v, &v->tokens[i]) = i + 1;
}

/* Room for one more token, with half of the slots empty. */
static bool reserve(sf_routing_values *v)
{
    uint32_t cap = v->cap ? 2 * v->cap : FIRST_SLOTS / 2;
    struct sf_routing_token *tokens;
    uint32_t *slots;

    if (v->count < v->cap)
        return true;
    slots = sf__calloc(v->alloc, (size_t)2 * cap, sizeof(*slots));
    tokens = slots ? sf__realloc(v->alloc, v->tokens, cap * sizeof(*tokens)) : NULL;
    if (!tokens) {
        sf__free(v->alloc, slots);
        return false;
    }
    sf__free(v->alloc, v->slots);
    v->tokens = tokens;
    v->slots = slots;
    v->cap = cap;
    v->slot_count = 2 * cap;
    fill_slots(v);
    return true;
}

static sf_status no_memory(const sf_routing_values *v, sf_error *err)
{
    return sf_fail(err, SF_NOMEM, "%u routing values", v->count + 1);
}

static sf_status check_kind(const sf_routing_values *v, const sf_cel_value *token, sf_error *err)
{
    if (token->kind == SF_CEL_BYTES)
        return sf_fail(err, SF_INVALID,
                       "routing_values cannot be bytes, which a manifest does not hold: let the expression give "
                       "text or integers");
    if (v->count > 0 && is_integer(token) != v->integers)
        return sf_fail(err, SF_INVALID, "routing_values must all be of one type");
    return SF_OK;
}

sf_status sf__routing_values_add(sf_routing_values *v, const sf_cel_value *token, uint32_t *number, sf_error *err)
{
    struct sf_routing_token t;
    uint32_t *slot;
    sf_status rc = check_kind(v, token, err);

    if (rc != SF_OK)
        return rc;
    if (!reserve(v))
        return no_memory(v, err);
    take_token(v, token, &t);
    slot = slot_of(v, &t);
    if (*slot > 0) {
        *number = *slot - 1;
        return SF_OK;
    }
    if (v->count == SF_LIMIT_SHARDS)
        return sf_fail(err, SF_INVALID, "more than %u routing values: each is a shard of its own", SF_LIMIT_SHARDS);
    v->integers = is_integer(token);
    if (!v->integers) {
        t.text.p = (const uint8_t *)sf__arena_strndup(&v->texts, t.text.p, t.text.n);
        if (!t.text.p)
            return no_memory(v, err);
    }
    *number = v->count;
    v->tokens[v->count++] = t;
    *slot = v->count;
    return SF_OK;
}

bool sf__routing_values_add_beyond(sf_routing_values *v)
{
    if (!reserve(v))
        return false;
    v->integers = true;
    v->tokens[v->count++] = (struct sf_routing_token){.is_beyond = true};
    return true;
}

/* ------------------------------------------------------------------ order ----------------------------------------- */

static int by_value(const void *x, const void *y)
{
    const struct sf_routing_token *a = x, *b = y;
    int64_t i = (int64_t)a->bits, j = (int64_t)b->bits;

    if (a->text.p || b->text.p)
        return sf_bytes_cmp(a->text, b->text);
    if (a->is_large || b->is_large)
        return a->is_large != b->is_large ? (a->is_large ? 1 : -1) : (a->bits > b->bits) - (a->bits < b->bits);
    return (i > j) - (i < j);
}

void sf__routing_values_sort(sf_routing_values *v, uint32_t *places)
{
    for (uint32_t i = 0; i < v->count; i++)
        v->tokens[i].number = i;
    if (v->count > 1)
        qsort(v->tokens, v->count, sizeof(*v->tokens), by_value);
    for (uint32_t i = 0; i < v->count; i++)
        places[v->tokens[i].number] = i;
    if (v->count > 0)
        fill_slots(v);
}

void sf__routing_values_write(sf_strbuf *out, const sf_routing_values *v)
{
    sf__strbuf_putc(out, '[');
    for (uint32_t i = 0; i < v->count; i++) {
        const struct sf_routing_token *t = &v->tokens[i];

        if (i > 0)
            sf__strbuf_puts(out, ", ");
        if (!v->integers) {
            if (!sf__json_write_str(out, t->text))
                out->failed = true; /* texts of CEL are UTF-8 */
        } else if (t->is_large) {
            sf__strbuf_printf(out, "%" PRIu64, t->bits);
        } else {
            sf__strbuf_printf(out, "%" PRId64, (int64_t)t->bits);
        }
    }
    sf__strbuf_putc(out, ']');
}
