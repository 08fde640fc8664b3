/* The state of a queue group's partition: single steps, and a long random walk beside an oracle that knows every record. */
#include "broker/queue_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

static const bw_queue_rules rules = {5, false};

static void fill(bw_queue_state *s, int64_t start, int n)
{
    bw_queue_state_init(s, start);
    for (int i = 0; i < n; i++) assert_int_equal(bw_queue_state_admit(s, start + i), BW_OK);
}

static int64_t next_of(bw_queue_state *s)
{
    int64_t offset = -1;
    const bw_queue_entry *e;
    return bw_queue_state_next(s, &offset, &e) ? offset : -1;
}

/* ---- steps ---- */

static void test_queue_state_acknowledged_prefix_raises_start(void **state)
{
    (void)state;
    bw_queue_state s;
    fill(&s, 10, 4);
    for (int64_t o = 10; o < 14; o++) assert_true(bw_queue_state_acquire(&s, o, 1, 100, 5));
    assert_true(bw_queue_state_ack(&s, 11, 1, BW_QUEUE_ACCEPT, 0, rules));
    assert_int_equal(s.start, 10);
    assert_true(bw_queue_state_ack(&s, 10, 1, BW_QUEUE_ACCEPT, 0, rules));
    assert_int_equal(s.start, 12);
    assert_false(bw_queue_state_ack(&s, 11, 1, BW_QUEUE_ACCEPT, 0, rules));
    assert_int_equal(s.acquired, 2);
    bw_queue_state_fini(&s);
}

static void test_queue_state_others_record_is_not_acknowledged(void **state)
{
    (void)state;
    bw_queue_state s;
    fill(&s, 0, 2);
    assert_true(bw_queue_state_acquire(&s, 0, 1, 100, 5));
    assert_false(bw_queue_state_acquire(&s, 0, 2, 100, 5));
    for (int verb = BW_QUEUE_ACCEPT; verb <= BW_QUEUE_RETURN; verb++) {
        assert_false(bw_queue_state_ack(&s, 0, 2, (bw_queue_verb)verb, 0, rules));
        assert_false(bw_queue_state_ack(&s, 1, 2, (bw_queue_verb)verb, 0, rules));
        assert_false(bw_queue_state_ack(&s, 7, 2, (bw_queue_verb)verb, 0, rules));
    }
    bw_queue_state_fini(&s);
}

static void test_queue_state_release_counts_and_return_does_not(void **state)
{
    (void)state;
    bw_queue_state s;
    fill(&s, 0, 1);
    for (int i = 0; i < 20; i++) {
        assert_true(bw_queue_state_acquire(&s, 0, 1, 100, 5));
        assert_true(bw_queue_state_ack(&s, 0, 1, BW_QUEUE_RETURN, 0, rules));
    }
    for (int i = 1; i <= 5; i++) {
        assert_true(bw_queue_state_acquire(&s, 0, 1, 100, 5));
        assert_int_equal(bw_queue_state_find(&s, 0, NULL)->deliveries, i);
        assert_true(bw_queue_state_ack(&s, 0, 1, BW_QUEUE_RELEASE, 0, rules));
    }
    assert_int_equal(next_of(&s), -1);
    assert_int_equal(s.untaken, 1);
    int64_t offset;
    const bw_queue_entry *e;
    assert_true(bw_queue_state_dying(&s, 0, &offset, &e));
    assert_int_equal(e->reason, BW_QUEUE_WORN_OUT);
    bw_queue_state_take(&s, 0);
    assert_false(bw_queue_state_dying(&s, 0, &offset, &e));
    bw_queue_state_untake(&s, 0);
    assert_true(bw_queue_state_dying(&s, 0, &offset, &e));
    bw_queue_state_bury(&s, 0);
    assert_int_equal(s.start, 1);
    assert_int_equal(s.dying + s.untaken, 0);
    bw_queue_state_fini(&s);
}

static void test_queue_state_lease_ends_at_its_time_and_renew_moves_it(void **state)
{
    (void)state;
    bw_queue_state s;
    int64_t next;
    fill(&s, 0, 3);
    assert_true(bw_queue_state_acquire(&s, 0, 1, 100, 5));
    assert_true(bw_queue_state_acquire(&s, 1, 1, 100, 5));
    assert_true(bw_queue_state_acquire(&s, 2, 2, 150, 5));
    assert_true(bw_queue_state_ack(&s, 1, 1, BW_QUEUE_RENEW, 200, rules));
    assert_int_equal(bw_queue_state_expire(&s, 99, rules, &next), 0);
    assert_int_equal(next, 100);
    assert_int_equal(bw_queue_state_expire(&s, 100, rules, &next), 1);
    assert_int_equal(next, 150);
    assert_int_equal(next_of(&s), 0);
    assert_int_equal(bw_queue_state_expire(&s, 1000, rules, &next), 2);
    assert_int_equal(next, INT64_MAX);
    bw_queue_state_fini(&s);
}

static void test_queue_state_dead_member_gives_back_its_own_only(void **state)
{
    (void)state;
    bw_queue_state s;
    fill(&s, 0, 4);
    for (int64_t o = 0; o < 4; o++) assert_true(bw_queue_state_acquire(&s, o, o % 2 ? 7 : 8, 100, 5));
    assert_int_equal(bw_queue_state_drop(&s, 7, rules), 2);
    assert_int_equal(next_of(&s), 1);
    assert_int_equal(s.available, 2);
    assert_int_equal(s.acquired, 2);
    bw_queue_state_fini(&s);
}

static void test_queue_state_window_is_bounded_and_gaps_are_settled(void **state)
{
    (void)state;
    bw_queue_state s;
    bw_queue_state_init(&s, 0);
    assert_int_equal(bw_queue_state_admit(&s, 1000000), BW_OK); /* nothing below: no room is needed */
    assert_int_equal(s.start, 1000000);
    assert_int_equal(bw_queue_state_admit(&s, 1000000 + BW_QUEUE_SPAN_MAX), BW_ERR_LIMIT_REACHED);
    assert_int_equal(bw_queue_state_admit(&s, 1000000 + BW_QUEUE_SPAN_MAX - 1), BW_OK);
    assert_int_equal(s.available, 2);
    assert_true(bw_queue_state_acquire(&s, 1000000, 1, 1, 5));
    assert_true(bw_queue_state_ack(&s, 1000000, 1, BW_QUEUE_ACCEPT, 0, rules));
    assert_int_equal(s.start, 1000000 + BW_QUEUE_SPAN_MAX - 1);
    bw_queue_state_fini(&s);
}

static void test_queue_state_cut_and_trimmed_log(void **state)
{
    (void)state;
    bw_queue_state s;
    fill(&s, 0, 10);
    assert_int_equal(bw_queue_state_admit_late(&s, -5, 1, 0, 0), BW_OK);
    assert_true(bw_queue_state_acquire(&s, 3, 1, 100, 5));
    bw_queue_state_trim(&s, 5);
    assert_int_equal(s.start, 3); /* somebody works on it */
    assert_int_equal(s.lost, 5);
    assert_int_equal(s.gone_count, 1);
    assert_int_equal(next_of(&s), 5);
    bw_queue_state_cut(&s, 6);
    assert_int_equal(s.end, 6);
    assert_int_equal(s.available, 1);
    bw_queue_state_cut(&s, 2);
    assert_int_equal(s.start, 2);
    assert_int_equal(s.end, 2);
    assert_int_equal(s.available + s.acquired, 0);
    bw_queue_state_fini(&s);
}

/* ---- the codec ---- */

static void test_queue_codec_keeps_what_must_be_kept(void **state)
{
    (void)state;
    bw_queue_state s, back;
    bw_buf b = {0};
    uint64_t put_off;
    fill(&s, 100, 20);
    assert_true(bw_queue_state_acquire(&s, 103, 1, 100, 5));
    assert_true(bw_queue_state_ack(&s, 103, 1, BW_QUEUE_ACCEPT, 0, rules));
    assert_true(bw_queue_state_acquire(&s, 104, 1, 100, 5));
    assert_true(bw_queue_state_ack(&s, 104, 1, BW_QUEUE_REJECT, 0, rules));
    assert_true(bw_queue_state_acquire(&s, 105, 1, 100, 5));
    assert_int_equal(bw_queue_state_encode(&s, 77, &b), BW_OK);
    assert_int_equal(bw_queue_state_decode(b.data, b.len, &back, &put_off), BW_OK);
    assert_int_equal(put_off, 77);
    assert_int_equal(back.start, 100);
    assert_int_equal(back.end, 120);
    assert_int_equal(bw_queue_state_find(&back, 103, NULL)->mark, BW_QUEUE_SETTLED);
    assert_int_equal(bw_queue_state_find(&back, 104, NULL)->mark, BW_QUEUE_DYING);
    assert_int_equal(bw_queue_state_find(&back, 104, NULL)->reason, BW_QUEUE_REJECTED);
    assert_int_equal(bw_queue_state_find(&back, 105, NULL)->mark, BW_QUEUE_AVAILABLE);
    assert_int_equal(bw_queue_state_find(&back, 105, NULL)->deliveries, 1);
    assert_int_equal(back.available, 18);
    assert_int_equal(back.untaken, 1);
    bw_queue_state_fini(&back);
    bw_queue_state_fini(&s);
    bw_buf_free(&b);
}

static void test_queue_codec_refuses_what_cannot_be(void **state)
{
    (void)state;
    static const uint8_t good[21] = {1};
    bw_queue_state s;
    uint64_t put_off;
    uint8_t bytes[40];
    assert_int_equal(bw_queue_state_decode(good, 21, &s, &put_off), BW_OK);
    bw_queue_state_fini(&s);
    assert_int_equal(bw_queue_state_decode(good, 20, &s, &put_off), BW_ERR_CORRUPT);
    memcpy(bytes, good, 21);
    bytes[0] = 2;
    assert_int_equal(bw_queue_state_decode(bytes, 21, &s, &put_off), BW_ERR_NEWER_FORMAT);
    bytes[0] = 1;
    memcpy(bytes + 21, "\x00\x01", 2); /* a run of nothing */
    assert_int_equal(bw_queue_state_decode(bytes, 23, &s, &put_off), BW_ERR_CORRUPT);
    memcpy(bytes + 21, "\xff\xff\xff\xff\x0f\x01", 6); /* longer than any window */
    assert_int_equal(bw_queue_state_decode(bytes, 27, &s, &put_off), BW_ERR_CORRUPT);
    memcpy(bytes + 21, "\x01\x04", 2); /* a reason that there is not */
    assert_int_equal(bw_queue_state_decode(bytes, 23, &s, &put_off), BW_ERR_CORRUPT);
    bytes[1] = 0x80; /* a negative start */
    assert_int_equal(bw_queue_state_decode(bytes, 21, &s, &put_off), BW_ERR_CORRUPT);
}

/* ---- the walk ---- */

#define RECORDS 3000
#define MEMBERS 5

typedef struct known { int mark; uint32_t member; int deliveries, settled; int64_t lease; bool late; } known;
typedef struct walk {
    bw_queue_state s;
    known k[RECORDS];
    int64_t admitted, now;
    uint64_t rng;
} walk;

static uint32_t roll(walk *w, uint32_t n)
{
    w->rng = w->rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(w->rng >> 33) % n;
}

static void back(known *k) { k->mark = k->deliveries >= rules.max_deliveries ? BW_QUEUE_DYING : BW_QUEUE_AVAILABLE; }

static void settle(known *k)
{
    k->mark = BW_QUEUE_SETTLED;
    assert_int_equal(++k->settled, 1); /* once */
}

static void step_acquire(walk *w)
{
    int64_t o;
    const bw_queue_entry *e;
    if (!bw_queue_state_next(&w->s, &o, &e)) return;
    known *k = &w->k[o];
    assert_int_equal(k->mark, BW_QUEUE_AVAILABLE); /* nobody has it */
    uint32_t member = 1 + roll(w, MEMBERS);
    int64_t lease = w->now + 1 + roll(w, 50);
    bool got = bw_queue_state_acquire(&w->s, o, member, lease, rules.max_deliveries);
    assert_int_equal(got, k->deliveries < rules.max_deliveries);
    if (!got) k->mark = BW_QUEUE_DYING;
    else *k = (known){BW_QUEUE_ACQUIRED, member, k->deliveries + 1, 0, lease, k->late};
    assert_true(k->deliveries <= rules.max_deliveries);
}

static void step_ack(walk *w)
{
    int64_t o = roll(w, RECORDS);
    known *k = &w->k[o];
    uint32_t member = roll(w, 3) && k->member ? k->member : 1 + roll(w, MEMBERS);
    bw_queue_verb verb = (bw_queue_verb)(1 + roll(w, 5));
    bool mine = k->mark == BW_QUEUE_ACQUIRED && k->member == member;
    assert_int_equal(bw_queue_state_ack(&w->s, o, member, verb, w->now + 60, rules), mine);
    if (!mine) return;
    if (verb == BW_QUEUE_ACCEPT) settle(k);
    if (verb == BW_QUEUE_RELEASE) back(k);
    if (verb == BW_QUEUE_REJECT) k->mark = BW_QUEUE_DYING;
    if (verb == BW_QUEUE_RENEW) k->lease = w->now + 60;
    if (verb == BW_QUEUE_RETURN) k->mark = BW_QUEUE_AVAILABLE;
    if (verb == BW_QUEUE_RETURN) k->deliveries--;
}

static void step_time(walk *w)
{
    int64_t next, first = INT64_MAX;
    uint32_t n = 0;
    w->now += roll(w, 20);
    for (int i = 0; i < RECORDS; i++) {
        known *k = &w->k[i];
        if (k->mark != BW_QUEUE_ACQUIRED) continue;
        if (k->lease <= w->now) {
            back(k);
            n++;
        } else if (k->lease < first) first = k->lease;
    }
    assert_int_equal(bw_queue_state_expire(&w->s, w->now, rules, &next), n);
    assert_int_equal(next, first);
}

static void step_death(walk *w)
{
    uint32_t member = 1 + roll(w, MEMBERS), n = 0;
    for (int i = 0; i < RECORDS; i++) {
        if (w->k[i].mark != BW_QUEUE_ACQUIRED || w->k[i].member != member) continue;
        back(&w->k[i]);
        n++;
    }
    assert_int_equal(bw_queue_state_drop(&w->s, member, rules), n);
}

static void step_bury(walk *w)
{
    int64_t o = -1;
    const bw_queue_entry *e;
    while (bw_queue_state_dying(&w->s, o + 1, &o, &e)) {
        assert_int_equal(w->k[o].mark, BW_QUEUE_DYING);
        bw_queue_state_take(&w->s, o);
        bw_queue_state_bury(&w->s, o);
        settle(&w->k[o]);
    }
}

static void step_admit(walk *w)
{
    for (uint32_t n = roll(w, 20); n && w->admitted < RECORDS; n--) {
        int64_t o = w->admitted++;
        if (roll(w, 5)) assert_int_equal(bw_queue_state_admit(&w->s, o), BW_OK);
        else { /* it was put off, and is due already */
            assert_int_equal(bw_queue_state_skip(&w->s, o + 1), BW_OK);
            assert_int_equal(bw_queue_state_admit_late(&w->s, o, 1000 + o, 0, 0), BW_OK);
            assert_int_equal(bw_queue_state_admit_late(&w->s, o, 1000 + o, 0, 0), BW_ERR_INVALID_ARGUMENT);
            w->k[o].late = true;
        }
        w->k[o].mark = BW_QUEUE_AVAILABLE;
    }
}

/* A restart: what was not late is read back; late ones are admitted again, as from their own entries. */
static void step_restart(walk *w)
{
    bw_buf b = {0};
    bw_queue_state s;
    uint64_t put_off;
    assert_int_equal(bw_queue_state_encode(&w->s, 0, &b), BW_OK);
    assert_int_equal(bw_queue_state_decode(b.data, b.len, &s, &put_off), BW_OK);
    for (uint32_t i = 0; i < w->s.late_count; i++) {
        const bw_queue_late *l = &w->s.late[i];
        uint8_t reason = l->entry.mark == BW_QUEUE_DYING ? l->entry.reason : 0;
        assert_int_equal(bw_queue_state_admit_late(&s, l->offset, l->due_ms, l->entry.deliveries, reason), BW_OK);
    }
    for (int64_t o = w->s.end; o < w->admitted; o++) assert_int_equal(bw_queue_state_admit(&s, o), BW_OK);
    bw_queue_state_fini(&w->s);
    w->s = s;
    for (int i = 0; i < RECORDS; i++)
        if (w->k[i].mark == BW_QUEUE_ACQUIRED) w->k[i].mark = BW_QUEUE_AVAILABLE;
    bw_buf_free(&b);
}

static void compare(walk *w)
{
    uint32_t counts[4] = {0};
    int64_t start = w->admitted;
    for (int64_t o = 0; o < w->admitted; o++) {
        const known *k = &w->k[o];
        bool late;
        const bw_queue_entry *e = bw_queue_state_find(&w->s, o, &late);
        counts[k->mark]++;
        if (k->mark != BW_QUEUE_SETTLED && !k->late && start == w->admitted) start = o;
        if (k->mark == BW_QUEUE_SETTLED) {
            assert_true(!e || e->mark == BW_QUEUE_SETTLED);
            continue;
        }
        assert_non_null(e);
        assert_int_equal(e->mark, k->mark);
        assert_int_equal(e->deliveries, k->deliveries);
        assert_int_equal(late, k->late);
    }
    assert_int_equal(w->s.start, start);
    assert_int_equal(w->s.available, counts[BW_QUEUE_AVAILABLE]);
    assert_int_equal(w->s.acquired, counts[BW_QUEUE_ACQUIRED]);
    assert_int_equal(w->s.dying, counts[BW_QUEUE_DYING]);
}

static void walk_once(uint64_t seed)
{
    walk *w = calloc(1, sizeof *w);
    w->rng = seed;
    for (int i = 0; i < RECORDS; i++) w->k[i].mark = -1;
    bw_queue_state_init(&w->s, 0);
    bool done = false;
    for (int i = 0; !done; i++) {
        uint32_t r = roll(w, 100);
        if (r < 10) step_admit(w);
        else if (r < 60) step_acquire(w);
        else if (r < 93) step_ack(w);
        else if (r < 96) step_time(w);
        else if (r < 97) step_death(w);
        else if (r < 99) step_bury(w);
        else if (roll(w, 10) == 0) step_restart(w);
        if (i % 256 == 0) compare(w);
        done = w->admitted == RECORDS && !w->s.available && !w->s.acquired && !w->s.dying;
        if (i > 2000000) fail_msg("seed %llu: it does not end", (unsigned long long)seed);
    }
    compare(w);
    for (int i = 0; i < RECORDS; i++) assert_int_equal(w->k[i].settled, 1);
    assert_int_equal(w->s.start, RECORDS);
    bw_queue_state_fini(&w->s);
    free(w);
}

static void test_queue_state_random_walk_settles_every_record_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) walk_once(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_state_acknowledged_prefix_raises_start),
        cmocka_unit_test(test_queue_state_others_record_is_not_acknowledged),
        cmocka_unit_test(test_queue_state_release_counts_and_return_does_not),
        cmocka_unit_test(test_queue_state_lease_ends_at_its_time_and_renew_moves_it),
        cmocka_unit_test(test_queue_state_dead_member_gives_back_its_own_only),
        cmocka_unit_test(test_queue_state_window_is_bounded_and_gaps_are_settled),
        cmocka_unit_test(test_queue_state_cut_and_trimmed_log),
        cmocka_unit_test(test_queue_codec_keeps_what_must_be_kept),
        cmocka_unit_test(test_queue_codec_refuses_what_cannot_be),
        cmocka_unit_test(test_queue_state_random_walk_settles_every_record_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
