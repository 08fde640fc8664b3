/* log/reader.h: the reader's inside, shared by read.c (the protocol) and read_locate.c (finding a place). Not for others. */
#ifndef BW_LOG_READER_H
#define BW_LOG_READER_H

#include "log/read.h"
#include "log/txn_index.h"
#include "log/window.h"

struct bw_reader {
    bw_control *control;
    bw_tail_slot *slot;
    uint32_t partition;
    int dir_fd;        /* -1: to be opened in parent_fd */
    int parent_fd;     /* with folder */
    char *folder;
    bw_position rest_at; /* not located, but known to have read up to here; 0: not known */
    bw_reader_limit limit;
    bool check_crcs;
    bool use_pread;
    const bw_fork_guard *guard;

    int16_t decided;   /* attribute of batches that must be looked up in the aborted ones: transactional for committed readers, else 0 */
    bool bounded;      /* bound is to be loaded with every watermark */
    bool gated;        /* readiness takes a look at an offset, too: committed and replicated readers */
    int64_t bound;     /* offsets from here on are not given; as of `seen` */
    bw_position seen;  /* newest watermark loaded: the shared line is looked at again only when this much has been read */
    uint32_t looks, chase; /* looks at the watermark since it moved; how often in a row it moved at once: see note_look in read.c */
    int64_t next;      /* offset wanted */
    bool located;      /* window and pos are those of `expect` */
    bw_window window;  /* seq 0: a sealed segment that has left the ring */
    uint32_t pos;      /* byte position of the batch whose base offset is `expect` */
    uint32_t sealed;   /* length of the segment once it is sealed, 0 while not known */
    int64_t expect;    /* base offset of the batch at pos */
    int32_t epoch;     /* highest leader epoch seen in this segment */
    int64_t gaps_below;/* as BW_GAPS_FILE said last; -1: it was not asked yet */

    uint8_t *buf;      /* pread mode: bytes [buf_from, buf_from + buf_len) of the window's file */
    size_t buf_cap;
    uint32_t buf_from;
    size_t buf_len;

    /* committed readers, read_aborted.c: the aborted transactions, as read from the indexes */
    bw_aborted_list aborted;  /* last offsets ascend */
    uint64_t aborted_file;    /* the file that was read last: its inode */
    size_t aborted_from;      /* those before it end below the position */
    uint64_t aborts_seen;     /* slot.aborts when it was read */
    int64_t aborted_low, aborted_until; /* they cover offsets from low on, and below until; until 0: not read */
    int64_t aborted_base;     /* the newest file read, and how much of it; -1: none */
    uint64_t aborted_bytes;
    int64_t aborted_before;   /* last offset of the newest entry read */
};

/* bw_reader_is_aborted: the batch, which is decided (below `bound`), belongs to an aborted transaction: *aborted. CORRUPT, IO, NO_MEMORY. */
bw_err bw_reader_is_aborted(bw_reader *r, const bw_batch_header *h, bool *aborted);

/* bw_reader_enter: dir_fd is there; true: it was opened and is to be given back by bw_reader_leave. */
bool bw_reader_enter(bw_reader *r);
void bw_reader_leave(bw_reader *r, bool entered);

/* bw_reader_bytes: pointer to file bytes [pos, pos+len), all below `lim`; reads ahead up to `lim`. NULL: *err is set. */
const uint8_t *bw_reader_bytes(bw_reader *r, uint32_t pos, uint32_t len, uint32_t lim, bw_err *err);
/* bw_reader_gap_is_sound: may the batch or segment at base_offset come where r->expect is due? */
bool bw_reader_gap_is_sound(bw_reader *r, int64_t base_offset);
/* bw_reader_out_of_range: that error, with the range. */
bw_err bw_reader_out_of_range(bw_reader *r);
/* bw_reader_watermark: the position up to which this reader may read, of all segments. */
bw_position bw_reader_watermark(const bw_reader *r);
/* bw_reader_segment_limit: bytes of the current segment that may be read, given the watermark. */
bw_err bw_reader_segment_limit(bw_reader *r, bw_position watermark, uint32_t *lim);

/* bw_reader_locate: open the segment that holds r->next and go to an indexed batch at or before it. */
bw_err bw_reader_locate(bw_reader *r, bw_position watermark);
/* bw_reader_advance: the current segment is read to its end: go to the one behind it. EMPTY when there is none yet. */
bw_err bw_reader_advance(bw_reader *r, bw_position watermark);

#endif
