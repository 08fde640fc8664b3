/* demo/source.h: this machine's own events.
 *
 *   lines    every line of the package manager's log, rotated and compressed ones too, oldest first, keyed by package
 *   samples  what the kernel says of itself in /proc right now: a sensor a line, keyed "file.name" */
#ifndef BW_DEMO_SOURCE_H
#define BW_DEMO_SOURCE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct demo_line {
    char *text; /* NUL-terminated, without the newline */
    size_t len;
    size_t key, key_len; /* where in text */
} demo_line;

typedef struct demo_lines {
    demo_line *lines;
    size_t count;
    char from[256]; /* "/var/log/dpkg.log*" */
} demo_lines;

/* demo_lines_load: false only when memory is short; a machine without such a log has no lines. */
bool demo_lines_load(demo_lines *out);
void demo_lines_free(demo_lines *lines);

typedef void (*demo_sample_fn)(void *opaque, const char *key, size_t key_len, const char *value, size_t value_len);
/* demo_sample: every sensor once. round: counts up; the processes are looked at in turn. */
void demo_sample(unsigned round, demo_sample_fn fn, void *opaque);

#endif
