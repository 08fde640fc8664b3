/* log/wait.c: waking and sleeping. Labels W1..W3 as in tests/model/wait.pml.
 *
 *   publisher                              sleeper (owns mailbox m)
 *   store tail (release)                   arm: interest |= m; summary |= bit
 *   W1 fence(seq_cst)                      W2 fence(seq_cst)
 *   summary != 0? take interest, mark      W3 look at the tail again
 *     l0, l1 of each box, bump its word,   CAS word w -> w|1 (fails when bumped since w was read)
 *     clear bit 0, futex_wake if it was    futex_wait(word, w|1)
 *
 * In an asymmetric generation (control_page.h) W1 orders the compiler only, and W2 is membarrier(2), which makes every running
 * publisher's stores visible: appends happen a million times a second, falling asleep does not.
 * W1 and W2 are a Dekker pair: either the publisher sees the interest or the sleeper sees the tail. A word is counted in twos, so
 * that a bump between reading and sleeping changes it. Everything here is a hint: a publisher that dies in between loses the wake,
 * the coordinator does it for the dead (bw_wake_all_boxes), and every sleep is bounded and followed by an audit. */
#include "log/wait.h"

#include "base/killpoint.h"
#include "base/os.h"

#include <limits.h>

/* Longest single futex sleep of a writer that waits for the coordinator. */
#define SLOT_NAP_NS INT64_C(100000000)

enum { OPENING_MOST_MS = 30000, OPENING_SLICE_MS = 200 };

static void box_signal(bw_mailbox *b, bool always)
{
    atomic_fetch_add_explicit(&b->word, 2, memory_order_seq_cst);
    uint32_t was = atomic_fetch_and_explicit(&b->word, ~1u, memory_order_seq_cst);
    if ((was & 1) || always) bw_os_futex_wake(&b->word, INT_MAX);
}

static void box_mark(bw_mailbox *b, uint32_t number)
{
    if (number >= BW_BUS_PARTITIONS_MAX) return;
    uint32_t word = number / 64;
    atomic_fetch_or_explicit(&b->l0[word], UINT64_C(1) << (number % 64), memory_order_acq_rel);
    atomic_fetch_or_explicit(&b->l1[word / 64], UINT64_C(1) << (word % 64), memory_order_acq_rel);
}

void bw_notify(bw_mail *m, uint32_t mailbox, uint32_t number)
{
    if (mailbox >= BW_MAILBOXES || mailbox >= atomic_load_explicit(&m->header->slots, memory_order_acquire)) return;
    bw_mailbox *b = bw_mail_box(m, mailbox);
    box_mark(b, number);
    box_signal(b, false);
}

static void wake_interested(bw_control *c, uint32_t slot, bw_wait_class cls, uint64_t summary)
{
    bw_wait_slot *w = &c->waits[slot];
    uint32_t number = atomic_load_explicit(&c->slots[slot].bus_number, memory_order_relaxed);
    summary &= (1u << (BW_MAILBOXES / 64)) - 1;
    while (summary) {
        unsigned i = (unsigned)__builtin_ctzll(summary);
        summary &= summary - 1;
        atomic_fetch_and_explicit(&w->cls[cls].summary, ~(UINT64_C(1) << i), memory_order_acq_rel);
        uint64_t boxes = atomic_exchange_explicit(&w->cls[cls].interest[i], 0, memory_order_acq_rel);
        BW_KILL_POINT("wake.taken");
        while (boxes) {
            unsigned j = (unsigned)__builtin_ctzll(boxes);
            boxes &= boxes - 1;
            bw_notify(c->mail, i * 64 + j, number);
        }
    }
}

void bw_wake(bw_control *c, uint32_t slot, bw_wait_class cls)
{
    if (cls == BW_WAIT_STATE) {
        _Atomic uint32_t *word = &c->slots[slot].state_word;
        atomic_fetch_add_explicit(word, 1, memory_order_seq_cst);
        bw_os_futex_wake(word, INT_MAX);
    }
    if (c->asymmetric && cls == BW_WAIT_TAIL) atomic_signal_fence(memory_order_seq_cst); /* W1 */
    else atomic_thread_fence(memory_order_seq_cst);
    uint64_t summary = atomic_load_explicit(&c->waits[slot].cls[cls].summary, memory_order_relaxed);
    if (__builtin_expect(summary != 0, 0)) wake_interested(c, slot, cls, summary);
}

void bw_wake_all_boxes(bw_mail *m, uint32_t count, uint32_t number)
{
    uint32_t have = atomic_load_explicit(&m->header->slots, memory_order_acquire);
    if (count > have) count = have;
    for (uint32_t i = 0; i < count && i < BW_MAILBOXES; i++) {
        box_mark(bw_mail_box(m, i), number);
        box_signal(bw_mail_box(m, i), true);
    }
}

void bw_arm(bw_control *c, uint32_t slot, bw_wait_class cls, uint32_t mailbox)
{
    bw_wait_slot *w = &c->waits[slot];
    uint32_t i = mailbox / 64;
    atomic_fetch_or_explicit(&w->cls[cls].interest[i], UINT64_C(1) << (mailbox % 64), memory_order_seq_cst);
    atomic_fetch_or_explicit(&w->cls[cls].summary, UINT64_C(1) << i, memory_order_seq_cst);
}

void bw_arm_fence(bool asymmetric)
{
    atomic_thread_fence(memory_order_seq_cst); /* W2 */
    if (asymmetric) bw_os_membarrier(); /* it worked when this process attached; if ever not, the audit finds what was missed */
}

void bw_disarm(bw_control *c, uint32_t slot, bw_wait_class cls, uint32_t mailbox)
{
    /* The summary bit stays: it is a hint, and another box of the same word may be armed. */
    atomic_fetch_and_explicit(&c->waits[slot].cls[cls].interest[mailbox / 64], ~(UINT64_C(1) << (mailbox % 64)),
                              memory_order_acq_rel);
}

size_t bw_mailbox_drain(bw_mailbox *b, uint32_t *numbers, size_t cap)
{
    size_t n = 0;
    for (uint32_t k = 0; k < sizeof b->l1 / sizeof b->l1[0] && n < cap; k++) {
        if (atomic_load_explicit(&b->l1[k], memory_order_relaxed) == 0) continue;
        uint64_t words = atomic_exchange_explicit(&b->l1[k], 0, memory_order_acq_rel);
        while (words) {
            unsigned i = (unsigned)__builtin_ctzll(words);
            if (n + 64 > cap && n > 0) { /* the rest stays marked */
                atomic_fetch_or_explicit(&b->l1[k], words, memory_order_acq_rel);
                return n;
            }
            words &= words - 1;
            uint32_t word = k * 64 + i;
            uint64_t bits = atomic_exchange_explicit(&b->l0[word], 0, memory_order_acq_rel);
            while (bits && n < cap) {
                numbers[n++] = word * 64 + (unsigned)__builtin_ctzll(bits);
                bits &= bits - 1;
            }
            if (bits) {
                atomic_fetch_or_explicit(&b->l0[word], bits, memory_order_acq_rel);
                atomic_fetch_or_explicit(&b->l1[k], words | UINT64_C(1) << i, memory_order_acq_rel);
                return n;
            }
        }
    }
    return n;
}

static bool box_has_news(bw_mailbox *b)
{
    for (size_t k = 0; k < sizeof b->l1 / sizeof b->l1[0]; k++)
        if (atomic_load_explicit(&b->l1[k], memory_order_acquire)) return true;
    return atomic_load_explicit(&b->poked, memory_order_acquire) && atomic_exchange_explicit(&b->poked, 0, memory_order_acq_rel);
}

bool bw_mailbox_sleep(bw_mailbox *b, bw_deadline deadline)
{
    for (;;) {
        uint32_t w = atomic_load_explicit(&b->word, memory_order_acquire) & ~1u;
        if (box_has_news(b)) return true;
        int64_t left = bw_deadline_left_ns(deadline);
        if (left == 0) return false;
        uint32_t expected = w;
        if (!atomic_compare_exchange_strong_explicit(&b->word, &expected, w | 1, memory_order_seq_cst, memory_order_seq_cst)) {
            if (expected == (w | 1)) atomic_fetch_and_explicit(&b->word, ~1u, memory_order_seq_cst); /* a dead owner's */
            continue;
        }
        bw_os_futex_wait(&b->word, w | 1, left);
        atomic_fetch_and_explicit(&b->word, ~1u, memory_order_seq_cst);
    }
}

bool bw_mailbox_lie_down(bw_mailbox *b, uint32_t *value)
{
    uint32_t w = atomic_load_explicit(&b->word, memory_order_acquire);
    if (box_has_news(b)) return false;
    *value = w | 1;
    return (w & 1) || atomic_compare_exchange_strong_explicit(&b->word, &w, w | 1, memory_order_seq_cst, memory_order_seq_cst);
}

void bw_mailbox_poke(bw_mailbox *b)
{
    atomic_store_explicit(&b->poked, 1, memory_order_release);
    box_signal(b, false);
}

bool bw_slot_wait(const bw_tail_slot *s, bool (*cond)(const bw_tail_slot *, uint64_t), uint64_t arg, bw_deadline deadline)
{
    for (;;) {
        uint32_t w = atomic_load_explicit(&s->state_word, memory_order_acquire);
        if (cond(s, arg)) return true;
        int64_t left = bw_deadline_left_ns(deadline);
        if (left == 0) return false;
        bw_os_futex_wait(&s->state_word, w, left < SLOT_NAP_NS ? left : SLOT_NAP_NS);
    }
}

static bool was_opened(const bw_tail_slot *s, uint64_t ignored)
{
    (void)ignored;
    return atomic_load_explicit(&s->state, memory_order_acquire) != BW_SLOT_UNOPENED;
}

bw_err bw_slot_await_opened(bw_control *c, uint32_t slot)
{
    const bw_tail_slot *s = &c->slots[slot];
    if (was_opened(s, 0)) return BW_OK;
    bw_deadline end = bw_deadline_in_ms(OPENING_MOST_MS);
    while (!atomic_load_explicit(&c->header->retired, memory_order_acquire)) {
        bw_notify(c->mail, BW_MAILBOX_COORDINATOR, atomic_load_explicit(&s->bus_number, memory_order_relaxed));
        bw_deadline slice = bw_deadline_in_ms(OPENING_SLICE_MS);
        if (bw_slot_wait(s, was_opened, 0, slice < end ? slice : end)) return BW_OK;
        if (bw_deadline_left_ns(end) == 0)
            return bw_fail(BW_ERR_NO_COORDINATOR, "partition %u: the daemon has not opened it yet", slot);
    }
    return bw_fail(BW_ERR_RETIRED, "the control data was replaced; attach again");
}

bool bw_slot_is_settled(const bw_tail_slot *s, uint64_t end)
{
    return atomic_load_explicit(&s->durable, memory_order_acquire) >= end ||
           atomic_load_explicit(&s->state, memory_order_acquire) != BW_SLOT_OPEN;
}
