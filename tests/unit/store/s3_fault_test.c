/* The S3 store against answers that a good server never gives, and those that even a good one gives on a bad day. */
#include "../../support/heap.h"
#include "s3_bench.h"
#include "scripted_server.h"

#include "base/error.h"

static const char ACCESS[] = "AKTESTACCESS", SECRET[] = "s3cr3t/KEY", TOKEN[] = "session-token";

static sf_s3_options usual_options(void)
{
    return (sf_s3_options){
        .size = sizeof(sf_s3_options),
        .region = "us-east-1",
        .addressing = SF_ADDRESSING_PATH,
        .access_key_id = ACCESS,
        .secret_access_key = SECRET,
        .connect_timeout_ms = 5000,
        .read_timeout_ms = 20000,
        .max_retries = 3,
        .retry_base_ms = 1,
        .retry_cap_ms = 2,
        .retry_total_ms = 10000,
    };
}

static sf_credential_origin keys_of(const sf_s3_options *o)
{
    return (sf_credential_origin){
        .kind = o->access_key_id ? SF_ORIGIN_GIVEN : SF_ORIGIN_NONE,
        .access_key_id = (char *)o->access_key_id,
        .secret_access_key = (char *)o->secret_access_key,
        .session_token = (char *)o->session_token,
    };
}

/* `endpoint` has room for the port. */
static sf_status bench_open(struct bench *b, const sf_allocator *a, const char *endpoint, uint16_t port, sf_s3_options o)
{
    char url[64];

    snprintf(url, sizeof(url), endpoint, port);
    o.endpoint_url = url;
    return bench_open_bucket(b, a, "bkt", &(sf_s3_resolved){.options = o, .origin = keys_of(&o)}, NULL);
}

/* ------------------------------------------------------------------ the table ------------------------------------ */

#define REPLY(status, headers, body) "HTTP/1.1 " status "\r\nConnection: close\r\n" headers "\r\n" body
#define SIZED(status, n, headers, body) REPLY(status, "Content-Length: " n "\r\n" headers, body)
#define SLOW_DOWN REPLY("503 Slow Down", "", "<Error><Code>SlowDown</Code><Message>Easy.</Message></Error>")
#define XML_ERROR(status, code, rest) \
    REPLY(status, "x-amz-request-id: RID1\r\n", "<Error><Code>" code "</Code><Message>Text.</Message>" rest "</Error>")
#define RANGE_4_3 .verb = SF_STORE_GET, .key = "k", .off = 4, .len = 3
#define WHOLE .verb = SF_STORE_GET, .key = "k", .len = SF_STORE_ALL, .max_bytes = 100
#define SUFFIX_4 .verb = SF_STORE_GET_SUFFIX, .key = "k", .len = 4
#define COMPLETE_NEW \
    .verb = SF_STORE_MULTIPART_COMPLETE, .key = "k", .upload_id = "u", .keys = etags, .key_count = 2, .create_only = true
#define OK_567 SIZED("206 Partial Content", "3", "Content-Range: bytes 4-6/10\r\nETag: \"e\"\r\n", "567")

static const char *const etags[] = {"\"e1\"", "\"e2\""}, *const two_keys[] = {"a", "b"};

static const struct fault_case {
    const char *name;
    sf_store_op op;
    const char *steps[SERVER_STEPS];
    sf_status rc;
    uint32_t attempts;
    int http_status;
    const char *data;    /* NULL: not looked at */
    const char *message; /* has to be part of the error's */
    const char *sent;    /* has to be part of the first request */
    uint64_t longer;
} cases[] = {
    /* clang-format off */
    /* transport */
    {"slow down, then an answer", {RANGE_4_3}, {SLOW_DOWN, OK_567}, SF_OK, 2, 0, "567", "",
     "GET /bkt/k HTTP/1.1"},
    {"slow down for ever", {RANGE_4_3}, {SLOW_DOWN, SLOW_DOWN, SLOW_DOWN, SLOW_DOWN}, SF_UNAVAILABLE, 4, 503, NULL,
     "GET answered 503 SlowDown: Easy., in attempt 4", "Range: bytes=4-6\r\n"},
    {"slow down, for one that is not repeated", {RANGE_4_3, .once = true}, {SLOW_DOWN, OK_567}, SF_UNAVAILABLE, 1, 503, NULL, "GET answered 503", ""},
    {"expired, for one that is not repeated", {RANGE_4_3, .once = true}, {XML_ERROR("400 Bad Request", "ExpiredToken", ""), OK_567}, SF_DENIED, 1,
     400, NULL, "ExpiredToken", ""},
    {"connection reset", {RANGE_4_3}, {STEP_RESET, OK_567}, SF_OK, 2, 0, "567", "", ""},
    {"reset for ever", {RANGE_4_3}, {STEP_RESET, STEP_RESET, STEP_RESET, STEP_RESET}, SF_UNAVAILABLE, 4, 0, NULL,
     "get s3://bkt/k: GET: ", ""},
    {"short body", {RANGE_4_3}, {SIZED("206 Partial Content", "3", "Content-Range: bytes 4-6/10\r\n", "5"), OK_567}, SF_OK, 2,
     0, "567", "", ""},
    {"short body of unknown length", {RANGE_4_3}, {REPLY("206 Partial Content", "Content-Range: bytes 4-6/10\r\n", "56"),
     OK_567}, SF_OK, 2, 0, "567", "", ""},
    {"too many requests", {RANGE_4_3}, {SIZED("429 Too Many", "0", "Retry-After: 0\r\n", ""), OK_567}, SF_OK, 2, 0, "567", "",
     ""},
    {"request timeout by code", {RANGE_4_3}, {XML_ERROR("400 Bad Request", "RequestTimeout", ""), OK_567}, SF_OK, 2, 0, "567",
     "", ""},
    {"gateways", {RANGE_4_3}, {SIZED("502 Bad Gateway", "0", "", ""), REPLY("504 Gateway Timeout", "", "<html>"),
     SIZED("500 Oh", "0", "", ""), OK_567}, SF_OK, 4, 0, "567", "", ""},
    {"retry after too long", {RANGE_4_3}, {SIZED("503 Busy", "0", "Retry-After: 3600\r\n", "")}, SF_UNAVAILABLE, 1, 503, NULL,
     "GET answered 503", ""},
    {"not implemented", {RANGE_4_3}, {XML_ERROR("501 Not Implemented", "NotImplemented", "")}, SF_UNSUPPORTED, 1, 501, NULL,
     "NotImplemented", ""},
    /* ranges */
    {"another range", {RANGE_4_3}, {SIZED("206 Partial Content", "3", "Content-Range: bytes 0-2/10\r\n", "123")}, SF_IO, 1, 206,
     NULL, "bytes 4 + 3 wanted, Content-Range \"bytes 0-2/10\"", ""},
    {"shorter range", {RANGE_4_3}, {SIZED("206 Partial Content", "2", "Content-Range: bytes 4-5/10\r\n", "56")}, SF_IO, 1, 206,
     NULL, "Content-Range", ""},
    {"range of an object of unknown size", {RANGE_4_3}, {SIZED("206 Partial Content", "3", "Content-Range: bytes 4-6/*\r\n", "567")},
     SF_OK, 1, 0, "567", "", ""},
    {"end of an object of unknown size", {RANGE_4_3}, {SIZED("206 Partial Content", "2", "Content-Range: bytes 4-5/*\r\n", "56")},
     SF_CORRUPT, 1, 206, NULL, "bytes 4 + 3 wanted, the object has 6", ""},
    {"range as it was asked", {RANGE_4_3}, {SIZED("206 Partial Content", "3", "content-range: bytes=4-6/10\r\n", "567")}, SF_OK, 1, 0,
     "567", "", ""},
    {"ranges in parts", {RANGE_4_3}, {SIZED("206 Partial Content", "3", "Content-Type: multipart/byteranges; boundary=b\r\n", "567")},
     SF_IO, 1, 206, NULL, "Content-Range \"\"", ""},
    {"range without a name", {RANGE_4_3}, {SIZED("206 Partial Content", "3", "", "567")}, SF_IO, 1, 206, NULL,
     "Content-Range \"\"", ""},
    {"range that is none", {RANGE_4_3}, {SIZED("206 Partial Content", "3", "Content-Range: bytes 4-6/5\r\n", "567")}, SF_IO, 1,
     206, NULL, "Content-Range", ""},
    {"more than the range", {RANGE_4_3}, {SIZED("206 Partial Content", "4", "Content-Range: bytes 4-6/10\r\n", "5678")}, SF_IO,
     1, 206, NULL, "4 bytes in the body, 3 wanted", ""},
    {"end of the object", {RANGE_4_3}, {SIZED("206 Partial Content", "2", "Content-Range: bytes 4-5/6\r\n", "56")}, SF_CORRUPT,
     1, 206, NULL, "bytes 4 + 3 wanted, the object has 6", ""},
    {"behind the end", {RANGE_4_3}, {SIZED("416 Range", "0", "Content-Range: bytes */4\r\n", "")}, SF_CORRUPT, 1, 416, NULL,
     "bytes 4 + 3 wanted, the object has 4", ""},
    {"behind the end, without a size", {RANGE_4_3}, {XML_ERROR("416 Range", "InvalidRange", "")}, SF_CORRUPT, 1, 416, NULL,
     "before the range", ""},
    {"range ignored", {RANGE_4_3}, {SIZED("200 OK", "10", "", "1234567890")}, SF_OK, 1, 0, "567", "", ""},
    {"range ignored, too short", {RANGE_4_3}, {SIZED("200 OK", "6", "", "123456")}, SF_CORRUPT, 1, 200, NULL,
     "the object has 6", ""},
    {"range ignored, huge", {RANGE_4_3}, {SIZED("200 OK", "9999999", "", "1234")}, SF_IO, 1, 200, NULL,
     "the server ignores ranges", ""},
    {"nothing to see", {RANGE_4_3}, {REPLY("204 No Content", "", "")}, SF_IO, 1, 204, NULL, "200 or 206 expected", ""},
    {"whole", {WHOLE}, {SIZED("200 OK", "5", "", "12345")}, SF_OK, 1, 0, "12345", "", ""},
    {"whole, empty", {WHOLE}, {SIZED("200 OK", "0", "", "")}, SF_OK, 1, 0, "", "", ""},
    {"whole, above the bound", {.verb = SF_STORE_GET, .key = "k", .len = SF_STORE_ALL, .max_bytes = 4},
     {SIZED("200 OK", "5", "", "12345")}, SF_CORRUPT, 1, 200, NULL, "object of 5 bytes, at most 4", "", 5},
    {"whole, above the bound, nobody knows by how much", {.verb = SF_STORE_GET, .key = "k", .len = SF_STORE_ALL, .max_bytes = 4},
     {REPLY("200 OK", "", "12345")}, SF_CORRUPT, 1, 200, NULL, "more than the 4 bytes expected at most", "", SF_STORE_ALL},
    {"whole, above the bound, a length that is none", {.verb = SF_STORE_GET, .key = "k", .len = SF_STORE_ALL, .max_bytes = 4},
     {REPLY("200 OK", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "5\r\n12345\r\n0\r\n\r\n")}, SF_CORRUPT, 1, 200,
     NULL, "more than the 4 bytes", "", SF_STORE_ALL},
    {"whole, in part", {WHOLE}, {SIZED("206 Partial Content", "5", "Content-Range: bytes 0-4/9\r\n", "12345")}, SF_IO, 1, 206,
     NULL, "Content-Range", ""},
    {"suffix", {SUFFIX_4}, {SIZED("206 Partial Content", "4", "Content-Range: bytes 6-9/10\r\n", "7890")}, SF_OK, 1, 0, "7890",
     "", "Range: bytes=-4\r\n"},
    {"suffix of less", {SUFFIX_4}, {SIZED("206 Partial Content", "2", "Content-Range: bytes 0-1/2\r\n", "12")}, SF_OK, 1, 0,
     "12", "", ""},
    {"suffix of an object of unknown size", {SUFFIX_4}, {SIZED("206 Partial Content", "4", "Content-Range: bytes 6-9/*\r\n", "7890")},
     SF_OK, 1, 0, "7890", "", ""},
    {"suffix ignored", {SUFFIX_4}, {SIZED("200 OK", "6", "", "123456")}, SF_OK, 1, 0, "3456", "", ""},
    {"suffix of nothing", {SUFFIX_4}, {SIZED("416 Range", "0", "Content-Range: bytes */0\r\n", "")}, SF_OK, 1, 0, "", "", ""},
    {"suffix of nothing, in XML", {SUFFIX_4}, {XML_ERROR("416 Range", "InvalidRange", "<ActualObjectSize>0</ActualObjectSize>")},
     SF_OK, 1, 0, "", "", ""},
    {"suffix not understood", {SUFFIX_4}, {SIZED("416 Range", "0", "Content-Range: bytes */9\r\n", "")}, SF_IO, 1, 416, NULL,
     "the object has 9", ""},
    {"suffix of the middle", {SUFFIX_4}, {SIZED("206 Partial Content", "4", "Content-Range: bytes 2-5/10\r\n", "3456")}, SF_IO,
     1, 206, NULL, "bytes 6 + 4 wanted", ""},
    /* errors by name */
    {"no such key", {RANGE_4_3}, {XML_ERROR("404 Not Found", "NoSuchKey", "")}, SF_NOT_FOUND, 1, 404, NULL,
     "get s3://bkt/k: GET answered 404 NoSuchKey: Text. (request id RID1)", ""},
    {"no such bucket", {RANGE_4_3}, {XML_ERROR("404 Not Found", "NoSuchBucket", "")}, SF_NOT_FOUND, 1, 404, NULL,
     "there is no bucket \"bkt\"", ""},
    {"denied", {RANGE_4_3}, {XML_ERROR("403 Forbidden", "AccessDenied", "")}, SF_DENIED, 1, 403, NULL, "AccessDenied", ""},
    {"a secret comes back", {RANGE_4_3}, {REPLY("403 Forbidden", "", "<Error><Code>X</Code><Message>bad s3cr3t/KEY !</Message>"
     "</Error>")}, SF_DENIED, 1, 403, NULL, "(text withheld)", ""},
    {"expired", {RANGE_4_3}, {XML_ERROR("400 Bad Request", "ExpiredToken", "")}, SF_DENIED, 1, 400, NULL, "ExpiredToken", ""},
    {"clock", {RANGE_4_3}, {REPLY("403 Forbidden", "Date: Thu, 01 Jan 2032 00:00:00 GMT\r\n",
     "<Error><Code>RequestTimeTooSkewed</Code></Error>")}, SF_DENIED, 1, 403, NULL,
     "the clock of this machine is wrong, the store's says Thu, 01 Jan 2032", ""},
    {"region by header", {RANGE_4_3}, {REPLY("301 Moved", "x-amz-bucket-region: eu-west-3\r\n",
     "<Error><Code>PermanentRedirect</Code></Error>")}, SF_IO, 1, 301, NULL, "the bucket is in region eu-west-3, not us-east-1",
     ""},
    {"region of a HEAD", {.verb = SF_STORE_HEAD, .key = "k"}, {REPLY("400 Bad Request", "x-amz-bucket-region: eu-west-3\r\n", "")},
     SF_IO, 1, 400, NULL, "the bucket is in region eu-west-3", "HEAD /bkt/k HTTP/1.1"},
    {"region in XML", {RANGE_4_3}, {XML_ERROR("400 Bad Request", "AuthorizationHeaderMalformed", "<Region>ap-east-1</Region>")},
     SF_IO, 1, 400, NULL, "the bucket is in region ap-east-1", ""},
    {"the right region", {RANGE_4_3}, {REPLY("403 Forbidden", "x-amz-bucket-region: us-east-1\r\n", "")}, SF_DENIED, 1, 403, NULL,
     "GET answered 403", ""},
    {"redirect to nowhere", {RANGE_4_3}, {REPLY("307 Temporary Redirect", "Location: http://127.0.0.1:1/\r\n", "")}, SF_IO, 1,
     307, NULL, "check region and endpoint", ""},
    {"a teapot", {RANGE_4_3}, {REPLY("418 Teapot", "", "short and stout")}, SF_IO, 1, 418, NULL, "GET answered 418", ""},
    /* head, put */
    {"head", {.verb = SF_STORE_HEAD, .key = "a b/c+%d\xc3\xa9"}, {SIZED("200 OK", "12", "ETag: \"e\"\r\n", "")}, SF_OK, 1, 0, NULL,
     "", "HEAD /bkt/a%20b/c%2B%25d%C3%A9 HTTP/1.1"},
    {"put", {.verb = SF_STORE_PUT, .key = "k", .body = {(const uint8_t *)"body", 4}, .content_type = "text/plain"},
     {SIZED("500 Oh", "0", "", ""), SIZED("200 OK", "0", "ETag: \"e\"\r\n", "")}, SF_OK, 2, 0, NULL, "",
     "Content-Type: text/plain\r\n"},
    {"create", {.verb = SF_STORE_PUT, .key = "k", .create_only = true}, {XML_ERROR("412 No", "PreconditionFailed", "")},
     SF_CONFLICT, 1, 412, NULL, "(request id RID1)", "If-None-Match: *\r\n"},
    {"create after a lost answer", {.verb = SF_STORE_PUT, .key = "k", .create_only = true},
     {STEP_RESET, XML_ERROR("412 No", "PreconditionFailed", "")}, SF_CONFLICT, 2, 412, NULL,
     "an earlier attempt, whose answer was lost, may have succeeded", ""},
    {"create after a refusal", {.verb = SF_STORE_PUT, .key = "k", .create_only = true},
     {SLOW_DOWN, XML_ERROR("412 No", "PreconditionFailed", "")}, SF_CONFLICT, 2, 412, NULL, "(request id RID1), in attempt 2", ""},
    {"replace", {.verb = SF_STORE_PUT, .key = "k", .if_match = "\"v1\""}, {XML_ERROR("404 Gone", "NoSuchKey", "")}, SF_CONFLICT, 1,
     404, NULL, "NoSuchKey", "If-Match: \"v1\"\r\n"},
    {"two at once", {.verb = SF_STORE_PUT, .key = "k", .create_only = true},
     {XML_ERROR("409 Conflict", "ConditionalRequestConflict", ""), XML_ERROR("412 No", "PreconditionFailed", "")}, SF_CONFLICT, 2,
     412, NULL, "(request id RID1), in attempt 2", ""},
    {"two at once, the other one failed", {.verb = SF_STORE_PUT, .key = "k", .create_only = true},
     {XML_ERROR("409 Conflict", "ConditionalRequestConflict", ""), SIZED("200 OK", "0", "ETag: \"e\"\r\n", "")}, SF_OK, 2, 0, NULL,
     "", ""},
    {"two at once, for ever", {.verb = SF_STORE_PUT, .key = "k", .if_match = "\"v\""},
     {XML_ERROR("409 Conflict", "ConditionalRequestConflict", ""), XML_ERROR("409 Conflict", "ConditionalRequestConflict", ""),
      XML_ERROR("409 Conflict", "ConditionalRequestConflict", ""), XML_ERROR("409 Conflict", "ConditionalRequestConflict", "")},
     SF_CONFLICT, 4, 409, NULL, "ConditionalRequestConflict", ""},
    {"a header inside a value", {.verb = SF_STORE_PUT, .key = "k", .content_type = "a\r\nx: y"}, {0}, SF_INVALID, 0, 0, NULL,
     "Content-Type holds a control character", NULL},
    {"the same, said weakly", {.verb = SF_STORE_GET, .key = "k", .len = 1, .if_match = "W/\"v\""}, {SIZED("206 Partial Content", "1",
     "Content-Range: bytes 0-0/1\r\nETag: \"v\"\r\n", "1")}, SF_OK, 1, 0, "1", "", "If-Match: \"v\"\r\n"},
    {"changed", {.verb = SF_STORE_GET, .key = "k", .len = 1, .if_match = "\"v\""}, {XML_ERROR("412 No", "PreconditionFailed", "")},
     SF_CONFLICT, 1, 412, NULL, "", "If-Match: \"v\"\r\n"},
    {"not modified", {.verb = SF_STORE_GET, .key = "k", .len = SF_STORE_ALL, .max_bytes = 9, .if_none_match = "\"v\""},
     {SIZED("304 Not Modified", "700", "ETag: \"v\"\r\n", "")}, SF_OK, 1, 0, "", "", "If-None-Match: \"v\"\r\n"},
    {"modified", {.verb = SF_STORE_GET, .key = "k", .len = SF_STORE_ALL, .max_bytes = 9, .if_none_match = "\"v\""},
     {SIZED("200 OK", "1", "ETag: \"w\"\r\n", "1")}, SF_OK, 1, 0, "1", "", "If-None-Match: \"v\"\r\n"},
    {"not modified, though nobody asked", {.verb = SF_STORE_GET, .key = "k", .len = SF_STORE_ALL, .max_bytes = 9},
     {SIZED("304 Not Modified", "0", "", "")}, SF_IO, 1, 304, NULL, "", "GET /bkt/k"},
    {"a part of what was not modified", {.verb = SF_STORE_GET, .key = "k", .len = 1, .if_none_match = "\"v\""}, {0}, SF_INVALID, 0, 0,
     NULL, "whatever its version", NULL},
    /* documents */
    {"list", {.verb = SF_STORE_LIST, .key = "p q/", .delimiter = "/", .start_after = "p q/a"}, {REPLY("200 OK", "",
     "<ListBucketResult><Contents><Key>p q/b</Key><Size>1</Size></Contents></ListBucketResult>")}, SF_OK, 1, 0, NULL, "",
     "GET /bkt/?delimiter=%2F&encoding-type=url&list-type=2&prefix=p%20q%2F&start-after=p%20q%2Fa HTTP/1.1"},
    {"list garbage, then a page", {.verb = SF_STORE_LIST, .key = ""}, {REPLY("200 OK", "", "<html><p>hi"),
     REPLY("200 OK", "", "<ListBucketResult/>")}, SF_OK, 2, 0, NULL, "", "GET /bkt/?encoding-type=url&list-type=2 HTTP/1.1"},
    {"list garbage", {.verb = SF_STORE_LIST, .key = ""}, {REPLY("200 OK", "", "hi"), REPLY("200 OK", "", ""),
     REPLY("200 OK", "", "<Other/>"), REPLY("200 OK", "", "<ListBucketResult>")}, SF_IO, 4, 200, NULL,
     "list s3://bkt/: GET answered 200: XML: ", ""},
    {"begin an upload", {.verb = SF_STORE_MULTIPART_CREATE, .key = "k"}, {REPLY("200 OK", "",
     "<InitiateMultipartUploadResult><UploadId>U/1</UploadId></InitiateMultipartUploadResult>")}, SF_OK, 1, 0, NULL, "",
     "POST /bkt/k?uploads= HTTP/1.1"},
    {"a part", {.verb = SF_STORE_MULTIPART_PART, .key = "k", .upload_id = "U/1", .part_number = 7,
     .body = {(const uint8_t *)"body", 4}}, {SIZED("200 OK", "0", "ETag: \"e\"\r\n", "")}, SF_OK, 1, 0, NULL, "",
     "PUT /bkt/k?partNumber=7&uploadId=U%2F1 HTTP/1.1"},
    {"a part without a tag", {.verb = SF_STORE_MULTIPART_PART, .key = "k", .upload_id = "u", .part_number = 1},
     {SIZED("200 OK", "0", "", "")}, SF_IO, 1, 200, NULL, "no ETag", ""},
    {"complete", {.verb = SF_STORE_MULTIPART_COMPLETE, .key = "k", .upload_id = "u", .keys = etags, .key_count = 2},
     {REPLY("200 OK", "", "\n\n<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>\"x-2\"</ETag>"
     "</CompleteMultipartUploadResult>")}, SF_OK, 1, 0, NULL, "", "<ETag>&quot;e2&quot;</ETag><PartNumber>2</PartNumber>"},
    {"complete, failing late", {.verb = SF_STORE_MULTIPART_COMPLETE, .key = "k", .upload_id = "u", .keys = etags, .key_count = 2},
     {XML_ERROR("200 OK", "InternalError", ""), REPLY("200 OK", "", "<CompleteMultipartUploadResult/>")}, SF_OK, 2, 0, NULL, "",
     ""},
    {"complete, refused late", {.verb = SF_STORE_MULTIPART_COMPLETE, .key = "k", .upload_id = "u", .keys = etags, .key_count = 2},
     {XML_ERROR("200 OK", "InvalidPart", "")}, SF_IO, 1, 200, NULL, "POST answered 200 InvalidPart", ""},
    {"complete after a lost answer", {.verb = SF_STORE_MULTIPART_COMPLETE, .key = "k", .upload_id = "u", .keys = etags,
     .key_count = 2}, {STEP_RESET, XML_ERROR("404 Not Found", "NoSuchUpload", "")}, SF_NOT_FOUND, 2, 404, NULL,
     "may have succeeded", ""},
    {"complete what is to be new", {COMPLETE_NEW}, {REPLY("200 OK", "", "<CompleteMultipartUploadResult/>")}, SF_OK, 1, 0, NULL,
     "", "If-None-Match: *\r\n"},
    {"complete, another one was first", {COMPLETE_NEW}, {XML_ERROR("412 No", "PreconditionFailed", "")}, SF_CONFLICT, 1, 412, NULL,
     "PreconditionFailed: Text. (request id RID1)", ""},
    {"complete, another one was first, told late", {COMPLETE_NEW}, {XML_ERROR("200 OK", "PreconditionFailed", "")}, SF_CONFLICT, 1,
     200, NULL, "PreconditionFailed", ""},
    {"complete, two at once", {COMPLETE_NEW}, {XML_ERROR("409 Conflict", "ConditionalRequestConflict", "")}, SF_CONFLICT, 1, 409,
     NULL, "ConditionalRequestConflict", ""}, /* it has to begin again, with all of its parts */
    {"complete what is to be new after a lost answer", {COMPLETE_NEW}, {STEP_RESET, XML_ERROR("412 No", "PreconditionFailed", "")},
     SF_CONFLICT, 2, 412, NULL, "an earlier attempt, whose answer was lost, may have succeeded", ""},
    {"complete what is to be new after a refusal", {COMPLETE_NEW}, {SLOW_DOWN, XML_ERROR("412 No", "PreconditionFailed", "")},
     SF_CONFLICT, 2, 412, NULL, "(request id RID1), in attempt 2", ""},
    {"complete where there are no conditions", {COMPLETE_NEW}, {XML_ERROR("501 Not Implemented", "NotImplemented", ""),
     REPLY("200 OK", "", "<CompleteMultipartUploadResult/>")}, SF_OK, 2, 0, NULL, "", "If-None-Match: *\r\n"},
    {"complete where nothing is implemented", {COMPLETE_NEW}, {XML_ERROR("501 Not Implemented", "NotImplemented", ""),
     XML_ERROR("501 Not Implemented", "NotImplemented", "")}, SF_UNSUPPORTED, 2, 501, NULL, "NotImplemented", ""},
    {"abort", {.verb = SF_STORE_MULTIPART_ABORT, .key = "k", .upload_id = "u"}, {XML_ERROR("404 No", "NoSuchUpload", "")}, SF_OK, 1,
     0, NULL, "", "DELETE /bkt/k?uploadId=u HTTP/1.1"},
    {"unfinished uploads", {.verb = SF_STORE_MULTIPART_LIST, .key = "p q/"}, {REPLY("200 OK", "", "<ListMultipartUploadsResult/>")},
     SF_OK, 1, 0, NULL, "", "GET /bkt/?encoding-type=url&prefix=p%20q%2F&uploads= HTTP/1.1"},
    {"unfinished uploads, the next page", {.verb = SF_STORE_MULTIPART_LIST, .key = "", .continuation = "k 1", .upload_id = "U/1"},
     {REPLY("200 OK", "", "garbage"), REPLY("200 OK", "", "<ListMultipartUploadsResult/>")}, SF_OK, 2, 0, NULL, "",
     "GET /bkt/?encoding-type=url&key-marker=k%201&upload-id-marker=U%2F1&uploads= HTTP/1.1"},
    {"unfinished uploads, not here", {.verb = SF_STORE_MULTIPART_LIST, .key = ""}, {XML_ERROR("501 No", "NotImplemented", "")},
     SF_UNSUPPORTED, 1, 501, NULL, "list uploads s3://bkt/: GET answered 501 NotImplemented", ""},
    {"unfinished uploads, not allowed here", {.verb = SF_STORE_MULTIPART_LIST, .key = ""},
     {XML_ERROR("405 No", "MethodNotAllowed", "")}, SF_UNSUPPORTED, 1, 405, NULL, "MethodNotAllowed", ""},
    {"unfinished uploads, objects instead", {.verb = SF_STORE_MULTIPART_LIST, .key = ""}, {REPLY("200 OK", "",
     "<ListBucketResult/>")}, SF_UNSUPPORTED, 1, 200, NULL, "objects are listed instead of uploads", ""},
    {"delete", {.verb = SF_STORE_DELETE, .key = "k"}, {REPLY("204 No Content", "", "")}, SF_OK, 1, 0, NULL, "",
     "DELETE /bkt/k HTTP/1.1"},
    {"delete what is gone", {.verb = SF_STORE_DELETE, .key = "k"}, {XML_ERROR("404 No", "NoSuchKey", "")}, SF_OK, 1, 0, NULL, "", ""},
    {"delete what is gone, without a word", {.verb = SF_STORE_DELETE, .key = "k"}, {SIZED("404 No", "0", "", "")}, SF_OK, 1, 0, NULL, "",
     ""},
    {"abort what is gone, without a word", {.verb = SF_STORE_MULTIPART_ABORT, .key = "k", .upload_id = "u"}, {SIZED("404 No", "0", "",
     "")}, SF_OK, 1, 0, NULL, "", ""},
    {"delete in no bucket", {.verb = SF_STORE_DELETE, .key = "k"}, {XML_ERROR("404 No", "NoSuchBucket", "")}, SF_NOT_FOUND, 1, 404,
     NULL, "no bucket", ""},
    {"delete many", {.verb = SF_STORE_DELETE_MANY, .key = "", .keys = two_keys, .key_count = 2},
     {REPLY("200 OK", "", "<DeleteResult/>")}, SF_OK, 1, 0, NULL, "", "Content-MD5: AA3CcUMcya5yIVeADrtuTA==\r\n"},
    {"delete many, nothing to say", {.verb = SF_STORE_DELETE_MANY, .key = "", .keys = two_keys, .key_count = 2},
     {REPLY("204 No Content", "", "")}, SF_OK, 1, 0, NULL, "", ""},
    {"delete many, one stays", {.verb = SF_STORE_DELETE_MANY, .key = "", .keys = two_keys, .key_count = 2},
     {REPLY("200 OK", "", "<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code></Error></DeleteResult>")}, SF_DENIED, 1, 200,
     NULL, "\"b\" was not deleted", "POST /bkt/?delete= HTTP/1.1"},
    {"delete many, one later", {.verb = SF_STORE_DELETE_MANY, .key = "", .keys = two_keys, .key_count = 2},
     {REPLY("200 OK", "", "<DeleteResult><Error><Key>b</Key><Code>SlowDown</Code></Error></DeleteResult>"),
      REPLY("200 OK", "", "<DeleteResult/>")}, SF_OK, 2, 0, NULL, "", ""},
    /* clang-format on */
};

/* What is worth repeating and was not repeated any more was given up: the last attempt, or one that could not be waited
 * for. */
static void check_events(const struct fault_case *c, sf_store_events *events)
{
    sf_store_event found[8];
    size_t n = sf_store_events_take(events, found, 8), retries = c->attempts > 0 ? c->attempts - 1 : 0;
    bool given_up = !c->op.once && (sf_status_is_retryable(c->rc) ||
                                    (c->rc != SF_OK && retries == (size_t)usual_options().max_retries));

    if (n != retries + given_up)
        fail_msg("%s: %zu events", c->name, n);
    for (size_t i = 0; i < n; i++) {
        const sf_store_event *e = &found[i];

        if (e->kind != (i < retries ? SF_STORE_RETRY : SF_STORE_RETRY_EXHAUSTED) || e->attempts != i + 1 ||
            e->count != 1 || strcmp(e->operation, sf__store_verb_name(c->op.verb)) != 0 || e->delay_ms < 0 ||
            e->delay_ms > (i < retries ? 2 : 0))
            fail_msg("%s: event %zu: %d, %s, attempt %u, %lld ms, %llu times", c->name, i, (int)e->kind, e->operation,
                     e->attempts, (long long)e->delay_ms, (unsigned long long)e->count);
    }
}

static void check_case(const struct fault_case *c, const struct bench *b, const struct server *s)
{
    const sf_error *e = &b->error;
    uint32_t wanted_retries = c->attempts > 0 ? c->attempts - 1 : 0;

    if (e->code != c->rc || e->attempts != c->attempts || e->http_status != c->http_status)
        fail_msg("%s: %s, %u attempts, HTTP %d: %s", c->name, sf_status_name(e->code), e->attempts, e->http_status,
                 e->message);
    if (!strstr(e->message, c->message))
        fail_msg("%s: message \"%s\"", c->name, e->message);
    if (strstr(e->message, SECRET) || strstr(e->message, TOKEN))
        fail_msg("%s: a secret in \"%s\"", c->name, e->message);
    if (e->code != SF_OK && (!e->operation[0] || strncmp(e->object, "s3://bkt/", 9) != 0))
        fail_msg("%s: operation \"%s\" on \"%s\"", c->name, e->operation, e->object);
    if (strstr(e->message, "may have succeeded") && !strstr(c->message, "may have succeeded"))
        fail_msg("%s: nothing was uncertain: %s", c->name, e->message);
    if (b->op.may_be_ours != (strstr(c->message, "may have succeeded") != NULL))
        fail_msg("%s: whose the object may be", c->name);
    if (b->http_attempts != c->attempts || b->retries != wanted_retries || s->requests.count != c->attempts)
        fail_msg("%s: %zu attempts, %zu retries, %u requests", c->name, b->http_attempts, b->retries, s->requests.count);
    if (c->data &&
        (!b->op.data || b->op.data->n != strlen(c->data) || memcmp(b->op.data->data, c->data, b->op.data->n) != 0))
        fail_msg("%s: other bytes", c->name);
    if (b->op.longer != c->longer)
        fail_msg("%s: an object of %llu bytes", c->name, (unsigned long long)b->op.longer);
    if (e->code != SF_OK && b->op.data)
        fail_msg("%s: bytes with an error", c->name);
    if (c->sent && !strstr(s->first, c->sent))
        fail_msg("%s: sent\n%s", c->name, s->first);
}

static void faults(void **state)
{
    sf_store_events *events;
    sf_s3_options o = usual_options();

    assert_int_equal(sf_store_events_new(&events, NULL, NULL), SF_OK);
    o.events = events;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct server server;
        struct bench b;

        server_start(&server, cases[i].steps, false);
        assert_int_equal(bench_open(&b, &sf__allocator_default, "http://127.0.0.1:%u", server.port, o), SF_OK);
        bench_run(&b, &cases[i].op);
        server_stop(&server);
        check_case(&cases[i], &b, &server);
        check_events(&cases[i], events);
        sf__store_op_cleanup(&b.op, b.alloc);
        bench_close(&b);
    }
    sf_store_events_release(events);
}

/* ------------------------------------------------------------------ requests ------------------------------------- */

static void addressing_and_signatures(void **state)
{
    static const struct {
        const char *name, *endpoint;
        sf_addressing addressing;
        bool anonymous, token;
        const char *has[5], *has_not[2];
    } styles[] = {
        {"path",
         "http://127.0.0.1:%u/",
         SF_ADDRESSING_PATH,
         false,
         false,
         {"HEAD /bkt/k HTTP/1.1\r\n", "AWS4-HMAC-SHA256 Credential=AKTESTACCESS/", "/us-east-1/s3/aws4_request",
          "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n",
          "SignedHeaders=host;x-amz-content-sha256;x-amz-date, " /* what is signed is sent */},
         {TOKEN, SECRET}},
        {"path below a prefix",
         "http://127.0.0.1:%u/some/where/",
         SF_ADDRESSING_PATH,
         false,
         false,
         {"HEAD /some/where/bkt/k HTTP/1.1\r\n"},
         {TOKEN, SECRET}},
        {"virtual",
         "http://localhost:%u",
         SF_ADDRESSING_VIRTUAL,
         false,
         false,
         {"HEAD /k HTTP/1.1\r\n", "Host: bkt.localhost:"},
         {TOKEN, SECRET}},
        {"token",
         "http://127.0.0.1:%u",
         SF_ADDRESSING_PATH,
         false,
         true,
         {"x-amz-security-token: session-token\r\n", "x-amz-security-token, "},
         {SECRET, "x-amz-nothing"}},
        {"anonymous",
         "http://127.0.0.1:%u",
         SF_ADDRESSING_PATH,
         true,
         true,
         {"HEAD /bkt/k HTTP/1.1\r\n"},
         {"Authorization", "x-amz-"}},
    };
    static const char *const steps[] = {SIZED("200 OK", "1", "", ""), NULL};

    for (size_t i = 0; i < sizeof(styles) / sizeof(styles[0]); i++) {
        sf_s3_options o = usual_options();
        struct server server;
        struct bench b;

        o.addressing = styles[i].addressing;
        o.session_token = styles[i].token ? TOKEN : NULL;
        if (styles[i].anonymous)
            o.access_key_id = o.secret_access_key = NULL;
        server_start(&server, steps, false);
        assert_int_equal(bench_open(&b, &sf__allocator_default, styles[i].endpoint, server.port, o), SF_OK);
        bench_run(&b, &(sf_store_op){.verb = SF_STORE_HEAD, .key = "k"});
        server_stop(&server);
        if (b.error.code != SF_OK)
            fail_msg("%s: %s", styles[i].name, b.error.message);
        for (size_t k = 0; k < 5 && styles[i].has[k]; k++)
            if (!strstr(server.first, styles[i].has[k]) &&
                !(strstr(styles[i].has[k], "token, ") && strstr(server.first, ";x-amz-security-token,")))
                fail_msg("%s: no \"%s\" in\n%s", styles[i].name, styles[i].has[k], server.first);
        for (size_t k = 0; k < 2; k++)
            if (strstr(server.first, styles[i].has_not[k]))
                fail_msg("%s: \"%s\" in\n%s", styles[i].name, styles[i].has_not[k], server.first);
        bench_close(&b);
    }
}

/* ------------------------------------------------------------------ what a store cannot --------------------------- */

#define CREATE .verb = SF_STORE_PUT, .key = "k", .body = {(const uint8_t *)"body", 4}, .create_only = true
#define HEAD .verb = SF_STORE_HEAD, .key = "k"
#define DELETE_TWO .verb = SF_STORE_DELETE_MANY, .key = "", .keys = two_keys, .key_count = 2
#define NOT_IMPLEMENTED XML_ERROR("501 Not Implemented", "NotImplemented", "")
#define STORED SIZED("200 OK", "0", "ETag: \"e\"\r\n", "")
#define NOT_THERE SIZED("404 Not Found", "0", "", "")
#define GONE REPLY("204 No Content", "", "")
#define LAST_BYTE(range) SIZED("206 Partial Content", "1", "ETag: \"e\"\r\nContent-Range: bytes " range "\r\n", "x")
#define PAGE(more, rest)                                                                  \
    REPLY("200 OK", "",                                                                   \
          "<ListBucketResult><IsTruncated>" more "</IsTruncated><Contents><Key>p/a</Key>" \
          "<Size>1</Size></Contents>" rest "</ListBucketResult>")

/* Asked in another form, which of the two requests tells what is reported. */
static const struct other_way {
    const char *name;
    sf_store_op op;
    const char *steps[SERVER_STEPS], *requests; /* "VERB[condition] ..." in their order */
    sf_status rc;
    uint64_t size; /* HEAD */
    const char *message;
} other_ways[] = {
    /* clang-format off */
    {"create, not implemented", {CREATE}, {NOT_IMPLEMENTED, NOT_THERE, STORED}, "PUT* HEAD PUT ", SF_OK, 0, ""},
    {"create, a proxy's word", {CREATE}, {SIZED("501 No", "0", "", ""), NOT_THERE, STORED}, "PUT* HEAD PUT ", SF_OK, 0, ""},
    {"create, not allowed", {CREATE}, {XML_ERROR("405 No", "MethodNotAllowed", ""), NOT_THERE, STORED}, "PUT* HEAD PUT ", SF_OK, 0, ""},
    {"create, a header that means nothing", {CREATE}, {XML_ERROR("400 Bad Request", "NotImplemented", ""), NOT_THERE, STORED},
     "PUT* HEAD PUT ", SF_OK, 0, ""},
    {"create, an argument", {CREATE}, {XML_ERROR("400 Bad Request", "InvalidArgument", ""), NOT_THERE, STORED}, "PUT* HEAD PUT ", SF_OK,
     0, ""},
    {"create, a digest", {CREATE}, {XML_ERROR("400 Bad Request", "InvalidDigest", "")}, "PUT* ", SF_IO, 0, "InvalidDigest"},
    {"create, denied", {CREATE}, {XML_ERROR("403 No", "AccessDenied", "")}, "PUT* ", SF_DENIED, 0, "AccessDenied"},
    {"create what is there", {CREATE}, {NOT_IMPLEMENTED, SIZED("200 OK", "5", "", "")}, "PUT* HEAD ", SF_CONFLICT, 0, "is there"},
    {"create, and not allowed to look", {CREATE}, {NOT_IMPLEMENTED, XML_ERROR("403 No", "", ""), XML_ERROR("403 No", "AccessDenied", "")},
     "PUT* HEAD GET ", SF_DENIED, 0, "AccessDenied"},
    {"create, nothing is implemented", {CREATE}, {NOT_IMPLEMENTED, NOT_THERE, NOT_IMPLEMENTED}, "PUT* HEAD PUT ", SF_UNSUPPORTED, 0,
     "NotImplemented"},
    {"create, to be sure", {CREATE, .strict = true}, {NOT_IMPLEMENTED}, "PUT* ", SF_UNSUPPORTED, 0,
     "this store cannot compare with what is there before it puts, as was asked"},
    {"replace one version", {.verb = SF_STORE_PUT, .key = "k", .if_match = "\"v\""}, {NOT_IMPLEMENTED}, "PUT= ", SF_UNSUPPORTED, 0,
     "this store cannot compare"},
    {"replace one version, an argument", {.verb = SF_STORE_PUT, .key = "k", .if_match = "W/\"v\""},
     {XML_ERROR("400 Bad Request", "InvalidArgument", "")}, "PUT= ", SF_UNSUPPORTED, 0, "this store cannot compare"},
    {"head without a length", {HEAD}, {REPLY("200 OK", "Transfer-Encoding: chunked\r\n", ""), LAST_BYTE("478-478/479")}, "HEAD GET ",
     SF_OK, 479, ""},
    {"head without a length, range of an unknown size", {HEAD}, {REPLY("200 OK", "", ""), LAST_BYTE("478-478/*")}, "HEAD GET ", SF_OK,
     479, ""},
    {"head without a length, ranges ignored", {HEAD}, {REPLY("200 OK", "", ""), SIZED("200 OK", "3", "", "123")}, "HEAD GET ", SF_OK, 3,
     ""},
    {"head without a length, ranges ignored, huge", {HEAD}, {REPLY("200 OK", "", ""), SIZED("200 OK", "9999999", "", "123")}, "HEAD GET ",
     SF_OK, 9999999, ""},
    {"head without a length, huge and nobody knows", {HEAD}, {REPLY("200 OK", "", ""), XML_ERROR("500 No", "InternalError", ""),
     LAST_BYTE("0-0/1")}, "HEAD GET GET ", SF_OK, 1, ""},
    {"head of length 0", {HEAD}, {SIZED("200 OK", "0", "ETag: \"e\"\r\n", ""), LAST_BYTE("8-8/9")}, "HEAD GET ", SF_OK, 9, ""},
    {"head of length 0, and it is", {HEAD}, {SIZED("200 OK", "0", "", ""), SIZED("416 Range", "0", "Content-Range: bytes */0\r\n", "")},
     "HEAD GET ", SF_OK, 0, ""},
    {"head of length 0, who knows", {HEAD}, {SIZED("200 OK", "0", "", ""), SIZED("400 Bad", "0", "", "")}, "HEAD GET ", SF_OK, 0, ""},
    {"head not allowed", {HEAD}, {SIZED("405 No", "0", "", ""), LAST_BYTE("8-8/9")}, "HEAD GET ", SF_OK, 9, ""},
    {"head not implemented", {HEAD}, {SIZED("501 No", "0", "", ""), LAST_BYTE("8-8/9")}, "HEAD GET ", SF_OK, 9, ""},
    {"head forbidden", {HEAD}, {SIZED("403 No", "0", "", ""), LAST_BYTE("8-8/9")}, "HEAD GET ", SF_OK, 9, ""},
    {"head forbidden, like everything", {HEAD}, {SIZED("403 No", "0", "", ""), XML_ERROR("403 No", "AccessDenied", "")}, "HEAD GET ",
     SF_DENIED, 0, "AccessDenied"},
    {"head not allowed of what is not there", {HEAD}, {SIZED("405 No", "0", "", ""), XML_ERROR("404 No", "NoSuchKey", "")}, "HEAD GET ",
     SF_NOT_FOUND, 0, "NoSuchKey"},
    {"delete many, not implemented", {DELETE_TWO}, {NOT_IMPLEMENTED, GONE, GONE}, "POST DELETE DELETE ", SF_OK, 0, ""},
    {"delete many, not allowed", {DELETE_TWO}, {SIZED("405 No", "0", "", ""), GONE, GONE}, "POST DELETE DELETE ", SF_OK, 0, ""},
    {"delete many, bad request", {DELETE_TWO}, {XML_ERROR("400 No", "NotImplemented", ""), GONE, GONE}, "POST DELETE DELETE ", SF_OK, 0,
     ""},
    {"delete many, taken for a form", {DELETE_TWO}, {XML_ERROR("400 No", "MalformedPOSTRequest", ""), GONE, GONE},
     "POST DELETE DELETE ", SF_OK, 0, ""},
    {"delete many, no such page", {DELETE_TWO}, {SIZED("404 No", "0", "", ""), GONE, NOT_THERE}, "POST DELETE DELETE ", SF_OK, 0, ""},
    {"delete many, not implemented one by one either", {DELETE_TWO}, {NOT_IMPLEMENTED, NOT_IMPLEMENTED, NOT_IMPLEMENTED},
     "POST DELETE DELETE ", SF_UNSUPPORTED, 0, "DELETE answered 501 NotImplemented"},
    {"delete many, denied", {DELETE_TWO}, {XML_ERROR("403 No", "AccessDenied", "")}, "POST ", SF_DENIED, 0, "AccessDenied"},
    {"delete many, no bucket", {DELETE_TWO}, {XML_ERROR("404 No", "NoSuchBucket", "")}, "POST ", SF_NOT_FOUND, 0, "NoSuchBucket"},
    {"list, only the first way", {.verb = SF_STORE_LIST, .key = "p/"}, {NOT_IMPLEMENTED, PAGE("false", "")}, "GET GET ", SF_OK, 0, ""},
    {"list, an argument", {.verb = SF_STORE_LIST, .key = "p/"}, {XML_ERROR("400 No", "InvalidArgument", ""), PAGE("false", "")},
     "GET GET ", SF_OK, 0, ""},
    {"list, neither way", {.verb = SF_STORE_LIST, .key = "p/"}, {NOT_IMPLEMENTED, NOT_IMPLEMENTED}, "GET GET ", SF_UNSUPPORTED, 0,
     "NotImplemented"},
    /* clang-format on */
};

/* "GET PUT* " of the requests that a server has got: '*' with If-None-Match, '=' with If-Match. */
static void requests_of(const struct server *s, char *out, size_t cap)
{
    size_t n = 0;

    out[0] = '\0';
    for (const char *p = s->all, *end; (end = strstr(p, "\r\n\r\n")) != NULL; p = end + 4) {
        const char *none = strstr(p, "If-None-Match: *\r\n"), *match = strstr(p, "\nIf-Match: \"");
        const char *length = strstr(p, "\r\nContent-Length: ");
        size_t body = length && length < end ? strtoul(length + 18, NULL, 10) : 0;

        n += (size_t)snprintf(out + n, cap - n, "%.*s%s%s ", (int)strcspn(p, " "), p, none && none < end ? "*" : "",
                              match && match < end ? "=" : "");
        end += body;
    }
}

static void another_form(void **state)
{
    for (size_t i = 0; i < sizeof(other_ways) / sizeof(other_ways[0]); i++) {
        const struct other_way *w = &other_ways[i];
        struct server server;
        char requests[256];
        struct bench b;

        server_start(&server, w->steps, false);
        assert_int_equal(bench_open(&b, &sf__allocator_default, "http://127.0.0.1:%u", server.port, usual_options()),
                         SF_OK);
        bench_run(&b, &w->op);
        server_stop(&server);
        requests_of(&server, requests, sizeof(requests));
        if (b.error.code != w->rc || !strstr(b.error.message, w->message))
            fail_msg("%s: %s: %s", w->name, sf_status_name(b.error.code), b.error.message);
        if (strcmp(requests, w->requests) != 0)
            fail_msg("%s: %s", w->name, requests);
        if (w->rc == SF_OK && w->op.verb == SF_STORE_HEAD && b.op.object_size != w->size)
            fail_msg("%s: %llu bytes", w->name, (unsigned long long)b.op.object_size);
        sf__store_op_cleanup(&b.op, b.alloc);
        bench_close(&b);
    }
}

/* A server that has said by name what it cannot do is asked no more; one whose word may have been a proxy's is asked three
 * times. */
static void what_a_store_cannot_is_remembered(void **state)
{
    static const char PROXY[] = SIZED("501 No", "0", "", "");
    static const struct {
        const char *name;
        sf_store_op op;
        const char *steps[SERVER_STEPS];
        int runs;
        const char *requests;
    } rows[] = {
        {"create", {CREATE}, {NOT_IMPLEMENTED, NOT_THERE, STORED, NOT_THERE, STORED}, 2, "PUT* HEAD PUT HEAD PUT "},
        {"create, perhaps", {CREATE}, {PROXY, NOT_THERE, STORED, STORED}, 2, "PUT* HEAD PUT PUT* "},
        {"delete", {DELETE_TWO}, {NOT_IMPLEMENTED, GONE, GONE, GONE, GONE}, 2, "POST DELETE DELETE DELETE DELETE "},
        {"complete, perhaps",
         {COMPLETE_NEW},
         {PROXY, REPLY("200 OK", "", "<CompleteMultipartUploadResult/>"), PROXY,
          REPLY("200 OK", "", "<CompleteMultipartUploadResult/>"), PROXY,
          REPLY("200 OK", "", "<CompleteMultipartUploadResult/>"),
          REPLY("200 OK", "", "<CompleteMultipartUploadResult/>")},
         4,
         "POST* POST POST* POST POST* POST POST "},
        {"list",
         {.verb = SF_STORE_LIST, .key = "p/"},
         {NOT_IMPLEMENTED, PAGE("false", ""), PAGE("false", "")},
         2,
         "GET GET GET "},
        {"head",
         {HEAD},
         {REPLY("200 OK", "", ""), LAST_BYTE("8-8/9"), REPLY("200 OK", "", ""), LAST_BYTE("8-8/9"),
          REPLY("200 OK", "", ""), LAST_BYTE("8-8/9"), LAST_BYTE("8-8/9")},
         4,
         "HEAD GET HEAD GET HEAD GET GET "},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server server;
        char requests[256];
        struct bench b;

        server_start(&server, rows[i].steps, false);
        assert_int_equal(bench_open(&b, &sf__allocator_default, "http://127.0.0.1:%u", server.port, usual_options()),
                         SF_OK);
        for (int n = 0; n < rows[i].runs; n++) {
            bench_run(&b, &rows[i].op);
            if (b.error.code != SF_OK)
                fail_msg("%s: %s", rows[i].name, b.error.message);
            sf__store_op_cleanup(&b.op, b.alloc);
        }
        server_stop(&server);
        requests_of(&server, requests, sizeof(requests));
        if (strcmp(requests, rows[i].requests) != 0 || b.warnings != 1)
            fail_msg("%s: %d warnings, %s", rows[i].name, (int)b.warnings, requests);
        bench_close(&b);
    }
}

/* What a bucket may demand of every request, and of every body. */
static void what_every_request_carries(void **state)
{
    static const sf_store_op ops[] = {{RANGE_4_3},
                                      {HEAD},
                                      {CREATE},
                                      {DELETE_TWO},
                                      {.verb = SF_STORE_DELETE, .key = "k"},
                                      {.verb = SF_STORE_LIST, .key = "p/"},
                                      {.verb = SF_STORE_MULTIPART_CREATE, .key = "k"},
                                      {COMPLETE_NEW},
                                      {.verb = SF_STORE_MULTIPART_PART,
                                       .key = "k",
                                       .upload_id = "u",
                                       .part_number = 1,
                                       .body = {(const uint8_t *)"body", 4}},
                                      {.verb = SF_STORE_MULTIPART_ABORT, .key = "k", .upload_id = "u"},
                                      {.verb = SF_STORE_MULTIPART_LIST, .key = "p/"}};

    for (size_t i = 0; i < 2 * sizeof(ops) / sizeof(ops[0]); i++) {
        static const char *const steps[] = {SIZED("403 No", "0", "", ""), NULL};
        sf_store_op op = ops[i / 2];
        sf_s3_options o = usual_options();
        struct server server;
        struct bench b;
        bool body = op.verb == SF_STORE_PUT || op.verb == SF_STORE_MULTIPART_PART || op.verb == SF_STORE_DELETE_MANY;

        o.requester_pays = i % 2;
        server_start(&server, steps, true);
        assert_int_equal(bench_open(&b, &sf__allocator_default, "http://127.0.0.1:%u", server.port, o), SF_OK);
        bench_run(&b, &op);
        server_stop(&server);
        if (!!strstr(server.first, "\r\nx-amz-request-payer: requester\r\n") != o.requester_pays)
            fail_msg("%s: who pays?\n%s", sf__store_verb_name(op.verb), server.first);
        if (o.requester_pays && !strstr(strstr(server.first, "SignedHeaders="), "x-amz-request-payer"))
            fail_msg("%s: not signed\n%s", sf__store_verb_name(op.verb), server.first);
        if (!!strstr(server.first, "\r\nContent-MD5: ") != body)
            fail_msg("%s: digest?\n%s", sf__store_verb_name(op.verb), server.first);
        if (op.verb == SF_STORE_PUT && !strstr(server.first, "Content-MD5: hBotaJrYa9FhFEdFPCLG/A==\r\n"))
            fail_msg("%s", server.first);
        bench_close(&b);
    }
}

/* Pages of the first way to list go on behind a key. */
static void pages_behind_a_key(void **state)
{
    static const struct {
        const char *name, *steps[SERVER_STEPS], *second; /* a part of the second request */
        size_t entries;
        sf_status rc;
    } rows[] = {
        {"an answer of the first way",
         {PAGE("true", "<NextMarker>p/b</NextMarker>"), PAGE("false", "")},
         "encoding-type=url&list-type=2&marker=p%2Fb&prefix=p%2F&start-after=p%2Fb ",
         2,
         SF_OK},
        {"without a marker", {PAGE("true", ""), PAGE("false", "")}, "&marker=p%2Fa&", 2, SF_OK},
        {"an encoded one",
         {PAGE("true", "<EncodingType>url</EncodingType><NextMarker>p/a%20b</NextMarker>"), PAGE("false", "")},
         "&marker=p%2Fa%20b&",
         2,
         SF_OK},
        {"the same page for ever", {PAGE("true", ""), PAGE("true", "")}, "", 0, SF_IO},
        {"an end that is none",
         {REPLY("200 OK", "", "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>")},
         "",
         0,
         SF_IO},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_store_op op = {.verb = SF_STORE_LIST, .key = "p/"};
        sf_s3_options o = usual_options();
        struct server server;
        struct bench b;
        size_t entries;
        char *next;

        o.max_retries = 0;
        server_start(&server, rows[i].steps, false);
        assert_int_equal(bench_open(&b, &sf__allocator_default, "http://127.0.0.1:%u", server.port, o), SF_OK);
        bench_run(&b, &op);
        next = b.op.next;
        entries = b.op.entry_count;
        b.op.next = NULL;
        if (next) {
            op.continuation = next;
            sf__store_op_cleanup(&b.op, b.alloc);
            bench_run(&b, &op);
            entries += b.op.entry_count;
        }
        server_stop(&server);
        if (b.error.code != rows[i].rc || (rows[i].rc == SF_OK && entries != rows[i].entries) ||
            !strstr(server.all, rows[i].second))
            fail_msg("%s: %zu entries, %s\n%s", rows[i].name, entries, b.error.message, server.all);
        sf__free(b.alloc, next);
        sf__store_op_cleanup(&b.op, b.alloc);
        bench_close(&b);
    }
}

/* What the store cannot do it is asked once. */
static void no_conditions_are_noticed_once(void **state)
{
    static const char *const steps[] = {
        XML_ERROR("501 Not Implemented", "NotImplemented", ""), REPLY("200 OK", "", "<CompleteMultipartUploadResult/>"),
        REPLY("200 OK", "", "<CompleteMultipartUploadResult/>"), XML_ERROR("412 No", "PreconditionFailed", ""), NULL};
    const sf_store_op complete = {COMPLETE_NEW}, put = {.verb = SF_STORE_PUT, .key = "k", .create_only = true};
    struct server server;
    unsigned conditions = 0;
    struct bench b;

    server_start(&server, steps, false);
    assert_int_equal(bench_open(&b, &sf__allocator_default, "http://127.0.0.1:%u", server.port, usual_options()), SF_OK);
    bench_run(&b, &complete);
    assert_int_equal(b.error.code, SF_OK);
    bench_run(&b, &complete);
    assert_int_equal(b.error.code, SF_OK);
    assert_int_equal(b.error.attempts, 1);
    bench_run(&b, &put); /* these are another matter */
    assert_int_equal(b.error.code, SF_CONFLICT);
    server_stop(&server);
    for (const char *p = server.all; (p = strstr(p, "If-None-Match: *\r\n")) != NULL; p++)
        conditions++;
    assert_int_equal(conditions, 2);
    assert_int_equal(b.warnings, 1);
    bench_close(&b);
}

static void refused_options(void **state)
{
    static const char *const buckets[] = {"", "a/b", "a b", "a?b", "-a", "a@b", "a:", "a:b:c", "a:..", "?:a", ".."};
    sf_s3_resolved r = {.options = usual_options()};
    sf_store *store = NULL;
    sf_loop *loop;
    sf_error err = SF_ERROR_INIT;

    assert_int_equal(sf__loop_new(&loop, &sf__allocator_default, &err), SF_OK);
    r.options.endpoint_url = "http://127.0.0.1:1";
    for (size_t i = 0; i < sizeof(buckets) / sizeof(buckets[0]); i++)
        if (sf__store_s3_new(&store, buckets[i], &r, NULL, NULL, NULL, loop, &sf__allocator_default, &err) != SF_INVALID)
            fail_msg("bucket \"%s\" was taken", buckets[i]);
    r.options.region = NULL;
    assert_int_equal(sf__store_s3_new(&store, "b", &r, NULL, NULL, NULL, loop, &sf__allocator_default, &err), SF_INVALID);
    sf__loop_free(loop);
}

/* ------------------------------------------------------------------ time ----------------------------------------- */

static void a_stalled_server_is_left(void **state)
{
    static const char *const steps[] = {STEP_STALL, OK_567, NULL};
    sf_s3_options o = usual_options();
    struct server server;
    struct bench b;

    for (o.read_timeout_ms = 200;; o.read_timeout_ms *= 2) { /* so long that the second attempt has its answer within it */
        server_start(&server, steps, false);
        assert_int_equal(bench_open(&b, &sf__allocator_default, "http://127.0.0.1:%u", server.port, o), SF_OK);
        bench_run(&b, &(sf_store_op){RANGE_4_3});
        server_stop(&server);
        if (b.error.attempts == 2 || o.read_timeout_ms > 5000)
            break;
        sf__store_op_cleanup(&b.op, b.alloc);
        bench_close(&b);
    }
    assert_int_equal(b.error.code, SF_OK);
    assert_int_equal(b.error.attempts, 2);
    assert_memory_equal(b.op.data->data, "567", 3);
    sf__store_op_cleanup(&b.op, b.alloc);
    bench_close(&b);
}

static void the_deadline_ends_an_attempt(void **state)
{
    static const char *const steps[] = {STEP_STALL, NULL};
    struct server server;
    struct bench b;

    server_start(&server, steps, true);
    assert_int_equal(bench_open(&b, &sf__allocator_default, "http://127.0.0.1:%u", server.port, usual_options()), SF_OK);
    for (int64_t ms = 100; gate_count(&server.requests) == 0; ms *= 2) { /* so long that there is an attempt */
        bench_run(&b, &(sf_store_op){RANGE_4_3, .deadline_ns = sf__deadline_in_ms(ms)});
        assert_int_equal(b.error.code, SF_TIMEOUT);
    }
    server_stop(&server);
    assert_int_equal(b.error.attempts, 1);
    bench_close(&b);
}

/* A back-off that reaches beyond the deadline is not begun: the deadline ends the operation, and says what came before. */
static void the_deadline_bounds_retries(void **state)
{
    static const char *const steps[] = {SIZED("503 Busy", "0", "Retry-After: 9\r\n", ""), NULL};
    struct server server;
    struct bench b;

    server_start(&server, steps, false);
    assert_int_equal(bench_open(&b, &sf__allocator_default, "http://127.0.0.1:%u", server.port, usual_options()), SF_OK);
    bench_run(&b, &(sf_store_op){RANGE_4_3, .deadline_ns = sf__deadline_in_ms(8000)});
    server_stop(&server);
    assert_int_equal(b.error.code, SF_TIMEOUT);
    assert_int_equal(b.error.attempts, 1);
    assert_int_equal(b.error.http_status, 503);
    assert_non_null(strstr(b.error.message, "the deadline leaves no time for another attempt after 1 attempt in "));
    assert_non_null(strstr(b.error.message, "; the last one: GET answered 503"));
    bench_close(&b);
}

static void nobody_listens(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int nobody = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* bound, so that nobody else listens there either */
    socklen_t n = sizeof(at);
    struct bench b;

    assert_int_equal(bind(nobody, (struct sockaddr *)&at, n), 0);
    assert_int_equal(getsockname(nobody, (struct sockaddr *)&at, &n), 0);
    assert_int_equal(bench_open(&b, &sf__allocator_default, "http://127.0.0.1:%u", ntohs(at.sin_port), usual_options()),
                     SF_OK);
    bench_run(&b, &(sf_store_op){RANGE_4_3});
    assert_int_equal(b.error.code, SF_UNAVAILABLE);
    assert_int_equal(b.error.attempts, 4);
    assert_int_equal(b.error.http_status, 0);
    bench_close(&b);
    close(nobody);
}

/* ------------------------------------------------------------------ cancelling ----------------------------------- */

enum cancel_when { CANCEL_AT_ONCE, CANCEL_SENT, CANCEL_WAITING, CANCEL_REFUSED };

static void submit_and_cancel(void *arg)
{
    submit_op(arg);
    cancel_op(arg);
    cancel_op(arg); /* changes nothing */
}

static void cancelling(void **state)
{
    static const struct {
        const char *name;
        enum cancel_when when;
        const char *const steps[2];
        uint32_t attempts;
    } whens[] = {
        {"at once", CANCEL_AT_ONCE, {OK_567}, 1},
        {"refused before it is sent", CANCEL_REFUSED, {OK_567}, 0},
        {"while an answer is awaited", CANCEL_SENT, {STEP_STALL}, 1},
        {"in a back-off", CANCEL_WAITING, {SIZED("503 Busy", "0", "Retry-After: 9\r\n", "")}, 1},
    };

    for (size_t i = 0; i < sizeof(whens) / sizeof(whens[0]); i++) {
        struct server server;
        struct bench b;

        server_start(&server, whens[i].steps, false);
        assert_int_equal(bench_open(&b, &sf__allocator_default, "http://127.0.0.1:%u", server.port, usual_options()),
                         SF_OK);
        b.op = (sf_store_op){RANGE_4_3, .done = on_done, .ctx = &b, .deadline_ns = sf__deadline_in_ms(20000)};
        if (whens[i].when == CANCEL_REFUSED)
            b.op.if_match = "\r\n";
        if (whens[i].when == CANCEL_AT_ONCE || whens[i].when == CANCEL_REFUSED) {
            on_loop(b.loop, submit_and_cancel, &b);
        } else {
            on_loop(b.loop, submit_op, &b);
            gate_wait(whens[i].when == CANCEL_SENT ? &server.requests : &b.retried, 1);
            on_loop(b.loop, cancel_op, &b);
        }
        gate_wait(&b.done, 1);
        server_stop(&server);
        if (b.error.code != SF_CANCELLED || b.error.attempts != whens[i].attempts || b.op.data || b.done.count != 1)
            fail_msg("%s: %s, %u attempts", whens[i].name, sf_status_name(b.error.code), b.error.attempts);
        if (whens[i].when == CANCEL_WAITING && b.last_delay_ms < 9000)
            fail_msg("%s: the server's wish was not heard: %lld ms", whens[i].name, (long long)b.last_delay_ms);
        bench_close(&b);
    }
}

/* ------------------------------------------------------------------ memory --------------------------------------- */

static void no_memory(void **state)
{
    static const char *const steps[] = {
        REPLY("200 OK", "ETag: \"e\"\r\n",
              "<ListBucketResult><Contents><Key>b</Key><Size>1</Size></Contents></ListBucketResult>"),
        NULL};
    struct server server;

    server_start(&server, steps, true);
    for (long nth = 0;; nth++) {
        struct test_heap h;
        struct bench b;

        heap_init(&h);
        assert_int_equal(bench_open(&b, &h.alloc, "http://127.0.0.1:%u", server.port, usual_options()), SF_OK);
        heap_arm(&h, nth);
        bench_run(&b, &(sf_store_op){.verb = SF_STORE_LIST, .key = ""});
        heap_disarm(&h);
        if (b.error.code != (h.fired ? SF_NOMEM : SF_OK))
            fail_msg("allocation %ld: %s", nth, b.error.message);
        sf__store_op_cleanup(&b.op, &h.alloc);
        bench_close(&b);
        assert_int_equal(h.live, 0);
        if (!h.fired) {
            assert_true(nth > 10);
            break;
        }
    }
    server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults),
        cmocka_unit_test(addressing_and_signatures),
        cmocka_unit_test(no_conditions_are_noticed_once),
        cmocka_unit_test(another_form),
        cmocka_unit_test(what_a_store_cannot_is_remembered),
        cmocka_unit_test(what_every_request_carries),
        cmocka_unit_test(pages_behind_a_key),
        cmocka_unit_test(refused_options),
        cmocka_unit_test(a_stalled_server_is_left),
        cmocka_unit_test(the_deadline_ends_an_attempt),
        cmocka_unit_test(the_deadline_bounds_retries),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(cancelling),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
