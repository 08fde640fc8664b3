/* log/datadir_clock.c: how far the wall clock has jumped since this boot's first daemon on a data directory looked at it.
 *
 * The file `clock` holds "0\n<boot id> <wall> <since boot>\n", both in ms: what the wall clock said when the machine had been up for
 * so long (suspended or not). Within that boot the two go on together; what the wall clock is ahead of it is a jump, not age. In another
 * boot nothing is known: the machine may have been off for years. A clock that is behind was put right, or is wrong the harmless
 * way: the file is made anew. It is a hint: not there or not readable, the clock is believed. */
#include "base/clock.h"
#include "base/os.h"
#include "log/datadir.h"
#include "log/smallfile.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CLOCK_FILE "clock"
enum { SLEW_MS = 60000 }; /* a clock that is disciplined drifts from the steady one by seconds */

int64_t bw_datadir_clock_ahead_ms(const bw_datadir *d)
{
    bw_uuid boot;
    char hex[33], text[128], known_boot[33];
    size_t len;
    int64_t now = bw_clock_wall_ms(), up = bw_clock_boot_ms(), wall, since;
    if (bw_os_boot_id(boot.b) != 0) return 0;
    bw_uuid_hex(&boot, hex);
    if (bw_smallfile_read(d->fd, CLOCK_FILE, text, sizeof text, &len) == BW_OK &&
        sscanf(text, "0\n%32s %" SCNd64 " %" SCNd64, known_boot, &wall, &since) == 3 && strcmp(known_boot, hex) == 0 && wall >= 0 &&
        wall <= INT64_MAX / 2 && since >= 0 && since <= up) {
        int64_t ahead = now - (wall + (up - since));
        if (ahead > SLEW_MS) return ahead;
        if (ahead >= -SLEW_MS) return 0;
    }
    /* Of this boot only: what a loss of power leaves of it is of no interest. */
    int n = snprintf(text, sizeof text, "0\n%s %" PRId64 " %" PRId64 "\n", hex, now, up);
    (void)bw_smallfile_put(d->fd, CLOCK_FILE, text, (size_t)n);
    return 0;
}
