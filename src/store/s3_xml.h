/* The XML documents of S3, in both directions. Untrusted bytes in, structs out: no I/O. Document types are refused, so
 * no entity ever expands. Pure; any thread. */
#ifndef SF_STORE_S3_XML_H
#define SF_STORE_S3_XML_H

#include "auth/fault.h"
#include "base/strbuf.h"
#include "store/store.h"

typedef struct sf_s3_page {
    sf_store_entry *entries; /* ascending by key */
    size_t entry_count;
    char *next;    /* NULL on the last page */
    bool unsorted; /* objects did not come so: what follows may lie anywhere */
} sf_s3_page;

/* The key behind which a page goes on, when that is how its `next` says it; NULL: it is the server's own token. */
const char *sf__s3_list_marker(const char *next);

/* ListBucketResult, of either version. Every key has to begin with `prefix`. *out is empty after a failure; SF_CORRUPT: not such a
 * document. The caller frees with sf__s3_page_cleanup() or takes the fields over. */
sf_status sf__s3_xml_page(sf_bytes body, const char *prefix, sf_s3_page *out, const sf_allocator *a, sf_error *err);
void sf__s3_page_cleanup(sf_s3_page *page, const sf_allocator *a);

typedef struct sf_s3_uploads {
    sf_store_upload *uploads; /* in the document's order */
    size_t upload_count;
    char *next_key, *next_id; /* where the next page begins; NULL on the last. next_id may be NULL alone */
} sf_s3_uploads;

/* ListMultipartUploadsResult, with the rules of a listing. SF_UNSUPPORTED: it is a ListBucketResult, of a server that knows
 * nothing else. The caller frees with sf__s3_uploads_cleanup() or takes the fields over. */
sf_status sf__s3_xml_uploads(sf_bytes body, const char *prefix, sf_s3_uploads *out, const sf_allocator *a, sf_error *err);
void sf__s3_uploads_cleanup(sf_s3_uploads *page, const sf_allocator *a);

/* InitiateMultipartUploadResult: *upload_id is the caller's. */
sf_status sf__s3_xml_created(sf_bytes body, char **upload_id, const sf_allocator *a, sf_error *err);

/* CompleteMultipartUploadResult. S3 answers 200 before it has done the work: then the document is an <Error>, and the
 * result SF_IO with *fault filled. */
sf_status sf__s3_xml_completed(sf_bytes body, char etag[128], sf_s3_fault *fault, const sf_allocator *a, sf_error *err);

/* DeleteResult: SF_IO with the first object that stayed in *fault, its name in the error. A missing object is fine. */
sf_status sf__s3_xml_deleted(sf_bytes body, sf_s3_fault *fault, const sf_allocator *a, sf_error *err);

/* Request bodies. SF_INVALID for a key that XML cannot carry. */
sf_status sf__s3_xml_format_delete(sf_strbuf *out, const char *const *keys, size_t count, sf_error *err);
sf_status sf__s3_xml_format_complete(sf_strbuf *out, const char *const *etags, size_t count, sf_error *err);

#endif
