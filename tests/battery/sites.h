/* tests/battery/sites.h: call sites: what the interposing library (callshim.c) tells the runner (faults.c), in a shared file.
 *
 * A call site is a call and where it comes from: the return addresses of the first frames outside of the C library, two of them
 * (three where nng calls, whose allocations and locks all go through wrappers of its own), each as module + offset. That does not
 * change between runs of the same programs. Environment of a process under the library:
 *   FAULTS_SITES=path    the table that sites and passes are counted in
 *   FAULTS_FAIL=id:errno:at[:forever]   the site that fails, at its at-th pass, or from there on */
#ifndef BATTERY_SITES_H
#define BATTERY_SITES_H

#include <stdatomic.h>
#include <stdint.h>

enum { SITES_MAX = 4096, SITE_WHERE_MAX = 112 };

typedef struct site {
    _Atomic uint64_t id; /* 0: free; a hash of call and where */
    char call[20];
    char where[SITE_WHERE_MAX]; /* "module+offset<module+offset", innermost first */
    atomic_uint passed, failed;
} site;

typedef struct site_table {
    atomic_uint overflow;     /* sites that found no room */
    atomic_uint sync_retries; /* a partition's log was synced again after a sync of it had failed */
    char sync_retried[160];
    site sites[SITES_MAX];
} site_table;

#endif
