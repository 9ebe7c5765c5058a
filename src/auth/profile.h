/* Profiles of the shared credentials and config files. Reads files: not for the loop thread. One thread. */
#ifndef SF_AUTH_PROFILE_H
#define SF_AUTH_PROFILE_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/env.h"

/* A small file of text as a whole, terminated, without a byte order mark; overwritten when it goes. `s` is NULL when there is
 * none. */
typedef struct sf_text_file {
    char *s;
    size_t n;
    const char *absent; /* why there is none; static text */
} sf_text_file;
/* A file that is not there is an empty one. One in a home that is closed to us is, too, unless somebody named it. SF_INVALID
 * for what is no text in UTF-8 (UTF-16 for one), or too long. */
sf_status sf__text_file_read(sf_text_file *f, const char *path, bool named, const sf_allocator *a, sf_error *err);
void sf__text_file_cleanup(sf_text_file *f, const sf_allocator *a);

/* Both files, by the variables that name them or in their usual places. */
typedef struct sf_shared_files {
    sf_text_file credentials, config;
    char *credentials_path, *config_path; /* NULL: there is no home to look in */
    char *home;                           /* NULL: nobody knows */
    const sf_allocator *alloc;
} sf_shared_files;
/* *f must be cleaned up, whatever comes out. */
sf_status sf__shared_files_read(sf_shared_files *f, const sf_environment *env, const sf_allocator *a, sf_error *err);
void sf__shared_files_cleanup(sf_shared_files *f);

/* What a profile says; the credentials file wins, and keys come from one file. Texts are owned, NULL where there is none. */
typedef struct sf_profile {
    char *access_key, *secret_key, *token;
    char *region, *endpoint, *s3_endpoint, *sts_endpoint, *sso_endpoint, *services, *addressing, *ca_bundle;
    char *ignore_endpoints, *use_fips, *use_dualstack, *s3_dualstack;
    char *role_arn, *role_session, *external_id, *source_profile, *credential_source, *web_identity_file;
    char *process;
    char *sso_session, *sso_start_url, *sso_region, *sso_account, *sso_role;
    const char *keys_path; /* the files' own: where the keys are, or one of them, perhaps empty; NULL: nowhere */
    bool in_credentials, in_config;
    const sf_allocator *alloc;
} sf_profile;
/* SF_INVALID for a file that is none of its kind, and for a profile that is damaged or names what is not there; other
 * profiles may be as they like. */
sf_status sf__profile_read(sf_profile *p, const sf_shared_files *f, const char *name, sf_error *err);
static inline bool sf__profile_found(const sf_profile *p)
{
    return p->in_credentials || p->in_config;
}
void sf__profile_cleanup(sf_profile *p);

#endif
