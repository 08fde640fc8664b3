/* proto/frame.c: cutting frames out of a byte stream and putting them together.
 *
 * Invariants: nothing behind `len` is looked at; the length field is checked against the limit as soon as its four bytes are
 * there, before anybody allocates room for the frame; a frame that is given out lies wholly inside data. */
#include "proto/frame.h"

#include "base/err.h"

/* What lies behind the length field: type, flags, correlation, header length, header, payload. */
static bw_err parse_body(const uint8_t *body, size_t len, bw_frame *out)
{
    uint32_t header_len = bw_get_be32(body + 8);
    if (header_len > len - BW_FRAME_MIN) {
        return bw_fail(BW_ERR_PROTOCOL, "frame of type %u: its header claims %u bytes, but %zu are left in the frame",
                       bw_get_be16(body), header_len, len - BW_FRAME_MIN);
    }
    out->type = bw_get_be16(body);
    out->flags = bw_get_be16(body + 2);
    out->correlation = bw_get_be32(body + 4);
    out->header = body + BW_FRAME_MIN;
    out->header_len = header_len;
    out->payload = out->header + header_len;
    out->payload_len = len - BW_FRAME_MIN - header_len;
    return BW_OK;
}

static bw_err check_length(size_t len, size_t max)
{
    if (len < BW_FRAME_MIN) {
        return bw_fail(BW_ERR_PROTOCOL, "frame of %zu bytes: the smallest has %u; is this a Busway client?", len, BW_FRAME_MIN);
    }
    if (len > max) {
        return bw_fail(BW_ERR_PROTOCOL, "frame of %zu bytes: the limit is %zu (socket.request.max.bytes); send smaller batches",
                       len, max);
    }
    return BW_OK;
}

bw_err bw_frame_parse(const uint8_t *data, size_t len, size_t max, bw_frame *out, size_t *used, size_t *need)
{
    *used = 0;
    *need = BW_FRAME_PREFIX;
    if (len < 4) { return BW_ERR_EMPTY; }
    size_t length = bw_get_be32(data);
    bw_err err = check_length(length, max);
    if (err != BW_OK) { return err; }
    *need = 4 + length;
    if (len < BW_FRAME_PREFIX) { return BW_ERR_EMPTY; }
    /* The header's length is checked early too: a liar is told before its frame is waited for. */
    bw_frame frame;
    err = parse_body(data + 4, length, &frame);
    if (err != BW_OK) { return err; }
    if (len < 4 + length) { return BW_ERR_EMPTY; }
    *out = frame;
    *used = 4 + length;
    return BW_OK;
}

bw_err bw_frame_parse_message(const uint8_t *data, size_t len, size_t max, bw_frame *out)
{
    bw_err err = check_length(len, max);
    return err == BW_OK ? parse_body(data, len, out) : err;
}

bw_err bw_frame_begin(bw_buf *out, uint16_t type, uint16_t flags, uint32_t correlation, size_t *mark)
{
    bw_err err = bw_buf_reserve(out, BW_FRAME_PREFIX);
    if (err != BW_OK) { return err; }
    *mark = out->len;
    uint8_t *p = out->data + out->len;
    memset(p, 0, BW_FRAME_PREFIX);
    bw_put_be16(p + 4, type);
    bw_put_be16(p + 6, flags);
    bw_put_be32(p + 8, correlation);
    out->len += BW_FRAME_PREFIX;
    return BW_OK;
}

void bw_frame_header_done(bw_buf *out, size_t mark)
{
    bw_put_be32(out->data + mark + 12, (uint32_t)(out->len - mark - BW_FRAME_PREFIX));
}

void bw_frame_end(bw_buf *out, size_t mark, size_t payload_elsewhere)
{
    bw_put_be32(out->data + mark, (uint32_t)(out->len - mark - 4 + payload_elsewhere));
}
