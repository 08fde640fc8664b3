/* base/uuid.c: text forms of 16-byte ids. Both parsers accept exactly what the writers make: lower-case hex, and canonical
 * URL-safe base64 without padding (the four spare bits of the last character are zero). */
#include "base/uuid.h"

#include <stddef.h>
#include <string.h>

static const char hex_digits[] = "0123456789abcdef";
static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void bw_uuid_hex(const bw_uuid *id, char out[33])
{
    for (size_t i = 0; i < 16; i++) {
        out[2 * i] = hex_digits[id->b[i] >> 4];
        out[2 * i + 1] = hex_digits[id->b[i] & 15];
    }
    out[32] = '\0';
}

/* The digit's value, or -1. The text's NUL is no digit. */
static int digit_value(const char *digits, char c)
{
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

bool bw_uuid_from_hex(const char *text, bw_uuid *out)
{
    bw_uuid id;
    for (size_t i = 0; i < 32; i++) {
        int v = digit_value(hex_digits, text[i]);
        if (v < 0) return false;
        id.b[i / 2] = (uint8_t)(i % 2 ? id.b[i / 2] | v : v << 4);
    }
    if (text[32] != '\0') return false;
    *out = id;
    return true;
}

void bw_uuid_base64(const bw_uuid *id, char out[23])
{
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;
    for (size_t i = 0; i < 16; i++) {
        bits = (bits << 8) | id->b[i];
        for (have += 8; have >= 6; have -= 6) out[n++] = base64_digits[(bits >> (have - 6)) & 63];
    }
    out[n++] = base64_digits[(bits << (6 - have)) & 63];
    out[n] = '\0';
}

bool bw_uuid_from_base64(const char *text, bw_uuid *out)
{
    bw_uuid id;
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;
    for (size_t i = 0; i < 22; i++) {
        int v = digit_value(base64_digits, text[i]);
        if (v < 0) return false;
        bits = (bits << 6) | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            id.b[n++] = (uint8_t)(bits >> have);
        }
    }
    if (text[22] != '\0' || (bits & 15) != 0) return false;
    *out = id;
    return true;
}

bool bw_uuid_equal(const bw_uuid *a, const bw_uuid *b) { return memcmp(a->b, b->b, sizeof a->b) == 0; }
