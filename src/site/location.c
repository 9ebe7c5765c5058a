/* From a URL to the store that holds it and the path below that store's root. */
#include "site/location.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "net/url.h"
#include "store/s3.h"
#include "store/s3_options.h"
#include "store/s3_request.h"
#include "store/store.h"

const char *sf__url_scheme(const char *url)
{
    sf_bytes scheme = sf__url_scheme_of(url);

    if (strstr(url, "://") == NULL || sf__url_scheme_is(scheme, "file"))
        return "file";
    if (sf__url_scheme_is(scheme, "s3"))
        return "s3";
    return sf__url_scheme_is(scheme, "mem") ? "mem" : "";
}

/* Bytes of the blank that stands at `s`, or that ends behind `n` bytes of it: those of other scripts, which a copied text
 * brings along, and the mark of a file's beginning. */
static bool is_blank(const char *s, size_t n, bool at_end)
{
    static const char *const blanks[] = {" ",
                                         "\xc2\x85",
                                         "\xc2\xa0",
                                         "\xe2\x80\xa8",
                                         "\xe2\x80\xa9",
                                         "\xe2\x80\xaf",
                                         "\xe2\x80\x8b",
                                         "\xe3\x80\x80",
                                         "\xef\xbb\xbf"};

    for (size_t i = 0; i < sizeof(blanks) / sizeof(blanks[0]); i++) {
        size_t m = strlen(blanks[i]);

        if (m <= n && memcmp(at_end ? s + n - m : s, blanks[i], m) == 0)
            return true;
    }
    return false;
}

/* What nobody means: a text that was read with its line's end, or pasted with what stood beside it. */
static sf_status check_text(const char *url, sf_error *err)
{
    static const char *const schemes[] = {"s3:", "mem:"};
    size_t n = strlen(url);

    if (n == 0)
        return sf_fail(err, SF_INVALID, "empty URL");
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)url[i] < ' ' || url[i] == 0x7f)
            return sf_fail(err, SF_INVALID, "\"%.*s\\x%02x...\": a URL cannot have control characters", (int)i, url,
                           (unsigned char)url[i]);
    if (is_blank(url, n, false) || is_blank(url, n, true))
        return sf_fail(err, SF_INVALID, "\"%s\": a blank stands %s the URL", url,
                       is_blank(url, n, false) ? "before" : "behind");
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t m = strlen(schemes[i]);

        if (strncasecmp(url, schemes[i], m) == 0 && strncmp(url + m, "//", 2) != 0)
            return sf_fail(err, SF_INVALID, "%s: two slashes belong behind %s", url, schemes[i]);
    }
    return SF_OK;
}

static void on_retry(void *ctx, const char *operation, uint32_t attempt, int64_t delay_ms)
{
    sf_runtime *rt = ctx;

    atomic_fetch_add_explicit(&rt->retries, 1, memory_order_relaxed);
}

/* Appends the segments of `path`: empty ones and "." vanish, ".." takes one away. */
static void add_segments(sf_strbuf *out, const char *path)
{
    while (*path) {
        size_t n = strcspn(path, "/");

        if (n == 2 && path[0] == '.' && path[1] == '.') {
            while (out->n > 0 && out->s[--out->n] != '/')
                ;
        } else if (n > 0 && !(n == 1 && path[0] == '.')) {
            if (out->n > 0)
                sf__strbuf_putc(out, '/');
            sf__strbuf_add(out, path, n);
        }
        path += n + (path[n] == '/');
    }
}

/* The path in a file URL, decoded into `out`; a bare path as it is. Both file:///x and file:/x are in use. */
static sf_status file_url_path(sf_strbuf *out, const char *url, sf_error *err)
{
    const char *p = url;

    if (strncasecmp(url, "file:/", 6) != 0) {
        sf__strbuf_puts(out, url);
        return SF_OK;
    }
    p += strlen("file:");
    if (strncasecmp(p, "//localhost/", 12) == 0)
        p += strlen("//localhost");
    else if (strncmp(p, "//", 2) == 0)
        p += 2;
    if (*p != '/')
        return sf_fail(err, SF_INVALID, "%s: a file URL has three slashes, and no host: file:///path", url);
    if (!sf__url_decode(out, sf_bytes_str(p))) /* a percent sign that somebody has not encoded */
        sf__strbuf_puts(out, p);
    if (out->s && memchr(out->s, '\0', out->n))
        return sf_fail(err, SF_INVALID, "%s: a path cannot have a zero byte", url);
    return SF_OK;
}

/* The absolute path of a file URL or a bare path, without its first slash. */
static sf_status file_path(char **out, const char *url, const sf_allocator *a, sf_error *err)
{
    sf_strbuf text, given;
    char folder[4096];
    const char *p;
    sf_status rc;

    sf__strbuf_init(&text, a);
    sf__strbuf_init(&given, a);
    rc = file_url_path(&given, url, err);
    p = given.failed ? NULL : given.s;
    if (rc == SF_OK && p && *p != '/' && !getcwd(folder, sizeof(folder)))
        rc = sf_fail(err, SF_IO, "%s: the current folder is unknown: %s", url, strerror(errno));
    if (rc == SF_OK && p) {
        if (*p != '/')
            add_segments(&text, folder);
        add_segments(&text, p);
    }
    sf__strbuf_cleanup(&given);
    sf__strbuf_add(&text, "", 0); /* terminates it where the last ".." cut it */
    *out = sf__strbuf_detach(&text);
    if (rc == SF_OK && *out && p)
        return SF_OK;
    sf__free(a, *out);
    *out = NULL;
    return rc != SF_OK ? rc : sf_fail(err, SF_NOMEM, "path");
}

sf_status sf__location_split(const char *url, const sf_allocator *a, char **out_root, char **out_path, sf_error *err)
{
    const char *scheme = sf__url_scheme(url);
    char *root = NULL, *path = NULL;
    sf_status rc = check_text(url, err);

    if (rc != SF_OK)
        return rc;
    if (strcmp(scheme, "") == 0)
        return sf_fail(err, SF_INVALID, "%s: unknown scheme; known are s3://, file:// and mem://", url);
    if (strcmp(scheme, "file") == 0) {
        root = sf__strdup(a, "file://");
        rc = file_path(&path, url, a, err);
    } else { /* scheme://name/path */
        const char *name = strstr(url, "://") + 3;
        size_t name_len = strcspn(name, "/");
        const char *rest = name + name_len + strspn(name + name_len, "/");
        size_t rest_len = strlen(rest);

        if (name_len == 0)
            return sf_fail(err, SF_INVALID, "%s: no bucket", url);
        while (rest_len > 0 && rest[rest_len - 1] == '/')
            rest_len--;
        root = sf__asprintf(a, "%s://%.*s", scheme, (int)name_len, name);
        path = sf__strndup(a, rest, rest_len);
    }
    if (rc == SF_OK && (!root || !path))
        rc = sf_fail(err, SF_NOMEM, "URL");
    if (rc == SF_OK && strcmp(scheme, "s3") == 0)
        rc = sf__s3_bucket_check(root + strlen("s3://"), err);
    if (rc == SF_OK) {
        *out_root = root;
        *out_path = path;
        return SF_OK;
    }
    sf__free(a, root);
    sf__free(a, path);
    return rc;
}

/* ------------------------------------------------------------------ staying below a prefix ------------------------ */

/* To an object store they are letters; what lies on the way to it may think otherwise. */
static bool has_dot_segment(const char *path)
{
    for (;;) {
        size_t n = strcspn(path, "/");

        if ((n == 1 && path[0] == '.') || (n == 2 && path[0] == '.' && path[1] == '.'))
            return true;
        if (path[n] == '\0')
            return false;
        path += n + 1;
    }
}

static bool lies_below(const char *path, const char *prefix)
{
    size_t n = strlen(prefix);

    return n == 0 || (strncmp(path, prefix, n) == 0 && (path[n] == '/' || path[n] == '\0'));
}

sf_status sf__location_confine(const char *url, const char *published, const char *prefix, bool relocate,
                               sf_confine confine, const sf_allocator *a, sf_error *err)
{
    const char *scheme = sf__url_scheme(prefix);
    char *root = NULL, *path = NULL, *prefix_root = NULL, *prefix_path = NULL;
    bool moved = relocate || strcmp(sf__url_scheme(published), scheme) != 0;
    sf_status rc;

    if (confine == SF_CONFINE_NO || (confine == SF_CONFINE_DEFAULT && !moved && strcmp(scheme, "file") != 0))
        return SF_OK;
    rc = sf__location_split(url, a, &root, &path, err);
    if (rc == SF_OK)
        rc = sf__location_split(prefix, a, &prefix_root, &prefix_path, err);
    if (rc == SF_INVALID)
        rc = sf_error_prefix(err, SF_BAD_MANIFEST, "location: ");
    else if (rc == SF_OK && (strcmp(root, prefix_root) != 0 || !lies_below(path, prefix_path) || has_dot_segment(path)))
        rc = sf_fail(err, SF_DENIED, "location '%s' is not below '%s', and the reader is confined to that prefix%s",
                     url, prefix,
                     relocate ? " (option confine)"
                              : "; to read a copy give relocate, to read it there all the same turn confine off");
    sf__free(a, root);
    sf__free(a, path);
    sf__free(a, prefix_root);
    sf__free(a, prefix_path);
    return rc;
}

sf_status sf__location_canonical(char **out, const char *url, const sf_allocator *a, sf_error *err)
{
    char *root, *path;
    sf_strbuf text;
    sf_status rc = sf__location_split(url, a, &root, &path, err);

    if (rc != SF_OK)
        return rc;
    sf__strbuf_init(&text, a);
    sf__strbuf_puts(&text, root);
    if (path[0])
        sf__strbuf_putc(&text, '/');
    if (strcmp(root, "file://") == 0)
        sf__url_encode_path(&text, sf_bytes_str(path));
    else
        sf__strbuf_puts(&text, path);
    sf__free(a, root);
    sf__free(a, path);
    *out = sf__strbuf_detach(&text);
    return *out ? SF_OK : sf_fail(err, SF_NOMEM, "URL");
}

sf_status sf_url_split(const char *url, char *root, size_t root_size, char *key, size_t key_size, sf_error *err)
{
    const sf_allocator *a = &sf__allocator_default;
    char *r, *k;
    sf_status rc = sf__location_split(url, a, &r, &k, err);

    if (rc != SF_OK)
        return rc;
    if (strlen(r) >= root_size || strlen(k) >= key_size) {
        rc = sf_fail(err, SF_INVALID, "%.64s...: the URL is too long", url);
    } else {
        memcpy(root, r, strlen(r) + 1);
        memcpy(key, k, strlen(k) + 1);
    }
    sf__free(a, r);
    sf__free(a, k);
    return rc;
}

sf_status sf__location_open_bucket(sf_runtime *rt, const char *root, const sf_s3_resolved *s3, sf_store **out,
                                   sf_error *err)
{
    const sf_s3_hooks hooks = {.on_retry = on_retry, .ctx = rt};

    return sf__store_s3_new(out, root + strlen("s3://"), s3, rt->http, &rt->log, &hooks, rt->loop, rt->alloc, err);
}

static sf_status open_s3(sf_runtime *rt, const char *root, const sf_s3_options *given, sf_store **store, sf_error *err)
{
    sf_s3_resolved *resolved = NULL;
    sf_status rc = sf__s3_options_resolve(&resolved, given, NULL, NULL, rt->alloc, err);

    if (rc == SF_OK)
        rc = sf__location_open_bucket(rt, root, resolved, store, err);
    sf__s3_resolved_free(resolved, rt->alloc);
    return rc;
}

/* A mem:// space is gone with its last store, so the runtime holds one: what is published there can be read later. */
static sf_status keep_space(sf_runtime *rt, sf_store *store, sf_error *err)
{
    sf_status rc = SF_OK;
    sf_store **grown;
    size_t i = 0;

    sf_mutex_lock(&rt->spaces_lock);
    while (i < rt->space_count && strcmp(rt->spaces[i]->url, store->url) != 0)
        i++;
    if (i == rt->space_count) {
        grown = sf__realloc(rt->alloc, rt->spaces, (rt->space_count + 1) * sizeof(*grown));
        if (grown) {
            rt->spaces = grown;
            rt->spaces[rt->space_count++] = sf__store_acquire(store);
        } else {
            rc = sf_fail(err, SF_NOMEM, "memory store");
        }
    }
    sf_mutex_unlock(&rt->spaces_lock);
    return rc;
}

static sf_status open_memory(sf_runtime *rt, const char *name, sf_store **out, sf_error *err)
{
    sf_store *store;
    sf_status rc = sf__store_memory_open(&store, name, rt->loop, rt->alloc, err);

    if (rc != SF_OK)
        return rc;
    rc = keep_space(rt, store, err);
    if (rc == SF_OK)
        *out = store;
    else
        sf__store_release(store);
    return rc;
}

sf_status sf__location_open_root(sf_runtime *rt, const char *root, const sf_s3_options *s3, sf_store **out, sf_error *err)
{
    const char *scheme = sf__url_scheme(root);
    const char *name = root + strlen(scheme) + strlen("://");

    if (strcmp(scheme, "file") == 0)
        return sf__store_file_new(out, rt->loop, rt->alloc, err);
    if (strcmp(scheme, "s3") == 0)
        return open_s3(rt, root, s3, out, err);
    return open_memory(rt, name, out, err);
}

sf_status sf__location_open(sf_runtime *rt, const char *url, const sf_s3_options *s3, sf_store **out_store,
                            char **out_path, sf_error *err)
{
    char *root, *path;
    sf_status rc = sf__location_split(url, rt->alloc, &root, &path, err);

    if (rc != SF_OK)
        return rc;
    rc = sf__location_open_root(rt, root, s3, out_store, err);
    sf__free(rt->alloc, root);
    if (rc == SF_OK)
        *out_path = path;
    else
        sf__free(rt->alloc, path);
    return rc;
}
