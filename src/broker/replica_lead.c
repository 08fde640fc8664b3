/* broker/replica_lead.c: PROMOTE, FENCE, TAILS: a mirror becomes the origin; an old origin takes no more writes, and keeps its tail.
 *
 * Promotion is a person's decision. The new leader epoch is the next multiple of 65,536: an origin that restarts uncleanly raises its epoch
 * by one each time, and never reaches it. Order, so that it may be cut anywhere and done again:
 *   1 record {epoch, link, origin} (table links, key 'p' and the topic's name): from here on the link appends nothing any more
 *   2 the epoch begins at each partition's end (leader-epoch-checkpoint, synced)      3 the record that it is a mirror goes: writes are taken
 * A death between 1 and 3 leaves a read-only topic that its link leaves alone: to be promoted again.
 *
 * A fenced topic is a mirror without a link: writes are refused in all the ways in which a mirror's are, and so after a restart. Its record
 * (as a mirror's, link.h) has the new origin's id, and the new epoch in the place of the incarnation. Then what lies behind the offset from
 * which on the logs differ is copied to set-aside/<topic>-<partition>.<epoch>/<offset>.log, a segment like any other (`busway dump`), which
 * nobody deletes but a person; the record (table links, key 'a', topic, 0, be32 partition, be64 from: u8 1, be64 upto, be64 bytes, be32
 * epoch) lists it. The log itself stays as it was. */
#include "broker/document.h"
#include "broker/links.h"
#include "broker/replica.h"
#include "broker/txn_internal.h"

#include "base/killpoint.h"
#include "format/names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#define EPOCH_STEP 65536
#define ASIDE "set-aside"
enum { LEAD_BYTES_MIN = 22, TAIL_BYTES = 21, TAIL_CHUNK = 1 << 20, QUIET_TRIES = 100 };

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }
static int32_t epoch_of(const bw_part *p) { return (int32_t)atomic_load_explicit(&slot_of(p)->leader_epoch, memory_order_acquire); }

/* ---- the record of a promotion ---- */

static size_t lead_key(const char *topic, char key[BW_TOPIC_NAME_MAX + 2])
{
    key[0] = 'p';
    memcpy(key + 1, topic, strlen(topic) + 1);
    return strlen(key);
}

static bw_err lead_put(bw_broker *b, const bw_topic *t, const bw_lead *l)
{
    char key[BW_TOPIC_NAME_MAX + 2];
    uint8_t value[LEAD_BYTES_MIN + BW_LINK_NAME_BYTES] = {1};
    size_t n = l ? strlen(l->link) : 0;
    if (l) {
        value[1] = (uint8_t)n;
        bw_put_be32(value + 2, (uint32_t)l->epoch);
        memcpy(value + 6, l->origin.b, 16);
        memcpy(value + LEAD_BYTES_MIN, l->link, n);
    }
    bw_meta_change change = {BW_TABLE_LINKS, key, lead_key(t->name, key), l ? value : NULL, LEAD_BYTES_MIN + n};
    return bw_store_change(b->store, &change, 1);
}

typedef struct lead_search {
    size_t key_len;
    bw_lead *out;
    bool found, bad;
} lead_search;

static bool take_lead(void *opaque, const void *key, size_t key_len, const void *value, size_t len)
{
    lead_search *s = opaque;
    const uint8_t *v = value;
    (void)key;
    if (key_len != s->key_len) return true;
    s->bad = len < LEAD_BYTES_MIN || v[0] != 1 || v[1] > BW_LINK_NAME_BYTES || len != LEAD_BYTES_MIN + (size_t)v[1];
    if (!s->bad) {
        s->found = true;
        s->out->epoch = (int32_t)bw_get_be32(v + 2);
        memcpy(s->out->origin.b, v + 6, 16);
        memcpy(s->out->link, v + LEAD_BYTES_MIN, v[1]);
    }
    return false;
}

bw_err bw_lead_load(bw_broker *b, bw_topic *t)
{
    char key[BW_TOPIC_NAME_MAX + 2];
    bw_lead l = {0};
    lead_search s = {.key_len = lead_key(t->name, key), .out = &l};
    bw_err e = bw_store_each(b->store, BW_TABLE_LINKS, key, s.key_len, take_lead, &s);
    if (e) return e;
    if (s.bad) return bw_fail(BW_ERR_CORRUPT, "the record that topic '%s' was promoted can't be read", t->name);
    if (!s.found) return BW_OK;
    if (!(t->lead = malloc(sizeof l))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for topic '%s'", t->name);
    *t->lead = l;
    return BW_OK;
}

void bw_lead_forget(bw_broker *b, bw_topic *t)
{
    if (t->lead) (void)lead_put(b, t, NULL);
}

bw_err bw_lead_refuse_link(const bw_topic *t)
{
    return bw_fail(BW_ERR_ORIGIN_FENCED, "topic '%s' was promoted here (leader epoch %d)%s: the link copies it no more", t->name, t->lead->epoch,
                   t->mirror ? ", but not to the end: promote it again" : "");
}

/* ---- promotion ---- */

static bw_err check_promote(const bw_topic *t, bool force, int32_t *newest)
{
    if (!t->mirror) return bw_fail(BW_ERR_INVALID_ARGUMENT, "topic '%s' is no mirror: there is nothing to promote", t->name);
    for (uint32_t i = 0; i < t->part_count; i++) {
        const bw_part *p = t->parts[i];
        if (!p->log) return bw_fail(BW_ERR_IO, "topic '%s' partition %u is not open: %s", t->name, i, p->why ? p->why : "see the log");
        int64_t end = bw_slot_end_offset(slot_of(p));
        if (!force && p->replicated_there > end)
            return bw_fail(BW_ERR_LOGS_DIVERGED,
                           "topic '%s' partition %u ends at offset %lld here, but up to %lld was acknowledged as replicated: another mirror has it: "
                           "promote that one, or this one with force and lose it",
                           t->name, i, (long long)end, (long long)p->replicated_there);
        if (epoch_of(p) > *newest) *newest = epoch_of(p);
    }
    if (!t->mirror->link[0] && (int64_t)t->mirror->incarnation > *newest) *newest = (int32_t)t->mirror->incarnation; /* fenced: back again */
    return *newest <= INT32_MAX - EPOCH_STEP ? BW_OK : bw_fail(BW_ERR_LIMIT_REACHED, "topic '%s' has the last leader epoch there is", t->name);
}

static bw_err promote(bw_broker *b, bw_topic *t, bool force)
{
    int32_t newest = 0;
    bw_err e = check_promote(t, force, &newest);
    if (e) return e;
    if (!t->lead || t->lead->epoch < newest) {
        bw_lead *l = calloc(1, sizeof *l);
        if (!l) return bw_fail(BW_ERR_NO_MEMORY, "no memory to promote topic '%s'", t->name);
        l->epoch = (newest / EPOCH_STEP + 1) * EPOCH_STEP;
        l->origin = t->mirror->origin;
        memcpy(l->link, t->mirror->link, sizeof l->link);
        if ((e = lead_put(b, t, l))) {
            free(l);
            return e;
        }
        free(t->lead);
        t->lead = l;
    }
    BW_KILL_POINT("promote.promised");
    for (uint32_t i = 0; !e && i < t->part_count; i++) {
        e = bw_partition_begin_epoch(t->parts[i]->log, t->lead->epoch);
        BW_KILL_POINT("promote.epoch");
    }
    if (!e) e = bw_topic_set_mirror(b, t, NULL);
    if (e) return e;
    BW_KILL_POINT("promote.done");
    for (uint32_t i = 0; i < t->part_count; i++) bw_txn_reconcile(b, t->parts[i]); /* what is open there ends now: nobody else can end it */
    bw_broker_event(b, BW_LOG_WARN, "topic_promoted", "topic=%s epoch=%d link=%s", t->name, t->lead->epoch, t->lead->link);
    return BW_OK;
}

void bw_handle_promote(bw_broker *b, bw_op *op)
{
    bw_topic *t;
    bw_err e = bw_topic_of(b, op->request.topic, false, &t);
    if (!e && (t->mirror || !t->lead)) e = promote(b, t, op->request.replica.force); /* else it is done already */
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.replica.epoch = t->lead->epoch;
    bw_op_finish(op, &a);
}

/* ---- an old origin's tail ---- */

typedef struct tail_job {
    bw_job job;
    int64_t from, upto;
    uint64_t bytes;
    int32_t epoch;
    char path[BW_PARTITION_DIR_MAX + BW_SEGMENT_NAME_MAX + 64];
} tail_job;

static void aside_folder(char *out, size_t size, const char *topic, uint32_t partition, int32_t epoch)
{
    snprintf(out, size, ASIDE "/%s-%u.%d", topic, partition, epoch);
}

static bw_err make_folder(bw_broker *b, const char *path, int *fd)
{
    if (bw_os_mkdir(b->dir->fd, ASIDE, 0750) != 0 && errno != EEXIST) return bw_fail_errno(errno, "cannot make folder " ASIDE);
    if (bw_os_mkdir(b->dir->fd, path, 0750) != 0 && errno != EEXIST) return bw_fail_errno(errno, "cannot make folder %s", path);
    int parent = bw_os_open_beneath(b->dir->fd, ASIDE, O_RDONLY | O_DIRECTORY, 0);
    *fd = bw_os_open_beneath(b->dir->fd, path, O_RDONLY | O_DIRECTORY, 0);
    bw_err e = BW_OK;
    if (parent < 0 || *fd < 0 || bw_os_sync_dir(parent) || bw_os_sync_dir(b->dir->fd)) e = bw_fail_errno(errno, "cannot sync folder %s", path);
    if (parent >= 0) bw_os_close(parent);
    return e;
}

static bw_err copy_batches(bw_broker *b, tail_job *j, int fd)
{
    bw_reader *r;
    bw_err e = bw_part_open_reader(b, j->job.part, BW_LIMIT_ALL, false, &r);
    if (e) return e;
    bw_reader_seek(r, j->from);
    while (!e && bw_reader_position(r) < j->upto) {
        bw_run run;
        if ((e = bw_reader_run(r, TAIL_CHUNK, &run))) break;
        if (bw_os_pwrite(fd, run.data, run.len, (off_t)j->bytes) < 0) e = bw_fail_errno(errno, "cannot write %s", j->path);
        j->bytes += run.len;
    }
    bw_reader_close(r);
    return e == BW_ERR_EMPTY ? BW_OK : e;
}

static bw_err keep_tail(bw_broker *b, tail_job *j)
{
    char name[BW_SEGMENT_NAME_MAX], fresh[BW_SEGMENT_NAME_MAX + 8];
    int dir = -1;
    const bw_part *p = j->job.part;
    bw_segment_name(name, j->from, ".log");
    snprintf(fresh, sizeof fresh, "%s.tmp", name);
    aside_folder(j->path, sizeof j->path, p->topic->name, p->index, j->epoch);
    bw_err e = make_folder(b, j->path, &dir);
    size_t n = strlen(j->path);
    snprintf(j->path + n, sizeof j->path - n, "/%s", name);
    int fd = e ? -1 : bw_os_open(dir, fresh, O_RDWR | O_CREAT | O_TRUNC, 0640);
    if (!e && fd < 0) e = bw_fail_errno(errno, "cannot make %s", j->path);
    if (!e) e = copy_batches(b, j, fd);
    if (!e && bw_os_fdatasync(fd)) e = bw_fail_errno(errno, "cannot sync %s", j->path);
    BW_KILL_POINT("tail.written");
    if (!e && (bw_os_rename(dir, fresh, dir, name) || bw_os_sync_dir(dir))) e = bw_fail_errno(errno, "cannot rename %s", j->path);
    if (fd >= 0) bw_os_close(fd);
    if (dir >= 0) bw_os_close(dir);
    return e;
}

static size_t tail_key(uint8_t *key, const char *topic, uint32_t partition, int64_t from)
{
    size_t n = strlen(topic);
    key[0] = 'a';
    memcpy(key + 1, topic, n + 1);
    bw_put_be32(key + n + 2, partition);
    bw_put_be64(key + n + 6, (uint64_t)from);
    return n + 14;
}

static bw_err note_tail(bw_broker *b, const tail_job *j)
{
    const bw_part *p = j->job.part;
    uint8_t key[BW_TOPIC_NAME_MAX + 16], value[TAIL_BYTES] = {1};
    size_t len = tail_key(key, p->topic->name, p->index, j->from);
    bw_put_be64(value + 1, (uint64_t)j->upto);
    bw_put_be64(value + 9, j->bytes);
    bw_put_be32(value + 17, (uint32_t)j->epoch);
    bw_meta_change change = {BW_TABLE_LINKS, key, len, value, sizeof value};
    return bw_store_change(b->store, &change, 1);
}

static void tail_run(bw_broker *b, bw_job *job)
{
    tail_job *j = (tail_job *)(void *)job;
    bw_err e = BW_ERR_LOCK_HELD;
    for (int i = 0; e == BW_ERR_LOCK_HELD && i < QUIET_TRIES; i++) e = bw_partition_quiesce(job->part->log); /* who was inside is out */
    j->upto = bw_slot_end_offset(slot_of(job->part));
    if (!e && j->upto > j->from) e = keep_tail(b, j);
    if (e) bw_job_set_error(job, e);
}

static void answer_fence(bw_op *op, bw_part *p, bw_err e, const char *message, const tail_job *j)
{
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.error = (int32_t)e;
    a.message = bw_str_of(message);
    a.replica.epoch = epoch_of(p);
    if (j && !e && j->bytes) {
        a.replica.path = bw_str_of(j->path);
        a.replica.bytes = j->bytes;
    }
    bw_part_range(p, &a.log_start, &a.end, &a.durable);
    bw_op_finish(op, &a);
}

static void tail_done(bw_broker *b, bw_job *job)
{
    tail_job *j = (tail_job *)(void *)job;
    bw_part *p = job->part;
    if (!job->error && j->bytes) {
        bw_err e = note_tail(b, j);
        if (e) bw_job_set_error(job, e);
        else
            bw_broker_event(b, BW_LOG_WARN, "tail_kept", "topic=%s partition=%u from=%lld upto=%lld bytes=%llu file=%s", p->topic->name, p->index,
                            (long long)j->from, (long long)j->upto, (unsigned long long)j->bytes, j->path);
    }
    BW_KILL_POINT("tail.noted");
    answer_fence(job->op, p, job->error, job->message, j);
    bw_part_release(p);
    free(j);
}

typedef struct tail_search { size_t key_len; bool found; } tail_search;
static bool is_tail(void *opaque, const void *key, size_t key_len, const void *value, size_t len)
{
    tail_search *s = opaque;
    (void)key, (void)value, (void)len;
    s->found |= key_len == s->key_len;
    return false;
}

/* ---- fencing ---- */

static bw_err check_fence(const bw_part *p, const bw_replica_request *q, bw_uuid *peer)
{
    const bw_topic *t = p->topic;
    if (q->peer.len != 32) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a new origin's id is 32 hexadecimal digits");
    for (size_t i = 0; i < 16; i++) {
        unsigned byte;
        char two[3] = {q->peer.data[2 * i], q->peer.data[2 * i + 1], 0};
        if (strspn(two, "0123456789abcdef") != 2 || sscanf(two, "%2x", &byte) != 1)
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "a new origin's id is 32 hexadecimal digits");
        peer->b[i] = (uint8_t)byte;
    }
    if (!p->log) return bw_fail(BW_ERR_IO, "topic '%s' partition %u is not open: %s", t->name, p->index, p->why ? p->why : "see the log");
    if (q->from < 0 || q->from > bw_slot_end_offset(slot_of(p)))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "topic '%s' partition %u: offset %lld is not in the log", t->name, p->index, (long long)q->from);
    if (t->mirror && t->mirror->link[0]) return bw_mirror_refuse_write(t);
    if (q->epoch < EPOCH_STEP || q->epoch <= epoch_of(p) || (t->lead && t->lead->epoch >= q->epoch))
        return bw_fail(BW_ERR_LOGS_DIVERGED, "topic '%s' partition %u has leader epoch %d, which is not behind %d: nothing is fenced",
                       t->name, p->index, epoch_of(p), q->epoch);
    return BW_OK;
}

static bw_err fence(bw_broker *b, bw_topic *t, int32_t epoch, const bw_uuid *peer)
{
    if (t->mirror && t->mirror->incarnation >= (uint64_t)epoch) return BW_OK;
    bw_mirror m = {.origin = *peer, .incarnation = (uint64_t)epoch};
    bw_produce_flush(b); /* what came before this is before it */
    bw_err e = bw_topic_set_mirror(b, t, &m);
    if (e) return e;
    BW_KILL_POINT("fence.stored");
    for (uint32_t i = 0; i < t->part_count; i++) {
        (void)bw_mirror_refuse_write(t);
        bw_produce_fail_all(b, t->parts[i], BW_ERR_ORIGIN_FENCED);
    }
    bw_broker_event(b, BW_LOG_WARN, "origin_fenced", "topic=%s epoch=%d", t->name, epoch);
    return BW_OK;
}

void bw_handle_fence(bw_broker *b, bw_op *op)
{
    const bw_replica_request *q = &op->request.replica;
    uint8_t key[BW_TOPIC_NAME_MAX + 16];
    bw_part *p;
    bw_uuid peer;
    tail_search s = {0};
    bw_err e = bw_part_of(b, op->request.topic, op->request.partition, false, &p);
    if (!e) e = check_fence(p, q, &peer);
    if (!e) e = fence(b, p->topic, q->epoch, &peer);
    if (!e) {
        s.key_len = tail_key(key, p->topic->name, p->index, q->from);
        e = bw_store_each(b->store, BW_TABLE_LINKS, key, s.key_len, is_tail, &s);
    }
    if (!e && s.found) {
        answer_fence(op, p, BW_OK, "", NULL);
        return;
    }
    tail_job *j = e ? NULL : calloc(1, sizeof *j);
    if (!e && !j) e = bw_fail(BW_ERR_NO_MEMORY, "no memory to keep a tail");
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    j->job = (bw_job){.run = tail_run, .done = tail_done, .op = op, .part = p};
    j->from = q->from;
    j->epoch = q->epoch;
    atomic_fetch_add(&p->users, 1);
    if ((e = bw_worker_submit(b, &j->job))) {
        bw_part_release(p);
        free(j);
        bw_op_fail(op, e);
    }
}

/* ---- TAILS ---- */

typedef struct tails {
    bw_broker *b;
    msgpack_packer *pk;
    bw_str topic;
    size_t count;
    int bad;
} tails;

static bool tail_of(const tails *x, const uint8_t *key, size_t key_len, size_t len, size_t *name_len)
{
    *name_len = strnlen((const char *)key + 1, key_len - 1);
    if (len != TAIL_BYTES || key_len != *name_len + 14) return false;
    return !x->topic.len || (x->topic.len == *name_len && !memcmp(x->topic.data, key + 1, *name_len));
}

static bool count_tail(void *opaque, const void *key, size_t key_len, const void *value, size_t len)
{
    tails *x = opaque;
    size_t n;
    (void)value;
    x->count += tail_of(x, key, key_len, len, &n);
    return true;
}

static bool put_tail(void *opaque, const void *key, size_t key_len, const void *value, size_t len)
{
    tails *x = opaque;
    const uint8_t *k = key, *v = value;
    size_t n;
    char folder[BW_PARTITION_DIR_MAX + 64], name[BW_SEGMENT_NAME_MAX], path[BW_PARTITION_DIR_MAX + BW_SEGMENT_NAME_MAX + 5000];
    if (!tail_of(x, k, key_len, len, &n)) return true;
    uint32_t partition = bw_get_be32(k + n + 2);
    int64_t from = (int64_t)bw_get_be64(k + n + 6);
    int32_t epoch = (int32_t)bw_get_be32(v + 17);
    aside_folder(folder, sizeof folder, (const char *)k + 1, partition, epoch);
    bw_segment_name(name, from, ".log");
    snprintf(path, sizeof path, "%s/%s/%s", x->b->dir->path, folder, name);
    x->bad |= msgpack_pack_map(x->pk, 7) | key_text(x->pk, "topic", (const char *)k + 1) | key_int(x->pk, "partition", partition);
    x->bad |= key_int(x->pk, "from", from) | key_int(x->pk, "upto", (int64_t)bw_get_be64(v + 1));
    x->bad |= key_int(x->pk, "bytes", (int64_t)bw_get_be64(v + 9)) | key_int(x->pk, "epoch", epoch) | key_text(x->pk, "file", path);
    return true;
}

void bw_handle_tails(bw_broker *b, bw_op *op)
{
    msgpack_packer pk;
    tails x = {.b = b, .pk = &pk, .topic = op->request.topic};
    bw_err e = bw_store_each(b->store, BW_TABLE_LINKS, "a", 1, count_tail, &x);
    bw_doc_begin(b, &pk);
    x.bad = msgpack_pack_array(&pk, x.count);
    if (!e) e = bw_store_each(b->store, BW_TABLE_LINKS, "a", 1, put_tail, &x);
    if (e) bw_op_fail(op, e);
    else bw_doc_send(b, op, x.bad);
}

int bw_lead_doc(msgpack_packer *pk, const bw_topic *t)
{
    static const char *const states[] = {"origin", "mirror", "fenced", "promoted"};
    bool fenced = t->mirror && !t->mirror->link[0];
    int state = fenced ? 2 : t->mirror ? 1 : t->lead ? 3 : 0;
    int32_t epoch = fenced ? (int32_t)t->mirror->incarnation : t->lead ? t->lead->epoch : 0;
    return key_text(pk, "role", states[state]) | key_int(pk, "promoted_epoch", epoch);
}
