/* proto/coordinator.h: what libbusway and libbusway-coordinator.so agree on: a coordinator carried in a program (dir:…?coordinator=self).
 *
 * The object has everything that buswayd has but main, under one exported name, and is loaded when it is needed, so that programs which
 * do not ask for it carry nothing. Both are of one version. Nothing of one's memory is freed by the other; errors come as texts, because
 * each has its own copy of the layers below. */
#ifndef BW_PROTO_COORDINATOR_H
#define BW_PROTO_COORDINATOR_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define BW_COORDINATOR_ABI 1u
#define BW_COORDINATOR_ENTRY "bw_coordinator_entry"

typedef struct bw_coordinator_options {
    const char *data_dir;
    /* Events; from threads of the coordinator. level: bw_log_level. */
    void (*event)(void *opaque, int level, const char *event, const char *fields);
    void *opaque;
} bw_coordinator_options;

typedef struct bw_coordinator_api {
    uint32_t abi;
    const char *version;
    /* start: when it returns BW_OK clients are answered at <data_dir>/run/bus.sock. Else why (size bytes) says what happened. */
    bw_err (*start)(const bw_coordinator_options *options, void **out, char *why, size_t size);
    /* stop: as buswayd ends by SIGTERM; all its threads have ended on return. Also after it ended by itself, since it was asked for the
     * folder. Not in a forked child. */
    void (*stop)(void *coordinator);
} bw_coordinator_api;

typedef const bw_coordinator_api *(*bw_coordinator_entry_fn)(void);

#endif
