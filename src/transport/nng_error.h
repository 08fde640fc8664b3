/* transport/nng_error.h: nng's result codes as Busway's errors. */
#ifndef BW_TRANSPORT_NNG_ERROR_H
#define BW_TRANSPORT_NNG_ERROR_H

#include "base/err.h"

/* bw_fail_nng: as bw_fail_errno, for a code of nng; the format says what and where. */
bw_err bw_fail_nng(int rv, const char *format, ...) BW_PRINTF(2, 3);

#endif
