/* log/read.h: read one partition, from any process, without a lock and without writing anything.
 *
 * A reader belongs to one thread at a time. Mapped mode gives pointers into the log, valid until the next call on the reader
 * (the window they lie in stays mapped until then); pread mode (the daemon; file systems that can't populate) gives pointers into
 * the reader's own buffer. A reader never passes the watermark it was opened for.
 *
 * A reader for what is replicated is bounded by the slot's `replicated` offset, as a committed one is by first_unstable. The topic's
 * read.limit is looked at when a reader is opened: an open one keeps the limit that it has.
 *
 * A committed reader (isolation read_committed) stops in front of the first record of an open transaction, whatever the watermark, and
 * is not given the batches of aborted ones; control batches it is given, as every reader: who decodes skips them. Committed consumers
 * wait as others do: a wake of the class that they arm for their limit (TAIL for visible, STATE for durable) also comes when
 * first_unstable has moved. */
#ifndef BW_LOG_READ_H
#define BW_LOG_READ_H

#include "base/os.h"
#include "format/record_batch.h"
#include "log/control.h"

typedef struct bw_reader bw_reader;

typedef enum bw_reader_limit {
    BW_LIMIT_VISIBLE = 0,
    BW_LIMIT_DURABLE = 1,
    BW_LIMIT_REPLICATED = 2, /* what peers have; waits as a durable reader does: for class STATE */
    BW_LIMIT_ALL = 3,        /* visible, whatever the topic's read.limit: for copies to peers, and for the log's own needs */
    BW_LIMIT_COUNT = 4
} bw_reader_limit;
/* bw_limit_of: what a reader of this partition gets who asks for `limit`: no less than the topic's read.limit. */
static inline bw_reader_limit bw_limit_of(const bw_tail_slot *s, bw_reader_limit limit)
{
    uint32_t flags = atomic_load_explicit(&s->flags, memory_order_acquire);
    if (limit == BW_LIMIT_ALL || !(flags & (BW_SLOT_READ_REPLICATED | BW_SLOT_READ_DURABLE))) return limit;
    bw_reader_limit least = flags & BW_SLOT_READ_REPLICATED ? BW_LIMIT_REPLICATED : BW_LIMIT_DURABLE;
    return limit < least ? least : limit;
}
/* bw_limit_wait_class: what a reader of that limit (as bw_limit_of has it) arms to be told of news. */
static inline bw_wait_class bw_limit_wait_class(bw_reader_limit limit)
{
    return limit == BW_LIMIT_DURABLE || limit == BW_LIMIT_REPLICATED ? BW_WAIT_STATE : BW_WAIT_TAIL;
}
/* bw_limit_end: the offset behind the last record that such a reader may see. */
int64_t bw_limit_end(const bw_tail_slot *s, bw_reader_limit limit);
/* bw_limit_word: what of the slot moves when such a reader has news; its value means nothing else. */
const _Atomic uint64_t *bw_limit_word(const bw_tail_slot *s, bw_reader_limit limit);

typedef struct bw_reader_options {
    bw_control *control; /* outlives the reader */
    uint32_t partition;
    int dir_fd; /* the partition's folder; the reader keeps a duplicate. With `folder`: the folder that it lies in */
    bw_reader_limit limit;
    bool committed; /* only records of committed transactions, and of none */
    bool check_crcs;
    bool use_pread;
    const bw_fork_guard *guard; /* may be NULL in the daemon */
    const char *folder; /* NULL, or the folder's name in dir_fd, which outlives the reader: a mapped window then needs no descriptor */
} bw_reader_options;

typedef struct bw_batch_ref {
    const uint8_t *data; /* the whole batch */
    uint32_t size;
    bw_batch_header header;
} bw_batch_ref;

/* A run of whole batches lying one behind the other. */
typedef struct bw_run {
    const uint8_t *data;
    size_t len;
    int64_t base_offset;
    int64_t next_offset;
    uint32_t batches;
} bw_run;

bw_err bw_reader_open(const bw_reader_options *options, bw_reader **out);
void bw_reader_close(bw_reader *r);
/* bw_reader_rest: give back the window and what was read ahead; nothing that was given out may be used any more. The position stays,
 * and bw_reader_ready goes on to tell the truth with one load. */
void bw_reader_rest(bw_reader *r);
/* bw_reader_limit_is: as it was opened, by the topic's read.limit. */
bw_reader_limit bw_reader_limit_is(const bw_reader *r);
/* bw_reader_is_open: it has a window. */
bool bw_reader_is_open(const bw_reader *r);

/* bw_reader_seek: the next batch given is the one that holds `offset` (or the first behind it). Lazy: errors come from next. */
void bw_reader_seek(bw_reader *r, int64_t offset);
int64_t bw_reader_position(const bw_reader *r);

/* bw_reader_next: the next batch below the limit; after a moment when the reader keeps catching up with a writer. EMPTY: nothing yet;
 * OFFSET_OUT_OF_RANGE: below log_start or past the end, with the range in the message; CORRUPT: names file and position, nothing of it is
 * served; DELETED; RETIRED; IO; FORKED. */
bw_err bw_reader_next(bw_reader *r, bw_batch_ref *out);
/* bw_reader_run: whole batches, at least one and at most max_bytes (one batch when the first is larger), of one segment; for a committed
 * reader the run ends in front of an aborted batch. */
bw_err bw_reader_run(bw_reader *r, size_t max_bytes, bw_run *out);
/* bw_reader_ready: is there something below the limit at the position? One load; a committed reader loads first_unstable, too. For looks
 * between polls, the look-again after arming, and audits. */
bool bw_reader_ready(bw_reader *r);

#endif
