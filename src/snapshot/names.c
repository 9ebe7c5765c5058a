#include "snapshot/names.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "base/utf8.h"

#define MAX_WIDTH 64u

static bool is_control(uint8_t c)
{
    return c < 0x20 || c == 0x7f;
}

sf_status sf__run_id_check(const char *run_id, sf_error *err)
{
    size_t n = strlen(run_id);

    if (n == 0)
        return sf_fail(err, SF_INVALID, "run id must not be empty");
    if (n > SF_RUN_ID_MAX)
        return sf_fail(err, SF_INVALID, "run id of %zu bytes is longer than %u", n, SF_RUN_ID_MAX);
    if (strcmp(run_id, ".") == 0 || strcmp(run_id, "..") == 0)
        return sf_fail(err, SF_INVALID, "run id must not be '%s'", run_id);
    if (!sf_utf8_is_valid(sf_bytes_str(run_id)))
        return sf_fail(err, SF_INVALID, "run id is not UTF-8");
    for (size_t i = 0; i < n; i++) {
        if (is_control((uint8_t)run_id[i]))
            return sf_fail(err, SF_INVALID, "run id holds a control character at byte %zu", i);
        if (run_id[i] == '/')
            return sf_fail(err, SF_INVALID, "run id '%s' must not contain '/'", run_id);
    }
    return SF_OK;
}

static bool is_segment_char(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

sf_status sf__prefix_segment_check(const char *name, const char *segment, sf_error *err)
{
    if (segment[0] == '\0')
        return sf_fail(err, SF_INVALID, "%s must be non-empty", name);
    if (strstr(segment, ".."))
        return sf_fail(err, SF_INVALID, "%s must not contain '..'", name);
    if (strchr(segment, '/'))
        return sf_fail(err, SF_INVALID, "%s must be a single path segment", name);
    for (const char *p = segment; *p; p++)
        if (!is_segment_char(*p))
            return sf_fail(err, SF_INVALID, "%s contains unsupported characters; allowed: [A-Za-z0-9._-]", name);
    if (strcmp(segment, ".") == 0)
        return sf_fail(err, SF_INVALID, "%s must not be '.'", name);
    return SF_OK;
}

/* ------------------------------------------------------------------ path of a shard ------------------------------ */

static sf_status fail_template(const char *what, sf_error *err)
{
    return sf_fail(err, SF_INVALID, "output.db_path_template must support format(db_id=...): %s", what);
}

/* Behind the opening brace: "db_id}" or "db_id:05d}". */
static sf_status take_field(const char **at, sf_strbuf *out, uint32_t db_id, sf_error *err)
{
    const char *p = *at;
    bool zeros = false;
    unsigned width = 0;

    if (strncmp(p, "db_id", 5) != 0)
        return fail_template("the only field is {db_id}", err);
    p += 5;
    if (*p == ':') {
        p++;
        zeros = *p == '0';
        for (; *p >= '0' && *p <= '9' && width <= MAX_WIDTH; p++)
            width = width * 10 + (unsigned)(*p - '0');
        if (*p == 'd')
            p++;
    }
    if (width > MAX_WIDTH)
        return fail_template("the field is too wide", err);
    if (*p != '}')
        return fail_template("the field's format must be [0][width][d]", err);
    sf__strbuf_printf(out, zeros ? "%0*u" : "%*u", (int)width, db_id);
    *at = p + 1;
    return SF_OK;
}

static sf_status fill(sf_strbuf *out, const char *path_template, uint32_t db_id, sf_error *err)
{
    const char *p = path_template;
    sf_status rc = SF_OK;

    while (*p && rc == SF_OK) {
        if ((*p == '{' || *p == '}') && p[1] == *p) {
            sf__strbuf_putc(out, *p);
            p += 2;
        } else if (*p == '{') {
            p++;
            rc = take_field(&p, out, db_id, err);
        } else if (*p == '}') {
            rc = fail_template("a single '}'", err);
        } else {
            sf__strbuf_putc(out, *p++);
        }
    }
    return rc;
}

/* Segments that are not empty, nor "." or "..", without control characters. */
static bool is_clean_path(const char *path)
{
    const char *begin = path;

    for (const char *p = path;; p++) {
        size_t n = (size_t)(p - begin);

        if (*p && *p != '/') {
            if (is_control((uint8_t)*p))
                return false;
            continue;
        }
        if (n == 0 || (n == 1 && begin[0] == '.') || (n == 2 && begin[0] == '.' && begin[1] == '.'))
            return false;
        if (!*p)
            return sf_utf8_is_valid(sf_bytes_str(path));
        begin = p + 1;
    }
}

sf_status sf__db_path_format(char **out, const char *path_template, uint32_t db_id, const sf_allocator *a, sf_error *err)
{
    sf_strbuf b;
    sf_status rc;
    char *path;

    sf__strbuf_init(&b, a);
    rc = fill(&b, path_template, db_id, err);
    if (rc != SF_OK) {
        sf__strbuf_cleanup(&b);
        return rc;
    }
    sf__strbuf_puts(&b, "");
    path = sf__strbuf_detach(&b);
    if (!path)
        return sf_fail(err, SF_NOMEM, "path of shard %u", db_id);
    if (!is_clean_path(path)) {
        sf__free(a, path);
        return fail_template("the result must be a relative path without empty, '.' or '..' segments", err);
    }
    *out = path;
    return SF_OK;
}

sf_status sf__db_path_check(const char *path_template, uint32_t num_dbs, const sf_allocator *a, sf_error *err)
{
    char *first, *last = NULL;
    sf_status rc = sf__db_path_format(&first, path_template, 0, a, err);

    if (rc != SF_OK)
        return rc;
    rc = sf__db_path_format(&last, path_template, num_dbs > 0 ? num_dbs - 1 : 0, a, err);
    /* Numbers are never cut, and no digits stand for another number: two shards that differ differ everywhere. */
    if (rc == SF_OK && num_dbs > 1 && strcmp(first, last) == 0)
        rc = fail_template("all shards would lie in one folder", err);
    sf__free(a, first);
    sf__free(a, last);
    return rc;
}

/* ------------------------------------------------------------------ ids ------------------------------------------ */

bool sf__uuid_hex(char out[SF_HEX128_TEXT])
{
    uint8_t bytes[16];
    ssize_t n;

    do
        n = getrandom(bytes, sizeof(bytes), 0);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(bytes))
        return false;
    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
    sf__hex_format(out, sf_bytes_of(bytes, sizeof(bytes)));
    return true;
}
