/* base/err.h: set and extend the calling thread's error message.
 *
 * An error is set where it arises (bw_fail, bw_fail_errno) and each caller that knows more prepends why it mattered
 * (bw_error_context). The code travels as the return value; the text in the thread's buffer (the only global there is). */
#ifndef BW_BASE_ERR_H
#define BW_BASE_ERR_H

#include <busway/error.h>

/* bw_fail: set the message, return code. The format says what, where and what to do. */
bw_err bw_fail(bw_err code, const char *format, ...) BW_PRINTF(2, 3);
/* bw_fail_errno: as bw_fail with ": strerror" appended; the code is derived from saved_errno (ENOSPC/EDQUOT -> DISK_FULL,
 * EACCES/EPERM -> NOT_PERMITTED, ENOMEM -> NO_MEMORY, ENOENT -> NOT_FOUND, EFBIG…IO -> IO). */
bw_err bw_fail_errno(int saved_errno, const char *format, ...) BW_PRINTF(2, 3);
/* bw_error_context: put "format: " before the present message; returns code unchanged. */
bw_err bw_error_context(bw_err code, const char *format, ...) BW_PRINTF(2, 3);
/* bw_error_set_message: replace the message (a text that came over the wire). */
bw_err bw_error_set_message(bw_err code, const char *message);

#endif
