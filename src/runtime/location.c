/* From a URL to the store that holds it and the path below that store's root. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "net/url.h"
#include "runtime/runtime.h"
#include "store/credentials.h"
#include "store/s3.h"
#include "store/store.h"

const char *sf__url_scheme(const char *url)
{
    sf_bytes scheme = sf__url_scheme_of(url);

    if (strstr(url, "://") == NULL || sf_bytes_eq(scheme, sf_bytes_str("file")))
        return "file";
    if (sf_bytes_eq(scheme, sf_bytes_str("s3")))
        return "s3";
    return sf_bytes_eq(scheme, sf_bytes_str("mem")) ? "mem" : "";
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

static sf_status open_file(sf_runtime *rt, const char *url, sf_store **store, char **path, sf_error *err)
{
    const char *p = strstr(url, "://") ? url + strlen("file://") : url;
    char folder[4096];
    sf_strbuf text;

    if (strstr(url, "://") && *p != '/')
        return sf_fail(err, SF_INVALID, "%s: a file URL has three slashes: file:///path", url);
    sf__strbuf_init(&text, rt->alloc);
    if (*p != '/') {
        if (!getcwd(folder, sizeof(folder))) {
            sf__strbuf_cleanup(&text);
            return sf_fail(err, SF_IO, "%s: the current folder is unknown: %s", url, strerror(errno));
        }
        add_segments(&text, folder);
    }
    add_segments(&text, p);
    sf__strbuf_add(&text, "", 0); /* terminates it where the last ".." cut it */
    *path = sf__strbuf_detach(&text);
    if (!*path)
        return sf_fail(err, SF_NOMEM, "path");
    return sf__store_file_new(store, rt->loop, rt->alloc, err);
}

static sf_status open_s3(sf_runtime *rt, const char *bucket, const sf_s3_options *given, sf_store **store, sf_error *err)
{
    const sf_s3_hooks hooks = {.on_retry = on_retry, .ctx = rt};
    sf_s3_options *resolved = NULL;
    sf_status rc = sf__s3_options_resolve(&resolved, given, NULL, NULL, rt->alloc, err);

    if (rc == SF_OK)
        rc = sf__store_s3_new(store, bucket, resolved, rt->http, &rt->log, &hooks, rt->loop, rt->alloc, err);
    sf__s3_options_free(resolved, rt->alloc);
    return rc;
}

/* "scheme://name/path" */
static sf_status open_named(sf_runtime *rt, const char *url, const sf_s3_options *s3, sf_store **store, char **path,
                            sf_error *err)
{
    const char *name = strstr(url, "://") + 3;
    size_t n = strcspn(name, "/");
    const char *rest = name + n + strspn(name + n, "/");
    size_t rest_len = strlen(rest);
    char *copy;
    sf_status rc;

    if (n == 0)
        return sf_fail(err, SF_INVALID, "%s: no bucket", url);
    while (rest_len > 0 && rest[rest_len - 1] == '/')
        rest_len--;
    copy = sf__strndup(rt->alloc, name, n);
    *path = sf__strndup(rt->alloc, rest, rest_len);
    if (!copy || !*path)
        rc = sf_fail(err, SF_NOMEM, "store");
    else if (strcmp(sf__url_scheme(url), "s3") == 0)
        rc = open_s3(rt, copy, s3, store, err);
    else
        rc = sf__store_memory_open(store, copy, rt->loop, rt->alloc, err);
    sf__free(rt->alloc, copy);
    return rc;
}

sf_status sf__runtime_open_store(sf_runtime *rt, const char *url, const sf_s3_options *s3, sf_store **out_store,
                                 char **out_path, sf_error *err)
{
    const char *scheme = sf__url_scheme(url);
    char *path = NULL;
    sf_status rc;

    if (url[0] == '\0')
        return sf_fail(err, SF_INVALID, "empty URL");
    if (strcmp(scheme, "") == 0)
        return sf_fail(err, SF_INVALID, "%s: unknown scheme; known are s3://, file:// and mem://", url);
    if (strcmp(scheme, "file") == 0)
        rc = open_file(rt, url, out_store, &path, err);
    else
        rc = open_named(rt, url, s3, out_store, &path, err);
    if (rc == SF_OK)
        *out_path = path;
    else
        sf__free(rt->alloc, path);
    return rc;
}
