/* Documents as S3 and its relatives write them, and as nobody should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "../../support/heap.h"
#include "base/error.h"
#include "store/s3_xml.h"

static const sf_allocator *const a = &sf__allocator_default;

#define DECLARATION "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define SPACE "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""

static void fault_documents(void **state)
{
    static const struct {
        const char *name, *body;
        bool is_fault;
        const char *code, *message, *region;
    } cases[] = {
        {"amazon",
         DECLARATION "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message>"
                     "<Key>a</Key><RequestId>4442587FB7D0A2F9</RequestId></Error>",
         true, "NoSuchKey", "The specified key does not exist.", ""},
        {"region",
         "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>eu-west-1</Region></Error>", true,
         "AuthorizationHeaderMalformed", "m", "eu-west-1"},
        {"entities", "<Error><Code>X</Code><Message>&lt;a&gt; &amp; &#34;b&#34;\n&#9;c</Message></Error>", true, "X",
         "<a> & \"b\"  c", ""},
        {"prefixed",
         "<s3:Error "
         "xmlns:s3=\"urn:x\"><s3:Code>Y</s3:Code></s3:Error>",
         true, "Y", "", ""},
        {"nested code", "<Error><Details><Code>inner</Code></Details><Code>outer</Code></Error>", true, "outer", "", ""},
        {"empty element", "<Error/>", true, "", "", ""},
        {"html", "<html><body><h1>503 Service Unavailable</h1></body></html>", false, "", "", ""},
        {"not closed", "<Error><Code>NoSuchKey</Code>", false, "", "", ""},
        {"text", "upstream connect error", false, "", "", ""},
        {"nothing", "", false, "", "", ""},
        {"entity expansion", "<!DOCTYPE e [<!ENTITY a \"aaaa\">]><Error><Code>&a;</Code></Error>", false, "", "", ""},
        {"external entity", "<!DOCTYPE e SYSTEM \"file:///etc/passwd\"><Error><Code>x</Code></Error>", false, "", "", ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_s3_fault f;
        bool ok = sf__s3_fault_read(sf_bytes_str(cases[i].body), &f, a);

        if (ok != cases[i].is_fault || strcmp(f.code, cases[i].code) || strcmp(f.message, cases[i].message) ||
            strcmp(f.region, cases[i].region))
            fail_msg("%s: %d code \"%s\" message \"%s\" region \"%s\"", cases[i].name, ok, f.code, f.message, f.region);
    }
}

static void long_texts_are_cut_between_characters(void **state)
{
    char body[4096] = "<Error><Message>";
    sf_s3_fault f;

    for (int i = 0; i < 400; i++)
        strcat(body, "\xc3\xa9");
    strcat(body, "</Message></Error>");
    assert_true(sf__s3_fault_read(sf_bytes_str(body), &f, a));
    assert_int_equal(strlen(f.message), sizeof(f.message) - 2); /* 319 is inside a character */
    assert_int_equal((unsigned char)f.message[strlen(f.message) - 1], 0xa9);
}

static void nesting_is_bounded(void **state)
{
    char body[1024] = "";
    sf_s3_fault f;

    for (int i = 0; i < 40; i++)
        strcat(body, "<a>");
    for (int i = 0; i < 40; i++)
        strcat(body, "</a>");
    assert_false(sf__s3_fault_read(sf_bytes_str(body), &f, a));
}

/* "key:size key/ ... >next" */
static void describe(const sf_s3_page *p, char *out, size_t n)
{
    size_t at = 0;

    out[0] = '\0';
    for (size_t i = 0; i < p->entry_count; i++) {
        const sf_store_entry *e = &p->entries[i];

        at += (size_t)snprintf(out + at, n - at, e->is_prefix ? "[%s] " : "[%s]:%llu ", e->key,
                               (unsigned long long)e->size);
    }
    if (p->next)
        at += (size_t)snprintf(out + at, n - at, ">%s", p->next);
    if (p->unsorted)
        snprintf(out + at, n - at, " unsorted");
}

#define OBJECT(key, size) "<Contents><Key>" key "</Key><ETag>\"x\"</ETag><Size>" size "</Size></Contents>"
#define PREFIX(key) "<CommonPrefixes><Prefix>" key "</Prefix></CommonPrefixes>"
#define LISTING(inner) DECLARATION "<ListBucketResult " SPACE "><Name>b</Name>" inner "</ListBucketResult>"

static void listings(void **state)
{
    static const struct {
        const char *name, *prefix, *body;
        sf_status rc;
        const char *page;
    } cases[] = {
        {"empty", "", LISTING("<IsTruncated>false</IsTruncated>"), SF_OK, ""},
        {"sorted together", "", LISTING(OBJECT("a", "1") OBJECT("c", "3") PREFIX("b/")), SF_OK, "[a]:1 [b/] [c]:3 "},
        {"prefixes first", "", LISTING(PREFIX("b/") OBJECT("a", "1") OBJECT("c", "3")), SF_OK, "[a]:1 [b/] [c]:3 "},
        {"not sorted", "", LISTING(OBJECT("c", "3") OBJECT("a", "1")), SF_OK, "[a]:1 [c]:3  unsorted"},
        {"encoded, told last", "", LISTING(OBJECT("a%2Fb+c%2B%25%C3%A9", "7") "<EncodingType>url</EncodingType>"),
         SF_OK, "[a/b c+%\xc3\xa9]:7 "},
        {"not encoded", "", LISTING(OBJECT("a%2Fb+c", "7")), SF_OK, "[a%2Fb+c]:7 "},
        {"more", "",
         LISTING("<IsTruncated>true</IsTruncated><NextContinuationToken>1/x+=</NextContinuationToken>" OBJECT("k", "0")),
         SF_OK, "[k]:0 >1/x+="},
        {"a token on the last page", "",
         LISTING("<IsTruncated>false</IsTruncated>"
                 "<NextContinuationToken>t</NextContinuationToken>"),
         SF_OK, ""},
        {"more, but where", "", LISTING("<IsTruncated>true</IsTruncated>"), SF_CORRUPT, ""},
        {"below the prefix", "p/", LISTING(OBJECT("p/a", "1")), SF_OK, "[p/a]:1 "},
        {"outside of the prefix", "p/", LISTING(OBJECT("q/a", "1")), SF_CORRUPT, ""},
        {"largest size", "", LISTING(OBJECT("k", "18446744073709551615")), SF_OK, "[k]:18446744073709551615 "},
        {"too large a size", "", LISTING(OBJECT("k", "18446744073709551616")), SF_CORRUPT, ""},
        {"negative size", "", LISTING(OBJECT("k", "-1")), SF_CORRUPT, ""},
        {"no size", "", LISTING("<Contents><Key>k</Key></Contents>"), SF_CORRUPT, ""},
        {"the size of another", "", LISTING(OBJECT("j", "1") "<Contents><Key>k</Key></Contents>"), SF_CORRUPT, ""},
        {"no key", "", LISTING("<Contents><Size>1</Size></Contents>"), SF_CORRUPT, ""},
        {"bad encoding", "", LISTING("<EncodingType>url</EncodingType>" OBJECT("a%2", "1")), SF_CORRUPT, ""},
        {"zero byte", "", LISTING("<EncodingType>url</EncodingType>" OBJECT("a%00b", "1")), SF_CORRUPT, ""},
        {"blanks in front", "", "\r\n  " LISTING(OBJECT("a", "1")), SF_OK, "[a]:1 "},
        {"another document", "", "<Error><Code>x</Code></Error>", SF_CORRUPT, ""},
        {"cut", "", "<ListBucketResult><Contents><Key>a</Key>", SF_CORRUPT, ""},
        {"nothing", "", "", SF_CORRUPT, ""},
        {"document type", "", "<!DOCTYPE x><ListBucketResult></ListBucketResult>", SF_CORRUPT, ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_error err = SF_ERROR_INIT;
        sf_s3_page page;
        char text[512];
        sf_status rc = sf__s3_xml_page(sf_bytes_str(cases[i].body), cases[i].prefix, &page, a, &err);

        describe(&page, text, sizeof(text));
        if (rc != cases[i].rc || strcmp(text, cases[i].page) || (rc != SF_OK && err.code != rc))
            fail_msg("%s: %s (%s), %s", cases[i].name, sf_status_name(rc), err.message, text);
        sf__s3_page_cleanup(&page, a);
    }
}

static void uploads(void **state)
{
    sf_error err = SF_ERROR_INIT;
    sf_s3_fault f;
    char etag[128] = "before", *id = NULL;

    assert_int_equal(sf__s3_xml_created(sf_bytes_str("<InitiateMultipartUploadResult><Bucket>b</Bucket>"
                                                     "<UploadId>VX&amp;1</UploadId></InitiateMultipartUploadResult>"),
                                        &id, a, &err),
                     SF_OK);
    assert_string_equal(id, "VX&1");
    sf__free(a, id);
    id = NULL;
    assert_int_equal(sf__s3_xml_created(sf_bytes_str("<InitiateMultipartUploadResult/>"), &id, a, &err), SF_CORRUPT);
    assert_null(id);

    assert_int_equal(sf__s3_xml_completed(sf_bytes_str("  \n" DECLARATION "<CompleteMultipartUploadResult " SPACE
                                                       "><ETag>&quot;abc-2&quot;</ETag></CompleteMultipartUploadResult>"),
                                          etag, &f, a, &err),
                     SF_OK);
    assert_string_equal(etag, "\"abc-2\"");
    assert_int_equal(sf__s3_xml_completed(sf_bytes_str(DECLARATION "   <Error><Code>InternalError</Code></Error>"),
                                          etag, &f, a, &err),
                     SF_IO);
    assert_string_equal(f.code, "InternalError");
    assert_string_equal(etag, "\"abc-2\"");
    assert_int_equal(sf__s3_xml_completed(sf_bytes_str("<html/>"), etag, &f, a, &err), SF_CORRUPT);
}

#define UPLOAD(key, id, time) \
    "<Upload><Key>" key "</Key><UploadId>" id "</UploadId><Initiated>" time "</Initiated></Upload>"
#define UPLOADS(inner) \
    DECLARATION "<ListMultipartUploadsResult " SPACE "><Bucket>b</Bucket>" inner "</ListMultipartUploadsResult>"

static void unfinished_uploads(void **state)
{
    static const struct {
        const char *name, *prefix, *body;
        sf_status rc;
        const char *page; /* "[key]id@seconds ... >key/id" */
    } lists[] = {
        {"none", "", UPLOADS("<IsTruncated>false</IsTruncated>"), SF_OK, ""},
        {"two", "p/",
         UPLOADS(UPLOAD("p/b", "U1", "2026-01-02T03:04:05.678Z") UPLOAD("p/a", "U&amp;2", "1970-01-01T00:01:00Z")),
         SF_OK, "[p/b]U1@1767323045 [p/a]U&2@60 "},
        {"no time", "", UPLOADS("<Upload><UploadId>U</UploadId><Key>k</Key></Upload>"), SF_OK, "[k]U@0 "},
        {"encoded, told last", "a ",
         UPLOADS(UPLOAD(
             "a+%2F%25", "U%2F",
             "1970-01-01T00:00:00Z") "<EncodingType>url</EncodingType>"
                                     "<IsTruncated>true</IsTruncated><NextKeyMarker>a+%2Fb</NextKeyMarker><NextUploadIdMarker>U%2F</NextUploadIdMarker>"),
         SF_OK, "[a /%]U%2F@0 >a /b/U%2F"},
        {"more, without an id", "", UPLOADS("<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>"), SF_OK,
         ">k/"},
        {"markers on the last page", "",
         UPLOADS("<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>U</NextUploadIdMarker>"), SF_OK, ""},
        {"more, but where", "", UPLOADS("<IsTruncated>true</IsTruncated><NextUploadIdMarker>U</NextUploadIdMarker>"),
         SF_CORRUPT, ""},
        {"outside of the prefix", "p/",
         UPLOADS(UPLOAD("p/a", "U", "1970-01-01T00:00:00Z") UPLOAD("q/a", "U", "1970-01-01T00:00:00Z")), SF_CORRUPT, ""},
        {"no key", "", UPLOADS("<Upload><UploadId>U</UploadId></Upload>"), SF_CORRUPT, ""},
        {"the key of another", "",
         UPLOADS(UPLOAD("k", "U", "1970-01-01T00:00:00Z") "<Upload><UploadId>U</UploadId></Upload>"), SF_CORRUPT, ""},
        {"no id", "", UPLOADS("<Upload><Key>k</Key></Upload>"), SF_CORRUPT, ""},
        {"an empty id", "", UPLOADS("<Upload><Key>k</Key><UploadId/></Upload>"), SF_CORRUPT, ""},
        {"no time that it could be", "", UPLOADS(UPLOAD("k", "U", "yesterday")), SF_CORRUPT, ""},
        {"bad encoding", "", UPLOADS("<EncodingType>url</EncodingType>" UPLOAD("a%2", "U", "1970-01-01T00:00:00Z")),
         SF_CORRUPT, ""},
        {"zero byte", "",
         UPLOADS("<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextKeyMarker>a%00"
                 "</NextKeyMarker>"),
         SF_CORRUPT, ""},
        {"objects instead", "", LISTING(OBJECT("a", "1")), SF_UNSUPPORTED, ""},
        {"another document", "", "<Error><Code>x</Code></Error>", SF_CORRUPT, ""},
        {"cut", "", "<ListMultipartUploadsResult><Upload><Key>a</Key><UploadId>b</UploadId>", SF_CORRUPT, ""},
        {"document type", "", "<!DOCTYPE x><ListMultipartUploadsResult/>", SF_CORRUPT, ""},
    };

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        sf_error err = SF_ERROR_INIT;
        sf_s3_uploads page;
        char text[512] = "";
        size_t n = 0;
        sf_status rc = sf__s3_xml_uploads(sf_bytes_str(lists[i].body), lists[i].prefix, &page, a, &err);

        for (size_t k = 0; k < page.upload_count; k++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "[%s]%s@%lld ", page.uploads[k].key, page.uploads[k].id,
                                  (long long)page.uploads[k].begun_us / 1000000);
        if (page.next_key)
            snprintf(text + n, sizeof(text) - n, ">%s/%s", page.next_key, page.next_id ? page.next_id : "");
        if (rc != lists[i].rc || strcmp(text, lists[i].page) || (rc != SF_OK && (err.code != rc || page.next_id)))
            fail_msg("%s: %s (%s), %s", lists[i].name, sf_status_name(rc), err.message, text);
        sf__s3_uploads_cleanup(&page, a);
    }
}

static void deletions(void **state)
{
    static const struct {
        const char *name, *body;
        sf_status rc;
        const char *code, *message;
    } cases[] = {
        {"all gone", "<DeleteResult " SPACE "/>", SF_OK, "", ""},
        {"named ones", "<DeleteResult><Deleted><Key>a</Key></Deleted></DeleteResult>", SF_OK, "", ""},
        {"one stays",
         "<DeleteResult><Error><Key>a b</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
         "<Error><Key>c</Key><Code>InternalError</Code></Error></DeleteResult>",
         SF_IO, "AccessDenied", "\"a b\" was not deleted"},
        {"missing is fine", "<DeleteResult><Error><Key>a</Key><Code>NoSuchKey</Code></Error></DeleteResult>", SF_OK, "",
         ""},
        {"missing, then real",
         "<DeleteResult><Error><Key>a</Key><Code>NoSuchKey</Code></Error>"
         "<Error><Key>c</Key><Code>SlowDown</Code></Error></DeleteResult>",
         SF_IO, "SlowDown", "\"c\" was not deleted"},
        {"without a code", "<DeleteResult><Error><Key>a</Key></Error></DeleteResult>", SF_IO, "", "\"a\" was not deleted"},
        {"another document", "<Error><Code>AccessDenied</Code></Error>", SF_CORRUPT, "",
         "XML: not the result of a deletion"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_error err = SF_ERROR_INIT;
        sf_s3_fault f;
        sf_status rc = sf__s3_xml_deleted(sf_bytes_str(cases[i].body), &f, a, &err);

        if (rc != cases[i].rc || strcmp(f.code, cases[i].code) || strcmp(err.message, cases[i].message))
            fail_msg("%s: %s, code \"%s\", \"%s\"", cases[i].name, sf_status_name(rc), f.code, err.message);
    }
}

static void request_bodies(void **state)
{
    static const char *const keys[] = {"a&b<c>\"d\"\r\xc3\xa9"}, *const odd[] = {"a\x01"}, *const etags[] = {"\"e1\"", "e2"};
    sf_error err = SF_ERROR_INIT;
    sf_strbuf b;

    sf__strbuf_init(&b, a);
    assert_int_equal(sf__s3_xml_format_delete(&b, keys, 1, &err), SF_OK);
    assert_non_null(strstr(b.s, "<Quiet>true</Quiet><Object><Key>a&amp;b&lt;c&gt;&quot;d&quot;&#13;\xc3\xa9</Key></Object>"
                                "</Delete>"));
    sf__strbuf_cleanup(&b);
    assert_int_equal(sf__s3_xml_format_delete(&b, odd, 1, &err), SF_INVALID);
    sf__strbuf_cleanup(&b);
    assert_int_equal(sf__s3_xml_format_complete(&b, etags, 2, &err), SF_OK);
    assert_non_null(strstr(b.s, "<Part><ETag>&quot;e1&quot;</ETag><PartNumber>1</PartNumber></Part>"
                                "<Part><ETag>e2</ETag><PartNumber>2</PartNumber></Part>"));
    sf__strbuf_cleanup(&b);
}

static void no_memory(void **state)
{
    static const char body[] = LISTING("<EncodingType>url</EncodingType>" OBJECT("a%20b", "1") PREFIX(
        "c/") "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>");
    static const char unfinished[] = UPLOADS("<EncodingType>url</EncodingType>" UPLOAD(
        "a%20b", "U", "2026-01-02T03:04:05Z") "<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>"
                                              "<NextUploadIdMarker>U</NextUploadIdMarker>");

    for (long nth = 0;; nth++) {
        struct test_heap h;
        sf_error err = SF_ERROR_INIT;
        sf_s3_page page;
        sf_status rc;

        heap_init(&h);
        heap_arm(&h, nth);
        rc = sf__s3_xml_page(sf_bytes_str(body), "", &page, &h.alloc, &err);
        sf__s3_page_cleanup(&page, &h.alloc);
        assert_int_equal(h.live, 0);
        assert_int_equal(rc, h.fired ? SF_NOMEM : SF_OK);
        if (!h.fired) {
            assert_true(nth > 5);
            break;
        }
    }
    for (long nth = 0;; nth++) {
        struct test_heap h;
        sf_error err = SF_ERROR_INIT;
        sf_s3_uploads page;
        sf_status rc;

        heap_init(&h);
        heap_arm(&h, nth);
        rc = sf__s3_xml_uploads(sf_bytes_str(unfinished), "", &page, &h.alloc, &err);
        sf__s3_uploads_cleanup(&page, &h.alloc);
        assert_int_equal(h.live, 0);
        assert_int_equal(rc, h.fired ? SF_NOMEM : SF_OK);
        if (!h.fired) {
            assert_true(nth > 5);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fault_documents),
        cmocka_unit_test(long_texts_are_cut_between_characters),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(listings),
        cmocka_unit_test(uploads),
        cmocka_unit_test(deletions),
        cmocka_unit_test(unfinished_uploads),
        cmocka_unit_test(request_bodies),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
