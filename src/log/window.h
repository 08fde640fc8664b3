/* log/window.h: one segment file of a partition, opened and mapped whole in this process.
 *
 * The map is as long as the segment may become (its limit); only bytes below the capacity (writers) or the watermark (readers)
 * are touched, and those lie within the file. A window is unmapped by its owner alone; nothing shared refers to it. */
#ifndef BW_LOG_WINDOW_H
#define BW_LOG_WINDOW_H

#include "base/err.h"
#include "format/control_page.h"

/* Behind the tail there are always so many zeros, a batch header's worth and more, whatever the file held before (partition_reuse.c): who
 * walks a segment without knowing its end finds it. They may lie behind the capacity, in the file's margin, and are mapped for writers. */
#define BW_TAIL_CLEAR 64u

typedef enum bw_window_mode {
    BW_WINDOW_READ = 0,
    BW_WINDOW_WRITE = 1,
    BW_WINDOW_PREAD = 2,  /* descriptor only, for reading */
    BW_WINDOW_PWRITE = 3, /* descriptor only, for writing */
} bw_window_mode;

typedef struct bw_window {
    uint32_t seq; /* 0: not known (an old segment) */
    int fd;       /* -1 in mapped modes */
    uint8_t *map; /* NULL in descriptor modes */
    size_t map_bytes;
    uint32_t limit;     /* bytes that the segment may grow to */
    int64_t base_offset;
    uint64_t inode;
    uint32_t populated; /* bytes below are in this process's page table */
    uint32_t chunk;     /* bytes to populate next time; follows the rate */
    int64_t chunk_at_ns; /* when the last chunk was populated; chunk and this carry over to the next segment */
    bool large_folios;   /* asked for: the rate is worth it */
    bool from_disk;      /* a read had to wait for the disk: what comes next is asked for ahead; carries over like chunk */
    uint32_t advised;    /* bytes below were asked for */
    bool calm;           /* small pages only, none ahead; carries over */
} bw_window;

#define BW_WINDOW_NONE {.fd = -1}

/* bw_window_open_seq: the segment with this sequence, through its ring entry: "<base>.log", or "<seq>.spare" while the
 * coordinator has not linked it. NOT_FOUND: the ring has moved past it; RETIRED; IO…. The old content of w is closed first. */
bw_err bw_window_open_seq(bw_window *w, int dir_fd, bw_tail_slot *slot, uint32_t seq, bw_window_mode mode);
/* bw_window_open_base: a sealed segment by its base offset; limit is the file's size. */
bw_err bw_window_open_base(bw_window *w, int dir_fd, int64_t base_offset, bw_window_mode mode);
void bw_window_close(bw_window *w);
/* bw_window_inherit: what was learnt about populating goes on in the next window; close does it by itself. */
void bw_window_inherit(bw_window *w, const bw_window *before);

/* bw_window_populate: make bytes [0, need) and, when that is short, a chunk more, at most up to `allocated`, present in the page
 * table. 0 or errno. Chunks grow from 4 KiB to 1 MiB while they are used up within 10 ms, and shrink when not. A writer at 1 MiB
 * asks for large folios, which cost a third less a page to make and to free; a slow one does not: a sync would write them whole. */
int bw_window_populate(bw_window *w, uint32_t from, uint32_t need, uint32_t allocated, bool for_write);
/* bw_window_calm: for a writer whose bytes are synced as they come: the next chunk is the smallest, and until chunks are large again the
 * kernel makes no large folios by reading ahead: a store makes the whole folio dirty, and each sync would write all of it. */
void bw_window_calm(bw_window *w);

#endif
