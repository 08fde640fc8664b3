/* cli/cmd_group_offsets.c: group reset-offsets, by Kafka's rules: what is to be committed is computed and shown; only --execute does it.
 *
 * Which partitions: those of --topic (NAME, or NAME:1,2), or all that the group has committed. Where to: exactly one of the --to and
 * --shift options; a result outside the log goes to its nearer end, as Kafka's tool does. */
#include "cli/commands.h"
#include "cli/group.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ID_TOPIC = 256, ID_EARLIEST, ID_LATEST, ID_CURRENT, ID_OFFSET, ID_SHIFT, ID_DATETIME, ID_DURATION, ID_DELETE, ID_EXECUTE, ID_DRY_RUN };

typedef struct target {
    char topic[256];
    int32_t partition;
    int64_t committed; /* -1: none */
    int64_t to;
    bw_offset_range range;
} target;

typedef struct reset {
    cli *c;
    bw_bus *bus;
    const char *group;
    const char *topics[64];
    size_t topic_count;
    int where; /* an ID; 0: none yet */
    int64_t number; /* offset, shift, or time in ms */
    bool execute, dry_run;
    target *targets;
    size_t count, cap;
} reset;

/* ---- times ---- */

/* 2026-01-31T12:00:00[.000][Z|+01:00|-0100]; without a zone it is the local one. */
static bool parse_datetime(const char *text, int64_t *ms)
{
    struct tm tm = {.tm_isdst = -1};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest && (rest = strptime(text, "%Y-%m-%d", &tm)) && *rest) return false;
    if (!rest) return false;
    int64_t milli = 0;
    if (*rest == '.') {
        int64_t scale = 100;
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, scale /= 10) milli += (*rest - '0') * scale;
    }
    int64_t offset_s = 0;
    bool zone = *rest != 0;
    if (*rest == 'Z' && !rest[1]) rest++;
    else if (*rest == '+' || *rest == '-') {
        unsigned hours, minutes;
        int used = 0;
        if (sscanf(rest + 1, "%2u:%2u%n", &hours, &minutes, &used) != 2 && sscanf(rest + 1, "%2u%2u%n", &hours, &minutes, &used) != 2) return false;
        if (hours > 18 || minutes > 59) return false;
        offset_s = (*rest == '-' ? -1 : 1) * (int64_t)(hours * 3600 + minutes * 60);
        rest += 1 + used;
    }
    if (*rest) return false;
    time_t s = zone ? timegm(&tm) : mktime(&tm);
    if (s == (time_t)-1) return false;
    *ms = ((int64_t)s - offset_s) * 1000 + milli;
    return true;
}

/* ISO 8601, as Kafka's tool takes it: P1D, PT1H30M, P1DT12H; or 90s, 15m, 2h, 3d, 1w. */
static bool parse_duration(const char *text, int64_t *ms)
{
    static const struct { char letter; int64_t ms; } units[] = {{'w', 604800000}, {'d', 86400000}, {'h', 3600000}, {'m', 60000}, {'s', 1000}};
    bool iso = *text == 'P' || *text == 'p', time = !iso;
    int64_t sum = 0;
    text += iso;
    if (!*text) return false;
    while (*text) {
        if (iso && !time && (*text == 'T' || *text == 't')) {
            time = true;
            text++;
            continue;
        }
        char *end;
        long long n = strtoll(text, &end, 10);
        if (end == text || n < 0 || n > 1000000000) return false;
        size_t i = 0;
        while (i < 5 && units[i].letter != (*end | 0x20)) i++;
        if (i == 5 || (iso && !time && i > 1) || (iso && time && i < 2)) return false;
        sum += n * units[i].ms;
        text = end + 1;
    }
    *ms = sum;
    return true;
}

static int64_t wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- which partitions ---- */

static target *add_target(reset *r, const char *topic, size_t len, int32_t partition)
{
    if (r->count == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 64;
        target *more = realloc(r->targets, cap * sizeof *more);
        if (!more) return NULL;
        r->targets = more;
        r->cap = cap;
    }
    target *t = &r->targets[r->count++];
    *t = (target){.partition = partition, .committed = -1, .to = -1};
    snprintf(t->topic, sizeof t->topic, "%.*s", (int)len, topic);
    return t;
}

/* NAME, or NAME:0,3,7. */
static int add_topic(reset *r, const char *text)
{
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : strlen(text);
    char name[256];
    int32_t partitions = 0;
    snprintf(name, sizeof name, "%.*s", (int)len, text);
    bw_err e = bw_topic_partitions(r->bus, name, &partitions);
    if (e) return cli_error_bw(r->c, e, "%s", name);
    if (!colon)
        for (int32_t p = 0; p < partitions; p++)
            if (!add_target(r, text, len, p)) return cli_error(r->c, CLI_FAILURE, "out of memory");
    for (const char *at = colon; at && *at;) {
        char *end;
        long p = strtol(at + 1, &end, 10);
        if (end == at + 1 || (*end && *end != ',') || p < 0 || p >= partitions)
            return cli_usage(r->c, "--topic %s: partitions are numbers from 0 to %" PRId32 ", with commas between", text, partitions - 1);
        if (!add_target(r, text, len, (int32_t)p)) return cli_error(r->c, CLI_FAILURE, "out of memory");
        at = end;
    }
    return CLI_OK;
}

/* What the group has committed: into the targets, or as the targets when no topic was named. A group that is not there has nothing. */
static int add_committed(reset *r)
{
    char *text;
    bw_err e = bw_group_describe(r->bus, r->group, &text);
    if (e == BW_ERR_GROUP_ID_NOT_FOUND && r->topic_count) return CLI_OK;
    if (e) return cli_error_bw(r->c, e, "%s", r->group);
    json_t *doc = cli_doc_parse(r->c, text), *p;
    int rc = doc ? CLI_OK : CLI_FAILURE;
    size_t i, named = r->count;
    json_array_foreach(json_object_get(doc, "partitions"), i, p)
    {
        if (!json_is_integer(json_object_get(p, "committed_offset"))) continue;
        const char *topic = cli_doc_text(p, "topic", "");
        int64_t partition = cli_doc_int(p, "partition", -1);
        target *t = NULL;
        for (size_t k = 0; k < named && !t; k++)
            if (r->targets[k].partition == partition && strcmp(r->targets[k].topic, topic) == 0) t = &r->targets[k];
        if (!t && !r->topic_count && !(t = add_target(r, topic, strlen(topic), (int32_t)partition)))
            rc = cli_error(r->c, CLI_FAILURE, "out of memory");
        if (t) t->committed = cli_doc_int(p, "committed_offset", -1);
    }
    json_decref(doc);
    return rc;
}

/* ---- where to ---- */

static int64_t within(const bw_offset_range *range, int64_t offset)
{
    return offset < range->log_start ? range->log_start : offset > range->end ? range->end : offset;
}

static bw_err find_target(reset *r, target *t)
{
    bw_err e = bw_offsets_range(r->bus, t->topic, t->partition, &t->range);
    if (e) return e;
    int64_t found;
    switch (r->where) {
    case ID_EARLIEST: t->to = t->range.log_start; break;
    case ID_LATEST: t->to = t->range.end; break;
    case ID_CURRENT: t->to = t->committed < 0 ? t->range.end : within(&t->range, t->committed); break;
    case ID_OFFSET: t->to = within(&t->range, r->number); break;
    case ID_SHIFT: t->to = within(&t->range, (t->committed < 0 ? t->range.log_start : t->committed) + r->number); break;
    default: return bw_offset_for_time(r->bus, t->topic, t->partition, r->number, &t->to, &found);
    }
    return BW_OK;
}

static int show(const reset *r)
{
    if (r->c->json) {
        json_t *all = json_array();
        for (size_t i = 0; i < r->count; i++) {
            const target *t = &r->targets[i];
            json_array_append_new(all, json_pack("{s:s,s:s,s:i,s:o,s:o,s:I,s:b}", "group", r->group, "topic", t->topic, "partition",
                                                 (int)t->partition, "committed_offset", t->committed < 0 ? json_null() : json_integer(t->committed),
                                                 "new_offset", r->where == ID_DELETE ? json_null() : json_integer(t->to), "end_offset",
                                                 (json_int_t)t->range.end, "executed", (int)r->execute));
        }
        cli_doc_print(all);
        json_decref(all);
        return CLI_OK;
    }
    static const char *const headings[] = {"TOPIC", ">PARTITION", ">COMMITTED", ">NEW", ">LAG THEN", NULL};
    cli_table table;
    cli_table_init(&table, headings);
    for (size_t i = 0; i < r->count; i++) {
        const target *t = &r->targets[i];
        cli_table_row(&table);
        cli_table_cell(&table, 0, "%s", t->topic);
        cli_table_cell(&table, 1, "%" PRId32, t->partition);
        if (t->committed < 0) cli_table_cell(&table, 2, "-");
        else cli_table_cell(&table, 2, "%" PRId64, t->committed);
        if (r->where == ID_DELETE) cli_table_cell(&table, 3, "none");
        else cli_table_cell(&table, 3, "%" PRId64, t->to);
        if (r->where == ID_DELETE) cli_table_cell(&table, 4, "-");
        else cli_table_cell(&table, 4, "%" PRId64, t->range.end - t->to);
    }
    cli_table_print(&table, stdout, "");
    cli_table_fini(&table);
    return CLI_OK;
}

static int carry_out(reset *r)
{
    bw_group_offset *offsets = calloc(r->count + 1, sizeof *offsets);
    if (!offsets) return cli_error(r->c, CLI_FAILURE, "out of memory");
    for (size_t i = 0; i < r->count; i++)
        offsets[i] = (bw_group_offset){.topic = r->targets[i].topic, .partition = r->targets[i].partition, .offset = r->targets[i].to};
    bw_err e = r->where == ID_DELETE ? bw_group_offsets_delete(r->bus, r->group, offsets, r->count)
                                     : bw_group_offsets_alter(r->bus, r->group, offsets, r->count);
    int rc = e ? cli_error_bw(r->c, e, "%s", r->group) : CLI_OK;
    for (size_t i = 0; e && i < r->count; i++)
        if (offsets[i].error != BW_OK)
            cli_note(r->c, "%s partition %" PRId32 ": not done: %s", offsets[i].topic, offsets[i].partition, bw_err_text(offsets[i].error));
    free(offsets);
    return rc;
}

/* ---- the command ---- */

static int set_where(reset *r, const cli_args *a, int id)
{
    if (r->where) return cli_usage(r->c, "one target at a time: --%s beside another", a->option->name);
    r->where = id;
    bool good = true;
    switch (id) {
    case ID_OFFSET: good = cli_parse_int(a->value, 0, INT64_MAX, &r->number); break;
    case ID_SHIFT: good = cli_parse_int(a->value[0] == '+' ? a->value + 1 : a->value, INT64_MIN / 2, INT64_MAX / 2, &r->number); break;
    case ID_DATETIME: good = cli_parse_int(a->value, 0, INT64_MAX, &r->number) || parse_datetime(a->value, &r->number); break;
    case ID_DURATION:
        good = parse_duration(a->value, &r->number);
        r->number = wall_ms() - r->number;
        break;
    default: break;
    }
    return good ? CLI_OK : cli_usage(r->c, "--%s: %s is not of the form %s", a->option->name, a->value, a->option->argument);
}

static int parse(reset *r, int argc, char **argv)
{
    cli_args a;
    int rc;
    cli_args_init(&a, r->c, &cli_group_reset_offsets, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        switch (id) {
        case CLI_ARGS_STOP: return a.exit_code;
        case CLI_ARGS_OPERAND:
            if (r->group) return cli_usage(r->c, "one group at a time: %s or %s?", r->group, a.value);
            r->group = a.value;
            break;
        case ID_TOPIC:
            if (r->topic_count == 64) return cli_usage(r->c, "more than 64 topics");
            r->topics[r->topic_count++] = a.value;
            break;
        case ID_EXECUTE: r->execute = true; break;
        case ID_DRY_RUN: r->dry_run = true; break;
        default:
            if ((rc = set_where(r, &a, id)) != CLI_OK) return rc;
        }
    }
    if (!r->group) return cli_usage(r->c, "which group? busway group reset-offsets GROUP --to-earliest");
    if (!r->where) return cli_usage(r->c, "where to? one of --to-earliest, --to-latest, --to-offset, --shift-by, --to-datetime, --by-duration");
    if (r->execute && r->dry_run) return cli_usage(r->c, "--execute and --dry-run exclude each other");
    return -1;
}

static int run(cli *c, int argc, char **argv)
{
    reset r = {.c = c};
    int rc = parse(&r, argc, argv);
    if (rc < 0) rc = cli_connect(c, &r.bus);
    for (size_t i = 0; r.bus && rc == CLI_OK && i < r.topic_count; i++) rc = add_topic(&r, r.topics[i]);
    if (r.bus && rc == CLI_OK) rc = add_committed(&r);
    if (r.bus && rc == CLI_OK && r.count == 0)
        rc = cli_error(c, CLI_NOT_FOUND, "%s has committed nothing; name what is to be set with --topic", r.group);
    for (size_t i = 0; r.bus && rc == CLI_OK && i < r.count; i++) {
        bw_err e = find_target(&r, &r.targets[i]);
        if (e) rc = cli_error_bw(c, e, "%s partition %" PRId32, r.targets[i].topic, r.targets[i].partition);
    }
    if (r.bus && rc == CLI_OK && r.execute) rc = carry_out(&r);
    if (r.bus && rc == CLI_OK) rc = show(&r);
    if (r.bus && rc == CLI_OK && !r.execute) cli_note(c, "nothing was changed; the same with --execute does it");
    bw_bus_close(r.bus);
    free(r.targets);
    return rc;
}

static const cli_opt options[] = {
    {ID_TOPIC, 0, "topic", "NAME[:P,P]", "only this topic, or these partitions of it; may be repeated (default: all that is committed)"},
    {ID_EARLIEST, 0, "to-earliest", NULL, "to the first record there is"},
    {ID_LATEST, 0, "to-latest", NULL, "behind the last one"},
    {ID_CURRENT, 0, "to-current", NULL, "to what is committed, brought into the log where it lies outside"},
    {ID_OFFSET, 0, "to-offset", "N", "to offset N"},
    {ID_SHIFT, 0, "shift-by", "N", "N records on, or back when negative"},
    {ID_DATETIME, 0, "to-datetime", "2026-01-31T12:00:00[Z]", "to the first record from then on (or ms since 1970)"},
    {ID_DURATION, 0, "by-duration", "PT1H30M", "to the first record of the last hour and a half (or 90m, 36h, 7d)"},
    {ID_DELETE, 0, "delete", NULL, "forget what is committed"},
    {ID_EXECUTE, 0, "execute", NULL, "do it (without: only show what would be done)"},
    {ID_DRY_RUN, 0, "dry-run", NULL, "only show it: the default"},
    {0, 0, NULL, NULL, NULL},
};

const cli_command cli_group_reset_offsets = {
    "group reset-offsets",
    "GROUP",
    "Set what a group without members has committed; shows it first.",
    "A group with members is refused: they would go on from where they are. A target outside the log goes to its nearer end.",
    options,
    true,
    "  busway group reset-offsets billing --to-earliest\n"
    "  busway group reset-offsets billing --topic orders:0,1 --shift-by -100 --execute\n"
    "  busway group reset-offsets billing --by-duration PT6H --execute\n",
    run,
};
