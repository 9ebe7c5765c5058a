/* Memory that lies idle: AddressSanitizer is told that nobody may touch it. Without it these are nothing. */
#ifndef SF_BASE_POISON_H
#define SF_BASE_POISON_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SF_HAS_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SF_HAS_ASAN 1
#endif
#ifdef SF_HAS_ASAN
#include <sanitizer/asan_interface.h>
#define SF_POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define SF_UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define SF_POISON(p, n) ((void)(p), (void)(n))
#define SF_UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#endif
