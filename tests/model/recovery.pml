/* recovery.pml: power loss and restarts, what recovery makes of the files (src/log/partition_recover.c), poisoning that outlives the
 * process (partition_sync.c), and partitions at rest (partition_rest.c: capacity to the tail, sync, close; open, then grant).
 *
 * One segment of N pages, a batch each. A writer stores where capacity allows, in the cache; the kernel writes back any page at any
 * time, or loses one (FAILS times: it is clean then, and only on the disk it is missing; told once, to the descriptor that is open at
 * that moment). The coordinator grants, syncs, writes the recovery point, rests. Fate, EVENTS times, at any step, recovery's included:
 * POWER (what is not on the disk is gone, any subset of the pages since the last sync) or RESTART (all processes are killed and the
 * control data is lost; the cache stays). Recovery trusts what is below the point, cuts at the first hole above it, zeroes behind it,
 * syncs, raises the epoch on the disk, and only then opens the log.
 *
 * What must hold: what is called durable is on the disk, when it is called so and after every recovery, for ever the same; no hole
 * below the tail, nothing but zeros behind it; a record that was cut never comes back; offset and epoch name one record only.
 *
 * Seeded bugs, each of which must be found: BUG_POINT_FIRST BUG_NO_CUT BUG_NO_ZERO BUG_ZERO_UNSYNCED BUG_NO_SYNC (of what recovery
 * kept) BUG_NO_EPOCH BUG_EPOCH_UNSYNCED BUG_NO_MARKER BUG_MARKER_LATE (waiters are told first) BUG_RECOVER_CACHED (though poisoned)
 * BUG_REST_NO_CAPACITY BUG_REST_NO_SYNC BUG_GRANT_FIRST (then opened).
 *
 * Not covered: a coordinator that is killed between a failed sync and its marker, followed by the loss of the control data in the same
 * boot (HOLE allows it, and then it is found: recovery reads the cache; a takeover reads the disk, sync.pml), more than one segment,
 * the recovery of damage below the point, and the epoch check of the scan, which would catch an unzeroed rest a second time. */

#ifndef N
#define N 3
#endif
#ifndef EVENTS
#define EVENTS 2
#endif
#ifndef FAILS
#define FAILS 1
#endif
#define POWER 1
#define RESTART 2
#define EPOCHS (EVENTS + 2)
#define IDS (N * (EVENTS + 1) + 1)

byte cache[N], disk[N]; /* a record's number; 0: zero */
bool dirty[N];
bool fd, fd_error;
byte fails;

byte tail, durable, capacity;
bool up, poisoned, lock;
byte epoch;
byte point, epoch_disk; /* on the disk */
bool marker;

byte fate, events;
bool telling;           /* between a failed sync and its marker */

/* the checker's */
byte ids;
byte promised[N];
byte shown[N * EPOCHS];
bool gone[IDS];

proctype Writer() {
end:
    do
    :: d_step { up && !poisoned && !lock && fate == 0 && tail < capacity && ids + 1 < IDS -> /* copy and P1; kills inside: append.pml */
            ids++;
            cache[tail] = ids;
            dirty[tail] = true;
            assert(shown[tail * EPOCHS + epoch] == 0);
            shown[tail * EPOCHS + epoch] = ids;
            tail++ }
    od
}

#define LOSE(k) cache[k] != disk[k] && fails < FAILS && fate == 0 && up
#define KERNEL(k) \
    :: d_step { dirty[k] -> disk[k] = cache[k]; dirty[k] = false } \
    :: d_step { dirty[k] && LOSE(k) -> dirty[k] = false; fails++; fd_error = fd_error || fd }
proctype Kernel() {
end:
    do
    KERNEL(0)
    KERNEL(1)
#if N > 2
    KERNEL(2)
#endif
    od
}

inline fdatasync() {
    atomic {
        i = 0;
        do
        :: i < N && dirty[i] ->
            if
            :: disk[i] = cache[i]
            :: LOSE(i) -> fails++; fd_error = fd_error || fd
            fi;
            dirty[i] = false;
            i++
        :: i < N && !dirty[i] -> i++
        :: else -> break
        od;
        i = 0;
        failed = fd_error;
        fd_error = false;
        telling = telling || failed
    }
}

inline move_watermark(t) {
    d_step {
        durable = t;
        i = 0;
        do
        :: i < t ->
            assert(cache[i] != 0 && disk[i] == cache[i]);
            assert(promised[i] == 0 || promised[i] == cache[i]);
            promised[i] = cache[i];
            i++
        :: else -> break
        od;
        i = 0
    }
}

inline poison() {
    poisoned = true;
#ifdef BUG_MARKER_LATE
    telling = false; /* who waits is told, and goes on */
#endif
#ifndef BUG_NO_MARKER
    marker = true;
#endif
    telling = false
}

inline recover() {
    d_step { tail = 0; durable = 0; capacity = 0; poisoned = false; lock = false; fd = true };
    d_step { /* poisoned: the cache is not believed */
        i = 0;
        do
#ifdef BUG_RECOVER_CACHED
        :: i < 0 && false
#else
        :: marker && i < N -> cache[i] = disk[i]; dirty[i] = false; i++
#endif
        :: else -> break
        od;
        i = 0
    };
    d_step { /* the end */
        t = 0;
#ifdef BUG_NO_CUT
        i = 0;
        do
        :: i < N -> t = (cache[i] != 0 -> i + 1 : t); i++
        :: else -> break
        od;
#else
        do
        :: t < N && cache[t] != 0 -> t++
        :: else -> break
        od;
#endif
        assert(t >= point); /* below the point there is no damage but bit rot */
        i = t;
        do /* cut: never to be seen again */
        :: i < N -> gone[cache[i]] = cache[i] != 0; i++
        :: else -> break
        od;
        i = 0
    };
#ifndef BUG_NO_ZERO
    i = t;
    do
    :: i < N -> d_step { dirty[i] = dirty[i] || cache[i] != 0 || disk[i] != 0; cache[i] = 0; i++ }
    :: else -> break
    od;
    i = 0;
#endif
#ifdef BUG_ZERO_UNSYNCED
    failed = false;
#else
#ifdef BUG_NO_SYNC
    failed = false;
#else
    fdatasync();
#endif
#endif
    if
    :: failed -> poison(); goto over /* the start fails; an operator looks after the disk */
    :: else
    fi;
    epoch = epoch_disk + 1;
#ifdef BUG_NO_EPOCH
    epoch = 0;
#endif
#ifndef BUG_EPOCH_UNSYNCED
    epoch_disk = epoch;
#endif
    marker = false;
    d_step {
        i = 0;
        do
        :: i < N ->
            assert((cache[i] != 0) == (i < t));
            assert(cache[i] == 0 || !gone[cache[i]]);
            assert(promised[i] == 0 || promised[i] == cache[i]);
            i++
        :: else -> break
        od;
        i = 0
    };
    move_watermark(t);
    point = t;
    d_step { tail = t; t = 0; up = true; capacity = tail }
}

proctype Coordinator() {
    byte i = 0, t = 0;
    bool failed = false;
start:
    { i = 0;
    recover();
end_working:
    do
    :: !poisoned && fd && capacity == tail && tail < N -> capacity = N
    :: !poisoned && fd && durable != tail ->
        t = tail; /* S1 */
#ifdef BUG_POINT_FIRST
        point = t;
#endif
        fdatasync();
        if
        :: failed -> poison()
        :: else -> move_watermark(t); point = t
        fi;
        t = 0
    :: !poisoned && fd -> /* rest */
#ifndef BUG_REST_NO_CAPACITY
        capacity = tail; /* under the lock: one step with the writer's */
#endif
        t = tail;
#ifndef BUG_REST_NO_SYNC
        if
        :: durable != t ->
            fdatasync();
            if
            :: failed -> poison()
            :: else -> move_watermark(t); point = t
            fi
        :: else
        fi;
#endif
        if
#ifdef BUG_REST_NO_SYNC
        :: !poisoned && capacity == tail -> d_step { fd = false; fd_error = false }
#else
#ifdef BUG_REST_NO_CAPACITY
        :: !poisoned && durable == t -> d_step { fd = false; fd_error = false }
#else
        :: !poisoned && durable == tail && capacity == tail -> d_step { fd = false; fd_error = false }
#endif
#endif
        :: else
        fi;
        t = 0
    :: !poisoned && !fd -> /* wake */
#ifdef BUG_GRANT_FIRST
        capacity = N;
#endif
        fd = true
    od;
over:
    i = 0;
end_of_start:
    false
    } unless { fate != 0 };
    d_step {
        i = 0;
        do
        :: i < N && fate == POWER -> cache[i] = disk[i]; dirty[i] = false; i++
        :: else -> break
        od;
        i = 0; t = 0; failed = false;
        up = false; telling = false; fd = false; epoch = 0;
        fd_error = fd_error && fate == RESTART; /* not told yet: the next one to open the file is */
        fate = 0
    };
    goto start
}

#ifdef HOLE
#define MAY_RESTART true
#else
#define MAY_RESTART !telling
#endif
proctype Fate() {
end:
    do
    :: d_step { events < EVENTS && fate == 0 -> fate = POWER; events++ }
    :: d_step { events < EVENTS && fate == 0 && MAY_RESTART -> fate = RESTART; events++ }
    od
}

init {
    atomic {
        run Writer();
        run Kernel();
        run Coordinator();
        run Fate()
    }
}
