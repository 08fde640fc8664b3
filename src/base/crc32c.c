/* base/crc32c.c: CRC-32C by ISA-L, which picks the fastest code for this processor at run time.
 *
 * crc32_iscsi works on the raw register: the usual inversion before and after is done here, so that results chain. */
#include "base/crc32c.h"

#include <isa-l/crc.h>
#include <string.h>

#if defined(__x86_64__)
/* ISA-L's AVX-512 code returns with the upper halves of the vector registers in use (2.30 has no vzeroupper). Until they are
 * cleared each legacy SSE instruction pays for it: encoding the next batch took up to 15 times as long. */
__attribute__((target("avx"))) static void vectors_clear(void) { __builtin_ia32_vzeroupper(); }

static inline void vectors_done(void)
{
    if (__builtin_cpu_supports("avx")) vectors_clear();
}
#else
static inline void vectors_done(void) {}
#endif

/* A single record is shorter than what it costs to set up and to leave the wide code. */
#define CRC_SHORT_MAX 255u
#ifdef BW_CRC32C_TARGET
BW_CRC32C_TARGET static uint32_t crc_short(uint32_t state, const uint8_t *p, size_t len)
{
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        state = BW_CRC32C_U64(state, word);
    }
    for (; len > 0; p++, len--) state = BW_CRC32C_U8(state, *p);
    return state;
}
#endif

/* ISA-L takes an int length. */
#define CRC_STEP_MAX (1u << 30)

uint32_t bw_crc32c_extend(uint32_t crc, const void *data, size_t len)
{
    /* The library reads through a pointer that it declares without const. */
    uint8_t *p = (uint8_t *)(uintptr_t)data;
    uint32_t state = ~crc;
#ifdef BW_CRC32C_TARGET
    if (len <= CRC_SHORT_MAX && BW_CRC32C_READY()) return ~crc_short(state, p, len);
#endif
    while (len > CRC_STEP_MAX) {
        state = crc32_iscsi(p, (int)CRC_STEP_MAX, state);
        p += CRC_STEP_MAX;
        len -= CRC_STEP_MAX;
    }
    if (len > 0) state = crc32_iscsi(p, (int)len, state);
    vectors_done();
    return ~state;
}

uint32_t bw_crc32c(const void *data, size_t len) { return bw_crc32c_extend(0, data, len); }
