/* format/pattern.h: patterns that mean topics or groups by their whole names: POSIX extended regular expressions, bounded in what they cost.
 * Long ones, repetitions of repetitions or of what may be empty, and back references, whose cost has no bound, are refused. */
#ifndef BW_FORMAT_PATTERN_H
#define BW_FORMAT_PATTERN_H

#include "base/err.h"

#include <regex.h>
#include <stdbool.h>
#include <stddef.h>

#define BW_PATTERN_BYTES_MAX 256u
#define BW_PATTERN_COST_MAX 8192u /* of all in one list */

/* bw_pattern_compile: regfree it. *cost: of those before it in the list; its own is added. INVALID_ARGUMENT: what is wrong with it. */
bw_err bw_pattern_compile(const char *text, size_t len, regex_t *out, size_t *cost);
/* bw_pattern_means: never a name that begins with two underscores: those are the daemon's own. Any thread. */
bool bw_pattern_means(const regex_t *pattern, const char *name);

#endif
