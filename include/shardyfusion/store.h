/* How to reach object storage. Plain data; copied by whoever takes it. */
#ifndef SHARDYFUSION_STORE_H
#define SHARDYFUSION_STORE_H

#include "shardyfusion/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sf_addressing { SF_ADDRESSING_AUTO, SF_ADDRESSING_PATH, SF_ADDRESSING_VIRTUAL } sf_addressing;

/* NULL or 0 means "not given": the environment, then the shared config and credentials files, then the default.
 *   endpoint:    SLATEDB_S3_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, profile, https://s3.REGION.amazonaws.com
 *   region:      S3_REGION, AWS_REGION, AWS_DEFAULT_REGION, profile, us-east-1
 *   credentials: S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY, S3_SESSION_TOKEN, else the AWS_* names, else the profile
 *                (AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE); none at all: anonymous requests
 *   proxy:       http_proxy, https_proxy, no_proxy */
typedef struct sf_s3_options {
    size_t size;
    const char *endpoint_url;
    const char *region;
    sf_addressing addressing; /* AUTO: path style unless AWS_VIRTUAL_HOSTED_STYLE_REQUEST is true */
    const char *access_key_id, *secret_access_key, *session_token;
    const char *profile;
    const char *ca_bundle;    /* path of a PEM file; NULL: AWS_CA_BUNDLE, else the system's */
    bool insecure;            /* do not verify TLS certificates */
    bool anonymous;           /* do not sign, whatever the environment holds */
    int64_t connect_timeout_ms; /* 0: 5000 */
    int64_t read_timeout_ms;  /* without any progress of one attempt; 0: 30000 */
    int32_t max_retries;      /* after the first attempt; -1: 5 */
    int64_t retry_base_ms;    /* first back-off bound; 0: 200; doubles, full jitter */
    int64_t retry_cap_ms;     /* 0: 4000 */
    int64_t retry_total_ms;   /* all attempts of one operation; 0: 30000 */
} sf_s3_options;
#define SF_S3_OPTIONS_INIT {.size = sizeof(sf_s3_options), .max_retries = -1}

#ifdef __cplusplus
}
#endif
#endif
