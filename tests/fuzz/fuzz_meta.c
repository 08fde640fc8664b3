/* What lies beside LMDB, and LMDB's pages: any bytes as a snapshot, a journal, a file of pages. First byte: which, and (0x80) whether the
 * checksums are put right first, so that what is behind them is met. Whatever is given out is whole; whatever is said to be good adds up. */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "meta/journal.h"
#include "meta/pages.h"
#include "meta/snapshot.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEQUENCE 5

static int folder = -1;
static uint8_t bytes[1 << 16];
static bw_meta_state sum;

static char folder_name[] = "/dev/shm/bw-fuzz-meta-XXXXXX";

static void remove_folder(void)
{
    (void)unlinkat(folder, "snapshot-0000000000000005", 0);
    (void)unlinkat(folder, "journal-0000000000000005", 0);
    (void)rmdir(folder_name);
}

static void make_folder(void)
{
    if (folder >= 0) return;
    FUZZ_CHECK(mkdtemp(folder_name));
    atexit(remove_folder);
    folder = open(folder_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_CHECK(folder >= 0);
}

static void put_file(const char *name, size_t len)
{
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    close(fd);
}

static void mend_state(uint8_t *p, uint64_t sequence)
{
    bw_put_be32(p, 2);
    if (sequence) bw_put_be64(p + 4, sequence);
    bw_put_be32(p + 28, bw_crc32c(p, 28));
}

/* Entries get their checksums, as far as lengths allow. */
static void mend_ops(uint8_t *p, size_t len, bool all_puts)
{
    for (size_t at = 0; len - at >= BW_OP_HEAD_BYTES;) {
        size_t key = bw_get_be16(p + at + 1), stored = bw_get_be32(p + at + 3);
        if (key + stored > len - at - BW_OP_HEAD_BYTES || key + stored < key) return;
        uint8_t *k = p + at + BW_OP_HEAD_BYTES;
        if ((all_puts || !(p[at] & BW_OP_DELETE)) && stored >= BW_CRC_BYTES)
            bw_put_be32(k + key + stored - BW_CRC_BYTES, bw_entry_crc(p[at], k, key, k + key, stored - BW_CRC_BYTES));
        at += BW_OP_HEAD_BYTES + key + stored;
    }
}

static bw_err on_entry(void *opaque, const bw_meta_op *op)
{
    uint64_t hash;
    (void)opaque;
    FUZZ_CHECK(op->table < BW_TABLE_COUNT && op->key_len > 0 && op->key_len <= BW_META_KEY_MAX);
    FUZZ_CHECK(bw_entry_check(op->table, op->key, op->key_len, op->stored, op->stored_len, &hash) && hash == op->hash);
    bw_state_count(&sum, hash, true);
    return BW_OK;
}

static void fuzz_snapshot(size_t len, bool mend)
{
    bw_meta_state state;
    if (mend && len >= 44) {
        memcpy(bytes, "BWSNAPSH", 8);
        mend_state(bytes + 8, SEQUENCE);
        mend_ops(bytes + 40, len - 44, true);
        bw_put_be32(bytes + len - 4, bw_crc32c(bytes, len - 4));
    }
    put_file("snapshot-0000000000000005", len);
    sum = (bw_meta_state){.sequence = SEQUENCE};
    bw_err e = bw_snapshot_read(folder, SEQUENCE, on_entry, NULL, &state, NULL);
    FUZZ_CHECK(e == BW_OK || e == BW_ERR_CORRUPT || e == BW_ERR_NEWER_FORMAT);
    if (e == BW_OK) FUZZ_CHECK(bw_state_same(&sum, &state));
}

static void mend_journal(size_t len)
{
    memcpy(bytes, "BWJOURNL", 8);
    mend_state(bytes + 8, SEQUENCE);
    uint32_t seed = bw_crc32c(bytes, 40);
    bw_put_be32(bytes + 40, seed);
    memset(bytes + 44, 0, 20);
    uint64_t sequence = SEQUENCE;
    for (size_t at = 64; len - at >= BW_RECORD_HEAD_BYTES + 4;) {
        size_t n = bw_get_be32(bytes + at), whole = BW_RECORD_HEAD_BYTES + n + 4;
        if (!n || n > len - at - BW_RECORD_HEAD_BYTES - 4) return;
        mend_state(bytes + at + 4, ++sequence);
        mend_ops(bytes + at + BW_RECORD_HEAD_BYTES, n, false);
        bw_put_be32(bytes + at + whole - 4, bw_crc32c_extend(seed, bytes + at, whole - 4));
        at += whole;
    }
}

static bw_err on_record(void *opaque, const bw_meta_state *before, const bw_meta_state *after, const uint8_t *ops, size_t len)
{
    bw_cursor c = bw_cursor_over(ops, len);
    bw_meta_op op;
    FUZZ_CHECK(len > 0 && after->sequence == before->sequence + 1);
    while (bw_op_take(&c, &op))
        if (!op.remove) (void)on_entry(NULL, &op);
    (*(uint64_t *)opaque)++;
    return BW_OK;
}

static void fuzz_journal(size_t len, bool mend)
{
    bw_journal_end end;
    uint64_t records = 0;
    if (mend && len >= 64) mend_journal(len);
    put_file("journal-0000000000000005", len);
    bw_err e = bw_journal_read(folder, SEQUENCE, on_record, &records, &end);
    FUZZ_CHECK(e == BW_OK || e == BW_ERR_CORRUPT || e == BW_ERR_NEWER_FORMAT);
    if (e) return;
    FUZZ_CHECK(end.last.sequence == SEQUENCE + records && end.at <= len);
    FUZZ_CHECK(end.clean == !end.why[0]);
    FUZZ_CHECK(!end.clean || len % BW_JOURNAL_CHUNK == 0);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size < 1 || size > sizeof bytes) return 0;
    size_t len = size - 1;
    memcpy(bytes, data + 1, len);
    make_folder();
    if (data[0] % 3 == 0) fuzz_snapshot(len, data[0] & 0x80);
    else if (data[0] % 3 == 1) fuzz_journal(len, data[0] & 0x80);
    else {
        uint8_t *exact = malloc(len + 1); /* so that a read behind its end is seen */
        FUZZ_CHECK(exact);
        memcpy(exact, bytes, len);
        bw_err e = bw_pages_check(exact, len);
        FUZZ_CHECK(e == BW_OK || e == BW_ERR_CORRUPT);
        free(exact);
    }
    return 0;
}
