/* client/kafka/rdkafka.c: find librdkafka.so.1 and its calls. Invariant: bw_rdk is complete before any handle of a cluster exists. */
#include "client/kafka/rdkafka.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

bw_rdkafka bw_rdk;

typedef struct loading {
    pthread_once_t once;
    bw_err error;
    char message[256];
} loading;

static loading state = {.once = PTHREAD_ONCE_INIT};

static void find(void *library, const char *name, void *place)
{
    void *found = dlsym(library, name);
    if (found) *(void **)place = found;
    else if (!state.error) {
        state.error = BW_ERR_UNSUPPORTED;
        snprintf(state.message, sizeof state.message, "kafka:// needs librdkafka 2.0 or newer: the one that is installed has no %s", name);
    }
}

static void load(void)
{
    void *library = dlopen("librdkafka.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        state.error = BW_ERR_UNSUPPORTED;
        snprintf(state.message, sizeof state.message, "kafka:// needs librdkafka: install the package librdkafka1 (%.140s)", dlerror());
        return;
    }
#define BW_RDKAFKA_FIND(name) find(library, "rd_kafka_" #name, &bw_rdk.name);
    BW_RDKAFKA_CALLS(BW_RDKAFKA_FIND)
#undef BW_RDKAFKA_FIND
}

bw_err bw_rdkafka_load(void)
{
    pthread_once(&state.once, load);
    return state.error ? bw_fail(state.error, "%s", state.message) : BW_OK;
}
