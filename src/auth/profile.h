/* Profiles of the shared credentials and config files. Reads files: not for the loop thread. One thread. */
#ifndef SF_AUTH_PROFILE_H
#define SF_AUTH_PROFILE_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/env.h"

/* A small file as a whole, terminated; overwritten when it goes. `s` is NULL when there is none. */
typedef struct sf_text_file {
    char *s;
    size_t n;
} sf_text_file;
/* A file that is not there is an empty one. One in a home that is closed to us is, too, unless somebody named it. */
sf_status sf__text_file_read(sf_text_file *f, const char *path, bool named, const sf_allocator *a, sf_error *err);
void sf__text_file_cleanup(sf_text_file *f, const sf_allocator *a);

/* Both files, by the variables that name them or in their usual places. */
typedef struct sf_shared_files {
    sf_text_file credentials, config;
    const sf_allocator *alloc;
} sf_shared_files;
sf_status sf__shared_files_read(sf_shared_files *f, const sf_environment *env, const sf_allocator *a, sf_error *err);
void sf__shared_files_cleanup(sf_shared_files *f);

/* What a profile says; the credentials file wins. Texts are owned, NULL where there is none. */
typedef struct sf_profile {
    char *access_key, *secret_key, *token;
    char *region, *endpoint, *s3_endpoint, *services, *addressing, *ca_bundle;
    char *role_arn, *role_session, *external_id, *source_profile, *credential_source, *web_identity_file;
    char *process;
    char *sso_session, *sso_start_url, *sso_region, *sso_account, *sso_role;
    bool found;
    const sf_allocator *alloc;
} sf_profile;
/* `found` says whether either file has it. */
sf_status sf__profile_read(sf_profile *p, const sf_shared_files *f, const char *name, sf_error *err);
void sf__profile_cleanup(sf_profile *p);

#endif
