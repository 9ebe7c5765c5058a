#include "base/base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void sf__base64_write(sf_strbuf *out, sf_bytes plain)
{
    for (size_t i = 0; i < plain.n; i += 3) {
        size_t n = plain.n - i < 3 ? plain.n - i : 3;
        uint32_t bits = (uint32_t)sf_load_be(plain.p + i, n) << (8 * (3 - n));
        char group[4] = {digits[bits >> 18], digits[bits >> 12 & 63], n > 1 ? digits[bits >> 6 & 63] : '=',
                         n > 2 ? digits[bits & 63] : '='};

        sf__strbuf_add(out, group, sizeof(group));
    }
}

bool sf__base64_text(char **out, sf_bytes plain, const sf_allocator *a)
{
    sf_strbuf text;

    *out = NULL;
    if (plain.n == 0)
        return true;
    sf__strbuf_init(&text, a);
    sf__base64_write(&text, plain);
    *out = sf__strbuf_detach(&text);
    return *out != NULL;
}

/* -1: it is no digit. */
static int value_of(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool sf__base64_read(uint8_t *out, size_t *n, sf_bytes text)
{
    size_t padding = 0, written = 0;

    if (text.n % 4 != 0)
        return false;
    while (padding < 2 && padding < text.n && text.p[text.n - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < text.n; i += 4) {
        size_t missing = i + 4 == text.n ? padding : 0;
        uint32_t bits = 0;

        for (size_t j = 0; j < 4; j++) {
            int v = j + missing < 4 ? value_of(text.p[i + j]) : 0;

            if (v < 0)
                return false;
            bits = bits << 6 | (uint32_t)v;
        }
        if (bits & ((1u << (8 * missing)) - 1)) /* another text of the same bytes */
            return false;
        for (size_t j = 0; j < 3 - missing; j++)
            out[written++] = (uint8_t)(bits >> (16 - 8 * j));
    }
    *n = written;
    return true;
}
