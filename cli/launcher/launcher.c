/* What a wheel puts into the folder of scripts under the name of shardy: starts the program in the package beside it, without
 * Python in between. It needs no library but C's, so tools that mend wheels leave it as it is. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* From the folder of scripts to where packages lie: of prefixes, environments and --user; of distributions; of --target. */
static const char *const places[] = {
    "../lib/" SF_PYTHON "/site-packages",
    "../lib64/" SF_PYTHON "/site-packages",
    "../lib/" SF_PYTHON "/dist-packages",
    "../lib/python3/dist-packages",
    "..",
};

int main(int argc, char **argv)
{
    char self[PATH_MAX], program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1); /* whatever links lead here */
    char *end;

    (void)argc;
    self[n > 0 ? n : 0] = '\0';
    end = strrchr(self, '/');
    if (!end) {
        fprintf(stderr, "shardy: it cannot be found out where this program lies: %s\n", strerror(errno));
        return 1;
    }
    *end = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        if (snprintf(program, sizeof(program), "%s/%s/shardyfusion/shardy", self, places[i]) < (int)sizeof(program) &&
            access(program, X_OK) == 0) {
            execv(program, argv);
            fprintf(stderr, "shardy: %s cannot be started: %s\n", program, strerror(errno));
            return 1;
        }
    fprintf(stderr,
            "shardy: the package shardyfusion is not where %s belongs to; python -m shardyfusion starts it, too\n", self);
    return 1;
}
