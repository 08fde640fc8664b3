/* cli/format.h: kcat's format string for `consume -f`, compiled once, run for each record; and its escapes for -D and -K.
 *
 *   %s value   %S its length (-1: null)   %R the same as 4 bytes, big-endian   %k key   %K its length   %h headers (n=v,n=v)
 *   %T timestamp in ms   %t topic   %p partition   %o offset   %% a percent sign
 *   \n \t \r \\ \xNN \NNN (octal, three digits at most)   any other character as it is */
#ifndef BW_CLI_FORMAT_H
#define BW_CLI_FORMAT_H

#include "cli/out.h"

#include <busway/record.h>

typedef struct cli_format_part {
    char what;   /* 0: literal, else the letter */
    size_t from; /* literal: bytes in cli_format.text */
    size_t len;
} cli_format_part;

typedef struct cli_format {
    cli_format_part *parts;
    size_t count;
    char *text;
    const char *null_text; /* shown for a null key or value; "" unless -Z */
} cli_format;

/* cli_format_compile: false when the string is wrong, with error (a static text) and its place; false and error NULL: no memory.
 */
bool cli_format_compile(cli_format *f, const char *string, const char **error, size_t *error_at);
void cli_format_fini(cli_format *f);
void cli_format_run(const cli_format *f, cli_out *o, const char *topic, int32_t partition, const bw_record_view *record);

/* cli_unescape: the escapes above, in place (the result is never longer; may hold NUL bytes). Returns its length. */
size_t cli_unescape(char *text);

#endif
