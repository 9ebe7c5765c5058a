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

void sf__ini_parse(sf_bytes text, void (*on_item)(void *ctx, const sf_ini_item *item), void *ctx)
{
    sf_bytes section = {0}, last = {0};

    while (text.n > 0) {
        sf_bytes line = take_line(&text), body = trim(line);
        bool indented = line.n > 0 && is_blank(line.p[0]);
        const uint8_t *sign;
        sf_ini_item item = {.section = section};
        size_t n;

        if (body.n == 0 || body.p[0] == '#' || body.p[0] == ';')
            continue;
        if (body.p[0] == '[' && !indented) {
            sign = memchr(body.p, ']', body.n);
            section = sign ? trim(sf_bytes_of(body.p + 1, (size_t)(sign - body.p) - 1)) : (sf_bytes){0};
            last = (sf_bytes){0};
            continue;
        }
        sign = memchr(body.p, '=', body.n);
        if (!sign)
            continue;
        n = (size_t)(sign - body.p);
        item.name = trim(sf_bytes_of(body.p, n));
        item.value = trim(cut_comment(sf_bytes_of(body.p + n + 1, body.n - n - 1)));
        if (indented)
            item.parent = last;
        else
            last = item.name;
        if (section.n > 0 && item.name.n > 0)
            on_item(ctx, &item);
    }
}
