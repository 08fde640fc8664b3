/* cli/cmd_produce.c: records from standard input or a file, one a line.
 *
 * Invariants: at most buffer.memory of records is unacknowledged; a report line is written in the delivery callback, so never
 * before the acknowledgement. Whatever stops the reading (end of input, an oversize line, a signal, a failed delivery), what was
 * accepted before is flushed and its outcomes are waited for; the error says which line stopped it. */
#include "cli/commands.h"
#include "cli/format.h"
#include "cli/input.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/table.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADERS_MAX   64
#define SLOTS_AT_ONCE 1024
#define POLL_EACH     256   /* records between two looks at the outcomes */
#define LAST_WAIT_MS  10000 /* after a signal: how long outcomes are waited for */

typedef struct produce produce;

/* One record on its way: which line it was. Slots are recycled: freed in the callback, which runs in this thread. */
typedef struct slot {
    produce *p;
    uint64_t line;
    struct slot *next;
} slot;

typedef struct slot_block {
    struct slot_block *next;
    slot slots[SLOTS_AT_ONCE];
} slot_block;

struct produce {
    cli *c;
    bw_producer *producer;
    bw_producer_options options;
    const char *topic, *file;
    const char **files;
    size_t file_count;
    int32_t partition;
    const char *delimiter_text, *key_delimiter_text; /* as typed */
    char *delimiter, *key_delimiter;                 /* unescaped; ours */
    size_t delimiter_len, key_delimiter_len;
    const char *key;
    bw_header headers[HEADERS_MAX];
    size_t header_count;
    bool report, empty_is_null;
    int64_t count_max;
    slot *free_slots;
    slot_block *blocks;
    cli_out out;
    uint64_t line, acknowledged, outstanding;
    int64_t begun_ns, shown_ns;
    uint64_t bytes_read, bytes_total; /* for the progress line */
    int exit_code;
    bool failed;
};

static bool slots_more(produce *p)
{
    slot_block *b = malloc(sizeof *b);
    if (!b) return false;
    b->next = p->blocks;
    p->blocks = b;
    for (size_t i = 0; i < SLOTS_AT_ONCE; i++) {
        b->slots[i] = (slot){.p = p, .next = p->free_slots};
        p->free_slots = &b->slots[i];
    }
    return true;
}

static void on_delivery(void *opaque, const bw_delivery *d)
{
    slot *s = opaque;
    produce *p = s->p;
    s->next = p->free_slots;
    p->free_slots = s;
    p->outstanding--;
    if (d->error != BW_OK) {
        if (!p->failed)
            p->exit_code = cli_error(p->c, cli_exit_for(d->error), "%s line %" PRIu64 " was not delivered: %s", p->topic, s->line,
                                     d->message ? d->message : bw_err_text(d->error));
        p->failed = true;
        return;
    }
    p->acknowledged++;
    if (!p->report) return;
    cli_out_text(&p->out, "{\"topic\":");
    cli_json_string(&p->out, d->topic, strlen(d->topic));
    cli_out_text(&p->out, ",\"partition\":");
    cli_out_int(&p->out, d->partition);
    cli_out_text(&p->out, ",\"offset\":");
    cli_out_int(&p->out, d->offset);
    cli_out_put(&p->out, "}\n", 2);
}

/* Outcomes, waited for at most wait_ms; report lines leave before we wait. */
static void outcomes(produce *p, int32_t wait_ms)
{
    if (bw_producer_poll(p->producer, 0) == 0 && wait_ms > 0) {
        cli_out_flush(&p->out);
        bw_producer_poll(p->producer, wait_ms);
    }
    if (p->out.error && !p->failed) {
        p->exit_code = cli_error(p->c, CLI_FAILURE, "cannot write the report: %s; stopping after line %" PRIu64,
                                 strerror(p->out.error), p->line);
        p->failed = true;
    }
}

/* Send one record; false: stop reading (the reason was printed). */
static bool send_one(produce *p, const bw_record *record)
{
    if (!p->free_slots && !slots_more(p)) {
        p->exit_code = cli_error(p->c, CLI_FAILURE, "out of memory at line %" PRIu64, p->line);
        return !(p->failed = true);
    }
    slot *s = p->free_slots;
    p->free_slots = s->next;
    s->line = p->line;
    p->outstanding++;
    for (;;) {
        bw_err e = bw_producer_send(p->producer, p->topic, p->partition, record, on_delivery, s, 0);
        if (e == BW_OK) return true;
        if (e == BW_ERR_QUEUE_FULL && !cli_interrupted()) {
            outcomes(p, 100);
            if (!p->failed) continue;
        }
        s->next = p->free_slots;
        p->free_slots = s;
        p->outstanding--;
        if (!p->failed && !cli_interrupted())
            p->exit_code = cli_error_bw(p->c, e, "stopped at line %" PRIu64 " (%zu bytes), nothing behind it was sent", p->line,
                                        record->key_len + record->value_len);
        p->failed = true;
        return false;
    }
}

static bool send_piece(produce *p, const char *piece, size_t len)
{
    bw_record r = {.key = p->key,
                   .key_len = p->key ? strlen(p->key) : 0,
                   .value = piece,
                   .value_len = len,
                   .headers = p->headers,
                   .header_count = p->header_count,
                   .timestamp_ms = BW_NO_TIMESTAMP};
    if (p->key_delimiter) {
        const char *hit = p->key_delimiter_len == 1 ? memchr(piece, p->key_delimiter[0], len)
                                                    : memmem(piece, len, p->key_delimiter, p->key_delimiter_len);
        if (hit) {
            r.key = piece;
            r.key_len = (size_t)(hit - piece);
            r.value = hit + p->key_delimiter_len;
            r.value_len = len - r.key_len - p->key_delimiter_len;
        }
    }
    if (p->empty_is_null) {
        if (r.value_len == 0) r.value = NULL;
        if (r.key_len == 0) r.key = NULL;
    }
    return send_one(p, &r);
}

static void progress(produce *p, bool last)
{
    int64_t now = cli_now_ns();
    if (p->bytes_total == 0 || (!last && now - p->shown_ns < 250000000) || (last && p->shown_ns == p->begun_ns)) return;
    char count[24], rate[24];
    p->shown_ns = now;
    fprintf(stderr, "\r%3.0f%%  %s records  %s/s   %s", 100.0 * (double)p->bytes_read / (double)p->bytes_total,
            cli_human_count(count, (double)p->line),
            cli_human_count(rate, (double)p->line * 1e9 / (double)(now - p->begun_ns + 1)), last ? "\n" : "");
}

static void read_pieces(produce *p, int fd, const char *name)
{
    cli_input in;
    const char *piece = NULL;
    size_t len = 0;
    if (!cli_input_init(&in, fd, p->delimiter, p->delimiter_len)) {
        p->exit_code = cli_error(p->c, CLI_FAILURE, "out of memory");
        return;
    }
    while (!p->failed && !cli_interrupted() && (p->count_max < 0 || (int64_t)p->line < p->count_max)) {
        cli_input_result got = cli_input_next(&in, p->outstanding ? 0 : 1000, &piece, &len);
        if (got == CLI_INPUT_PIECE) {
            p->line++;
            p->bytes_read += len + p->delimiter_len;
            if (!send_piece(p, piece, len)) break;
            if (p->line % POLL_EACH == 0) {
                outcomes(p, 0);
                progress(p, false);
            }
        } else if (got == CLI_INPUT_WAIT) {
            outcomes(p, p->outstanding ? 2 : 0);
            cli_out_flush(&p->out);
        } else if (got == CLI_INPUT_END) {
            break;
        } else if (errno != EINTR) {
            p->exit_code =
                errno == EFBIG
                    ? cli_error(p->c, CLI_FAILURE, "%s line %" PRIu64 " is over %zu MiB: is the delimiter right (-D, --null)?",
                                name, p->line + 1, CLI_PIECE_MAX >> 20)
                    : cli_error(p->c, CLI_FAILURE, "cannot read %s after line %" PRIu64 ": %s", name, p->line, strerror(errno));
            p->failed = true;
        }
    }
    cli_input_fini(&in);
}

/* A whole file as one record. */
static bool send_file(produce *p, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *data = NULL;
    size_t len = 0, room = 0;
    if (fd < 0 || fstat(fd, &st) != 0) goto fail;
    for (ssize_t n = 1; n > 0;) {
        if (len > CLI_PIECE_MAX) {
            errno = EFBIG;
            goto fail;
        }
        if (room - len < 65536) {
            room = room ? room * 2 : (st.st_size > 0 && st.st_size < (off_t)CLI_PIECE_MAX ? (size_t)st.st_size : 0) + 131072;
            char *grown = realloc(data, room);
            if (!grown) goto fail;
            data = grown;
        }
        n = read(fd, data + len, room - len);
        if (n < 0) goto fail;
        len += (size_t)n;
    }
    close(fd);
    p->line++;
    bool ok = send_piece(p, data, len);
    free(data);
    return ok;
fail:
    p->exit_code = cli_error(p->c,
                             errno == ENOENT   ? CLI_NOT_FOUND
                             : errno == EACCES ? CLI_DENIED
                                               : CLI_FAILURE,
                             "cannot read %s: %s", path, strerror(errno));
    p->failed = true;
    if (fd >= 0) close(fd);
    free(data);
    return false;
}

/* Wait for every outcome; a signal bounds it. */
static void finish(produce *p)
{
    int64_t limit = 0;
    for (;;) {
        bw_err e = bw_producer_flush(p->producer, 200);
        cli_out_flush(&p->out);
        progress(p, false);
        if (e != BW_ERR_TIMED_OUT) break;
        if (cli_interrupted() && limit == 0) limit = cli_now_ns() + (int64_t)LAST_WAIT_MS * 1000000;
        if (limit && cli_now_ns() > limit) break;
    }
    bw_err e = bw_producer_close(p->producer, 1000);
    cli_out_flush(&p->out);
    progress(p, true);
    if (p->outstanding && !p->failed)
        p->exit_code =
            cli_error(p->c, CLI_UNREACHABLE, "%" PRIu64 " records have no acknowledgement: %s", p->outstanding, bw_err_text(e));
    else if (cli_interrupted() && p->exit_code == CLI_OK)
        p->exit_code = CLI_INTERRUPTED;
    if (p->c->verbose || p->exit_code != CLI_OK)
        cli_note(p->c, "%" PRIu64 " record%s acknowledged in %.3f s", p->acknowledged, p->acknowledged == 1 ? "" : "s",
                 (double)(cli_now_ns() - p->begun_ns) / 1e9);
}

enum { ID_LINGER = 256, ID_ACKS, ID_REPORT, ID_BATCH, ID_MEMORY, ID_DELIVERY };

static const cli_opt options[] = {
    {'K', 'K', "key-delimiter", "DELIM", "what stands before DELIM in a line is the key (escapes: \\t \\n \\xNN)"},
    {'k', 'k', "key", "KEY", "one key for all records (a key found by -K comes first)"},
    {'D', 'D', "delimiter", "DELIM", "what separates records (default \\n)"},
    {'0', '0', "null", NULL, "records are separated by NUL bytes, as find -print0 writes them"},
    {'H', 'H', "header", "NAME=VALUE", "a header for every record; NAME alone: a null header; may be repeated"},
    {'p', 'p', "partition", "N", "to this partition (default -1: by the key's murmur2 hash, as Kafka does it)"},
    {'z', 'z', "compression", "CODEC", "none, gzip, snappy, lz4 or zstd"},
    {'l', 'l', "lines", "FILE", "read the lines of FILE instead of standard input"},
    {'c', 'c', "count", "N", "stop after N records"},
    {'Z', 'Z', "empty-as-null", NULL, "an empty value (or key) becomes null"},
    {ID_ACKS, 0, "acks", "WHAT", "none, visible (default: survives any process's death), durable (on the disk) or replicated (on linked peers)"},
    {ID_REPORT, 0, "report", NULL, "a JSON line on stdout for each acknowledged record, never before it is"},
    {ID_LINGER, 0, "linger-ms", "MS", "wait so long for a batch to fill (default 0)"},
    {ID_BATCH, 0, "batch-bytes", "BYTES", "size of a batch (default 64K)"},
    {ID_MEMORY, 0, "buffer-memory", "BYTES", "records not yet acknowledged, at most (default 32M)"},
    {ID_DELIVERY, 0, "delivery-timeout-ms", "MS", "give a record up after so long (default 120000)"},
    {0, 0, NULL, NULL, NULL},
};

static int option(produce *p, int id, const char *value)
{
    cli *c = p->c;
    int64_t n;
    switch (id) {
    case 'K':
        p->key_delimiter_text = value;
        break;
    case 'D':
        p->delimiter_text = value;
        break;
    case '0':
        p->delimiter_text = "\\0";
        break;
    case 'k':
        p->key = value;
        break;
    case 'l':
        p->file = value;
        break;
    case 'Z':
        p->empty_is_null = true;
        break;
    case ID_REPORT:
        p->report = true;
        break;
    case 'H': {
        const char *equals = strchr(value, '=');
        if (equals == value || !*value) return cli_usage(c, "-H: %s has no name; write NAME=VALUE", value);
        if (p->header_count == HEADERS_MAX) return cli_usage(c, "more than %d headers", HEADERS_MAX);
        size_t len = equals ? (size_t)(equals - value) : strlen(value);
        p->headers[p->header_count++] = (bw_header){value, len, equals ? equals + 1 : NULL, equals ? strlen(equals + 1) : 0};
        break;
    }
    case 'p':
        if (!cli_parse_int(value, -1, INT32_MAX, &n))
            return cli_usage(c, "-p: %s is not a partition's number (or -1: any)", value);
        p->partition = (int32_t)n;
        break;
    case 'z':
        if (!cli_parse_codec(value, &p->options.compression))
            return cli_usage(c, "-z: %s is not one of none, gzip, snappy, lz4, zstd", value);
        break;
    case 'c':
        if (!cli_parse_int(value, 0, INT64_MAX, &p->count_max)) return cli_usage(c, "-c: %s is not a number", value);
        break;
    case ID_ACKS:
        if (!cli_parse_acks(value, &p->options.acks))
            return cli_usage(c, "--acks: %s is not one of none, visible, durable, replicated", value);
        break;
    case ID_LINGER:
        if (!cli_parse_int(value, 0, 60000, &n)) return cli_usage(c, "--linger-ms: %s is not a number from 0 to 60000", value);
        p->options.linger_ms = (uint32_t)n;
        break;
    case ID_BATCH:
        if (!cli_parse_size(value, 1, INT32_MAX, &n))
            return cli_usage(c, "--batch-bytes: %s is not a size (like 16384 or 64K)", value);
        p->options.batch_size = (uint32_t)n;
        break;
    case ID_MEMORY:
        if (!cli_parse_size(value, 65536, INT64_MAX, &n))
            return cli_usage(c, "--buffer-memory: %s is not a size from 64K", value);
        p->options.buffer_memory = (uint64_t)n;
        break;
    default:
        if (!cli_parse_int(value, 1, INT32_MAX, &n))
            return cli_usage(c, "--delivery-timeout-ms: %s is not a number from 1", value);
        p->options.delivery_timeout_ms = (int32_t)n;
        break;
    }
    return CLI_OK;
}

/* -1: go on. Delimiters are copied, because unescaping writes. */
static int parse(produce *p, int argc, char **argv)
{
    cli_args a;
    int rc;
    cli_args_init(&a, p->c, &cli_produce, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        if (id == CLI_ARGS_STOP) return a.exit_code;
        if (id == CLI_ARGS_OPERAND) {
            if (!p->topic)
                p->topic = a.value;
            else
                p->files[p->file_count++] = a.value;
        } else if ((rc = option(p, id, a.value)) != CLI_OK) {
            return rc;
        }
    }
    if (!p->topic) return cli_usage(p->c, "which topic? busway produce TOPIC");
    if (p->file && p->file_count) return cli_usage(p->c, "-l and whole files (%s) exclude each other", p->files[0]);
    if (p->report && p->options.acks == BW_ACKS_NONE)
        return cli_usage(p->c, "--report needs acknowledgements; --acks none has none");
    p->delimiter = strdup(p->delimiter_text);
    p->key_delimiter = p->key_delimiter_text ? strdup(p->key_delimiter_text) : NULL;
    p->delimiter_len = p->delimiter ? cli_unescape(p->delimiter) : 0;
    p->key_delimiter_len = p->key_delimiter ? cli_unescape(p->key_delimiter) : 0;
    if (p->delimiter_len == 0) return cli_usage(p->c, "-D: the delimiter is empty");
    if (p->key_delimiter && p->key_delimiter_len == 0) return cli_usage(p->c, "-K: the delimiter is empty");
    return -1;
}

static int run_with_bus(produce *p, bw_bus *bus)
{
    int fd = STDIN_FILENO;
    struct stat st;
    if (p->file && strcmp(p->file, "-") != 0) {
        fd = open(p->file, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return cli_error(p->c,
                             errno == ENOENT   ? CLI_NOT_FOUND
                             : errno == EACCES ? CLI_DENIED
                                               : CLI_FAILURE,
                             "cannot read %s: %s", p->file, strerror(errno));
    }
    if (isatty(STDERR_FILENO) && !p->c->quiet && !p->report && p->file_count == 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        p->bytes_total = (uint64_t)st.st_size;
    bw_err e = bw_producer_open(bus, &p->options, &p->producer);
    if (e != BW_OK) {
        p->exit_code = cli_error_bw(p->c, e, "cannot produce to %s", p->topic);
    } else {
        p->begun_ns = p->shown_ns = cli_now_ns();
        for (size_t i = 0; i < p->file_count && !p->failed && !cli_interrupted(); i++)
            if (!send_file(p, p->files[i])) break;
        if (p->file_count == 0) read_pieces(p, fd, p->file ? p->file : "standard input");
        finish(p);
    }
    if (fd != STDIN_FILENO) close(fd);
    return p->exit_code;
}

static int run(cli *c, int argc, char **argv)
{
    produce p = {
        .c = c, .options = BW_PRODUCER_OPTIONS_INIT, .partition = BW_PARTITION_ANY, .delimiter_text = "\n", .count_max = -1};
    p.options.batch_size = 65536;
    p.files = calloc((size_t)argc + 1, sizeof *p.files);
    if (!p.files) return cli_error(c, CLI_FAILURE, "out of memory");
    int rc = parse(&p, argc, argv);
    bw_bus *bus = NULL;
    if (rc < 0)
        rc = cli_out_init(&p.out, STDOUT_FILENO, 65536) ? cli_connect(c, &bus) : cli_error(c, CLI_FAILURE, "out of memory");
    if (bus) rc = run_with_bus(&p, bus);
    bw_bus_close(bus);
    cli_out_fini(&p.out);
    for (slot_block *b = p.blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(p.files);
    free(p.delimiter);
    free(p.key_delimiter);
    return rc;
}

const cli_command cli_produce = {
    "produce",
    "TOPIC [FILE…]",
    "Write records: each line of standard input is one, or each FILE as a whole.",
    "An empty line is an empty record. A line over the topic's max.message.bytes stops the command with an error that names the\n"
    "line; everything before it was sent and acknowledged, nothing behind it was.",
    options,
    true,
    "  echo hello | busway -b dir:./bus produce greetings\n"
    "  busway produce orders -K : -z lz4 -l orders.txt        # lines like  customer42:{\"item\":1}\n"
    "  tail -F app.log | busway produce log -H host=$(hostname) --acks durable --report\n"
    "  find . -print0 | busway produce files --null\n",
    run,
};
