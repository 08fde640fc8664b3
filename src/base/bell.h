/* base/bell.h: an eventfd that rings when a futex word is woken, so that an event loop sleeps on shared memory without a thread in
 * between.
 *
 * A ring of io_uring with one entry: a futex wait, whose end rings the eventfd. It needs Linux 6.7 or later and a sandbox that allows
 * io_uring; where it can't be had bw_bell_open says so, and the caller lets a thread sleep instead. The kernel binds a ring to the thread
 * that uses it first (its completions run there, never in the midst of something else). */
#ifndef BW_BASE_BELL_H
#define BW_BASE_BELL_H

#include <stdbool.h>
#include <stdint.h>

typedef struct bw_bell bw_bell;

/* bw_bell_open: NULL and errno: ENOSYS, EPERM, EINVAL, … where there is no such thing. event_fd stays the caller's. Any thread. */
bw_bell *bw_bell_open(int event_fd);
/* bw_bell_hang: from now on a wake of the word (bw_os_futex_wake) rings event_fd, once; hanging it again before that costs no system
 * call. 0: it hangs. Otherwise an errno: EAGAIN: the word differs from expected, or was woken meanwhile (event_fd may ring for it):
 * look, then hang it again; EEXIST: another thread used it before: close it and open another. One word a bell. */
int bw_bell_hang(bw_bell *b, const _Atomic uint32_t *word, uint32_t expected);
/* bw_bell_close: NULL is allowed. event_fd may still ring for a wake that is under way. */
void bw_bell_close(bw_bell *b);

#endif
