/* daemon/options.c: the command line, over the configuration file. Every option of the file can be given as --set name=value; those
 * with a name of their own go through the same table. */
#include "daemon/options.h"

#include <getopt.h>
#include <stdlib.h>

const char bw_daemon_help[] =
    "Usage: buswayd --data-dir DIR [OPTION]...\n"
    "Runs the Busway daemon: coordinates one data directory and serves clients of this host.\n"
    "\n"
    "  --data-dir DIR       where topics and metadata lie; made when it is missing\n"
    "  --runtime-dir DIR    where sockets lie (DIR/run of the data directory)\n"
    "  --listen URL         ipc:///path; may be repeated (ipc://<runtime-dir>/bus.sock)\n"
    "  --listen-rep URL     plain nng REP endpoint, or none (rep.sock beside the first socket)\n"
    "  --config FILE        ini file; see --help-config\n"
    "  --set NAME=VALUE     any option of the file; may be repeated\n"
    "  --idle-exit TIME     stop after TIME without a connection, as in 30s\n"
    "  --private            started by a program for its folder: give it to a daemon without this option that wants it\n"
    "  --log-level LEVEL    error, warn, info, debug\n"
    "  --log-json           events as JSON, one a line\n"
    "  --ready-fd N         write \"READY\\n\" to descriptor N when clients are answered, or \"ERROR CODE TEXT\\n\"\n"
    "  --check-config       check file and options, then exit\n"
    "  --help-config        every option with its default; --help-config=man as the body of a man page\n"
    "  --help, --version\n"
    "\n"
    "Events go to standard error, one a line. SIGTERM and SIGINT stop cleanly.\n"
    "\n"
    "Exit status: 0 stopped as told; 64 wrong usage; 65 data corrupt or written by a newer version; 69 the socket is in use;\n"
    "70 internal error; 71 no memory or system resource; 73 disk full; 74 input/output error; 75 another daemon has the data\n"
    "directory; 77 permission denied; 78 wrong configuration.\n";

enum { OPT_CONFIG = 256, OPT_SET, OPT_NAMED, OPT_LISTEN, OPT_JSON, OPT_READY, OPT_PRIVATE, OPT_CHECK, OPT_HELP_CONFIG, OPT_HELP, OPT_VERSION };

static const struct option long_options[] = {
    {"data-dir", required_argument, NULL, OPT_NAMED},   {"runtime-dir", required_argument, NULL, OPT_NAMED},
    {"listen", required_argument, NULL, OPT_LISTEN},    {"listen-rep", required_argument, NULL, OPT_NAMED},
    {"idle-exit", required_argument, NULL, OPT_NAMED},  {"log-level", required_argument, NULL, OPT_NAMED},
    {"socket-group", required_argument, NULL, OPT_NAMED}, {"log-json", no_argument, NULL, OPT_JSON},
    {"config", required_argument, NULL, OPT_CONFIG},    {"set", required_argument, NULL, OPT_SET},
    {"ready-fd", required_argument, NULL, OPT_READY},   {"private", no_argument, NULL, OPT_PRIVATE},   {"check-config", no_argument, NULL, OPT_CHECK},
    {"help-config", optional_argument, NULL, OPT_HELP_CONFIG}, {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},        {NULL, 0, NULL, 0},
};

static bw_err set_pair(bw_daemon_config *c, const char *pair)
{
    const char *eq = strchr(pair, '=');
    char name[128];
    if (!eq || eq == pair || (size_t)(eq - pair) >= sizeof name)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "--set %.100s: expected NAME=VALUE, as in --set num.partitions=4", pair);
    memcpy(name, pair, (size_t)(eq - pair));
    name[eq - pair] = 0;
    return bw_daemon_config_set(c, name, eq + 1);
}

/* The first --listen replaces what the file says, others are added. */
static bw_err add_listen(bw_daemon_config *c, const char *url, bool *first)
{
    bw_buf all = {0};
    bw_err e = BW_OK;
    for (size_t i = 0; !*first && !e && i < c->listen_count; i++) {
        e = bw_buf_append(&all, c->listen[i], strlen(c->listen[i]));
        if (!e) e = bw_buf_append(&all, ",", 1);
    }
    if (!e) e = bw_buf_append(&all, url, strlen(url) + 1);
    if (!e) e = bw_daemon_config_set(c, "listen", (const char *)all.data);
    bw_buf_free(&all);
    *first = false;
    return e;
}

static bw_err parse_ready_fd(bw_daemon_options *o, const char *text)
{
    char *end;
    long fd = strtol(text, &end, 10);
    if (!*text || *end || fd < 0 || fd > 65535) return bw_fail(BW_ERR_INVALID_ARGUMENT, "--ready-fd %.20s: expected a descriptor's number", text);
    o->ready_fd = (int)fd;
    return BW_OK;
}

static bw_err take(bw_daemon_options *o, int c, int index, const char *arg, bool *first_listen)
{
    switch (c) {
    case OPT_NAMED: return bw_daemon_config_set(&o->config, long_options[index].name, arg);
    case OPT_LISTEN: return add_listen(&o->config, arg, first_listen);
    case OPT_JSON: return bw_daemon_config_set(&o->config, "log-json", "true");
    case OPT_SET: return set_pair(&o->config, arg);
    case OPT_PRIVATE: o->config.is_private = true; return BW_OK;
    case OPT_READY: return parse_ready_fd(o, arg);
    case OPT_CHECK: o->task = BW_DAEMON_CHECK_CONFIG; return BW_OK;
    case OPT_HELP_CONFIG: o->task = arg && !strcmp(arg, "man") ? BW_DAEMON_HELP_CONFIG_MAN : BW_DAEMON_HELP_CONFIG; return BW_OK;
    case OPT_HELP: o->task = BW_DAEMON_HELP; return BW_OK;
    case OPT_VERSION: o->task = BW_DAEMON_VERSION; return BW_OK;
    default: return BW_OK;
    }
}

/* One pass over argv: the file alone (only_config), or everything else. */
static bw_err pass(bw_daemon_options *o, int argc, char **argv, bool only_config)
{
    bw_err e = BW_OK;
    bool first_listen = true;
    int c, index = 0;
    opterr = 0;
    optind = 0;
    while (!e && (c = getopt_long(argc, argv, ":", long_options, &index)) != -1) {
        if (c == ':') return bw_fail(BW_ERR_INVALID_ARGUMENT, "%s needs a value; see buswayd --help", argv[optind - 1]);
        if (c == '?') return bw_fail(BW_ERR_INVALID_ARGUMENT, "unknown option %s; see buswayd --help", argv[optind - 1]);
        if (only_config && c == OPT_CONFIG) e = bw_daemon_config_load(&o->config, optarg);
        if (!only_config) e = take(o, c, index, optarg, &first_listen);
    }
    if (!e && optind < argc) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "unexpected argument '%.100s'; see buswayd --help", argv[optind]);
    return e;
}

bw_err bw_daemon_options_parse(bw_daemon_options *o, int argc, char **argv)
{
    memset(o, 0, sizeof *o);
    o->ready_fd = -1;
    bw_daemon_config_init(&o->config);
    bw_err e = pass(o, argc, argv, true);
    if (!e) e = pass(o, argc, argv, false);
    o->listen_is_default = o->config.listen_count == 0;
    if (!e && (o->task == BW_DAEMON_RUN || o->task == BW_DAEMON_CHECK_CONFIG)) e = bw_daemon_config_check(&o->config);
    return e;
}

void bw_daemon_options_fini(bw_daemon_options *o) { bw_daemon_config_fini(&o->config); }
