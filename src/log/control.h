/* log/control.h: the shared control data of topics (tail and wait arenas) and the mail file, mapped into this process.
 * Layout: format/control_page.h.
 *
 * Rules: map once; a bw_control is unmapped only by bw_control_close, which the owner calls when no lock can be held through it.
 * Arenas are MADV_DONTFORK. Who may write is decided by file modes and checked here (owner, mode, layout, boot, namespace). */
#ifndef BW_LOG_CONTROL_H
#define BW_LOG_CONTROL_H

#include "base/err.h"
#include "format/control_page.h"

#include <stdbool.h>

typedef enum bw_control_mode {
    BW_CONTROL_READ = 0,  /* tail read-only, wait read-write */
    BW_CONTROL_WRITE = 1, /* both read-write; the data owner's uid only */
} bw_control_mode;

typedef struct bw_mail {
    bw_control_header *header;
    uint8_t *base; /* of mailbox 0 */
    size_t map_bytes;
    bw_control_header *owners_header; /* the writers file; NULL: this process may not write */
    bw_owner_record *owners;
    bw_bias_record *biases;
    bool owners_pinned; /* a thread of this process holds a record: never unmapped */
} bw_mail;

typedef struct bw_control {
    bw_control_header *header; /* tail arena's header (read-only for readers) */
    bw_tail_slot *slots;
    bw_wait_slot *waits;
    bw_mail *mail; /* not owned */
    void *tail_map, *wait_map;
    size_t tail_bytes, wait_bytes;
    bw_control_mode mode;
    bool asymmetric; /* as header says */
} bw_control;

static inline bw_mailbox *bw_mail_box(const bw_mail *m, uint32_t number)
{
    return (bw_mailbox *)(void *)(m->base + (size_t)number * BW_MAILBOX_STRIDE);
}

/* -- coordinator: make -- dir_fd is the generation's folder. */
/* bw_mail_create: the mail file and the writers file. Generations are asymmetric (base/bias.h) where membarrier(2) works. */
bw_err bw_mail_create(int dir_fd, const uint8_t generation[16], bw_mail **out);
/* bw_mail_allocate: back mailbox `number` with memory before anyone touches it. DISK_FULL when the tmpfs is full. */
bw_err bw_mail_allocate(int dir_fd, bw_mail *m, uint32_t number);
/* bw_control_create: new arenas with `slots` slots, all zero but their mutexes; the caller fills each slot and only then
 * publishes it with bw_control_publish. bw_control_grow adds unpublished slots to an existing one. */
bw_err bw_control_create(int dir_fd, const uint8_t generation[16], const bw_uuid *topic, bw_mail *mail, uint32_t slots,
                         bw_control **out);
bw_err bw_control_grow(int dir_fd, bw_control *c, uint32_t slots);
void bw_control_publish(bw_control *c, uint32_t slots);
void bw_control_remove(int dir_fd, const bw_uuid *topic); /* unlink; marks retired first if it can be mapped */

/* -- everyone: attach -- Errors say what differs: NOT_PERMITTED (mode, owner, PID namespace), UNSUPPORTED (layout, libc, word
 * or page size), RETIRED (other generation or boot), NOT_FOUND. */
bw_err bw_mail_attach(int dir_fd, const uint8_t generation[16], bw_mail **out);
bw_err bw_control_attach(int dir_fd, const uint8_t generation[16], const bw_uuid *topic, bw_control_mode mode, bw_mail *mail,
                         bw_control **out);
void bw_mail_close(bw_mail *m);
void bw_control_close(bw_control *c);

/* bw_slot_end_offset: the offset behind the last visible record, without the lock (a seqlock read over tail, intent, next_offset;
 * falls back to next_offset after some tries). */
int64_t bw_slot_end_offset(const bw_tail_slot *s);

#endif
