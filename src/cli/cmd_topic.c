/* cli/cmd_topic.c: topic create | list | describe | alter | delete | purge. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX   256
#define CONFIGS_MAX 64

/* What the six have in common, after parsing. */
typedef struct request {
    const char *names[NAMES_MAX];
    size_t name_count;
    bw_config_entry configs[CONFIGS_MAX];
    size_t config_count;
    char *texts[CONFIGS_MAX]; /* memory of the configs' names */
    int32_t partitions;
    int32_t partition;
    int64_t before;
    bool if_missing_or_exists, internal;
} request;

enum { ID_PARTITIONS = 256, ID_IF_NOT_EXISTS, ID_IF_EXISTS, ID_UNSET, ID_BEFORE };

static int add_config(cli *c, request *r, const char *text, bool unset)
{
    if (r->config_count == CONFIGS_MAX) return cli_usage(c, "more than %d configuration values", CONFIGS_MAX);
    const char *equals = strchr(text, '=');
    if (unset ? equals != NULL || !*text : !equals || equals == text)
        return cli_usage(c, unset ? "--unset: %s is not a name" : "-c: %s is not of the form name=value", text);
    char *copy = strdup(text);
    if (!copy) return cli_error(c, CLI_FAILURE, "out of memory");
    r->texts[r->config_count] = copy;
    if (!unset) copy[equals - text] = 0;
    r->configs[r->config_count++] = (bw_config_entry){copy, unset ? NULL : copy + (equals - text) + 1};
    return CLI_OK;
}

static void request_fini(request *r)
{
    for (size_t i = 0; i < r->config_count; i++) free(r->texts[i]);
}

/* -1: go on; else the exit code. */
static int parse(cli *c, const cli_command *command, request *r, int argc, char **argv)
{
    cli_args a;
    int64_t n;
    int rc;
    *r = (request){.partition = BW_PARTITION_ANY, .before = BW_OFFSET_END};
    cli_args_init(&a, c, command, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        switch (id) {
        case CLI_ARGS_STOP:
            return a.exit_code;
        case CLI_ARGS_OPERAND:
            if (r->name_count == NAMES_MAX) return cli_usage(c, "more than %d topics", NAMES_MAX);
            r->names[r->name_count++] = a.value;
            break;
        case 'c':
        case ID_UNSET:
            if ((rc = add_config(c, r, a.value, id == ID_UNSET)) != CLI_OK) return rc;
            break;
        case ID_PARTITIONS:
            if (!cli_parse_int(a.value, 1, 1000000, &n)) return cli_usage(c, "--partitions: %s is not a number from 1", a.value);
            r->partitions = (int32_t)n;
            break;
        case 'p':
            if (!cli_parse_int(a.value, 0, INT32_MAX, &n)) return cli_usage(c, "-p: %s is not a partition's number", a.value);
            r->partition = (int32_t)n;
            break;
        case ID_BEFORE:
            if (strcmp(a.value, "end") == 0)
                n = BW_OFFSET_END;
            else if (!cli_parse_int(a.value, 0, INT64_MAX, &n))
                return cli_usage(c, "--before: %s is neither an offset nor `end`", a.value);
            r->before = n;
            break;
        default:
            r->if_missing_or_exists = true;
            break;
        }
    }
    return -1;
}

static int topic_create(cli *c, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    int rc = parse(c, &cli_topic_create, &r, argc, argv);
    if (rc < 0 && r.name_count == 0) rc = cli_usage(c, "which topic? busway topic create NAME");
    if (rc < 0) rc = cli_connect(c, &bus);
    for (size_t i = 0; bus && i < r.name_count; i++) {
        bw_err e = bw_topic_create(bus, r.names[i], r.partitions, r.configs, r.config_count);
        if (e == BW_OK || (e == BW_ERR_TOPIC_EXISTS && r.if_missing_or_exists)) continue;
        int failed = cli_error_bw(c, e, "%s", r.names[i]);
        if (rc == CLI_OK) rc = failed;
    }
    bw_bus_close(bus);
    request_fini(&r);
    return rc;
}

static int topic_alter(cli *c, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    int rc = parse(c, &cli_topic_alter, &r, argc, argv);
    if (rc < 0 && r.name_count == 0) rc = cli_usage(c, "which topic? busway topic alter NAME -c name=value");
    if (rc < 0 && r.config_count == 0 && r.partitions == 0)
        rc = cli_usage(c, "nothing to change: give -c, --unset or --partitions");
    if (rc < 0) rc = cli_connect(c, &bus);
    for (size_t i = 0; bus && i < r.name_count; i++) {
        bw_err e = bw_topic_alter(bus, r.names[i], r.partitions, r.configs, r.config_count);
        if (e == BW_OK) continue;
        int failed = cli_error_bw(c, e, "%s", r.names[i]);
        if (rc == CLI_OK) rc = failed;
    }
    bw_bus_close(bus);
    request_fini(&r);
    return rc;
}

static int topic_delete(cli *c, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    int rc = parse(c, &cli_topic_delete, &r, argc, argv);
    if (rc < 0 && r.name_count == 0) rc = cli_usage(c, "which topic? busway topic delete NAME");
    if (rc < 0) rc = cli_connect(c, &bus);
    for (size_t i = 0; bus && i < r.name_count; i++) {
        bw_err e = bw_topic_delete(bus, r.names[i]);
        if (e == BW_OK || (e == BW_ERR_UNKNOWN_TOPIC && r.if_missing_or_exists)) continue;
        int failed = cli_error_bw(c, e, "%s", r.names[i]);
        if (rc == CLI_OK) rc = failed;
    }
    bw_bus_close(bus);
    return rc;
}

static int purge_partition(cli *c, bw_bus *bus, const char *topic, int32_t partition, int64_t before, json_t *results)
{
    int64_t start = 0;
    bw_err e = bw_delete_records(bus, topic, partition, before, &start);
    if (e != BW_OK) return cli_error_bw(c, e, "%s partition %" PRId32, topic, partition);
    if (results)
        json_array_append_new(results, json_pack("{s:s,s:i,s:I}", "topic", topic, "partition", (int)partition, "log_start_offset",
                                                 (json_int_t)start));
    else if (!c->quiet)
        printf("%s [%" PRId32 "] starts at %" PRId64 "\n", topic, partition, start);
    return CLI_OK;
}

static int topic_purge(cli *c, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    int rc = parse(c, &cli_topic_purge, &r, argc, argv);
    if (rc < 0 && r.name_count == 0) rc = cli_usage(c, "which topic? busway topic purge NAME");
    if (rc < 0 && r.before >= 0 && r.partition < 0) rc = cli_usage(c, "--before OFFSET counts in one partition: name it with -p");
    if (rc < 0) rc = cli_connect(c, &bus);
    json_t *results = c->json ? json_array() : NULL;
    for (size_t i = 0; bus && i < r.name_count; i++) {
        int32_t first = r.partition, end = r.partition + 1;
        if (r.partition < 0) {
            first = 0;
            bw_err e = bw_topic_partitions(bus, r.names[i], &end);
            if (e != BW_OK) {
                rc = cli_error_bw(c, e, "%s", r.names[i]);
                continue;
            }
        }
        for (int32_t p = first; p < end; p++) {
            int failed = purge_partition(c, bus, r.names[i], p, r.before, results);
            if (rc == CLI_OK) rc = failed;
        }
    }
    if (results && bus) cli_doc_print(results);
    json_decref(results);
    bw_bus_close(bus);
    return rc;
}

/* Sums over a topic's partitions. */
typedef struct totals {
    int64_t records, bytes, segments, not_durable;
    size_t partitions;
} totals;

static totals sum(const json_t *topic)
{
    totals t = {0};
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(topic, "partitions"), i, p)
    {
        int64_t end = cli_doc_int(p, "end_offset", 0);
        t.partitions++;
        t.records += end - cli_doc_int(p, "log_start_offset", 0);
        t.not_durable += end - cli_doc_int(p, "durable_offset", end);
        t.bytes += cli_doc_int(p, "size_bytes", 0);
        t.segments += cli_doc_int(p, "segments", 0);
    }
    return t;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(cli_doc_text(*(json_t *const *)a, "name", ""), cli_doc_text(*(json_t *const *)b, "name", ""));
}

/* The topics in the order of their names; the array takes no reference. */
static json_t **sorted(const json_t *topics, size_t *count)
{
    *count = json_array_size(topics);
    json_t **list = calloc(*count + 1, sizeof *list);
    if (!list) return *count = 0, NULL;
    for (size_t i = 0; i < *count; i++) list[i] = json_array_get(topics, i);
    qsort(list, *count, sizeof *list, by_name);
    return list;
}

static int topic_list(cli *c, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    int rc = parse(c, &cli_topic_list, &r, argc, argv);
    if (rc < 0 && r.name_count) rc = cli_usage(c, "takes no topic; `busway topic describe %s` shows one", r.names[0]);
    if (rc < 0) rc = cli_connect(c, &bus);
    json_t *topics = bus ? cli_doc_topics(c, bus, NULL, &rc) : NULL;
    if (topics && c->json) {
        cli_doc_print(topics);
    } else if (topics) {
        static const char *const headings[] = {"TOPIC", ">PARTITIONS", ">RECORDS", ">BYTES", ">SEGMENTS", NULL};
        cli_table t;
        char text[24];
        size_t n;
        json_t **list = sorted(topics, &n);
        cli_table_init(&t, headings);
        for (size_t i = 0; i < n; i++) {
            totals s = sum(list[i]);
            cli_table_row(&t);
            cli_table_cell(&t, 0, "%s", cli_doc_text(list[i], "name", "?"));
            cli_table_cell(&t, 1, "%zu", s.partitions);
            cli_table_cell(&t, 2, "%" PRId64, s.records);
            cli_table_cell(&t, 3, "%s", cli_human_bytes(text, (double)s.bytes));
            cli_table_cell(&t, 4, "%" PRId64, s.segments);
        }
        if (n > 0)
            cli_table_print(&t, stdout, "");
        else
            cli_note(c, "no topics yet; `busway topic create NAME` makes one, and so does `busway produce NAME`");
        cli_table_fini(&t);
        free(list);
    }
    json_decref(topics);
    bw_bus_close(bus);
    return rc;
}

static void describe(const json_t *topic)
{
    static const char *const headings[] = {">PARTITION", ">START",    ">END",   ">DURABLE", ">RECORDS",
                                           ">BYTES",     ">SEGMENTS", ">EPOCH", "STATE",    NULL};
    totals s = sum(topic);
    char text[24], value[512];
    printf("%s: %zu partition%s, %" PRId64 " records, %s", cli_doc_text(topic, "name", "?"), s.partitions,
           s.partitions == 1 ? "" : "s", s.records, cli_human_bytes(text, (double)s.bytes));
    printf(", id %s\n", cli_doc_text(topic, "id", "?"));
    cli_table t;
    cli_table_init(&t, headings);
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(topic, "partitions"), i, p)
    {
        int64_t start = cli_doc_int(p, "log_start_offset", 0), end = cli_doc_int(p, "end_offset", 0);
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%" PRId64, cli_doc_int(p, "partition", 0));
        cli_table_cell(&t, 1, "%" PRId64, start);
        cli_table_cell(&t, 2, "%" PRId64, end);
        cli_table_cell(&t, 3, "%" PRId64, cli_doc_int(p, "durable_offset", 0));
        cli_table_cell(&t, 4, "%" PRId64, end - start);
        cli_table_cell(&t, 5, "%s", cli_human_bytes(text, (double)cli_doc_int(p, "size_bytes", 0)));
        cli_table_cell(&t, 6, "%" PRId64, cli_doc_int(p, "segments", 0));
        cli_table_cell(&t, 7, "%" PRId64, cli_doc_int(p, "leader_epoch", 0));
        cli_table_cell(&t, 8, "%s", cli_doc_text(p, "state", ""));
    }
    cli_table_print(&t, stdout, "  ");
    cli_table_fini(&t);
    const char *name;
    json_t *config;
    json_object_foreach(json_object_get(topic, "config"), name, config)
    {
        bool is_default = json_is_true(json_object_get(config, "default"));
        const json_t *v = json_is_object(config) ? json_object_get(config, "value") : config;
        printf("  %s=%s%s\n", name, cli_doc_scalar(v, value, sizeof value), is_default ? "  (default)" : "");
    }
}

static int topic_describe(cli *c, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    int rc = parse(c, &cli_topic_describe, &r, argc, argv);
    if (rc < 0) rc = cli_connect(c, &bus);
    json_t *all = c->json ? json_array() : NULL;
    for (size_t i = 0; bus && (i < r.name_count || (i == 0 && r.name_count == 0)); i++) {
        int failed;
        json_t *topics = cli_doc_topics(c, bus, r.name_count ? r.names[i] : NULL, &failed);
        if (rc == CLI_OK) rc = failed;
        size_t n = 0;
        json_t **list = topics ? sorted(topics, &n) : NULL;
        for (size_t k = 0; k < n; k++) {
            if (all)
                json_array_append(all, list[k]);
            else
                describe(list[k]);
        }
        free(list);
        json_decref(topics);
    }
    if (all && bus && (rc == CLI_OK || json_array_size(all))) cli_doc_print(all);
    json_decref(all);
    bw_bus_close(bus);
    return rc;
}

#define CONFIG_OPTION                                                                                                 \
    {                                                                                                                 \
        'c', 'c', "config", "NAME=VALUE", "a configuration value (retention.ms, segment.bytes, …); may be repeated" \
    }
#define NO_MORE                \
    {                          \
        0, 0, NULL, NULL, NULL \
    }

static const cli_opt create_options[] = {
    {ID_PARTITIONS, 0, "partitions", "N", "how many partitions (default: the daemon's num.partitions)"},
    CONFIG_OPTION,
    {ID_IF_NOT_EXISTS, 0, "if-not-exists", NULL, "no error when the topic is there already"},
    NO_MORE,
};
static const cli_opt alter_options[] = {
    {ID_PARTITIONS, 0, "partitions", "N", "raise the number of partitions to N (it never shrinks)"},
    CONFIG_OPTION,
    {ID_UNSET, 0, "unset", "NAME", "back to the daemon's default; may be repeated"},
    NO_MORE,
};
static const cli_opt delete_options[] = {{ID_IF_EXISTS, 0, "if-exists", NULL, "no error when there is no such topic"}, NO_MORE};
static const cli_opt purge_options[] = {
    {'p', 'p', "partition", "N", "only this partition (default: all)"},
    {ID_BEFORE, 0, "before", "OFFSET", "delete what lies before OFFSET, or `end` (the default): everything"},
    NO_MORE,
};

const cli_command cli_topic_create = {"topic create",
                                      "NAME…",
                                      "Make a topic.",
                                      "When the command returns, the topic survives power loss.",
                                      create_options,
                                      true,
                                      "  busway topic create orders --partitions 4\n"
                                      "  busway topic create ticks -c retention.ms=3600000 -c segment.bytes=67108864\n",
                                      topic_create};
const cli_command cli_topic_list = {"topic list",
                                    "",
                                    "List the topics with their sizes.",
                                    NULL,
                                    NULL,
                                    true,
                                    "  busway topic list\n  busway topic list --json | jq -r '.[].name'\n",
                                    topic_list};
const cli_command cli_topic_describe = {"topic describe",
                                        "[NAME…]",
                                        "Show partitions, offsets and configuration of topics.",
                                        NULL,
                                        NULL,
                                        true,
                                        "  busway topic describe orders\n  busway topic describe --json\n",
                                        topic_describe};
const cli_command cli_topic_alter = {"topic alter",
                                     "NAME…",
                                     "Change configuration, or add partitions.",
                                     NULL,
                                     alter_options,
                                     true,
                                     "  busway topic alter orders -c retention.bytes=1073741824\n"
                                     "  busway topic alter orders --unset retention.bytes --partitions 8\n",
                                     topic_alter};
const cli_command cli_topic_delete = {"topic delete", "NAME…", "Delete topics with all their records.", NULL,
                                      delete_options, true,    "  busway topic delete orders\n",        topic_delete};
const cli_command cli_topic_purge = {"topic purge",
                                     "NAME…",
                                     "Delete records, keep the topic.",
                                     "Readers see the new start at once; whole segments are removed from the disk.",
                                     purge_options,
                                     true,
                                     "  busway topic purge orders\n  busway topic purge orders -p 0 --before 1000\n",
                                     topic_purge};
