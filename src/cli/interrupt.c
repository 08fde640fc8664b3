/* cli/interrupt.c: signals. No SA_RESTART, so that a blocked read or poll of our own returns EINTR. */
#include "cli/interrupt.h"

#include <signal.h>
#include <stdatomic.h>

static volatile sig_atomic_t interrupted;
static _Atomic(bw_consumer *) consumer_to_wake;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
    bw_consumer *consumer = atomic_load(&consumer_to_wake);
    if (consumer) bw_consumer_wake(consumer);
}

void cli_interrupt_install(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL);
}

bool cli_interrupted(void) { return interrupted != 0; }

void cli_interrupt_wake(bw_consumer *consumer) { atomic_store(&consumer_to_wake, consumer); }
