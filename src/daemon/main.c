/* daemon/main.c: buswayd. */
#include "daemon/daemon.h"

#include "daemon/notify.h"
#include "listen/busway/listener.h"

#include <stdio.h>

static int print_reference(bool man)
{
    bw_buf out = {0};
    bw_err e = bw_daemon_config_reference(&out, man);
    if (!e) fwrite(out.data, 1, out.len, stdout);
    bw_buf_free(&out);
    return bw_daemon_exit_status(e);
}

static bw_err check_config(const bw_daemon_config *c)
{
    bw_err e = bw_listener_check(c);
    if (!e) puts("configuration ok");
    return e;
}

static bw_err run(bw_daemon_options *o)
{
    switch (o->task) {
    case BW_DAEMON_RUN: return bw_daemon_run(o);
    case BW_DAEMON_CHECK_CONFIG: return check_config(&o->config);
    case BW_DAEMON_HELP: fputs(bw_daemon_help, stdout); return BW_OK;
    case BW_DAEMON_VERSION: puts("buswayd " BW_VERSION_STRING); return BW_OK;
    case BW_DAEMON_HELP_CONFIG:
    case BW_DAEMON_HELP_CONFIG_MAN: return print_reference(o->task == BW_DAEMON_HELP_CONFIG_MAN) ? BW_ERR_NO_MEMORY : BW_OK;
    }
    return BW_ERR_INTERNAL;
}

int main(int argc, char **argv)
{
    bw_daemon_options o;
    bw_err e = bw_daemon_options_parse(&o, argc, argv);
    if (!e) e = run(&o);
    if (e) {
        bw_notify_failed_fd(o.ready_fd, e);
        fprintf(stderr, "buswayd: %s\n", bw_error_message());
    }
    bw_daemon_options_fini(&o);
    return bw_daemon_exit_status(e);
}
