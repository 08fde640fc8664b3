/* tests/battery/memfs.h: a folder in this process's memory, beneath the engine's seam to the operating system.
 *
 * The program is linked with --wrap for each bw_os_ function that works on files (MEMFS_WRAPPED in power.mk): descriptors from
 * MEMFS_FD on are served here, all others go to the kernel. So a recovery of an image needs no system call and takes
 * microseconds. One data directory with one folder; nothing is mapped, nothing is told to an observer; one thread. What it does
 * not know it refuses loudly (abort), so that a new call of the engine is seen. A share of the images is tried on a real file
 * system all the same. */
#ifndef BATTERY_MEMFS_H
#define BATTERY_MEMFS_H

#include <stdint.h>

enum { MEMFS_FD = 1 << 20, MEMFS_FILE_BYTES = 320 << 10 };

/* memfs_reset: an empty folder of that name in an empty data directory; every descriptor must be closed. Returns the directory's.
 */
int memfs_reset(const char *folder);
/* memfs_key: tells names apart (FNV-1a, 64 bits), so that a look through a folder compares numbers. */
static inline uint64_t memfs_key(const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    while (*name) h = (h ^ (uint8_t)*name++) * UINT64_C(0x100000001b3);
    return h;
}
/* memfs_put: a file with these bytes (at most MEMFS_FILE_BYTES). */
void memfs_put(const char *name, const void *bytes, uint32_t size);
void memfs_link(const char *name, const char *more);

#endif
