/* wait.pml: waking and sleeping (src/log/wait.c), labels W1..W3 as there.
 *
 * NW writers publish NPUB times each, writer i to partition i % NP; NC consumers sleep on all NP partitions, one mailbox each.
 * A writer may be killed before any step; the coordinator then does its wakes. Nobody ever times out here: a consumer that
 * sleeps for ever with something unread is an invalid end state, which is what spin looks for. The caps and audits of the real
 * sleep are a second net that the protocol must not need.
 *
 * Memory: a publisher's store of the tail (with the unlock behind it) and a sleeper's arming sit in a store buffer that drains at
 * any later time; the fences W1 and W2 wait for it. That is weaker than x86, where the arming instruction is itself a fence, and
 * for these pairs as weak as ARM. Read-modify-writes of mailbox and wait slot are one step each, in program order.
 *
 * Seeded bugs, each of which must be found: BUG_NO_W1 BUG_NO_W2 BUG_NO_W3 BUG_NO_BUMP BUG_TAKE_ORDER BUG_ARM_ORDER BUG_MARK_ORDER
 * BUG_NO_DEAD_WAKE BUG_DEAD_PLAIN_WAKE BUG_WAKE_FIRST BUG_NO_REARM BUG_NO_CAS, with ASYMMETRIC also BUG_W2_LOCAL.
 *
 * ASYMMETRIC: W1 orders the compiler only, and W2 is membarrier(2), which waits until the publishers' stores are in memory, too. */

#ifndef NW
#define NW 2
#endif
#ifndef NPUB
#define NPUB 2
#endif
#ifndef NP
#define NP 2
#endif
#ifndef NC
#define NC 1
#endif
#ifndef KILLS
#define KILLS 1
#endif

#define PART(w) ((w) % NP)
#define BIT(n) (1 << (n))

/* memory */
byte tail[NP];          /* records published to the partition */
bool summary[NP];       /* one word of interest bits stands for the sixteen */
byte interest[NP];      /* bit c: consumer c's mailbox */
byte word[NC];          /* bit 0: asleep; counted in twos */
bool l1[NC];
byte l0[NC];            /* bit p */
bool queued[NC];        /* asleep in the futex */
byte lock[NP];          /* the partition's robust lock: writer + 1 */

/* store buffers */
byte pend_tail[NW];     /* 0: empty, else the value */
byte pend_interest[NC]; /* bit p: that arming is on its way */
byte pend_summary[NC];

/* processes */
bool dead[NW];
bool done[NW];          /* finished, or dead and mourned */
byte kills;
byte seen[NC * NP];     /* what each consumer has read */

inline box_mark(c, p) {
#ifdef BUG_MARK_ORDER
    l1[c] = true;
    l0[c] = l0[c] | BIT(p);
#else
    l0[c] = l0[c] | BIT(p);
    l1[c] = true;
#endif
}

inline box_signal(c, always) {
#ifndef BUG_NO_BUMP
    word[c] = word[c] + 2;
#endif
    d_step { was = word[c] & 1; word[c] = word[c] & 254 };
    if
    :: was || always -> queued[c] = false
    :: else
    fi;
    was = 0
}

inline take(p) {
#ifdef BUG_TAKE_ORDER
    d_step { boxes = interest[p]; interest[p] = 0 };
    summary[p] = false
#else
    summary[p] = false;
    d_step { boxes = interest[p]; interest[p] = 0 }
#endif
}

inline wake(p) {
    if
    :: summary[p] ->
        take(p);
        if
        :: boxes & 1 -> box_mark(0, p); box_signal(0, false)
        :: else
        fi;
#if NC > 1
        if
        :: boxes & 2 -> box_mark(1, p); box_signal(1, false)
        :: else
        fi;
#endif
        boxes = 0
    :: else
    fi
}

proctype Writer(byte me) {
    byte n = 0, boxes = 0, was = 0;
    { do
    :: n < NPUB ->
        atomic {
            lock[PART(me)] == 0 || (dead[lock[PART(me)] - 1] && pend_tail[lock[PART(me)] - 1] == 0);
            lock[PART(me)] = me + 1
        };
#ifdef BUG_WAKE_FIRST
        wake(PART(me));
#endif
        pend_tail[me] = tail[PART(me)] + 1; /* P1, then the unlock: both on their way */
#ifndef BUG_WAKE_FIRST
#if !defined(BUG_NO_W1) && !defined(ASYMMETRIC)
        pend_tail[me] == 0;                 /* W1 */
#endif
        wake(PART(me));
#endif
        d_step { pend_tail[me] == 0 -> n++ }
    :: else -> break
    od;
    done[me] = true } unless { dead[me] }
}

/* Store buffers drain at any time. An arming drains interest before summary, as it was stored. */
#ifdef BUG_ARM_ORDER
#define INTEREST_MAY(c, p) !(pend_summary[c] & BIT(p))
#define SUMMARY_MAY(c, p) true
#else
#define INTEREST_MAY(c, p) true
#define SUMMARY_MAY(c, p) !(pend_interest[c] & BIT(p))
#endif
#define DRAIN_TAIL(w) \
    :: d_step { pend_tail[w] != 0 -> tail[PART(w)] = pend_tail[w]; pend_tail[w] = 0; lock[PART(w)] = 0 }
#define DRAIN_ARM(c, p) \
    :: d_step { (pend_interest[c] & BIT(p)) && INTEREST_MAY(c, p) -> \
                interest[p] = interest[p] | BIT(c); pend_interest[c] = pend_interest[c] & (255 - BIT(p)) } \
    :: d_step { (pend_summary[c] & BIT(p)) && SUMMARY_MAY(c, p) -> \
                summary[p] = true; pend_summary[c] = pend_summary[c] & (255 - BIT(p)) }

proctype Memory() {
end:
    do
    DRAIN_TAIL(0)
#if NW > 1
    DRAIN_TAIL(1)
#endif
#if NW > 2
    DRAIN_TAIL(2)
#endif
    DRAIN_ARM(0, 0)
#if NP > 1
    DRAIN_ARM(0, 1)
#endif
#if NC > 1
    DRAIN_ARM(1, 0)
#if NP > 1
    DRAIN_ARM(1, 1)
#endif
#endif
    od
}

#if NW > 2
#define WRITERS_DONE (done[0] && done[1] && done[2])
#elif NW > 1
#define WRITERS_DONE (done[0] && done[1])
#else
#define WRITERS_DONE (done[0])
#endif
#if NP > 1
#define ALL_READ(c) (seen[c * NP] == tail[0] && seen[c * NP + 1] == tail[1])
#else
#define ALL_READ(c) (seen[c * NP] == tail[0])
#endif

proctype Consumer(byte me) {
    byte ready = BIT(NP) - 1; /* partitions worth a look */
    byte drained = 0;
    byte p = 0;
    byte w = 0;
    bool armed = false;
look:
    drained = ready;
    do /* read what is there */
    :: p < NP && (ready & BIT(p)) -> seen[me * NP + p] = tail[p]; p++
    :: p < NP && !(ready & BIT(p)) -> p++
    :: else -> break
    od;
    atomic { p = 0; ready = 0 };
#ifdef BUG_NO_REARM
    if
    :: armed -> drained = 0
    :: else -> armed = true
    fi;
#endif
    d_step { pend_interest[me] = pend_interest[me] | drained; pend_summary[me] = pend_summary[me] | drained };
#ifndef BUG_NO_W2
    pend_interest[me] == 0 && pend_summary[me] == 0; /* W2 */
#if defined(ASYMMETRIC) && !defined(BUG_W2_LOCAL)
    pend_tail[0] == 0; /* membarrier: everybody's */
#if NW > 1
    pend_tail[1] == 0;
#endif
#if NW > 2
    pend_tail[2] == 0;
#endif
#endif
#endif
#ifndef BUG_NO_W3
    do /* W3: look again */
    :: p < NP && (drained & BIT(p)) && tail[p] != seen[me * NP + p] -> ready = ready | BIT(p); p++
    :: p < NP && !((drained & BIT(p)) && tail[p] != seen[me * NP + p]) -> p++
    :: else -> break
    od;
#endif
    atomic { p = 0; drained = 0 };
    if
    :: ready -> goto look
    :: else
    fi;
sleep:
    w = word[me] & 254;
    if
    :: l1[me] -> goto drain
    :: else
    fi;
#ifdef BUG_NO_CAS
    word[me] = word[me] | 1;
    w = word[me] & 254;
#else
    if
    :: d_step { word[me] == w -> word[me] = w | 1 }
    :: d_step { word[me] != w -> if :: word[me] == (w | 1) -> word[me] = w :: else fi; w = 0 } -> goto sleep
    fi;
#endif
    if
    :: d_step { word[me] == (w | 1) -> queued[me] = true }
    :: word[me] != (w | 1)
    fi;
    if
    :: !queued[me]
    :: WRITERS_DONE && queued[me] && ALL_READ(me) -> goto finished /* asleep for ever, and rightly so */
    fi;
    d_step { word[me] = word[me] & 254; w = 0 };
    goto sleep;
drain:
    atomic { l1[me] = false; w = 0 };
    d_step { ready = l0[me]; l0[me] = 0 };
    if
    :: ready -> goto look
    :: else -> goto sleep
    fi;
finished:
    skip
}

/* The coordinator learns of a death after the exit: the dead one's stores are in memory by then. */
proctype Mourner() {
    byte w = 0, boxes = 0, was = 0;
end:
    do
    :: d_step { dead[0] && !done[0] && pend_tail[0] == 0 -> w = 0 } -> goto mourn
#if NW > 1
    :: d_step { dead[1] && !done[1] && pend_tail[1] == 0 -> w = 1 } -> goto mourn
#endif
#if NW > 2
    :: d_step { dead[2] && !done[2] && pend_tail[2] == 0 -> w = 2 } -> goto mourn
#endif
    od;
mourn:
#ifdef BUG_DEAD_PLAIN_WAKE
    wake(PART(w));
#else
#ifndef BUG_NO_DEAD_WAKE
    box_mark(0, PART(w));
    box_signal(0, true);
#if NC > 1
    box_mark(1, PART(w));
    box_signal(1, true);
#endif
#endif
#endif
    atomic { done[w] = true; w = 0 };
    goto end
}

#define KILL(w) :: d_step { kills < KILLS && !dead[w] && !done[w] -> dead[w] = true; kills++ }

proctype Killer() {
end:
    do
    KILL(0)
#if NW > 1
    KILL(1)
#endif
#if NW > 2
    KILL(2)
#endif
    od
}

init {
    byte i = 0;
    atomic {
        do
        :: i < NW -> run Writer(i); i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < NC -> run Consumer(i); i++
        :: else -> break
        od;
        run Memory();
        run Mourner();
        run Killer();
    }
}
