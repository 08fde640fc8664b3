/* base/err.c: the error table's texts and the thread's last message.
 *
 * Invariant: the message is always NUL-terminated and at most MESSAGE_BYTES - 1 long; a longer one is cut, never lost. The
 * thread-local buffer is the library's only global state. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 1024 };

static _Thread_local char message[MESSAGE_BYTES];

typedef enum bw_err_class { R, F, A } bw_err_class;

typedef struct bw_err_row {
    const char *name;
    const char *text;
    bw_err_class cls;
} bw_err_row;

static const bw_err_row rows[] = {
#define BW_ERR_ROW(name, number, text, cls) [number] = {#name, text, cls},
    BW_ERR_MAP(BW_ERR_ROW)
#undef BW_ERR_ROW
};

static const bw_err_row *row_of(bw_err code)
{
    unsigned i = (unsigned)code;
    return i < sizeof rows / sizeof rows[0] && rows[i].name ? &rows[i] : NULL;
}

const char *bw_version(void) { return BW_VERSION_STRING; }

const char *bw_err_name(bw_err code)
{
    const bw_err_row *r = row_of(code);
    return r ? r->name : "UNKNOWN";
}

const char *bw_err_text(bw_err code)
{
    const bw_err_row *r = row_of(code);
    return r ? r->text : "unknown error";
}

bool bw_err_is_retriable(bw_err code)
{
    const bw_err_row *r = row_of(code);
    return r && r->cls == R;
}

bool bw_err_is_fatal(bw_err code)
{
    const bw_err_row *r = row_of(code);
    return r && r->cls == A;
}

const char *bw_error_message(void) { return message; }

bw_err bw_fail(bw_err code, const char *format, ...)
{
    char text[MESSAGE_BYTES]; /* apart, since an argument may be the present message */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(message, text, sizeof message);
    return code;
}

bw_err bw_error_set_message(bw_err code, const char *text)
{
    if (text != message) snprintf(message, sizeof message, "%s", text ? text : "");
    return code;
}

static bw_err code_of_errno(int e)
{
    switch (e) {
    case ENOSPC:
    case EDQUOT:
        return BW_ERR_DISK_FULL;
    case EACCES:
    case EPERM:
    case EROFS:
        return BW_ERR_NOT_PERMITTED;
    case ENOMEM:
        return BW_ERR_NO_MEMORY;
    case ENOENT:
    case ENOTDIR:
        return BW_ERR_NOT_FOUND;
    case EAGAIN:
    case EBUSY:
        return BW_ERR_BUSY;
    case EINVAL:
        return BW_ERR_INVALID_ARGUMENT;
    case EOPNOTSUPP:
    case ENOSYS:
        return BW_ERR_UNSUPPORTED;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case ENOTCONN:
        return BW_ERR_NOT_CONNECTED;
    case ETIMEDOUT:
        return BW_ERR_TIMED_OUT;
    default:
        return BW_ERR_IO;
    }
}

bw_err bw_fail_errno(int saved_errno, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char reason[128];
    const char *why = strerror_r(saved_errno, reason, sizeof reason);
    snprintf(message, sizeof message, "%.*s: %s", MESSAGE_BYTES - 160, text, why);
    return code_of_errno(saved_errno);
}

bw_err bw_error_context(bw_err code, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t len = strlen(text);
    if (len > sizeof text - 3) len = sizeof text - 3;
    text[len] = ':';
    text[len + 1] = ' ';
    size_t old = strlen(message);
    size_t room = sizeof text - (len + 2) - 1;
    if (old > room) old = room;
    memcpy(text + len + 2, message, old);
    text[len + 2 + old] = 0;
    memcpy(message, text, len + 2 + old + 1);
    return code;
}
