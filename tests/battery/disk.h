/* tests/battery/disk.h: a model of what the disk holds of one folder, kept beside the page cache that the files really live in.
 *
 * It hears of every call that changes a file or the folder (bw_os_observe) and is shown the files' content by disk_look, so that
 * stores through a map are seen. For each page it keeps what the last successful fdatasync or fsync of the file took to the disk and
 * every later version that was seen; for names and sizes the operations since they were last made sure of.
 *
 * disk_image builds what may be there after a power cut: each page that changed since the last sync is any of its versions, or torn
 * between them in sectors of 512 bytes; operations on names and sizes that were not synced are there or not: in their order, as a
 * journal keeps them (DISK_ORDERED), or new names of synced files and sizes each for itself, the others in their order (DISK_ANY). */
#ifndef BATTERY_DISK_H
#define BATTERY_DISK_H

#include "base/os.h"

enum { DISK_PAGE = 4096, DISK_SECTOR = 512, DISK_EXHAUSTIVE_PAGES = 12 };

typedef struct rng { uint64_t state; } rng;
uint64_t rng_next(rng *r);
static inline uint32_t rng_below(rng *r, uint32_t n) { return (uint32_t)((rng_next(r) >> 33) % n); }
static inline bool rng_chance(rng *r, uint32_t one_in) { return rng_below(r, one_in) == 0; }

typedef struct disk disk;
/* disk_new: the folder's content as it is counts as synced. Aborts on trouble: it is a test's tool. */
disk *disk_new(const char *folder);
void disk_free(disk *d);
void disk_hear(disk *d, const bw_os_event *e);
void disk_look(disk *d);
/* disk_dirty_pages: pages with more than one possible content. */
uint32_t disk_dirty_pages(const disk *d);

typedef enum disk_order { DISK_ORDERED, DISK_ANY } disk_order;
typedef struct disk_choice {
    disk_order order;
    bool exact;    /* page i is the present one when bit i of mask is set, else the synced one; no tears */
    uint32_t mask;
} disk_choice;
/* disk_image: makes one possible folder; what lay there before is removed. folder NULL: in memory (memfs_reset was called). */
void disk_image(disk *d, const char *folder, rng *r, disk_choice choice);

#endif
