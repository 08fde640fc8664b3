/* listen/busway/request.c: checks of a request that do not need the broker, and the answers to those that fail. */
#include "listen/busway/internal.h"

#include "base/err.h"
#include "base/os.h"

#include <stdio.h>

void bw_answer_refuse(const bw_request *r, bw_err err, bw_answer *a)
{
    bw_answer_init(a, r);
    a->error = (int32_t)err;
    a->message = bw_str_of(bw_error_message());
}

static bw_err check_version(const bw_request *r)
{
    if (r->version_min <= BW_PROTOCOL_VERSION && r->version_max >= BW_PROTOCOL_VERSION_MIN && r->version_min <= r->version_max) {
        return BW_OK;
    }
    return bw_fail(BW_ERR_UNSUPPORTED_VERSION, "the client speaks protocol versions %d to %d, this daemon (%s) %d to %d; use the same "
                   "release on both sides", r->version_min, r->version_max, BW_VERSION_STRING, BW_PROTOCOL_VERSION_MIN,
                   BW_PROTOCOL_VERSION);
}

static bw_err check(const bw_request *r, bool introduced)
{
    const char *name = bw_api_name(r->type);
    if (r->type == BW_API_HELLO) { return check_version(r); }
    if (!introduced) {
        return bw_fail(BW_ERR_PROTOCOL, "%s (type %u) before HELLO: the first request of a connection must be HELLO",
                       name ? name : "a request", r->type);
    }
    if (!name) {
        return bw_fail(BW_ERR_UNSUPPORTED, "request type %u is unknown to this daemon (%s, protocol version %d)", r->type,
                       BW_VERSION_STRING, BW_PROTOCOL_VERSION);
    }
    if (bw_api_is_push(r->type)) { return bw_fail(BW_ERR_PROTOCOL, "%s is sent by the daemon only", bw_api_name(r->type)); }
    return BW_OK;
}

bw_err bw_request_refuse(const bw_request *r, bool introduced, bw_answer *a)
{
    bw_err err = check(r, introduced);
    if (err == BW_OK) { return BW_OK; }
    bw_answer_refuse(r, err, a);
    if (err == BW_ERR_UNSUPPORTED_VERSION) {
        a->version_min = BW_PROTOCOL_VERSION_MIN;
        a->version_max = BW_PROTOCOL_VERSION;
    }
    return err;
}

void bw_answer_complete(bw_answer *a, uint32_t frame_max)
{
    if (a->type != BW_API_HELLO || a->error != BW_OK) { return; }
    a->version = BW_PROTOCOL_VERSION;
    a->version_min = BW_PROTOCOL_VERSION_MIN;
    a->version_max = BW_PROTOCOL_VERSION;
    a->frame_max = frame_max;
    if (a->server_version.len == 0) { a->server_version = bw_str_of(BW_VERSION_STRING); }
}

size_t bw_request_bound_fetch(bw_request *r)
{
    if (r->max_bytes > BW_FETCH_BYTES_MAX) { r->max_bytes = BW_FETCH_BYTES_MAX; }
    if (r->min_bytes > r->max_bytes) { r->min_bytes = r->max_bytes; }
    return r->max_bytes;
}

void bw_listen_peer(const bw_stream_peer *from, bw_peer *out, bool with_start_time)
{
    memset(out, 0, sizeof *out);
    out->uid = from->uid;
    out->gid = from->gid;
    out->pid = from->pid > 0 ? (pid_t)from->pid : 0;
    out->start_time = with_start_time && out->pid > 0 ? bw_os_process_start_time(out->pid) : 0;
    out->remote = from->remote;
    if (from->remote) {
        snprintf(out->address, sizeof out->address, "%s %s", from->tls ? "tls" : "tcp", from->address);
        snprintf(out->subject, sizeof out->subject, "%s", from->subject);
    } else {
        snprintf(out->address, sizeof out->address, "ipc pid %lld", (long long)out->pid);
    }
}
