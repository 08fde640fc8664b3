/* transport/nng_error.c: nng's result codes as Busway's errors. */
#include "transport/nng_error.h"

#include <nng/nng.h>

#include <stdarg.h>
#include <stdio.h>

static bw_err code_of(int rv)
{
    switch (rv) {
    case NNG_ENOMEM: return BW_ERR_NO_MEMORY;
    case NNG_EINVAL:
    case NNG_EADDRINVAL: return BW_ERR_INVALID_ARGUMENT;
    case NNG_EADDRINUSE: return BW_ERR_BUSY;
    case NNG_EPERM: return BW_ERR_NOT_PERMITTED;
    case NNG_ENOENT: return BW_ERR_NOT_FOUND;
    case NNG_ENOTSUP: return BW_ERR_UNSUPPORTED;
    case NNG_ETIMEDOUT: return BW_ERR_TIMED_OUT;
    case NNG_ECLOSED:
    case NNG_ECONNSHUT:
    case NNG_ECONNRESET:
    case NNG_ECONNREFUSED: return BW_ERR_NOT_CONNECTED;
    case NNG_ENOSPC: return BW_ERR_DISK_FULL;
    default: return BW_ERR_IO;
    }
}

bw_err bw_fail_nng(int rv, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return bw_fail(code_of(rv), "%s: %s", what, nng_strerror(rv));
}
