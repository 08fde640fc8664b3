/* cli/input.h: a descriptor as a sequence of pieces between delimiters: large reads, no copy of a piece.
 *
 * A piece points into the buffer and is valid until the next call. The last piece needs no delimiter behind it; an empty rest is
 * no piece. A piece longer than CLI_PIECE_MAX is an error. */
#ifndef BW_CLI_INPUT_H
#define BW_CLI_INPUT_H

#include <busway/version.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLI_PIECE_MAX ((size_t)256 << 20)

typedef enum cli_input_result {
    CLI_INPUT_PIECE,
    CLI_INPUT_WAIT, /* nothing whole is buffered, and the descriptor gives nothing now */
    CLI_INPUT_END,
    CLI_INPUT_ERROR, /* errno; EFBIG: a piece over CLI_PIECE_MAX; ENOMEM; EINTR: a signal came */
} cli_input_result;

typedef struct cli_input {
    int fd;
    bool ended, waits; /* waits: the descriptor can make us wait (pipe, terminal) */
    const char *delimiter;
    size_t delimiter_len;
    char *data;
    size_t at, len, room; /* data[at, len) is not handed out yet */
    size_t searched;      /* from at: known to hold no delimiter */
} cli_input;

bool cli_input_init(cli_input *in, int fd, const char *delimiter, size_t delimiter_len);
void cli_input_fini(cli_input *in);
/* cli_input_next: *piece and *len on PIECE. wait_ms: how long a descriptor may be waited for (0: not; -1: for ever). */
cli_input_result cli_input_next(cli_input *in, int wait_ms, const char **piece, size_t *len);

#endif
