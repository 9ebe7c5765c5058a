#include "auth/endpoint.h"

#include <string.h>

#include "base/error.h"

struct partition {
    const char *name, *prefix; /* of its regions, which go on "-WORD-NUMBER"; "aws-NAME-global" besides */
    const char *domain;
    const char *dualstack_domain; /* of all services but S3; NULL: no service has such endpoints */
};

static const struct partition partitions[] = {
    {"aws-cn", "cn", "amazonaws.com.cn", "api.amazonwebservices.com.cn"},
    {"aws-us-gov", "us-gov", "amazonaws.com", "api.aws"},
    {"aws-iso", "us-iso", "c2s.ic.gov", "api.aws.ic.gov"},
    {"aws-iso-b", "us-isob", "sc2s.sgov.gov", "api.aws.scloud"},
    {"aws-iso-e", "eu-isoe", "cloud.adc-e.uk", NULL},
    {"aws-iso-f", "us-isof", "csp.hci.ic.gov", NULL},
    {"aws-eusc", "eusc-de", "amazonaws.eu", "api.amazonwebservices.eu"},
    {"aws", "", "amazonaws.com", "api.aws"}, /* and whatever nobody knows */
};

/* "-north-1" */
static bool is_word_and_number(const char *s)
{
    size_t n;

    if (*s++ != '-')
        return false;
    n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    if (n == 0 || s[n] != '-')
        return false;
    s += n + 1;
    return *s && strspn(s, "0123456789") == strlen(s);
}

static const struct partition *partition_of(const char *region)
{
    const struct partition *p = partitions;

    for (; p->prefix[0]; p++) {
        size_t n = strlen(p->prefix), named = strlen(p->name);

        if (strncmp(region, p->prefix, n) == 0 && is_word_and_number(region + n))
            return p;
        if (strncmp(region, p->name, named) == 0 && strcmp(region + named, "-global") == 0)
            return p;
    }
    return p;
}

bool sf__region_resolve(char *region)
{
    size_t n = strlen(region);
    bool fips = false;

    if (n > 5 && strncmp(region, "fips-", 5) == 0) {
        for (char *s = region; (*s = s[5]) != '\0';)
            s++;
        n -= 5;
        fips = true;
    }
    if (n > 5 && strcmp(region + n - 5, "-fips") == 0) {
        region[n - 5] = '\0';
        fips = true;
    }
    if (strcmp(region, "aws-global") == 0) /* the longer of the two names */
        memcpy(region, "us-east-1", sizeof("us-east-1"));
    return fips;
}

sf_status sf__aws_endpoint(char **out, const char *service, const char *region, const sf_endpoint_choice *choice,
                           const sf_allocator *a, sf_error *err)
{
    const struct partition *p = partition_of(region);
    bool is_s3 = strcmp(service, "s3") == 0, fips = choice->fips;
    const char *domain = choice->dualstack && !is_s3 ? p->dualstack_domain : p->domain;
    char *url;

    if (choice->dualstack && !p->dualstack_domain)
        return sf_fail(err, SF_INVALID, "region %s: its partition, %s, has no dual-stack endpoints", region, p->name);
    if (fips && is_s3 && strcmp(p->name, "aws-cn") == 0)
        return sf_fail(err, SF_INVALID, "region %s: its partition, %s, has no FIPS endpoints", region, p->name);
    if (!is_s3 && !choice->dualstack && strcmp(p->name, "aws-us-gov") == 0)
        fips = false; /* there the usual ones are */
    url = sf__asprintf(a, "https://%s%s%s.%s.%s", service, fips ? "-fips" : "",
                       choice->dualstack && is_s3 ? ".dualstack" : "", region, domain);
    if (!url)
        return sf_fail(err, SF_NOMEM, "endpoint");
    *out = url;
    return SF_OK;
}
