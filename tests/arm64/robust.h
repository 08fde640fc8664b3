/* tests/arm64/robust.h: what guest.c and host.c agree on: prctl(PR_SET_TIMERSLACK, head of the list, ROBUST_MARK). */
#ifndef TESTS_ARM64_ROBUST_H
#define TESTS_ARM64_ROBUST_H

#define ROBUST_MARK 0x62777262UL
#define ROBUST_HEAD_BYTES 24 /* the kernel's struct robust_list_head, the same on both */

#endif
