/* broker/status.c: the documents of STATUS and DESCRIBE_TOPICS, in msgpack. Names as in busway/admin.h. */
#include "broker/document.h"
#include "broker/links.h"
#include "broker/offsets.h"
#include "broker/quota_admit.h"
#include "broker/replica.h"

#include "base/os.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- topics ---- */

static const char *state_name(bw_slot_state state)
{
    static const char *const names[] = {"open", "poisoned", "deleted", "retired"};
    return (unsigned)state < 4 ? names[state] : "unknown";
}

static int put_cleaned(msgpack_packer *pk, const bw_cleaned *c)
{
    int bad = put_text(pk, "compaction") | msgpack_pack_map(pk, 9);
    bad |= key_int(pk, "runs", (int64_t)c->runs) | key_int(pk, "last_ms", c->at_ms) | key_int(pk, "took_ms", c->took_ms);
    bad |= key_int(pk, "dirty_per_mille", (int64_t)(c->dirty_ratio * 1000 + 0.5)) | key_int(pk, "clean_offset", c->upto);
    bad |= key_int(pk, "bytes_before", (int64_t)c->bytes_before) | key_int(pk, "bytes_after", (int64_t)c->bytes_after);
    bad |= key_int(pk, "records_before", (int64_t)c->records_before) | key_int(pk, "records_after", (int64_t)c->records_after);
    return bad;
}

static int put_partition(bw_broker *b, msgpack_packer *pk, const bw_part *p)
{
    bw_partition_info info = {.state = BW_SLOT_POISONED};
    bw_cleaned cleaned;
    if (p->log) bw_partition_info_get(p->log, &info);
    bool was_cleaned = bw_cleaner_get(b, p, &cleaned);
    int bad = msgpack_pack_map(pk, (p->log ? 8 : 9) + was_cleaned + (p->topic->config.replicas > 0));
    if (p->topic->config.replicas > 0) bad |= bw_replica_put(pk, p, &info);
    if (was_cleaned) bad |= put_cleaned(pk, &cleaned);
    bad |= key_int(pk, "partition", p->index) | key_int(pk, "log_start_offset", info.log_start) | key_int(pk, "end_offset", info.end_offset);
    bad |= key_int(pk, "durable_offset", info.durable_offset) | key_int(pk, "size_bytes", (int64_t)info.size_bytes);
    bad |= key_int(pk, "segments", info.segments) | key_int(pk, "leader_epoch", info.leader_epoch);
    bad |= key_text(pk, "state", p->log ? state_name(info.state) : "closed");
    if (!p->log) bad |= key_text(pk, "reason", p->why ? p->why : "");
    return bad;
}

struct config_walk {
    msgpack_packer *pk;
    size_t count;
    int bad;
};
static void count_config(void *opaque, const char *name, const char *value, bool is_default)
{
    (void)name, (void)value, (void)is_default;
    ((struct config_walk *)opaque)->count++;
}
static void put_config(void *opaque, const char *name, const char *value, bool is_default)
{
    struct config_walk *w = opaque;
    w->bad |= put_text(w->pk, name) | msgpack_pack_map(w->pk, 2);
    w->bad |= key_text(w->pk, "value", value) | key_bool(w->pk, "default", is_default);
}

static int put_topic(bw_broker *b, msgpack_packer *pk, const bw_topic *t)
{
    char id[23];
    bw_uuid_base64(&t->id, id);
    int bad = msgpack_pack_map(pk, 7);
    bad |= bw_lead_doc(pk, t);
    bad |= key_text(pk, "name", t->name) | key_text(pk, "id", id) | key_int(pk, "created_ms", t->created_ms);
    bad |= put_text(pk, "partitions") | msgpack_pack_array(pk, t->part_count);
    for (uint32_t i = 0; i < t->part_count; i++) bad |= put_partition(b, pk, t->parts[i]);
    struct config_walk w = {.pk = pk};
    bw_topic_config_each(&t->config, b->config.topic_defaults, count_config, &w);
    bad |= put_text(pk, "config") | msgpack_pack_map(pk, w.count);
    bw_topic_config_each(&t->config, b->config.topic_defaults, put_config, &w);
    return bad | w.bad;
}

static int by_name(const void *x, const void *y)
{
    const bw_topic *const *a = x, *const *b = y;
    return strcmp((*a)->name, (*b)->name);
}

void bw_handle_describe(bw_broker *b, bw_op *op)
{
    bw_topic *t = NULL, *tmp, **list;
    size_t n = 0;
    bw_err e = op->request.topic.len ? bw_topic_of(b, op->request.topic, false, &t) : BW_OK;
    list = e ? NULL : malloc((HASH_CNT(by_name, b->topics_by_name) + 1) * sizeof *list);
    if (!e && !list) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the list of topics");
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    if (t) list[n++] = t;
    else
        HASH_ITER(by_name, b->topics_by_name, t, tmp)
        {
            if (!t->deleting) list[n++] = t;
        }
    qsort(list, n, sizeof(*list), by_name);
    msgpack_packer pk;
    bw_doc_begin(b, &pk);
    int bad = msgpack_pack_array(&pk, n);
    for (size_t i = 0; i < n; i++) bad |= put_topic(b, &pk, list[i]);
    free(list);
    bw_doc_send(b, op, bad);
}

/* ---- status ---- */

static int64_t resident_bytes(void)
{
    char text[128];
    int fd = bw_os_open(AT_FDCWD, "/proc/self/statm", O_RDONLY, 0);
    if (fd < 0) return -1;
    ssize_t n = bw_os_pread(fd, text, sizeof text - 1, 0);
    bw_os_close(fd);
    long long pages = 0;
    text[n > 0 ? n : 0] = 0;
    return sscanf(text, "%*s %lld", &pages) == 1 ? pages * sysconf(_SC_PAGESIZE) : -1;
}

static int put_connection(msgpack_packer *pk, const bw_session *s)
{
    int bad = msgpack_pack_map(pk, 16);
    bad |= key_int(pk, "id", (int64_t)s->number) | key_text(pk, "client", s->client_id) | key_text(pk, "address", s->peer.address);
    bad |= key_text(pk, "user", s->user);
    bad |= key_int(pk, "pid", s->peer.pid) | key_int(pk, "uid", s->peer.uid) | key_text(pk, "role", bw_role_name(s->role));
    bad |= key_int(pk, "since_ms", s->since_wall_ms) | key_text(pk, "transport", s->transport) | key_text(pk, "why_not_direct", s->reason);
    bad |= key_int(pk, "direct_writer_topics", bw_attach_writers(s)) | key_int(pk, "requests", (int64_t)s->requests);
    bad |= key_int(pk, "produced_bytes", (int64_t)s->produced_bytes) | key_int(pk, "sent_bytes", (int64_t)s->sent_bytes);
    bad |= key_int(pk, "throttled_ms", (int64_t)s->throttle.throttled_ms);
    bad |= key_bool(pk, "throttled", s->throttle.held_count || s->throttle.muted_ns);
    return bad;
}

/* Where files lie, and who else is connected, is nobody's business elsewhere but an administrator's. */
static bool is_told_all(const bw_session *s) { return !s->peer.remote || s->role >= BW_ROLE_ADMIN; }

enum { PROCESS_KEYS = 9, PLACE_KEYS = 4 };

static int put_places(bw_broker *b, msgpack_packer *pk)
{
    return key_text(pk, "data_dir", b->dir->path) | key_text(pk, "runtime_dir", b->config.runtime_dir) |
           key_text(pk, "control_dir", b->arena_path) | key_text(pk, "direct_path_off", b->no_direct);
}

static int put_process(bw_broker *b, msgpack_packer *pk)
{
    char text[33];
    bw_uuid id;
    int bad = key_text(pk, "version", BW_VERSION_STRING) | key_int(pk, "pid", getpid()) | key_int(pk, "uid", (int64_t)b->uid);
    bad |= key_int(pk, "started_ms", b->started_wall_ms) | key_int(pk, "uptime_ms", bw_clock_mono_ms() - b->started_mono_ms);
    memcpy(id.b, b->dir->generation, 16);
    bw_uuid_hex(&id, text);
    bad |= key_text(pk, "generation", text);
    id = bw_store_bus_id(b->store);
    bw_uuid_hex(&id, text);
    bad |= key_text(pk, "bus_id", text);
    bad |= key_bool(pk, "ready", b->ready) | key_text(pk, "not_ready", b->not_ready);
    return bad;
}

void bw_handle_status(bw_broker *b, bw_op *op)
{
    msgpack_packer pk;
    bw_doc_begin(b, &pk);
    bw_store_info store;
    bw_store_info_get(b->store, &store);
    uint64_t partitions = 0;
    for (uint32_t i = 0; i < b->parts_count; i++) partitions += b->parts[i] != NULL;
    bool all = is_told_all(op->session);
    int bad = msgpack_pack_map(&pk, PROCESS_KEYS + (all ? PLACE_KEYS : 0) + 9 + (b->links != NULL));
    bad |= put_process(b, &pk);
    if (all) bad |= put_places(b, &pk);
    bad |= key_int(&pk, "topics", HASH_CNT(by_name, b->topics_by_name)) | key_int(&pk, "partitions", (int64_t)partitions);
    bad |= key_int(&pk, "memory_bytes", resident_bytes()) | key_int(&pk, "syncs", (int64_t)atomic_load(&b->syncs));
    bad |= put_text(&pk, "disk") | msgpack_pack_map(&pk, 3);
    bad |= key_int(&pk, "free_bytes", bw_os_free_bytes(b->dir->fd)) | key_int(&pk, "reserve_bytes", atomic_load(&b->reserve_bytes));
    bad |= key_bool(&pk, "low", atomic_load(&b->low_space));
    bad |= put_text(&pk, "meta") | msgpack_pack_map(&pk, 3);
    bad |= key_int(&pk, "map_bytes", (int64_t)store.map_bytes) | key_int(&pk, "used_bytes", (int64_t)store.used_bytes);
    bad |= key_bool(&pk, "failed", store.failed);
    bw_offsets_counters c;
    bw_offsets_count(b, &c);
    bad |= put_text(&pk, "offsets") | msgpack_pack_map(&pk, 5);
    bad |= key_int(&pk, "groups", (int64_t)c.groups) | key_int(&pk, "committed", (int64_t)c.offsets) | key_int(&pk, "bytes", (int64_t)c.bytes);
    bad |= key_int(&pk, "commits", (int64_t)c.commits) | key_int(&pk, "transactions", (int64_t)c.rounds);
    bad |= put_text(&pk, "quotas") | bw_quota_pack(b, NULL);
    if (b->links) bad |= put_text(&pk, "links") | b->links->status(b->links_opaque, &pk);
    bad |= put_text(&pk, "connections") | msgpack_pack_array(&pk, all ? b->session_count : 1);
    for (const bw_session *s = b->sessions; all && s; s = s->next) bad |= put_connection(&pk, s);
    if (!all) bad |= put_connection(&pk, op->session);
    bw_doc_send(b, op, bad);
}
