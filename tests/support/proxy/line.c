/* tests/support/proxy/line.c: see line.h. */
#include "support/proxy/line.h"

#include <math.h>

uint64_t dice_next(dice *d)
{
    uint64_t z = d->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double dice_part(dice *d) { return (double)(dice_next(d) >> 11) / 9007199254740992.0; }

int64_t dice_about(dice *d, double mean)
{
    double v = -log(1.0 - dice_part(d)) * mean;
    return v < 1 ? 1 : v > 1e15 ? (int64_t)1e15 : (int64_t)v;
}

int64_t line_arrival(line *l, const line_rules *rules, dice *d, int64_t now_ns, size_t len)
{
    double on_line = rules->rate_kbit > 0 ? (double)len * 8e6 / rules->rate_kbit : 0;
    double way = (rules->delay_ms + dice_part(d) * rules->jitter_ms) * 1e6;
    double time_out = rules->delay_ms * 3 > 200 ? rules->delay_ms * 3e6 : 200e6, waited = 0;
    l->bytes += len;
    l->packets++;
    if (l->free_ns < now_ns) l->free_ns = now_ns;
    l->free_ns += (int64_t)on_line;
    while (dice_part(d) * 100 < rules->loss && waited < 60e9) {
        l->lost++;
        l->free_ns += (int64_t)on_line;
        waited += time_out;
        time_out *= 2;
    }
    return l->free_ns + (int64_t)(way + waited);
}
