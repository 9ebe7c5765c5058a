#include "net/ca_bundle.h"

#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

const char *const sf__ca_bundle_places[] = {
    "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Ubuntu, Arch, Gentoo */
    "/etc/pki/tls/certs/ca-bundle.crt",                  /* Fedora, RHEL, Amazon Linux */
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* the same, newer */
    "/etc/ssl/ca-bundle.pem",                            /* SUSE */
    "/etc/ssl/cert.pem",                                 /* Alpine */
    "/etc/ssl/certs/ca-bundle.crt",                      /* NixOS */
    NULL,
};

static char brought[4096];

void sf__ca_bundle_bring(const char *path)
{
    size_t n = strlen(path) + 1;

    if (n <= sizeof(brought))
        memcpy(brought, path, n);
}

const char *sf__ca_bundle_among(const char *const *places)
{
    for (; *places; places++)
        if (access(*places, R_OK) == 0)
            return *places;
    return NULL;
}

bool sf__ca_bundle_of_system(const char **out)
{
    const curl_version_info_data *curl = curl_version_info(CURLVERSION_NOW);

    *out = NULL;
    if ((curl->cainfo && access(curl->cainfo, R_OK) == 0) ||
        (!curl->cainfo && curl->capath && access(curl->capath, X_OK) == 0))
        return true;
    *out = sf__ca_bundle_among(sf__ca_bundle_places);
    if (!*out)
        *out = sf__ca_bundle_among((const char *const[]){brought, NULL});
    return *out != NULL;
}
