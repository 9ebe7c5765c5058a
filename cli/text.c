#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

static void *have(void *p)
{
    if (!p) {
        fputs("Error: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

void *cli_alloc(size_t count, size_t size)
{
    return have(calloc(count ? count : 1, size ? size : 1));
}

void *cli_realloc(void *p, size_t count, size_t size)
{
    return have(reallocarray(p, count ? count : 1, size));
}

char *cli_strdup(const char *text)
{
    return have(strdup(text));
}

char *cli_strndup(const char *text, size_t n)
{
    return have(strndup(text, n));
}

SF_PRINTF(2, 0) static void vprintf_to(struct text *t, const char *fmt, va_list args)
{
    char room[256];
    va_list again;
    int n;

    va_copy(again, args);
    n = vsnprintf(room, sizeof(room), fmt, args);
    if (n > 0)
        text_add(t, n < (int)sizeof(room) ? room : NULL, (size_t)n);
    if (n >= (int)sizeof(room))
        vsnprintf(t->p + t->n - n, (size_t)n + 1, fmt, again);
    va_end(again);
}

char *cli_format(const char *fmt, ...)
{
    struct text t = {0};
    va_list args;

    va_start(args, fmt);
    vprintf_to(&t, fmt, args);
    va_end(args);
    return t.p ? t.p : cli_strdup("");
}

/* `p` NULL: room for `n` bytes, to be filled by the caller. */
void text_add(struct text *t, const void *p, size_t n)
{
    if (t->cap - t->n <= n) {
        t->cap = t->n + n + 1 > 2 * t->cap ? t->n + n + 1 : 2 * t->cap;
        t->p = cli_realloc(t->p, t->cap, 1);
    }
    if (p && n > 0)
        memcpy(t->p + t->n, p, n);
    t->n += n;
    t->p[t->n] = '\0';
}

void text_puts(struct text *t, const char *s)
{
    text_add(t, s, strlen(s));
}

void text_putc(struct text *t, char c)
{
    text_add(t, &c, 1);
}

void text_printf(struct text *t, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vprintf_to(t, fmt, args);
    va_end(args);
}

void text_escaped(struct text *t, const void *p, size_t n)
{
    size_t need = sf_text_escape(NULL, 0, (sf_bytes){p, n});

    text_add(t, NULL, need);
    sf_text_escape(t->p + t->n - need, need + 1, (sf_bytes){p, n});
}

void text_code(struct text *t, unsigned code)
{
    static const unsigned char leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    char out[4];

    for (size_t i = n; i-- > 1; code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(leads[n] | code);
    text_add(t, out, n);
}

void text_free(struct text *t)
{
    free(t->p);
    *t = (struct text){0};
}

/* ------------------------------------------------------------------ bytes ----------------------------------------- */

void text_base64(struct text *t, sf_bytes b)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = (b.n + 2) / 3 * 4;
    char *to;

    text_add(t, NULL, n);
    to = t->p + t->n - n;
    for (size_t i = 0; i < b.n; i += 3, to += 4) {
        uint32_t v = (uint32_t)b.p[i] << 16;

        if (i + 1 < b.n)
            v |= (uint32_t)b.p[i + 1] << 8;
        if (i + 2 < b.n)
            v |= b.p[i + 2];
        to[0] = digits[v >> 18];
        to[1] = digits[v >> 12 & 63];
        to[2] = i + 1 < b.n ? digits[v >> 6 & 63] : '=';
        to[3] = i + 2 < b.n ? digits[v & 63] : '=';
    }
}

void text_hex(struct text *t, sf_bytes b)
{
    static const char digits[] = "0123456789abcdef";
    char *to;

    text_add(t, NULL, 2 * b.n);
    to = t->p + t->n - 2 * b.n;
    for (size_t i = 0; i < b.n; i++) {
        *to++ = digits[b.p[i] >> 4];
        *to++ = digits[b.p[i] & 15];
    }
}

/* The bytes of the character at `p`, 0 when it is no UTF-8. */
static size_t utf8_length(const uint8_t *p, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    uint32_t code;

    if (length < 2 || length > n)
        return length == 1 ? 1 : 0;
    code = p[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    return code >= least[length] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? length : 0;
}

void text_utf8(struct text *t, sf_bytes b)
{
    for (size_t i = 0; i < b.n;) {
        size_t n = utf8_length(b.p + i, b.n - i);

        if (n > 0)
            text_add(t, b.p + i, n);
        else
            text_puts(t, "\xef\xbf\xbd");
        i += n > 0 ? n : 1;
    }
}

bool text_is_utf8(sf_bytes b)
{
    for (size_t i = 0; i < b.n;) {
        size_t n = utf8_length(b.p + i, b.n - i);

        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

bool text_is_printable(sf_bytes b)
{
    for (size_t i = 0; i < b.n;) {
        size_t n = utf8_length(b.p + i, b.n - i);

        if (n == 0 || b.p[i] == 0x7f || (b.p[i] < 0x20 && b.p[i] != '\t' && b.p[i] != '\n' && b.p[i] != '\r'))
            return false;
        i += n;
    }
    return true;
}

bool text_read_file(struct text *t, const char *path, size_t max_bytes, char *why, size_t why_size)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    char buffer[16384];
    size_t n = 0;
    bool good;

    if (!f) {
        snprintf(why, why_size, "%s", strerror(errno));
        return false;
    }
    while (t->n <= max_bytes && (n = fread(buffer, 1, sizeof(buffer), f)) > 0)
        text_add(t, buffer, n);
    good = !ferror(f) && t->n <= max_bytes;
    if (!good)
        snprintf(why, why_size, "%s", t->n > max_bytes ? "it is too long" : strerror(errno));
    if (f != stdin)
        fclose(f);
    return good;
}

/* ------------------------------------------------------------------ for people ------------------------------------ */

void text_time(struct text *t, int64_t us)
{
    time_t s = (time_t)(us / 1000000 - (us % 1000000 < 0));
    int64_t fraction = us - (int64_t)s * 1000000;
    struct tm tm;
    char day[40] = "";

    if (!gmtime_r(&s, &tm)) {
        text_printf(t, "%" PRId64, us);
        return;
    }
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
    text_puts(t, day);
    if (fraction > 0)
        text_printf(t, ".%06" PRId64, fraction);
    text_puts(t, "+00:00");
}

void text_duration(struct text *t, double seconds)
{
    uint64_t s;

    if (seconds < 60) {
        text_printf(t, "%.1fs", seconds < 0 ? 0 : seconds);
        return;
    }
    s = seconds < 1e15 ? (uint64_t)seconds : UINT64_C(1000000000000000);
    if (s < 3600)
        text_printf(t, "%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        text_printf(t, "%" PRIu64 "h %" PRIu64 "m", s / 3600, s / 60 % 60);
    else
        text_printf(t, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s / 3600 % 24);
}

void text_size(struct text *t, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double x = (double)bytes;
    size_t unit = 0;

    while (x >= 1023.95 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        x /= 1024;
        unit++;
    }
    if (unit == 0)
        text_printf(t, "%" PRIu64 " B", bytes);
    else
        text_printf(t, "%.1f %s", x, units[unit]);
}

size_t text_columns(const char *s)
{
    mbstate_t state = {0};
    size_t columns = 0, left = strlen(s);

    while (left > 0) {
        wchar_t c;
        size_t n = mbrtowc(&c, s, left, &state);
        int width;

        if (n == (size_t)-1 || n == (size_t)-2 || n == 0) { /* no text of this locale: bytes */
            state = (mbstate_t){0};
            columns++;
            s++;
            left--;
            continue;
        }
        width = wcwidth(c);
        columns += width > 0 ? (size_t)width : 0;
        s += n;
        left -= n;
    }
    return columns;
}

size_t text_distance(const char *a, const char *b)
{
    size_t rows[3][64];
    size_t na = strlen(a), nb = strlen(b);

    if (na > 60 || nb > 60)
        return 60;
    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *now = rows[i % 3], *before = rows[(i + 2) % 3], *earlier = rows[(i + 1) % 3];

        now[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = before[j - 1] + (a[i - 1] != b[j - 1]);

            if (before[j] + 1 < best)
                best = before[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && earlier[j - 2] + 1 < best)
                best = earlier[j - 2] + 1;
            now[j] = best;
        }
    }
    return rows[na % 3][nb];
}
