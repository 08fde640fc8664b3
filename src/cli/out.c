/* cli/out.c: buffered output. */
#include "cli/out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool cli_out_init(cli_out *o, int fd, size_t size)
{
    *o = (cli_out){.fd = fd, .size = size, .data = malloc(size)};
    return o->data != NULL;
}

void cli_out_fini(cli_out *o)
{
    free(o->data);
    o->data = NULL;
}

static bool write_all(cli_out *o, const char *data, size_t len)
{
    while (len && !o->error) {
        ssize_t n = write(o->fd, data, len);
        if (n >= 0) {
            data += n;
            len -= (size_t)n;
        } else if (errno != EINTR) {
            o->error = errno;
        }
    }
    return !o->error;
}

bool cli_out_flush(cli_out *o)
{
    bool ok = write_all(o, o->data, o->len);
    o->len = 0;
    return ok;
}

void cli_out_put(cli_out *o, const void *data, size_t len)
{
    if (len > o->size - o->len) {
        if (!cli_out_flush(o)) return;
        if (len > o->size) {
            write_all(o, data, len);
            return;
        }
    }
    if (len) memcpy(o->data + o->len, data, len);
    o->len += len;
}

void cli_out_text(cli_out *o, const char *text) { cli_out_put(o, text, strlen(text)); }

void cli_out_int(cli_out *o, int64_t value)
{
    char digits[24];
    size_t at = sizeof digits;
    uint64_t u = value < 0 ? (uint64_t)0 - (uint64_t)value : (uint64_t)value;
    do digits[--at] = (char)('0' + u % 10);
    while (u /= 10);
    if (value < 0) digits[--at] = '-';
    cli_out_put(o, digits + at, sizeof digits - at);
}
