/* Digests that go with requests. Pure; any thread. */
#ifndef SF_STORE_DIGEST_H
#define SF_STORE_DIGEST_H

#include "base/bytes.h"

/* False when the cryptographic library refuses it: in FIPS mode there is no MD5. */
bool sf__md5(sf_bytes b, uint8_t out[16]) SF_MUST_USE;
bool sf__sha256(sf_bytes b, uint8_t out[32]) SF_MUST_USE;

#endif
