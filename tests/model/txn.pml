/* txn.pml: transactions in one partition (src/log/txn.c, partition_producers.c) and committed readers (read.c, read_aborted.c).
 *
 * The daemon writes for P producers, one transaction each (of the first at most two batches), interleaved as it likes, and ends each with a marker,
 * commit or abort; a direct writer appends plain batches in between; the syncer stores the state of producers; a reader reads committed.
 * An append is one step (append.pml has its inside). The daemon may be killed between any two steps, KILLS times: its table is gone, the
 * control data and the log stay; the takeover walks the log from the stored state on, puts index entries back, then first_unstable.
 *
 * What must hold: the reader is given no batch of a transaction that is not committed (undecided ones included), leaves out none of one
 * that is, nor of plain ones; in the end nothing is left unstable.
 *
 * Seeded bugs, each of which must be found: BUG_BOUND_FIRST (first_unstable loaded before the tail) BUG_BOUND_KEPT (a new tail with an old
 * bound) BUG_ABORTS_FIRST (slot.aborts loaded, and the index read, before the bound) BUG_FU_LATE (lowered after the batch is published)
 * BUG_SETTLE_FIRST (raised before the index has the entry) BUG_COUNT_FIRST (slot.aborts raised before) BUG_NO_COUNT BUG_NO_RESTORE
 * BUG_RESTORE_LATE (the takeover raises first_unstable first) BUG_NO_ANNOUNCE (the state is stored between marker and entry)
 * BUG_ANNOUNCE_LATE (announced behind the marker) BUG_CHECK_FIRST (the syncer looks for the announcement before the tail).
 *
 * Not covered: several segments, a full disk (entries that wait), power loss of the index (it is synced before the state is stored). */

#ifndef P
#define P 2
#endif
#ifndef PLAINS
#define PLAINS 1
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define L (3 * P + PLAINS)
#define NONE 255

mtype = { PLAIN, DATA, COMMIT, ABORT };

mtype kind[L]; /* the log */
byte who[L];
byte tail;
byte first_unstable = NONE;
byte aborts;
bool index[P];   /* the aborted transaction's entry is in the file */
bool aborting;   /* the daemon's memory */
byte first[P];   /* its table: first offset of the open transaction */
byte stored;     /* offset of the stored state */
byte kills;
bool kill_now;
bool up;         /* taken over: the syncer may work */

byte batches[P]; /* what the producers know */
mtype decision[P];

inline publish(k, p) {
    d_step { kind[tail] = k; who[tail] = p; tail++; }
}

inline settle() { /* the lowest of the table */
    d_step {
        m = NONE; i = 0;
        do
        :: i < P -> m = (first[i] < m -> first[i] : m); i++
        :: else -> break
        od;
        first_unstable = m;
        i = 0; m = 0
    }
}

inline begin(p) {
#ifndef BUG_FU_LATE
    m = tail; /* a direct writer may append behind it */
    d_step { first_unstable = (first_unstable > m -> m : first_unstable); m = 0 };
#endif
    d_step { first[p] = tail; kind[tail] = DATA; who[tail] = p; tail++; batches[p]++ };
    settle()
}

inline finish(p, k) {
    if
    :: k == ABORT ->
#ifndef BUG_NO_ANNOUNCE
#ifndef BUG_ANNOUNCE_LATE
        aborting = true;
#endif
#endif
        d_step { kind[tail] = ABORT; who[tail] = p; tail++; decision[p] = ABORT; first[p] = NONE };
#ifdef BUG_ANNOUNCE_LATE
        aborting = true;
#endif
#ifdef BUG_SETTLE_FIRST
        settle();
#endif
#ifdef BUG_COUNT_FIRST
        aborts++;
        index[p] = true;
#else
        index[p] = true;
#ifndef BUG_NO_COUNT
        aborts++;
#endif
#endif
        aborting = false
    :: else ->
        d_step { kind[tail] = COMMIT; who[tail] = p; tail++; decision[p] = COMMIT; first[p] = NONE }
    fi;
    settle()
}

/* The table from the log; entries of the markers behind the stored state. */
inline take_over() {
#ifdef BUG_RESTORE_LATE
    d_step { rebuild_table() };
    settle();
#endif
    j = stored;
    t = tail;
    do
    :: d_step { j < t && kind[j] != ABORT -> j++ }
    :: d_step { j < t && kind[j] == ABORT ->
#ifndef BUG_NO_RESTORE
        index[who[j]] = true;
#endif
        j++ }
    :: j == t -> break
    od;
    atomic { j = 0; t = 0 };
    aborts++;
    d_step { rebuild_table() };
    settle()
}

inline rebuild_table() {
    i = 0;
    do
    :: i < P -> first[i] = NONE; i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < tail && kind[i] == DATA && first[who[i]] == NONE -> first[who[i]] = i; i++
    :: i < tail && (kind[i] == COMMIT || kind[i] == ABORT) -> first[who[i]] = NONE; i++
    :: i < tail && (kind[i] == PLAIN || (kind[i] == DATA && first[who[i]] != NONE)) -> i++
    :: else -> break
    od;
    i = 0
}

#define WORK(p) \
    :: decision[p] == 0 && batches[p] == 0 -> begin(p) \
    :: decision[p] == 0 && batches[p] == 1 && p == 0 -> d_step { kind[tail] = DATA; who[tail] = p; tail++; batches[p]++ } \
    :: decision[p] == 0 && batches[p] > 0 -> finish(p, COMMIT) \
    :: decision[p] == 0 && batches[p] > 0 -> finish(p, ABORT)

proctype Daemon() {
    byte i, j, m, t;
start:
    {
        if
        :: kills > 0 -> take_over()
        :: else -> d_step { i = 0; do :: i < P -> first[i] = NONE; i++ :: else -> break od; i = 0 }
        fi;
        up = true;
        do
        WORK(0)
#if P > 1
        WORK(1)
#endif
#if P > 2
        WORK(2)
#endif
        :: decision[0] != 0 && decision[P - 1] != 0 && (P < 3 || decision[1] != 0) -> break
        od;
        assert(first_unstable == NONE);
end_idle:
        false
    } unless { kill_now };
    d_step { kill_now = false; up = false; aborting = false; i = 0; j = 0; m = 0; t = 0 };
    goto start
}

proctype Killer() {
end:
    do
    :: d_step { kills < KILLS && !kill_now -> kill_now = true; kills++ }
    od
}

proctype Direct() {
    byte n;
    do
    :: n < PLAINS -> publish(PLAIN, 0); n++
    :: else -> break
    od
}

/* Part of the daemon's process: dead while it is. */
proctype Syncer() {
    byte t, life;
    bool announced, done; /* once will do */
end:
    do
    :: !done && stored < tail && up && !kill_now ->
        atomic {
        life = kills;
#ifdef BUG_CHECK_FIRST
        announced = aborting
        };
        t = tail; /* S1 */
#else
        t = tail /* S1 */
        };
        announced = aborting;
#endif
        if
        :: !announced && up && !kill_now && life == kills && t > stored -> stored = t; done = true
        :: else
        fi;
        d_step { t = 0; life = 0; announced = false }
    od
}

inline read_index() {
    d_step {
        i = 0;
        do
        :: i < P -> list[i] = index[i]; i++
        :: else -> break
        od;
        i = 0;
        read_at = a
    }
}

proctype Reader() {
    byte pos, t, b, a, i, read_at = NONE;
    bool list[P];
end:
    do
    :: atomic { pos < tail && pos < first_unstable ->
#ifdef BUG_BOUND_FIRST
        b = first_unstable };
        t = tail;
#else
#ifdef BUG_BOUND_KEPT
        skip };
        if
        :: b <= pos -> b = first_unstable
        :: else
        fi;
        t = tail;
#else
#ifdef BUG_ABORTS_FIRST
        a = aborts };
        if
        :: a != read_at -> read_index()
        :: else
        fi;
        t = tail;
        b = first_unstable;
#else
        t = tail };
        b = first_unstable;
#endif
#endif
#endif
        do
        :: atomic { pos < t && pos < b && kind[pos] != DATA -> pos++ }
        :: atomic { pos < t && pos < b && kind[pos] == DATA ->
#ifdef BUG_ABORTS_FIRST
            skip };
#else
            a = aborts };
            if
            :: a != read_at -> read_index()
            :: else
            fi;
#endif
            d_step {
                assert(decision[who[pos]] == (list[who[pos]] -> ABORT : COMMIT));
                pos++
            }
        :: pos >= t || pos >= b -> break
        od;
#ifdef BUG_BOUND_KEPT
        atomic { t = 0; a = 0 }
#else
        atomic { t = 0; b = 0; a = 0 }
#endif
    od
}

init {
    atomic {
        run Daemon();
        run Killer();
        run Direct();
#if KILLS > 0
        run Syncer(); /* what is stored matters to a takeover only */
#endif
        run Reader()
    }
}
