/* Answers of a store. The first byte chooses the document. What is decoded keeps its promises: keys below the prefix,
 * in order, texts terminated and on one line; a page written out again reads as the same page. */
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "net/url.h"
#include "store/s3_xml.h"

static const sf_allocator *const a = &sf__allocator_default;

static void check_line(const char *s, size_t cap)
{
    if (!memchr(s, '\0', cap))
        abort();
    for (; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            abort();
}

static void check_fault(const sf_s3_fault *f)
{
    check_line(f->code, sizeof(f->code));
    check_line(f->message, sizeof(f->message));
    check_line(f->region, sizeof(f->region));
    check_line(f->request_id, sizeof(f->request_id));
}

static void check_same(const sf_s3_page *x, const sf_s3_page *y)
{
    if (x->entry_count != y->entry_count || (x->next != NULL) != (y->next != NULL))
        abort();
    for (size_t i = 0; i < x->entry_count; i++)
        if (strcmp(x->entries[i].key, y->entries[i].key) != 0)
            abort();
}

static void write_again(const sf_s3_page *page)
{
    sf_s3_page again;
    sf_strbuf b;

    sf__strbuf_init(&b, a);
    sf__strbuf_puts(&b, "<ListBucketResult><EncodingType>url</EncodingType>");
    for (size_t i = 0; i < page->entry_count; i++) {
        const sf_store_entry *e = &page->entries[i];

        sf__strbuf_puts(&b, e->is_prefix ? "<CommonPrefixes><Prefix>" : "<Contents><Key>");
        sf__url_encode(&b, sf_bytes_str(e->key), true);
        if (e->is_prefix)
            sf__strbuf_puts(&b, "</Prefix></CommonPrefixes>");
        else
            sf__strbuf_printf(&b, "</Key><Size>%llu</Size></Contents>", (unsigned long long)e->size);
    }
    if (page->next)
        sf__strbuf_puts(&b, "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>");
    sf__strbuf_puts(&b, "</ListBucketResult>");
    if (sf__s3_xml_page(sf_bytes_of(b.s, b.n), "", &again, a, NULL) != SF_OK)
        abort();
    check_same(page, &again);
    sf__s3_page_cleanup(&again, a);
    sf__strbuf_cleanup(&b);
}

static void try_page(sf_bytes body, const char *prefix)
{
    sf_s3_page page;

    if (sf__s3_xml_page(body, prefix, &page, a, NULL) != SF_OK) {
        if (page.entries || page.entry_count || page.next)
            abort();
        return;
    }
    for (size_t i = 0; i < page.entry_count; i++) {
        if (strncmp(page.entries[i].key, prefix, strlen(prefix)) != 0)
            abort();
        if (i > 0 && strcmp(page.entries[i - 1].key, page.entries[i].key) > 0)
            abort();
    }
    write_again(&page);
    sf__s3_page_cleanup(&page, a);
}

static void write_uploads_again(const sf_s3_uploads *page)
{
    sf_s3_uploads again;
    sf_strbuf b;

    sf__strbuf_init(&b, a);
    sf__strbuf_puts(&b, "<ListMultipartUploadsResult><EncodingType>url</EncodingType>");
    for (size_t i = 0; i < page->upload_count; i++) {
        sf__strbuf_puts(&b, "<Upload><Key>");
        sf__url_encode(&b, sf_bytes_str(page->uploads[i].key), true);
        sf__strbuf_puts(&b, "</Key><UploadId>x</UploadId></Upload>");
    }
    if (page->next_key) {
        sf__strbuf_puts(&b, "<IsTruncated>true</IsTruncated><NextKeyMarker>");
        sf__url_encode(&b, sf_bytes_str(page->next_key), true);
        sf__strbuf_puts(&b, "</NextKeyMarker>");
    }
    sf__strbuf_puts(&b, "</ListMultipartUploadsResult>");
    if (sf__s3_xml_uploads(sf_bytes_of(b.s, b.n), "", &again, a, NULL) != SF_OK ||
        again.upload_count != page->upload_count)
        abort();
    for (size_t i = 0; i < page->upload_count; i++)
        if (strcmp(page->uploads[i].key, again.uploads[i].key) != 0)
            abort();
    if ((page->next_key != NULL) != (again.next_key != NULL) ||
        (page->next_key && strcmp(page->next_key, again.next_key) != 0))
        abort();
    sf__s3_uploads_cleanup(&again, a);
    sf__strbuf_cleanup(&b);
}

static void try_uploads(sf_bytes body, const char *prefix)
{
    sf_s3_uploads page;

    if (sf__s3_xml_uploads(body, prefix, &page, a, NULL) != SF_OK) {
        if (page.uploads || page.upload_count || page.next_key || page.next_id)
            abort();
        return;
    }
    for (size_t i = 0; i < page.upload_count; i++)
        if (strncmp(page.uploads[i].key, prefix, strlen(prefix)) != 0 || !page.uploads[i].id[0])
            abort();
    write_uploads_again(&page);
    sf__s3_uploads_cleanup(&page, a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_error err = SF_ERROR_INIT;
    sf_s3_fault fault;
    char etag[128] = "unset", *id = NULL;
    sf_bytes body;

    if (size == 0)
        return 0;
    body = sf_bytes_of(data + 1, size - 1);
    switch (data[0] % 8) {
    case 0:
        if (sf__s3_fault_read(body, &fault, a) == false && (fault.code[0] || fault.message[0]))
            abort();
        check_fault(&fault);
        break;
    case 1:
        try_page(body, "");
        break;
    case 2:
        try_page(body, "a/");
        break;
    case 3:
        if (sf__s3_xml_created(body, &id, a, &err) == SF_OK && (!id || !id[0]))
            abort();
        sf__free(a, id);
        break;
    case 4:
        if (sf__s3_xml_completed(body, etag, &fault, a, &err) == SF_OK ? !memchr(etag, '\0', sizeof(etag))
                                                                       : strcmp(etag, "unset") != 0)
            abort();
        check_fault(&fault);
        break;
    case 5:
        try_uploads(body, "");
        break;
    case 6:
        try_uploads(body, "a/");
        break;
    default:
        if (sf__s3_xml_deleted(body, &fault, a, &err) == SF_OK && fault.code[0])
            abort();
        check_fault(&fault);
        check_line(err.message, sizeof(err.message));
        break;
    }
    return 0;
}
