#include "store/s3_xml.h"

#include <stdio.h>
#include <stdlib.h>

#include "auth/credentials.h"
#include "base/error.h"
#include "base/grow.h"
#include "base/xml.h"
#include "net/url.h"

/* S3 gives at most 1000 objects a page; other servers are not trusted to. */
#define MAX_PAGE_ENTRIES 100000u

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* ------------------------------------------------------------------ ListBucketResult ----------------------------- */

struct page_reader {
    sf_s3_page page;
    size_t cap;
    sf_store_entry item; /* of the open <Contents> */
    bool has_size;
    bool is_list, encoded; /* the root is the right one; <EncodingType> may stand behind the keys */
    bool truncated;
    char *marker;
};

/* No token of a server begins with it. */
#define MARKER '\1'

const char *sf__s3_list_marker(const char *next)
{
    return next[0] == MARKER ? next + 1 : NULL;
}

static void page_add(sf_xml_reader *r, sf_store_entry entry)
{
    struct page_reader *p = r->ctx;

    if (p->page.entry_count == MAX_PAGE_ENTRIES) {
        sf__xml_stop(r, SF_CORRUPT, "more than %u entries in a page", MAX_PAGE_ENTRIES);
    } else if (!SF_RESERVE(r->alloc, &p->page.entries, &p->cap, p->page.entry_count + 1)) {
        sf__xml_stop(r, SF_NOMEM, "page of %zu entries", p->page.entry_count);
    }
    if (r->rc == SF_OK)
        p->page.entries[p->page.entry_count++] = entry;
    else
        sf__free(r->alloc, entry.key);
}

static void page_end(sf_xml_reader *r, const char *path, const char *text)
{
    static const char root[] = "ListBucketResult/";
    struct page_reader *p = r->ctx;
    sf_store_entry prefix = {.is_prefix = true};

    if (is(path, "ListBucketResult")) {
        p->is_list = true;
        return;
    }
    if (strncmp(path, root, sizeof(root) - 1) != 0)
        return;
    path += sizeof(root) - 1;
    if (is(path, "Contents/Key")) {
        sf__xml_set_text(r, &p->item.key, text);
    } else if (is(path, "Contents/Size")) {
        p->has_size = sf__xml_u64(text, &p->item.size);
    } else if (is(path, "Contents/ETag")) {
        p->item.etag_hash = sf__store_etag_hash(text);
    } else if (is(path, "Contents")) {
        sf_store_entry item = p->item;
        bool complete = item.key && p->has_size;

        if (!complete) {
            sf__xml_stop(r, SF_CORRUPT, "an object has no key or no size");
            return; /* the key is freed with the reader */
        }
        p->item = (sf_store_entry){0};
        p->has_size = false;
        page_add(r, item);
    } else if (is(path, "CommonPrefixes/Prefix")) {
        if (sf__xml_set_text(r, &prefix.key, text))
            page_add(r, prefix);
    } else if (is(path, "EncodingType")) {
        p->encoded = is(text, "url");
    } else if (is(path, "IsTruncated")) {
        p->truncated = is(text, "true");
    } else if (is(path, "NextContinuationToken")) {
        sf__xml_set_text(r, &p->page.next, text);
    } else if (is(path, "NextMarker")) {
        sf__xml_set_text(r, &p->marker, text);
    }
}

/* Encoded as in an HTML form: '+' is a blank. */
static sf_status decode_key(char **key, const sf_allocator *a, sf_error *err)
{
    sf_strbuf plain;
    char *decoded;

    for (char *p = *key; *p; p++)
        if (*p == '+')
            *p = ' ';
    sf__strbuf_init(&plain, a);
    sf__strbuf_add(&plain, "", 0);
    if (!sf__url_decode(&plain, sf_bytes_str(*key))) {
        sf__strbuf_cleanup(&plain);
        return sf_fail(err, SF_CORRUPT, "a key is not percent-encoded");
    }
    if (plain.n > 0 && memchr(plain.s, '\0', plain.n)) {
        sf__strbuf_cleanup(&plain);
        return sf_fail(err, SF_CORRUPT, "a key holds a zero byte");
    }
    sf__strbuf_putc(&plain, '\0'); /* so that an empty key has memory, too */
    decoded = sf__strbuf_detach(&plain);
    if (!decoded)
        return sf_fail(err, SF_NOMEM, "key");
    sf__free(a, *key);
    *key = decoded;
    return SF_OK;
}

static int compare_entries(const void *a, const void *b)
{
    const sf_store_entry *x = a, *y = b;

    return strcmp(x->key, y->key);
}

static bool objects_ascend(const sf_s3_page *page)
{
    const char *last = NULL;

    for (size_t i = 0; i < page->entry_count; i++) {
        if (page->entries[i].is_prefix)
            continue;
        if (last && strcmp(last, page->entries[i].key) > 0)
            return false;
        last = page->entries[i].key;
    }
    return true;
}

/* A server of the first version says the last key, if anything: the next page is behind it. */
static sf_status page_mark(struct page_reader *p, const sf_allocator *a, sf_error *err)
{
    const char *last = p->marker && p->marker[0] ? p->marker
                       : p->page.entry_count > 0 ? p->page.entries[p->page.entry_count - 1].key
                                                 : "";

    if (!last[0])
        return sf_fail(err, SF_CORRUPT, "XML: the listing goes on, but does not say where");
    p->page.next = sf__asprintf(a, "%c%s", MARKER, last);
    return p->page.next ? SF_OK : sf_fail(err, SF_NOMEM, "listing");
}

static sf_status page_check(struct page_reader *p, const char *prefix, const sf_allocator *a, sf_error *err)
{
    size_t prefix_n = strlen(prefix);

    if (!p->is_list)
        return sf_fail(err, SF_CORRUPT, "XML: not a listing");
    if (!p->truncated || (p->page.next && !p->page.next[0])) {
        sf__free(a, p->page.next);
        p->page.next = NULL;
    }
    if (p->encoded && p->marker && decode_key(&p->marker, a, err) != SF_OK)
        return err->code;
    for (size_t i = 0; i < p->page.entry_count; i++) {
        sf_status rc = p->encoded ? decode_key(&p->page.entries[i].key, a, err) : SF_OK;

        if (rc != SF_OK)
            return rc;
        if (strncmp(p->page.entries[i].key, prefix, prefix_n) != 0)
            return sf_fail(err, SF_CORRUPT, "the listing holds a key outside of the prefix");
    }
    p->page.unsorted = !objects_ascend(&p->page);
    if (p->page.entry_count > 1) /* objects and prefixes come in two runs; some servers do not sort at all */
        qsort(p->page.entries, p->page.entry_count, sizeof(*p->page.entries), compare_entries);
    return p->truncated && !p->page.next ? page_mark(p, a, err) : SF_OK;
}

sf_status sf__s3_xml_page(sf_bytes body, const char *prefix, sf_s3_page *out, const sf_allocator *a, sf_error *err)
{
    struct page_reader p = {0};
    sf_status rc = sf__xml_read(body, page_end, &p, a, err);

    *out = (sf_s3_page){0};
    if (rc == SF_OK)
        rc = page_check(&p, prefix, a, err);
    sf__free(a, p.item.key);
    sf__free(a, p.marker);
    if (rc == SF_OK)
        *out = p.page;
    else
        sf__s3_page_cleanup(&p.page, a);
    return rc;
}

void sf__s3_page_cleanup(sf_s3_page *page, const sf_allocator *a)
{
    for (size_t i = 0; i < page->entry_count; i++)
        sf__free(a, page->entries[i].key);
    sf__free(a, page->entries);
    sf__free(a, page->next);
    *page = (sf_s3_page){0};
}

/* ------------------------------------------------------------------ ListMultipartUploadsResult ------------------- */

struct uploads_reader {
    sf_s3_uploads page;
    size_t cap;
    sf_store_upload item; /* of the open <Upload> */
    bool is_list, is_other, encoded, truncated;
};

static void uploads_add(sf_xml_reader *r)
{
    struct uploads_reader *u = r->ctx;

    if (!u->item.key || !u->item.key[0] || !u->item.id || !u->item.id[0]) {
        sf__xml_stop(r, SF_CORRUPT, "an upload has no key or no id");
    } else if (u->page.upload_count == MAX_PAGE_ENTRIES) {
        sf__xml_stop(r, SF_CORRUPT, "more than %u uploads in a page", MAX_PAGE_ENTRIES);
    } else if (!SF_RESERVE(r->alloc, &u->page.uploads, &u->cap, u->page.upload_count + 1)) {
        sf__xml_stop(r, SF_NOMEM, "page of %zu uploads", u->page.upload_count);
    }
    if (r->rc != SF_OK)
        return; /* the item is freed with the reader */
    u->page.uploads[u->page.upload_count++] = u->item;
    u->item = (sf_store_upload){0};
}

static void uploads_end(sf_xml_reader *r, const char *path, const char *text)
{
    static const char root[] = "ListMultipartUploadsResult/";
    struct uploads_reader *u = r->ctx;

    u->is_list = u->is_list || is(path, "ListMultipartUploadsResult");
    u->is_other = u->is_other || is(path, "ListBucketResult");
    if (strncmp(path, root, sizeof(root) - 1) != 0)
        return;
    path += sizeof(root) - 1;
    if (is(path, "Upload/Key"))
        sf__xml_set_text(r, &u->item.key, text);
    else if (is(path, "Upload/UploadId"))
        sf__xml_set_text(r, &u->item.id, text);
    else if (is(path, "Upload/Initiated") && !sf__credential_time_parse(sf_bytes_str(text), &u->item.begun_us))
        sf__xml_stop(r, SF_CORRUPT, "Initiated is not a time");
    else if (is(path, "Upload"))
        uploads_add(r);
    else if (is(path, "EncodingType"))
        u->encoded = is(text, "url");
    else if (is(path, "IsTruncated"))
        u->truncated = is(text, "true");
    else if (is(path, "NextKeyMarker"))
        sf__xml_set_text(r, &u->page.next_key, text);
    else if (is(path, "NextUploadIdMarker"))
        sf__xml_set_text(r, &u->page.next_id, text);
}

static sf_status uploads_check(struct uploads_reader *u, const char *prefix, const sf_allocator *a, sf_error *err)
{
    sf_s3_uploads *page = &u->page;
    size_t prefix_n = strlen(prefix);
    sf_status rc = SF_OK;

    if (u->is_other)
        return sf_fail(err, SF_UNSUPPORTED, "objects are listed instead of uploads");
    if (!u->is_list)
        return sf_fail(err, SF_CORRUPT, "XML: not a list of uploads");
    if (u->truncated && (!page->next_key || !page->next_key[0]))
        return sf_fail(err, SF_CORRUPT, "XML: the list of uploads goes on, but does not say where");
    if (!u->truncated) {
        sf__free(a, page->next_key);
        sf__free(a, page->next_id);
        page->next_key = page->next_id = NULL;
    }
    if (u->encoded && page->next_key)
        rc = decode_key(&page->next_key, a, err);
    for (size_t i = 0; i < page->upload_count && rc == SF_OK; i++) {
        if (u->encoded)
            rc = decode_key(&page->uploads[i].key, a, err);
        if (rc == SF_OK && strncmp(page->uploads[i].key, prefix, prefix_n) != 0)
            rc = sf_fail(err, SF_CORRUPT, "the list holds an upload outside of the prefix");
    }
    return rc;
}

sf_status sf__s3_xml_uploads(sf_bytes body, const char *prefix, sf_s3_uploads *out, const sf_allocator *a, sf_error *err)
{
    struct uploads_reader u = {.cap = 0};
    sf_status rc = sf__xml_read(body, uploads_end, &u, a, err);

    *out = (sf_s3_uploads){0};
    if (rc == SF_OK)
        rc = uploads_check(&u, prefix, a, err);
    sf__free(a, u.item.key);
    sf__free(a, u.item.id);
    if (rc == SF_OK)
        *out = u.page;
    else
        sf__s3_uploads_cleanup(&u.page, a);
    return rc;
}

void sf__s3_uploads_cleanup(sf_s3_uploads *page, const sf_allocator *a)
{
    sf__store_uploads_free(page->uploads, page->upload_count, a);
    sf__free(a, page->next_key);
    sf__free(a, page->next_id);
    *page = (sf_s3_uploads){0};
}

/* ------------------------------------------------------------------ uploads -------------------------------------- */

static void created_end(sf_xml_reader *r, const char *path, const char *text)
{
    if (is(path, "InitiateMultipartUploadResult/UploadId"))
        sf__xml_set_text(r, r->ctx, text);
}

sf_status sf__s3_xml_created(sf_bytes body, char **upload_id, const sf_allocator *a, sf_error *err)
{
    char *id = NULL;
    sf_status rc = sf__xml_read(body, created_end, &id, a, err);

    if (rc == SF_OK && (!id || !id[0]))
        rc = sf_fail(err, SF_CORRUPT, "XML: no upload id");
    if (rc == SF_OK)
        *upload_id = id;
    else
        sf__free(a, id);
    return rc;
}

struct completed_reader {
    sf_s3_fault *fault;
    bool is_result, is_fault;
    bool long_etag;
    char etag[128];
};

static void completed_end(sf_xml_reader *r, const char *path, const char *text)
{
    struct completed_reader *c = r->ctx;

    if (is(path, "CompleteMultipartUploadResult"))
        c->is_result = true;
    else if (is(path, "CompleteMultipartUploadResult/ETag"))
        c->long_etag = (size_t)snprintf(c->etag, sizeof(c->etag), "%s", text) >= sizeof(c->etag);
    else if (sf__s3_fault_element(c->fault, path, text))
        c->is_fault = true;
}

sf_status sf__s3_xml_completed(sf_bytes body, char etag[128], sf_s3_fault *fault, const sf_allocator *a, sf_error *err)
{
    struct completed_reader c = {.fault = fault};
    sf_status rc;

    *fault = (sf_s3_fault){0};
    rc = sf__xml_read(body, completed_end, &c, a, err);
    if (rc != SF_OK)
        return rc;
    if (c.is_fault)
        return sf_fail(err, SF_IO, "the upload was not completed");
    if (!c.is_result || c.long_etag)
        return sf_fail(err, SF_CORRUPT, "XML: not the result of an upload");
    memcpy(etag, c.etag, sizeof(c.etag));
    return SF_OK;
}

/* ------------------------------------------------------------------ DeleteResult --------------------------------- */

struct deleted_reader {
    sf_s3_fault now, first; /* the open <Error>; the first that counts */
    char now_key[160], first_key[160];
    bool is_result, failed;
};

static void deleted_end(sf_xml_reader *r, const char *path, const char *text)
{
    static const char item[] = "DeleteResult/Error/";
    struct deleted_reader *d = r->ctx;

    if (is(path, "DeleteResult")) {
        d->is_result = true;
    } else if (is(path, "DeleteResult/Error/Key")) {
        sf__s3_fault_text(d->now_key, sizeof(d->now_key), text);
    } else if (strncmp(path, item, sizeof(item) - 1) == 0) {
        sf__s3_fault_field(&d->now, path + sizeof(item) - 1, text);
    } else if (is(path, "DeleteResult/Error")) {
        if (!d->failed && !is(d->now.code, "NoSuchKey")) {
            d->failed = true;
            d->first = d->now;
            memcpy(d->first_key, d->now_key, sizeof(d->first_key));
        }
        d->now = (sf_s3_fault){0};
        d->now_key[0] = '\0';
    }
}

sf_status sf__s3_xml_deleted(sf_bytes body, sf_s3_fault *fault, const sf_allocator *a, sf_error *err)
{
    struct deleted_reader d = {0};
    sf_status rc;

    *fault = (sf_s3_fault){0};
    rc = sf__xml_read(body, deleted_end, &d, a, err);
    if (rc != SF_OK)
        return rc;
    if (!d.is_result)
        return sf_fail(err, SF_CORRUPT, "XML: not the result of a deletion");
    if (!d.failed)
        return SF_OK;
    *fault = d.first;
    return sf_fail(err, SF_IO, "\"%s\" was not deleted", d.first_key);
}

/* ------------------------------------------------------------------ request bodies ------------------------------- */

static bool add_escaped(sf_strbuf *out, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '&':
            sf__strbuf_puts(out, "&amp;");
            break;
        case '<':
            sf__strbuf_puts(out, "&lt;");
            break;
        case '>':
            sf__strbuf_puts(out, "&gt;");
            break;
        case '"':
            sf__strbuf_puts(out, "&quot;");
            break;
        case '\t':
        case '\n':
        case '\r': /* parsers turn a bare one into a line feed */
            sf__strbuf_printf(out, "&#%d;", *s);
            break;
        default:
            if ((unsigned char)*s < ' ')
                return false;
            sf__strbuf_putc(out, *s);
        }
    }
    return true;
}

static sf_status built(const sf_strbuf *out, sf_error *err)
{
    return out->failed ? sf_fail(err, SF_NOMEM, "XML of %zu bytes", out->n) : SF_OK;
}

sf_status sf__s3_xml_format_delete(sf_strbuf *out, const char *const *keys, size_t count, sf_error *err)
{
    sf__strbuf_puts(out, "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
    for (size_t i = 0; i < count; i++) {
        sf__strbuf_puts(out, "<Object><Key>");
        if (!add_escaped(out, keys[i]))
            return sf_fail(err, SF_INVALID, "a key with a control character cannot be part of a batch");
        sf__strbuf_puts(out, "</Key></Object>");
    }
    sf__strbuf_puts(out, "</Delete>");
    return built(out, err);
}

sf_status sf__s3_xml_format_complete(sf_strbuf *out, const char *const *etags, size_t count, sf_error *err)
{
    sf__strbuf_puts(out, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (size_t i = 0; i < count; i++) {
        sf__strbuf_puts(out, "<Part><ETag>");
        if (!add_escaped(out, etags[i]))
            return sf_fail(err, SF_INVALID, "the ETag of part %zu holds a control character", i + 1);
        sf__strbuf_printf(out, "</ETag><PartNumber>%zu</PartNumber></Part>", i + 1);
    }
    sf__strbuf_puts(out, "</CompleteMultipartUpload>");
    return built(out, err);
}
