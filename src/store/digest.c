#include "store/digest.h"

#include <openssl/evp.h>

static bool digest(sf_bytes b, const EVP_MD *md, uint8_t *out)
{
    return EVP_Digest(b.n > 0 ? (const void *)b.p : "", b.n, out, NULL, md, NULL) == 1;
}

bool sf__md5(sf_bytes b, uint8_t out[16])
{
    return digest(b, EVP_md5(), out);
}

bool sf__sha256(sf_bytes b, uint8_t out[32])
{
    return digest(b, EVP_sha256(), out);
}
