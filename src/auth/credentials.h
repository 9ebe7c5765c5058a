/* What requests are signed with, and the documents that bring it. Pure; a set of credentials belongs to the loop thread
 * once it is shared. Memory that held a secret is overwritten before it goes. */
#ifndef SF_AUTH_CREDENTIALS_H
#define SF_AUTH_CREDENTIALS_H

#include "base/alloc.h"
#include "base/bytes.h"

/* Neither a key nor a token is longer: no document that brings them is, and no server takes such a header. */
#define SF_CREDENTIAL_BYTES (64u << 10)

/* Immutable, counted: a request keeps those it was signed with while newer ones arrive. */
typedef struct sf_credentials {
    unsigned refs;
    const sf_allocator *alloc;
    char *access_key_id; /* NULL: anonymous, nothing is signed */
    char *secret_access_key;
    char *session_token; /* or NULL */
    int64_t expires_us;  /* since 1970; 0: never */
    char *looked_at;     /* anonymous because there are none: where was looked; NULL: because that was asked for */
} sf_credentials;

/* Copies. An absent token is empty. SF_INVALID for what no header can carry; the text
 * names the part, never its value. */
sf_status sf__credentials_new(sf_credentials **out, sf_bytes access_key_id, sf_bytes secret_access_key,
                              sf_bytes session_token, int64_t expires_us, const sf_allocator *a, sf_error *err);
/* Anonymous ones. `looked_at` may be NULL. */
sf_status sf__credentials_none(sf_credentials **out, const char *looked_at, int64_t expires_us, const sf_allocator *a,
                               sf_error *err);
sf_credentials *sf__credentials_acquire(sf_credentials *c);
void sf__credentials_release(sf_credentials *c); /* takes NULL */

/* What an answer of the store says of those that it was asked with. */
typedef enum sf_refusal {
    SF_REFUSAL_NONE,
    SF_REFUSAL_EXPIRED, /* they are over */
    SF_REFUSAL_UNSAID,  /* no, and not why (to HEAD); perhaps they are over */
    SF_REFUSAL_WRONG,   /* the key, the signature or the token is not known */
    SF_REFUSAL_DENIED   /* this they may not */
} sf_refusal;

typedef enum sf_credential_document {
    SF_CREDENTIALS_FROM_PROCESS,  /* JSON of a credential_process, version 1 */
    SF_CREDENTIALS_FROM_ENDPOINT, /* JSON of containers and of the instance metadata */
    SF_CREDENTIALS_FROM_SSO,      /* JSON of GetRoleCredentials */
    SF_CREDENTIALS_FROM_STS       /* XML of AssumeRole and AssumeRoleWithWebIdentity */
} sf_credential_document;
/* SF_CORRUPT for what is no such document, SF_DENIED when it says that there are none. Texts hold no value of it. */
sf_status sf__credentials_parse(sf_credentials **out, sf_credential_document kind, sf_bytes text, const sf_allocator *a,
                                sf_error *err);

/* The cached token of an SSO log-in: *token is the caller's (sf__secret_free()). */
sf_status sf__sso_token_parse(char **token, int64_t *expires_us, sf_bytes text, const sf_allocator *a, sf_error *err);

/* "2026-01-02T03:04:05Z", with a fraction, "UTC" or an offset in place of the Z; without a zone it is UTC. */
bool sf__credential_time_parse(sf_bytes s, int64_t *out_us) SF_MUST_USE;

/* Overwrites a terminated text before it goes. Takes NULL. */
void sf__secret_free(const sf_allocator *a, char *s);

#endif
