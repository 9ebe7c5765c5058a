/* Functions that public headers define inline, for callers that bind the library by its symbols. */
#include "shardyfusion/base.h"

extern inline sf_key sf_key_int(int64_t i);
extern inline sf_key sf_key_uint(uint64_t u);
extern inline sf_key sf_key_bytes(const void *p, size_t n);
extern inline sf_key sf_key_str(const char *p, size_t n);
