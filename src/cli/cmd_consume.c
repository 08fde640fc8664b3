/* cli/cmd_consume.c: records of a topic to standard output.
 *
 * Invariants: what is buffered for output is written before the command waits; a signal ends the wait (bw_consumer_wake) and what
 * was read is written out; a reader that goes away (EPIPE) ends the command without a word and with success, as `| head` wants.
 */
#include "cli/commands.h"
#include "cli/format.h"
#include "cli/interrupt.h"
#include "cli/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PARTITIONS_MAX 1024 /* -p, repeated */
#define TOPICS_MAX     256
#define IDLE_MS        1000
#define RETRY_MS       200
#define GROUP_WAIT_MS  3000 /* with -e: for a first partition of the group */

typedef enum start_kind { FROM_BEGINNING, FROM_END, FROM_OFFSET, FROM_BEFORE_END, FROM_TIME } start_kind;

typedef struct part {
    int32_t partition;
    int64_t stop; /* e@: the first offset not wanted; -1: none */
    bool done;
} part;

typedef struct consume {
    cli *c;
    bw_bus *bus;
    bw_consumer *consumer;
    bw_consumer_options options;
    const char *topics[TOPICS_MAX]; /* one, unless with a group */
    size_t topic_count;
    const char *topic; /* the first */
    int32_t wanted[PARTITIONS_MAX];
    size_t wanted_count;
    part *parts;
    size_t part_count, open_count; /* open: not done */
    start_kind from;
    int64_t start, stop_ms; /* stop_ms -1: none */
    int64_t count_max, count;
    bool reset_given;
    bool exit_at_end, unbuffered, envelope, with_offset, nulls;
    const char *format_text;
    cli_format format;
    char *delimiter, *key_delimiter;
    size_t delimiter_len, key_delimiter_len;
    cli_out out;
    int64_t joined_ns;
    bool told_retry;
    int64_t retry_since_ns;
} consume;

static void put_plain(consume *k, const bw_record_view *r)
{
    cli_out *o = &k->out;
    if (k->with_offset) {
        cli_out_int(o, r->offset);
        cli_out_put(o, k->key_delimiter ? k->key_delimiter : "\t", k->key_delimiter ? k->key_delimiter_len : 1);
    }
    if (k->key_delimiter) {
        if (r->key)
            cli_out_put(o, r->key, r->key_len);
        else if (k->nulls)
            cli_out_text(o, "NULL");
        cli_out_put(o, k->key_delimiter, k->key_delimiter_len);
    }
    if (r->value)
        cli_out_put(o, r->value, r->value_len);
    else if (k->nulls)
        cli_out_text(o, "NULL");
    cli_out_put(o, k->delimiter, k->delimiter_len);
}

static part *part_of(consume *k, int32_t partition)
{
    for (size_t i = 0; i < k->part_count; i++)
        if (k->parts[i].partition == partition) return &k->parts[i];
    return NULL;
}

static void part_done(consume *k, part *p)
{
    if (p->done) return;
    p->done = true;
    k->open_count--;
    bw_consumer_pause(k->consumer, k->topic, p->partition);
}

/* One batch to the output. -1: go on; else the exit code. */
static int put_batch(consume *k, bw_batch *batch)
{
    bw_record_view r;
    int more = 0;
    part *p = k->options.group_id ? NULL : part_of(k, batch->partition);
    while (!k->out.error && (k->count_max < 0 || k->count < k->count_max) && (more = bw_batch_next(batch, &r)) == 1) {
        if (p && p->stop >= 0 && r.offset >= p->stop) break;
        if (k->format_text)
            cli_format_run(&k->format, &k->out, batch->topic, batch->partition, &r);
        else if (k->envelope) {
            cli_json_envelope(&k->out, batch->topic, batch->partition, batch->timestamp_type, &r);
            cli_out_put(&k->out, k->delimiter, k->delimiter_len);
        } else
            put_plain(k, &r);
        k->count++;
        if (k->unbuffered) cli_out_flush(&k->out);
    }
    if (more < 0) {
        cli_out_flush(&k->out);
        return cli_error_bw(k->c, BW_ERR_CORRUPT, "%s partition %" PRId32 ", batch at offset %" PRId64, batch->topic,
                            batch->partition, batch->base_offset);
    }
    if (p && p->stop >= 0 && batch->last_offset + 1 >= p->stop) part_done(k, p);
    if (k->out.error == EPIPE) return CLI_OK;
    if (k->out.error) return cli_error(k->c, CLI_FAILURE, "cannot write the output: %s", strerror(k->out.error));
    if (k->count_max >= 0 && k->count >= k->count_max) return CLI_OK;
    return -1;
}

/* The same for what the group gave this member; false as long as it has given nothing and others have not all of it either. */
static int group_at_end(consume *k, bool *yes)
{
    bw_topic_partition *parts;
    size_t count;
    bw_err e = bw_consumer_assignment(k->consumer, &parts, &count);
    if (e != BW_OK) return cli_error_bw(k->c, e, "%s", k->options.group_id);
    if (count == 0 && cli_now_ns() - k->joined_ns < (int64_t)GROUP_WAIT_MS * 1000000) *yes = false;
    for (size_t i = 0; i < count && *yes && e == BW_OK; i++) {
        int64_t end = 0;
        e = bw_offset_end(k->bus, parts[i].topic, parts[i].partition, k->options.read_limit, &end);
        if (e == BW_OK && parts[i].offset < end) *yes = false;
    }
    bw_free(parts);
    return e == BW_OK ? -1 : cli_error_bw(k->c, e, "%s", k->options.group_id);
}

/* Is every partition read to its end, as far as this reader may see? */
static int at_end(consume *k, bool *yes)
{
    *yes = true;
    if (k->options.group_id) return group_at_end(k, yes);
    for (size_t i = 0; i < k->part_count && *yes; i++) {
        bw_offset_range range;
        int64_t position = 0;
        if (k->parts[i].done) continue;
        bw_err e = bw_offsets_range(k->bus, k->topic, k->parts[i].partition, &range);
        int64_t end = 0;
        if (e == BW_OK) e = bw_offset_end(k->bus, k->topic, k->parts[i].partition, k->options.read_limit, &end);
        if (e == BW_OK) e = bw_consumer_position(k->consumer, k->topic, k->parts[i].partition, &position);
        if (e != BW_OK) return cli_error_bw(k->c, e, "%s partition %" PRId32, k->topic, k->parts[i].partition);
        if (position == BW_OFFSET_END) position = end;
        if (position < 0) position = range.log_start;
        if (position < end) *yes = false;
    }
    return -1;
}

/* A retriable failure is told once and tried again: the daemon may be starting anew. With -e somebody waits for the end, so that
 * it is bounded. */
static int retry(consume *k, bw_err e)
{
    int64_t now = cli_now_ns();
    if (!k->told_retry) k->retry_since_ns = now;
    bool give_up = !bw_err_is_retriable(e) || (k->exit_at_end && now - k->retry_since_ns > (int64_t)30000000000);
    if (give_up) return cli_error_bw(k->c, e, "%s", k->topic);
    if (!k->told_retry)
        cli_note(k->c, "%s: %s; trying again", k->topic, *bw_error_message() ? bw_error_message() : bw_err_text(e));
    k->told_retry = true;
    nanosleep(&(struct timespec){0, RETRY_MS * 1000000}, NULL);
    return -1;
}

static int failed_poll(consume *k, bw_err e, const bw_batch *batch)
{
    cli_out_flush(&k->out);
    switch (e) {
    case BW_ERR_NO_OFFSET:
        return cli_error(k->c, cli_exit_for(e), "%s; --reset earliest or latest says where to begin", bw_error_message());
    case BW_ERR_FENCED_MEMBER_EPOCH:
        cli_note(k->c, "%s: %s", k->options.group_id, bw_error_message());
        return -1;
    case BW_ERR_OFFSET_OUT_OF_RANGE:
        return cli_error(k->c, cli_exit_for(e), "%s; --reset earliest or latest goes on there", bw_error_message());
    case BW_ERR_CORRUPT:
    case BW_ERR_DELETED:
        return cli_error_bw(k->c, e, "%s partition %" PRId32, k->topic, batch->partition);
    default:
        return retry(k, e);
    }
}

static int loop(consume *k)
{
    int rc = -1;
    while (rc < 0) {
        bw_batch batch = {0};
        if (cli_interrupted()) return CLI_OK;
        if ((k->open_count == 0 && !k->options.group_id) || k->count_max == 0) return CLI_OK;
        bw_err e = bw_consumer_poll(k->consumer, 0, &batch);
        if (e == BW_ERR_TIMED_OUT) {
            cli_out_flush(&k->out);
            if (k->out.error)
                return k->out.error == EPIPE
                           ? CLI_OK
                           : cli_error(k->c, CLI_FAILURE, "cannot write the output: %s", strerror(k->out.error));
            bool end = false;
            if (k->exit_at_end && (rc = at_end(k, &end)) >= 0) return rc;
            if (end) {
                if (k->c->verbose) cli_note(k->c, "reached the end of %s, %" PRId64 " records", k->topic, k->count);
                return CLI_OK;
            }
            e = bw_consumer_poll(k->consumer, k->exit_at_end ? 10 : IDLE_MS, &batch);
        }
        if (e == BW_OK) {
            k->told_retry = false;
            rc = put_batch(k, &batch);
        } else if (e != BW_ERR_TIMED_OUT && e != BW_ERR_WOKEN) {
            rc = failed_poll(k, e, &batch);
        }
    }
    return rc;
}

/* Where partition i begins and, with e@, ends; assigns it. */
static bw_err assign(consume *k, part *p)
{
    int64_t from = BW_OFFSET_BEGINNING, found;
    bw_err e = BW_OK;
    bw_offset_range range;
    p->stop = -1;
    switch (k->from) {
    case FROM_BEGINNING:
        break;
    case FROM_END:
        from = BW_OFFSET_END;
        break;
    case FROM_OFFSET:
        from = k->start;
        break;
    case FROM_BEFORE_END:
        e = bw_offsets_range(k->bus, k->topic, p->partition, &range);
        int64_t end = 0;
        if (e == BW_OK) e = bw_offset_end(k->bus, k->topic, p->partition, k->options.read_limit, &end);
        if (e == BW_OK) {
            from = end - range.log_start > k->start ? end - k->start : range.log_start;
        }
        break;
    case FROM_TIME:
        e = bw_offset_for_time(k->bus, k->topic, p->partition, k->start, &from, &found);
        break;
    }
    if (e == BW_OK && k->stop_ms >= 0) e = bw_offset_for_time(k->bus, k->topic, p->partition, k->stop_ms, &p->stop, &found);
    if (e == BW_OK) e = bw_consumer_assign(k->consumer, k->topic, p->partition, from);
    int64_t position = 0;
    if (e == BW_OK && p->stop >= 0) {
        e = bw_consumer_position(k->consumer, k->topic, p->partition, &position);
        if (e == BW_OK && position < 0) {
            e = bw_offsets_range(k->bus, k->topic, p->partition, &range);
            position = k->from == FROM_END ? range.end : range.log_start;
        }
        if (e == BW_OK && position >= p->stop) part_done(k, p);
    }
    return e;
}

static int assign_all(consume *k)
{
    int32_t count = 0;
    bw_err e = bw_topic_partitions(k->bus, k->topic, &count);
    if (e != BW_OK) return cli_error_bw(k->c, e, "cannot consume %s", k->topic);
    k->part_count = k->open_count = k->wanted_count ? k->wanted_count : (size_t)count;
    k->parts = calloc(k->part_count + 1, sizeof *k->parts);
    if (!k->parts) return cli_error(k->c, CLI_FAILURE, "out of memory");
    for (size_t i = 0; i < k->part_count; i++) {
        k->parts[i].partition = k->wanted_count ? k->wanted[i] : (int32_t)i;
        e = assign(k, &k->parts[i]);
        if (e != BW_OK) return cli_error_bw(k->c, e, "cannot consume %s partition %" PRId32, k->topic, k->parts[i].partition);
    }
    return -1;
}

/* As a member of a group: where to begin is what was committed, else -o or --reset. */
static int subscribe(consume *k)
{
    bw_err e = bw_consumer_subscribe(k->consumer, k->topics, k->topic_count);
    k->joined_ns = cli_now_ns();
    return e == BW_OK ? -1 : cli_error_bw(k->c, e, "group %s", k->options.group_id);
}

static int check_group(consume *k)
{
    if (!k->options.group_id && k->topic_count > 1)
        return cli_usage(k->c, "one topic at a time: %s or %s? (with -G there may be more)", k->topics[0], k->topics[1]);
    if (!k->options.group_id) return CLI_OK;
    if (k->wanted_count) return cli_usage(k->c, "-p and -G exclude each other: the group says which partitions are read");
    if ((k->from != FROM_BEGINNING && k->from != FROM_END) || k->stop_ms >= 0)
        return cli_usage(k->c, "-o: with -G only beginning and end, for what the group has not committed; `busway group reset-offsets` sets offsets");
    if (k->options.auto_offset_reset == BW_RESET_ERROR && !k->reset_given)
        k->options.auto_offset_reset = k->from == FROM_END ? BW_RESET_LATEST : BW_RESET_EARLIEST;
    return CLI_OK;
}

static int parse_offset(consume *k, const char *text)
{
    int64_t n;
    if (strcmp(text, "beginning") == 0)
        k->from = FROM_BEGINNING;
    else if (strcmp(text, "end") == 0)
        k->from = FROM_END;
    else if ((text[0] == 's' || text[0] == 'e') && text[1] == '@' && cli_parse_int(text + 2, 0, INT64_MAX, &n)) {
        if (text[0] == 'e')
            k->stop_ms = n;
        else {
            k->from = FROM_TIME;
            k->start = n;
        }
    } else if (text[0] == '-' && cli_parse_int(text + 1, 0, INT64_MAX, &n)) {
        k->from = FROM_BEFORE_END;
        k->start = n;
    } else if (cli_parse_int(text, 0, INT64_MAX, &n)) {
        k->from = FROM_OFFSET;
        k->start = n;
    } else
        return cli_usage(k->c, "-o: %s is not one of beginning, end, N, -N, s@MS, e@MS", text);
    return CLI_OK;
}

enum { ID_READ_LIMIT = 256, ID_RESET, ID_ISOLATION, ID_INSTANCE, ID_ASSIGNOR };

static const cli_opt options[] = {
    {'o', 'o', "offset", "WHERE",
     "beginning (default), end, N, -N (the last N), s@MS (from a time), e@MS (up to it); may be repeated"},
    {'p', 'p', "partition", "N", "only this partition (default: all); may be repeated"},
    {'c', 'c', "count", "N", "exit after N records"},
    {'e', 'e', "exit", NULL, "exit when every partition is read to its end"},
    {'f', 'f', "format", "FORMAT",
     "%t topic %p partition %o offset %k key %s value %K %S lengths %T time %h headers \\n \\t \\xNN"},
    {'J', 'J', "envelope", NULL, "one JSON object a record, as kcat -J; bytes that are no UTF-8 also in …_base64"},
    {'D', 'D', "delimiter", "DELIM", "what is written behind each record (default \\n)"},
    {'K', 'K', "key-delimiter", "DELIM", "write the key and DELIM before the value"},
    {'O', 'O', "with-offset", NULL, "write the offset first"},
    {'Z', 'Z', "nulls", NULL, "write a null key or value as NULL"},
    {'u', 'u', "unbuffered", NULL, "write each record at once (else: whenever there is nothing more to read)"},
    {ID_READ_LIMIT, 0, "read-limit", "WHAT", "visible (default), durable: only what survives power loss, or replicated: only what peers have"},
    {ID_RESET, 0, "reset", "WHERE", "earliest or latest, when the position is outside the log (default: an error)"},
    {'G', 'G', "group", "GROUP", "as a member of a group: it divides the partitions and keeps the offsets; several topics, ^ begins a pattern"},
    {ID_INSTANCE, 0, "instance", "ID", "with -G: a static member, which keeps its partitions over a restart"},
    {ID_ASSIGNOR, 0, "assignor", "NAME", "with -G: range, roundrobin, sticky or cooperative-sticky (default)"},
    {ID_ISOLATION, 0, "isolation", "WHAT", "uncommitted (default) or committed: nothing of open or aborted transactions"},
    {0, 0, NULL, NULL, NULL},
};

static int option(consume *k, int id, const char *value, const char **delimiter, const char **key_delimiter)
{
    int64_t n;
    switch (id) {
    case 'o':
        return parse_offset(k, value);
    case 'p':
        if (!cli_parse_int(value, 0, INT32_MAX, &n)) return cli_usage(k->c, "-p: %s is not a partition's number", value);
        for (size_t i = 0; i < k->wanted_count; i++)
            if (k->wanted[i] == n) return CLI_OK;
        if (k->wanted_count == PARTITIONS_MAX) return cli_usage(k->c, "more than %d partitions", PARTITIONS_MAX);
        k->wanted[k->wanted_count++] = (int32_t)n;
        break;
    case 'c':
        if (!cli_parse_int(value, 0, INT64_MAX, &k->count_max)) return cli_usage(k->c, "-c: %s is not a number", value);
        break;
    case 'e':
        k->exit_at_end = true;
        break;
    case 'f':
        k->format_text = value;
        break;
    case 'J':
        k->envelope = true;
        break;
    case 'D':
        *delimiter = value;
        break;
    case 'K':
        *key_delimiter = value;
        break;
    case 'O':
        k->with_offset = true;
        break;
    case 'Z':
        k->nulls = true;
        break;
    case 'u':
        k->unbuffered = true;
        break;
    case ID_READ_LIMIT:
        if (strcmp(value, "durable") == 0)
            k->options.read_limit = BW_READ_DURABLE;
        else if (strcmp(value, "replicated") == 0)
            k->options.read_limit = BW_READ_REPLICATED;
        else if (strcmp(value, "visible") != 0)
            return cli_usage(k->c, "--read-limit: %s is not one of visible, durable, replicated", value);
        break;
    case 'G':
        k->options.group_id = value;
        break;
    case ID_INSTANCE:
        k->options.group_instance_id = value;
        break;
    case ID_ASSIGNOR:
        k->options.assignor = value;
        break;
    case ID_ISOLATION:
        if (strcmp(value, "committed") == 0)
            k->options.isolation = BW_READ_COMMITTED;
        else if (strcmp(value, "uncommitted") != 0)
            return cli_usage(k->c, "--isolation: %s is not one of uncommitted, committed", value);
        break;
    default:
        k->reset_given = true;
        if (strcmp(value, "earliest") == 0)
            k->options.auto_offset_reset = BW_RESET_EARLIEST;
        else if (strcmp(value, "latest") == 0)
            k->options.auto_offset_reset = BW_RESET_LATEST;
        else if (strcmp(value, "error") != 0)
            return cli_usage(k->c, "--reset: %s is not one of error, earliest, latest", value);
        break;
    }
    return CLI_OK;
}

static int parse(consume *k, int argc, char **argv)
{
    cli_args a;
    int rc;
    const char *delimiter = "\n", *key_delimiter = NULL, *error = NULL;
    size_t error_at = 0;
    cli_args_init(&a, k->c, &cli_consume, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        if (id == CLI_ARGS_STOP) return a.exit_code;
        if (id != CLI_ARGS_OPERAND) {
            if ((rc = option(k, id, a.value, &delimiter, &key_delimiter)) != CLI_OK) return rc;
        } else if (k->topic_count == TOPICS_MAX) {
            return cli_usage(k->c, "more than %d topics", TOPICS_MAX);
        } else {
            k->topics[k->topic_count++] = a.value;
        }
    }
    if (!k->topic_count) return cli_usage(k->c, "which topic? busway consume TOPIC");
    k->topic = k->topics[0];
    if ((rc = check_group(k)) != CLI_OK) return rc;
    if (k->c->json) k->envelope = true;
    if (k->format_text && k->envelope) return cli_usage(k->c, "-f and -J exclude each other");
    k->delimiter = strdup(delimiter);
    k->key_delimiter = key_delimiter ? strdup(key_delimiter) : NULL;
    if (!k->delimiter || (key_delimiter && !k->key_delimiter)) return cli_error(k->c, CLI_FAILURE, "out of memory");
    k->delimiter_len = cli_unescape(k->delimiter);
    if (k->key_delimiter) k->key_delimiter_len = cli_unescape(k->key_delimiter);
    if (k->format_text && !cli_format_compile(&k->format, k->format_text, &error, &error_at))
        return error ? cli_usage(k->c, "-f: character %zu: %s", error_at + 1, error)
                     : cli_error(k->c, CLI_FAILURE, "out of memory");
    if (k->nulls) k->format.null_text = "NULL";
    return -1;
}

static int run(cli *c, int argc, char **argv)
{
    consume *k = calloc(1, sizeof *k);
    if (!k) return cli_error(c, CLI_FAILURE, "out of memory");
    *k = (consume){.c = c, .options = BW_CONSUMER_OPTIONS_INIT, .count_max = -1, .stop_ms = -1};
    int rc = parse(k, argc, argv);
    if (rc < 0)
        rc = cli_out_init(&k->out, STDOUT_FILENO, (size_t)256 << 10) ? cli_connect(c, &k->bus)
                                                                     : cli_error(c, CLI_FAILURE, "out of memory");
    if (k->bus) {
        bw_err e = bw_consumer_open(k->bus, &k->options, &k->consumer);
        rc = e == BW_OK ? k->options.group_id ? subscribe(k) : assign_all(k) : cli_error_bw(c, e, "cannot consume %s", k->topic);
    }
    if (rc < 0) {
        cli_interrupt_wake(k->consumer);
        rc = loop(k);
        cli_interrupt_wake(NULL);
        cli_out_flush(&k->out);
        if (rc == CLI_OK && k->out.error && k->out.error != EPIPE)
            rc = cli_error(c, CLI_FAILURE, "cannot write the output: %s", strerror(k->out.error));
    }
    bw_consumer_close(k->consumer);
    bw_bus_close(k->bus);
    cli_out_fini(&k->out);
    cli_format_fini(&k->format);
    free(k->parts);
    free(k->delimiter);
    free(k->key_delimiter);
    free(k);
    return rc;
}

const cli_command cli_consume = {
    "consume",
    "TOPIC…",
    "Read records, from the beginning unless told otherwise, and wait for more.",
    "Without -f and -J each value is written with a newline behind it. Ctrl-C ends it, with exit code 0.",
    options,
    true,
    "  busway -b dir:./bus consume greetings -e\n"
    "  busway consume orders -o end -f '%T %p/%o %k: %s\\n'\n"
    "  busway consume orders -J -o -100 -e | jq .payload\n"
    "  busway consume log -o s@1700000000000 -o e@1700003600000\n"
    "  busway consume -G billing orders '^invoices-.*'\n",
    run,
};
