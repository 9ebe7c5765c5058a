/* watch: follows the pointer. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void watch_line(struct text *t, const struct out *o, const struct cell *cells)
{
    cell_put(t, o, &cells[0]);
    text_puts(t, "  run_id=");
    cell_put(t, o, &cells[1]);
    text_puts(t, "  rows=");
    cell_put(t, o, &cells[2]);
    text_puts(t, "  shards=");
    cell_put(t, o, &cells[3]);
    text_putc(t, '\n');
}

static void print_snapshot(struct cli *c)
{
    static const struct column columns[] = {{"seen_at"}, {"run_id"},     {"row_count"},
                                            {"num_dbs"}, {"created_at"}, {"manifest_ref"}};
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    out_record(&c->out, "watch", columns, 6,
               (struct cell[]){{.kind = CELL_TIME, .time_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000},
                               {.kind = CELL_TEXT, .text = c->info.run_id},
                               {.kind = CELL_UINT, .number = c->info.row_count},
                               {.kind = CELL_UINT, .number = c->info.num_dbs},
                               {.kind = CELL_TIME, .time_us = c->info.created_at_us},
                               {.kind = CELL_TEXT, .text = c->info.manifest_ref}},
               watch_line);
    fflush(c->out.to);
}

int cmd_watch(struct cli *c)
{
    double interval = args_has(&c->args, OPT_INTERVAL) ? c->args.opt[OPT_INTERVAL].real : 5;
    struct timespec pause = {.tv_sec = interval < 1e9 ? (time_t)interval : 1000000000};
    uint64_t left = args_has(&c->args, OPT_CHANGES) ? c->args.opt[OPT_CHANGES].number : UINT64_MAX;

    pause.tv_nsec = (long)((interval - (double)pause.tv_sec) * 1e9);
    pause.tv_nsec = pause.tv_nsec < 0 || pause.tv_nsec > 999999999 ? 0 : pause.tv_nsec;
    if (!session_open(c))
        return 1;
    print_snapshot(c);
    while (left > 0 && !out_failed(&c->out)) {
        char *before = cli_strdup(c->info.manifest_ref);
        sf_error e = SF_ERROR_INIT;

        nanosleep(&pause, NULL);
        if (session_switch(c, NULL, &e) != SF_OK) {
            cli_fail_with(c, "watch", NULL, &e); /* and go on: it may pass */
        } else if (strcmp(before, c->info.manifest_ref) != 0) {
            print_snapshot(c);
            left--;
        }
        free(before);
    }
    return 0;
}
