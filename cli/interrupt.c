/* Ctrl-C in a session: it gives up the line at the prompt, and ends the command that runs, not the program. The handler only
 * notes it. A thread of its own tells the library, which lets go of what the command waits for, until the command has ended;
 * what goes on without waiting asks interrupted(). */
#include "cli.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#define TELL_EVERY_US 20000
#define ENOUGH 3 /* so many ends the program after all: the command does not listen */

static sigjmp_buf at_prompt;
static volatile sig_atomic_t prompting; /* the main thread's, which alone takes signals */
static atomic_int asked;                /* so often, of the command that runs, or is about to */
static atomic_bool running, ended;
static sem_t wake;
static pthread_t teller, commander;

static void on_interrupt(int number)
{
    int before = errno;

    if (prompting)
        siglongjmp(at_prompt, 1);
    if (atomic_fetch_add(&asked, 1) + 1 >= ENOUGH) {
        signal(number, SIG_DFL);
        raise(number); /* when this returns */
    }
    sem_post(&wake);
    errno = before;
}

static void do_nothing(int number)
{
    (void)number;
}

/* Each time: libedit has handlers of its own meanwhile, and does not always put ours back. */
static void take_signal(void)
{
    struct sigaction action = {.sa_handler = on_interrupt}; /* without SA_RESTART: what waits for input ends, too */

    sigaction(SIGINT, &action, NULL);
}

static void *tell(void *rt)
{
    while (!atomic_load(&ended)) {
        while (atomic_load(&running) && atomic_load(&asked) > 0) {
            sf_runtime_cancel_all(rt);
            pthread_kill(commander, SIGURG); /* it may have begun to wait for input after the first one */
            usleep(TELL_EVERY_US);
        }
        sem_wait(&wake);
    }
    return NULL;
}

bool interrupts_begin(sf_runtime *rt)
{
    sigset_t all, before;
    bool began;
    struct sigaction nudge = {.sa_handler = do_nothing};

    sem_init(&wake, 0, 0);
    commander = pthread_self();
    sigaction(SIGURG, &nudge, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    began = pthread_create(&teller, NULL, tell, rt) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return began;
}

void interrupts_end(void)
{
    signal(SIGINT, SIG_DFL);
    atomic_store(&ended, true);
    sem_post(&wake);
    pthread_join(teller, NULL);
    sem_destroy(&wake);
}

char *interrupts_read_line(char *(*read_line)(const char *prompt), const char *prompt)
{
    char *line;

    if (sigsetjmp(at_prompt, 1)) /* its mask of signals comes back, too */
        fputc('\n', stdout);
    prompting = 1;
    take_signal();
    line = read_line(prompt);
    prompting = 0;
    return line;
}

void interrupts_command_begins(void)
{
    take_signal();
    atomic_store(&running, true);
    sem_post(&wake); /* it may be asked to end already */
}

bool interrupts_command_ends(void)
{
    atomic_store(&running, false);
    return atomic_exchange(&asked, 0) > 0;
}

bool interrupted(void)
{
    return atomic_load(&asked) > 0;
}
