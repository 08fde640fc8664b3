/* Queue groups: the stored state of a partition, and the delay header. First byte: 0 a state; 1 a header's value; 2 a record's headers.
 * A state that is accepted says the same when it is stored and read again, and its counters are those of a walk. */
#include "fuzz/fuzz.h"

#include "broker/queue_delay.h"
#include "broker/queue_state.h"

static void check_counters(const bw_queue_state *s)
{
    uint32_t counts[4] = {0};
    FUZZ_CHECK(s->start >= 0 && s->end >= s->start && s->end - s->start <= BW_QUEUE_SPAN_MAX);
    for (int64_t o = s->start; o < s->end; o++) counts[bw_queue_state_find(s, o, NULL)->mark]++;
    FUZZ_CHECK(counts[BW_QUEUE_AVAILABLE] == s->available && counts[BW_QUEUE_DYING] == s->dying && !s->acquired);
    FUZZ_CHECK(s->untaken == s->dying);
}

static void state(const uint8_t *data, size_t size)
{
    bw_queue_state s, again;
    uint64_t put_off, put_off_again;
    fuzz_allow((4u << 20)); /* two windows while one grows */
    if (bw_queue_state_decode(data, size, &s, &put_off) != BW_OK) return;
    check_counters(&s);
    fuzz_pause();
    bw_buf b = {0};
    FUZZ_CHECK(bw_queue_state_encode(&s, put_off, &b) == BW_OK);
    FUZZ_CHECK(bw_queue_state_decode(b.data, b.len, &again, &put_off_again) == BW_OK);
    FUZZ_CHECK(put_off == put_off_again && s.end == again.end && s.leader_epoch == again.leader_epoch);
    for (int64_t o = s.start; o < s.end; o++) {
        const bw_queue_entry *x = bw_queue_state_find(&s, o, NULL), *y = bw_queue_state_find(&again, o, NULL);
        FUZZ_CHECK(y ? x->mark == y->mark && x->deliveries == y->deliveries : x->mark == BW_QUEUE_SETTLED);
    }
    bw_queue_state_fini(&again);
    bw_buf_free(&b);
    fuzz_resume();
    bw_queue_state_fini(&s);
}

static void value(const uint8_t *data, size_t size)
{
    int64_t ms = -1;
    if (!bw_deliver_at_parse(data, size, &ms)) return;
    FUZZ_CHECK(ms >= 0 && size <= 19);
    char text[24];
    int64_t again = -1;
    int n = snprintf(text, sizeof text, "%lld", (long long)ms);
    FUZZ_CHECK(bw_deliver_at_parse(text, (size_t)n, &again) && again == ms);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    int64_t ms;
    bw_record_view v = {.headers_raw = data + 1, .headers_len = (uint32_t)(size - 1), .header_count = (uint32_t)size};
    switch (data[0] % 3) {
    case 0: state(data + 1, size - 1); break;
    case 1: value(data + 1, size - 1); break;
    default: (void)bw_deliver_at(&v, &ms);
    }
    return 0;
}
