/* log/owners.c: owner records, bias records, revocation. See owners.h; the order of stores that exclude is in base/bias.h.
 *
 * Invariants: an owner record's mutex is held by a live thread that got a bias, or lockable. A bias record is free (owner 0), of an
 * owner record, or DEAD; only who holds that owner record's mutex may turn it from the dead owner's into DEAD, and it does so before
 * the owner record is used again, so that a live successor never vouches for its predecessor. */
#include "log/owners.h"

#include "base/cpu.h"
#include "base/killpoint.h"
#include "base/lock.h"
#include "base/os.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    SPINS = 2000, /* an append is over sooner than a sleep */
    NAP_NS = 50000,
};
#define INDEX_MASK 0xffffu /* of an id: bias record + 1; above it a count */

struct bw_owners {
    bw_mail *mail;
    pthread_mutex_t mutex;      /* the bits */
    uint64_t ours[BW_OWNERS / 64]; /* owner records of this process's threads */
};

/* ---- owner records ---- */

/* With the owner record's mutex held by us: what its former holder left. */
static void disown(bw_mail *m, uint32_t number)
{
    for (uint32_t i = 0; i < BW_BIASES; i++) {
        bw_bias_record *r = &m->biases[i];
        if (atomic_load_explicit(&r->owner, memory_order_acquire) != number + 1) continue;
        bool inside = atomic_load_explicit(&r->busy, memory_order_acquire) != 0;
        atomic_store_explicit(&r->owner, inside ? BW_BIAS_DEAD : 0, memory_order_release);
    }
}

typedef enum taken { TAKEN, OURS_ALREADY, ALIVE } taken;

/* Locks an owner record whose holder is gone. */
static taken take_record(bw_mail *m, uint32_t number)
{
    bw_owner_record *r = &m->owners[number];
    bw_lock_result l = bw_lock(&r->alive, 0);
    if (l == BW_LOCK_RECURSION) return OURS_ALREADY;
    if (l != BW_LOCK_OK && l != BW_LOCK_OWNER_DIED) return ALIVE;
    BW_KILL_POINT("owner.taken");
    disown(m, number);
    if (l == BW_LOCK_OWNER_DIED) bw_lock_make_consistent(&r->alive);
    return TAKEN;
}

/* The calling thread's owner record; false: all are in use. Those of this process first: this thread may have one. */
static bool own_record(bw_owners *o, uint32_t *number)
{
    bool found = false;
    pthread_mutex_lock(&o->mutex);
    for (uint32_t pass = 0; pass < 2 && !found; pass++) {
        for (uint32_t i = 0; i < BW_OWNERS && !found; i++) {
            bool known = o->ours[i / 64] >> (i % 64) & 1;
            if (known != (pass == 0) || take_record(o->mail, i) == ALIVE) continue;
            o->ours[i / 64] |= UINT64_C(1) << (i % 64);
            atomic_store_explicit(&o->mail->owners[i].pid, (uint32_t)getpid(), memory_order_relaxed);
            *number = i;
            found = true;
        }
    }
    pthread_mutex_unlock(&o->mutex);
    return found;
}

bw_err bw_owners_open(bw_mail *mail, bw_owners **out)
{
    if (!mail->owners || !mail->owners_header->asymmetric)
        return bw_fail(BW_ERR_UNSUPPORTED, "locks are not biased here: no membarrier(2)");
    bw_owners *o = calloc(1, sizeof *o);
    if (!o) return bw_fail(BW_ERR_NO_MEMORY, "no memory for owner records");
    o->mail = mail;
    pthread_mutex_init(&o->mutex, NULL);
    *out = o;
    return BW_OK;
}

void bw_owners_close(bw_owners *o)
{
    if (!o) return;
    for (uint32_t i = 0; i < BW_OWNERS; i++) {
        if (!(o->ours[i / 64] >> (i % 64) & 1)) continue;
        if (take_record(o->mail, i) == ALIVE) {
            o->mail->owners_pinned = true;
            continue;
        }
        disown(o->mail, i);
        bw_unlock(&o->mail->owners[i].alive);
    }
    pthread_mutex_destroy(&o->mutex);
    free(o);
}

/* ---- biases ---- */

static bw_bias_record *record_of(bw_mail *m, uint64_t id)
{
    uint32_t index = (uint32_t)(id & INDEX_MASK);
    return m->biases && index >= 1 && index <= BW_BIASES ? &m->biases[index - 1] : NULL;
}

static uint64_t id_of(const bw_mail *m, const bw_bias_record *r, uint64_t given)
{
    return (given << 16 & ~BW_BIAS_REVOKED) | (uint64_t)(r - m->biases + 1);
}

/* Is the record somebody else's by now? Then whom the id names has left for good. */
static bool passed_on(const bw_mail *m, const bw_bias_record *r, uint64_t id)
{
    return id_of(m, r, atomic_load_explicit(&r->given, memory_order_acquire)) != (id & ~BW_BIAS_REVOKED);
}

static bool claim_bias(bw_owners *o, bw_bias *b)
{
    uint32_t owner;
    if (!own_record(o, &owner)) return false;
    for (uint32_t i = 0; i < BW_BIASES; i++) {
        bw_bias_record *r = &o->mail->biases[i];
        uint32_t none = 0;
        if (atomic_load_explicit(&r->owner, memory_order_relaxed) != 0) continue;
        if (!atomic_compare_exchange_strong_explicit(&r->owner, &none, owner + 1, memory_order_acq_rel, memory_order_relaxed))
            continue;
        b->record = r;
        b->thread = (uintptr_t)pthread_self();
        return true;
    }
    return false;
}

bool bw_bias_give(bw_tail_slot *s, bw_owners *o, bw_bias *b)
{
    if (b->record && b->thread != (uintptr_t)pthread_self()) { /* it lies with another thread's life */
        atomic_store_explicit(&b->record->owner, 0, memory_order_release);
        b->record = NULL;
    }
    if (!b->record && !claim_bias(o, b)) return false;
    b->id = id_of(o->mail, b->record, atomic_fetch_add_explicit(&b->record->given, 1, memory_order_acq_rel) + 1);
    atomic_store_explicit(&s->bias, b->id, memory_order_release);
    BW_KILL_POINT("bias.given");
    return true;
}

void bw_bias_drop(bw_tail_slot *s, bw_bias *b)
{
    if (!b->record) return;
    uint64_t mine = b->id; /* a revoker at work sees that nobody is inside, whatever becomes of the record */
    atomic_compare_exchange_strong_explicit(&s->bias, &mine, 0, memory_order_acq_rel, memory_order_relaxed);
    atomic_store_explicit(&b->record->owner, 0, memory_order_release);
    *b = (bw_bias){0};
}

/* Is whoever the record belongs to gone for ever? Then the record says so, too. */
static bool owner_is_gone(bw_mail *m, bw_bias_record *r)
{
    uint32_t owner = atomic_load_explicit(&r->owner, memory_order_acquire);
    if (owner == BW_BIAS_DEAD || owner == 0 || owner > BW_OWNERS) return true;
    taken t = take_record(m, owner - 1);
    if (t == TAKEN) bw_unlock(&m->owners[owner - 1].alive);
    return t == TAKEN; /* ours already: another appender of this thread is inside? It can't be, and it lives */
}

bw_revoked bw_bias_revoke(bw_tail_slot *s, bw_mail *mail, bw_deadline deadline, uint32_t *pid)
{
    uint64_t id = atomic_load_explicit(&s->bias, memory_order_acquire);
    bw_bias_record *r = record_of(mail, id);
    if (!r) { /* can't be; nobody could be inside by it */
        atomic_store_explicit(&s->bias, 0, memory_order_release);
        return BW_REVOKED;
    }
    atomic_store_explicit(&s->bias, id | BW_BIAS_REVOKED, memory_order_seq_cst); /* B3 */
    BW_KILL_POINT("bias.revoking");
    while (!bw_os_membarrier()) { /* B4; it worked when this process attached, so it will again */
        if (bw_deadline_left_ns(deadline) == 0) return BW_REVOKE_TIMED_OUT;
        bw_os_futex_wait(&r->busy, 1, NAP_NS);
    }
    for (uint32_t turn = 0;; turn++) {
        if (atomic_load_explicit(&r->busy, memory_order_acquire) == 0 || passed_on(mail, r, id)) break; /* B5 */
        if (turn < SPINS) {
            bw_cpu_relax();
            continue;
        }
        if (owner_is_gone(mail, r)) {
            if (atomic_load_explicit(&r->busy, memory_order_acquire) != 0 && !passed_on(mail, r, id)) return BW_REVOKED_DEAD;
            break;
        }
        if (bw_deadline_left_ns(deadline) == 0) {
            uint32_t owner = atomic_load_explicit(&r->owner, memory_order_relaxed);
            *pid = owner >= 1 && owner <= BW_OWNERS ? atomic_load_explicit(&mail->owners[owner - 1].pid, memory_order_relaxed) : 0;
            return BW_REVOKE_TIMED_OUT;
        }
        bw_os_futex_wait(&r->busy, 1, NAP_NS);
    }
    atomic_store_explicit(&s->bias, 0, memory_order_release);
    BW_KILL_POINT("bias.revoked");
    return BW_REVOKED;
}

void bw_bias_bury(bw_tail_slot *s, bw_mail *mail)
{
    uint64_t id = atomic_load_explicit(&s->bias, memory_order_relaxed);
    bw_bias_record *r = record_of(mail, id);
    BW_KILL_POINT("bias.dead");
    atomic_store_explicit(&s->bias, 0, memory_order_release);
    if (!r || passed_on(mail, r, id)) return;
    atomic_store_explicit(&r->busy, 0, memory_order_release);
    atomic_store_explicit(&r->owner, 0, memory_order_release);
}
