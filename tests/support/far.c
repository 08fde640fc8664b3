/* support/far.c: see far.h. */
#include "support/far.h"
#include "support/lossy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void far_make(far_daemon *f)
{
    const char *daemon = getenv("BUSWAYD");
    daemon_make(&f->d);
    snprintf(f->certs, sizeof f->certs, "%s.certs", f->d.dir);
    snprintf(f->config, sizeof f->config, "%s.conf", f->d.dir);
    test_run("mkdir '%s' && '%.*s/makecerts' '%s' && cp '%s/server.pem' '%s/used.pem' && cp '%s/server.key' '%s/used.key'", f->certs,
        (int)(strrchr(daemon, '/') - daemon), daemon, f->certs, f->certs, f->certs, f->certs, f->certs);
    f->tcp = free_port();
    do f->tls = free_port();
    while (f->tls == f->tcp);
}

void far_start(far_daemon *f, const char *options)
{
    FILE *file = fopen(f->config, "w");
    assert_non_null(file);
    fprintf(file, "listeners = tcp://127.0.0.1:%d, tls+tcp://127.0.0.1:%d\ntls.certificate = %s/used.pem\ntls.key = %s/used.key\n%s", f->tcp,
            f->tls, f->certs, f->certs, options);
    fclose(file);
    f->d.arguments[0] = "--config";
    f->d.arguments[1] = f->config;
    daemon_start(&f->d);
}

void far_remove(far_daemon *f)
{
    daemon_remove(&f->d);
    test_run("rm -rf '%s' '%s'", f->certs, f->config);
}

bw_bus *far_bus(const char *url)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus = NULL;
    o.connect_timeout_ms = 10000;
    assert_ok(bw_bus_open(url, &o, &bus));
    return bus;
}

bool far_logged(const far_daemon *f, const char *text)
{
    char path[300], line[2000];
    snprintf(path, sizeof path, "%s.log", f->d.dir);
    FILE *file = fopen(path, "r");
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) found = strstr(line, text) != NULL;
    if (file) fclose(file);
    return found;
}
