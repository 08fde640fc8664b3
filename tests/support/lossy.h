/* support/lossy.h: a bad line to a daemon, for tests: netproxy (proxy/proxy.c says what it can), started and spoken to. It ends with the test. */
#ifndef BW_TESTS_SUPPORT_LOSSY_H
#define BW_TESTS_SUPPORT_LOSSY_H

#include <stdio.h>
#include <sys/types.h>

typedef struct lossy {
    pid_t pid;
    FILE *in, *out;
    int port; /* of 127.0.0.1 */
} lossy;

typedef struct lossy_stats {
    unsigned long long connections, cuts, up, down, up_packets, down_packets, lost;
    int open;
} lossy_stats;

/* All of these end the test with a message when something can't be done. */
/* lossy_start: to "127.0.0.1:7290" or "/path/of/bus.sock"; arguments as netproxy's, up to a NULL: "--delay-ms", "20", NULL. */
void lossy_start(lossy *l, const char *to, unsigned seed, const char *const *arguments);
/* lossy_tell: a command, as printf: "cut", "set loss 5", …; it has been obeyed when this returns. */
void lossy_tell(lossy *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
lossy_stats lossy_read(lossy *l);
void lossy_stop(lossy *l);

/* free_port: of 127.0.0.1, where nobody listens now. */
int free_port(void);

#endif
