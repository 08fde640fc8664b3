/* proto/frame.h: Busway's frames. Pure.
 *
 *   byte 0  u32 length     bytes behind this field, 12 .. limit
 *        4  u16 type       bw_api_key; the answer has the same type
 *        6  u16 flags      bit 0: answer; bit 1: last answer of a connection that will be closed
 *        8  u32 correlation chosen by the client; 0 for what the server pushes
 *       12  u32 header     bytes of the msgpack header that follows
 *       16  header, then payload (raw record batches) up to length
 * All integers big-endian. Over REP, a message is a frame without its first field. `max` is the largest length accepted. */
#ifndef BW_PROTO_FRAME_H
#define BW_PROTO_FRAME_H

#include "base/bytes.h"

#define BW_FRAME_PREFIX 16u
#define BW_FRAME_MIN 12u
#define BW_FRAME_MAX_DEFAULT (64u << 20) /* socket.request.max.bytes */

enum { BW_FRAME_ANSWER = 1u, BW_FRAME_CLOSING = 2u };

typedef struct bw_frame {
    uint16_t type;
    uint16_t flags;
    uint32_t correlation;
    const uint8_t *header;
    size_t header_len;
    const uint8_t *payload;
    size_t payload_len;
} bw_frame;

/* bw_frame_parse: one frame at data. EMPTY: more bytes are needed (*need says how many in all, when known, else 16);
 * FRAME too large or malformed: PROTOCOL. *used: bytes of the frame. */
bw_err bw_frame_parse(const uint8_t *data, size_t len, size_t max, bw_frame *out, size_t *used, size_t *need);
/* bw_frame_parse_message: the REP form. */
bw_err bw_frame_parse_message(const uint8_t *data, size_t len, size_t max, bw_frame *out);
/* bw_frame_begin / bw_frame_end: append a frame to out; between them append the header, call bw_frame_header_done, then append
 * the payload (or pass its length to end when it is sent separately). NO_MEMORY. The caller keeps the whole under 4 GiB. */
bw_err bw_frame_begin(bw_buf *out, uint16_t type, uint16_t flags, uint32_t correlation, size_t *mark);
void bw_frame_header_done(bw_buf *out, size_t mark);
void bw_frame_end(bw_buf *out, size_t mark, size_t payload_elsewhere);

#endif
