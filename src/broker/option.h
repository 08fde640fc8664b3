/* broker/option.h: one option of a table: parse its text into a field of a struct, print it, document it. Pure.
 *
 * Units. Sizes: a plain number is bytes; K, KiB, M, MiB, G, GiB, T, TiB are powers of 1024, kB, MB, GB, TB of 1000. Durations: a plain
 * number is milliseconds; ms, s, m, min, h, d. No unit on -1, which means "no limit" wherever it is allowed. */
#ifndef BW_BROKER_OPTION_H
#define BW_BROKER_OPTION_H

#include "base/bytes.h"
#include "base/err.h"

typedef enum bw_option_kind {
    BW_OPTION_TEXT = 0, /* char *, malloc'd; empty is NULL */
    BW_OPTION_LIST,     /* bw_option_list: separated by commas or blanks */
    BW_OPTION_BOOL,     /* bool: true, false, yes, no, on, off, 1, 0 */
    BW_OPTION_NUMBER,   /* integer of the field's width */
    BW_OPTION_SIZE,
    BW_OPTION_DURATION,
    BW_OPTION_CHOICE, /* char[]: one of `choices`, separated by '|' */
    BW_OPTION_RATIO,  /* double: 0 to 1 */
    BW_OPTION_LEVEL,  /* bw_log_level: error, warn, info, debug */
} bw_option_kind;

typedef struct bw_option {
    const char *name;
    bw_option_kind kind;
    size_t offset, width; /* of the field */
    int64_t min, max;     /* NUMBER, SIZE, DURATION; min -1 allows -1 beside 0 and above */
    const char *preset;   /* the default, as text */
    const char *choices;
    const char *help;
} bw_option;

/* A list as two neighbouring fields of a configuration: items, then their number. */
typedef struct bw_option_list {
    char **items;
    size_t count;
} bw_option_list;

const bw_option *bw_option_find(const bw_option *table, size_t count, const char *name, size_t len);
/* bw_option_parse: value into the field. INVALID_CONFIG: names the option, the value, what is allowed; NO_MEMORY. */
bw_err bw_option_parse(const bw_option *o, void *config, const char *value, size_t len);
/* bw_option_print: the field as text that bw_option_parse takes again; at most size bytes with NUL. */
void bw_option_print(const bw_option *o, const void *config, char *out, size_t size);
/* bw_option_allowed: "one of a, b", "a duration from 1 to …". */
void bw_option_allowed(const bw_option *o, char *out, size_t size);
void bw_option_clear(const bw_option *o, void *config);

#endif
