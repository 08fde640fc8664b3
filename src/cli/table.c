/* cli/table.c: aligned columns, numbers for people. */
#include "cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void cli_table_init(cli_table *t, const char *const *headings)
{
    *t = (cli_table){0};
    while (headings[t->columns] && t->columns < CLI_TABLE_COLUMNS) t->columns++;
    cli_table_row(t);
    for (size_t i = 0; i < t->columns; i++) {
        t->right[i] = headings[i][0] == '>';
        cli_table_cell(t, i, "%s", headings[i] + t->right[i]);
    }
}

void cli_table_fini(cli_table *t)
{
    for (size_t i = 0; i < t->rows * t->columns; i++) free(t->cells[i]);
    free(t->cells);
    *t = (cli_table){0};
}

void cli_table_row(cli_table *t)
{
    if (t->rows == t->room) {
        size_t room = t->room ? t->room * 2 : 16;
        char **cells = realloc(t->cells, room * t->columns * sizeof(char *));
        if (!cells) {
            t->failed = true;
            return;
        }
        t->cells = cells;
        t->room = room;
    }
    memset(&t->cells[t->rows * t->columns], 0, t->columns * sizeof(char *));
    t->rows++;
}

void cli_table_cell(cli_table *t, size_t column, const char *format, ...)
{
    if (t->failed || t->rows == 0) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char **cell = &t->cells[(t->rows - 1) * t->columns + column];
    free(*cell);
    *cell = strdup(text);
    if (!*cell) t->failed = true;
}

void cli_table_print(const cli_table *t, FILE *to, const char *indent)
{
    if (t->failed) {
        fprintf(to, "%s(out of memory)\n", indent);
        return;
    }
    size_t width[CLI_TABLE_COLUMNS] = {0};
    for (size_t i = 0; i < t->rows * t->columns; i++) {
        size_t n = t->cells[i] ? strlen(t->cells[i]) : 0;
        if (n > width[i % t->columns]) width[i % t->columns] = n;
    }
    for (size_t r = 0; r < t->rows; r++) {
        size_t last = t->columns; /* no blanks at a line's end */
        while (last > 0 && !(t->cells[r * t->columns + last - 1] && t->cells[r * t->columns + last - 1][0])) last--;
        fputs(indent, to);
        for (size_t i = 0; i < last; i++) {
            const char *cell = t->cells[r * t->columns + i] ? t->cells[r * t->columns + i] : "";
            if (t->right[i])
                fprintf(to, "%*s", (int)width[i], cell);
            else
                fprintf(to, "%-*s", i + 1 == last ? 0 : (int)width[i], cell);
            if (i + 1 < last) fputs("  ", to);
        }
        fputc('\n', to);
    }
}

const char *cli_human_bytes(char out[24], double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int u = 0;
    while (bytes >= 1024 && u < 5) bytes /= 1024, u++;
    snprintf(out, 24, u == 0 || bytes >= 100 ? "%.0f %s" : "%.1f %s", bytes, units[u]);
    return out;
}

const char *cli_human_count(char out[24], double count)
{
    static const char *const units[] = {"", "k", "M", "G", "T"};
    int u = 0;
    while (count >= 10000 && u < 4) count /= 1000, u++;
    snprintf(out, 24, u == 0 || count >= 100 ? "%.0f%s" : "%.1f%s", count, units[u]);
    return out;
}

const char *cli_human_ns(char out[24], double ns)
{
    if (ns < 1000)
        snprintf(out, 24, "%.0f ns", ns);
    else if (ns < 1e6)
        snprintf(out, 24, "%.1f us", ns / 1e3);
    else if (ns < 1e9)
        snprintf(out, 24, "%.1f ms", ns / 1e6);
    else
        snprintf(out, 24, "%.1f s", ns / 1e9);
    return out;
}
