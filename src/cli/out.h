/* cli/out.h: buffered output on a descriptor: one write a buffer, flushed by the caller before it waits.
 *
 * Invariant: after the first failed write nothing more is written; `error` holds its errno (EPIPE: the reader went away). */
#ifndef BW_CLI_OUT_H
#define BW_CLI_OUT_H

#include <busway/version.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cli_out {
    int fd;
    int error;
    size_t len, size;
    char *data;
} cli_out;

bool cli_out_init(cli_out *o, int fd, size_t size);
void cli_out_fini(cli_out *o); /* does not flush */
bool cli_out_flush(cli_out *o);
void cli_out_put(cli_out *o, const void *data, size_t len);
void cli_out_text(cli_out *o, const char *text);
void cli_out_int(cli_out *o, int64_t value);
static inline void cli_out_char(cli_out *o, char ch)
{
    if (o->len == o->size && !cli_out_flush(o)) return;
    o->data[o->len++] = ch;
}

#endif
