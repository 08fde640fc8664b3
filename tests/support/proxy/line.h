/* tests/support/proxy/line.h: one direction of a bad line, as a schedule: when what came in may leave.
 *
 * A line is shared by all connections of the proxy, as a real one is. Bytes are taken as packets of LINE_PACKET; each takes its time on the
 * line (rate), then the delay and a part of the jitter; a packet that is lost comes after a retransmission time-out, and as TCP keeps the
 * order, what is behind it in its connection waits. Nothing is thrown away: a connection that was accepted is told by its end alone. */
#ifndef BW_TESTS_PROXY_LINE_H
#define BW_TESTS_PROXY_LINE_H

#include <stddef.h>
#include <stdint.h>

enum { LINE_PACKET = 1400 };

typedef struct dice {
    uint64_t state;
} dice;
uint64_t dice_next(dice *d);
double dice_part(dice *d);                  /* [0, 1) */
int64_t dice_about(dice *d, double mean);   /* exponential, at least 1 */

typedef struct line_rules {
    double delay_ms, jitter_ms; /* one way */
    double rate_kbit;           /* 0: no limit */
    double loss;                /* of packets, in percent */
    double cut_bytes, cut_ms;   /* mean bytes, time until a connection is cut; 0: never */
    double down_ms;             /* mean time that the line is down after a cut; 0: not at all */
} line_rules;

typedef struct line {
    int64_t free_ns; /* the line is busy until then */
    uint64_t bytes, packets, lost;
} line;

/* When a packet of len bytes that is there at now_ns arrives. */
int64_t line_arrival(line *l, const line_rules *rules, dice *d, int64_t now_ns, size_t len);

#endif
