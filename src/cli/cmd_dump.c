/* cli/cmd_dump.c: the batches, and with --records the records, of one segment file. */
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct dump {
    cli *c;
    cli_out out;
    int64_t batches, records, bad;
} dump;

static void batch_json(cli_out *o, const bw_dump_batch *b)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"type\":\"batch\",\"position\":%" PRIu64 ",\"size\":%" PRIu32 ",\"base_offset\":%" PRId64
             ",\"last_offset\":%" PRId64 ",\"count\":%" PRId32 ",\"leader_epoch\":%" PRId32
             ",\"codec\":\"%s\",\"timestamp_type\":\"%s\",\"base_timestamp\":%" PRId64 ",\"max_timestamp\":%" PRId64
             ",\"producer_id\":%" PRId64 ",\"producer_epoch\":%d,\"base_sequence\":%" PRId32
             ",\"transactional\":%s,\"control\":%s,\"marker\":%s,\"crc\":\"%08" PRIx32 "\",\"crc_ok\":%s}\n",
             b->position, b->size, b->base_offset, b->last_offset, b->count, b->leader_epoch, cli_codec_name(b->codec),
             b->timestamp_type == BW_TIMESTAMP_LOG_APPEND ? "logappend" : "create", b->base_timestamp_ms, b->max_timestamp_ms,
             b->producer_id, b->producer_epoch, b->base_sequence, b->is_transactional ? "true" : "false",
             b->is_control ? "true" : "false",
             b->marker == BW_DUMP_COMMIT ? "\"commit\"" : b->marker == BW_DUMP_ABORT ? "\"abort\"" : "null", b->crc, b->crc_ok ? "true" : "false");
    cli_out_text(o, text);
}

static void batch_text(cli_out *o, const bw_dump_batch *b)
{
    char text[1024];
    snprintf(text, sizeof text,
             "batch at %" PRIu64 ": offsets %" PRId64 "-%" PRId64 ", %" PRId32 " record%s, %" PRIu32
             " bytes, %s, %s time %" PRId64 "-%" PRId64 ", epoch %" PRId32,
             b->position, b->base_offset, b->last_offset, b->count, b->count == 1 ? "" : "s", b->size, cli_codec_name(b->codec),
             b->timestamp_type == BW_TIMESTAMP_LOG_APPEND ? "append" : "create", b->base_timestamp_ms, b->max_timestamp_ms,
             b->leader_epoch);
    cli_out_text(o, text);
    if (b->producer_id >= 0) {
        snprintf(text, sizeof text, ", producer %" PRId64 "/%d sequence %" PRId32, b->producer_id, b->producer_epoch,
                 b->base_sequence);
        cli_out_text(o, text);
    }
    if (b->is_transactional) cli_out_text(o, ", transactional");
    if (b->is_control) cli_out_text(o, ", control");
    if (b->marker) cli_out_text(o, b->marker == BW_DUMP_COMMIT ? " (commit)" : " (abort)");
    snprintf(text, sizeof text, ", crc %08" PRIx32 " %s\n", b->crc, b->crc_ok ? "ok" : "WRONG");
    cli_out_text(o, text);
}

static void record_text(cli_out *o, const bw_record_view *r)
{
    bw_header_iter it;
    bw_header h;
    char text[64];
    snprintf(text, sizeof text, "  %" PRId64 " @%" PRId64 " ", r->offset, r->timestamp_ms);
    cli_out_text(o, text);
    bw_header_iter_init(&it, r);
    while (bw_header_iter_next(&it, &h) == 1) {
        cli_json_string(o, h.name, h.name_len);
        cli_out_char(o, '=');
        if (h.value)
            cli_json_string(o, h.value, h.value_len);
        else
            cli_out_text(o, "null");
        cli_out_char(o, ' ');
    }
    if (r->key)
        cli_json_string(o, r->key, r->key_len);
    else
        cli_out_text(o, "null");
    cli_out_text(o, ": ");
    if (r->value)
        cli_json_string(o, r->value, r->value_len);
    else
        cli_out_text(o, "null");
    cli_out_char(o, '\n');
}

static bool on_item(void *opaque, const bw_dump_batch *b, const bw_record_view *r)
{
    dump *d = opaque;
    if (r) {
        d->records++;
        if (d->c->json) {
            cli_out_text(&d->out, "{\"type\":\"record\",\"offset\":");
            cli_out_int(&d->out, r->offset);
            cli_out_text(&d->out, ",\"ts\":");
            cli_out_int(&d->out, r->timestamp_ms);
            cli_json_fields(&d->out, r);
            cli_out_put(&d->out, "}\n", 2);
        } else {
            record_text(&d->out, r);
        }
    } else {
        d->batches++;
        if (!b->crc_ok) d->bad++;
        if (d->c->json)
            batch_json(&d->out, b);
        else
            batch_text(&d->out, b);
    }
    return !d->out.error && !cli_interrupted();
}

static const cli_opt options[] = {
    {'r', 'r', "records", NULL, "the records of each batch too (strings as JSON; exact bytes: --json)"},
    {0, 0, NULL, NULL, NULL},
};

static int run(cli *c, int argc, char **argv)
{
    dump d = {.c = c};
    const char *path = NULL;
    bool records = false;
    cli_args a;
    cli_args_init(&a, c, &cli_dump, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        if (id == CLI_ARGS_STOP) return a.exit_code;
        if (id == 'r')
            records = true;
        else if (path)
            return cli_usage(c, "one file at a time: %s or %s?", path, a.value);
        else
            path = a.value;
    }
    if (!path) return cli_usage(c, "which file? busway dump FILE.log");
    if (!cli_out_init(&d.out, STDOUT_FILENO, 65536)) return cli_error(c, CLI_FAILURE, "out of memory");
    bw_err e = bw_dump(path, records, on_item, &d);
    char message[2048]; /* writing must not cost us the library's message */
    snprintf(message, sizeof message, "%s", e == BW_OK ? "" : *bw_error_message() ? bw_error_message() : bw_err_text(e));
    cli_out_flush(&d.out);
    int rc = CLI_OK;
    if (d.out.error && d.out.error != EPIPE)
        rc = cli_error(c, CLI_FAILURE, "cannot write the output: %s", strerror(d.out.error));
    else if (e != BW_OK)
        rc = cli_error(c, cli_exit_for(e), "%s: %s", path, message);
    else if (d.bad)
        rc = cli_error(c, CLI_CORRUPT, "%s: %" PRId64 " of %" PRId64 " batches have a wrong checksum", path, d.bad, d.batches);
    else if (cli_interrupted())
        rc = CLI_INTERRUPTED;
    cli_out_fini(&d.out);
    return rc;
}

const cli_command cli_dump = {
    "dump",
    "FILE",
    "Show the batches and records of a segment file.",
    "Needs no daemon and changes nothing. FILE is a segment, …/TOPIC-PARTITION/00000000000000000000.log.",
    options,
    false,
    "  busway dump ./bus/greetings-0/00000000000000000000.log --records\n"
    "  busway dump --json -r FILE | jq 'select(.type == \"record\").payload'\n",
    run,
};
