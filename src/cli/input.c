/* cli/input.c: pieces between delimiters. */
#include "cli/input.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES ((size_t)256 << 10)

bool cli_input_init(cli_input *in, int fd, const char *delimiter, size_t delimiter_len)
{
    struct stat st;
    *in = (cli_input){.fd = fd, .delimiter = delimiter, .delimiter_len = delimiter_len, .room = 2 * READ_BYTES};
    in->waits = fstat(fd, &st) != 0 || !S_ISREG(st.st_mode);
    in->data = malloc(in->room);
    return in->data != NULL;
}

void cli_input_fini(cli_input *in)
{
    free(in->data);
    in->data = NULL;
}

/* A whole piece out of what is buffered? */
static bool cut(cli_input *in, const char **piece, size_t *len)
{
    char *from = in->data + in->at;
    size_t have = in->len - in->at;
    char *hit = have <= in->searched     ? NULL
                : in->delimiter_len == 1 ? memchr(from + in->searched, in->delimiter[0], have - in->searched)
                                         : memmem(from + in->searched, have - in->searched, in->delimiter, in->delimiter_len);
    if (!hit) {
        in->searched = have < in->delimiter_len ? 0 : have - in->delimiter_len + 1;
        return false;
    }
    *piece = from;
    *len = (size_t)(hit - from);
    in->at += *len + in->delimiter_len;
    in->searched = 0;
    return true;
}

/* Room for one more read: move the rest to the front, double the buffer. */
static bool make_room(cli_input *in)
{
    if (in->room - in->len >= READ_BYTES) return true;
    if (in->at > 0) {
        memmove(in->data, in->data + in->at, in->len - in->at);
        in->len -= in->at;
        in->at = 0;
    }
    if (in->room - in->len >= READ_BYTES) return true;
    if (in->len > CLI_PIECE_MAX) return errno = EFBIG, false;
    char *data = realloc(in->data, in->room * 2);
    if (!data) return errno = ENOMEM, false;
    in->data = data;
    in->room *= 2;
    return true;
}

cli_input_result cli_input_next(cli_input *in, int wait_ms, const char **piece, size_t *len)
{
    for (;;) {
        if (cut(in, piece, len)) return CLI_INPUT_PIECE;
        if (in->ended) {
            if (in->at == in->len) return CLI_INPUT_END;
            *piece = in->data + in->at;
            *len = in->len - in->at;
            in->at = in->len;
            return CLI_INPUT_PIECE;
        }
        if (!make_room(in)) return CLI_INPUT_ERROR;
        if (in->waits) {
            struct pollfd p = {.fd = in->fd, .events = POLLIN};
            int ready = poll(&p, 1, wait_ms);
            if (ready < 0) return CLI_INPUT_ERROR;
            if (ready == 0) return CLI_INPUT_WAIT;
        }
        ssize_t n = read(in->fd, in->data + in->len, in->room - in->len);
        if (n < 0) return CLI_INPUT_ERROR;
        if (n == 0) in->ended = true;
        in->len += (size_t)n;
    }
}
