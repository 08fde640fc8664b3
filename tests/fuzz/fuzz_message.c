/* Messages: any header either is refused or decodes to a struct that encodes to a header which decodes to the same header again.
 * First byte: bit 0 answer, the rest the type; then u8 payload length. */
#include "fuzz/fuzz.h"

#include "proto/message.h"

static void check_views(bw_str s, const uint8_t *data, size_t size)
{
    if (s.len == 0) return;
    FUZZ_CHECK((const uint8_t *)s.data >= data && (const uint8_t *)s.data + s.len <= data + size);
}

static void request(const bw_frame *f)
{
    bw_request r, again;
    bw_buf first = {NULL, 0, 0}, second = {NULL, 0, 0};
    bw_err err = bw_request_decode(f, &r);
    FUZZ_CHECK(err == BW_OK || err == BW_ERR_PROTOCOL);
    if (err != BW_OK) {
        FUZZ_CHECK(!r.configs && !r.parts);
        return;
    }
    FUZZ_CHECK(r.config_count * sizeof *r.configs + r.part_count * sizeof *r.parts <= 4 * f->header_len + (3u << 17));
    check_views(r.topic, f->header, f->header_len);
    check_views(r.client_id, f->header, f->header_len);
    for (size_t i = 0; i < r.part_count; i++) check_views(r.parts[i].topic, f->header, f->header_len);
    for (size_t i = 0; i < r.config_count; i++) check_views(r.configs[i].name, f->header, f->header_len);
    fuzz_pause();
    if (bw_request_encode(&r, &first, false) == BW_OK) {
        bw_frame g;
        size_t used, need;
        FUZZ_CHECK(bw_frame_parse(first.data, first.len, UINT32_MAX, &g, &used, &need) == BW_OK && used == first.len);
        /* A part without a topic's name encodes to one that is refused: everything else comes back. */
        if (bw_request_decode(&g, &again) == BW_OK) {
            FUZZ_CHECK(bw_request_encode(&again, &second, false) == BW_OK);
            FUZZ_CHECK(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
            bw_request_fini(&again);
        } else {
            bool nameless = false;
            for (size_t i = 0; i < r.part_count; i++) nameless |= r.parts[i].topic.len == 0;
            FUZZ_CHECK(nameless);
        }
    }
    bw_buf_free(&first);
    bw_buf_free(&second);
    fuzz_resume();
    bw_request_fini(&r);
}

static void answer(const bw_frame *f)
{
    bw_answer a, again;
    bw_buf first = {NULL, 0, 0}, second = {NULL, 0, 0};
    bw_err err = bw_answer_decode(f, &a);
    FUZZ_CHECK(err == BW_OK || err == BW_ERR_PROTOCOL);
    if (err != BW_OK) {
        FUZZ_CHECK(!a.topics && !a.parts);
        return;
    }
    size_t payload = 0;
    for (size_t i = 0; i < a.part_count; i++) payload += a.parts[i].size;
    FUZZ_CHECK(payload <= f->payload_len);
    check_views(a.message, f->header, f->header_len);
    fuzz_pause();
    if (bw_answer_encode(&a, &first, false) == BW_OK) {
        bw_frame g;
        size_t used, need;
        FUZZ_CHECK(bw_frame_parse(first.data, first.len, UINT32_MAX, &g, &used, &need) == BW_OK && used == first.len);
        if (bw_answer_decode(&g, &again) == BW_OK) {
            FUZZ_CHECK(bw_answer_encode(&again, &second, false) == BW_OK);
            FUZZ_CHECK(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
            bw_answer_fini(&again);
        }
    }
    bw_buf_free(&first);
    bw_buf_free(&second);
    fuzz_resume();
    bw_answer_fini(&a);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 65536) return 0;
    size_t payload = data[1] < size - 2 ? data[1] : size - 2, header = size - 2 - payload;
    bw_frame f = {.type = (uint16_t)(data[0] >> 1), .correlation = 9, .header = data + 2, .header_len = header,
                  .payload = data + 2 + header, .payload_len = payload};
    if (data[0] & 1) {
        f.flags = BW_FRAME_ANSWER;
        answer(&f);
    } else {
        request(&f);
    }
    return 0;
}
