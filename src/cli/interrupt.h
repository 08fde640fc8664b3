/* cli/interrupt.h: SIGINT, SIGTERM and SIGHUP end the work politely; SIGPIPE becomes EPIPE.
 *
 * A handler has no argument: interrupt.c holds the program's only mutable globals. The first signal asks; the second one kills.
 */
#ifndef BW_CLI_INTERRUPT_H
#define BW_CLI_INTERRUPT_H

#include <busway/consumer.h>

void cli_interrupt_install(void);
bool cli_interrupted(void);
/* cli_interrupt_wake: the consumer whose poll a signal ends; NULL: none any more (before it is closed). */
void cli_interrupt_wake(bw_consumer *consumer);

#endif
