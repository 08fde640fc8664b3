/* cli/table.h: aligned columns for people. Cells are copied; a column is right-aligned when its heading begins with '>'. */
#ifndef BW_CLI_TABLE_H
#define BW_CLI_TABLE_H

#include <busway/version.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CLI_TABLE_COLUMNS 12

typedef struct cli_table {
    size_t columns, rows, room;
    char **cells; /* rows × columns; row 0 is the heading */
    bool right[CLI_TABLE_COLUMNS];
    bool failed; /* out of memory: printing says so */
} cli_table;

/* cli_table_init: headings end with NULL. */
void cli_table_init(cli_table *t, const char *const *headings);
void cli_table_fini(cli_table *t);
void cli_table_row(cli_table *t); /* begins a row */
void cli_table_cell(cli_table *t, size_t column, const char *format, ...) BW_PRINTF(3, 4);
void cli_table_print(const cli_table *t, FILE *to, const char *indent);

/* Numbers for people, in a caller's buffer: "1.5 MiB", "12.3k", "3 m 12 s". */
const char *cli_human_bytes(char out[24], double bytes);
const char *cli_human_count(char out[24], double count);
const char *cli_human_ns(char out[24], double ns);

#endif
