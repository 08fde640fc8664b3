/* Frames: any bytes, cut anywhere, give frames that lie within them, the same ones whether they come at once or in pieces, and never
 * more than the limit. First byte: the limit (squared). */
#include "fuzz/fuzz.h"

#include "proto/frame.h"

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 65536) return 0;
    size_t max = BW_FRAME_MIN + (size_t)data[0] * data[0];
    data++;
    size--;
    size_t at = 0;
    bw_err err = BW_OK;
    while (err == BW_OK) {
        bw_frame f;
        size_t used, need;
        err = bw_frame_parse(data + at, size - at, max, &f, &used, &need);
        FUZZ_CHECK(err == BW_OK || err == BW_ERR_EMPTY || err == BW_ERR_PROTOCOL);
        if (err == BW_ERR_EMPTY) FUZZ_CHECK(used == 0 && need > size - at && need <= 4 + max + BW_FRAME_PREFIX);
        if (err != BW_OK) break;
        FUZZ_CHECK(used >= BW_FRAME_PREFIX && used <= 4 + max && used <= size - at);
        FUZZ_CHECK(f.header == data + at + BW_FRAME_PREFIX && f.payload == f.header + f.header_len);
        FUZZ_CHECK(f.payload + f.payload_len == data + at + used);
        bw_frame g;
        FUZZ_CHECK(bw_frame_parse_message(data + at + 4, used - 4, max, &g) == BW_OK);
        FUZZ_CHECK(memcmp(&f, &g, sizeof f) == 0);
        for (size_t cut = 0; cut < used; cut += 1 + cut / 8) {
            bw_frame h;
            size_t none, more;
            FUZZ_CHECK(bw_frame_parse(data + at, cut, max, &h, &none, &more) == BW_ERR_EMPTY && none == 0 && more <= used);
        }
        at += used;
    }
    bw_frame f;
    bw_frame_parse_message(data, size, max, &f);
    return 0;
}
