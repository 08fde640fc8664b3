/* base/crc32c.h: CRC-32C (Castagnoli, RFC 3720 B.4), as Kafka's record batch uses it; by ISA-L. */
#ifndef BW_BASE_CRC32C_H
#define BW_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* bw_crc32c: checksum of len bytes; "123456789" gives 0xE3069283. Any thread. */
uint32_t bw_crc32c(const void *data, size_t len);
/* bw_crc32c_extend: continue from an earlier result. bw_crc32c(d, n) == bw_crc32c_extend(0, d, n). */
uint32_t bw_crc32c_extend(uint32_t crc, const void *data, size_t len);

#endif
