/* proto/json.h: a msgpack document as JSON text (RFC 8259), for STATUS and DESCRIBE_TOPICS. Pure. */
#ifndef BW_PROTO_JSON_H
#define BW_PROTO_JSON_H

#include "base/bytes.h"

#define BW_JSON_DEPTH_MAX 32u

/* bw_json_from_msgpack: append doc, exactly one msgpack value, to out as JSON; no NUL is appended. Keys must be strings; bytes of
 * strings that are not UTF-8 become U+FFFD; binaries become lower-case hex strings; numbers that JSON lacks become null.
 * PROTOCOL: malformed, deeper than BW_JSON_DEPTH_MAX, an extension. NO_MEMORY. On an error out is as it was. */
bw_err bw_json_from_msgpack(const uint8_t *doc, size_t len, bw_buf *out);

#endif
