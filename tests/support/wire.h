/* support/wire.h: Busway's protocol by hand: frames and msgpack as bytes, so that tests can send what no client would. Knows nothing of
 * the library. Numbers and layout: src/proto/PROTOCOL.md. */
#ifndef BW_TESTS_SUPPORT_WIRE_H
#define BW_TESTS_SUPPORT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct wire_buf { uint8_t *data; size_t len, cap; } wire_buf;

void wire_bytes(wire_buf *b, const void *data, size_t len);
void wire_u8(wire_buf *b, uint8_t v);
void wire_be32(wire_buf *b, uint32_t v);
void wire_free(wire_buf *b);
/* msgpack */
void wire_map(wire_buf *b, unsigned pairs);   /* at most 15 */
void wire_array(wire_buf *b, unsigned items); /* at most 15 */
void wire_str(wire_buf *b, const char *text);
void wire_int(wire_buf *b, int64_t v);
void wire_key_int(wire_buf *b, const char *key, int64_t v);
void wire_key_str(wire_buf *b, const char *key, const char *text);

/* A frame of this type around header and payload; correlation as given. */
void wire_frame(wire_buf *out, uint16_t type, uint32_t correlation, const wire_buf *header, const void *payload, size_t payload_len);

/* Connections. dial: -1 when refused. */
int wire_dial(const char *path);
bool wire_send(int fd, const void *data, size_t len); /* all of it; false: the other side has closed */
/* wire_receive: one frame, answer->data begins at its type (4 bytes behind the length). false: closed, or nothing within timeout_ms
 * (*timed_out). */
bool wire_receive(int fd, wire_buf *answer, int timeout_ms, bool *timed_out);

/* What an answer says. */
uint16_t wire_type(const wire_buf *answer);
uint16_t wire_flags(const wire_buf *answer);
uint32_t wire_correlation(const wire_buf *answer);
int64_t wire_answer_int(const wire_buf *answer, const char *key, int64_t fallback);
/* Does the header's text hold this? */
bool wire_answer_says(const wire_buf *answer, const char *text);
const uint8_t *wire_payload(const wire_buf *answer, size_t *len);

#endif
