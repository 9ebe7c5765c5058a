/* Where credentials come from: found once, when a store is created, from arguments, environment and profiles. Reads no
 * files itself, sends nothing. The order:
 *     arguments: a source of the caller's, keys, or the profile that they name
 *     environment: S3_* and AWS_* keys, then AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN
 *     profile: assumed role, web identity, SSO, keys, credential_process
 *     container: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI (ECS, EKS Pod Identity)
 *     the machine's metadata service, unless AWS_EC2_METADATA_DISABLED is true; when nobody answers there: anonymous
 * The first that is configured counts; when it fails, requests fail and say why. One thread. */
#ifndef SF_AUTH_CREDENTIAL_ORIGIN_H
#define SF_AUTH_CREDENTIAL_ORIGIN_H

#include "auth/credential_asker.h"
#include "auth/credentials.h"
#include "auth/endpoint.h"
#include "auth/profile.h"
#include "shardyfusion/store.h"

typedef enum sf_origin_kind {
    SF_ORIGIN_NONE,         /* anonymous */
    SF_ORIGIN_GIVEN,        /* keys */
    SF_ORIGIN_SOURCE,       /* the caller's; perhaps with the keys that it has told already */
    SF_ORIGIN_WEB_IDENTITY, /* a token in a file, exchanged at the token service */
    SF_ORIGIN_ROLE,         /* assumed with the credentials of `base` */
    SF_ORIGIN_SSO,          /* the cached token of a log-in, exchanged at the portal */
    SF_ORIGIN_PROCESS,      /* what a command prints */
    SF_ORIGIN_CONTAINER,
    SF_ORIGIN_MACHINE
} sf_origin_kind;

/* Texts are owned, NULL where they do not belong to the kind. */
typedef struct sf_credential_origin {
    sf_origin_kind kind;
    const sf_allocator *alloc;
    char *access_key_id, *secret_access_key, *session_token; /* GIVEN, SOURCE */
    sf_asker *asker;                                         /* SOURCE; acquired */
    char *endpoint; /* WEB_IDENTITY, ROLE, SSO, MACHINE: without a trailing slash; CONTAINER: the whole URL */
    char *region;   /* ROLE */
    char *role_arn, *session_name, *external_id; /* WEB_IDENTITY, ROLE */
    char *file;                                  /* WEB_IDENTITY, CONTAINER: of the token; SSO: of the cached log-in */
    char *authorization;                         /* CONTAINER */
    char *account, *role_name;                   /* SSO */
    char *command;                               /* PROCESS */
    char *where;                                 /* it was found: "the environment"; NULL: its kind says it */
    char *ca_bundle;                             /* for the requests; NULL: the system's */
    bool optional;                               /* MACHINE: nobody there means anonymous */
    char *looked_at; /* NONE, unless anonymous was asked for, and optional MACHINE: where there are none */
    struct sf_credential_origin *base; /* ROLE */
} sf_credential_origin;

typedef struct sf_origin_search {
    const sf_s3_options *options; /* the caller's keys and profile; region and ca_bundle resolved */
    const sf_environment *env;
    const sf_shared_files *files;
    const sf_profile *profile; /* the one that was asked for, or "default" */
    const char *profile_name;
    sf_endpoint_choice endpoints;
} sf_origin_search;

/* On success *out must be cleaned up; on failure it is empty. */
sf_status sf__credential_origin_find(sf_credential_origin *out, const sf_origin_search *search, const sf_allocator *a,
                                     sf_error *err);
sf_status sf__credential_origin_copy(sf_credential_origin *out, const sf_credential_origin *from, const sf_allocator *a,
                                     sf_error *err);
/* Overwrites what is secret. Harmless on an empty one. */
void sf__credential_origin_cleanup(sf_credential_origin *o);
const char *sf__origin_name(sf_origin_kind kind); /* for messages */
/* What they are and where they were found, without anything secret; freed with sf__free(). NULL without memory. */
char *sf__credential_origin_describe(const sf_credential_origin *o, const sf_allocator *a) SF_MUST_USE;
/* Its own keys, which it must have: SF_INVALID for what no header can carry. */
sf_status sf__credential_origin_keys(sf_credentials **out, const sf_credential_origin *o, const sf_allocator *a,
                                     sf_error *err);

#endif
