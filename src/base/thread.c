#include "base/thread.h"

#include <signal.h>
#include <stddef.h>

int sf__thread_start(pthread_t *out, void *(*run)(void *ctx), void *ctx)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
    sigset_t blocked, before;
    int rc;

    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    rc = pthread_create(out, NULL, run, ctx);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

void sf__thread_name(const char *name)
{
    pthread_setname_np(pthread_self(), name);
}
