/* cli/cli.h: what every command of `busway` shares: the context, exit codes, error lines, the connection.
 *
 * Invariants: only <busway/…> is used of Busway; results go to stdout, everything else to stderr; each error line reads
 * "busway: COMMAND: what, where, what to do"; the exit code says what kind of failure it was (EXIT_CODES in opt.c documents
 * them). */
#ifndef BW_CLI_CLI_H
#define BW_CLI_CLI_H

#include <busway/busway.h>

#include <stddef.h>

typedef enum cli_exit {
    CLI_OK = 0,
    CLI_FAILURE = 1,
    CLI_USAGE = 2,       /* options, topic names, configuration values */
    CLI_NOT_FOUND = 3,   /* topic, partition, file */
    CLI_CORRUPT = 4,     /* bytes that fail their check */
    CLI_UNREACHABLE = 5, /* timed out, nobody answers */
    CLI_DENIED = 6,      /* permission */
    CLI_INTERRUPTED = 130,
} cli_exit;

typedef struct cli {
    const char *command; /* "produce", "topic create": for error lines */
    const char *url;     /* NULL: the library's default */
    bw_transport transport;
    bool json;
    bool quiet;
    bool verbose;
    int32_t timeout_ms; /* 0: the library's defaults */
} cli;

/* cli_error: one error line on stderr; returns code, so that callers can `return cli_error(…)`. */
int cli_error(const cli *c, int code, const char *format, ...) BW_PRINTF(3, 4);
/* cli_error_bw: the same for a failed library call: the text, then the thread's message. Returns cli_exit_for(err). */
int cli_error_bw(const cli *c, bw_err err, const char *format, ...) BW_PRINTF(3, 4);
/* cli_note: a line on stderr unless -q. */
void cli_note(const cli *c, const char *format, ...) BW_PRINTF(2, 3);
/* cli_usage: as cli_error with CLI_USAGE, and where the help is. */
int cli_usage(const cli *c, const char *format, ...) BW_PRINTF(2, 3);
int cli_exit_for(bw_err err);

/* cli_connect: open the bus that -b and --transport name; prints on failure. Returns CLI_OK or the exit code. */
int cli_connect(cli *c, bw_bus **out);

/* cli_parse_int: a whole decimal number between min and max; false (nothing printed) otherwise. */
bool cli_parse_int(const char *text, int64_t min, int64_t max, int64_t *out);
/* cli_parse_size: the same with an optional K, M or G (1024) behind it. */
bool cli_parse_size(const char *text, int64_t min, int64_t max, int64_t *out);
/* cli_parse_codec: none|gzip|snappy|lz4|zstd. */
bool cli_parse_codec(const char *text, bw_codec *out);
bool cli_parse_acks(const char *text, bw_acks *out);
const char *cli_codec_name(bw_codec codec);

int64_t cli_now_ns(void); /* monotonic */

#endif
