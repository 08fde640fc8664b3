/* sync.pml: the durable watermark, poisoning and takeover (src/log/partition_sync.c, src/log/partition_takeover.c), labels S1, S2, F3.
 *
 * NW writers append pages under the lock (store the page, then publish the tail) and roll into the spare when a segment is full.
 * The kernel writes dirty pages back when it likes; a writeback may fail (FAILS times): the page is then clean in memory and not on
 * the disk, and only descriptors that are open at that moment will ever be told, once. The coordinator syncs on descriptors that
 * it holds; it may be killed before any step (KILLS times), its descriptors close, and the next one takes over.
 *
 * What must hold: whatever lies below the durable watermark is on the disk (asserted where it moves, S2).
 *
 * Seeded bugs, each of which must be found: BUG_WATERMARK_FIRST BUG_RETRY BUG_NEWEST_ONLY BUG_NO_SPARE_FD BUG_NO_LOCK BUG_NO_VERIFY
 * BUG_SKIP_IF_EQUAL BUG_LATE_TARGET BUG_CLOSE_ROLLED BUG_SPARE_FD_LATE. */

#ifndef NW
#define NW 2
#endif
#ifndef NB
#define NB 2
#endif
#ifndef SEG
#define SEG 1
#endif
#ifndef FAILS
#define FAILS 1
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define PAGES (NW * NB)
#define SEQS (PAGES + 3)
#define POSITION(seq, pos) ((seq) * 4 + (pos))
#define SEQ(t) ((t) >> 2)
#define POS(t) ((t) & 3)
#define PAGE(seq, pos) ((seq) * SEG + (pos))

#define DIRTY 1
#define ON_DISK 2
#define LOST 3

/* the slot */
byte lock;              /* 1: a writer, 2: the coordinator */
byte tail = POSITION(1, 0);
byte durable = POSITION(1, 0);
byte spare_seq;
bool poisoned;

/* the files and the kernel */
byte page[SEQS * SEG];  /* 0, DIRTY, ON_DISK, LOST */
bool fd[SEQS];          /* the coordinator's descriptor is open */
bool fd_error[SEQS];    /* it has an error to report, once */
byte fails;

bool coordinator_dead;
byte kills;
byte finished;
bool over;              /* the coordinator ended, or poisoned the partition */

proctype Writer() {
    byte n = 0, t = 0;
    do
    :: n < NB && !poisoned ->
        atomic { lock == 0 -> lock = 1 };
        t = tail;
        if
        :: POS(t) == SEG && spare_seq == SEQ(t) + 1 ->
            tail = POSITION(SEQ(t) + 1, 0); /* P2 */
            spare_seq = 0;
            lock = 0
        :: POS(t) == SEG && spare_seq != SEQ(t) + 1 ->
            lock = 0;
            spare_seq == SEQ(t) + 1 || SEQ(tail) != SEQ(t) || poisoned
        :: else ->
            page[PAGE(SEQ(t), POS(t))] = DIRTY;
            tail = t + 1;                   /* P1 */
            lock = 0;
            n++
        fi;
        t = 0
    :: else -> break
    od;
    finished++
}

/* Writeback of one dirty page: it reaches the disk, or is lost and whoever has the file open will be told once. */
#define KERNEL(k) \
    :: d_step { k < SEQS * SEG && page[k] == DIRTY -> page[k] = ON_DISK } \
    :: d_step { k < SEQS * SEG && page[k] == DIRTY && fails < FAILS -> \
                page[k] = LOST; fails++; fd_error[(k) / SEG] = fd_error[(k) / SEG] || fd[(k) / SEG] }
proctype Kernel() {
end:
    do
    KERNEL(1)
    KERNEL(2)
    KERNEL(3)
    KERNEL(4)
    KERNEL(5)
    KERNEL(6)
    od
}

inline lock_slot() { atomic { lock == 0 -> lock = 2 } }
inline unlock_slot() { lock = 0 }
inline open_fd(s) {
    if
    :: !fd[s] -> d_step { fd[s] = true; fd_error[s] = false }
    :: else
    fi
}

/* fdatasync: what is dirty is written; an error is told once. */
inline fdatasync(s) {
    atomic {
        i = 0;
        do
        :: i < SEG && page[PAGE(s, i)] == DIRTY ->
            if
            :: page[PAGE(s, i)] = ON_DISK
            :: fails < FAILS -> page[PAGE(s, i)] = LOST; fails++; fd_error[s] = fd[s]
            fi;
            i++
        :: i < SEG && page[PAGE(s, i)] != DIRTY -> i++
        :: else -> break
        od;
        i = 0;
        failed = failed || fd_error[s];
        fd_error[s] = false
    }
}

/* Every segment that may hold something between durable and target. */
inline sync_up_to(target) {
#ifdef BUG_NEWEST_ONLY
    seq = SEQ(target);
#else
    seq = SEQ(durable);
#endif
    failed = false;
    do
    :: seq <= SEQ(target) && !failed ->
        fdatasync(seq);
#ifdef BUG_RETRY
        if
        :: failed -> failed = false; fdatasync(seq)
        :: else
        fi;
#endif
        seq++
    :: else -> break
    od;
    seq = 0
}

inline move_watermark(target) {
    d_step { /* S2 */
        durable = target;
        seq = 1;
        do
        :: seq <= SEQ(target) ->
            i = 0;
            do
            :: i < (seq == SEQ(target) -> POS(target) : SEG) -> assert(page[PAGE(seq, i)] == ON_DISK); i++
            :: else -> break
            od;
            seq++
        :: else -> break
        od;
        seq = 0; i = 0
    }
}

/* What O_DIRECT reads: is (durable, target] really there? */
inline verify(target) {
    d_step {
        seq = SEQ(durable);
        do
        :: seq <= SEQ(target) ->
            i = (seq == SEQ(durable) -> POS(durable) : 0);
            do
            :: i < (seq == SEQ(target) -> POS(target) : SEG) -> failed = failed || page[PAGE(seq, i)] != ON_DISK; i++
            :: else -> break
            od;
            seq++
        :: else -> break
        od;
        seq = 0; i = 0
    }
}

proctype Coordinator() {
    byte t = 0, seq = 0, i = 0;
    bool failed = false;
start:
    { seq = 0;
    /* takeover, F3 */
    if
    :: poisoned -> goto halt
    :: else
    fi;
#ifdef BUG_SKIP_IF_EQUAL
    t = tail;
    if
    :: durable == t -> open_fd(SEQ(t)); goto working
    :: else
    fi;
#endif
reopen:
    t = tail;
    seq = SEQ(durable);
    do
    :: seq <= SEQ(t) -> open_fd(seq); seq++
    :: else -> break
    od;
    seq = 0;
#ifndef BUG_NO_SPARE_FD
    seq = spare_seq;
    if
    :: seq != 0 -> open_fd(seq)
    :: else
    fi;
    seq = 0;
#endif
#ifdef BUG_NO_LOCK
    t = tail;
#else
    lock_slot();
    t = tail;
    unlock_slot();
#endif
    if
    :: !fd[SEQ(t)] -> goto reopen
    :: else
    fi;
    sync_up_to(t);
#ifndef BUG_NO_VERIFY
    verify(t);
#endif
    if
    :: failed -> poisoned = true; goto halt
    :: else -> move_watermark(t)
    fi;
working:
    do
    :: durable != tail ->
        t = tail; /* S1 */
#if defined(BUG_NO_SPARE_FD) || defined(BUG_SPARE_FD_LATE) || defined(BUG_CLOSE_ROLLED) || defined(BUG_SKIP_IF_EQUAL)
        seq = SEQ(durable);
        do
        :: seq <= SEQ(t) -> open_fd(seq); seq++
        :: else -> break
        od;
#endif
#ifdef BUG_WATERMARK_FIRST
        move_watermark(t);
#endif
        sync_up_to(t);
#ifdef BUG_LATE_TARGET
        t = tail;
#endif
        if
        :: failed -> poisoned = true; goto halt
        :: else -> move_watermark(t)
        fi;
        t = 0
    :: spare_seq != SEQ(tail) + 1 && SEQ(tail) < SEQS - 2 ->
        seq = SEQ(tail) + 1;
#ifndef BUG_SPARE_FD_LATE
        open_fd(seq);
#endif
        lock_slot();
        if
        :: SEQ(tail) + 1 == seq -> spare_seq = seq /* C2 */
        :: else
        fi;
        unlock_slot();
        seq = 0
    :: finished == NW && durable == tail -> break
#ifdef BUG_CLOSE_ROLLED
    :: SEQ(tail) > SEQ(durable) && fd[SEQ(durable)] -> d_step { fd[SEQ(durable)] = false; fd_error[SEQ(durable)] = false }
#endif
    od;
halt:
    over = true
    } unless { coordinator_dead };
    if
    :: over
    :: else -> /* the kernel closes what it had; the next one starts */
        atomic {
            seq = 0;
            do
            :: seq < SEQS -> fd[seq] = false; fd_error[seq] = false; seq++
            :: else -> break
            od;
            seq = 0; t = 0; i = 0; failed = false;
            lock = (lock == 2 -> 0 : lock);
            coordinator_dead = false
        };
        goto start
    fi
}

proctype Killer() {
end:
    do
    :: d_step { kills < KILLS && !over && !coordinator_dead -> coordinator_dead = true; kills++ }
    od
}

init {
    byte i = 0;
    atomic {
        do
        :: i < NW -> run Writer(); i++
        :: else -> break
        od;
        i = 0;
        run Kernel();
        run Coordinator();
        run Killer()
    }
}
