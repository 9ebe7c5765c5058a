#include "postgres/libpq.h"

#include <dlfcn.h>
#include <stdio.h>

#include "base/error.h"
#include "base/thread.h"

#define LIBRARY "libpq.so.5"

static sf_libpq loaded;
static char failure[256]; /* empty: it is loaded */

static void load(void)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL); /* never closed */
    bool complete = library;

    if (library) {
        /* a function's address travels as an object's: POSIX has dlsym() so */
#define SF_LIBPQ_FIND(type, name, args)                          \
    *(void **)(void *)&loaded.name = dlsym(library, "PQ" #name); \
    complete = complete && loaded.name;
        SF_LIBPQ_FUNCTIONS(SF_LIBPQ_FIND)
#undef SF_LIBPQ_FIND
    }
    if (!complete)
        snprintf(failure, sizeof(failure), "%s", dlerror());
}

sf_status sf__libpq_load(const sf_libpq **out, sf_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, load);
    if (failure[0])
        return sf_fail(err, SF_UNSUPPORTED,
                       "manifests in PostgreSQL need its client library: " LIBRARY " cannot be loaded (%s); install it "
                       "(on Debian: libpq5)",
                       failure);
    *out = &loaded;
    return SF_OK;
}
