/* broker/link_topic.c: who this daemon is to its peers, which topics are mirrors, and where a link's topic goes on.
 *
 * Incarnation. The id of the data directory is in its store, and would be in a copy of the folder, too. So beside it lies what a copy cannot
 * have: device and inode of the folder and of the store's folder. Where they differ from what is stored the directory is a copy (or was
 * moved to another file system), and gets a new incarnation: what it writes from then on is told apart from what the other one writes.
 * Record (table links, key "i"): u8 version 1 · u64 incarnation · u64 device · u64 inode. */
#include "broker/links.h"
#include "broker/replica.h"

#include "base/killpoint.h"
#include "base/os.h"
#include "log/copy.h"

#include <busway/consumer.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { IDENTITY_BYTES = 25, MIRROR_BYTES_MIN = 42 };

/* ---- who this is ---- */

struct value {
    uint8_t data[256];
    size_t len, key_len;
    bool found;
};

static bool take_value(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    struct value *v = opaque;
    (void)key;
    if (key_len != v->key_len) return true;
    v->found = value_len <= sizeof v->data;
    v->len = value_len;
    if (v->found) memcpy(v->data, value, value_len);
    return false;
}

static bw_err read_value(bw_broker *b, const void *key, size_t key_len, struct value *v)
{
    *v = (struct value){.key_len = key_len};
    return bw_store_each(b->store, BW_TABLE_LINKS, key, key_len, take_value, v);
}

bw_err bw_origin_load(bw_broker *b)
{
    struct value v;
    struct stat st;
    bw_err e = read_value(b, "i", 1, &v);
    if (e) return e;
    if (bw_os_fstat(b->dir->fd, &st)) return bw_fail_errno(errno, "cannot stat the data directory");
    bool known = v.found && v.len == IDENTITY_BYTES && v.data[0] == 1;
    uint64_t device = known ? bw_get_be64(v.data + 9) : 0, inode = known ? bw_get_be64(v.data + 17) : 0;
    b->incarnation = known ? bw_get_be64(v.data + 1) : 0;
    if (known && device == (uint64_t)st.st_dev && inode == (uint64_t)st.st_ino) return BW_OK;
    if (bw_os_random(&b->incarnation, sizeof b->incarnation)) return bw_fail_errno(errno, "no random bytes for an incarnation");
    b->incarnation_untold = true;
    if (known) bw_broker_event(b, BW_LOG_WARN, "data_directory_copied", "incarnation=%llx", (unsigned long long)b->incarnation);
    return known ? bw_origin_keep(b) : BW_OK;
}

bw_err bw_origin_keep(bw_broker *b)
{
    struct stat st;
    uint8_t out[IDENTITY_BYTES] = {1};
    if (!b->incarnation_untold) return BW_OK;
    if (bw_os_fstat(b->dir->fd, &st)) return bw_fail_errno(errno, "cannot stat the data directory");
    bw_put_be64(out + 1, b->incarnation);
    bw_put_be64(out + 9, (uint64_t)st.st_dev);
    bw_put_be64(out + 17, (uint64_t)st.st_ino);
    bw_meta_change change = {BW_TABLE_LINKS, "i", 1, out, sizeof out};
    bw_err e = bw_store_change(b->store, &change, 1);
    b->incarnation_untold = e != BW_OK;
    return e;
}

bw_uuid bw_origin_id(const bw_broker *b) { return bw_store_bus_id(b->store); }
uint64_t bw_origin_incarnation(const bw_broker *b) { return b->incarnation; }

void bw_handle_link_hello(bw_broker *b, bw_op *op)
{
    bw_uuid mine = bw_origin_id(b);
    const bw_link_request *r = &op->request.link;
    if (!memcmp(mine.b, r->origin, 16) && r->incarnation == b->incarnation) {
        bw_op_fail(op, bw_fail(BW_ERR_LINK_LOOP, "link '%.*s' leads to the daemon that it belongs to (%s)", (int)r->name.len, r->name.data,
                               b->dir->path));
        return;
    }
    bw_err e = bw_origin_keep(b);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    bw_answer a;
    bw_answer_init(&a, &op->request);
    (void)bw_linking_of(op->session); /* it is told of changes from here on */
    memcpy(a.link.origin, mine.b, 16);
    a.link.incarnation = b->incarnation;
    bw_op_finish(op, &a);
}

/* ---- mirrors ---- */

static size_t mirror_key(const bw_topic *t, char key[BW_TOPIC_NAME_MAX + 2])
{
    key[0] = 'm';
    memcpy(key + 1, t->name, strlen(t->name) + 1);
    return strlen(key);
}

static size_t mirror_encode(const bw_mirror *m, uint8_t *out)
{
    size_t n = strlen(m->link);
    out[0] = 1;
    out[1] = (uint8_t)n;
    memcpy(out + 2, m->link, n);
    memcpy(out + 2 + n, m->origin.b, 16);
    bw_put_be64(out + 18 + n, m->incarnation);
    memcpy(out + 26 + n, m->source.b, 16);
    return n + MIRROR_BYTES_MIN;
}

static bool mirror_decode(const uint8_t *data, size_t len, bw_mirror *out)
{
    if (len < MIRROR_BYTES_MIN || data[0] != 1 || data[1] > BW_LINK_NAME_BYTES || len != (size_t)data[1] + MIRROR_BYTES_MIN) return false;
    size_t n = data[1];
    *out = (bw_mirror){0};
    memcpy(out->link, data + 2, n);
    memcpy(out->origin.b, data + 2 + n, 16);
    out->incarnation = bw_get_be64(data + 18 + n);
    memcpy(out->source.b, data + 26 + n, 16);
    return true;
}

static bw_err mirror_put(bw_broker *b, const bw_topic *t, const bw_mirror *m)
{
    char key[BW_TOPIC_NAME_MAX + 2];
    uint8_t value[BW_LINK_NAME_BYTES + MIRROR_BYTES_MIN];
    size_t key_len = mirror_key(t, key), len = m ? mirror_encode(m, value) : 0;
    bw_meta_change change = {BW_TABLE_LINKS, key, key_len, m ? value : NULL, len};
    return bw_store_change(b->store, &change, 1);
}

bw_err bw_mirror_load(bw_broker *b, bw_topic *t)
{
    char key[BW_TOPIC_NAME_MAX + 2];
    struct value v;
    bw_mirror m;
    bw_err e = read_value(b, key, mirror_key(t, key), &v);
    if (e || !v.found) return e;
    if (!mirror_decode(v.data, v.len, &m)) return bw_fail(BW_ERR_CORRUPT, "the record that topic '%s' is a mirror can't be read", t->name);
    if (!(t->mirror = malloc(sizeof m))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for topic '%s'", t->name);
    *t->mirror = m;
    return BW_OK;
}

bw_err bw_topic_set_mirror(bw_broker *b, bw_topic *t, const bw_mirror *m)
{
    bw_mirror *copy = m ? malloc(sizeof *copy) : NULL;
    if (m && !copy) return bw_fail(BW_ERR_NO_MEMORY, "no memory for topic '%s'", t->name);
    if (m) *copy = *m;
    bw_err e = mirror_put(b, t, m);
    if (e) {
        free(copy);
        return e;
    }
    BW_KILL_POINT("mirror.stored");
    free(t->mirror);
    t->mirror = copy;
    for (uint32_t i = 0; i < t->part_count; i++) {
        if (t->parts[i]->log) bw_partition_set_mirror(t->parts[i]->log, copy != NULL);
        atomic_fetch_add_explicit(&t->control->slots[i].fence, 1, memory_order_release);
    }
    return BW_OK;
}

void bw_topic_forget_links(bw_broker *b, bw_topic *t)
{
    if (t->mirror) (void)mirror_put(b, t, NULL);
    for (uint32_t i = 0; i < t->part_count; i++) {
        uint8_t key[20];
        bw_meta_change change = {BW_TABLE_MERGES, key, sizeof key, NULL, 0};
        if (!t->parts[i]->merge) continue;
        memcpy(key, t->id.b, 16);
        bw_put_be32(key + 16, i);
        (void)bw_store_change(b->store, &change, 1);
    }
}

bw_err bw_mirror_refuse_write(const bw_topic *t)
{
    if (!t->mirror->link[0])
        return bw_fail(BW_ERR_ORIGIN_FENCED, "topic '%s' was promoted elsewhere (leader epoch %llu): write there; what only this "
                       "copy has is kept (busway link tails)", t->name, (unsigned long long)t->mirror->incarnation);
    return bw_fail(BW_ERR_MIRROR_READ_ONLY, "topic '%s' is the mirror of link '%s': write at its origin, or promote it (busway link promote)",
                   t->name, t->mirror->link);
}

/* ---- positions ---- */

bool bw_link_last_batch(bw_broker *b, bw_part *p, int64_t offset, bw_batch_header *out)
{
    bw_reader *r;
    bw_batch_ref ref;
    if (offset <= 0 || bw_part_reader(b, p, BW_LIMIT_ALL, false, &r) != BW_OK) return false;
    bw_reader_seek(r, offset - 1);
    if (bw_reader_next(r, &ref) != BW_OK || bw_batch_last_offset(&ref.header) != offset - 1) return false;
    *out = ref.header;
    return true;
}

static void put_last_batch(bw_broker *b, bw_part *p, bw_link_part *out)
{
    bw_batch_header h;
    out->base = out->epoch = -1;
    if (!bw_link_last_batch(b, p, out->offset, &h)) return;
    out->base = h.base_offset;
    out->epoch = h.leader_epoch;
    out->crc = h.crc;
}

/* false: come again (*e OK), or *e. */
static bool put_position(bw_broker *b, const bw_request *r, bw_part *p, const uint8_t source[16], bw_link_part *out, bw_err *e)
{
    int64_t durable;
    *e = BW_OK;
    bw_part_range(p, &out->log_start, &out->end, &durable);
    if (r->link.mode == BW_LINK_MERGE) {
        struct bw_merge *m = bw_merge_ready(b, p, e);
        if (!m) return false;
        bw_log_id id = bw_link_log_id(r, source, (int32_t)p->index, true);
        out->offset = bw_vector_next(&m->vector, BW_VECTOR_LINK, &id);
        return true;
    }
    if (out->offset < 0) out->offset = p->copied_upto > out->end ? p->copied_upto : out->end;
    put_last_batch(b, p, out);
    return true;
}

static bw_link_part *make_parts(size_t count)
{
    bw_link_part *parts = calloc(count ? count : 1, sizeof *parts);
    for (size_t i = 0; parts && i < count; i++) {
        parts[i].offset = parts[i].next = parts[i].base = parts[i].log_start = parts[i].end = parts[i].timestamp = -1;
        parts[i].epoch = -1;
    }
    return parts;
}

static void answer_parts(bw_op *op, bw_link_part *parts, size_t count)
{
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.link.parts = parts;
    a.link.part_count = count;
    bw_op_finish(op, &a);
    free(parts);
}

void bw_handle_link_position(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bw_link_part *parts = make_parts(r->link.part_count);
    if (!parts) {
        bw_op_fail(op, bw_fail(BW_ERR_NO_MEMORY, "no memory for positions"));
        return;
    }
    for (size_t i = 0; i < r->link.part_count; i++) {
        const bw_link_part *q = &r->link.parts[i];
        bw_part *p;
        parts[i].topic = q->topic;
        parts[i].partition = q->partition;
        parts[i].offset = q->offset;
        bw_err e = bw_part_of(b, q->topic, q->partition, false, &p);
        if (!e && !put_position(b, r, p, q->id, &parts[i], &e) && !e) e = bw_fail(BW_ERR_BUSY, "the vector is being read; try again");
        parts[i].error = (int32_t)e;
        if (e) parts[i].message = bw_str_of(bw_err_text(e));
    }
    answer_parts(op, parts, r->link.part_count);
}

/* ---- a link's topic ---- */

static bw_err check_mirror(const bw_topic *t, const bw_request *r)
{
    if (t->lead) return bw_lead_refuse_link(t);
    if (!t->mirror)
        return bw_fail(BW_ERR_TOPIC_EXISTS, "topic '%s' is there and no mirror: give the link a prefix, or use mode=merge", t->name);
    if (!t->mirror->link[0]) return bw_mirror_refuse_write(t);
    if (!bw_str_is(r->link.name, t->mirror->link))
        return bw_fail(BW_ERR_TOPIC_EXISTS, "topic '%s' is the mirror of another link, '%s'", t->name, t->mirror->link);
    if (memcmp(t->mirror->source.b, r->link.source, 16))
        return bw_fail(BW_ERR_LOGS_DIVERGED, "topic '%s' mirrors a topic that is not the peer's: it was made anew there, or it is another peer; "
                       "delete the mirror to begin again", t->name);
    return BW_OK;
}

/* What differs of the configurations that travel. */
static bw_err follow_configs(bw_broker *b, bw_topic *t, const bw_request *r)
{
    bool same = true;
    for (size_t i = 0; same && i < r->config_count; i++) {
        bool there = false;
        for (size_t k = 0; k < t->override_count; k++)
            there |= bw_str_is(r->configs[i].name, t->overrides[k].name) && bw_str_is(r->configs[i].value, t->overrides[k].value);
        same = there;
    }
    int32_t grow = r->partitions > (int32_t)t->part_count ? r->partitions : 0;
    return same && !grow ? BW_OK : bw_topic_alter_config(b, t, grow, r->configs, r->config_count);
}

/* The record first: a topic that is made is a mirror from its first moment. */
static bw_err make_topic(bw_broker *b, const bw_request *r, bw_topic **out)
{
    bw_topic named = {0};
    bool mirror = r->link.mode == BW_LINK_MIRROR;
    bw_err e = bw_topic_name_check(r->topic.data, r->topic.len);
    if (e) return e;
    memcpy(named.name, r->topic.data, r->topic.len);
    if (mirror) {
        bw_mirror m = {.incarnation = r->link.incarnation};
        memcpy(m.link, r->link.name.data, r->link.name.len);
        memcpy(m.origin.b, r->link.origin, 16);
        memcpy(m.source.b, r->link.source, 16);
        if ((e = mirror_put(b, &named, &m))) return e;
        BW_KILL_POINT("mirror.stored");
    }
    e = bw_topic_create_new(b, r->topic, r->partitions, r->configs, r->config_count, out);
    if (!e || !mirror) return e;
    char why[512];
    snprintf(why, sizeof why, "%s", bw_error_message());
    (void)mirror_put(b, &named, NULL);
    return bw_error_set_message(e, why);
}

static bw_err ready_topic(bw_broker *b, const bw_request *r, bw_topic **out)
{
    bw_topic *t = bw_topic_find(b, r->topic);
    if (r->link.name.len == 0 || r->link.name.len > BW_LINK_NAME_BYTES) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a link without a name");
    if (r->link.mode != BW_LINK_MIRROR && r->link.mode != BW_LINK_MERGE)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "mode = %d; allowed: 0 mirror, 1 merge", r->link.mode);
    *out = t;
    if (t && t->deleting) return bw_fail(BW_ERR_DELETED, "topic '%s' is being deleted", t->name);
    if (!t) return r->link.create ? make_topic(b, r, out) : bw_topic_of(b, r->topic, false, out);
    if (r->link.mode == BW_LINK_MERGE && t->mirror) return bw_mirror_refuse_write(t);
    bw_err e = r->link.mode == BW_LINK_MIRROR ? check_mirror(t, r) : BW_OK;
    return e ? e : follow_configs(b, t, r);
}

/* The vector of a partition is being read: the request comes again when it is there, or in a moment. */
struct later {
    bw_timer timer;
    bw_op *op;
};

static void on_later(void *broker, bw_timer *timer)
{
    struct later *l = (struct later *)(void *)timer;
    bw_op *op = l->op;
    free(l);
    if (op->session->closed) bw_op_finish(op, NULL);
    else bw_broker_handle(broker, op);
}

static void come_again(bw_broker *b, bw_op *op)
{
    enum { AGAIN_MS = 5 };
    struct later *l = calloc(1, sizeof *l);
    if (l) *l = (struct later){.timer = {.fire = on_later}, .op = op};
    if (!l || bw_timers_set(&b->timers, &l->timer, bw_deadline_in_ms(AGAIN_MS))) {
        free(l);
        bw_op_fail(op, bw_fail(BW_ERR_BUSY, "the vector of topic '%.*s' is being read; try again", (int)op->request.topic.len,
                               op->request.topic.data));
    }
}

void bw_handle_link_topic(bw_broker *b, bw_op *op)
{
    bw_topic *t;
    const bw_request *r = &op->request;
    bw_err e = ready_topic(b, r, &t);
    if (!e && r->link.mode == BW_LINK_MERGE) e = bw_feed_claim(b, op->session, t, &r->link);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    if (bw_opener_park(b, op)) return;
    bw_link_part *parts = make_parts(t->part_count);
    bool wait = false;
    if (!parts) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for positions");
    for (uint32_t i = 0; !e && !wait && i < t->part_count; i++) {
        bw_part *p;
        parts[i].topic = r->topic;
        parts[i].partition = (int32_t)i;
        parts[i].error = (int32_t)bw_part_of(b, r->topic, (int32_t)i, false, &p);
        if (parts[i].error) parts[i].message = bw_str_of(bw_err_text((bw_err)parts[i].error));
        else wait = !put_position(b, r, p, r->link.source, &parts[i], &e);
    }
    if (e || wait) free(parts);
    if (e) bw_op_fail(op, e);
    else if (wait) come_again(b, op);
    else answer_parts(op, parts, t->part_count);
}

/* ---- src/link ---- */

void bw_handle_link_admin(bw_broker *b, bw_op *op)
{
    if (b->links) b->links->handle(b->links_opaque, op);
    else bw_op_fail(op, bw_fail(BW_ERR_BUSY, "links are not there: the daemon is starting or stopping"));
}

void bw_broker_set_links(bw_broker *b, const bw_links_ops *ops, void *links)
{
    bw_reactor_enter(b->reactor);
    b->links = ops;
    b->links_opaque = links;
    bw_reactor_leave(b->reactor);
}
