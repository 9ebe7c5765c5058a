#include "snapshot/relocation.h"

#include <strings.h>

#include "base/error.h"
#include "net/url.h"
#include "site/location.h"

/* A URL as scheme and path; the path of s3 and mem begins with bucket or name. */
struct location {
    sf_bytes scheme; /* "file" for bare paths */
    bool is_encoded; /* the path has %XX for bytes: in file URLs, unless a percent sign of it stands for itself */
    sf_bytes path;   /* without trailing slashes; absolute for files, unless a bare path is relative */
};

static bool is_scheme(const struct location *l, const char *name)
{
    return sf__url_scheme_is(l->scheme, name);
}

static struct location location_of(const char *url)
{
    struct location l = {.scheme = sf__url_scheme_of(url), .path = sf_bytes_of(url, sf__prefix_length(url))};

    if (l.scheme.n > 0) {
        size_t skip = l.scheme.n + 3;

        l.path = sf_bytes_of(l.path.p + skip, l.path.n > skip ? l.path.n - skip : 0);
        l.is_encoded = is_scheme(&l, "file") && sf__url_is_encoded(l.path);
    } else {
        l.scheme = sf_bytes_str("file");
    }
    return l;
}

static bool same_scheme(const struct location *a, const struct location *b)
{
    return a->scheme.n == b->scheme.n &&
           strncasecmp((const char *)a->scheme.p, (const char *)b->scheme.p, a->scheme.n) == 0;
}

size_t sf__prefix_length(const char *prefix)
{
    sf_bytes scheme = sf__url_scheme_of(prefix);
    size_t n = strlen(prefix), least = scheme.n > 0 ? scheme.n + 3 : 0;

    while (n > least && prefix[n - 1] == '/')
        n--;
    return n;
}

/* The next byte that is meant, or -1 at the end. */
static int next_byte(sf_bytes *path, bool is_encoded)
{
    size_t n = 1;
    int c;

    if (path->n == 0)
        return -1;
    c = is_encoded ? sf__url_next(*path, &n) : path->p[0];
    *path = sf_bytes_of(path->p + n, path->n - n);
    return c;
}

/* *rest: what of `a` follows behind all of `b`; false when they differ before. */
static bool begins_with(sf_bytes a, bool a_is_encoded, sf_bytes b, bool b_is_encoded, sf_bytes *rest)
{
    while (b.n > 0)
        if (next_byte(&a, a_is_encoded) != next_byte(&b, b_is_encoded))
            return false;
    *rest = a;
    return true;
}

/* *rest: what follows the prefix, as the location has it, without slashes in front. */
static bool lies_below(const struct location *l, const struct location *prefix, sf_bytes *rest)
{
    sf_bytes r;

    if (!same_scheme(l, prefix) || !begins_with(l->path, l->is_encoded, prefix->path, prefix->is_encoded, &r))
        return false;
    if (r.n > 0 && r.p[0] != '/')
        return false;
    while (r.n > 0 && r.p[0] == '/')
        r = sf_bytes_of(r.p + 1, r.n - 1);
    *rest = r;
    return true;
}

/* "." and ".." mean something to a file system that they did not mean to the object store. */
static bool has_dot_segment(sf_bytes path)
{
    while (path.n > 0) {
        size_t n = 0;

        while (n < path.n && path.p[n] != '/')
            n++;
        if ((n == 1 && path.p[0] == '.') || (n == 2 && path.p[0] == '.' && path.p[1] == '.'))
            return true;
        path = sf_bytes_of(path.p + n, path.n - n);
        if (path.n > 0)
            path = sf_bytes_of(path.p + 1, path.n - 1);
    }
    return false;
}

/* A part of a location as an object's name. NULL without memory. */
static char *name_of(sf_bytes part, bool is_encoded, const sf_allocator *a)
{
    sf_strbuf b;

    sf__strbuf_init(&b, a);
    sf__strbuf_puts(&b, "");
    if (!is_encoded || !sf__url_decode(&b, part))
        sf__strbuf_add(&b, part.p, part.n);
    return sf__strbuf_detach(&b);
}

/* Decoded, a part of a file URL may hold one. */
static bool has_zero(sf_bytes part, bool is_encoded)
{
    for (int c = 0; part.n > 0 && c >= 0;) {
        c = next_byte(&part, is_encoded);
        if (c == 0)
            return true;
    }
    return false;
}

char *sf__location_join(const char *prefix, const char *name, const sf_allocator *a)
{
    sf_strbuf text;

    sf__strbuf_init(&text, a);
    sf__strbuf_add(&text, prefix, sf__prefix_length(prefix));
    sf__strbuf_puts(&text, "/");
    if (sf__url_scheme_is(sf__url_scheme_of(prefix), "file"))
        sf__url_encode_path(&text, sf_bytes_str(name));
    else
        sf__strbuf_puts(&text, name);
    return sf__strbuf_detach(&text);
}

sf_status sf__location_below(char **out, const char *url, const char *prefix, const sf_allocator *a, sf_error *err)
{
    struct location l = location_of(url), above = location_of(prefix);
    sf_bytes rest;

    *out = NULL;
    if (!lies_below(&l, &above, &rest) || rest.n == 0 || has_zero(rest, l.is_encoded))
        return SF_OK;
    *out = name_of(rest, l.is_encoded, a);
    return *out ? SF_OK : sf_fail(err, SF_NOMEM, "location");
}

char *sf__location_decode(const char *url, sf_bytes part, const sf_allocator *a)
{
    return name_of(part, location_of(url).is_encoded, a);
}

bool sf__location_same(const char *a, const char *b)
{
    struct location x = location_of(a), y = location_of(b);
    sf_bytes rest;

    return lies_below(&x, &y, &rest) && rest.n == 0;
}

/* `rest` is a part of `url`, and may hide a segment by encoding it. */
static sf_status join(char **out, const char *prefix, const struct location *url, sf_bytes rest, const sf_allocator *a,
                      sf_error *err)
{
    char *name = name_of(rest, url->is_encoded, a);
    sf_status rc = SF_OK;

    if (name && (has_dot_segment(sf_bytes_str(name)) || has_zero(rest, url->is_encoded)))
        rc = sf_fail(err, SF_BAD_MANIFEST, "location '%.*s' below the prefix has a '.' or '..' segment", (int)rest.n,
                     (const char *)rest.p);
    if (rc == SF_OK && name)
        *out = name[0] ? sf__location_join(prefix, name, a) : sf__strndup(a, prefix, sf__prefix_length(prefix));
    if (rc == SF_OK && (!name || !*out))
        rc = sf_fail(err, SF_NOMEM, "location");
    sf__free(a, name);
    return rc;
}

/* As published. A snapshot from afar must not make its reader open files of the machine it runs on. */
static sf_status keep(char **out, const char *url, const struct location *l, const struct location *given,
                      const sf_allocator *a, sf_error *err)
{
    char *copy;

    if (is_scheme(l, "file") && !is_scheme(given, "file"))
        return sf_fail(err, SF_BAD_MANIFEST, "location '%s' is local, the snapshot is not", url);
    copy = sf__strndup(a, url, sf__prefix_length(url));
    if (!copy)
        return sf_fail(err, SF_NOMEM, "location");
    *out = copy;
    return SF_OK;
}

sf_status sf__location_resolve_shard(char **out, const char *db_url, const char *published_prefix,
                                     const char *given_prefix, bool relocate, const sf_allocator *a, sf_error *err)
{
    struct location url = location_of(db_url), published = location_of(published_prefix);
    struct location given = location_of(given_prefix);
    sf_bytes rest;

    if (url.path.n == 0)
        return sf_fail(err, SF_BAD_MANIFEST, "shard location '%s' names nothing", db_url);
    /* an empty prefix would claim every URL of its scheme */
    if ((relocate || !same_scheme(&url, &given)) && published.path.n > 0 && lies_below(&url, &published, &rest))
        return join(out, given_prefix, &url, rest, a, err);
    return keep(out, db_url, &url, &given, a, err);
}

/* From the last segment "manifests" on, when something and then the object's name follow. */
static bool manifest_part(sf_bytes path, sf_bytes *out)
{
    static const char mark[] = "/manifests/";
    size_t n = sizeof(mark) - 1;

    for (size_t i = path.n >= n ? path.n - n + 1 : 0; i-- > 0;) {
        sf_bytes behind;

        if (memcmp(path.p + i, mark, n) != 0)
            continue;
        behind = sf_bytes_of(path.p + i + n, path.n - i - n);
        if (behind.n == 0 || behind.p[0] == '/' || !memchr(behind.p, '/', behind.n))
            return false;
        *out = sf_bytes_of(path.p + i + 1, path.n - i - 1);
        return true;
    }
    return false;
}

/* A reference that leads nowhere. Below an S3 prefix it is no S3 URL: that is the contract's error, and not a malformed
 * manifest, for which an older one would be tried. */
static sf_status bad_reference(const char *ref, const struct location *given, const char *why, sf_error *err)
{
    if (is_scheme(given, "s3"))
        return sf_fail(err, SF_INVALID, "Invalid S3 URL: %s", ref);
    return sf_fail(err, SF_BAD_MANIFEST, "manifest reference '%s' %s", ref, why);
}

bool sf__location_same_manifest(const char *a, const char *b)
{
    struct location x = location_of(a), y = location_of(b);
    sf_bytes part, other, rest;

    if (!manifest_part(x.path, &part) || !manifest_part(y.path, &other))
        return sf__location_same(a, b);
    return begins_with(part, x.is_encoded, other, y.is_encoded, &rest) && rest.n == 0;
}

sf_status sf__location_resolve_manifest(char **out, const char *ref, const char *given_prefix, bool relocate,
                                        const sf_allocator *a, sf_error *err)
{
    struct location url = location_of(ref), given = location_of(given_prefix);
    bool bare = sf__url_scheme_of(ref).n == 0;
    sf_bytes part;

    if (lies_below(&url, &given, &part))
        return keep(out, ref, &url, &given, a, err); /* named by this very reader, from a listing */
    if (url.path.n == 0 || (bare && ref[0] != '/'))
        return bad_reference(ref, &given, "is not an absolute URL", err);
    if (!relocate && same_scheme(&url, &given))
        return keep(out, ref, &url, &given, a, err);
    if (!manifest_part(url.path, &part))
        return bad_reference(ref, &given, "has no manifests/…/manifest to look for below the prefix", err);
    return join(out, given_prefix, &url, part, a, err);
}

static sf_status confined(sf_status rc, char **out, const char *published, const sf_reach *r, const sf_allocator *a,
                          sf_error *err)
{
    if (rc != SF_OK)
        return rc;
    rc = sf__location_confine(*out, published, r->prefix, r->relocate, r->confine, a, err);
    if (rc != SF_OK) {
        sf__free(a, *out);
        *out = NULL;
    }
    return rc;
}

sf_status sf__location_reach_shard(char **out, const char *db_url, const char *published_prefix, const sf_reach *reach,
                                   const sf_allocator *a, sf_error *err)
{
    sf_status rc = sf__location_resolve_shard(out, db_url, published_prefix, reach->prefix, reach->relocate, a, err);

    return confined(rc, out, published_prefix, reach, a, err);
}

sf_status sf__location_reach_manifest(char **out, const char *ref, const sf_reach *reach, const sf_allocator *a,
                                      sf_error *err)
{
    sf_status rc = sf__location_resolve_manifest(out, ref, reach->prefix, reach->relocate, a, err);

    return confined(rc, out, ref, reach, a, err);
}
