/* client/self.c: see self.h. The object is looked for at $BUSWAY_COORDINATOR, beside the library, beside the program, and where the
 * dynamic linker looks. It is never unloaded. */
#include "client/self.h"

#include "proto/coordinator.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_OF(x) #x
#define VERSION_TEXT(x) TEXT_OF(x)
#define OBJECT "libbusway-coordinator.so." VERSION_TEXT(BW_VERSION_MAJOR)

typedef struct bw_self {
    const bw_coordinator_api *api;
    void *coordinator;
} bw_self;

static void *open_beside(const char *of, char *why, size_t size)
{
    char path[PATH_MAX];
    const char *slash = of ? strrchr(of, '/') : NULL;
    int n = slash ? snprintf(path, sizeof path, "%.*s/" OBJECT, (int)(slash - of), of) : -1;
    if (n < 0 || n >= (int)sizeof path || access(path, R_OK) != 0) return NULL;
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!object) snprintf(why, size, "%.380s", dlerror());
    return object;
}

static void *find_object(char *why, size_t size)
{
    char path[PATH_MAX];
    Dl_info info;
    const char *given = secure_getenv("BUSWAY_COORDINATOR");
    void *object = NULL;
    if (given && *given) {
        object = dlopen(given, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (!object) snprintf(why, size, "%.380s", dlerror());
        return object;
    }
    if (dladdr((void *)(uintptr_t)&bw_self_start, &info) && info.dli_fname && realpath(info.dli_fname, path))
        object = open_beside(path, why, size);
    if (!object) {
        ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
        path[n > 0 ? n : 0] = 0;
        object = open_beside(path, why, size);
    }
    if (!object && !(object = dlopen(OBJECT, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) && !why[0]) snprintf(why, size, "%.380s", dlerror());
    return object;
}

static bw_err load(const bw_coordinator_api **out)
{
    char why[400] = "";
    void *object = find_object(why, sizeof why);
    if (!object)
        return bw_fail(BW_ERR_NOT_FOUND, "coordinator=self needs " OBJECT ", which can't be loaded: %s; install it beside libbusway, or set "
                       "$BUSWAY_COORDINATOR to its path", why);
    bw_coordinator_entry_fn entry;
    void *symbol = dlsym(object, BW_COORDINATOR_ENTRY);
    memcpy(&entry, &symbol, sizeof entry);
    const bw_coordinator_api *api = symbol ? entry() : NULL;
    if (!api || api->abi != BW_COORDINATOR_ABI || strcmp(api->version, BW_VERSION_STRING) != 0)
        return bw_fail(BW_ERR_UNSUPPORTED_VERSION, OBJECT " is of version %s, this library of %s: install both together",
                       api ? api->version : "(unknown)", BW_VERSION_STRING);
    *out = api;
    return BW_OK;
}

static void tell(void *opaque, int level, const char *event, const char *fields)
{
    bw_bus_log(opaque, (bw_log_level)level, "coordinator: %s %s", event, fields);
}

bw_err bw_self_start(bw_bus *bus)
{
    char why[1024] = "";
    const bw_coordinator_api *api = NULL;
    bw_self_stop(bus); /* one that gave the folder away */
    bw_err e = load(&api);
    if (e) return e;
    bw_self *s = calloc(1, sizeof *s);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a coordinator");
    bw_coordinator_options o = {.data_dir = bus->url.path, .event = tell, .opaque = bus};
    s->api = api;
    e = api->start(&o, &s->coordinator, why, sizeof why);
    if (e) {
        free(s);
        return bw_error_set_message(e, why);
    }
    bus->self = s;
    return BW_OK;
}

void bw_self_stop(bw_bus *bus)
{
    bw_self *s = bus->self;
    if (!s) return;
    bus->self = NULL;
    s->api->stop(s->coordinator);
    free(s);
}
