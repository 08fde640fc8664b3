/* cli/cmd_migrate.c: migrate FROM TO [TOPIC…]: what there is, the topics of the target, the report. See migrate.h. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/interrupt.h"
#include "cli/migrate.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BAR_AFTER_NS INT64_C(300000000)
#define BAR_EACH_NS  INT64_C(100000000)
#define BAR_CELLS    30
enum { NAMES_MAX = 256, CONFIGS_MAX = 64, INIT_MS = 60000, BATCH_BYTES = 1 << 20, LINGER_MS = 5, CLOSE_MS = 5000 };

typedef struct request {
    const char *urls[2];
    size_t url_count;
    const char *topics[NAMES_MAX];
    size_t topic_count;
    const char *name;
    bool no_groups, no_verify;
} request;

/* ---- what a person sees ---- */

void migrate_bar_clear(migrate *m)
{
    if (m->bar_shown) fputs("\r\033[K", stderr);
    m->bar_shown = false;
}

void migrate_bar(migrate *m)
{
    int64_t now = cli_now_ns();
    if (!m->terminal || now - m->begun_ns < BAR_AFTER_NS || now - m->shown_ns < BAR_EACH_NS) return;
    m->shown_ns = now;
    m->bar_shown = true;
    double share = m->total ? (double)m->done / (double)m->total : 1;
    if (share > 1) share = 1;
    int cells = (int)(share * BAR_CELLS);
    fprintf(stderr, "\r%s [%.*s%*s] %3.0f%%  %" PRIu64 " of %" PRIu64 " records, %.0f/s\033[K", m->what, cells, "##############################",
            BAR_CELLS - cells, "", share * 100, m->done, m->total, (double)m->done * 1e9 / (double)(now - m->begun_ns));
}

static void begin_part(migrate *m, const char *what, uint64_t total)
{
    migrate_bar_clear(m);
    m->what = what;
    m->total = total;
    m->done = 0;
    m->begun_ns = cli_now_ns();
}

/* ---- topics ---- */

static bool is_wanted(const request *r, const char *topic)
{
    if (strncmp(topic, "__", 2) == 0) return false; /* a bus's own */
    for (size_t i = 0; i < r->topic_count; i++)
        if (fnmatch(r->topics[i], topic, 0) == 0) return true;
    return r->topic_count == 0;
}

/* Options that mean the same on both sides. */
static bool travels(const char *name)
{
    static const char *const known[] = {"retention.ms", "retention.bytes", "cleanup.policy", "segment.bytes", "segment.ms", "max.message.bytes",
                                        "compression.type", "min.cleanable.dirty.ratio", "delete.retention.ms", "min.compaction.lag.ms",
                                        "max.compaction.lag.ms"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i], name) == 0) return true;
    return false;
}

static int make_topic(migrate *m, const json_t *topic)
{
    const char *name = cli_doc_text(topic, "name", ""), *option;
    int32_t partitions = (int32_t)json_array_size(json_object_get(topic, "partitions")), have = 0;
    bw_config_entry configs[CONFIGS_MAX];
    size_t n = 0;
    json_t *entry;
    json_object_foreach(json_object_get(topic, "config"), option, entry)
    {
        const char *value = json_string_value(json_object_get(entry, "value"));
        if (!value || json_is_true(json_object_get(entry, "default")) || n == CONFIGS_MAX) continue;
        if (travels(option)) configs[n++] = (bw_config_entry){option, value};
        else cli_note(m->c, "%s: %s=%s is the source's alone and is not carried over", name, option, value);
    }
    bw_err e = bw_topic_partitions(m->to, name, &have);
    if (e == BW_ERR_UNKNOWN_TOPIC) {
        e = bw_topic_create(m->to, name, partitions, configs, n);
        if (!e) e = bw_topic_partitions(m->to, name, &have);
    }
    if (e) return cli_error_bw(m->c, e, "%s at the target", name);
    if (have < partitions)
        return cli_error(m->c, CLI_FAILURE, "%s has %" PRId32 " partitions at the target and %" PRId32 " at the source; give it more (topic alter)",
                         name, have, partitions);
    return CLI_OK;
}

/* ---- the work ---- */

/* Every partition of every topic; positions: as many as there are partitions, in their order. */
static int copy_all(migrate *m, const json_t *topics, migrate_position *positions)
{
    uint64_t total = 0, done = 0;
    size_t i, j, n = 0;
    json_t *t, *p;
    int rc = CLI_OK;
    json_array_foreach(topics, i, t)
    {
        if (rc == CLI_OK) rc = make_topic(m, t);
        json_array_foreach(json_object_get(t, "partitions"), j, p)
        {
            int32_t partition = (int32_t)cli_doc_int(p, "partition", 0);
            if (rc == CLI_OK) rc = migrate_position_read(m, cli_doc_text(t, "name", ""), partition, &positions[n]);
            total += (uint64_t)(cli_doc_int(p, "end_offset", 0) - cli_doc_int(p, "log_start_offset", 0));
            done += (uint64_t)positions[n++].records;
        }
    }
    if (rc != CLI_OK) return rc;
    begin_part(m, "copying", total);
    m->done = done;
    n = 0;
    json_array_foreach(topics, i, t)
        json_array_foreach(json_object_get(t, "partitions"), j, p)
    {
        if (rc == CLI_OK) rc = migrate_copy(m, cli_doc_text(t, "name", ""), (int32_t)cli_doc_int(p, "partition", 0), &positions[n]);
        n++;
    }
    migrate_bar_clear(m);
    return rc;
}

static int check_all(migrate *m, const json_t *topics, const migrate_position *positions, migrate_offset *offsets, size_t count, uint64_t *equal)
{
    uint64_t total = 0;
    size_t i, j, n = 0;
    json_t *t, *p;
    int rc = CLI_OK;
    json_array_foreach(topics, i, t)
        for (j = 0; j < json_array_size(json_object_get(t, "partitions")); j++) total += (uint64_t)positions[n++].records;
    begin_part(m, "comparing", total);
    n = 0;
    json_array_foreach(topics, i, t)
    {
        const char *name = cli_doc_text(t, "name", "");
        json_array_foreach(json_object_get(t, "partitions"), j, p)
        {
            int32_t partition = (int32_t)cli_doc_int(p, "partition", 0);
            size_t first = 0, some = 0;
            while (first < count && (strcmp(offsets[first].topic, name) != 0 || offsets[first].partition != partition)) first++;
            while (first + some < count && strcmp(offsets[first + some].topic, name) == 0 && offsets[first + some].partition == partition) some++;
            if (rc == CLI_OK) rc = migrate_check(m, name, partition, &positions[n], offsets + first, some, &equal[n]);
            n++;
        }
    }
    migrate_bar_clear(m);
    return rc;
}

static void report(const migrate *m, const json_t *topics, const migrate_position *positions, const uint64_t *equal, bool verified, size_t groups)
{
    uint64_t records = 0, same = 0;
    size_t i, j, n = 0;
    json_t *t, *list = json_array();
    json_array_foreach(topics, i, t)
    {
        json_t *parts = json_array();
        for (j = 0; j < json_array_size(json_object_get(t, "partitions")); j++, n++) {
            json_array_append_new(parts, json_pack("{s:I, s:I, s:I, s:I}", "partition", (json_int_t)j, "records", (json_int_t)positions[n].records,
                                                   "next_offset", (json_int_t)positions[n].next, "equal", (json_int_t)equal[n]));
            records += (uint64_t)positions[n].records;
            same += equal[n];
        }
        json_array_append_new(list, json_pack("{s:s, s:o}", "name", cli_doc_text(t, "name", ""), "partitions", parts));
    }
    if (m->c->json) {
        json_t *doc = json_pack("{s:s, s:s, s:I, s:I, s:I, s:b, s:I, s:O}", "from", m->from_url, "to", m->to_url, "records", (json_int_t)records,
                                "copied", (json_int_t)m->copied, "equal", (json_int_t)same, "verified", verified, "groups", (json_int_t)groups,
                                "topics", list);
        cli_doc_print(doc);
        json_decref(doc);
    } else {
        printf("%zu topic%s, %zu partition%s: %" PRIu64 " records at the target, %" PRIu64 " copied by this run", json_array_size(topics),
               json_array_size(topics) == 1 ? "" : "s", n, n == 1 ? "" : "s", records, m->copied);
        if (verified) printf("; %" PRIu64 " compared with the source: equal; offsets of %zu group%s", same, groups, groups == 1 ? "" : "s");
        printf("\n");
    }
    json_decref(list);
}

static int work(migrate *m, const request *r, const json_t *topics)
{
    size_t parts = 0, i, count = 0, groups = 0;
    json_t *t, *docs = NULL;
    migrate_offset *offsets = NULL;
    json_array_foreach(topics, i, t) parts += json_array_size(json_object_get(t, "partitions"));
    migrate_position *positions = calloc(parts + 1, sizeof *positions);
    uint64_t *equal = calloc(parts + 1, sizeof *equal);
    int rc = positions && equal ? copy_all(m, topics, positions) : cli_error(m->c, CLI_FAILURE, "out of memory");
    if (rc == CLI_OK && !r->no_groups) docs = migrate_groups(m, &offsets, &count, &rc);
    if (rc == CLI_OK && !r->no_verify) rc = check_all(m, topics, positions, offsets, count, equal);
    if (rc == CLI_OK && !r->no_verify && count) rc = migrate_groups_commit(m, offsets, count, &groups);
    if (rc == CLI_OK) report(m, topics, positions, equal, !r->no_verify, groups);
    if (rc == CLI_INTERRUPTED) cli_note(m->c, "interrupted; run it again to go on");
    json_decref(docs);
    free(offsets);
    free(positions);
    free(equal);
    return rc;
}

/* ---- opening ---- */

static void make_group(migrate *m, const request *r)
{
    uint64_t hash = 14695981039346656037u;
    for (const char *c = m->from_url; *c; c++) hash = (hash ^ (uint8_t)*c) * 1099511628211u;
    if (r->name) snprintf(m->group, sizeof m->group, "busway.migrate.%.40s", r->name);
    else snprintf(m->group, sizeof m->group, "busway.migrate.%016" PRIx64, hash);
}

static int open_target(migrate *m)
{
    bw_producer_options po = BW_PRODUCER_OPTIONS_INIT;
    bw_consumer_options co = BW_CONSUMER_OPTIONS_INIT;
    po.transactional_id = m->group;
    po.batch_size = BATCH_BYTES;
    po.linger_ms = LINGER_MS;
    co.group_id = m->group;
    co.enable_auto_commit = false;
    co.isolation = BW_READ_COMMITTED;
    bw_err e = bw_producer_open(m->to, &po, &m->producer);
    if (!e) e = bw_transactions_init(m->producer, INIT_MS);
    if (!e) e = bw_consumer_open(m->to, &co, &m->positions);
    return e ? cli_error_bw(m->c, e, "the target") : CLI_OK;
}

/* A folder that is read without a coordinator can't tell what is committed. */
static int choose_isolation(migrate *m)
{
    m->isolation = BW_READ_COMMITTED;
    if (!strstr(m->from_url, "mode=ro")) return CLI_OK;
    m->isolation = BW_READ_UNCOMMITTED;
    cli_note(m->c, "mode=ro: records of open and aborted transactions are copied, too");
    return CLI_OK;
}

static json_t *list_topics(migrate *m, const request *r, int *rc)
{
    json_t *all = cli_doc_topics(m->c, m->from, NULL, rc), *wanted = json_array(), *t;
    size_t i;
    json_array_foreach(all, i, t)
        if (is_wanted(r, cli_doc_text(t, "name", ""))) json_array_append(wanted, t);
    json_decref(all);
    if (*rc == CLI_OK && json_array_size(wanted) == 0) *rc = cli_error(m->c, CLI_NOT_FOUND, "the source has no such topic");
    return wanted;
}

static int run_request(cli *c, const request *r)
{
    migrate m = {.c = c, .from_url = r->urls[0], .to_url = r->urls[1], .terminal = isatty(STDERR_FILENO) && !c->quiet};
    cli from = *c, to = *c;
    from.url = m.from_url;
    to.url = m.to_url;
    m.to_cluster = strncmp(m.to_url, "kafka://", 8) == 0;
    make_group(&m, r);
    cli_interrupt_install();
    json_t *topics = NULL;
    int rc = choose_isolation(&m);
    if (rc == CLI_OK) rc = cli_connect(&from, &m.from);
    if (rc == CLI_OK) rc = cli_connect(&to, &m.to);
    if (rc == CLI_OK) topics = list_topics(&m, r, &rc);
    if (rc == CLI_OK) rc = open_target(&m);
    if (rc == CLI_OK) rc = work(&m, r, topics);
    json_decref(topics);
    bw_consumer_close(m.positions);
    bw_producer_close(m.producer, CLOSE_MS);
    bw_bus_close(m.to);
    bw_bus_close(m.from);
    return rc;
}

enum { ID_NAME = 256, ID_NO_GROUPS, ID_NO_VERIFY };

static const cli_opt options[] = {
    {ID_NAME, 0, "name", "NAME", "of the migration, by which it goes on (default: made of FROM)"},
    {ID_NO_GROUPS, 0, "no-groups", NULL, "leave out what groups have committed"},
    {ID_NO_VERIFY, 0, "no-verify", NULL, "do not read both sides again to compare them (groups are left out, too)"},
    {0, 0, NULL, NULL, NULL},
};

static int run(cli *c, int argc, char **argv)
{
    request r = {0};
    cli_args a;
    cli_args_init(&a, c, &cli_migrate, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        if (id == CLI_ARGS_STOP) return a.exit_code;
        if (id == ID_NAME) r.name = a.value;
        else if (id == ID_NO_GROUPS) r.no_groups = true;
        else if (id == ID_NO_VERIFY) r.no_verify = true;
        else if (r.url_count < 2) r.urls[r.url_count++] = a.value;
        else if (r.topic_count == NAMES_MAX) return cli_usage(c, "more than %d topics", NAMES_MAX);
        else r.topics[r.topic_count++] = a.value;
    }
    if (r.url_count < 2) return cli_usage(c, "from where to where? busway migrate FROM TO, as dir:/a kafka://b:9092");
    if (strcmp(r.urls[0], r.urls[1]) == 0) return cli_usage(c, "FROM and TO are the same bus");
    return run_request(c, &r);
}

const cli_command cli_migrate = {
    "migrate",
    "FROM TO [TOPIC…]",
    "Copy topics and groups' offsets from one bus to another: folder, daemon, Kafka cluster.",
    "FROM and TO are URLs as of -b. Topics (names, or patterns with * and ?; default: all) are made with as many partitions and the options\n"
    "that both sides know; keys, values, headers, timestamps and partitions stay, offsets are the target's own. Each step is a transaction with\n"
    "the position in it: one that was stopped or killed goes on when it is run again, and nothing is there twice; run it again to bring what\n"
    "came meanwhile, too. At the end both sides are read and compared record by record, and groups get their offsets' places in the target.",
    options,
    true,
    "  busway migrate dir:/var/lib/app kafka://b1:9092,b2:9092\n  busway migrate kafka://b1:9092 ipc:///run/busway/bus.sock 'orders*'\n",
    run,
};
