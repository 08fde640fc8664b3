/* cli/cmd_link_promote.c: link promote, link tails: a mirror becomes the origin; what old origins had beyond it. */
#include "cli/commands.h"
#include "cli/doc.h"

#include <stdio.h>

enum { ID_FORCE = 256 };

static const cli_opt promote_options[] = {
    {ID_FORCE, 0, "force", NULL, "even if another mirror has more that was acknowledged as replicated"},
    {0, 0, NULL, NULL, NULL},
};

static int parse(cli *c, const cli_command *command, int argc, char **argv, const char **topic, bool *force)
{
    cli_args a;
    cli_args_init(&a, c, command, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        if (id == CLI_ARGS_STOP) return a.exit_code;
        if (id == ID_FORCE) *force = true;
        else if (*topic) return cli_usage(c, "one topic at a time: %s or %s?", *topic, a.value);
        else *topic = a.value;
    }
    return -1;
}

static int promote(cli *c, int argc, char **argv)
{
    const char *topic = NULL;
    bool force = false;
    bw_bus *bus = NULL;
    int rc = parse(c, &cli_link_promote, argc, argv, &topic, &force);
    if (rc < 0 && !topic) rc = cli_usage(c, "which topic? busway link promote TOPIC");
    if (rc < 0) rc = cli_connect(c, &bus);
    if (!bus) return rc;
    bw_err e = bw_promote(bus, topic, force);
    if (e) rc = cli_error_bw(c, e, "%s", topic);
    else cli_note(c, "%s is an origin now; its old origin is fenced when the link reaches it", topic);
    bw_bus_close(bus);
    return rc;
}

const cli_command cli_link_promote = {
    "link promote",
    "TOPIC",
    "Make a mirror the origin: it takes writes, the old origin no more.",
    "Nobody but you decides this: look at `busway link describe` first for which mirror is up to date. The old origin, when it is back and\n"
    "the link reaches it, refuses writes and keeps aside what it has beyond the mirror (`busway link tails`). Programs that wrote to it\n"
    "are to be pointed here. To take part again, its topic is deleted there and linked to this one.",
    promote_options,
    true,
    "  busway link promote orders\n",
    promote,
};

static int tails(cli *c, int argc, char **argv)
{
    const char *topic = NULL;
    bool force = false;
    bw_bus *bus = NULL;
    char *text = NULL;
    int rc = parse(c, &cli_link_tails, argc, argv, &topic, &force);
    if (rc < 0) rc = cli_connect(c, &bus);
    if (!bus) return rc;
    bw_err e = bw_tails(bus, topic, &text);
    bw_bus_close(bus);
    if (e) return cli_error_bw(c, e, "%s", topic ? topic : "tails");
    json_t *doc = cli_doc_parse(c, text);
    if (!doc) return CLI_FAILURE;
    if (c->json) cli_doc_print(doc);
    for (size_t i = 0; !c->json && i < json_array_size(doc); i++) {
        const json_t *t = json_array_get(doc, i);
        long long from = (long long)cli_doc_int(t, "from", 0), upto = (long long)cli_doc_int(t, "upto", 0);
        printf("%s partition %lld: offsets %lld to %lld, %lld bytes, epoch %lld: %s\n", cli_doc_text(t, "topic", ""),
               (long long)cli_doc_int(t, "partition", 0), from, upto - 1, (long long)cli_doc_int(t, "bytes", 0),
               (long long)cli_doc_int(t, "epoch", 0), cli_doc_text(t, "file", ""));
    }
    json_decref(doc);
    return CLI_OK;
}

const cli_command cli_link_tails = {
    "link tails",
    "[TOPIC]",
    "Show what was kept aside of origins that were fenced.",
    "Each is a segment file with the records that the promoted mirror does not have: `busway dump --records FILE` shows them. Nothing deletes\n"
    "them but you.",
    NULL,
    true,
    "  busway link tails orders\n",
    tails,
};
