/* cli/cmd_link_verify.c: is a mirror what its origin is? Ranges are compared by their hashes; --repair mends what differs. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/json.h"
#include "cli/table.h"

#include <busway/link.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BAR_AFTER_NS INT64_C(300000000) /* work that is over sooner shows no bar */
#define BAR_EACH_NS  INT64_C(100000000)
#define BAR_CELLS    30

typedef struct link_verify {
    cli *c;
    cli_out out;
    bool terminal, bar_shown;
    int64_t begun_ns, shown_ns;
} link_verify;

static const char *const kinds[] = {"differs", "damaged", "missing", "origin damaged", "beyond the origin"};

static void bar_clear(link_verify *v)
{
    if (v->bar_shown) fputs("\r\033[K", stderr);
    v->bar_shown = false;
}

static void on_progress(void *opaque, uint64_t done, uint64_t total)
{
    link_verify *v = opaque;
    int64_t now = cli_now_ns();
    if (!v->terminal || now - v->begun_ns < BAR_AFTER_NS || now - v->shown_ns < BAR_EACH_NS) return;
    v->shown_ns = now;
    v->bar_shown = true;
    double share = total ? (double)done / (double)total : 1;
    int cells = (int)(share * BAR_CELLS);
    fprintf(stderr, "\r[%.*s%*s] %3.0f%%  %" PRIu64 " of %" PRIu64 " offsets\033[K", cells, "##############################", BAR_CELLS - cells, "",
            share * 100, done, total);
}

static void on_difference(void *opaque, const bw_difference *d)
{
    link_verify *v = opaque;
    bar_clear(v);
    if (v->c->json) {
        cli_out *o = &v->out;
        cli_out_text(o, "{\"difference\":");
        cli_json_string(o, kinds[d->kind], strlen(kinds[d->kind]));
        cli_out_text(o, ",\"topic\":");
        cli_json_string(o, d->topic, strlen(d->topic));
        cli_out_text(o, ",\"partition\":");
        cli_out_int(o, d->partition);
        cli_out_text(o, ",\"from\":");
        cli_out_int(o, d->from);
        cli_out_text(o, ",\"upto\":");
        cli_out_int(o, d->upto);
        cli_out_text(o, d->mended ? ",\"mended\":true,\"message\":" : ",\"mended\":false,\"message\":");
        cli_json_string(o, d->message, strlen(d->message));
        cli_out_put(o, "}\n", 2);
        cli_out_flush(o);
        return;
    }
    printf("%s: topic %s partition %d, offsets %" PRId64 " to %" PRId64 ": %s%s%s\n", d->mended ? "mended" : "ERROR", d->topic, d->partition,
           d->from, d->upto - 1, kinds[d->kind], d->message[0] ? ": " : "", d->message);
    fflush(stdout);
}

static void print_totals(link_verify *v, const char *topic, const bw_compare_totals *t)
{
    char size[24], wire[24];
    if (v->c->json) {
        cli_out *o = &v->out;
        const struct { const char *name; uint64_t value; } rows[] = {
            {"partitions", t->partitions}, {"batches", t->batches}, {"bytes", t->bytes}, {"differences", t->differences}, {"mended", t->mended},
            {"behind", t->behind}, {"sent_bytes", t->sent_bytes}, {"received_bytes", t->received_bytes},
        };
        cli_out_text(o, "{\"topic\":");
        cli_json_string(o, topic, strlen(topic));
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            cli_out_text(o, ",\"");
            cli_out_text(o, rows[i].name);
            cli_out_text(o, "\":");
            cli_out_int(o, (int64_t)rows[i].value);
        }
        cli_out_put(o, "}\n", 2);
        cli_out_flush(o);
        return;
    }
    printf("%s: %" PRIu64 " partition%s, %" PRIu64 " batches, %s compared with %s over the link: ", topic, t->partitions,
           t->partitions == 1 ? "" : "s", t->batches, cli_human_bytes(size, (double)t->bytes),
           cli_human_bytes(wire, (double)(t->sent_bytes + t->received_bytes)));
    if (t->differences == 0) printf("equal");
    else printf("%" PRIu64 " difference%s, %" PRIu64 " mended", t->differences, t->differences == 1 ? "" : "s", t->mended);
    if (t->behind) printf("; %" PRIu64 " offsets are still to come", t->behind);
    printf("\n");
}

enum { ID_PEER = 256, ID_REPAIR, ID_QUICK, ID_FROM, ID_FORCE };

static const cli_opt options[] = {
    {ID_PEER, 0, "peer", "URL", "the origin's bus: one topic, without a link"},
    {ID_FROM, 0, "from", "TOPIC", "the topic's name at the origin (default: the same)"},
    {ID_REPAIR, 0, "repair", NULL, "mend the mirror: fetch what differs, and nothing else"},
    {ID_FORCE, 0, "force", NULL, "with --repair: even a topic that is no mirror"},
    {ID_QUICK, 0, "quick", NULL, "compare the heads of batches only: blind for bytes that rot behind them"},
    {0, 0, NULL, NULL, NULL},
};

/* The mirror's topic here and the origin's there, or for a link that pushes the other way round. */
static int compare(link_verify *v, bw_bus *mirror, const char *topic, bw_bus *origin, const char *from, bw_compare_options *o)
{
    bw_compare_totals totals;
    v->begun_ns = cli_now_ns();
    bw_err e = bw_compare(mirror, topic, origin, from, o, &totals);
    bar_clear(v);
    if (e == BW_OK || e == BW_ERR_LOGS_DIVERGED) print_totals(v, topic, &totals);
    if (!e) return CLI_OK;
    int rc = cli_error_bw(v->c, e, "%s", topic);
    return e == BW_ERR_LOGS_DIVERGED ? CLI_CORRUPT : rc;
}

static int with_peer(link_verify *v, bw_bus *here, const char *peer_url, const char *topic, const char *from, bw_compare_options *o)
{
    bw_bus *peer;
    cli there = *v->c;
    there.url = peer_url;
    int rc = cli_connect(&there, &peer);
    if (rc != CLI_OK) return rc;
    rc = compare(v, here, topic, peer, from, o);
    bw_bus_close(peer);
    return rc;
}

/* Each topic of the link; the worst outcome counts. */
static int with_parts(link_verify *v, bw_bus *here, bw_bus *peer, const json_t *link, bw_compare_options *o)
{
    const json_t *parts = json_object_get(link, "parts");
    bool push = strcmp(cli_doc_text(link, "direction", ""), "push") == 0;
    int worst = CLI_OK;
    size_t compared = 0;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *p = json_array_get(parts, i);
        if (cli_doc_int(p, "partition", -1) != 0 || !*cli_doc_text(p, "target", "")) continue;
        compared++;
        int rc = compare(v, push ? peer : here, cli_doc_text(p, "target", ""), push ? here : peer, cli_doc_text(p, "topic", ""), o);
        if (rc > worst) worst = rc;
    }
    return compared ? worst : cli_error(v->c, CLI_NOT_FOUND, "the link has no topics (yet); busway link describe says why");
}

static int with_link(link_verify *v, bw_bus *here, const char *name, bw_compare_options *o)
{
    char *text = NULL;
    bw_bus *peer;
    cli there = *v->c;
    bw_err e = bw_link_describe(here, name, &text);
    if (e) return cli_error_bw(v->c, e, "%s", name);
    json_t *link = cli_doc_parse(v->c, text);
    if (!link) return CLI_FAILURE;
    int rc;
    there.url = cli_doc_text(link, "url", "");
    if (strcmp(cli_doc_text(link, "mode", ""), "mirror")) rc = cli_error(v->c, CLI_USAGE, "%s merges: its topics are not copies of one origin", name);
    else if ((rc = cli_connect(&there, &peer)) == CLI_OK) {
        rc = with_parts(v, here, peer, link, o);
        bw_bus_close(peer);
    }
    json_decref(link);
    return rc;
}

static int run(cli *c, int argc, char **argv)
{
    link_verify v = {.c = c, .terminal = isatty(STDERR_FILENO) && !c->quiet};
    bw_compare_options o = BW_COMPARE_OPTIONS_INIT;
    const char *name = NULL, *peer = NULL, *from = NULL;
    bw_bus *here;
    cli_args a;
    cli_args_init(&a, c, &cli_link_verify, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        if (id == CLI_ARGS_STOP) return a.exit_code;
        if (id == ID_PEER) peer = a.value;
        else if (id == ID_FROM) from = a.value;
        else if (id == ID_REPAIR) o.repair = true;
        else if (id == ID_QUICK) o.quick = true;
        else if (id == ID_FORCE) o.force = true;
        else if (name) return cli_usage(c, "one at a time: %s or %s?", name, a.value);
        else name = a.value;
    }
    if (!name) return cli_usage(c, "which link? busway link verify LINK, or busway link verify --peer URL TOPIC");
    if (from && !peer) return cli_usage(c, "--from goes with --peer");
    int rc = cli_connect(c, &here);
    if (rc != CLI_OK) return rc;
    o.difference = on_difference;
    o.progress = on_progress;
    o.opaque = &v;
    if (!cli_out_init(&v.out, STDOUT_FILENO, 65536)) rc = cli_error(c, CLI_FAILURE, "out of memory");
    else rc = peer ? with_peer(&v, here, peer, name, from, &o) : with_link(&v, here, name, &o);
    cli_out_fini(&v.out);
    bw_bus_close(here);
    return rc;
}

const cli_command cli_link_verify = {
    "link verify",
    "LINK | --peer URL TOPIC",
    "Prove that a mirror equals its origin, and mend it.",
    "Both daemons read their own files; only hashes of ranges go over the link, and with --repair the batches that differ. What the\n"
    "origin has deleted, and what the mirror has not got yet, is not compared. Exit code 4 when differences are left.",
    options,
    true,
    "  busway link verify berlin\n  busway link verify berlin --repair --json\n  busway link verify --peer tcp://origin:7400 orders\n",
    run,
};
