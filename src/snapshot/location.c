#include "snapshot/location.h"

#include "base/error.h"
#include "net/url.h"

/* A URL as scheme and path; the path of s3 and mem begins with bucket or name. */
struct location {
    sf_bytes scheme; /* "file" for bare paths */
    sf_bytes path;   /* without trailing slashes; absolute for files, unless a bare path is relative */
};

static struct location location_of(const char *url)
{
    struct location l = {sf__url_scheme_of(url), sf_bytes_of(url, sf__prefix_length(url))};

    if (l.scheme.n > 0) {
        size_t skip = l.scheme.n + 3;

        l.path = sf_bytes_of(l.path.p + skip, l.path.n > skip ? l.path.n - skip : 0);
    } else {
        l.scheme = sf_bytes_str("file");
    }
    return l;
}

static bool is_scheme(const struct location *l, const char *name)
{
    return sf_bytes_eq(l->scheme, sf_bytes_str(name));
}

size_t sf__prefix_length(const char *prefix)
{
    sf_bytes scheme = sf__url_scheme_of(prefix);
    size_t n = strlen(prefix), least = scheme.n > 0 ? scheme.n + 3 : 0;

    while (n > least && prefix[n - 1] == '/')
        n--;
    return n;
}

/* *rest: what follows the prefix, without slashes in front. */
static bool lies_below(const struct location *l, const struct location *prefix, sf_bytes *rest)
{
    sf_bytes r;

    if (!sf_bytes_eq(l->scheme, prefix->scheme) || !sf_bytes_starts_with(l->path, prefix->path))
        return false;
    if (!sf_bytes_slice(l->path, prefix->path.n, l->path.n - prefix->path.n, &r))
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

static sf_status join(char **out, const char *prefix, sf_bytes rest, const sf_allocator *a, sf_error *err)
{
    char *url;

    if (has_dot_segment(rest))
        return sf_fail(err, SF_BAD_MANIFEST, "location '%.*s' below the prefix has a '.' or '..' segment", (int)rest.n,
                       (const char *)rest.p);
    url = sf__asprintf(a, "%.*s%s%.*s", (int)sf__prefix_length(prefix), prefix, rest.n > 0 ? "/" : "", (int)rest.n,
                       (const char *)rest.p);
    if (!url)
        return sf_fail(err, SF_NOMEM, "location");
    *out = url;
    return SF_OK;
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
    if ((relocate || !sf_bytes_eq(url.scheme, given.scheme)) && published.path.n > 0 &&
        lies_below(&url, &published, &rest))
        return join(out, given_prefix, rest, a, err);
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
    if (!relocate && sf_bytes_eq(url.scheme, given.scheme))
        return keep(out, ref, &url, &given, a, err);
    if (!manifest_part(url.path, &part))
        return bad_reference(ref, &given, "has no manifests/…/manifest to look for below the prefix", err);
    return join(out, given_prefix, part, a, err);
}
