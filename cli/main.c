/* shardy: looks into published snapshots, and looks after them. Over the public headers only. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <unistd.h>

/* A file that is opened must not become standard output: descriptors that are closed become such that refuse
 * what they are for. */
static void keep_standard_descriptors(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
            return;
}

static int run(struct cli *c)
{
    int rc;

    if (!settings_load(&c->settings, &c->args))
        return 1;
    c->out.format = c->err.format = c->settings.format;
    c->out.has_encoding = c->settings.has_encoding;
    c->out.encoding = c->settings.encoding;
    c->out.null_repr = c->settings.null_repr;
    rc = c->args.command ? c->args.command->run(c) : shell_run(c);
    session_end(c);
    return rc;
}

int main(int argc, char **argv)
{
    struct cli c = {0};
    struct args line;
    int rc;

    keep_standard_descriptors();
    setlocale(LC_CTYPE, "");
    rc = args_parse(&line, NULL, argc - 1, argv + 1);
    c.line = &line;
    c.args = line;
    out_init(&c.out, stdout, "Standard output", c.args.opt[OPT_COLOR].number);
    out_init(&c.err, stderr, "Standard error", c.args.opt[OPT_COLOR].number);
    errno = 0;
    if (rc == 0 && args_has(&c.args, OPT_HELP))
        help_print(stdout, c.args.command);
    else if (rc == 0 && args_has(&c.args, OPT_VERSION))
        puts("shardy, version " SF_VERSION_STRING);
    else if (rc == 0 && args_has(&c.args, OPT_GENERATE))
        help_generate(stdout, c.args.opt[OPT_GENERATE].number);
    else if (rc == 0)
        rc = run(&c);
    if (ferror(stdout) && !c.out.why) /* what has no out_write() */
        c.out.why = errno;
    if (!out_close(&c.out) && rc == 0)
        rc = 1;
    settings_free(&c.settings);
    args_free(&c.args); /* `line` is the same, but for what the command added */
    return rc;
}
