/* log/wait.h: sleeping for many partitions at once, and waking. Protocol and proof: tests/model, and the comment in wait.c.
 *
 * A consumer owns one mailbox. To sleep: arm every partition that it has drained, fence, look once more, then sleep on the
 * mailbox word. A publisher that finds nobody armed pays a load (and a fence where
 * membarrier(2) is missing), and makes no system call. */
#ifndef BW_LOG_WAIT_H
#define BW_LOG_WAIT_H

#include "base/clock.h"
#include "log/control.h"

/* bw_wake: tell everyone who is armed on (slot, class). After every publication. */
void bw_wake(bw_control *c, uint32_t slot, bw_wait_class cls);
/* bw_notify: put bus partition `number` into one mailbox and wake its owner (the coordinator's: "look at this partition"). */
void bw_notify(bw_mail *m, uint32_t mailbox, uint32_t number);
/* bw_wake_all_boxes: the coordinator does a dead writer's wakes: bit into every one of the boxes [0, count), always futex_wake. */
void bw_wake_all_boxes(bw_mail *m, uint32_t count, uint32_t number);

/* bw_arm: ask for one wake on (slot, class). Call bw_arm_fence once after a round of arms, then look at the slots again.
 * asymmetric: of the controls that were armed (one generation): the fence is one for the publishers, too (a system call). */
void bw_arm(bw_control *c, uint32_t slot, bw_wait_class cls, uint32_t mailbox);
void bw_arm_fence(bool asymmetric);
void bw_disarm(bw_control *c, uint32_t slot, bw_wait_class cls, uint32_t mailbox);

/* bw_mailbox_drain: take up to cap bus partition numbers that were notified. Returns how many. Owner thread only. */
size_t bw_mailbox_drain(bw_mailbox *b, uint32_t *numbers, size_t cap);
/* bw_mailbox_sleep: sleep until notified, poked, or the deadline; returns at once when something is ready. The caller bounds the
 * deadline (1 s; 100 ms without a coordinator) and audits afterwards. true: notified; false: the deadline. */
bool bw_mailbox_sleep(bw_mailbox *b, bw_deadline deadline);
/* bw_mailbox_lie_down: the first half of a sleep, for who waits for box->word by other means than bw_mailbox_sleep (base/bell.h): from now
 * on publishers wake the word. true: it is *value, and nothing was there; false: look first. Owner thread only. */
bool bw_mailbox_lie_down(bw_mailbox *b, uint32_t *value);
/* bw_mailbox_poke: wake the owner without any partition (another thread has work for it). Async-signal-safe. */
void bw_mailbox_poke(bw_mailbox *b);

/* bw_slot_wait: a bounded wait of a writer for the coordinator (capacity, spare, durable, state): sleeps on the slot's state_word,
 * at most 100 ms at a time, then looks again. Needs no mailbox. true: cond holds. */
bool bw_slot_wait(const bw_tail_slot *s, bool (*cond)(const bw_tail_slot *, uint64_t), uint64_t arg, bw_deadline deadline);
/* bw_slot_await_opened: before the first use of a slot: asks the coordinator to make it from the files, if that was not done yet, and
 * waits for it. NO_COORDINATOR after a while, RETIRED. */
bw_err bw_slot_await_opened(bw_control *c, uint32_t slot);
/* bw_slot_is_settled: for bw_slot_wait: `end` is durable, or never will be (poisoned, deleted, retired). */
bool bw_slot_is_settled(const bw_tail_slot *s, uint64_t end);

#endif
