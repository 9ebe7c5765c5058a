#include "base/escape.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* Room for "\U000e0001" and its end. */
#define ESCAPE_BYTES 11

static bool is_unsafe(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) ||         /* C0, DEL, C1 */
           c == 0x2028 || c == 0x2029 ||                  /* end lines and paragraphs */
           c == 0x061c || (c >= 0x200b && c <= 0x200f) || /* have no width, turn text around */
           (c >= 0x202a && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff ||
           (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe007f); /* letters that nobody sees */
}

/* Takes one character, or one byte that is none, off `in`; its form in a message. */
static size_t next_piece(sf_bytes *in, char out[ESCAPE_BYTES])
{
    const uint8_t *begin = in->p;
    uint32_t c;

    if (!sf_cursor_utf8(in, &c)) {
        *in = sf_bytes_of(in->p + 1, in->n - 1);
        return (size_t)snprintf(out, ESCAPE_BYTES, "\\x%02x", begin[0]);
    }
    if (!is_unsafe(c)) {
        memcpy(out, begin, (size_t)(in->p - begin));
        return (size_t)(in->p - begin);
    }
    return (size_t)snprintf(out, ESCAPE_BYTES, c < 0x80 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
}

static bool is_safe(const char *text, size_t n)
{
    bool ascii = true;
    sf_bytes in = sf_bytes_of(text, n);
    uint32_t c;

    for (size_t i = 0; i < n && ascii; i++)
        ascii = (uint8_t)text[i] >= 0x20 && (uint8_t)text[i] < 0x7f;
    if (ascii)
        return true;
    while (in.n > 0)
        if (!sf_cursor_utf8(&in, &c) || is_unsafe(c))
            return false;
    return true;
}

/* A character that a full buffer cut in two. */
static size_t without_torn_end(const char *text, size_t n)
{
    for (size_t back = 1; back < 4 && back <= n; back++) {
        uint8_t lead = (uint8_t)text[n - back];

        if ((lead & 0xc0) == 0x80)
            continue;
        return lead >= (back < 2 ? 0xc0 : back < 3 ? 0xe0 : 0xf0) ? n - back : n;
    }
    return n;
}

size_t sf_text_escape(char *out, size_t size, sf_bytes text)
{
    size_t n = 0, done = 0;
    char piece[ESCAPE_BYTES];

    while (text.n > 0) {
        size_t len = next_piece(&text, piece);

        if (done == n && size > 0 && n + len < size) { /* nothing is left out before */
            memcpy(out + n, piece, len);
            done = n + len;
        }
        n += len;
    }
    if (size > 0)
        out[done] = '\0';
    return n;
}

void sf__escape(char *text, size_t size)
{
    char copy[1024];
    size_t n = strlen(text);

    if (n + 1 == size) {
        n = without_torn_end(text, n);
        text[n] = '\0';
    }
    if (is_safe(text, n))
        return;
    if (n > sizeof(copy)) /* no buffer of ours is larger */
        n = sizeof(copy);
    memcpy(copy, text, n);
    sf_text_escape(text, size, sf_bytes_of(copy, n));
}
