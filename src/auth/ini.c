#include "auth/ini.h"

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static sf_bytes trim(sf_bytes b)
{
    while (b.n > 0 && is_blank(b.p[0]))
        b = sf_bytes_of(b.p + 1, b.n - 1);
    while (b.n > 0 && is_blank(b.p[b.n - 1]))
        b.n--;
    return b;
}

static sf_bytes take_line(sf_bytes *text)
{
    const uint8_t *end = memchr(text->p, '\n', text->n);
    size_t n = end ? (size_t)(end - text->p) : text->n;
    sf_bytes line = sf_bytes_of(text->p, n);

    *text = sf_bytes_of(text->p + n + (end != NULL), text->n - n - (end != NULL));
    return line;
}

/* A comment behind a value begins with " #" or " ;"; without the blank it belongs to the value. */
static sf_bytes cut_comment(sf_bytes b)
{
    for (size_t i = 1; i < b.n; i++)
        if ((b.p[i] == '#' || b.p[i] == ';') && is_blank(b.p[i - 1]))
            return trim(sf_bytes_of(b.p, i));
    return b;
}

/* The first of them ends the name. Below another setting only '=' does: there botocore reads no ':' either. */
static const uint8_t *find_sign(sf_bytes body, bool nested)
{
    for (size_t i = 0; i < body.n; i++)
        if (body.p[i] == '=' || (body.p[i] == ':' && !nested))
            return body.p + i;
    return NULL;
}

struct reader {
    sf_ini_item item;       /* of this line */
    sf_bytes section, open; /* the setting that deeper lines belong to */
    size_t depth;           /* its indentation */
    void (*on_item)(void *ctx, const sf_ini_item *item);
    void *ctx;
};

static void fault(struct reader *r, sf_bytes body, const char *why)
{
    r->item.value = body;
    r->item.fault = why;
    r->on_item(r->ctx, &r->item);
}

static void read_header(struct reader *r, sf_bytes body)
{
    const uint8_t *end = memchr(body.p, ']', body.n);

    r->section = r->open = (sf_bytes){0};
    if (end)
        r->section = trim(sf_bytes_of(body.p + 1, (size_t)(end - body.p) - 1));
    if (r->section.n == 0) {
        r->item.section = (sf_bytes){0};
        fault(r, body, end ? "a section without a name" : "a section's name without its \"]\"");
    }
}

static void read_setting(struct reader *r, sf_bytes body, size_t depth)
{
    bool nested = r->open.n > 0 && depth > r->depth;
    const uint8_t *sign = find_sign(body, nested);
    size_t n = sign ? (size_t)(sign - body.p) : 0;
    sf_bytes name = trim(sf_bytes_of(body.p, n));

    if (name.n == 0) {
        fault(r, body, "neither a section nor a setting");
        return;
    }
    r->item.name = name;
    r->item.value = trim(cut_comment(sf_bytes_of(body.p + n + 1, body.n - n - 1)));
    if (nested) {
        r->item.parent = r->open;
    } else {
        r->open = name;
        r->depth = depth;
    }
    if (r->section.n == 0)
        fault(r, body, "a setting before any section");
    else
        r->on_item(r->ctx, &r->item);
}

void sf__ini_parse(sf_bytes text, void (*on_item)(void *ctx, const sf_ini_item *item), void *ctx)
{
    struct reader r = {.on_item = on_item, .ctx = ctx};

    for (size_t line_number = 1; text.n > 0; line_number++) {
        sf_bytes line = take_line(&text), body = trim(line);
        size_t depth = body.n > 0 ? (size_t)(body.p - line.p) : 0;

        if (body.n == 0 || body.p[0] == '#' || body.p[0] == ';')
            continue;
        r.item = (sf_ini_item){.section = r.section, .line = line_number};
        if (body.p[0] == '[' && !(r.open.n > 0 && depth > r.depth))
            read_header(&r, body);
        else
            read_setting(&r, body, depth);
    }
}
