/* What the parts of the file store share. The functions run on a worker and fill op's results or op->error. */
#ifndef SF_STORE_FILE_H
#define SF_STORE_FILE_H

#include <sys/stat.h>

#include "store/store.h"

/* Files that a writer has not finished begin like this; listings do not show them. */
#define SF_FILE_TEMPORARY ".sf-tmp-"
#define SF_FILE_UPLOAD ".sf-upload-"

sf_status sf__file_list(sf_store_op *op); /* of objects, or of uploads */
sf_status sf__file_put(sf_store_op *op);
sf_status sf__file_multipart(sf_store_op *op);

/* "/key"; freed with sf__free. NULL, with op->error set, for a key with empty, "." or ".." segments. */
char *sf__file_path(sf_store_op *op, const char *key);
/* By errno; names what was tried. */
sf_status sf__file_error(sf_store_op *op, const char *what);
void sf__file_etag(const struct stat *st, char out[static 64]);

#endif
