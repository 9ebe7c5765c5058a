#include "snapshot/manifest_name.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/utf8.h"
#include "snapshot/datetime.h"
#include "snapshot/relocation.h"

#define RUN_ID "run_id="

/* Decimal digits of every script: the existing readers take them too, so such a folder counts in the history. The
 * table holds the zeros (Unicode 14, category Nd); each is followed by its nine fellows. */
static bool digit_value(uint32_t c, unsigned *out)
{
    static const uint32_t zeros[] = {
        0x30,    0x660,   0x6f0,   0x7c0,   0x966,   0x9e6,   0xa66,   0xae6,   0xb66,   0xbe6,   0xc66,
        0xce6,   0xd66,   0xde6,   0xe50,   0xed0,   0xf20,   0x1040,  0x1090,  0x17e0,  0x1810,  0x1946,
        0x19d0,  0x1a80,  0x1a90,  0x1b50,  0x1bb0,  0x1c40,  0x1c50,  0xa620,  0xa8d0,  0xa900,  0xa9d0,
        0xa9f0,  0xaa50,  0xabf0,  0xff10,  0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0,
        0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60,
        0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
    };

    for (size_t i = 0; i < sizeof(zeros) / sizeof(zeros[0]) && zeros[i] <= c; i++) {
        if (c - zeros[i] < 10) {
            *out = c - zeros[i];
            return true;
        }
    }
    return false;
}

/* Field by field after a pattern in which 'd' is a digit and anything else itself. A digit belongs to the field that
 * the non-digits before it count. */
static bool take_time(sf_cursor *c, unsigned fields[7])
{
    size_t field = 0;

    memset(fields, 0, 7 * sizeof(fields[0]));
    for (const char *p = "dddd-dd-ddTdd:dd:dd.ddddddZ_" RUN_ID; *p; p++) {
        uint32_t v;
        unsigned digit;

        if (!sf_cursor_utf8(c, &v))
            return false;
        if (*p == 'd' && field < 7) {
            if (!digit_value(v, &digit))
                return false;
            fields[field] = fields[field] * 10 + digit;
        } else {
            if (v != (uint8_t)*p)
                return false;
            field++;
        }
    }
    return true;
}

bool sf__manifest_name_parse(sf_bytes name, sf_manifest_name *out)
{
    sf_cursor c = name;
    unsigned f[7]; /* year, month, day, hour, minute, second, microsecond */
    int64_t us;

    if (c.n > 0 && c.p[c.n - 1] == '/')
        c.n--;
    if (!take_time(&c, f) || c.n == 0 || memchr(c.p, '/', c.n) || !sf_utf8_is_valid(c))
        return false;
    if (!sf__datetime_from_fields(f[0], f[1], f[2], f[3], f[4], f[5], &us))
        return false;
    *out = (sf_manifest_name){us + f[6], c};
    return true;
}

sf_status sf__manifest_name_format(char **out, int64_t published_at_us, const char *run_id, const sf_allocator *a,
                                   sf_error *err)
{
    char time[SF_DATETIME_TEXT];
    sf_manifest_name back;
    char *name;

    for (const char *p = run_id; *p; p++)
        if ((uint8_t)*p < 0x20 || *p == 0x7f)
            return sf_fail(err, SF_INVALID, "run id holds a control character");
    if (strcmp(run_id, ".") == 0 || strcmp(run_id, "..") == 0)
        return sf_fail(err, SF_INVALID, "run id must not be '%s'", run_id);
    sf__datetime_format_folder(time, published_at_us);
    name = sf__asprintf(a, "%s_" RUN_ID "%s", time, run_id);
    if (!name)
        return sf_fail(err, SF_NOMEM, "name of the manifest");
    if (strchr(run_id, '/') || !sf__manifest_name_parse(sf_bytes_str(name), &back)) {
        sf__free(a, name);
        return sf_fail(err, SF_INVALID, "a manifest named after this run id or time could not be listed again");
    }
    *out = name;
    return SF_OK;
}

bool sf__run_id_from_ref(sf_bytes ref, sf_bytes *out)
{
    sf_bytes mark = sf_bytes_str(RUN_ID);
    bool found = false;

    for (size_t i = 0; i + mark.n < ref.n; i++) {
        size_t end = i + mark.n;

        if (memcmp(ref.p + i, mark.p, mark.n) != 0)
            continue;
        while (end < ref.n && ref.p[end] != '/')
            end++;
        if (end == i + mark.n)
            continue;
        *out = sf_bytes_of(ref.p + i + mark.n, end - i - mark.n);
        found = true;
        i = end - 1; /* a second mark in the same segment belongs to the run id */
    }
    return found;
}

/* ------------------------------------------------------------------ listings ------------------------------------- */

struct listed {
    sf_bytes folder;
    sf_manifest_name name;
};

static int by_time_then_name(const void *a, const void *b)
{
    const struct listed *x = a, *y = b;

    if (x->name.published_at_us != y->name.published_at_us)
        return x->name.published_at_us < y->name.published_at_us ? 1 : -1;
    return sf_bytes_cmp(x->folder, y->folder);
}

/* The last segment of "some/where/NAME/". */
static bool folder_of(const sf_store_entry *e, sf_bytes *out)
{
    sf_bytes key = sf_bytes_str(e->key);
    size_t begin;

    if (!e->is_prefix || key.n == 0)
        return false;
    if (key.p[key.n - 1] == '/')
        key.n--;
    for (begin = key.n; begin > 0 && key.p[begin - 1] != '/';)
        begin--;
    *out = sf_bytes_of(key.p + begin, key.n - begin);
    return true;
}

static bool ref_fill(sf_manifest_ref *r, const char *prefix, const char *name, const struct listed *l,
                     const sf_allocator *a)
{
    char *path = sf__asprintf(a, "manifests/%.*s/%s", (int)l->folder.n, (const char *)l->folder.p, name);

    r->ref = path ? sf__location_join(prefix, path, a) : NULL;
    sf__free(a, path);
    r->run_id = sf__strndup(a, l->name.run_id.p, l->name.run_id.n);
    r->published_at_us = l->name.published_at_us;
    return r->ref && r->run_id;
}

sf_status sf__manifest_refs_from_listing(sf_manifest_ref **out, size_t *count, const char *prefix, const char *name,
                                         const sf_store_entry *entries, size_t entry_count, size_t limit,
                                         const sf_allocator *a, sf_error *err)
{
    struct listed *all;
    sf_manifest_ref *refs = NULL;
    size_t n = 0;
    bool ok = true;

    if (entry_count == 0 || limit == 0) {
        *out = NULL;
        *count = 0;
        return SF_OK;
    }
    all = sf__calloc(a, entry_count, sizeof(*all));
    if (!all)
        return sf_fail(err, SF_NOMEM, "listing of %zu manifests", entry_count);
    for (size_t i = 0; i < entry_count; i++)
        if (folder_of(&entries[i], &all[n].folder) && sf__manifest_name_parse(all[n].folder, &all[n].name))
            n++;
    if (n > 1)
        qsort(all, n, sizeof(*all), by_time_then_name);
    if (n > limit)
        n = limit;
    if (n > 0) {
        refs = sf__calloc(a, n, sizeof(*refs));
        ok = refs != NULL;
    }
    for (size_t i = 0; i < n && ok; i++)
        ok = ref_fill(&refs[i], prefix, name, &all[i], a);
    sf__free(a, all);
    if (!ok) {
        sf__manifest_refs_free(refs, n, a);
        return sf_fail(err, SF_NOMEM, "listing of %zu manifests", n);
    }
    *out = refs;
    *count = n;
    return SF_OK;
}

void sf__manifest_refs_free(sf_manifest_ref *refs, size_t count, const sf_allocator *a)
{
    for (size_t i = 0; refs && i < count; i++) {
        sf__free(a, refs[i].ref);
        sf__free(a, refs[i].run_id);
    }
    sf__free(a, refs);
}
