/* base/crc32c.h: CRC-32C (Castagnoli, RFC 3720 B.4), as Kafka's record batch uses it; by ISA-L. */
#ifndef BW_BASE_CRC32C_H
#define BW_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* bw_crc32c: checksum of len bytes; "123456789" gives 0xE3069283. Any thread. */
uint32_t bw_crc32c(const void *data, size_t len);
/* bw_crc32c_extend: continue from an earlier result. bw_crc32c(d, n) == bw_crc32c_extend(0, d, n). */
uint32_t bw_crc32c_extend(uint32_t crc, const void *data, size_t len);

/* For code that composes what it checksums in registers: one step of the raw register (which starts as all ones and is inverted at the
 * end) over 8 bytes in memory order, 4 or one. Only in functions marked BW_CRC32C_TARGET, and only when BW_CRC32C_READY(). Where the
 * processor has no such instruction, BW_CRC32C_TARGET is not defined. */
#if defined(__x86_64__)
#define BW_CRC32C_TARGET __attribute__((target("sse4.2")))
#define BW_CRC32C_READY() __builtin_cpu_supports("sse4.2")
#define BW_CRC32C_U64(crc, word) ((uint32_t)__builtin_ia32_crc32di((crc), (word)))
#define BW_CRC32C_U32(crc, word) __builtin_ia32_crc32si((crc), (word))
#define BW_CRC32C_U8(crc, byte) __builtin_ia32_crc32qi((crc), (byte))
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define BW_CRC32C_TARGET
#define BW_CRC32C_READY() 1
#define BW_CRC32C_U64(crc, word) __crc32cd((crc), (word))
#define BW_CRC32C_U32(crc, word) __crc32cw((crc), (word))
#define BW_CRC32C_U8(crc, byte) __crc32cb((crc), (byte))
#endif

#endif
