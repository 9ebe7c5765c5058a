/* The public endpoints of AWS. Pure; any thread. */
#ifndef SF_AUTH_ENDPOINT_H
#define SF_AUTH_ENDPOINT_H

#include "base/alloc.h"
#include "base/bytes.h"

/* What the environment and the profile say of endpoints, beside their URLs. */
typedef struct sf_endpoint_choice {
    bool fips, dualstack;
    bool ignore_configured; /* URLs of the environment and of profiles do not count */
} sf_endpoint_choice;

/* "fips-us-east-1" and "us-east-1-fips" are us-east-1 by its FIPS endpoints, "aws-global" is us-east-1. Cuts the name in
 * place; whether it asks for FIPS. */
bool sf__region_resolve(char *region);

/* "https://s3.eu-west-1.amazonaws.com" for the service "s3", as botocore's rules for partitions decide; the caller's. *out
 * is untouched after a failure, SF_INVALID: the region's partition has no such endpoint. */
sf_status sf__aws_endpoint(char **out, const char *service, const char *region, const sf_endpoint_choice *choice,
                           const sf_allocator *a, sf_error *err);

#endif
