/* Resolving sf_s3_options: what the caller left open comes from the environment, then from the shared config and
 * credentials files (profiles), then from the defaults. Reads files: not for the loop thread. */
#ifndef SF_STORE_CREDENTIALS_H
#define SF_STORE_CREDENTIALS_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "shardyfusion/store.h"

/* getenv() with a context; NULL stands for the process's environment. */
typedef const char *(*sf_getenv_fn)(void *ctx, const char *name);

/* `opts` may be NULL. *out owns all its strings; every number in it is final, `addressing` is PATH or VIRTUAL, and
 * access_key_id and secret_access_key are both set or both NULL (anonymous). Environment variables are taken one by one,
 * S3_* before AWS_*; empty ones count as unset. A profile that the caller names is an argument: its credentials win
 * over the environment's. Error texts never hold a value, only names. */
sf_status sf__s3_options_resolve(sf_s3_options **out, const sf_s3_options *opts, sf_getenv_fn env, void *env_ctx,
                                 const sf_allocator *a, sf_error *err);
/* Copies resolved options. NULL without memory. */
sf_s3_options *sf__s3_options_copy(const sf_s3_options *opts, const sf_allocator *a) SF_MUST_USE;
/* Overwrites the secrets first. Takes NULL. */
void sf__s3_options_free(sf_s3_options *opts, const sf_allocator *a);

/* One setting of an INI file as the AWS tools write them. `parent` is the setting that an indented one belongs to, and
 * empty otherwise. Spans into the text, trimmed. Lines that are none of these are skipped: other tools own the file. */
typedef struct sf_ini_item {
    sf_bytes section, parent, name, value;
} sf_ini_item;
void sf__ini_parse(sf_bytes text, void (*on_item)(void *ctx, const sf_ini_item *item), void *ctx);

#endif
