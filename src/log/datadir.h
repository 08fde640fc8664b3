/* log/datadir.h: the data directory as a whole: format version, generation, owner locks.
 *   busway.format     "busway data format 1\n"; newer is refused with both numbers
 *   generation        32 hex digits: the life of the control data that goes with this directory
 *   daemon.lock       flock exclusive by the coordinator; holds its pid, "private" or "system", and its socket, a line each
 *   writers.lock      flock shared by each direct writer's process while attached; exclusive while control data is made anew
 *   arena             where the control data of the generation lies
 *   clock             what the wall clock said in this boot (datadir_clock.c)
 *   meta/             LMDB (meta/ knows more)
 *   <topic>-<n>/      partitions (format/names.h) */
#ifndef BW_LOG_DATADIR_H
#define BW_LOG_DATADIR_H

#include "base/err.h"
#include "base/uuid.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BW_DATA_FORMAT 1

typedef struct bw_datadir {
    int fd;              /* the directory */
    int daemon_lock_fd;  /* -1 when this process is not the coordinator */
    int writers_lock_fd; /* -1 when not held */
    char *path;
    uint8_t generation[16];
    bool generation_is_new; /* made by this open: no control data of it can exist */
} bw_datadir;

/* bw_datadir_open_coordinator: create what is missing (when create), check owner and format, take daemon.lock.
 * ALREADY_RUNNING names the holder's pid; NEWER_FORMAT names both numbers; NOT_PERMITTED; NOT_FOUND; UNSUPPORTED. */
bw_err bw_datadir_open_coordinator(const char *path, bool create, bw_datadir **out);
/* bw_datadir_open_client: read-only look: fd and generation. */
bw_err bw_datadir_open_client(const char *path, bw_datadir **out);
/* bw_datadir_open_readonly: the folder alone: nothing is written or locked, and there need be no generation; it may be anybody's.
 * NOT_FOUND: no folder, or nothing in it is Busway's; NEWER_FORMAT; NOT_PERMITTED. */
bw_err bw_datadir_open_readonly(const char *path, bw_datadir **out);
void bw_datadir_close(bw_datadir *d);

/* Who has, or had, daemon.lock, as its text says. */
typedef struct bw_datadir_holder {
    int pid;   /* 0: not said */
    bool is_private;
    char socket[PATH_MAX]; /* its first, an absolute path; "": not said */
} bw_datadir_holder;
/* bw_datadir_say_holder: by the coordinator: where it can be reached, and whether it gives the folder away. */
bw_err bw_datadir_say_holder(bw_datadir *d, bool is_private, const char *socket);
/* bw_datadir_ask_holder: of the folder at path; nothing is waited for. NOT_FOUND: no folder, or no daemon was ever there; NOT_PERMITTED. */
bw_err bw_datadir_ask_holder(const char *path, bw_datadir_holder *out);
/* bw_datadir_is_held: daemon.lock is held at this moment. */
bool bw_datadir_is_held(const char *path);

/* bw_datadir_lock_writers_shared: for a direct writer; at most timeout_ms while a coordinator holds it exclusively. */
bw_err bw_datadir_lock_writers_shared(bw_datadir *d, int timeout_ms);
/* bw_datadir_lock_writers_exclusive: no direct writer is attached. BUSY with the holders' pids (from /proc/locks) otherwise. */
bw_err bw_datadir_lock_writers_exclusive(bw_datadir *d);
void bw_datadir_unlock_writers(bw_datadir *d);
/* bw_datadir_set_generation: write the file anew (temp, rename); not synced: what it names is gone after a loss of power. */
bw_err bw_datadir_set_generation(bw_datadir *d, const uint8_t generation[16]);

/* bw_datadir_clock_ahead_ms: how far the wall clock is ahead of what it said to this directory's first coordinator of this boot, plus
 * the time since; 0: not, or not known. What is older than retention.ms only by that is not old. For the coordinator. */
int64_t bw_datadir_clock_ahead_ms(const bw_datadir *d);

/* bw_arena_dir_open: the folder for the arenas of d's generation: <runtime>/<gen> when runtime is on tmpfs, else
 * /dev/shm/busway-<uid>/<gen> (0700 parent, owner checked). path (PATH_MAX) says which. create false: must exist.
 * Old generations of the same data directory beside it are removed by bw_arena_dir_remove_others. */
bw_err bw_arena_dir_open(const char *runtime_dir, const bw_datadir *d, bool create, char *path, size_t path_size, int *fd);
/* bw_arena_dir_note: path (of bw_arena_dir_open) is where the control data of d's generation lies: for a coordinator with another runtime
 * folder. bw_arena_dir_open_noted: open what was noted. NOT_FOUND: nothing was, or it is of another generation; else as above.
 * Both hold the folder as long as fd is open. */
bw_err bw_arena_dir_note(const bw_datadir *d, const char *path);
bw_err bw_arena_dir_open_noted(const bw_datadir *d, char *path, size_t path_size, int *fd);
void bw_arena_dir_remove_others(const char *arena_path);
void bw_arena_dir_remove(const char *arena_path);
/* bw_arena_dir_hold: as long as this descriptor of its folder is open the control data is not swept; for who uses it. */
void bw_arena_dir_hold(int fd);
/* bw_arena_dir_sweep: remove from the folder where arena_path lies the control data of this user that nobody holds and whose data directory is
 * gone or has another generation. How many. Takes a while: not for a thread that others wait for. */
uint32_t bw_arena_dir_sweep(const char *arena_path);

#endif
