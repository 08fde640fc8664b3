/* append.pml: append, roll, repair and read (src/log/append.c, src/log/read.c), labels P1, P2, R1, C1, C2, F1, F4, F6 as there.
 *
 * NW writers append NB batches each, each writer's one cell longer than the one's before; a segment has SEG cells, a fresh one SPARE of them
 * allocated. So the log rolls, grows and runs out of spares all the time. Each store to shared memory is a step; a writer may be
 * killed before any of them; whoever locks next repairs. The coordinator grants capacity and spares and links rolled segments.
 * Optionally (READER) a reader follows without a lock; the ring has only RING entries, so that it falls out of it and finds its
 * segment by name, walking to the first zero header.
 * With RESERVE the last writer reserves its place, commits less than it asked for, or aborts.
 *
 * What must hold: no store outside allocated space; a reader sees whole batches, each offset once, in order, for ever the same; at
 * the end, after the last repair, the log holds every acknowledged batch at its offset, none twice, nothing but zeros behind the
 * tail and behind each sealed end, and next_offset is right; and nobody is stuck (spin's invalid end states).
 *
 * Seeded bugs, each of which must be found: BUG_NO_ZERO BUG_COPY_FIRST BUG_PUBLISH_FIRST BUG_NO_CAPACITY BUG_GROW_LATE BUG_WINDOW (F4)
 * BUG_NO_ROLL_REDO (F1) BUG_NO_CONSISTENT BUG_INTENT_KEPT BUG_NO_NEXT BUG_TAIL_FIRST (in the roll) BUG_NO_RECHECK BUG_SHRINK_FIRST,
 * and BUG_SPARE_EQ0 with BUG_KEEP_SPARE: a spare asked for by "none published", and a repair that leaves a spent one; each of the
 * two alone is masked by the other. */

#ifndef NW
#define NW 2
#endif
#ifndef NB
#define NB 2
#endif
#ifndef SEG
#define SEG 2
#endif
#ifndef SPARE
#define SPARE 1
#endif
#ifndef FIRST
#define FIRST 1 /* cells of the first writer's batches; each next writer's are one longer */
#endif
#ifndef RING
#define RING 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define BATCHES (NW * NB)
#define SEQS (BATCHES + 2) /* 1 .. BATCHES + 1 */
#define POSITION(seq, pos) ((seq) * 8 + (pos))
#define SEQ(t) ((t) >> 3)
#define POS(t) ((t) & 7)
#define CELL(seq, pos) ((seq) * SEG + (pos))
#define COORDINATOR NW
#define DEAD_HOLDER (lock != 0 && lock <= NW + 1 && dead[lock - 1])

/* the slot */
byte lock;              /* holder + 1 */
bool repair_pending;
byte tail = POSITION(1, 0);
byte next_offset;
byte intent_end;
byte intent_base;
byte capacity = POSITION(1, SPARE);
byte capacity_request;
byte spare_seq;
byte ring_seq[RING];
byte ring_final[RING];

/* the files: which batch wrote a cell (0: zero), and the base offset in a batch's first cell */
byte cell[SEQS * SEG];
byte cell_base[SEQS * SEG];
byte allocated[SEQS];
byte linked = 1;

/* processes and what is known about them */
bool dead[NW + 1];
bool done[NW];
byte kills;
byte acked[BATCHES];    /* by offset: the batch that was told so */
byte read_as[BATCHES];  /* by offset: the batch that a reader was given */

short times;            /* the checker's: bit b: batch b was found */

#define RINGSLOT(seq) ((seq) % RING)
#ifdef RESERVE
#define LENGTH_READ(id) (((id) - 1) / NB == NW - 1 -> 1 : ((id) - 1) / NB + FIRST)
#else
#define LENGTH_READ(id) (((id) - 1) / NB + FIRST)
#endif
#ifdef BUG_SPARE_EQ0
#define WANT_SPARE (spare_seq == 0 && SEQ(tail) < SEQS - 1)
#else
#define WANT_SPARE (spare_seq != SEQ(tail) + 1 && SEQ(tail) < SEQS - 1)
#endif
#if NW > 2
#define FINISHED ((done[0] || dead[0]) && (done[1] || dead[1]) && (done[2] || dead[2]))
#elif NW > 1
#define FINISHED ((done[0] || dead[0]) && (done[1] || dead[1]))
#else
#define FINISHED (done[0] || dead[0])
#endif

/* A store into a segment; outside the allocation it would be SIGBUS. */
inline store_cell(seq, pos, value) {
    d_step { assert(pos < allocated[seq]); cell[CELL(seq, pos)] = value }
}

#ifdef BUG_NO_CONSISTENT
bool bricked; /* unlocked without having been made consistent: lost for ever */
inline unlock() { atomic { lock = (bricked -> 255 : 0) } }
#else
inline unlock() { lock = 0 }
#endif

/* bw_lock: a dead holder's lock is taken over; pending is raised before the lock is made consistent. */
inline take_lock(me) {
    atomic {
#ifdef BUG_NO_CONSISTENT
        lock == 0 || (DEAD_HOLDER && !bricked);
        bricked = bricked || lock != 0;
#else
        lock == 0 || DEAD_HOLDER;
#endif
        repair_pending = repair_pending || lock != 0;
        lock = me + 1
    }
}

/* ROLL(t); rolled tells. */
inline roll() {
    if
    :: spare_seq == SEQ(tail) + 1 && POS(tail) > 0 ->
        ring_final[RINGSLOT(SEQ(tail))] = POS(tail);
        ring_seq[RINGSLOT(SEQ(tail) + 1)] = 0;
        ring_final[RINGSLOT(SEQ(tail) + 1)] = 0;
#ifdef BUG_TAIL_FIRST
        tail = POSITION(SEQ(tail) + 1, 0);
        ring_seq[RINGSLOT(SEQ(tail))] = SEQ(tail);
        capacity = POSITION(SEQ(tail), SPARE);
#else
        ring_seq[RINGSLOT(SEQ(tail) + 1)] = SEQ(tail) + 1;
        capacity = POSITION(SEQ(tail) + 1, SPARE);
        tail = POSITION(SEQ(tail) + 1, 0); /* P2 */
#endif
        spare_seq = 0;
        rolled = true
    :: else -> rolled = false
    fi
}

/* REPAIR, with the window of segment hseq. */
inline repair() {
    if
    :: intent_end != 0 && tail >= intent_end ->
#ifndef BUG_NO_NEXT
        next_offset = intent_base + 1;
#endif
        intent_end = 0
    :: intent_end != 0 && tail < intent_end ->
        next_offset = intent_base;
#ifndef BUG_NO_ZERO
        i = POS(tail);
        do
        :: i < POS(intent_end) -> store_cell(hseq, i, 0); i++
        :: else -> break
        od;
#endif
        atomic { i = 0; intent_end = 0 }
    :: else
    fi;
    if
#ifndef BUG_NO_ROLL_REDO
    :: ring_seq[RINGSLOT(SEQ(tail) + 1)] == SEQ(tail) + 1 || SEQ(capacity) != SEQ(tail) -> /* F1 */
        roll();
        rolled = false
#endif
    :: else
    fi;
#ifndef BUG_KEEP_SPARE
    if
    :: spare_seq == SEQ(tail) -> spare_seq = 0
    :: else
    fi;
#endif
    repair_pending = false
}

/* Under the lock, after repair: nothing but zeros behind the tail. */
inline assert_clean() {
    d_step {
        i = POS(tail);
        do
        :: i < SEG -> assert(cell[CELL(SEQ(tail), i)] == 0); i++
        :: else -> break
        od;
        i = 0
    }
}

/* bw_appender_lock: locks and repairs, with the window of the tail whenever a repair is due. */
inline lock_and_repair(me) {
    do
    :: take_lock(me);
        if
        :: !repair_pending -> break
#ifdef BUG_WINDOW
        :: repair_pending -> repair(); break
#else
        :: repair_pending && SEQ(tail) != hseq -> unlock(); hseq = SEQ(tail) /* F4 */
        :: repair_pending && SEQ(tail) == hseq -> repair(); break
#endif
        fi
    od;
    assert_clean()
}

proctype Writer(byte me) {
    byte n = 0;     /* batches done */
    byte hseq = 1;  /* the window */
    byte i = 0;
    byte size = me + FIRST;
    bool rolled = false;
    bool aborts = false;
    { i = 0;
again:
    if
    :: n == NB -> goto finished
    :: else
    fi;
    hseq = SEQ(tail);
    lock_and_repair(me);
    if
    :: SEQ(tail) != hseq -> unlock(); goto again
    :: else
    fi;
#ifndef BUG_NO_CAPACITY
    if
    :: SEQ(capacity) != SEQ(tail) || POS(tail) + size > POS(capacity) ->
#else
    if
    :: POS(tail) + size > SEG ->
#endif
        if
        :: POS(tail) + size > SEG -> roll()
        :: else -> rolled = false
        fi;
        unlock();
        if
        :: rolled -> rolled = false; goto again
        :: else
        fi;
        /* ask, then wait for a grant */
        d_step {
            i = POSITION(hseq, POS(tail) + size);
            if
            :: SEQ(tail) == hseq && capacity_request < i -> capacity_request = i
            :: else
            fi;
            i = 0
        };
        SEQ(tail) != hseq || (SEQ(capacity) == hseq && POS(tail) + size <= POS(capacity)) ||
            (POS(tail) + size > SEG && spare_seq == hseq + 1) || DEAD_HOLDER;
        goto again
    :: else
    fi;
    /* the intent, the copy, the publication */
#ifdef BUG_COPY_FIRST
    store_cell(hseq, POS(tail), me * NB + n + 1);
#endif
    intent_base = next_offset;
    intent_end = tail + size;
#ifdef RESERVE
    if
    :: me == NW - 1 -> /* the caller writes all that it reserved, then uses one cell, or aborts */
        i = 0;
        do
        :: i < size -> store_cell(hseq, POS(tail) + i, 100); i++
        :: else -> break
        od;
        if
        :: aborts = true
        :: aborts = false
        fi;
        i = (aborts -> 0 : 1);
#ifdef BUG_SHRINK_FIRST
        if
        :: !aborts -> intent_end = tail + 1
        :: else
        fi;
#endif
        do
        :: i < size -> store_cell(hseq, POS(tail) + i, 0); i++
        :: else -> break
        od;
        i = 0;
        if
        :: aborts -> intent_end = 0; aborts = false; unlock(); n++; goto again
        :: else -> intent_end = tail + 1; size = 1
        fi
    :: else
    fi;
#endif
#ifdef BUG_PUBLISH_FIRST
    tail = tail + size;
    i = 0;
    do
    :: i < size -> store_cell(hseq, POS(tail) - size + i, me * NB + n + 1); i++
    :: else -> break
    od;
    atomic { i = 0; cell_base[CELL(hseq, POS(tail) - size)] = intent_base };
#else
    i = 0;
    do
    :: i < size -> store_cell(hseq, POS(tail) + i, me * NB + n + 1); i++
    :: else -> break
    od;
    atomic { i = 0; cell_base[CELL(hseq, POS(tail))] = intent_base };
    tail = tail + size;                  /* P1 */
#endif
    next_offset = intent_base + 1;
#ifndef BUG_INTENT_KEPT
    intent_end = 0;
#endif
    i = intent_base;
    unlock();
    d_step { acked[i] = me * NB + n + 1; i = 0; n++; size = me + FIRST };
    goto again;
finished:
    done[me] = true
    } unless { dead[me] };
}

/* Grants, spares and links; it does not die here (sync.pml lets it). */
proctype Coordinator() {
    byte hseq = 1;
    byte i = 0;
    byte seq = 0;
    bool rolled = false;
end:
    do
    :: SEQ(capacity) == SEQ(tail) && SEQ(capacity_request) == SEQ(tail) && capacity_request > capacity && POS(capacity) < SEG ->
        seq = SEQ(tail);
#ifndef BUG_GROW_LATE
        allocated[seq] = SEG;
#endif
        hseq = SEQ(tail);
        lock_and_repair(COORDINATOR);
        if
        :: SEQ(tail) == seq -> capacity = POSITION(seq, SEG) /* C1 */
        :: else
        fi;
        unlock();
#ifdef BUG_GROW_LATE
        allocated[seq] = SEG;
#endif
        seq = 0
    :: WANT_SPARE ->
        seq = SEQ(tail) + 1;
        if
        :: allocated[seq] < SPARE -> allocated[seq] = SPARE
        :: else
        fi;
        hseq = SEQ(tail);
        lock_and_repair(COORDINATOR);
        spare_seq = seq; /* C2 */
        unlock();
        seq = 0
    :: linked < SEQ(tail) -> linked++
    :: DEAD_HOLDER -> /* its tick finds a dead holder too */
        hseq = SEQ(tail);
        lock_and_repair(COORDINATOR);
        unlock()
    od
}

#ifdef READER
proctype Reader() {
    byte t, seq = 1, pos = 0, next = 0, lim = 0, s = 0, i = 0;
    bool sealed = false, by_name = false;
    do
    :: t = tail; /* R1 */
        if
        :: seq == SEQ(t) -> lim = POS(t)
        :: seq > SEQ(t) -> assert(false) /* F6: never entered */
        :: seq < SEQ(t) && !sealed ->
            s = ring_seq[RINGSLOT(seq)];
            lim = ring_final[RINGSLOT(seq)];
#ifdef BUG_NO_RECHECK
            sealed = true;
#else
            if
            :: s == seq && ring_seq[RINGSLOT(seq)] == s -> sealed = true
            :: else -> by_name = true; sealed = true; lim = SEG; linked >= seq /* found by its name: a zero header ends it */
            fi;
#endif
            s = 0
        :: else /* sealed: lim is known */
        fi;
        if
        :: pos < lim && by_name && cell[CELL(seq, pos)] == 0 -> lim = pos
        :: else
        fi;
        if
        :: pos < lim ->
            d_step {
                s = cell[CELL(seq, pos)];
                assert(s != 0 && s <= BATCHES);
                assert(cell_base[CELL(seq, pos)] == next);
                i = 1;
                do
                :: i < LENGTH_READ(s) -> assert(cell[CELL(seq, pos + i)] == s); i++
                :: else -> break
                od;
                assert(read_as[next] == 0 || read_as[next] == s);
                read_as[next] = s;
                pos = pos + LENGTH_READ(s);
                assert(pos <= lim);
                next++; s = 0; i = 0
            }
        :: pos >= lim && seq == SEQ(t) -> tail != t || FINISHED;
            if
            :: tail == t && FINISHED -> break
            :: else
            fi
        :: pos >= lim && seq < SEQ(t) -> atomic { seq++; pos = 0; lim = 0; sealed = false; by_name = false }
        fi
    od
}
#endif

/* When all is over: lock, repair, and look at everything. */
bool checked;
proctype Checker() {
    byte hseq = 1, i = 0, seq = 1, pos = 0, next = 0, id = 0;
    bool rolled = false;
    FINISHED;
    hseq = SEQ(tail);
    lock_and_repair(COORDINATOR);
    d_step {
        do
        :: seq <= SEQ(tail) ->
            pos = 0;
            do
            :: pos < SEG && cell[CELL(seq, pos)] != 0 ->
                id = cell[CELL(seq, pos)];
                assert(id <= BATCHES && cell_base[CELL(seq, pos)] == next);
                i = 1;
                do
                :: i < LENGTH_READ(id) -> assert(cell[CELL(seq, pos + i)] == id); i++
                :: else -> break
                od;
                assert(acked[next] == 0 || acked[next] == id);       /* acknowledged: there, in its place */
                assert(read_as[next] == 0 || read_as[next] == id);   /* read: for ever the same */
                assert(!(times & (1 << id)));                        /* once or not at all */
                times = times | (1 << id);
                pos = pos + LENGTH_READ(id);
                next++
            :: else -> break
            od;
            assert(seq < SEQ(tail) || pos == POS(tail));
            do
            :: pos < SEG -> assert(cell[CELL(seq, pos)] == 0); pos++
            :: else -> break
            od;
            seq++
        :: else -> break
        od;
        assert(next == next_offset);
        do
        :: next < BATCHES -> assert(acked[next] == 0 && read_as[next] == 0); next++
        :: else -> break
        od;
        assert(SEQ(capacity) == SEQ(tail) && POS(tail) <= POS(capacity) && POS(capacity) <= allocated[SEQ(tail)])
    };
    unlock();
    checked = true
}

proctype Killer() {
end:
    do
    :: d_step { kills < KILLS && !dead[0] && !done[0] -> dead[0] = true; kills++ }
#if NW > 1
    :: d_step { kills < KILLS && !dead[1] && !done[1] -> dead[1] = true; kills++ }
#endif
#if NW > 2
    :: d_step { kills < KILLS && !dead[2] && !done[2] -> dead[2] = true; kills++ }
#endif
    od
}

init {
    byte i = 0;
    atomic {
        ring_seq[RINGSLOT(1)] = 1;
        allocated[1] = SPARE;
        do
        :: i < NW -> run Writer(i); i++
        :: else -> break
        od;
        i = 0;
#ifdef READER
        run Reader();
#endif
        run Coordinator();
        run Checker();
        run Killer()
    }
}
