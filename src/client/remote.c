/* client/remote.c: see remote.h. */
#include "client/remote.h"

#include "base/os.h"

enum { LEAST_MS = 50, MOST_MS = 5000 };

void bw_backoff_failed(bw_backoff *b)
{
    uint32_t random = 0;
    int64_t ms = b->fails < 8 ? (int64_t)LEAST_MS << b->fails : MOST_MS;
    if (ms > MOST_MS) ms = MOST_MS;
    bw_os_random(&random, sizeof random); /* where there is none all come at once: no harm but to the daemon */
    ms = ms / 2 + (int64_t)(random % (uint32_t)(ms / 2 + 1));
    b->fails++;
    b->next = bw_deadline_in_ms(ms);
}

void bw_backoff_worked(bw_backoff *b) { *b = (bw_backoff){0}; }
