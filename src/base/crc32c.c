/* base/crc32c.c: CRC-32C by ISA-L, which picks the fastest code for this processor at run time.
 *
 * crc32_iscsi works on the raw register: the usual inversion before and after is done here, so that results chain. */
#include "base/crc32c.h"

#include <isa-l/crc.h>

/* ISA-L takes an int length. */
#define CRC_STEP_MAX (1u << 30)

uint32_t bw_crc32c_extend(uint32_t crc, const void *data, size_t len)
{
    /* The library reads through a pointer that it declares without const. */
    uint8_t *p = (uint8_t *)(uintptr_t)data;
    uint32_t state = ~crc;
    while (len > CRC_STEP_MAX) {
        state = crc32_iscsi(p, (int)CRC_STEP_MAX, state);
        p += CRC_STEP_MAX;
        len -= CRC_STEP_MAX;
    }
    if (len > 0) state = crc32_iscsi(p, (int)len, state);
    return ~state;
}

uint32_t bw_crc32c(const void *data, size_t len) { return bw_crc32c_extend(0, data, len); }
