/* support/far.h: a daemon with listeners for other hosts, tcp and tls+tcp, and certificates made for the run (makecerts), for tests. */
#ifndef BW_TESTS_FAR_H
#define BW_TESTS_FAR_H

#include "support/bus.h"

typedef struct far_daemon {
    test_daemon d;
    char certs[300];  /* their folder; used.pem and used.key are the daemon's */
    char config[320]; /* its file */
    int tcp, tls;     /* ports */
} far_daemon;

void far_make(far_daemon *f);
/* far_start: with both listeners and these options, one a line. */
void far_start(far_daemon *f, const char *options);
void far_remove(far_daemon *f);
bw_bus *far_bus(const char *url);
bool far_logged(const far_daemon *f, const char *text); /* does the daemon's log say so? */

#endif
