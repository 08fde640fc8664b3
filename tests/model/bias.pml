/* bias.pml: partition locks that are biased to one appender (src/base/bias.h, src/log/owners.c), labels B1..B6 as there.
 *
 * NA appenders append NB batches each, appender i to slot i % NS: past the lock when the bias is theirs, else under the mutex,
 * revoking whatever bias there is; whoever appended under the mutex may then take the bias. NREC bias records are shared by all and
 * used again. At the end every slot is locked, and repaired, in any order.
 *
 * Memory: the stores of a biased appender go through a first-in-first-out buffer that drains at any time (x86); taking the mutex
 * drains one's own, membarrier everybody's. An appender may be killed before any step (KILLS times), also one that revokes or
 * repairs; its owner record can be locked only when it runs no more and its stores are in memory. A revoker may time out (TIMEOUTS
 * times) on one that lives: REVOKED stays.
 *
 * What must hold: nobody is inside while another one is (by the bias or by the mutex); under the mutex, after the repair, tail,
 * next_offset, intent and the cells agree, and every append that was acknowledged is in its place; nobody is stuck.
 *
 * Seeded bugs, each of which must be found: BUG_NO_MEMBARRIER BUG_CHECK_FIRST BUG_BUSY_SHARED BUG_NO_WAIT (for busy) BUG_OTHER_THREAD (the owner record is another thread's, which ends sooner) BUG_LEFT_EARLY (busy
 * cleared before the tail is stored) BUG_TIMEOUT_CLEARS BUG_NO_REPAIR BUG_DISOWN_FREES (one that died inside) BUG_RECORD_AGAIN (a
 * record that was passed on tells of its new user). A bias that is cleared before the repair is noted (BIAS_FIRST) is no such bug: a revoker that dies in between
 * leaves a mutex whose next holder notes the repair. */

#ifndef NA
#define NA 2
#endif
#ifndef NB
#define NB 2
#endif
#ifndef NS
#define NS 1
#endif
#ifndef NREC
#define NREC 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 1
#endif
#ifndef DEPTH
#define DEPTH 4
#endif
#define CELLS (NA * NB)
#define SLOT(a) ((a) % NS)
#define CELL(s, pos) ((s) * CELLS + (pos))
#define CHECKER NA
#define REVOKED 128
#define NAME(w) ((w) & 127)
#define ID(r, n) ((n) * NREC + (r) + 1)
#define RECORD(w) ((NAME(w) - 1) % NREC)
#define DEAD_OWNER 255
#ifdef BUG_BUSY_SHARED
#define BUSY(r) busy[0]
#else
#define BUSY(r) busy[r]
#endif
#ifdef BUG_RECORD_AGAIN
#define PASSED_ON(w) false
#else
#define PASSED_ON(w) (NAME(w) != ID(RECORD(w), given[RECORD(w)]))
#endif

mtype = { M_BUSY, M_LEFT, M_INTENT, M_CELL, M_TAIL, M_NEXT };

byte mutex[NS];         /* holder + 1 */
bool pending[NS];
byte word[NS];
byte tail[NS], next[NS], intent[NS];
byte cell[NS * CELLS];
byte acked[NS * CELLS];
byte busy[NREC], owner[NREC], given[NREC];
chan buffer[NA] = [DEPTH] of { mtype, byte, byte };

bool dying[NA], dead[NA], done[NA];
bool inside[NA], locked[NA + 1];
byte kills, timeouts;

#ifdef BUG_OTHER_THREAD
#define GONE(a) ((a) < NA && dying[a])
#else
#define GONE(a) ((a) < NA && dead[a] && len(buffer[a]) == 0)
#endif
#define ENDED(a) ((a) < NA && dead[a] && len(buffer[a]) == 0) /* what the slot's own mutex tells */
#define OVER(a) (done[a] || ENDED(a))

/* Somebody else of slot s who is inside and may still store. */
#define OTHER(s, a) ((a) != me && SLOT(a) == (s) && (inside[a] || locked[a]) && !ENDED(a))
#if NA > 2
#define CROWDED(s) (OTHER(s, 0) || OTHER(s, 1) || OTHER(s, 2))
#define ALL_OVER (OVER(0) && OVER(1) && OVER(2))
#else
#define CROWDED(s) (OTHER(s, 0) || OTHER(s, 1))
#define ALL_OVER (OVER(0) && OVER(1))
#endif

/* With the owner record of the dead appender d: what it left. One step: records are looked at one by one, but only we may. */
inline disown(d) {
    d_step {
        i = 0;
        do
        :: i < NREC ->
            if
#ifdef BUG_DISOWN_FREES
            :: owner[i] == d + 1 -> owner[i] = 0
#else
            :: owner[i] == d + 1 -> owner[i] = (BUSY(i) != 0 -> DEAD_OWNER : 0)
#endif
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0
    }
}

inline unlock(s) { d_step { locked[me] = false; mutex[s] = 0 } }

/* The mutex, then the bias: afterwards got says whether we are in, alone. */
inline lock_slot(s) {
    atomic {
        (me == CHECKER || len(buffer[me % NA]) == 0) && (mutex[s] == 0 || ENDED(mutex[s] - 1));
        pending[s] = pending[s] || mutex[s] != 0;
        mutex[s] = me + 1
    };
    got = true;
    w = word[s];
    if
    :: w == 0
    :: w != 0 && w == id -> word[s] = 0
    :: w != 0 && w != id ->
        word[s] = w | REVOKED; /* B3 */
#ifndef BUG_NO_MEMBARRIER
        len(buffer[0]) == 0; /* B4 */
        len(buffer[1]) == 0;
#if NA > 2
        len(buffer[2]) == 0;
#endif
#endif
        do /* B5 */
#ifdef BUG_NO_WAIT
        :: word[s] = 0; break
#else
        :: atomic { BUSY(RECORD(w)) == 0 || PASSED_ON(w) -> word[s] = 0 }; break
#endif
        :: atomic { BUSY(RECORD(w)) != 0 && owner[RECORD(w)] != 0 && owner[RECORD(w)] != DEAD_OWNER &&
                    GONE(owner[RECORD(w)] - 1) -> i = owner[RECORD(w)] - 1 };
            disown(i)
        :: atomic { BUSY(RECORD(w)) != 0 && (owner[RECORD(w)] == 0 || owner[RECORD(w)] == DEAD_OWNER) && !PASSED_ON(w) };
#ifdef BIAS_FIRST
            word[s] = 0;
            pending[s] = true;
#else
#ifndef BUG_NO_REPAIR
            pending[s] = true;
#endif
            word[s] = 0; /* bury */
#endif
            BUSY(RECORD(w)) = 0;
            owner[RECORD(w)] = 0;
            break
        :: atomic { timeouts < TIMEOUTS && BUSY(RECORD(w)) != 0 && !PASSED_ON(w) && me != CHECKER -> timeouts++ };
#ifdef BUG_TIMEOUT_CLEARS
            word[s] = 0;
#endif
            got = false;
            break
        od
    fi;
    w = 0;
    if
    :: !got -> mutex[s] = 0
    :: else ->
        d_step { locked[me] = true; assert(!CROWDED(s)) };
        if
        :: pending[s] -> /* REPAIR */
            if
            :: intent[s] != 0 && tail[s] >= intent[s] -> next[s] = intent[s]; intent[s] = 0
            :: intent[s] != 0 && tail[s] < intent[s] ->
                next[s] = intent[s] - 1;
                cell[CELL(s, tail[s])] = 0;
                intent[s] = 0
            :: else
            fi;
            pending[s] = false
        :: else
        fi;
        d_step {
            assert(intent[s] == 0 && next[s] == tail[s]);
            i = 0;
            do
            :: i < CELLS ->
                assert((cell[CELL(s, i)] != 0) == (i < tail[s]));
                assert(acked[CELL(s, i)] == 0 || acked[CELL(s, i)] == cell[CELL(s, i)]);
                i++
            :: else -> break
            od;
            i = 0
        }
    fi
}

proctype Appender(byte me) {
    byte n = 0, id = 0, r = NREC, w = 0, t = 0, i = 0;
    bool got = false;
    { i = 0;
again:
    if
    :: n == NB -> goto closing
    :: else
    fi;
    if
    :: id != 0 ->
#ifdef BUG_CHECK_FIRST
        if
        :: word[SLOT(me)] == id ->
            buffer[me]!M_BUSY(r, 1);
            d_step { inside[me] = true; assert(!CROWDED(SLOT(me))) }
        :: else -> goto by_mutex
        fi;
#else
        buffer[me]!M_BUSY(r, 1); /* B1 */
        if
        :: d_step { word[SLOT(me)] == id -> inside[me] = true; assert(!CROWDED(SLOT(me))) } /* B2 */
        :: word[SLOT(me)] != id -> buffer[me]!M_BUSY(r, 0); goto by_mutex
        fi;
#endif
        buffer[me]!M_INTENT(0, t + 1);
        buffer[me]!M_CELL(t, me * NB + n + 1);
#ifdef BUG_LEFT_EARLY
        buffer[me]!M_LEFT(r, 0);
#endif
        buffer[me]!M_TAIL(0, t + 1);
        buffer[me]!M_NEXT(0, t + 1);
        buffer[me]!M_INTENT(0, 0);
#ifndef BUG_LEFT_EARLY
        buffer[me]!M_LEFT(r, 0); /* B6 */
#endif
        d_step { acked[CELL(SLOT(me), t)] = me * NB + n + 1; t++; n++ };
        goto again
    :: else
    fi;
by_mutex:
    lock_slot(SLOT(me));
    if
    :: !got -> goto again
    :: else
    fi;
    t = tail[SLOT(me)];
    intent[SLOT(me)] = t + 1;
    cell[CELL(SLOT(me), t)] = me * NB + n + 1;
    tail[SLOT(me)] = t + 1;
    next[SLOT(me)] = t + 1;
    intent[SLOT(me)] = 0;
    if
    :: n + 1 < NB -> /* bw_bias_give */
        if
        :: r == NREC ->
            if
            :: GONE((me + 1) % NA) -> disown((me + 1) % NA)
            :: true
            fi;
            i = 0;
            do
            :: i < NREC -> if :: d_step { owner[i] == 0 -> owner[i] = me + 1; r = i }; break :: else -> i++ fi
            :: else -> break
            od;
            i = 0
        :: else
        fi;
        if
        :: r < NREC ->
            d_step { given[r]++; id = ID(r, given[r]) };
            t = tail[SLOT(me)];
            word[SLOT(me)] = id
        :: else
        fi
    :: n + 1 == NB || n + 1 < NB
    fi;
    d_step { acked[CELL(SLOT(me), next[SLOT(me)] - 1)] = me * NB + n + 1; locked[me] = false; mutex[SLOT(me)] = 0; n++ };
    goto again;
closing: /* bw_bias_drop */
    if
    :: r < NREC ->
        len(buffer[me]) == 0;
        d_step { word[SLOT(me)] = (word[SLOT(me)] == id -> 0 : word[SLOT(me)]) };
        owner[r] = 0
    :: else
    fi;
    d_step { done[me] = true; id = 0; r = 0; t = 0; i = 0 }
    } unless { dead[me] }
}

#define DRAIN(a) \
    :: atomic { buffer[a]?what(x, y) -> \
        if \
        :: what == M_BUSY -> BUSY(x) = y \
        :: what == M_LEFT -> BUSY(x) = 0; inside[a] = false \
        :: what == M_INTENT -> intent[SLOT(a)] = y \
        :: what == M_CELL -> cell[CELL(SLOT(a), x)] = y \
        :: what == M_TAIL -> tail[SLOT(a)] = y \
        :: what == M_NEXT -> next[SLOT(a)] = y \
        fi; \
        what = M_BUSY; x = 0; y = 0 }

proctype Memory() {
    mtype what = M_BUSY;
    byte x = 0, y = 0;
end:
    do
    DRAIN(0)
    DRAIN(1)
#if NA > 2
    DRAIN(2)
#endif
    od
}

bool checked;
proctype Checker() {
    byte me = CHECKER, id = 0, w = 0, i = 0, s = 0;
    bool got = false;
    ALL_OVER;
    if
    :: s = 0
    :: s = NS - 1
    fi;
    lock_slot(s);
    unlock(s);
#if NS > 1
    s = NS - 1 - s;
    lock_slot(s);
    unlock(s);
#endif
    checked = true
}

#ifdef BUG_OTHER_THREAD
#define KILL(a) :: d_step { kills < KILLS && !dying[a] && !done[a] -> dying[a] = true; kills++ } :: d_step { dying[a] && !dead[a] -> dead[a] = true }
#else
#define KILL(a) :: d_step { kills < KILLS && !dead[a] && !done[a] -> dead[a] = true; kills++ }
#endif
proctype Killer() {
end:
    do
    KILL(0)
    KILL(1)
#if NA > 2
    KILL(2)
#endif
    od
}

init {
    byte a = 0;
    atomic {
        do
        :: a < NA -> run Appender(a); a++
        :: else -> break
        od;
        a = 0;
        run Memory();
        run Checker();
        run Killer()
    }
}
