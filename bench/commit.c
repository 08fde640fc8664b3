/* bench/commit.c: committed offsets.
 *
 * Bare: one key put and committed in LMDB by its defaults (which sync), one after the other, in the folder in which the daemon's data lies.
 * One at a time: OFFSET_COMMIT for one group and partition, then OFFSET_FETCH of another group, which the daemon answers from memory: a
 * round trip. A figure is the commit less the round trip beside it, so that what remains stands beside the bare commit.
 * Many: each client has a connection, a group and a partition of its own and sends OFFSET_COMMIT requests, one group and partition each, none
 * merged, with COMMITS_OPEN of them not answered; the figure is what was answered a second by all. An answer comes when the commit is on
 * the disk. The clients speak the protocol by hand (src/proto/PROTOCOL.md): what they cost is not what is measured. */
#include "bench.h"

#include <busway/busway.h>
#include <errno.h>
#include <limits.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define RECORDS      100u /* in each partition: offsets are of these */
#define COMMITS_OPEN 512u
#define SEND_AT_ONCE 64u
#define WAIT_MS      20000

enum { HELLO = 1, OFFSET_COMMIT = 22, OFFSET_FETCH = 23 };

/* ---- bare ---- */

bool bench_commit_bare_role(const bench_run *run, uint32_t index)
{
    char path[PATH_MAX];
    MDB_env *env = NULL;
    MDB_txn *txn;
    MDB_dbi dbi = 0;
    uint32_t warm = run->c->round_trips / 10;
    uint8_t value[64] = {0};
    (void)index;
    if (snprintf(path, sizeof path, "%s/commit-bare", run->dir) >= (int)sizeof path || mkdir(path, 0700) != 0 || mdb_env_create(&env) ||
        mdb_env_set_mapsize(env, 64u << 20) || mdb_env_open(env, path, 0, 0600))
        return bench_fail(run->shared, "no LMDB in %s: %s", path, strerror(errno));
    for (uint32_t i = 0; i < warm + run->c->round_trips; i++) {
        MDB_val k = {4, "key"}, v = {sizeof value, value};
        uint64_t before = bench_now_ns();
        bench_put_be32(value, i);
        if (mdb_txn_begin(env, NULL, 0, &txn) || mdb_dbi_open(txn, NULL, 0, &dbi) || mdb_put(txn, dbi, &k, &v, 0) || mdb_txn_commit(txn))
            return bench_fail(run->shared, "an LMDB commit in %s failed", path);
        if (i >= warm) run->shared->sample_ns[run->shared->samples++] = bench_now_ns() - before;
    }
    mdb_env_close(env);
    return true;
}

/* ---- a client by hand ---- */

typedef struct hand {
    int fd;
    uint8_t in[65536];
    size_t have, at;
    uint32_t answered;
} hand;

static bool hand_open(const bench_run *run, hand *h)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    h->have = h->at = 0;
    h->answered = 0;
    h->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (strncmp(run->bus_url, "ipc://", 6) != 0 || snprintf(a.sun_path, sizeof a.sun_path, "%s", run->bus_url + 6) >= (int)sizeof a.sun_path ||
        h->fd < 0 || connect(h->fd, (struct sockaddr *)&a, sizeof a) != 0)
        return bench_fail(run->shared, "connect to %s: %s", run->bus_url, strerror(errno));
    return true;
}

static uint8_t *put_head(uint8_t *p, uint16_t type, uint32_t correlation)
{
    memset(p + 4, 0, 12);
    p[4] = (uint8_t)(type >> 8);
    p[5] = (uint8_t)type;
    bench_put_be32(p + 8, correlation);
    return p + 16;
}

static size_t end_frame(uint8_t *frame, const uint8_t *end)
{
    bench_put_be32(frame, (uint32_t)(end - frame) - 4);
    bench_put_be32(frame + 12, (uint32_t)(end - frame) - 16);
    return (size_t)(end - frame);
}

static uint8_t *put_text(uint8_t *p, const char *text)
{
    size_t n = strlen(text);
    if (n > 31) *p++ = 0xd9;
    *p++ = (uint8_t)(n > 31 ? n : 0xa0 | n);
    memcpy(p, text, n);
    return p + n;
}

/* {"group": group, "parts": [{"topic": topic, "partition": partition, "offset": offset}]} */
static size_t offset_frame(uint8_t *frame, uint16_t type, uint32_t correlation, const char *group, const char *topic, uint32_t partition,
                           uint32_t offset)
{
    uint8_t *p = put_head(frame, type, correlation);
    *p++ = 0x82;
    p = put_text(put_text(p, "group"), group);
    p = put_text(p, "parts");
    *p++ = 0x91;
    *p++ = type == OFFSET_COMMIT ? 0x83 : 0x82;
    p = put_text(put_text(p, "topic"), topic);
    p = put_text(p, "partition");
    *p++ = (uint8_t)partition;
    if (type == OFFSET_COMMIT) {
        p = put_text(p, "offset");
        *p++ = (uint8_t)offset; /* below 128 */
    }
    return end_frame(frame, p);
}

static bool send_all(const bench_run *run, hand *h, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(h->fd, data, len, MSG_NOSIGNAL);
        if (n < 0) return bench_fail(run->shared, "send: %s", strerror(errno));
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* An answer says something went wrong where "error" is among its keys. */
static bool check_answer(const bench_run *run, const uint8_t *frame, size_t len)
{
    for (size_t i = 16; i + 6 <= len; i++)
        if (frame[i] == 0xa5 && memcmp(frame + i + 1, "error", 5) == 0) return bench_fail(run->shared, "a commit was refused: %.*s",
                                                                                         (int)(len - i), (const char *)frame + i);
    return true;
}

/* One read; counts the answers in it. */
static bool hand_read(const bench_run *run, hand *h)
{
    if (h->at > 0) memmove(h->in, h->in + h->at, h->have - h->at);
    h->have -= h->at;
    h->at = 0;
    ssize_t n = recv(h->fd, h->in + h->have, sizeof h->in - h->have, 0);
    if (n <= 0) return bench_fail(run->shared, "receive: %s", n ? strerror(errno) : "the daemon closed the connection");
    h->have += (size_t)n;
    while (h->have - h->at >= 4) {
        const uint8_t *f = h->in + h->at;
        size_t len = 4 + ((size_t)f[0] << 24 | (size_t)f[1] << 16 | (size_t)f[2] << 8 | f[3]);
        if (h->have - h->at < len) break;
        if (!check_answer(run, f, len)) return false;
        h->at += len;
        h->answered++;
    }
    return true;
}

static bool hand_ask(const bench_run *run, hand *h, const uint8_t *frame, size_t len)
{
    uint32_t before = h->answered;
    if (!send_all(run, h, frame, len)) return false;
    while (h->answered == before)
        if (!hand_read(run, h)) return false;
    return true;
}

static bool hand_hello(const bench_run *run, hand *h)
{
    uint8_t frame[64], *p = put_head(frame, HELLO, 1);
    *p++ = 0x81;
    p = put_text(put_text(p, "client"), "commit");
    return hand_open(run, h) && hand_ask(run, h, frame, end_frame(frame, p));
}

/* Records for the offsets to be of. */
static bool fill_partition(const bench_run *run, uint32_t partition)
{
    bw_bus *bus;
    bw_producer *producer;
    bw_record records[RECORDS];
    for (uint32_t i = 0; i < RECORDS; i++) records[i] = (bw_record){.value = "x", .value_len = 1};
    if (bw_bus_open(run->bus_url, NULL, &bus) != BW_OK || bw_producer_open(bus, NULL, &producer) != BW_OK ||
        bw_producer_send_batch(producer, run->topic, (int32_t)partition, records, RECORDS, WAIT_MS, NULL) != BW_OK)
        return bench_fail(run->shared, "fill partition %u of topic %s: %s", partition, run->topic, bw_error_message());
    bw_producer_close(producer, WAIT_MS);
    bw_bus_close(bus);
    return true;
}

/* ---- Busway ---- */

bool bench_commit_one_role(const bench_run *run, uint32_t index)
{
    hand h;
    uint8_t frame[512];
    uint32_t warm = run->c->round_trips / 10;
    if (!fill_partition(run, index) || !hand_hello(run, &h)) return false;
    for (uint32_t i = 0; i < warm + run->c->round_trips; i++) {
        uint64_t began = bench_now_ns();
        if (!hand_ask(run, &h, frame, offset_frame(frame, OFFSET_FETCH, i, "nobody", run->topic, index, 0))) return false;
        uint64_t trip = bench_now_ns() - began;
        began = bench_now_ns();
        if (!hand_ask(run, &h, frame, offset_frame(frame, OFFSET_COMMIT, i, "bench", run->topic, index, i % RECORDS))) return false;
        uint64_t took = bench_now_ns() - began;
        if (i >= warm) run->shared->sample_ns[run->shared->samples++] = took > trip ? took - trip : 0;
    }
    close(h.fd);
    return true;
}

bool bench_commit_many_role(const bench_run *run, uint32_t index)
{
    hand h;
    uint8_t frames[SEND_AT_ONCE * 160];
    char group[16];
    uint32_t each = run->c->round_trips / run->c->writers, sent = 0;
    snprintf(group, sizeof group, "bench-%u", index);
    if (!fill_partition(run, index) || !hand_hello(run, &h) || !bench_arrive(run->shared)) return false;
    h.answered = 0;
    run->shared->writer[index].start_ns = bench_now_ns();
    while (h.answered < each) {
        size_t len = 0;
        uint32_t n = 0;
        while (n < SEND_AT_ONCE && sent < each && sent - h.answered < COMMITS_OPEN) {
            len += offset_frame(frames + len, OFFSET_COMMIT, sent, group, run->topic, index, sent % RECORDS);
            sent++;
            n++;
        }
        if (n > 0 && !send_all(run, &h, frames, len)) return false;
        if ((sent == each || sent - h.answered == COMMITS_OPEN) && !hand_read(run, &h)) return false;
    }
    run->shared->writer[index].end_ns = bench_now_ns();
    close(h.fd);
    return true;
}
