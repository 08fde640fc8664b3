/* broker/quota_bucket.h: a rate that is kept over time. Pure: the caller's clock, any unit.
 *
 * What is used is paid in time: `paid_ns` is the moment at which everything so far would have been used at the rate. As long as it is not
 * over, nothing more may begin; what began is charged whole, however much it was. So what is used between two moments is never more than
 * rate × (the time between + window) + the last that began. A bucket begins with nothing saved: the window is earned by using less. */
#ifndef BW_BROKER_QUOTA_BUCKET_H
#define BW_BROKER_QUOTA_BUCKET_H

#include <stdint.h>

typedef struct bw_bucket {
    int64_t rate; /* a second; at least 1 */
    int64_t paid_ns;
} bw_bucket;

#define BW_BUCKET_AHEAD_MAX_NS (INT64_C(1) << 60) /* over 36 years */

/* bw_bucket_wait_ns: how long until more may begin; 0: now. */
static inline int64_t bw_bucket_wait_ns(const bw_bucket *b, int64_t now_ns) { return b->paid_ns > now_ns ? b->paid_ns - now_ns : 0; }

static inline void bw_bucket_charge(bw_bucket *b, int64_t now_ns, int64_t window_ns, uint64_t amount)
{
    int64_t from = b->paid_ns > now_ns - window_ns ? b->paid_ns : now_ns - window_ns;
    unsigned __int128 ns = (unsigned __int128)amount * 1000000000u / (uint64_t)b->rate;
    int64_t room = BW_BUCKET_AHEAD_MAX_NS - (from > now_ns ? from - now_ns : 0);
    b->paid_ns = from + (ns < (unsigned __int128)room ? (int64_t)ns : room);
}

/* bw_bucket_set_rate: what is owed stays owed, in units; nothing saved is kept. */
static inline void bw_bucket_set_rate(bw_bucket *b, int64_t now_ns, int64_t rate)
{
    unsigned __int128 owed = (unsigned __int128)(uint64_t)bw_bucket_wait_ns(b, now_ns) * (uint64_t)b->rate / 1000000000u;
    *b = (bw_bucket){rate, now_ns};
    bw_bucket_charge(b, now_ns, 0, owed > UINT64_MAX ? UINT64_MAX : (uint64_t)owed);
}

#endif
