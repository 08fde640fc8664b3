/* support/wire.c: see wire.h. */
#include "support/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PREFIX = 12 }; /* type, flags, correlation, header length */

void wire_bytes(wire_buf *b, const void *data, size_t len)
{
    if (b->len + len > b->cap) {
        b->cap = (b->len + len) * 2 + 64;
        b->data = realloc(b->data, b->cap);
        if (!b->data) abort();
    }
    if (len) memcpy(b->data + b->len, data, len);
    b->len += len;
}

void wire_u8(wire_buf *b, uint8_t v) { wire_bytes(b, &v, 1); }

void wire_be32(wire_buf *b, uint32_t v)
{
    uint8_t raw[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    wire_bytes(b, raw, 4);
}

void wire_free(wire_buf *b)
{
    free(b->data);
    *b = (wire_buf){0};
}

void wire_map(wire_buf *b, unsigned pairs) { wire_u8(b, (uint8_t)(0x80 | pairs)); }
void wire_array(wire_buf *b, unsigned items) { wire_u8(b, (uint8_t)(0x90 | items)); }

void wire_str(wire_buf *b, const char *text)
{
    size_t len = strlen(text);
    if (len < 32) {
        wire_u8(b, (uint8_t)(0xa0 | len));
    } else {
        wire_u8(b, 0xdb);
        wire_be32(b, (uint32_t)len);
    }
    wire_bytes(b, text, len);
}

void wire_int(wire_buf *b, int64_t v)
{
    wire_u8(b, 0xd3);
    wire_be32(b, (uint32_t)((uint64_t)v >> 32));
    wire_be32(b, (uint32_t)v);
}

void wire_key_int(wire_buf *b, const char *key, int64_t v)
{
    wire_str(b, key);
    wire_int(b, v);
}

void wire_key_str(wire_buf *b, const char *key, const char *text)
{
    wire_str(b, key);
    wire_str(b, text);
}

void wire_frame(wire_buf *out, uint16_t type, uint32_t correlation, const wire_buf *header, const void *payload, size_t payload_len)
{
    size_t header_len = header ? header->len : 0;
    wire_be32(out, (uint32_t)(PREFIX + header_len + payload_len));
    wire_be32(out, (uint32_t)type << 16);
    wire_be32(out, correlation);
    wire_be32(out, (uint32_t)header_len);
    if (header_len) wire_bytes(out, header->data, header_len);
    wire_bytes(out, payload, payload_len);
}

int wire_dial(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || strlen(path) >= sizeof a.sun_path) return -1;
    memcpy(a.sun_path, path, strlen(path));
    for (int tries = 0; connect(fd, (struct sockaddr *)&a, sizeof a) < 0; tries++) {
        if ((errno != EAGAIN && errno != EINTR) || tries > 1000) {
            close(fd);
            return -1;
        }
        usleep(1000); /* the backlog is full */
    }
    return fd;
}

bool wire_send(int fd, const void *data, size_t len)
{
    const uint8_t *p = data;
    while (len) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static int64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool receive_exactly(int fd, uint8_t *out, size_t len, int64_t until, bool *timed_out)
{
    while (len) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = until - clock_ms();
        if (left <= 0 || poll(&p, 1, (int)left) == 0) {
            if (timed_out) *timed_out = true;
            return false;
        }
        ssize_t n = recv(fd, out, len, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        out += n;
        len -= (size_t)n;
    }
    return true;
}

bool wire_receive(int fd, wire_buf *answer, int timeout_ms, bool *timed_out)
{
    int64_t until = clock_ms() + timeout_ms;
    uint8_t raw[4];
    if (timed_out) *timed_out = false;
    if (!receive_exactly(fd, raw, 4, until, timed_out)) return false;
    uint32_t len = (uint32_t)raw[0] << 24 | (uint32_t)raw[1] << 16 | (uint32_t)raw[2] << 8 | raw[3];
    if (len < PREFIX || len > 128u << 20) abort(); /* the daemon never sends such a thing */
    if (answer->cap < len) {
        answer->data = realloc(answer->data, len);
        if (!answer->data) abort();
        answer->cap = len;
    }
    answer->len = len;
    return receive_exactly(fd, answer->data, len, until, timed_out);
}

static uint32_t be32_at(const wire_buf *b, size_t at)
{
    const uint8_t *p = b->data + at;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

uint16_t wire_type(const wire_buf *answer) { return (uint16_t)(be32_at(answer, 0) >> 16); }
uint16_t wire_flags(const wire_buf *answer) { return (uint16_t)be32_at(answer, 0); }
uint32_t wire_correlation(const wire_buf *answer) { return be32_at(answer, 4); }

/* The value behind a key, by looking for the key's bytes: good enough for a header whose keys are known. */
static const uint8_t *value_of(const wire_buf *answer, const char *key, const uint8_t **end)
{
    size_t len = strlen(key), header = be32_at(answer, 8);
    const uint8_t *p = answer->data + PREFIX;
    *end = p + header;
    for (; p + 1 + len < *end; p++)
        if (p[0] == (0xa0 | len) && memcmp(p + 1, key, len) == 0) return p + 1 + len;
    return NULL;
}

int64_t wire_answer_int(const wire_buf *answer, const char *key, int64_t fallback)
{
    const uint8_t *end, *p = value_of(answer, key, &end);
    if (!p) return fallback;
    static const uint8_t widths[] = {1, 2, 4, 8};
    uint8_t tag = *p++;
    if (tag < 0x80) return tag;
    if (tag >= 0xe0) return (int8_t)tag;
    if (tag < 0xcc || tag > 0xd3) return fallback;
    size_t width = widths[(tag - 0xcc) & 3];
    bool is_signed = tag >= 0xd0;
    if (p + width > end) return fallback;
    uint64_t v = is_signed && *p & 0x80 ? UINT64_MAX : 0;
    for (size_t i = 0; i < width; i++) v = v << 8 | p[i];
    return (int64_t)v;
}

bool wire_answer_says(const wire_buf *answer, const char *text)
{
    size_t len = strlen(text), header = be32_at(answer, 8);
    for (size_t i = 0; i + len <= header; i++)
        if (memcmp(answer->data + PREFIX + i, text, len) == 0) return true;
    return false;
}

const uint8_t *wire_payload(const wire_buf *answer, size_t *len)
{
    size_t header = be32_at(answer, 8);
    *len = answer->len - PREFIX - header;
    return answer->data + PREFIX + header;
}
