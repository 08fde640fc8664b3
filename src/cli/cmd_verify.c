/* cli/cmd_verify.c: check every byte of a data directory, partition folder or segment file, without a daemon. */
#include "cli/commands.h"
#include "cli/json.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BAR_AFTER_NS INT64_C(300000000) /* work that is over sooner shows no bar */
#define BAR_EACH_NS  INT64_C(100000000)
#define BAR_CELLS    30

typedef struct verify {
    cli *c;
    cli_out out;
    bool terminal, bar_shown, errors_only;
    int64_t begun_ns, shown_ns;
} verify;

static void bar_clear(verify *v)
{
    if (v->bar_shown) fputs("\r\033[K", stderr);
    v->bar_shown = false;
}

static void on_progress(void *opaque, uint64_t done, uint64_t total)
{
    verify *v = opaque;
    if (!v->terminal) return;
    int64_t now = cli_now_ns();
    if (now - v->begun_ns < BAR_AFTER_NS || now - v->shown_ns < BAR_EACH_NS) return;
    v->shown_ns = now;
    v->bar_shown = true;
    double share = total ? (double)done / (double)total : 0;
    int cells = (int)(share * BAR_CELLS);
    char a[24], b[24], rate[24];
    fprintf(stderr, "\r[%.*s%*s] %3.0f%%  %s of %s  %s/s\033[K", cells, "##############################", BAR_CELLS - cells, "",
            share * 100, cli_human_bytes(a, (double)done), cli_human_bytes(b, (double)total),
            cli_human_bytes(rate, (double)done * 1e9 / (double)(now - v->begun_ns)));
}

static void on_finding(void *opaque, const bw_finding *f)
{
    verify *v = opaque;
    if (!f->is_error && v->errors_only) return;
    bar_clear(v);
    if (v->c->json) {
        cli_out *o = &v->out;
        cli_out_text(o, f->is_error ? "{\"finding\":\"error\",\"path\":" : "{\"finding\":\"note\",\"path\":");
        cli_json_string(o, f->path, strlen(f->path));
        cli_out_text(o, ",\"position\":");
        cli_out_int(o, (int64_t)f->position);
        cli_out_text(o, ",\"offset\":");
        cli_out_int(o, f->offset);
        cli_out_text(o, ",\"message\":");
        cli_json_string(o, f->message, strlen(f->message));
        cli_out_put(o, "}\n", 2);
        cli_out_flush(o);
        return;
    }
    printf("%s: %s: byte %" PRIu64, f->is_error ? "ERROR" : "note", f->path, f->position);
    if (f->offset >= 0) printf(", offset %" PRId64, f->offset);
    printf(": %s\n", f->message);
    fflush(stdout);
}

static void print_totals(verify *v, const char *path, const bw_verify_totals *t)
{
    char size[24];
    if (v->c->json) {
        printf("{\"path\":");
        fflush(stdout);
        cli_json_string(&v->out, path, strlen(path));
        cli_out_flush(&v->out);
        printf(",\"topics\":%" PRIu64 ",\"partitions\":%" PRIu64 ",\"segments\":%" PRIu64 ",\"batches\":%" PRIu64
               ",\"records\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"notes\":%" PRIu64 "}\n",
               t->topics, t->partitions, t->segments, t->batches, t->records, t->bytes, t->errors, t->notes);
        return;
    }
    printf("%s: %" PRIu64 " topics, %" PRIu64 " partitions, %" PRIu64 " segments, %" PRIu64 " batches, %" PRIu64
           " records, %s: %" PRIu64 " error%s, %" PRIu64 " note%s\n",
           path, t->topics, t->partitions, t->segments, t->batches, t->records, cli_human_bytes(size, (double)t->bytes),
           t->errors, t->errors == 1 ? "" : "s", t->notes, t->notes == 1 ? "" : "s");
}

enum { ID_ERRORS_ONLY = 256 };

static const cli_opt options[] = {
    {ID_ERRORS_ONLY, 0, "errors-only", NULL, "leave the notes out"},
    {0, 0, NULL, NULL, NULL},
};

static int run(cli *c, int argc, char **argv)
{
    verify v = {.c = c, .terminal = isatty(STDERR_FILENO) && !c->quiet};
    const char *path = NULL;
    cli_args a;
    cli_args_init(&a, c, &cli_verify, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        if (id == CLI_ARGS_STOP) return a.exit_code;
        if (id == ID_ERRORS_ONLY)
            v.errors_only = true;
        else if (path)
            return cli_usage(c, "one folder at a time: %s or %s?", path, a.value);
        else
            path = a.value;
    }
    if (!path) return cli_usage(c, "which folder? busway verify DIR");
    if (strncmp(path, "dir:", 4) == 0) path += 4;
    if (!cli_out_init(&v.out, STDOUT_FILENO, 65536)) return cli_error(c, CLI_FAILURE, "out of memory");
    bw_verify_totals totals = {0};
    v.begun_ns = cli_now_ns();
    bw_err e = bw_verify(path, on_finding, on_progress, &v, &totals);
    bar_clear(&v);
    int rc = CLI_OK;
    if (e == BW_OK || e == BW_ERR_CORRUPT) {
        print_totals(&v, path, &totals);
        if (e != BW_OK) rc = cli_error(c, CLI_CORRUPT, "%s: %" PRIu64 " errors; each line above says where", path, totals.errors);
    } else {
        rc = cli_error_bw(c, e, "%s", path);
    }
    cli_out_fini(&v.out);
    return rc;
}

const cli_command cli_verify = {
    "verify",
    "DIR",
    "Check every byte of a data directory, a partition's folder or a segment file.",
    "Needs no daemon and changes nothing. Each finding is a line: file, byte, offset, what is wrong. A note is no damage: a "
    "hint\n"
    "file that will be made anew, an end that was not closed cleanly. Exit code 4 when something is corrupt.",
    options,
    false,
    "  busway verify /var/lib/busway\n  busway verify --json ./bus | jq 'select(.finding == \"error\")'\n",
    run,
};
